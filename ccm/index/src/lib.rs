//! What is known of the cluster and what follows from it: who has which address, as a pure function of what was seen and
//! of the time that is handed in. No runtime, no client. [`Index::poll`] says what to write; it is the same
//! function at the start, after each event and after each write, so a crash between any two writes heals by itself.
//!
//! Deterministic: time is the argument `now`, counted since an origin of the caller's choice.
//!
//! What is known stands in parts, each with what can be asked of it: `cluster` (objects and ledger), `pools`,
//! `agenda` (who is looked at next), `liveness`, `claiming`, `adoption`, `departures`, `routers`, `exchanges`, `traffic` (writes), `said` with its
//! `verdicts`, `silences` and `figures`. `state` has them all. Above it stands what is decided, from what comes in to what goes out:
//!
//! | module | owns |
//! |---|---|
//! | `holders`, `configure`, `observe` | what follows from what the watches show |
//! | `adopt` | the import |
//! | `allocate`, `aside`, `eip`, `release` | the way to an address and back |
//! | `verdict`, `decided`, `show` | what claimants show |
//! | `announced` | what Services show that nobody announces |
//! | `settle` | what follows from the outcome of a write |
//!
//! The words of it, for who watches and writes:
//!
//! | module | owns |
//! |---|---|
//! | [`intake`] | what watches show |
//! | [`service`], [`binding`], [`kubevirt`], [`claim`] | what is kept of the cluster's objects |
//! | [`claimant`] | what Services and EipBindings have in common |
//! | [`placement`] | where an elastic IP belongs |
//! | [`mod@write`], [`report`] | what is to be done and told |
//! | [`rests`] | what the process that leads next is told of addresses that rest |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod binding;
pub mod claim;
pub mod claimant;
pub mod finalizers;
pub mod intake;
pub mod kubevirt;
pub mod placement;
pub mod report;
pub mod rests;
pub mod service;
pub mod write;

mod adopt;
mod adoption;
mod agenda;
mod allocate;
mod announced;
mod aside;
mod claiming;
mod cluster;
mod configure;
mod decided;
mod departures;
mod eip;
mod endings;
mod exchanges;
mod fellows;
mod figures;
mod guests;
mod holders;
mod lines;
mod liveness;
mod machines;
mod observe;
mod offers;
mod pairs;
mod pools;
mod release;
mod routers;
mod said;
mod settle;
mod show;
mod showing;
mod silences;
mod source;
mod state;
mod traffic;
mod verdict;
mod verdicts;
mod version;
mod vips;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_api::conflict::Mac;
use berth_ipam::{AddressSet, Ledger, Owner, OwnerKind};

use self::agenda::Turn;
use self::allocate::Hopeless;
pub use self::aside::ASIDE;
pub use self::guests::PODS;
use self::pools::PoolMap;
pub use self::source::Source;
use self::state::State;
pub use self::vips::{MAY_BE_VIPS, may_be_vips};
use crate::claim::Claim;
use crate::claimant::{Claimant, Id};
use crate::kubevirt::Vmi;
use crate::report::Report;
use crate::service::Standing;
use crate::write::{Object, Outcome, Write};

/// How many are looked at before [`Index::poll`] returns: some milliseconds, whatever there is to do.
const TURNS: usize = 64;

/// The cluster as far as addresses go.
#[derive(Clone, Debug, Default)]
pub struct Index(State);

/// What comes in.
impl Index {
    /// Nothing is known yet. `pools` names the ConfigMap, for messages.
    pub fn new(pools: NamespacedName) -> Self {
        Self(State { pools: PoolMap::new(pools), ..State::default() })
    }

    /// A source has been listed in full. Nothing is given out before all have been.
    pub fn listed(&mut self, source: Source, now: Duration) {
        self.know(source, false, now);
    }

    /// Takes in that the cluster has no resource of this source: there is nothing to wait for.
    pub fn absent(&mut self, source: Source, now: Duration) {
        self.know(source, true, now);
    }

