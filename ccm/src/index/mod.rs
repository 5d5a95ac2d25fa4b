//! Owns what is known of the cluster and what follows from it. [`Index::poll`] says what to write; it is the same
//! function at the start, after each event and after each write, so a crash between any two writes heals by itself.
//!
//! Deterministic: time is the argument `now`, counted since an origin of the caller's choice.

mod adopt;
mod allocate;
mod aside;
mod eip;
mod holders;
mod machines;
mod observe;
mod pools;
mod release;
mod settle;
mod source;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{Ledger, Owner, OwnerKind};

pub use self::aside::ASIDE;
use self::holders::pairs;
pub use self::source::Source;
use crate::binding::Binding;
use crate::claim::Claim;
use crate::claimant::{Claimant, Id};
use crate::report::Report;
use crate::service::{Key, Service, Standing};
use crate::write::{Object, Verdict, Write};

/// How long a release waits for the announcer, and an orphaned claim for its owner to show up.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How long an address rests at least whose node never said that it let go of it. A node that hears nothing more, or is
/// heard of no more, stops answering when its ownership runs out: after 350 ms where membership decides, after 15 s at
/// the latest where a Lease does (the default of kube-vip and of Kubernetes).
const SILENT: Duration = Duration::from_secs(15);

/// The first pause before something is tried again; after a failure it doubles.
const PAUSE: Duration = Duration::from_millis(200);

/// How many that come are looked at for one that goes.
const COME_FOR_ONE: u8 = 3;

/// A claimant in the order in which it is served: who was made first, then by kind and name.
type Turn = (i64, Id);

/// The cluster as far as addresses go.
#[derive(Clone, Debug, Default)]
pub struct Index {
    ledger: Ledger,
    claimants: BTreeMap<Id, Claimant>,
    machines: machines::Machines,
    claims: BTreeMap<IpAddr, Claim>,
    pools: pools::State,
    listed: BTreeSet<Source>,
    leading: bool,
    /// Who has asked for an address and is not in its claim yet. The ledger has them already.
    pending: BTreeMap<IpAddr, BTreeSet<Owner>>,
    /// Addresses that served Services had when this process began to lead, still to be claimed.
    adopting: BTreeMap<IpAddr, BTreeSet<Owner>>,
    /// Claimants that wait for the end of a write of a claim.
    queued: BTreeMap<IpAddr, BTreeSet<Id>>,
    /// Addresses whose `IPAddress` belongs to another controller, and when to look again.
    foreign: BTreeMap<IpAddr, Duration>,
    /// Claimants to look at, oldest first.
    dirty: BTreeSet<Turn>,
    /// Those of them that are to give back what they hold. They are older than who comes, and would go before.
    ending: BTreeSet<Turn>,
    /// How many of those that come were looked at since one that ends was, while there are both.
    came: u8,
    /// Claimants that want more than they got, and how it was refused.
    waiting: BTreeMap<Turn, Verdict>,
    /// Something has become free: the waiting are looked at again.
    retry: bool,
    /// Since when a release waits for the announcer.
    leaving: BTreeMap<Id, Duration>,
    /// Since when the holder of a claim is not to be seen.
    loose: BTreeMap<(IpAddr, Owner), Duration>,
    /// Since when an address that a claimant moved away from waits for the announcer.
    moved: BTreeMap<(IpAddr, Id), Duration>,
    /// Elastic IPs that are given back although their node has not let go of them.
    unheard: BTreeSet<(IpAddr, Owner)>,
    /// Writes under way.
    busy: BTreeSet<Object>,
    /// Objects whose last write failed: how often in a row, and when to try again.
    backoff: BTreeMap<Object, (u32, Duration)>,
    /// Claimants that have claimed an address since their own object was last written.
    fresh: BTreeSet<Id>,
    /// Versions of claimants that turned out to be old.
    stale: BTreeMap<Id, String>,
    /// Claims that are deleted and may still be shown by a late watch.
    buried: BTreeSet<String>,
    /// Claims that the watch showed as deleted before our own delete was answered.
    ended: BTreeSet<String>,
    timers: BTreeSet<(Duration, Object)>,
    /// Verdicts that a claimant's status is still to show.
    verdicts: BTreeMap<Id, Verdict>,
    /// What was last told of a claimant, so that it is not told again.
    told: BTreeMap<Id, String>,
    /// Those that had an address of somebody else when this process began to lead, and how they had it written.
    conflicted: BTreeMap<Id, Option<String>>,
    reports: Vec<Report>,
    /// Addresses outside of their pool, and what is told of them.
    strays: BTreeMap<(IpAddr, Owner), String>,
    /// When claimants without an address were first seen.
    seen: BTreeMap<Id, Duration>,
    latencies: Vec<Duration>,
    /// How often an elastic IP went to another node.
    moves: u64,
}

