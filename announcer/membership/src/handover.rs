//! Owns planned moves. For traffic the target is made before the holder breaks; for ARP and ND the holder breaks first:
//! it is muted and drops the address, then the target is told to take it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::message::{Hand, Step};
use crate::moment::Moment;
use crate::name::NodeId;

/// How long a holder that has to let go waits for its target to get ready.
const READY_WITHIN: Duration = Duration::from_millis(500);
/// The same for one that could stay: it answers meanwhile, and keeps the address if the target does not get ready.
const READY_AT_LEISURE: Duration = Duration::from_secs(3);
/// For how long a target that did not get ready is passed over.
const UNFIT_FOR: Duration = Duration::from_secs(10);
/// For how long an address is not given back to whoever gave it: two nodes may have heard of each other's state at
/// different times.
const NOT_BACK_FOR: Duration = Duration::from_secs(2);
/// How long a target is told to take an address that nobody shows.
const TAKE_WITHIN: Duration = Duration::from_secs(1);
/// How long a target keeps an address ready that it is not told to take.
const READY_FOR: Duration = Duration::from_secs(2);
/// How long a target asks for an address every [`URGENT_EVERY`].
const URGENT_FOR: Duration = Duration::from_millis(100);
const URGENT_EVERY: Duration = Duration::from_millis(2);
/// Addresses of the larger family that fit the smallest datagram.
const PER_MESSAGE: usize = 24;

#[derive(Clone, Copy, Debug)]
struct Going {
    to: NodeId,
    until: Moment,
    /// Whether the target has said that it is ready.
    ready: bool,
    /// Whether it goes only since the target had better have it.
    offered: bool,
}

impl Going {
    fn new(to: NodeId, until: Moment) -> Self {
        Self { to, until, ready: false, offered: false }
    }
}

/// Addresses on their way.
#[derive(Debug, Default)]
pub(crate) struct Handovers {
    /// Still held here, the target gets ready.
    going: BTreeMap<IpAddr, Going>,
    /// Dropped here, the target is told to take it.
    given: BTreeMap<IpAddr, Going>,
    /// Ready here for a holder that may give it.
    coming: BTreeMap<IpAddr, Going>,
    /// Taken here: asked for without patience.
    urgent: BTreeMap<IpAddr, Moment>,
    /// Held perhaps without being asked for any more.
    doubtful: BTreeSet<IpAddr>,
    /// Until when a node is no target for an address: it did not get ready.
    unfit: BTreeMap<(IpAddr, NodeId), Moment>,
    /// Who gave an address to this node, for a while.
    giver: BTreeMap<IpAddr, Going>,
}

impl Handovers {
    pub(crate) fn is_going(&self, address: &IpAddr) -> bool {
        self.going.contains_key(address)
    }

    pub(crate) fn is_coming(&self, address: &IpAddr) -> bool {
        self.coming.contains_key(address) || self.urgent.contains_key(address)
    }

    /// Whether a target still has to take something.
    pub(crate) fn is_giving(&self) -> bool {
        !self.given.is_empty()
    }

    /// Whether these stay has to be looked at.
    pub(crate) fn doubt(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.doubtful.extend(addresses);
    }