    fn know(&mut self, source: Source, absent: bool, now: Duration) {
        let whole = self.is_whole();
        let is_first = !self.0.cluster.is_listed(source);
        self.0.cluster.listed(source);
        if source == Source::Machines {
            observe::machines_absent(&mut self.0, absent, is_first);
        }
        if !whole && self.is_whole() && self.0.leading {
            self.lead(now);
        }
    }

    /// Takes in a Service or EipBinding. What is older than what is known is passed over.
    pub fn apply(&mut self, claimant: Claimant, now: Duration) {
        self.0.endings.undo(&claimant.id().key.namespace, claimant.uid());
        observe::apply(&mut self.0, claimant, now);
    }

    /// Takes in that a Service or EipBinding is gone; with a uid, only if it is that one.
    pub fn remove_claimant(&mut self, id: &Id, uid: Option<&str>, now: Duration) {
        let known = self.0.cluster.claimants.get(id).map(|known| known.uid().to_owned());
        let ended = uid.map(str::to_owned).or(known);
        ended.iter().for_each(|uid| self.0.endings.note(&id.key.namespace, uid));
        observe::remove_claimant(&mut self.0, id, uid, now);
    }

    /// Takes in a claim.
    pub fn apply_claim(&mut self, claim: Claim, now: Duration) {
        observe::apply_claim(&mut self.0, claim, now);
    }

    /// Takes in that a claim is gone, if it is that one.
    pub fn remove_claim(&mut self, address: IpAddr, uid: &str, now: Duration) {
        observe::remove_claim(&mut self.0, address, uid, now);
    }

    /// Takes in a virtual machine. What is older than what is known is passed over.
    pub fn apply_machine(&mut self, vmi: Vmi) {
        observe::apply_machine(&mut self.0, vmi);
    }

    /// Takes in that a virtual machine is gone; with a uid, only if it is that one.
    pub fn remove_machine(&mut self, key: &NamespacedName, uid: Option<&str>) {
        observe::remove_machine(&mut self.0, key, uid);
    }

    /// Takes in the ConfigMap.
    pub fn apply_pools(&mut self, uid: String, data: &BTreeMap<String, String>) {
        configure::apply_pools(&mut self.0, uid, data);
    }

    /// Takes in that there is no ConfigMap. What it said last stays in force.
    pub fn remove_pools(&mut self) {
        configure::remove_pools(&mut self.0);
    }

    /// Keeps addresses from ever being given out, in place of what `name` reserved before.
    pub fn reserve(&mut self, name: &str, addresses: AddressSet) {
        configure::reserve(&mut self.0, name, addresses);
    }

    /// Takes in the hardware addresses by which a node answers for addresses; none when its Lease is gone.
    pub fn meet(&mut self, node: &str, macs: BTreeSet<Mac>) {
        self.0.fellows.meet(node, macs);
    }

    /// Takes in the Lease by which the announcer of a node says that it lives: when it was renewed, as written; none when it
    /// is gone.
    pub fn hear(&mut self, node: &str, renewed: Option<&str>, now: Duration) {
        if self.0.liveness.hear(node, renewed, now) {
            self.0.silences.hear();
        }
    }

    /// Takes in the Lease by which one announcer is elected for all Services: its holder, and when it was renewed, as
    /// written.
    pub fn elect(&mut self, elected: Option<(&str, &str)>, now: Duration) {
        if self.0.liveness.elect(elected, now) {
            self.0.silences.hear_at_once();
        }
    }

    /// Takes in for how long routers may lead addresses to a node that is gone; nothing where it tells none of them, or its Lease
    /// is gone.
    pub fn route(&mut self, node: &str, keeps: Option<Duration>, now: Duration) {
        self.0.routers.hear(node, keeps, now);
    }

    /// Takes in that the Leases of announcers were listed anew: how long nothing was heard of them until then counts for
    /// nothing.
    pub fn heard_again(&mut self, now: Duration) {
        self.0.liveness.restart(now);
    }

    /// Takes in all addresses that a node got by DHCP, each with the uid of the Service that it is for.
    pub fn offer(&mut self, node: &str, offers: BTreeSet<(String, IpAddr)>) {
        observe::apply_offers(&mut self.0, node, offers);
    }

