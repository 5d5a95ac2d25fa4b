//! The part of a round that is about elastic IPs: what to translate, what to bind, what to say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::reason;
use berth_runtime::events::{Report, Severity};
use jiff::Timestamp;
use tokio::sync::watch;

use super::{Announcer, ask_for};
use crate::backoff::Backoff;
use crate::dataplane::eip::{Family, Nat, Told};
use crate::desired::{Desired, Scene};
use crate::kernel::{self, Kernel};
use crate::metrics::cause;
use crate::publish::events::eip_reference;
use crate::publish::writer::Outcome;
use crate::source::cluster::{Eip, Name, Networks, manager};
use crate::source::eip::{self, Apply, Outlook, Translations, Turns, Usage};

/// What this node knows and does about elastic IPs.
pub(super) struct Elastic {
    /// Whether every `EipBinding` was shown.
    listed: bool,
    pub(super) networks: Networks,
    pub(super) turns: Turns,
    pub(super) usage: Usage,
    translations: Translations,
    wanted: watch::Sender<Option<Nat>>,
    /// What the kernel translates.
    translated: Nat,
    /// Why it does not do what is wanted.
    broken: Option<String>,
    pace: Backoff<Name>,
    /// How this node signs what it writes.
    manager: String,
    /// Families for which settings of the host that are in the way were told.
    advised: Vec<Family>,
}

impl Elastic {
    pub(super) fn new(node: &str, now: Instant) -> Self {
        let second = Duration::from_secs(1);
        Self {
            listed: false,
            networks: Networks::default(),
            turns: Turns::new(now),
            usage: Usage::default(),
            translations: Translations::default(),
            wanted: watch::channel(None).0,
            translated: Nat::default(),
            broken: None,
            pace: Backoff::new(second / 10, second * 2),
            manager: manager(node),
            advised: Vec::new(),
        }
    }

    /// When something is due although nothing happens.
    pub(super) fn deadlines(&self, now: Instant) -> [Option<Instant>; 2] {
        [self.translations.deadline(now), self.pace.deadline(now)]
    }
}

impl<K: Kernel> Announcer<K> {
    /// Translates elastic IPs by telling `wanted` what is to be in the kernel.
    #[must_use]
    pub fn with_translation(mut self, wanted: watch::Sender<Option<Nat>>) -> Self {
        self.elastic.wanted = wanted;
        self
    }

    /// Takes in what the keeper of translations told.
    pub fn translated(&mut self, told: Told) {
        match told {
            Told::Holds(nat) => (self.elastic.translated, self.elastic.broken) = (nat, None),
            Told::Failed(error) => self.elastic.broken = Some(error),
        }
    }

    pub(super) fn eips_listed(&mut self, names: &BTreeSet<Name>) {
        self.cluster.retain_eips(names);
        self.elastic.listed = true;
    }

    /// Takes in what bindings say, before anything is decided on their addresses.
    pub(super) fn regard(&mut self, now: Instant) {
        let (cluster, host, node) = (&self.cluster, &self.host, self.config.node.as_str());
        let scene = Scene { cluster, host, node, interface: self.config.interface.as_deref() };
        self.elastic.usage.see(scene);
        if self.elastic.listed {
            self.elastic.turns.see(scene, now);
        }
    }

    /// What this node is to hold where Leases decide on Services, elastic IPs whose turn it is among it. No fellow node
    /// has any of it: the last holder of a Lease has let go of everything before it gives the Lease back.
    pub(super) fn asked(&self, desired: &Desired, now: Instant) -> BTreeSet<IpAddr> {
        let timing = self.config.timing;
        let due = eip::due(self.scene(), &self.elastic.turns, timing.duration(), now);
        let due = due.map(|(address, _)| address).filter(|_| !self.leaving && self.elastic.listed);
        desired.addresses.keys().copied().chain(due).collect()
    }

