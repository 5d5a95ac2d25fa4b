//! One round: look, decide, perform, tell.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::plan::plan;
use super::{Announcer, ask_for};
use crate::advertise::arp_nd::schedule::Link;
use crate::desired::{self, Desired, Inputs, Refusal, Scene};
use crate::kernel::{Binding, Kernel, Step, Vlan};
use crate::metrics::cause;
use crate::ownership::View;
use crate::ownership::leases::Tied;
use crate::publish::events;
use crate::publish::status::{self, Answering};
use crate::source::cluster::Name;

/// Pause between looks at the kernel when it tells of no change.
const LOOK: Duration = Duration::from_secs(10);

/// Batches of frames that one round sends before it decides anew.
const BATCHES: usize = 4;

/// A round must come by this often, or the process is stuck.
const STUCK: Duration = Duration::from_secs(60);

impl<K: Kernel> Announcer<K> {
    /// Decides and performs once. Gives the moment at which the next round is due if nothing happens before.
    pub async fn round(&mut self) -> Instant {
        let now = Instant::now();
        self.health.alive("loop", now, STUCK);
        if self.look_at <= now {
            self.look(now).await;
        }
        self.hear(now);
        self.regard(now);
        if self.is_member() {
            return self.fenced_round(now).await;
        }
        let leases = self.strategy.leases(&self.cluster);
        let wanted = self.wanted(&leases);
        let mut desired = self.decide(&leases, &wanted, now);
        self.ask(&self.asked(&desired, now), |_| true, now);
        self.translate(now);
        desired.withhold(self.scene(), &self.neighbours.probes);
        desired.vlans = self.vlans();
        let turns = self.hold_leased(&mut desired, now);
        // Renewed in steps: each renewal of a lifetime wakes everybody who listens for addresses.
        self.perform(&desired, self.config.timing.renew_deadline() * 2 / 5, now).await;
        let more = self.announce(&desired);
        let now = Instant::now();
        self.defend(now);
        let pending = self.publish(&desired, now);
        self.sign(&desired, now);
        self.strive(&leases, &wanted, &desired, &pending, now);
        let wake = self.elect(now);
        if more {
            return now;
        }
        let ends = desired.addresses.values().map(|place| place.until).min();
        let deadlines = [
            wake,
            ends,
            self.schedule.deadline(),
            self.neighbours.deadline(),
            self.kernel_pace.deadline(now),
            self.vlan_pace.deadline(now),
            self.status_pace.deadline(now),
            self.contests.deadline(now),
            self.refusals.deadline(),
        ];
        let elastic = turns.into_iter().chain(self.elastic.deadlines(now));
        deadlines.into_iter().chain(elastic).flatten().fold(self.look_at, Instant::min)
    }

    async fn look(&mut self, now: Instant) {
        self.look_at = now + LOOK;
        if let Some(members) = &mut self.members {
            members.touch();
        }
        match self.kernel.look().await {
            Ok(mut host) => {
                self.schedule.route(&host.gateways, now);
                host.unmade = std::mem::take(&mut self.host.unmade);
                host.unmade.retain(|name, _| !host.interfaces.contains_key(name));
                self.host = host;
            }
            Err(error) => {
                tracing::error!(%error, "cannot see the network");
                self.metrics.kernel_errors.get_or_create(&cause("look")).inc();
                self.look_at = now + Duration::from_secs(1);
            }
        }
        let found = desired::interface(&self.host, self.config.interface.as_deref()).err();
        if found != self.interface {
            match &found {
                Some(refusal) => {
                    tracing::error!("{}; waiting for it (vip_interface)", refusal.note());
                }
                None => tracing::info!("the interface is there again"),
            }
        }
        match &found {
            Some(refusal) => self.health.unready("interface", refusal.note()),
            None => self.health.ready("interface"),
        }
        self.interface = found;
    }

    /// By Service, what this node should hold; nothing while it does not know the cluster or is leaving.
    fn decide(
        &self,
        leases: &BTreeMap<Name, Name>,
        wanted: &BTreeMap<Name, Option<Tied>>,
        now: Instant,
    ) -> Desired {
        let hold = |lease: &Name| match wanted.contains_key(lease) {
            true => (self.leases.view(lease, now), self.leases.holds_until(lease, now)),
            false => (View::default(), None),
        };
        let mut desired = desired::desired(&self.inputs(leases, &hold));
        self.note_refused(&mut desired);
        desired
    }

    /// Adds what the kernel refused to what becomes of Services.
    pub(super) fn note_refused(&self, desired: &mut Desired) {
        for verdict in desired.verdicts.values_mut() {
            for (binding, error) in &self.refused {
                if verdict.announce.contains(&binding.address) {
                    let (address, error) = (binding.address, error.clone());
                    verdict.refusals.push(Refusal::NotBound { address, error });
                }
            }
        }
    }

