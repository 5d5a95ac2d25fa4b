//! What this node has, as the driver told it, and for which Services it speaks. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Few;
use berth_membership::{NodeId, Request, rank};

use super::exchange::MembershipEvent;
use crate::vip::Name;

/// How long the set of live nodes must have been the same before one reports on a node that is gone.
const SETTLED: Duration = Duration::from_secs(1);

/// After so long without an answer of its own, a node that a status names says that it answers no more. Whoever took
/// over has put itself there long before.
const SILENCE: Duration = Duration::from_secs(3);

/// How far this node is with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tenure {
    /// It asks for it. The address is to be bound, and the fence keeps it silent.
    Preparing,
    /// It answers for it since then.
    Held(Instant),
}

/// What this node has.
#[derive(Clone, Debug)]
pub struct Holdings {
    me: NodeId,
    /// Whether what is bound too early stays silent.
    fenced: bool,
    addresses: BTreeMap<IpAddr, Tenure>,
    /// Those of them that no other node is known to have had.
    first: BTreeSet<IpAddr>,
    /// Those of them that a live node hands over.
    handed: BTreeSet<IpAddr>,
    /// Those that a majority has granted.
    granted: BTreeSet<IpAddr>,
    live: BTreeSet<NodeId>,
    live_since: Instant,
    /// What no live node has had for a while, as a majority sees it.
    orphans: BTreeSet<IpAddr>,
    /// The voters that do not answer this node, by name.
    unheard: BTreeSet<String>,
    since: Instant,
    /// When this node lost an address, for a while.
    lost: BTreeMap<IpAddr, Instant>,
    /// When that was gone through last: thousands may be lost at once.
    swept: Instant,
    /// Whether somebody by another election may answer on this very node.
    rivalled: bool,
}

impl Holdings {
    /// Nothing yet.
    pub fn new(me: NodeId, fenced: bool, now: Instant) -> Self {
        let (addresses, first, handed, granted) = Default::default();
        let (live, orphans, unheard, lost) = Default::default();
        let (live_since, since, swept, rivalled) = (now, now, now, false);
        Self {
            me,
            fenced,
            addresses,
            first,
            handed,
            granted,
            live,
            live_since,
            orphans,
            unheard,
            since,
            lost,
            swept,
            rivalled,
        }
    }

    /// Takes in what the driver told.
    pub fn take(&mut self, told: &MembershipEvent, now: Instant) {
        match told {
            MembershipEvent::Prepare { address, first, handed } => {
                self.addresses.insert(*address, Tenure::Preparing);
                for (set, is_so) in [(&mut self.first, first), (&mut self.handed, handed)] {
                    match is_so {
                        true => _ = set.insert(*address),
                        false => _ = set.remove(address),
                    }
                }
            }
            MembershipEvent::Granted(address) => {
                self.granted.insert(*address);
            }
            MembershipEvent::Holds { address, .. } => {
                self.addresses.insert(*address, Tenure::Held(now));
            }
            MembershipEvent::Discard(address) | MembershipEvent::Lost { address, .. } => {
                let tenure = self.addresses.remove(address);
                self.first.remove(address);
                self.handed.remove(address);
                self.granted.remove(address);
                if now >= self.swept + SILENCE {
                    self.swept = now;
                    self.lost.retain(|_, at| now < *at + SILENCE);
                }
                // What it only asked for it never answered for.
                if let Some(Tenure::Held(_)) = tenure {
                    self.lost.insert(*address, now);
                }
            }
            MembershipEvent::Live(live) => {
                if self.live != *live {
                    (self.live, self.live_since) = (live.clone(), now);
                }
            }
            MembershipEvent::Orphans(orphans) => self.orphans.clone_from(orphans),
            MembershipEvent::Unheard(unheard) => self.unheard.clone_from(unheard),
            MembershipEvent::Uncovered(_) | MembershipEvent::Left => {}
        }
    }

    /// How far this node is with an address.
    pub fn tenure(&self, address: &IpAddr) -> Option<Tenure> {
        self.addresses.get(address).copied()
    }

    /// Since when this node answers for an address.
    pub fn held_since(&self, address: &IpAddr) -> Option<Instant> {
        match self.tenure(address) {
            Some(Tenure::Held(since)) => Some(since),
            Some(Tenure::Preparing) | None => None,
        }
    }

