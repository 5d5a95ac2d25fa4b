//! The other hosts on the LAN, as far as addresses of ours go: told where an address is, asked before it is first used,
//! and answered once when one of them claims what this node has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::conflict::MacText;

use crate::advertise::arp_nd::defence::{Attack, Defence};
use crate::advertise::arp_nd::frame;
use crate::advertise::arp_nd::hearing::{Heard, Said};
use crate::advertise::arp_nd::listener::Listener;
use crate::advertise::arp_nd::probe::{Probes, Question, Standing};
use crate::advertise::arp_nd::schedule::{Frame, Schedule};
use crate::advertise::arp_nd::socket::Sockets;
use crate::backoff::Seldom;
use crate::kernel::Host;
use crate::metrics::{Metrics, kind};
use crate::vip::Link;

/// Batches of frames that one round sends before it decides anew.
const BATCHES: usize = 4;

/// The other hosts on the LAN.
pub(super) struct Lan {
    pub(super) listener: Listener,
    pub(super) probes: Probes,
    pub(super) schedule: Schedule,
    sockets: Sockets,
    defence: Defence,
    /// When it was last logged that another host claims an address, or answers for it.
    claimed: Seldom<IpAddr>,
    /// What this node answers for and announces.
    answered: BTreeMap<IpAddr, Link>,
    /// Why this node is deaf, as it was last told.
    deaf: Option<String>,
    metrics: Metrics,
}

impl Lan {
    /// After its burst an address is announced each `refresh`.
    pub(super) fn new(refresh: Duration, metrics: Metrics) -> Self {
        Self {
            listener: Listener::default(),
            probes: Probes::default(),
            schedule: Schedule::new(refresh),
            sockets: Sockets::default(),
            defence: Defence::default(),
            claimed: Seldom::default(),
            answered: BTreeMap::new(),
            deaf: None,
            metrics,
        }
    }

    /// When there is something to do if nothing is heard.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let deadlines = [self.schedule.deadline(), self.probes.deadline(), self.defence.deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// Whether this node answers for an address.
    pub(super) fn answers(&self, address: &IpAddr) -> bool {
        self.answered.contains_key(address)
    }

    /// Whether no other host has an address, as far as that was asked.
    pub(super) fn is_free(&self, address: &IpAddr) -> bool {
        self.answers(address) || self.probes.standing(address) == Some(Standing::Free)
    }

    /// Takes in what neighbours have said; true if any of it is about an address of ours. Before anything is decided:
    /// whoever has an address has had its say.
    pub(super) fn hear(&mut self, host: &Host, now: Instant) -> bool {
        let mut all: Vec<(u32, Heard)> = Vec::new();
        self.listener.receive(|index, heard| all.push((index, heard)));
        if all.is_empty() {
            return false;
        }
        // A node with two interfaces on one LAN hears itself, and its other interface may answer for this one.
        let own: BTreeSet<_> = host.interfaces.values().filter_map(|i| i.mac).collect();
        for (index, heard) in all.into_iter().filter(|(_, heard)| !own.contains(&heard.mac)) {
            let Heard { address, mac, said } = heard;
            if self.answered.get(&address).is_some_and(|link| link.index == index) {
                if said == Said::Claim {
                    self.defence.hear(address, mac, now);
                }
            } else if self.probes.hear(index, &heard, now) {
                if self.claimed.may(address, now) {
                    let mac = MacText(mac);
                    tracing::warn!(%address, %mac, "another machine answers for it; it is not taken into use");
                }
                self.metrics.conflicts.get_or_create(&kind("taken")).inc();
            }
        }
        true
    }

    /// Asks for what was never in use, and listens for that and for what is bound.
    pub(super) fn ask(
        &mut self,
        questions: &BTreeMap<IpAddr, Question>,
        host: &Host,
        now: Instant,
    ) {
        self.probes.keep(questions, now);
        let places = self.probes.places();
        let mut wanted: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        let bound = host.ours.keys().map(|binding| (binding.index, binding.address));
        for (index, address) in bound.chain(places.iter().copied()) {
            wanted.entry(index).or_default().insert(address);
        }
        let mut errors = self.listener.keep(&wanted);
        errors.extend(self.listener.join(&places).err());
        let told = errors.first().map(ToString::to_string);
        if self.deaf != told {
            if let Some(error) = &told {
                tracing::warn!(error, "cannot hear whether another host has an address");
            }
            self.deaf = told;
        }
        for _ in 0..BATCHES {
            let frames = self.probes.poll(now);
            if frames.is_empty() {
                break;
            }
            for (address, frame) in frames {
                match self.sockets.send(&frame) {
                    Ok(()) => _ = self.metrics.probes_sent.inc(),
                    Err(error) => {
                        tracing::debug!(%error, %address, "probe lost");
                        self.probes.lost(address, now);
                    }
                }
            }
        }
    }

