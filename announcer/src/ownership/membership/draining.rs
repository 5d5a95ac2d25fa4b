//! Whom an address came from, while connections that began there may go on. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_membership::{Cause, NodeId};

use super::super::context::Context;
use super::exchange::MembershipEvent;
use crate::vip::Forwards;
use crate::vip::nodes::Peers;

/// How long connections of the previous owner go on through it.
const DRAIN: Duration = Duration::from_secs(300);

/// How long a node that takes an address over waits until the kernel forwards to it. The holder waits longer for it; and a
/// crash, which is suspected after 62 ms at the earliest and taken over after 100, is not taken over later for a busy `nft`.
const PATIENCE: Duration = Duration::from_millis(35);

/// The same while the holder lives: then it hands over, and gives its target half a second.
const PATIENCE_WITH_A_HOLDER: Duration = Duration::from_millis(400);

/// Whether a node is met by this address on a network of this host. A VIP that was bound on it when its kubelet looked may
/// stand in its Node (kube-vip#741): that leads to whoever has it now.
pub(super) fn is_near(context: Context<'_>, theirs: IpAddr) -> bool {
    let Context { wanted, host, .. } = context;
    wanted.vip(theirs).is_none() && !host.has(&theirs) && host.connected(theirs).is_some()
}

/// The previous owners of what this node has or asks for.
#[derive(Debug, Default)]
pub(super) struct Draining {
    of: BTreeMap<IpAddr, Previous>,
    /// Where the packets of their connections are to go.
    wanted: Forwards,
    /// What of that the kernel was last asked for.
    settled: Forwards,
}

#[derive(Debug)]
struct Previous {
    node: String,
    asked: Instant,
    /// Since when this node answers.
    held: Option<Instant>,
}

impl Draining {
    /// Takes in what the driver told. `host` is the node that is said to have the address now.
    pub(super) fn take(
        &mut self,
        told: &MembershipEvent,
        host: Option<&str>,
        me: NodeId,
        now: Instant,
    ) {
        match told {
            MembershipEvent::Prepare { address, .. } => {
                if let Some(node) = host.filter(|host| NodeId::of(host) != me) {
                    let previous = Previous { node: node.to_owned(), asked: now, held: None };
                    self.of.insert(*address, previous);
                }
            }
            // Who crashed forwards nothing: then a reset is the better answer.
            MembershipEvent::Holds { address, cause: Cause::Handover, .. } => {
                if let Some(previous) = self.of.get_mut(address) {
                    previous.held = Some(now);
                }
            }
            MembershipEvent::Holds { address, .. }
            | MembershipEvent::Discard(address)
            | MembershipEvent::Lost { address, .. } => {
                self.of.remove(address);
            }
            MembershipEvent::Granted(_)
            | MembershipEvent::Uncovered(_)
            | MembershipEvent::Live(_)
            | MembershipEvent::Orphans(_)
            | MembershipEvent::Unheard(_)
            | MembershipEvent::Left => {}
        }
    }

    /// Takes in that the kernel was asked for these.
    pub(super) fn settled(&mut self, forwards: Forwards) {
        self.settled = forwards;
    }

    /// Where packets are to go: to where a previous owner is `connected`.
    pub(super) fn forwards(
        &mut self,
        peers: &Peers,
        connected: impl Fn(IpAddr) -> bool,
        now: Instant,
    ) -> Forwards {
        self.of.retain(|_, previous| previous.held.is_none_or(|held| now < held + DRAIN));
        let mut near: BTreeMap<(&str, bool), Option<IpAddr>> = BTreeMap::new();
        let mut forwards = Forwards::new();
        for (address, previous) in &self.of {
            let family = address.is_ipv4();
            let find = || {
                let theirs = peers.addresses_of(&previous.node).iter().copied();
                theirs.filter(|theirs| theirs.is_ipv4() == family).find(|theirs| connected(*theirs))
            };
            if let Some(theirs) = near.entry((&previous.node, family)).or_insert_with(find) {
                forwards.insert(*address, *theirs);
            }
        }
        self.wanted.clone_from(&forwards);
        forwards
    }

    /// Whether an address that this node asks for had better not be taken yet.
    pub(super) fn awaits(
        &self,
        address: &IpAddr,
        is_live: impl Fn(NodeId) -> bool,
        now: Instant,
    ) -> bool {
        let Some(previous) = self.of.get(address) else { return false };
        let patience = match is_live(NodeId::of(&previous.node)) {
            true => PATIENCE_WITH_A_HOLDER,
            false => PATIENCE,
        };
        self.wanted.contains_key(address)
            && self.settled.get(address) != self.wanted.get(address)
            && now < previous.asked + patience
    }