impl Index {
    /// Nothing is known yet. `pools` names the ConfigMap, for messages.
    pub fn new(pools: Key) -> Self {
        Self { pools: pools::State::new(pools), ..Self::default() }
    }

    /// A source has been listed in full. Nothing is given out before all have been.
    pub fn listed(&mut self, source: Source, now: Duration) {
        let whole = self.is_whole();
        self.listed.insert(source);
        if source == Source::Machines {
            self.machines_listed();
        }
        if !whole && self.is_whole() && self.leading {
            self.lead(now);
        }
    }

    /// Whether every source has been listed.
    pub fn is_whole(&self) -> bool {
        Source::REQUIRED.iter().all(|source| self.listed.contains(source))
    }

    /// The pools and who holds what.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// A Service, as it is known.
    pub fn service(&self, key: &Key) -> Option<&Service> {
        match self.claimants.get(&Id::service(key))? {
            Claimant::Service(service) => Some(service),
            Claimant::Eip(_) => None,
        }
    }

    /// An EipBinding, as it is known.
    pub fn binding(&self, key: &Key) -> Option<&Binding> {
        match self.claimants.get(&Id::eip(key))? {
            Claimant::Eip(binding) => Some(binding),
            Claimant::Service(_) => None,
        }
    }

    /// How many addresses are held.
    pub fn claimed(&self) -> usize {
        self.claims.len()
    }

    /// How many Services wait, by reason.
    pub fn waiting(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        let services = self.waiting.iter().filter(|((_, id), _)| id.kind == OwnerKind::Service);
        let refused = services.filter(|(_, verdict)| !verdict.allocated);
        refused.for_each(|(_, verdict)| *counts.entry(verdict.reason).or_default() += 1);
        counts
    }

