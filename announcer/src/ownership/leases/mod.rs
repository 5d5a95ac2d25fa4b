//! Owners of Services by Leases: whoever holds a Lease owns the addresses it decides on, if it is a candidate for them.
//! Nobody else does, not even the last owner: only the holder knows that nobody else answers. Pure.
//!
//! A node whose turn is later lets others acquire a Lease first. What it holds it keeps: whether another announcer lives is
//! known only when it acquires.
//!
//! | file | owns |
//! |---|---|
//! | `elections` | this node's part in the election of each Lease |
//! | `strategy` | which Lease decides on which Services |

mod elections;
mod strategy;

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Quoted;
use berth_api::election::{Reply, Sight, Timing};

pub use self::elections::Request;
pub use self::strategy::{Deciding, Strategy, of_one_service};

use self::elections::{Elections, Strife, Tied};
use super::clearing::in_turn;
use super::context::Context;
use super::control_plane::{ControlPlane, Part};
use crate::vip::serve::{Ask, Lives, Reach, serve};
use crate::vip::{
    Attach, Claim, Hold, Holds, Name, Refusal, Serving, Traffic, Verdict, Voice, Wanted,
};

/// Who owns what, by Leases.
#[derive(Debug)]
pub struct Leases {
    /// How Services are decided on; nothing where they are not.
    strategy: Option<Strategy>,
    /// The control plane's address, where that is decided on.
    control_plane: Option<ControlPlane>,
    timing: Timing,
    elections: Elections,
    deciding: Deciding,
    /// The Leases that this node strives for.
    strives: BTreeMap<Name, Strife>,
    held: BTreeSet<Name>,
    /// Why none is acquired.
    withheld: Option<String>,
    leaving: bool,
}

/// A Lease that this node won or lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It owns what the Lease decides on.
    Acquired(Name),
    /// It does not any more, because it gave it back.
    Released(Name),
    /// It does not any more, against its will.
    Lost(Name),
}

impl Leases {
    /// Takes part in nothing yet. Leases that this node creates carry `annotations`.
    pub fn new(
        node: &str,
        strategy: Strategy,
        timing: Timing,
        annotations: BTreeMap<String, String>,
    ) -> Self {
        Self {
            strategy: Some(strategy),
            control_plane: None,
            timing,
            elections: Elections::new(node, timing, annotations),
            deciding: Deciding::default(),
            strives: BTreeMap::new(),
            held: BTreeSet::new(),
            withheld: None,
            leaving: false,
        }
    }

    /// The same, and decides on no Service.
    pub fn without_services(self) -> Self {
        Self { strategy: None, ..self }
    }

    /// The same, and decides on the control plane's address, if there is a Lease for that, which is watched by itself.
    pub fn with_control_plane(self, own: Option<ControlPlane>) -> Self {
        let elections = self.elections.with_apart(own.as_ref().map(|own| own.lease().clone()));
        Self { elections, control_plane: own, ..self }
    }

    /// The control plane, where this decides on its address.
    pub fn control_plane(&mut self) -> Option<&mut ControlPlane> {
        self.control_plane.as_mut()
    }

    /// Takes in what the watch shows of a Lease.
    pub fn observe(&mut self, name: Name, sight: Sight, now: Instant) {
        self.elections.observe(name, sight, now);
    }

    /// Takes in that every Lease was shown.
    pub fn listed(&mut self, names: &BTreeSet<Name>, now: Instant) {
        self.elections.listed(names, now);
    }

    /// Takes in what became of a request of an election.
    pub fn replied(&mut self, name: &Name, reply: Reply, now: Instant) {
        self.elections.replied(name, reply, now);
    }

    /// Takes in why no Lease is acquired; none if one was, or may be.
    pub fn withhold(&mut self, why: Option<String>) {
        self.withheld = why;
    }

    /// From now on gives everything back, once nothing acts on it.
    pub fn leave(&mut self) {
        self.leaving = true;
    }

    /// Whether this node takes part in no election any more.
    pub fn has_left(&self) -> bool {
        self.elections.is_idle()
    }