    fn inputs<'a>(
        &'a self,
        leases: &'a BTreeMap<Name, Name>,
        hold: &'a dyn Fn(&Name) -> (View, Option<Instant>),
    ) -> Inputs<'a> {
        Inputs { scene: self.scene(), leases, hold }
    }

    /// The VLAN interfaces to have; none is left behind.
    pub(super) fn vlans(&mut self) -> BTreeMap<String, Vlan> {
        let wanted = if self.leaving { BTreeMap::new() } else { desired::vlans(self.scene()) };
        self.vlan_pace.retain(|name| wanted.contains_key(name));
        self.host.unmade.retain(|name, _| wanted.contains_key(name));
        wanted
    }

    /// What is seen from this node.
    pub(super) fn scene(&self) -> Scene<'_> {
        let interface = self.config.interface.as_deref();
        let (cluster, host, node) = (&self.cluster, &self.host, self.config.node.as_str());
        Scene { cluster, host, node, interface }
    }

    fn wanted(&self, leases: &BTreeMap<Name, Name>) -> BTreeMap<Name, Option<Tied>> {
        if self.leaving || !self.listed.services || !self.listed.slices {
            return BTreeMap::new();
        }
        desired::wanted(&self.inputs(leases, &|_| (View::default(), None)), &*self.strategy)
    }

    /// Does what the plan says. What the kernel refuses is tried again, ever more slowly, and holds up nothing else.
    pub(super) async fn perform(&mut self, desired: &Desired, slack: Duration, now: Instant) {
        for step in plan(desired, &self.host, &self.guard, slack, now) {
            match step {
                Step::Guard(ports) => {
                    ask_for(&self.guarded, ports);
                }
                Step::Remove(binding) if self.kernel_pace.is_due(&binding, now) => {
                    let done = self.kernel.remove(binding).await.map_err(|e| e.to_string());
                    if self.count("remove", binding, done, now) {
                        tracing::info!(address = %binding.address, "no longer holding");
                        self.host.ours.remove(&binding);
                    }
                }
                Step::Bind(binding, lifetime) if self.kernel_pace.is_due(&binding, now) => {
                    let renewal = self.host.ours.contains_key(&binding);
                    let done = self.kernel.bind(binding, lifetime).await.map_err(|e| e.to_string());
                    let step = if renewal { "renew" } else { "bind" };
                    if self.count(step, binding, done, now) {
                        if !renewal {
                            tracing::info!(address = %binding.address, index = binding.index, "holding");
                        }
                        self.host.ours.insert(binding, lifetime);
                    }
                }
                Step::MakeVlan(name, vlan) if self.vlan_pace.is_due(&name, now) => {
                    self.make_vlan(name, vlan, now).await;
                }
                Step::RemoveLink(index) => match self.kernel.remove_link(index).await {
                    Ok(()) => {
                        tracing::info!(index, "the VLAN interface is not needed any more");
                        self.host.made.remove(&index);
                        self.host.interfaces.retain(|_, interface| interface.index != index);
                        self.metrics.steps.get_or_create(&cause("remove_vlan")).inc();
                    }
                    Err(error) => tracing::error!(index, %error, "a VLAN interface stays"),
                },
                Step::Remove(_) | Step::Bind(..) | Step::MakeVlan(..) => {}
            }
        }
        let planned = |binding: &Binding| {
            self.host.ours.contains_key(binding) || desired.addresses.contains_key(&binding.address)
        };
        self.refused.retain(|binding, _| planned(binding));
        self.metrics.addresses.set(self.host.ours.len().try_into().unwrap_or(i64::MAX));
    }

    async fn make_vlan(&mut self, name: String, vlan: Vlan, now: Instant) {
        match self.kernel.make_vlan(&name, vlan).await {
            Ok(()) => {
                tracing::info!(name, id = vlan.id, "made the VLAN interface");
                self.metrics.steps.get_or_create(&cause("make_vlan")).inc();
                self.look_at = now;
            }
            Err(error) => {
                self.metrics.kernel_errors.get_or_create(&cause("make_vlan")).inc();
                let error = error.to_string();
                if self.host.unmade.insert(name.clone(), error.clone()).as_ref() != Some(&error) {
                    tracing::error!(name, error, "cannot make the VLAN interface");
                    // Another node may be able to.
                    if let Some(members) = &mut self.members {
                        members.touch();
                    }
                }
                self.vlan_pace.again(name, now);
            }
        }
    }

    /// Counts a step; true if the kernel did it.
    fn count(
        &mut self,
        step: &'static str,
        binding: Binding,
        done: Result<(), String>,
        now: Instant,
    ) -> bool {
        match done {
            Ok(()) => {
                self.metrics.steps.get_or_create(&cause(step)).inc();
                self.refused.remove(&binding);
                true
            }
            Err(error) => {
                self.metrics.kernel_errors.get_or_create(&cause(step)).inc();
                self.kernel_pace.again(binding, now);
                self.look_at = self.look_at.min(now + Duration::from_secs(1));
                if self.refused.get(&binding) != Some(&error) {
                    tracing::error!("{error}");
                    self.refused.insert(binding, error);
                    // Another node had better have it.
                    if let Some(members) = &mut self.members {
                        members.touch();
                    }
                }
                false
            }
        }
    }

    /// Announces what is held; true if there is more to send at once.
    pub(super) fn announce(&mut self, desired: &Desired) -> bool {
        let held: BTreeMap<IpAddr, Link> = desired
            .addresses
            .iter()
            .filter(|(_, place)| place.answers)
            .map(|(address, place)| (*address, place.link))
            .filter(|(address, link)| {
                self.host.ours.contains_key(&Binding { index: link.index, address: *address })
            })
            .collect();
        let ends = desired.addresses.values().map(|place| place.until).min();
        self.schedule.keep(&held, Instant::now());
        self.neighbours.answered = held;
        for _ in 0..BATCHES {
            let now = Instant::now();
            // The program may have been stopped since the round began: then others may answer by now.
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

    /// Writes what has become true into the status of Services. Gives those that are not written yet.
    pub(super) fn publish(&mut self, desired: &Desired, now: Instant) -> BTreeSet<Name> {
        self.refusals.keep(&desired.verdicts, now);
        for report in self.refusals.poll(&self.cluster, now) {
            self.events.publish(report);
        }
        self.metrics.refusals.clear();
        for (reason, count) in self.refusals.by_reason() {
            let count = count.try_into().unwrap_or(i64::MAX);
            self.metrics.refusals.get_or_create(&cause(reason)).set(count);
        }
        if !self.config.publish {
            return BTreeSet::new();
        }
        let answering = self.answering(desired, now);
        let updates = status::updates(&self.cluster, desired, &answering, &self.config.node);
        self.contests.retain(desired.verdicts.keys());
        let found = self.contests.undone(&updates, now);
        self.metrics.status_undone.inc_by(found.undone);
        for name in &found.contested {
            tracing::warn!(service = %name, "somebody else writes this status, too");
            self.events.publish(events::contested(name, &self.cluster));
        }
        let pending = updates.iter().map(|update| update.name.clone()).collect();
        for update in updates {
            let name = &update.name;
            let due = self.status_pace.is_due(name, now) && self.contests.may_write(&update, now);
            if due && self.writer.is_free(name) {
                self.writer.write(update);
            }
        }
        let services = self.cluster.services();
        self.status_pace.retain(|name| services.contains_key(name));
        pending
    }

    /// What this node answers for now.
    pub(super) fn answering(&self, desired: &Desired, now: Instant) -> Answering {
        let bound: BTreeSet<IpAddr> =
            self.host.ours.keys().map(|binding| binding.address).collect();
        let live = |address: &&IpAddr| {
            let place = desired.addresses.get(*address);
            place.is_some_and(|place| place.answers && place.until > now)
                && self.schedule.is_announced(**address)
        };
        Answering {
            live: bound.iter().filter(live).copied().collect(),
            bound,
            failed: self.refused.keys().map(|binding| binding.address).collect(),
        }
    }

    /// Says which Leases to strive for, and gives back those that are not wanted once nothing acts on them: no address
    /// is on its way out, and no status is to be cleared.
    fn strive(
        &mut self,
        leases: &BTreeMap<Name, Name>,
        wanted: &BTreeMap<Name, Option<Tied>>,
        desired: &Desired,
        pending: &BTreeSet<Name>,
        now: Instant,
    ) {
        let going = |binding: &Binding| {
            let place = desired.addresses.get(&binding.address);
            place.is_none_or(|place| place.link.index != binding.index)
        };
        let moving = self.host.ours.keys().any(going);
        let unwritten: BTreeSet<&Name> =
            pending.iter().filter_map(|name| leases.get(name)).collect();
        let idle = |lease: &Name| !moving && !unwritten.contains(lease);
        let used: BTreeSet<&Name> = leases.values().chain(self.strategy.standing()).collect();
        let known = self.listed.services && !self.leaving;
        let obsolete = |lease: &Name| known && !used.contains(lease);
        self.leases.strive(wanted, idle, obsolete, now);

        let held: BTreeSet<Name> = self.leases.holding(now);
        for lease in held.difference(&self.held) {
            tracing::info!(%lease, "this node owns what the Lease decides on");
            self.metrics.owner_changes.get_or_create(&cause("acquired")).inc();
        }
        for lease in self.held.difference(&held) {
            let why = if wanted.contains_key(lease) { "lost" } else { "released" };
            tracing::info!(%lease, why, "this node no longer owns what the Lease decides on");
            self.metrics.owner_changes.get_or_create(&cause(why)).inc();
        }
        self.metrics.leases.set(held.len().try_into().unwrap_or(i64::MAX));
        self.held = held;
    }

    /// Sends what the elections ask for. Gives the moment at which they are to be asked again.
    fn elect(&mut self, now: Instant) -> Option<Instant> {
        let (requests, wake) = self.leases.poll(now);
        for (name, request) in requests {
            self.writer.send(name, request);
        }
        wake
    }
}