    /// When something changes although nothing happens.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let due = |previous: &Previous| match previous.held {
            Some(held) => [held + DRAIN; 2],
            None => [previous.asked + PATIENCE, previous.asked + PATIENCE_WITH_A_HOLDER],
        };
        self.of.values().flat_map(due).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Binding, Foreign, Lifetime};
    use crate::ownership::testing::context;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::service;
    use crate::source::testing::{host, seen};
    use crate::vip::Name;
    use crate::vip::nodes::Peer;

    const VIP: &str = "192.0.2.1";

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn holds(cause: Cause) -> MembershipEvent {
        MembershipEvent::Holds { address: address(VIP), cause, took: Duration::ZERO }
    }

    fn peers() -> Peers {
        let mut peers = Peers::default();
        let addresses = ["fd00::11", "203.0.113.1", "10.0.0.11"].map(address).into();
        peers.apply("b".to_owned(), Peer { addresses, ..Peer::default() });
        peers
    }

    fn forwards(draining: &mut Draining, now: Instant) -> Forwards {
        draining.forwards(&peers(), |theirs| theirs != address("203.0.113.1"), now)
    }

    #[test]
    fn packets_are_forwarded_before_the_address_is_taken_and_goes_when_the_drain_is_over() {
        let (mut draining, me, now) = (Draining::default(), NodeId::of("a"), Instant::now());
        draining.take(
            &MembershipEvent::Prepare { address: address(VIP), first: false, handed: false },
            Some("b"),
            me,
            now,
        );
        let wanted = forwards(&mut draining, now);
        assert_eq!(
            wanted,
            [(address(VIP), address("10.0.0.11"))].into(),
            "a near one, same family"
        );
        let awaits = |draining: &Draining, live: bool, after: Duration| {
            draining.awaits(&address(VIP), |_| live, now + after)
        };
        assert!(awaits(&draining, true, PATIENCE) && !awaits(&draining, false, PATIENCE));
        assert!(!awaits(&draining, true, PATIENCE_WITH_A_HOLDER), "not for ever");
        draining.settled(wanted.clone());
        assert!(!awaits(&draining, true, Duration::ZERO));
        draining.take(&holds(Cause::Handover), Some("b"), me, now);
        assert_eq!(forwards(&mut draining, now + DRAIN / 2), wanted);
        assert_eq!(draining.deadline(now), Some(now + DRAIN));
        assert_eq!(forwards(&mut draining, now + DRAIN), Forwards::new());
    }

    #[test]
    fn a_crash_is_not_taken_over_later_for_a_kernel_that_is_slow_to_forward() {
        let suspected = Duration::from_micros(62_500);
        assert!(suspected + PATIENCE <= berth_membership::SHORTEST);
    }

    #[test]
    fn nothing_goes_to_a_former_owner_that_failed_or_is_this_node_or_unknown() {
        let (me, now) = (NodeId::of("a"), Instant::now());
        for (host, told) in [
            (Some("b"), holds(Cause::Takeover)),
            (Some("b"), MembershipEvent::Discard(address(VIP))),
            (Some("a"), holds(Cause::Handover)),
            (Some("gone"), holds(Cause::Handover)),
            (None, holds(Cause::Handover)),
        ] {
            let mut draining = Draining::default();
            draining.take(
                &MembershipEvent::Prepare { address: address(VIP), first: false, handed: false },
                host,
                me,
                now,
            );
            draining.take(&told, host, me, now);
            assert_eq!(forwards(&mut draining, now), Forwards::new(), "{host:?} {told:?}");
        }
    }

    #[test]
    fn a_vip_that_a_node_lists_first_is_no_way_to_it() {
        let mut cluster = Cluster::default();
        let both = ["192.0.2.1", "2001:db8::1"];
        cluster.apply_service(Name::new("d", "web"), service(&both));
        let (mut host, me, now) = (host(), NodeId::of("a"), Instant::now());
        let eth0 = host.interfaces.get_mut("eth0").unwrap();
        for (own, prefix_len) in [("192.0.2.11", 24), ("2001:db8::11", 64)] {
            eth0.foreign.insert(address(own), Foreign { prefix_len, ..Foreign::default() });
        }
        // One that is not wanted any more, and is bound here still.
        let left = Binding { index: 2, address: address("192.0.2.2") };
        host.ours.insert(left, Lifetime::Forever);
        let wanted = seen(&cluster, &host, Some("eth0"));
        let listed = ["192.0.2.1", "192.0.2.2", "192.0.2.12", "2001:db8::1", "2001:db8::12"];
        let mut peers = Peers::default();
        let addresses = listed.map(address).into();
        peers.apply("b".to_owned(), Peer { addresses, ..Peer::default() });
        let mut draining = Draining::default();
        for vip in both {
            let asks =
                MembershipEvent::Prepare { address: address(vip), first: false, handed: false };
            draining.take(&asks, Some("b"), me, now);
        }
        let context = context(&wanted, &host);
        let forwards = draining.forwards(&peers, |theirs| is_near(context, theirs), now);
        let expected = [("192.0.2.1", "192.0.2.12"), ("2001:db8::1", "2001:db8::12")];
        assert_eq!(forwards, expected.map(|(vip, theirs)| (address(vip), address(theirs))).into());
    }
}