    /// Announces what is held; true if there is more to send at once. Nothing any more once a hold has ended: the
    /// program may have been stopped since the round began, and others may answer by now.
    pub(super) fn announce(&mut self, held: BTreeMap<IpAddr, Link>, ends: Option<Instant>) -> bool {
        self.schedule.keep(&held, Instant::now());
        self.answered = held;
        for _ in 0..BATCHES {
            let now = Instant::now();
            if ends.is_some_and(|ends| ends <= now) {
                return true;
            }
            let Some(frames) = self.schedule.poll(now) else { return false };
            for frame in frames {
                match self.sockets.send(&frame) {
                    Ok(()) => self.metrics.frames_sent.inc(),
                    Err(error) => {
                        tracing::debug!(%error, index = frame.index, "frame lost");
                        self.metrics.frames_lost.inc()
                    }
                };
            }
        }
        true
    }

    /// Says once, to whoever claims it, that an address is this node's. Gives those that were told, and of what.
    pub(super) fn defend(&mut self, now: Instant) -> Vec<Attack> {
        let Self { defence, answered, claimed, .. } = self;
        let attacks = defence.poll(|address| answered.contains_key(address), now);
        for Attack { address, mac, answer } in &attacks {
            let what = if *answer { "defended" } else { "endured" };
            self.metrics.conflicts.get_or_create(&kind(what)).inc();
            // Counted each time, for nobody reads thousands of lines.
            if claimed.may(*address, now) {
                tracing::warn!(%address, mac = %MacText(*mac), what, "another host claims it");
            }
            let Some(link) = self.answered.get(address).filter(|_| *answer) else { continue };
            let bytes = frame::defend(*address, link.mac);
            match self.sockets.send(&Frame { index: link.index, bytes }) {
                Ok(()) => _ = self.metrics.frames_sent.inc(),
                Err(_) => _ = self.metrics.frames_lost.inc(),
            }
        }
        attacks.into_iter().filter(|attack| attack.answer).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tracing::span::{Attributes, Id, Record};
    use tracing::{Event, Level, Subscriber};

    use super::*;

    /// Counts the warnings of a log.
    struct Warnings(Arc<AtomicUsize>);

    impl Subscriber for Warnings {
        fn enabled(&self, _: &tracing::Metadata<'_>) -> bool {
            true
        }

        fn new_span(&self, _: &Attributes<'_>) -> Id {
            Id::from_u64(1)
        }

        fn record(&self, _: &Id, _: &Record<'_>) {}

        fn record_follows_from(&self, _: &Id, _: &Id) {}

        fn event(&self, event: &Event<'_>) {
            let warns = *event.metadata().level() == Level::WARN;
            self.0.fetch_add(usize::from(warns), Ordering::Relaxed);
        }

        fn enter(&self, _: &Id) {}

        fn exit(&self, _: &Id) {}
    }

    #[test]
    fn claims_with_another_hardware_address_each_are_counted_and_logged_once_a_minute() {
        let (address, begin) = ("192.0.2.1".parse().unwrap(), Instant::now());
        let metrics = Metrics::default();
        let mut lan = Lan::new(Duration::from_secs(60), metrics.clone());
        lan.answered = [(address, Link { index: u32::MAX, mac: [2; 6] })].into();
        let warnings = Arc::new(AtomicUsize::new(0));
        tracing::subscriber::with_default(Warnings(warnings.clone()), || {
            for tick in 0..1_500_u32 {
                let [a, b, c, d] = tick.to_be_bytes();
                let now = begin + Duration::from_millis(60) * tick;
                lan.defence.hear(address, [2, 0, a, b, c, d], now);
                lan.defend(now + Duration::from_millis(50));
            }
        });
        let counted = |what| metrics.conflicts.get_or_create(&kind(what)).get();
        assert_eq!(counted("endured") + counted("defended"), 1_500);
        assert_eq!(warnings.load(Ordering::Relaxed), 2, "in a minute and a half");
    }
}