    /// Whether an address is to be bound. Without a fence it would answer before its time.
    pub fn binds(&self, address: &IpAddr) -> bool {
        match self.tenure(address) {
            Some(Tenure::Held(_)) => true,
            Some(Tenure::Preparing) => self.fenced,
            None => false,
        }
    }

    /// The addresses that this node asks for or has.
    pub fn all(&self) -> impl Iterator<Item = IpAddr> {
        self.addresses.keys().copied()
    }

    /// Those that are to be asked for on the LAN: not what a fellow node answers for until it hands that over.
    pub fn asked(&self) -> impl Iterator<Item = IpAddr> {
        self.all().filter(|address| !self.handed.contains(address))
    }

    /// Whether no other node is known to have had an address.
    pub fn is_first(&self, address: &IpAddr) -> bool {
        self.first.contains(address)
    }

    /// Whether no other node of this cluster may have an address.
    pub fn is_granted(&self, address: &IpAddr) -> bool {
        self.granted.contains(address)
    }

    /// The addresses that this node asks for.
    pub fn preparing(&self) -> impl Iterator<Item = IpAddr> {
        let asked = self.addresses.iter().filter(|(_, tenure)| **tenure == Tenure::Preparing);
        asked.map(|(address, _)| *address)
    }

    /// Whether what is bound too early stays silent.
    pub fn is_fenced(&self) -> bool {
        self.fenced
    }

    /// Whether a node is alive as a majority sees it.
    pub fn is_live(&self, node: NodeId) -> bool {
        self.live.contains(&node)
    }

    /// The nodes that are alive as a majority sees it; none while no majority answers.
    pub fn live(&self) -> &BTreeSet<NodeId> {
        &self.live
    }

    /// Whether no live node has had an address for a while, as a majority sees it.
    pub fn is_orphan(&self, address: &IpAddr) -> bool {
        self.is_clear() && self.orphans.contains(address) && self.tenure(address).is_none()
    }

    /// The voters that do not answer this node, for people.
    pub fn unheard(&self) -> Few {
        self.unheard.iter().map(String::as_str).collect()
    }

    /// Whether a majority answers this node.
    pub fn is_clear(&self) -> bool {
        !self.live.is_empty()
    }

    /// Whether this node tells what becomes of a Service that nobody can own, and that says `host` announces it: that
    /// host does while it lives, else one of the live nodes, once it is sure who they are.
    pub fn speaks_for(&self, service: &Name, host: Option<&str>, now: Instant) -> bool {
        let host = host.map(NodeId::of);
        if !self.is_clear() || host.is_some_and(|host| self.is_live(host) || host == self.me) {
            return host == Some(self.me);
        }
        let request = Request {
            key: Request::key_of(&service.to_string()),
            candidates: self.live.iter().copied().collect(),
            ..Request::default()
        };
        now >= self.live_since + SETTLED
            && rank(&request, |_| true, None).first().is_some_and(|first| *first == self.me)
    }

    /// Notes whether somebody holds the addresses by another election.
    pub fn rivalled(&mut self, rivalled: bool) {
        self.rivalled = rivalled;
    }

    /// Whether this node has had none of these addresses for so long that nobody can take it to answer for them.
    pub fn is_silent(&self, addresses: &[IpAddr], now: Instant) -> bool {
        let silent = |address: &IpAddr| {
            let lost = self.lost.get(address).copied().unwrap_or(self.since);
            let has = match self.tenure(address) {
                Some(Tenure::Held(_)) => true,
                // Without a majority nothing comes of it.
                Some(Tenure::Preparing) => self.is_clear(),
                None => false,
            };
            !has && now >= lost.max(self.since) + SILENCE
        };
        !self.rivalled && addresses.iter().all(silent)
    }

    /// Whether this node answers for none of these addresses, nor anybody by another election.
    pub fn has_none(&self, addresses: &[IpAddr]) -> bool {
        !self.rivalled && addresses.iter().all(|address| self.held_since(address).is_none())
    }

