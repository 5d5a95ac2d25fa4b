//! One round where membership decides: tell the keeper what is wished for, bind what it asks for, tell it what is there.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_membership::{Cause, Loss};

use super::{Announcer, ask_for};
use crate::desired::{self, Scene};
use crate::kernel::Kernel;
use crate::metrics::cause;
use crate::ownership::membership::Told;
use crate::vip::Forwards;
use crate::vip::nodes::Peer;

/// How far the lifetime of a bound address may fall behind before it is renewed.
const SLACK: Duration = Duration::from_secs(20);

impl<K: Kernel> Announcer<K> {
    /// Whether membership decides, and not a Lease.
    pub fn is_member(&self) -> bool {
        self.members.is_some()
    }

    /// Takes in what the keeper told.
    pub fn told(&mut self, told: &Told, now: Instant) {
        match told {
            Told::Holds { address, cause: why, took } => {
                let why = gained(*why);
                tracing::info!(%address, cause = why, took = ?took, "this node answers for it");
                self.metrics.owner_changes.get_or_create(&cause(why)).inc();
                self.metrics.takeover.observe(took.as_secs_f64());
            }
            Told::Lost { address, cause: why } => {
                let why = lost(why);
                tracing::info!(%address, cause = why, "this node no longer answers for it");
                self.metrics.owner_changes.get_or_create(&cause(why)).inc();
            }
            Told::Live(live) if live.is_empty() => {
                self.health.unready("membership", "no majority of voters answers this node");
            }
            Told::Live(_) => self.health.ready("membership"),
            Told::Prepare { .. } | Told::Granted(_) | Told::Discard(_) | Told::Left => {}
        }
        let host = match told {
            Told::Prepare { address, .. } => self.host_of(*address),
            _ => None,
        };
        if let Some(members) = &mut self.members {
            members.told(told, host.as_deref(), now);
        }
    }

    /// Takes in that the kernel was asked for these detours.
    pub fn detoured(&mut self, detours: Forwards) {
        if let Some(members) = &mut self.members {
            members.detoured(detours);
        }
    }

    /// The node that the Services of an address say has it.
    fn host_of(&self, address: IpAddr) -> Option<String> {
        let mut services = self.cluster.services().values().filter(|service| service.ours);
        let of = services.find(|s| s.vip_host.is_some() && s.addresses.contains(&address));
        of.and_then(|service| service.vip_host.clone())
    }

    pub(super) fn peer(&mut self, name: String, peer: Option<Peer>) {
        if let Some(members) = &mut self.members {
            members.peer(name, peer);
        }
    }

    /// Decides and performs once. Gives the moment at which the next round is due if nothing happens before.
    pub(super) async fn fenced_round(&mut self, now: Instant) -> Instant {
        let known = self.listed.services && self.listed.slices;
        let refused: BTreeSet<IpAddr> =
            self.refused.keys().map(|binding| binding.address).collect();
        let (cluster, host, node) = (&self.cluster, &self.host, self.config.node.as_str());
        let scene = Scene { cluster, host, node, interface: self.config.interface.as_deref() };
        let Some(members) = &mut self.members else { return now };
        members.attach(desired::guarded(scene));
        members.wish(scene, &refused, known, now);
        members.gather(scene, now);
        let detours = members.detour(scene, now);
        ask_for(&self.detours, detours);
        let holdings = members.holdings().clone();
        self.ask(&holdings.all().collect(), |address| holdings.is_first(address), now);
        self.translate(now);
        let mut desired = desired::fenced(self.scene(), &holdings, &self.neighbours.probes, now);
        desired.vlans = self.vlans();
        self.hold_fenced(&mut desired, now);
        self.note_refused(&mut desired);
        self.perform(&desired, SLACK, now).await;
        let (cluster, host, node) = (&self.cluster, &self.host, self.config.node.as_str());
        let scene = Scene { cluster, host, node, interface: self.config.interface.as_deref() };
        if let Some(members) = &mut self.members {
            members.confirm(scene, &desired, &self.neighbours.probes, now);
        }
        let more = self.announce(&desired);
        let now = Instant::now();
        self.defend(now);
        self.publish(&desired, now);
        self.sign(&desired, now);
        if more {
            return now;
        }
        let members = self.members.as_ref();
        let deadlines = [
            members.and_then(|members| members.holdings().settles(now)),
            members.and_then(|members| members.held_up(now)).map(|(_, until)| until),
            members.and_then(|members| members.deadline(now)),
            self.schedule.deadline(),
            self.neighbours.deadline(),
            self.kernel_pace.deadline(now),
            self.vlan_pace.deadline(now),
            self.status_pace.deadline(now),
            self.contests.deadline(now),
            self.refusals.deadline(),
        ];
        let deadlines = deadlines.into_iter().chain(self.elastic.deadlines(now));
        deadlines.flatten().fold(self.look_at, Instant::min)
    }
}

fn gained(cause: Cause) -> &'static str {
    match cause {
        Cause::First => "first",
        Cause::Takeover => "takeover",
        Cause::Abandoned => "abandoned",
        Cause::Resumed => "resumed",
        Cause::Handover => "handover",
    }
}

fn lost(loss: &Loss) -> &'static str {
    match loss {
        Loss::Expired => "expired",
        Loss::HandedOver { .. } => "handed_over",
        Loss::Dropped => "dropped",
    }
}