    /// Takes in that an address was given back before this process could see it.
    pub fn rest(&mut self, address: IpAddr, owner: Owner, since: Duration) {
        let ledger = &mut self.0.cluster.ledger;
        if ledger.resting(address).is_none() {
            ledger.rest(address, owner, since);
        }
    }

    /// Takes in that an address was set aside because of this namespace before this process could see it.
    pub fn set_aside(&mut self, address: IpAddr, namespace: &str, until: Duration, now: Duration) {
        aside::recall(&mut self.0.cluster.ledger, address, namespace, until, now);
    }

    /// Takes in what became of a write that [`Index::poll`] gave.
    pub fn settle(&mut self, write: &Write, outcome: Outcome, now: Duration) {
        settle::settle(&mut self.0, write, outcome, now);
    }

    /// From now on this process leads: it imports what is there, then writes.
    pub fn lead(&mut self, now: Duration) {
        let state = &mut self.0;
        state.leading = true;
        announced::begin(state, now);
        if !state.cluster.is_whole() {
            return;
        }
        let pending = state.claiming.pending.iter();
        let idle = pending.filter(|(address, _)| !state.traffic.is_busy(&Object::Claim(*address)));
        let idle: Vec<_> = idle.map(|(address, owner)| (address, owner.clone())).collect();
        idle.iter().for_each(|(address, owner)| state.abandon(*address, owner));
        let held = state.cluster.claims.values().flat_map(|claim| {
            claim.holders.iter().map(|holder| (claim.address, holder.owner.clone()))
        });
        let unseen = held.filter(|(_, owner)| state.cluster.is_owner_unseen(owner));
        let unseen: Vec<_> = unseen.collect();
        unseen.into_iter().for_each(|(address, owner)| state.loosen(address, owner, now));
        let ids: Vec<Id> = state.cluster.claimants.keys().cloned().collect();
        ids.iter().for_each(|id| state.touch(id));
        configure::relist(state);
        adopt::adopt(state);
        configure::report_pools(state);
    }

    /// From now on somebody else may lead: nothing is written.
    pub fn follow(&mut self) {
        self.0.leading = false;
        self.0.adoption.open.clear();
    }
}

/// What goes out.
impl Index {
    /// What to write now, at most about `slots` writes; none may also mean that it [is behind](Index::is_behind). Each must be performed and then told to [`Index::settle`].
    pub fn poll(&mut self, now: Duration, slots: usize) -> Vec<Write> {
        let state = &mut self.0;
        state.behind = false;
        if !state.leading || !state.cluster.is_whole() {
            return Vec::new();
        }
        wake(state, now);
        state.agenda.recall_waiting(now);
        adopt::poll(state, now, slots);
        if !state.adoption.open.is_empty() {
            return state.traffic.take();
        }
        let (mut hopeless, mut turns) = (Hopeless::default(), TURNS);
        announced::poll_late(state, now, slots);
        while state.traffic.started() < slots && turns > 0 {
            turns -= 1;
            if show::poll_late(state, now) {
                continue;
            }
            state.touch_first();
            let Some(turn) = state.agenda.next() else { break };
            let before = state.traffic.started();
            decide(state, &turn, now, &mut hopeless);
            state.said.verdicts.looked(state.traffic.started() - before);
        }
        release::poll_orphans(state, now, slots);
        state.said.verdicts.advance(now);
        show::poll_verdicts(state, now, slots, &mut turns);
        announced::poll(state, now, slots, &mut turns);
        state.behind = turns == 0;
        state.traffic.take()
    }

    /// Whether [`Index::poll`] has stopped, although more writes were asked for, since it has looked at many: it is to be
    /// called again when whoever runs it has seen to all else that it does.
    pub fn is_behind(&self) -> bool {
        self.0.behind
    }

    /// When to poll again if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        if !self.0.leading || !self.is_whole() {
            return None;
        }
        let rested = self.0.cluster.ledger.next_rested();
        let said = [self.0.said.verdicts.deadline(), self.0.silences.deadline()];
        let known = [self.0.agenda.deadline(), rested, self.0.liveness.deadline()];
        known.into_iter().chain(said).flatten().min()
    }

    /// What is to be told, since this was last asked.
    pub fn take_reports(&mut self) -> Vec<Report> {
        self.0.said.take_reports()
    }

    /// How long Services waited between being seen and having their addresses written, since this was last asked.
    pub fn take_latencies(&mut self) -> Vec<Duration> {
        self.0.figures.take_latencies()
    }
}

