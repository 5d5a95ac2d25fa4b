//! What other hosts on the LAN say about addresses of ours: asked before an address is first used, answered once when
//! one of them claims what this node has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::conflict::MacText;
use berth_api::reason;
use berth_runtime::events::{Report, Severity};

use super::Announcer;
use crate::advertise::arp_nd::defence::{Attack, Defence};
use crate::advertise::arp_nd::frame;
use crate::advertise::arp_nd::hearing::{Heard, Said};
use crate::advertise::arp_nd::listener::Listener;
use crate::advertise::arp_nd::probe::{Probes, Standing};
use crate::advertise::arp_nd::schedule::{Frame, Link};
use crate::desired::{self, Scene};
use crate::kernel::Kernel;
use crate::metrics::kind;
use crate::publish::events::{eip_reference, service_reference};
use crate::source::eip;

/// Batches of probes that one round sends before it goes on.
const BATCHES: usize = 4;

/// The other hosts on the LAN, as far as addresses of ours go.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    listener: Listener,
    pub(super) probes: Probes,
    defence: Defence,
    /// What this node answers for and has announced.
    pub(super) answered: BTreeMap<IpAddr, Link>,
    /// Why this node is deaf, as it was last told.
    deaf: Option<String>,
}

impl Neighbours {
    /// When there is something to do if nothing is heard.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.probes.deadline(), self.defence.deadline()].into_iter().flatten().min()
    }

    /// Whether no other host has an address, as far as that was asked.
    pub(super) fn is_free(&self, address: &IpAddr) -> bool {
        self.answered.contains_key(address) || self.probes.standing(address) == Some(Standing::Free)
    }
}

impl<K: Kernel> Announcer<K> {
    /// What hears the neighbours. A round takes in what they have said.
    pub fn listener(&self) -> &Listener {
        &self.neighbours.listener
    }

    /// Takes in what neighbours have said; true if any of it is about an address of ours. Before anything is decided:
    /// whoever has an address has had its say.
    pub fn hear(&mut self, now: Instant) -> bool {
        let mut all: Vec<(u32, Heard)> = Vec::new();
        self.neighbours.listener.receive(|index, heard| all.push((index, heard)));
        if all.is_empty() {
            return false;
        }
        // A node with two interfaces on one LAN hears itself, and its other interface may answer for this one.
        let own: BTreeSet<_> = self.host.interfaces.values().filter_map(|i| i.mac).collect();
        for (index, heard) in all.into_iter().filter(|(_, heard)| !own.contains(&heard.mac)) {
            let Heard { address, mac, said } = heard;
            if self.neighbours.answered.get(&address).is_some_and(|link| link.index == index) {
                if said == Said::Claim {
                    self.neighbours.defence.hear(address, mac, now);
                }
            } else if self.neighbours.probes.hear(index, &heard, now) {
                let mac = MacText(mac);
                tracing::warn!(%address, %mac, "another machine answers for it; it is not taken into use");
                self.metrics.conflicts.get_or_create(&kind("taken")).inc();
            }
        }
        true
    }

    /// Asks for what was never in use, and listens for that and for what is bound.
    pub(super) fn ask(
        &mut self,
        asked: &BTreeSet<IpAddr>,
        is_first: impl Fn(&IpAddr) -> bool,
        now: Instant,
    ) {
        let (cluster, host, node) = (&self.cluster, &self.host, self.config.node.as_str());
        let scene = Scene { cluster, host, node, interface: self.config.interface.as_deref() };
        // What this node answers for is in use, whatever has become of the status.
        let answered = &self.neighbours.answered;
        let asked = asked.iter().filter(|a| self.config.probe && !answered.contains_key(*a));
        let asked = asked.copied().collect();
        let mut questions = desired::questions(scene, &asked, &is_first);
        questions.extend(eip::questions(scene, &self.elastic.usage, &asked, &is_first));
        let Neighbours { listener, probes, deaf, .. } = &mut self.neighbours;
        probes.keep(&questions, now);
        let places = probes.places();
        let mut wanted: BTreeMap<u32, BTreeSet<IpAddr>> = BTreeMap::new();
        let bound = self.host.ours.keys().map(|binding| (binding.index, binding.address));
        for (index, address) in bound.chain(places.iter().copied()) {
            wanted.entry(index).or_default().insert(address);
        }
        let mut errors = listener.keep(&wanted);
        errors.extend(listener.join(&places).err());
        let told = errors.first().map(ToString::to_string);
        if *deaf != told {
            if let Some(error) = &told {
                tracing::warn!(error, "cannot hear whether another host has an address");
            }
            *deaf = told;
        }
        for _ in 0..BATCHES {
            let frames = self.neighbours.probes.poll(now);
            if frames.is_empty() {
                break;
            }
            for (address, frame) in frames {
                match self.sockets.send(&frame) {
                    Ok(()) => _ = self.metrics.probes_sent.inc(),
                    Err(error) => {
                        tracing::debug!(%error, %address, "probe lost");
                        self.neighbours.probes.lost(address, now);
                    }
                }
            }
        }
    }

    /// Says once, to whoever claims it, that an address is this node's.
    pub(super) fn defend(&mut self, now: Instant) {
        let Neighbours { defence, answered, .. } = &mut self.neighbours;
        for attack in defence.poll(|address| answered.contains_key(address), now) {
            self.answer(attack);
        }
    }

    fn answer(&mut self, attack: Attack) {
        let Attack { address, mac, answer } = attack;
        let Some(link) = self.neighbours.answered.get(&address).copied() else { return };
        let what = if answer { "defended" } else { "endured" };
        self.metrics.conflicts.get_or_create(&kind(what)).inc();
        let mac = MacText(mac);
        tracing::warn!(%address, %mac, what, "another host claims it");
        if !answer {
            return;
        }
        let bytes = frame::defend(address, link.mac);
        match self.sockets.send(&Frame { index: link.index, bytes }) {
            Ok(()) => _ = self.metrics.frames_sent.inc(),
            Err(_) => _ = self.metrics.frames_lost.inc(),
        }
        let node = &self.config.node;
        let note = format!(
            "another host, {mac}, says that it has {address}; node {node} keeps it and has said so, once"
        );
        let services = self.cluster.services().iter();
        let services = services.filter(|(_, service)| service.addresses.contains(&address));
        let eips = self.cluster.eips().iter();
        let eips = eips.filter(|(_, eip)| eip.addresses().any(|own| own == address));
        let regarded = services
            .map(|(name, service)| service_reference(name, Some(service.uid.clone())))
            .chain(eips.map(|(name, eip)| eip_reference(name, Some(eip.uid.clone()))));
        for regarding in regarded {
            self.events.publish(Report {
                regarding,
                severity: Severity::Warning,
                reason: reason::ADDRESS_CONFLICT,
                action: "Defend",
                note: note.clone(),
            });
        }
    }
}