    /// Says what is to be translated, as soon as it is known what never is. After [`Announcer::ask`]: what is to be asked
    /// for on the LAN waits for the answer.
    pub(super) fn translate(&mut self, now: Instant) {
        let (cluster, host, node) = (&self.cluster, &self.host, self.config.node.as_str());
        let interface = self.config.interface.as_deref();
        let scene = Scene { cluster, host, node, interface };
        let elastic = &mut self.elastic;
        if !elastic.listed {
            return;
        }
        let (neighbours, usage, asks) = (&self.neighbours, &elastic.usage, self.config.probe);
        let is_free = |eip: &IpAddr| !asks || usage.has(eip) || neighbours.is_free(eip);
        elastic.translations.see(scene, is_free, now);
        elastic.turns.see(scene, now);
        let (pairs, parting) = (elastic.translations.pairs(now), elastic.translations.parting());
        let internal = match &self.config.internal {
            // Nothing to translate: nothing to know.
            _ if pairs.is_empty() => Some([].into()),
            Some(given) => Some(given.clone()),
            None => elastic.networks.all(),
        };
        let Some(internal) = internal else { return };
        let uplink = self.config.interface.clone().filter(|_| !pairs.is_empty());
        let gateways = match pairs.is_empty() {
            true => [].into(),
            false => self.config.gateways.clone(),
        };
        for family in Family::ALL {
            let used = pairs.keys().any(|eip| Family::of(eip) == family);
            if used && !elastic.advised.contains(&family) {
                elastic.advised.push(family);
                let uplink = interface.or(host.default_route.as_deref()).unwrap_or("all");
                let read = |path: &str| std::fs::read_to_string(format!("/proc/sys/{path}")).ok();
                for advice in kernel::translation_advice(family == Family::V4, uplink, read) {
                    tracing::warn!("{advice}");
                }
            }
        }
        ask_for(&elastic.wanted, Some(Nat { pairs, parting, internal, uplink, gateways }));
    }

    /// Adds the elastic IPs that this node should hold where membership decides.
    pub(super) fn hold_fenced(&self, desired: &mut Desired, now: Instant) {
        if let Some(members) = &self.members {
            let translated = &self.elastic.translated;
            let probes = &self.neighbours.probes;
            let holdings = members.holdings();
            eip::fenced(&mut desired.addresses, self.scene(), holdings, translated, probes, now);
        }
    }

    /// Adds the elastic IPs that this node should hold where Leases decide on Services. Gives when that may change.
    pub(super) fn hold_leased(
        &mut self,
        desired: &mut Desired,
        now: Instant,
    ) -> [Option<Instant>; 2] {
        if self.leaving || !self.elastic.listed {
            return [None; 2];
        }
        let timing = self.config.timing;
        let times = (timing.renew_deadline(), timing.duration());
        let Elastic { turns, translated, .. } = &self.elastic;
        let probes = &self.neighbours.probes;
        eip::leased(&mut desired.addresses, self.scene(), turns, translated, probes, times, now);
        let ask = timing.retry();
        if self.elastic.turns.asks(ask, now) {
            self.writer.ask();
        }
        let turns = &self.elastic.turns;
        [turns.due(times.1, now), turns.deadline(ask).map(|due| due.max(now + ask / 2))]
    }

    /// Writes what has become true of elastic IPs on this node.
    #[allow(clippy::disallowed_methods, reason = "the time of a condition is for people")]
    pub(super) fn sign(&mut self, desired: &Desired, now: Instant) {
        let answering = self.answering(desired, now);
        let refused: BTreeMap<IpAddr, String> =
            self.refused.iter().map(|(binding, error)| (binding.address, error.clone())).collect();
        let granted = |address: &IpAddr| {
            let members = self.members.as_ref();
            members.is_none_or(|members| members.holdings().is_granted(address))
        };
        let taken = eip::conflicts(self.scene(), &self.neighbours.probes, granted);
        let outlook = Outlook {
            answering: &answering,
            taken: &taken,
            translated: &self.elastic.translated,
            broken: self.elastic.broken.as_deref(),
            refused: &refused,
        };
        for apply in eip::applies(self.scene(), &outlook, Timestamp::now()) {
            let name = &apply.name;
            if self.writer.is_free_for(name) && self.elastic.pace.is_due(name, now) {
                self.writer.apply(apply, &self.elastic.manager);
            }
        }
        let eips = self.cluster.eips();
        self.elastic.pace.retain(|name| eips.contains_key(name));
        let held = eips.values().flat_map(Eip::addresses);
        let held = held.filter(|address| answering.live.contains(address)).count();
        self.metrics.eips.set(held.try_into().unwrap_or(i64::MAX));
    }

    /// Takes in how a write to an `EipBinding` has ended.
    pub(super) fn applied(&mut self, apply: Apply, outcome: Outcome<Eip>, now: Instant) {
        self.writer.applied(&apply.name);
        self.elastic.pace.again(apply.name.clone(), now);
        let outcome = match outcome {
            Outcome::Written(eip) => {
                for note in apply.news {
                    self.events.publish(Report {
                        regarding: eip_reference(&apply.name, Some(apply.uid.clone())),
                        severity: Severity::Warning,
                        reason: reason::ADDRESS_CONFLICT,
                        action: "Announce",
                        note,
                    });
                }
                self.cluster.apply_written_eip(apply.name, *eip);
                "written"
            }
            Outcome::Overtaken => "overtaken",
            Outcome::Failed(error) => {
                tracing::warn!(eip = %apply.name, %error, "cannot write the status");
                "failed"
            }
        };
        self.metrics.status_writes.get_or_create(&cause(outcome)).inc();
    }
}