    /// What is to be told, since this was last asked.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// How long Services waited between being seen and having their addresses written, since this was last asked.
    pub fn take_latencies(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.latencies)
    }

    /// From now on this process leads: it imports what is there, then writes.
    pub fn lead(&mut self, now: Duration) {
        self.leading = true;
        if !self.is_whole() {
            return;
        }
        let idle: Vec<(IpAddr, Owner)> = pairs(&self.pending)
            .filter(|(address, _)| !self.busy.contains(&Object::Claim(*address)))
            .map(|(address, owner)| (address, owner.clone()))
            .collect();
        idle.iter().for_each(|(address, owner)| self.abandon(*address, owner));
        let held = self.claims.values().flat_map(|claim| {
            claim.holders.iter().map(|holder| (claim.address, holder.owner.clone()))
        });
        let unseen: Vec<_> = held.filter(|(_, owner)| self.is_owner_unseen(owner)).collect();
        unseen.into_iter().for_each(|(address, owner)| self.loosen(address, owner, now));
        let ids: Vec<Id> = self.claimants.keys().cloned().collect();
        ids.iter().for_each(|id| self.touch_id(id));
        self.adopt();
        self.report_pools();
    }

    /// From now on somebody else may lead: nothing is written.
    pub fn follow(&mut self) {
        self.leading = false;
        self.adopting.clear();
    }

    /// What to write now, at most about `slots` writes. Each must be performed and then told to [`Index::settle`].
    pub fn poll(&mut self, now: Duration, slots: usize) -> Vec<Write> {
        let mut writes = Vec::new();
        if !self.leading || !self.is_whole() {
            return writes;
        }
        self.wake(now);
        self.poll_adoption(now, slots, &mut writes);
        if !self.adopting.is_empty() {
            return writes;
        }
        if std::mem::take(&mut self.retry) {
            self.dirty.extend(self.waiting.keys().cloned());
        }
        let mut hopeless = allocate::Hopeless::default();
        while writes.len() < slots
            && let Some(turn) = self.next_turn()
        {
            self.decide(&turn, now, &mut hopeless, &mut writes);
        }
        self.poll_orphans(now, slots, &mut writes);
        self.poll_verdicts(now, slots, &mut writes);
        writes
    }

    /// When to poll again if nothing happens before.
    pub fn deadline(&self) -> Option<Duration> {
        if !self.leading {
            return None;
        }
        let timer = self.timers.first().map(|(at, _)| *at);
        [timer, self.ledger.next_rested()].into_iter().flatten().min()
    }

    /// Whether nothing is left to do but to wait for events and deadlines.
    pub fn is_idle(&self) -> bool {
        let is_seen_to = self.dirty.is_empty() && self.ending.is_empty();
        is_seen_to && self.busy.is_empty() && self.adopting.is_empty() && !self.retry
    }

    /// Who is looked at next. When the API server is slow, those who come do not wait until all have gone; and of
    /// every few one that goes, or they would never be gone.
    fn next_turn(&mut self) -> Option<Turn> {
        if self.dirty.is_empty() || self.ending.is_empty() {
            self.came = 0;
            return self.dirty.pop_first().or_else(|| self.ending.pop_first());
        }
        if self.came < COME_FOR_ONE {
            self.came += 1;
            return self.dirty.pop_first();
        }
        self.came = 0;
        self.ending.pop_first()
    }

    fn decide(
        &mut self,
        turn: &Turn,
        now: Duration,
        hopeless: &mut allocate::Hopeless,
        writes: &mut Vec<Write>,
    ) {
        let id = &turn.1;
        if self.is_held_up(&Object::Claimant(id.clone()), now) {
            return;
        }
        let Some(claimant) = self.claimants.get(id).cloned() else { return };
        if self.stale.get(id).is_some_and(|version| version == claimant.version()) {
            self.start(Write::Read { id: id.clone() }, writes);
            return;
        }
        match &claimant {
            Claimant::Service(service) if service.is_ending() => {
                self.release(service, now, writes);
            }
            Claimant::Service(service) if service.standing == Standing::Ours => {
                self.allocate(&claimant, now, hopeless, writes);
            }
            Claimant::Service(_) => _ = self.waiting.remove(turn),
            Claimant::Eip(binding) => self.decide_eip(&claimant, binding, now, hopeless, writes),
        }
    }

    /// Whether a write for the object is under way, or was tried a moment ago in vain.
    fn is_held_up(&self, object: &Object, now: Duration) -> bool {
        self.busy.contains(object)
            || self.backoff.get(object).is_some_and(|(_, until)| *until > now)
    }

    fn start(&mut self, write: Write, writes: &mut Vec<Write>) {
        self.busy.insert(write.object());
        writes.push(write);
    }

    fn wake(&mut self, now: Duration) {
        self.retry |= self.ledger.advance(now) > 0;
        while let Some((at, object)) = self.timers.first().cloned()
            && at <= now
        {
            self.timers.pop_first();
            match object {
                Object::Claimant(id) => self.touch_id(&id),
                Object::Claim(address) => {
                    self.expire_foreign(address, now);
                    self.touch_holders(address);
                }
            }
        }
    }

    fn touch_holders(&mut self, address: IpAddr) {
        let owners = self.ledger.claim(address).into_iter().flat_map(|claim| claim.owners());
        let owners: Vec<Owner> = owners.cloned().collect();
        owners.iter().for_each(|owner| self.touch(owner));
    }

    fn touch(&mut self, owner: &Owner) {
        self.touch_id(&Id::from(owner));
    }

    fn touch_id(&mut self, id: &Id) {
        if let Some(claimant) = self.claimants.get(id) {
            let turn = (claimant.created(), id.clone());
            let is_ending = match claimant {
                Claimant::Service(service) => service.is_ending(),
                Claimant::Eip(binding) => self.is_ending_eip(binding),
            };
            let (now, before) = match is_ending {
                true => (&mut self.ending, &mut self.dirty),
                false => (&mut self.dirty, &mut self.ending),
            };
            before.remove(&turn);
            now.insert(turn);
        }
    }

    fn is_owner_unseen(&self, owner: &Owner) -> bool {
        let seen = self.claimants.get(&Id::from(owner));
        owner.kind != OwnerKind::VipProxy && seen.is_none_or(|seen| seen.uid() != owner.uid)
    }

    fn loosen(&mut self, address: IpAddr, owner: Owner, now: Duration) {
        self.loose.entry((address, owner)).or_insert(now);
        self.timers.insert((now + PATIENCE, Object::Claim(address)));
    }
}