    /// When [`Holdings::speaks_for`] or [`Holdings::is_silent`] may say something else although nothing is told.
    pub fn settles(&self, now: Instant) -> Option<Instant> {
        let lost = self.lost.values().chain([&self.since]).map(|since| *since + SILENCE);
        lost.chain([self.live_since + SETTLED]).filter(|settled| *settled > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn for_a_service_that_nobody_can_own_exactly_one_live_node_speaks() {
        let now = Instant::now();
        let names = ["a", "b", "c"];
        let live: BTreeSet<NodeId> = names.map(NodeId::of).into();
        let speakers = |host: Option<&str>, live: &BTreeSet<NodeId>, at: Instant| {
            let speaks = |name: &&str| {
                let mut holdings = Holdings::new(NodeId::of(name), true, now);
                holdings.take(&MembershipEvent::Live(live.clone()), now);
                holdings.speaks_for(&Name::new("d", "web"), host, at)
            };
            names.into_iter().filter(speaks).collect::<Vec<_>>()
        };
        assert_eq!(speakers(Some("b"), &live, now), ["b"]);
        assert_eq!(speakers(Some("gone"), &live, now), [""; 0], "not before it is sure");
        assert_eq!(speakers(Some("gone"), &live, now + SETTLED).len(), 1);
        assert_eq!(speakers(None, &live, now + SETTLED).len(), 1);
        assert_eq!(speakers(None, &BTreeSet::new(), now + SETTLED), [""; 0], "no majority");
    }

    #[test]
    fn a_node_is_silent_a_while_after_its_start_or_its_last_loss_and_not_beside_a_rival() {
        let now = Instant::now();
        let second = Duration::from_secs(1);
        let addresses = ["192.0.2.1".parse().unwrap()];
        let mut holdings = Holdings::new(NodeId::of("a"), true, now);
        assert!(!holdings.is_silent(&addresses, now + SILENCE - second));
        assert!(holdings.is_silent(&addresses, now + SILENCE));
        let (cause, took) = (berth_membership::Cause::First, Duration::ZERO);
        holdings.take(&MembershipEvent::Holds { address: addresses[0], cause, took }, now);
        assert!(!holdings.is_silent(&addresses, now + SILENCE * 2));
        let lost = now + SILENCE * 2;
        let cause = berth_membership::Loss::Expired;
        holdings.take(&MembershipEvent::Lost { address: addresses[0], cause }, lost);
        assert!(!holdings.is_silent(&addresses, lost));
        assert_eq!(holdings.settles(lost), Some(lost + SILENCE));
        assert!(holdings.is_silent(&addresses, lost + SILENCE));
        let asked = MembershipEvent::Prepare { address: addresses[0], first: false, handed: false };
        holdings.take(&asked, lost + SILENCE);
        assert!(holdings.is_silent(&addresses, lost + SILENCE), "nobody grants it");
        holdings.take(&MembershipEvent::Live([NodeId::of("a")].into()), lost + SILENCE);
        assert!(!holdings.is_silent(&addresses, lost + SILENCE), "it may have it soon");
        holdings.take(&MembershipEvent::Discard(addresses[0]), lost + SILENCE);
        assert!(holdings.is_silent(&addresses, lost + SILENCE), "it never answered meanwhile");
        holdings.rivalled(true);
        assert!(!holdings.is_silent(&addresses, lost + SILENCE));
    }

    #[test]
    fn what_a_fellow_node_hands_over_is_not_asked_for_on_the_lan_and_whatever_else_is() {
        let (now, address) = (Instant::now(), "192.0.2.1".parse().unwrap());
        let mut holdings = Holdings::new(NodeId::of("a"), true, now);
        let prepare = |handed| MembershipEvent::Prepare { address, first: false, handed };
        for handed in [true, false, true] {
            holdings.take(&prepare(handed), now);
            assert_eq!(
                (holdings.asked().count(), holdings.all().count()),
                (usize::from(!handed), 1)
            );
        }
        holdings.take(&MembershipEvent::Discard(address), now);
        holdings.take(&prepare(false), now);
        assert_eq!(holdings.asked().count(), 1, "it was not handed over after all");
    }

    #[test]
    fn without_a_fence_nothing_is_bound_before_it_is_held() {
        let (now, address) = (Instant::now(), "192.0.2.1".parse().unwrap());
        for fenced in [true, false] {
            let mut holdings = Holdings::new(NodeId::of("a"), fenced, now);
            holdings.take(&MembershipEvent::Prepare { address, first: true, handed: false }, now);
            assert_eq!(holdings.binds(&address), fenced);
            let (cause, took) = (berth_membership::Cause::First, Duration::ZERO);
            holdings.take(&MembershipEvent::Holds { address, cause, took }, now);
            assert!(holdings.binds(&address));
            holdings.take(&MembershipEvent::Discard(address), now);
            assert!(!holdings.binds(&address));
        }
    }
}
