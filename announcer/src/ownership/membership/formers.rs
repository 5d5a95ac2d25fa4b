//! Whom an address came from, while connections that began there may go on. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_membership::{Cause, NodeId};

use super::exchange::Told;
use crate::vip::Forwards;
use crate::vip::nodes::Peers;

/// How long connections of the former owner go on through it.
const DRAIN: Duration = Duration::from_secs(300);

/// How long a node that takes an address over waits until its detour stands. The holder waits longer for it; and a
/// crash, which is suspected after 125 ms and taken over after 350, is not taken over later for a busy `nft`.
const PATIENCE: Duration = Duration::from_millis(150);

/// The same while the holder lives: then it hands over, and gives its target half a second.
const PATIENCE_WITH_A_HOLDER: Duration = Duration::from_millis(400);

/// The former owners of what this node has or asks for.
#[derive(Debug, Default)]
pub(super) struct Formers {
    of: BTreeMap<IpAddr, Former>,
    /// The detours that the kernel was last asked for.
    settled: Forwards,
}

#[derive(Debug)]
struct Former {
    node: String,
    asked: Instant,
    /// Since when this node answers.
    held: Option<Instant>,
}

impl Formers {
    /// Takes in what the keeper told. `host` is the node that is said to have the address now.
    pub(super) fn take(&mut self, told: &Told, host: Option<&str>, me: NodeId, now: Instant) {
        match told {
            Told::Prepare { address, .. } => {
                if let Some(node) = host.filter(|host| NodeId::of(host) != me) {
                    let former = Former { node: node.to_owned(), asked: now, held: None };
                    self.of.insert(*address, former);
                }
            }
            // Who crashed forwards nothing: then a reset is the better answer.
            Told::Holds { address, cause: Cause::Handover, .. } => {
                if let Some(former) = self.of.get_mut(address) {
                    former.held = Some(now);
                }
            }
            Told::Holds { address, .. } | Told::Discard(address) | Told::Lost { address, .. } => {
                self.of.remove(address);
            }
            Told::Granted(_) | Told::Live(_) | Told::Left => {}
        }
    }

    /// Takes in that the kernel was asked for these.
    pub(super) fn settled(&mut self, detours: Forwards) {
        self.settled = detours;
    }

    /// The detours to have: to where a former owner is `connected`.
    pub(super) fn detours(
        &mut self,
        peers: &Peers,
        connected: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) -> Forwards {
        self.of.retain(|_, former| former.held.is_none_or(|held| now < held + DRAIN));
        let mut near: BTreeMap<(&str, bool), Option<IpAddr>> = BTreeMap::new();
        let mut detours = Forwards::new();
        for (address, former) in &self.of {
            let family = address.is_ipv4();
            let find = || {
                let theirs = peers.addresses_of(&former.node).iter().copied();
                theirs.filter(|theirs| theirs.is_ipv4() == family).find(|theirs| connected(*theirs))
            };
            if let Some(theirs) = near.entry((&former.node, family)).or_insert_with(find) {
                detours.insert(*address, *theirs);
            }
        }
        detours
    }

    /// Whether an address that this node asks for had better not be taken yet.
    pub(super) fn awaits(
        &self,
        address: &IpAddr,
        detours: &Forwards,
        is_live: impl Fn(NodeId) -> bool,
        now: Instant,
    ) -> bool {
        let Some(former) = self.of.get(address) else { return false };
        let patience = match is_live(NodeId::of(&former.node)) {
            true => PATIENCE_WITH_A_HOLDER,
            false => PATIENCE,
        };
        detours.contains_key(address)
            && self.settled.get(address) != detours.get(address)
            && now < former.asked + patience
    }

    /// When something changes although nothing happens.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = |former: &Former| match former.held {
            Some(held) => [held + DRAIN; 2],
            None => [former.asked + PATIENCE, former.asked + PATIENCE_WITH_A_HOLDER],
        };
        self.of.values().flat_map(due).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vip::nodes::Peer;

    const VIP: &str = "192.0.2.1";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn holds(cause: Cause) -> Told {
        Told::Holds { address: address(VIP), cause, took: Duration::ZERO }
    }

    fn peers() -> Peers {
        let mut peers = Peers::default();
        let addresses = ["fd00::11", "203.0.113.1", "10.0.0.11"].map(address).into();
        peers.apply("b".to_owned(), Peer { addresses, ..Peer::default() });
        peers
    }

    fn detours(formers: &mut Formers, now: Instant) -> Forwards {
        formers.detours(&peers(), |theirs| theirs != address("203.0.113.1"), now)
    }

    #[test]
    fn a_detour_stands_before_the_address_is_taken_and_goes_when_the_drain_is_over() {
        let (mut formers, me, now) = (Formers::default(), NodeId::of("a"), Instant::now());
        formers.take(&Told::Prepare { address: address(VIP), first: false }, Some("b"), me, now);
        let wanted = detours(&mut formers, now);
        assert_eq!(
            wanted,
            [(address(VIP), address("10.0.0.11"))].into(),
            "a near one, same family"
        );
        let awaits = |formers: &Formers, live: bool, after: Duration| {
            formers.awaits(&address(VIP), &wanted, |_| live, now + after)
        };
        assert!(awaits(&formers, true, PATIENCE) && !awaits(&formers, false, PATIENCE));
        assert!(!awaits(&formers, true, PATIENCE_WITH_A_HOLDER), "not for ever");
        formers.settled(wanted.clone());
        assert!(!awaits(&formers, true, Duration::ZERO));
        formers.take(&holds(Cause::Handover), Some("b"), me, now);
        assert_eq!(detours(&mut formers, now + DRAIN / 2), wanted);
        assert_eq!(formers.deadline(now), Some(now + DRAIN));
        assert_eq!(detours(&mut formers, now + DRAIN), Forwards::new());
    }

    #[test]
    fn nothing_goes_to_a_former_owner_that_failed_or_is_this_node_or_unknown() {
        let (me, now) = (NodeId::of("a"), Instant::now());
        for (host, told) in [
            (Some("b"), holds(Cause::Takeover)),
            (Some("b"), Told::Discard(address(VIP))),
            (Some("a"), holds(Cause::Handover)),
            (Some("gone"), holds(Cause::Handover)),
            (None, holds(Cause::Handover)),
        ] {
            let mut formers = Formers::default();
            formers.take(&Told::Prepare { address: address(VIP), first: false }, host, me, now);
            formers.take(&told, host, me, now);
            assert_eq!(detours(&mut formers, now), Forwards::new(), "{host:?} {told:?}");
        }
    }
}