    /// When something changes although nothing happens, besides what [`Leases::poll`] says.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.control_plane.as_ref().and_then(|own| own.deadline(now))
    }

    /// How far the lifetime of an address may fall behind the hold: renewed in steps, since each renewal of a lifetime wakes
    /// everybody who listens for addresses.
    pub fn slack(&self) -> Duration {
        self.timing.renew_deadline() * 2 / 5
    }

    /// Goes by what other control-plane nodes have said lately.
    pub fn look(&mut self, now: Instant) {
        let (node, timing, elections) = (self.elections.node(), self.timing, &self.elections);
        self.control_plane.iter_mut().for_each(|own| {
            let is_mine = elections.holder(own.lease()) == Some(node);
            own.holds(is_mine, timing, now);
            own.look(node, now);
        });
    }

    /// Takes in what is wanted.
    pub fn request(&mut self, context: Context<'_>) {
        let strategy = self.strategy.as_ref();
        self.deciding =
            strategy.map(|strategy| strategy.decide(context.wanted)).unwrap_or_default();
        self.strives = match context.known && !self.leaving {
            true => {
                let services = strategy.map(|strategy| self.to_strive_for(strategy, context));
                let own = self.strife_of_control_plane(context);
                services.unwrap_or_default().into_iter().chain(own).collect()
            }
            false => BTreeMap::new(),
        };
    }

    /// How this node strives for the Lease of the control plane, if it does: not without a place for its addresses, all of
    /// which one node is to have.
    fn strife_of_control_plane(&self, context: Context<'_>) -> Option<(Name, Strife)> {
        let own = self.control_plane.as_ref()?;
        let is_mine = self.elections.holder(own.lease()) == Some(context.node);
        let places = || context.wanted.of_control_plane().map(|(_, vip)| vip.attach(context.node));
        let placed = places().flatten().count();
        let is_poor = placed < places().count()
            || places().flatten().any(|attach| context.host.is_exposed(attach.index()));
        match own.part(is_mine, is_poor, self.timing) {
            Part::After(deference) if placed > 0 => {
                Some((own.lease().clone(), Strife { tied: None, deference }))
            }
            _ => None,
        }
    }

    /// The Leases that this node should strive for, each with the Service it is tied to.
    fn to_strive_for(&self, strategy: &Strategy, context: Context<'_>) -> BTreeMap<Name, Strife> {
        let Context { wanted, node, host, .. } = context;
        let deference = |defers| if defers { self.timing.retry() } else { Duration::ZERO };
        let is_later = |serving: &Serving| {
            let (lives, reach) = (Lives::Unknown, Reach::Good);
            serve(Ask { serving, nodes: context.nodes, lives, me: node, reach }).is_beaten(node)
        };
        // It is the same for all whose traffic finds an endpoint from anywhere.
        let anywhere = LazyCell::new(|| is_later(&Serving::of(Traffic::Anyhow)));
        let is_late = |name: &Name| {
            let claim = &wanted.services[name];
            let mut servings = claim.own().map(|own| claim.serving(own));
            servings.any(|own| if own.is_everywhere() { *anywhere } else { is_later(own) })
        };
        let is_exposed = |name: &Name| {
            let claim = &wanted.services[name];
            let placed = claim.own().filter_map(|own| wanted.attach(name, *own)?.as_ref().ok());
            let exposed = |attach: &Attach| host.is_exposed(attach.index());
            placed.into_iter().any(exposed)
        };
        if let Some(lease) = strategy.standing() {
            let deference = deference(*anywhere || self.deciding.services.keys().any(is_exposed));
            // A node without the interface would own every address and answer for none.
            let strife = context.usable.then(|| (lease.clone(), Strife { tied: None, deference }));
            return strife.into_iter().collect();
        }
        let mut strives = BTreeMap::new();
        for (lease, services) in self.deciding.by_lease(wanted) {
            if strategy.strives(node, &services, wanted) {
                let of_lease = || services.iter().map(|name| (*name, &wanted.services[*name]));
                let oldest = of_lease().min_by_key(|(name, claim)| (&claim.created, *name));
                let hosts = of_lease().filter_map(|(_, claim)| claim.host.as_deref());
                let claimed_by = hosts.filter(|host| *host != node).max();
                let tied = |(name, claim): (&Name, &Claim)| Tied {
                    name: name.name.clone(),
                    uid: claim.uid.clone(),
                    claimed_by: claimed_by.map(str::to_owned),
                };
                let defers = services.iter().any(|name| is_exposed(name) || is_late(name));
                let deference = deference(defers);
                strives.insert(lease.clone(), Strife { tied: oldest.map(tied), deference });
            }
        }
        strives
    }

    /// Until when this node holds a Lease, and when the kernel is to fall silent, if it strives for it.
    fn until(&self, lease: Option<&Name>, now: Instant) -> Option<(Instant, Instant)> {
        let lease = lease.filter(|lease| self.strives.contains_key(*lease))?;
        self.elections.holds_until(lease, now)
    }

    /// The same for the Lease that decides on an address.
    fn owns(&self, address: &IpAddr, now: Instant) -> Option<(Instant, Instant)> {
        self.until(self.deciding.addresses.get(address), now)
    }

    /// What this node may have bound.
    pub fn holds(&self, context: Context<'_>, now: Instant) -> Holds {
        let mut holds = Holds::new();
        let services = context.wanted.services.values();
        let served = services
            .filter(|claim| claim.ours)
            .flat_map(|claim| claim.own().filter(|own| claim.serving(own).has(context.node)));
        for address in served {
            if let Some((until, lapses)) = self.owns(address, now) {
                let hold = Hold { until, answers: true, lapses: Some(lapses) };
                holds.entry(*address).or_insert(hold);
            }
        }
        let lease = self.control_plane.as_ref().map(ControlPlane::lease);
        if let Some((until, lapses)) = lease.and_then(|lease| self.until(Some(lease), now)) {
            let hold = Hold { until, answers: true, lapses: Some(lapses) };
            let own = context.wanted.of_control_plane().map(|(address, _)| (address, hold));
            holds.extend(own);
        }
        holds
    }

    /// Whether it is sure that no other node had an address before: of what the Lease of the control plane decides on, where
    /// that never had another holder.
    pub fn is_first(&self, wanted: &Wanted, address: &IpAddr) -> bool {
        let own = self.control_plane.as_ref().map(ControlPlane::lease);
        let is_own = || wanted.of_control_plane().any(|(own, _)| own == *address);
        own.is_none_or(|lease| !self.elections.has_moved(lease) || !is_own())
    }

    /// What becomes of the Services that this node decides on, and of those on which nobody does.
    pub fn verdicts(&self, context: Context<'_>, now: Instant) -> BTreeMap<Name, Verdict> {
        let services = context.wanted.services.iter();
        let judged = services.filter_map(|(name, claim)| {
            let lease = self.deciding.services.get(name)?;
            let verdict = match self.until(Some(lease), now) {
                Some(_) => self.judge(context, name, claim, now),
                None => self.stand_by(context, name, claim, lease)?,
            };
            Some((name.clone(), verdict))
        });
        judged.collect()
    }

    /// What becomes of a Service whose Lease nobody holds, as far as it can be told without: nobody strives for it who could
    /// not serve it.
    fn stand_by(
        &self,
        context: Context<'_>,
        name: &Name,
        claim: &Claim,
        lease: &Name,
    ) -> Option<Verdict> {
        let is_open = claim.ours && claim.host.as_deref().is_none_or(|host| host == context.node);
        if !is_open || !context.known || self.leaving || !self.elections.is_free(lease) {
            return None;
        }
        let mut verdict = Verdict::whole(context.wanted, name, claim, context.node);
        verdict.announce.clear();
        let nobody = || {
            let serving = claim.servable().find_map(|own| claim.serving(own).nodes());
            Refusal::NoLiveNode { could: serving.into_iter().flatten().collect() }
        };
        verdict.exchange(|why| matches!(why, Refusal::NoLocalEndpoint { .. }).then(nobody));
        if let Some(why) = self.withheld.clone().filter(|_| self.strives.contains_key(lease)) {
            verdict.refuse(Refusal::LeaseWithheld { node: context.node.to_owned(), why });
        }
        let silences = verdict.refusals.iter().any(Refusal::silences);
        silences.then_some(Verdict { voice: Voice::Bystander, ..verdict })
    }

    /// What becomes of a Service on which this node reports. An address that it shares may be another node's, by the Lease
    /// of the Service that had it first.
    fn judge(&self, context: Context<'_>, name: &Name, claim: &Claim, now: Instant) -> Verdict {
        let mut verdict = Verdict::whole(context.wanted, name, claim, context.node);
        let others = |address: &IpAddr| {
            let lease = self.deciding.addresses.get(address)?;
            self.until(Some(lease), now).is_none().then_some(lease)
        };
        let leases: BTreeSet<&Name> = verdict.announce.iter().filter_map(others).collect();
        verdict.announce.retain(|address| others(address).is_none());
        verdict.refusals.extend(leases.into_iter().map(|lease| Refusal::LeftToLease {
            lease: lease.to_string(),
            holder: Quoted::of(self.elections.holder(lease).unwrap_or_default()),
        }));
        verdict
    }

    /// After how long this node takes out of the status of a Service what is not its own to show. Who holds the Lease that
    /// decides on such an address does at once, and where one decides on all, nobody else. The Lease of a Service itself may
    /// be held by whoever wrote it: then the nodes do in turn.
    pub fn clears(
        &self,
        context: Context<'_>,
        name: &Name,
        claim: &Claim,
        now: Instant,
    ) -> Option<Duration> {
        if self.leaving || !context.known {
            return None;
        }
        let is_mine = |lease: &Name| self.until(Some(lease), now).is_some();
        if let Some(lease) = self.strategy.as_ref()?.standing() {
            return is_mine(lease).then_some(Duration::ZERO);
        }
        let mut leases = claim.out().filter_map(|stray| self.deciding.addresses.get(stray));
        if leases.any(is_mine) {
            return Some(Duration::ZERO);
        }
        (!claim.strays.is_empty()).then(|| in_turn(context.node, name))
    }

    /// Says which Leases to strive for, and gives back those that are not wanted once nothing acts on them: no address is
    /// on its way out, and no status is to be cleared. Gives the turns that this node took since.
    pub fn settle(
        &mut self,
        moving: bool,
        pending: &BTreeSet<Name>,
        known: bool,
        now: Instant,
    ) -> Vec<Turn> {
        let unwritten: BTreeSet<&Name> =
            pending.iter().filter_map(|name| self.deciding.services.get(name)).collect();
        let idle = |lease: &Name| !moving && !unwritten.contains(lease);
        let standing = self.strategy.as_ref().and_then(Strategy::standing);
        let own = self.control_plane.as_ref().map(ControlPlane::lease);
        let used: BTreeSet<&Name> = self.deciding.leases().chain(standing).chain(own).collect();
        let known = known && !self.leaving;
        let obsolete = |lease: &Name| known && !used.contains(lease);
        self.elections.strive(&self.strives, idle, obsolete, now);
        let held = self.elections.holding(now);
        let gone = self.held.difference(&held).cloned().map(|lease| {
            match self.strives.contains_key(&lease) {
                true => Turn::Lost(lease),
                false => Turn::Released(lease),
            }
        });
        let turns = held.difference(&self.held).cloned().map(Turn::Acquired).chain(gone).collect();
        self.held = held;
        turns
    }

    /// How many Leases this node holds.
    pub fn count(&self) -> usize {
        self.held.len()
    }

    /// What to send now, and when to ask again.
    pub fn poll(&mut self, now: Instant) -> (Vec<(Name, Request)>, Option<Instant>) {
        let (mut requests, due) = self.elections.poll(now);
        let own = self.control_plane.as_ref().map(ControlPlane::lease);
        for (_, request) in requests.iter_mut().filter(|(name, _)| Some(name) == own) {
            // Members decide on Services, and on nothing that this Lease is about.
            if let Request::Acquire(action) = request {
                *request = Request::Elect(action.clone());
            }
        }
        (requests, due)
    }
}

#[cfg(test)]
mod tests;