    /// What has to be looked at.
    pub(crate) fn take_doubtful(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.doubtful)
    }

    /// The holder begins; one that `keeps` the address unless its target gets ready has time.
    pub(crate) fn begin(&mut self, now: Moment, address: IpAddr, to: NodeId, keeps: bool) {
        let within = if keeps { READY_AT_LEISURE } else { READY_WITHIN };
        self.going.insert(address, Going::new(to, now + within));
    }

    /// The same, and only since the target had better have it.
    pub(crate) fn offer(&mut self, now: Moment, address: IpAddr, to: NodeId) {
        let offer = Going::new(to, now + READY_AT_LEISURE);
        self.going.insert(address, Going { offered: true, ..offer });
    }

    /// The target had better not have it any more than the holder.
    pub(crate) fn take_back(&mut self, address: &IpAddr) {
        if self.going.get(address).is_some_and(|going| going.offered) {
            self.going.remove(address);
        }
    }

    /// The holder cannot keep it any more.
    pub(crate) fn hasten(&mut self, now: Moment, address: IpAddr) {
        if let Some(going) = self.going.get_mut(&address) {
            going.until = going.until.min(now + READY_WITHIN);
        }
    }

    /// The target did not get ready.
    pub(crate) fn fail(&mut self, now: Moment, address: IpAddr, to: NodeId) {
        self.going.remove(&address);
        self.unfit.insert((address, to), now + UNFIT_FOR);
    }

    /// Whether a node may be given an address.
    pub(crate) fn is_fit(&self, address: IpAddr, node: NodeId) -> bool {
        !self.unfit.contains_key(&(address, node))
    }

    /// Whether an address came from a node a moment ago.
    pub(crate) fn is_from(&self, address: &IpAddr, node: NodeId) -> bool {
        self.giver.get(address).is_some_and(|giver| giver.to == node)
    }

    /// Forgets who was no target for long enough. What that was about has to be looked at.
    pub(crate) fn forgive(&mut self, now: Moment) {
        let Self { unfit, giver, doubtful, .. } = self;
        let mut is_over = |address: IpAddr, until: Moment| {
            if until <= now {
                doubtful.insert(address);
            }
            until <= now
        };
        unfit.retain(|(address, _), until| !is_over(*address, *until));
        giver.retain(|address, giver| !is_over(*address, giver.until));
    }

    /// The holder lost the address, or keeps it.
    pub(crate) fn cancel(&mut self, address: &IpAddr) {
        self.going.remove(address);
    }

    /// The target is ready.
    pub(crate) fn ready(&mut self, from: NodeId, address: IpAddr) {
        if let Some(going) = self.going.get_mut(&address).filter(|going| going.to == from) {
            (going.until, going.ready) = (Moment::default(), true);
        }
    }

    /// What is to be released now, whom it is for, and whether that node is ready.
    pub(crate) fn due(&self, now: Moment) -> Vec<(IpAddr, NodeId, bool)> {
        self.going
            .iter()
            .filter(|(_, going)| going.until <= now)
            .map(|(address, going)| (*address, going.to, going.ready))
            .collect()
    }

    /// The holder has released it.
    pub(crate) fn give(&mut self, now: Moment, address: IpAddr, to: NodeId) {
        self.going.remove(&address);
        self.given.insert(address, Going::new(to, now + TAKE_WITHIN));
    }

    /// The target gets ready.
    pub(crate) fn expect(&mut self, now: Moment, address: IpAddr, from: NodeId) {
        self.coming.insert(address, Going::new(from, now + READY_FOR));
    }

    /// Whom the target tells that it is ready.
    pub(crate) fn expected_by(&self, address: &IpAddr) -> Option<NodeId> {
        self.coming.get(address).map(|coming| coming.to)
    }

    /// The target takes the address.
    pub(crate) fn take(&mut self, now: Moment, address: IpAddr) {
        if let Some(coming) = self.coming.remove(&address) {
            self.giver.insert(address, Going::new(coming.to, now + NOT_BACK_FOR));
        }
        self.urgent.insert(address, now + URGENT_FOR);
    }

    /// Forgets what is over: what another node has, by `is_taken`, and what waited too long. Returns what the target
    /// kept ready for nothing.
    pub(crate) fn tidy(
        &mut self,
        now: Moment,
        is_taken: impl Fn(IpAddr) -> bool,
        is_claimed: impl Fn(IpAddr) -> bool,
    ) -> Vec<IpAddr> {
        self.given.retain(|address, given| given.until > now && !is_taken(*address));
        self.urgent.retain(|address, until| *until > now && is_claimed(*address));
        let over = self
            .coming
            .iter()
            .filter(|(_, coming)| coming.until <= now)
            .map(|(address, _)| *address);
        let over: Vec<_> = over.collect();
        over.iter().for_each(|address| _ = self.coming.remove(address));
        over
    }

    /// Takes nothing that another node is about to hand over. Returns what was expected.
    pub(crate) fn expect_nothing(&mut self) -> impl Iterator<Item = IpAddr> + use<> {
        std::mem::take(&mut self.coming).into_keys()
    }

    /// How soon claims are repeated, if without patience.
    pub(crate) fn urgency(&self) -> Option<Duration> {
        (!self.urgent.is_empty()).then_some(URGENT_EVERY)
    }

    /// When something is due, at the latest.
    pub(crate) fn next(&self) -> Moment {
        let all = [&self.going, &self.given, &self.coming, &self.giver];
        let all = all.into_iter().flat_map(BTreeMap::values);
        let all = all.map(|going| going.until).chain(self.unfit.values().copied());
        all.min().unwrap_or(Moment::NEVER)
    }

    /// What is said with each beat.
    pub(crate) fn messages(&self) -> Vec<(NodeId, Hand)> {
        let mut messages = Vec::new();
        for (step, moves) in [(Step::Prepare, &self.going), (Step::Take, &self.given)] {
            let mut by_target: BTreeMap<NodeId, Vec<IpAddr>> = BTreeMap::new();
            for (address, going) in moves {
                by_target.entry(going.to).or_default().push(*address);
            }
            for (to, addresses) in by_target {
                messages.extend(hands(step, &addresses).map(|hand| (to, hand)));
            }
        }
        messages
    }
}

/// A step in as many messages as it takes.
pub(crate) fn hands(step: Step, addresses: &[IpAddr]) -> impl Iterator<Item = Hand> {
    addresses.chunks(PER_MESSAGE).map(move |some| Hand { step, addresses: some.to_vec() })
}