/// What is known.
impl Index {
    /// Whether every source has been listed.
    pub fn is_whole(&self) -> bool {
        self.0.cluster.is_whole()
    }

    /// Whether all that Services and bindings had is claimed for them, by this process while it leads.
    pub fn has_adopted(&self) -> bool {
        self.0.leading && self.is_whole() && self.0.adoption.open.is_empty()
    }

    /// The pools and who holds what.
    pub fn ledger(&self) -> &Ledger {
        &self.0.cluster.ledger
    }

    /// How many addresses are held.
    pub fn claimed(&self) -> usize {
        self.0.cluster.claims.len()
    }

    /// How many Services wait, by reason.
    pub fn waiting(&self) -> BTreeMap<&'static str, u64> {
        self.0.agenda.waiting()
    }

    /// How many EipBindings there are, by how they stand: `Ready`, or the reason why not.
    pub fn bindings(&self) -> BTreeMap<String, u64> {
        self.0.cluster.bindings()
    }

    /// How often an elastic IP went from one node to another, by a write of this process.
    pub fn moves(&self) -> u64 {
        self.0.figures.moves()
    }

    /// The keys that are not accepted.
    pub fn invalid_keys(&self) -> usize {
        self.0.pools.invalid_keys()
    }

    /// What is known of a kind, for a list that starts again: whatever it does not have is gone.
    pub fn known_claimants(&self, kind: OwnerKind) -> BTreeSet<Id> {
        let known = self.0.cluster.claimants.keys().cloned();
        let shown = self.0.cluster.ledger.showing().map(Id::from);
        known.chain(shown).filter(|id| id.kind == kind).collect()
    }

    /// The addresses and uids of the claims, for the same.
    pub fn known_claims(&self) -> BTreeMap<IpAddr, String> {
        let claims = self.0.cluster.claims.iter();
        claims.map(|(address, claim)| (*address, claim.uid.clone())).collect()
    }

    /// The machines, for the same.
    pub fn known_machines(&self) -> BTreeSet<NamespacedName> {
        self.0.cluster.machines.names()
    }

    /// The nodes that tell anything of themselves, for the same.
    pub fn known_hosts(&self) -> BTreeSet<String> {
        let offer = self.0.cluster.offers.nodes();
        self.0.liveness.nodes().cloned().chain(offer).collect()
    }
}

/// Looks again at whom the time has come for.
fn wake(state: &mut State, now: Duration) {
    if state.cluster.ledger.advance(now) > 0 {
        configure::relist(state);
        state.agenda.retry();
    }
    state.said.verdicts.advance(now);
    announced::wake(state, now);
    while let Some(object) = state.agenda.due(now) {
        match object {
            Object::Hosts => {}
            Object::Claimant(id) => state.touch(&id),
            Object::Claim(address) => {
                settle::expire_foreign(state, address, now);
                state.touch_holders(address);
            }
        }
    }
}

fn decide(state: &mut State, turn: &Turn, now: Duration, hopeless: &mut Hopeless) {
    let id = &turn.1;
    if state.traffic.is_held_up(&Object::Claimant(id.clone()), now) {
        return;
    }
    let Some(claimant) = state.cluster.claimants.get(id).cloned() else { return };
    if state.traffic.is_stale(&claimant) {
        state.traffic.start(Write::Read { id: id.clone() });
        return;
    }
    if let Claimant::Service(service) = &claimant {
        announced::judge(state, service, now);
    }
    match &claimant {
        Claimant::Service(service) if service.is_ending() => {
            release::release(state, service, now);
        }
        Claimant::Service(service) if service.standing == Standing::Ours => {
            allocate::allocate(state, &claimant, now, hopeless);
        }
        Claimant::Service(_) => state.agenda.wait_no_more(turn),
        Claimant::Eip(binding) => eip::decide(state, &claimant, binding, now, hopeless),
    }
}
