//! Which tracked connections are stale after a change of what is translated. Pure.
//!
//! Linux asks the NAT rules for the first packet of a connection only. What it tracked while other rules held goes on
//! as it was: untranslated, masqueraded by the CNI, led to where the machine no longer is, or held to the TCP window of
//! before the machine left. Forgotten, it is picked up anew in the middle (`nf_conntrack_tcp_loose`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::state::{Nat, Stage};

/// A tracked connection: as the first packet came, and as its answer is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) reply_source: IpAddr,
    pub(super) reply_destination: IpAddr,
}

/// What has changed of what is translated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Shift {
    /// Elastic IPs that no longer lead anywhere, or elsewhere, or that come back to this node.
    eips: BTreeSet<IpAddr>,
    /// By machine, what it appears as from now on.
    vmis: BTreeMap<IpAddr, IpAddr>,
    internal: BTreeSet<IpNetwork>,
}

/// What changes from `before` to `now`. An elastic IP that drained here and is answered for again comes back: the
/// connections tracked before know nothing of what happened elsewhere.
pub(super) fn shift(before: &Nat, now: &Nat) -> Shift {
    let mut shift = Shift { internal: now.internal.clone(), ..Shift::default() };
    for (eip, pair) in &now.pairs {
        let was = before.pairs.get(eip);
        let draining = pair.stage == Stage::Draining;
        let same = was
            .is_some_and(|was| was.vmi == pair.vmi && (was.stage != Stage::Draining || draining));
        if !same {
            shift.eips.insert(*eip);
            if !draining {
                shift.vmis.insert(pair.vmi, *eip);
            }
        }
    }
    shift.eips.extend(before.pairs.keys().filter(|eip| !now.pairs.contains_key(eip)));
    shift
}

/// Addresses that leave this node from `before` to `now`. From here on their connections may pass two nodes, each way
/// another one, and neither sees enough to know what is within the TCP window.
pub(super) fn leaving(before: &Nat, now: &Nat) -> BTreeSet<IpAddr> {
    let left = |stage| matches!(stage, Stage::Leaving | Stage::Draining);
    let newly = |eip: &IpAddr| before.pairs.get(eip).is_none_or(|was| !left(was.stage));
    let leaves = now.pairs.iter().filter(|(eip, pair)| left(pair.stage) && newly(eip));
    leaves.map(|(eip, _)| *eip).collect()
}

impl Flow {
    /// Whether it goes by one of these elastic IPs.
    pub(super) fn uses(&self, eips: &BTreeSet<IpAddr>) -> bool {
        eips.contains(&self.destination) || eips.contains(&self.reply_destination)
    }
}

impl Shift {
    /// Whether no connection can be stale.
    pub(super) fn is_empty(&self) -> bool {
        self.eips.is_empty()
    }

    /// Whether a connection is stale.
    pub(super) fn makes_stale(&self, flow: &Flow) -> bool {
        if flow.uses(&self.eips) {
            return true;
        }
        // What the machine began itself and is not translated, though it goes outside.
        let within = || self.internal.iter().any(|network| network.contains(flow.destination));
        self.vmis.get(&flow.source).is_some_and(|eip| flow.reply_destination != *eip) && !within()
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::testing::nat;
    use super::*;

    const EIP: &str = "192.0.2.1";
    const VMI: &str = "10.244.0.4";
    const OUTSIDE: &str = "203.0.113.9";

    fn flow([source, destination, reply_source, reply_destination]: [&str; 4]) -> Flow {
        let address = |text: &str| text.parse().unwrap();
        Flow {
            source: address(source),
            destination: address(destination),
            reply_source: address(reply_source),
            reply_destination: address(reply_destination),
        }
    }

    /// Which of some connections are stale.
    fn stale(before: &Nat, now: &Nat) -> [bool; 5] {
        let shift = shift(before, now);
        [
            [OUTSIDE, EIP, VMI, OUTSIDE],
            [VMI, OUTSIDE, OUTSIDE, EIP],
            [VMI, OUTSIDE, OUTSIDE, "192.0.2.250"],
            [VMI, "10.96.0.1", "10.0.0.11", VMI],
            ["10.244.0.48", OUTSIDE, OUTSIDE, "192.0.2.250"],
        ]
        .map(|addresses| shift.makes_stale(&flow(addresses)))
    }

    fn draining() -> Nat {
        let mut nat = nat(&[(EIP, VMI)]);
        nat.pairs.values_mut().for_each(|pair| pair.stage = Stage::Draining);
        nat
    }

    #[test]
    fn a_new_address_makes_stale_what_its_machine_has_begun_untranslated_and_nothing_inside() {
        let stale = stale(&nat(&[]), &nat(&[(EIP, VMI)]));
        assert_eq!(stale, [true, true, true, false, false]);
    }

    #[test]
    fn a_released_address_makes_stale_what_went_by_it() {
        let stale = stale(&nat(&[(EIP, VMI)]), &nat(&[]));
        assert_eq!(stale, [true, true, false, false, false]);
    }

    #[test]
    fn connections_outlive_the_move_to_another_node_and_not_the_way_back() {
        assert_eq!(stale(&nat(&[(EIP, VMI)]), &draining()), [false; 5]);
        assert!(shift(&nat(&[(EIP, VMI)]), &draining()).is_empty());
        assert_eq!(stale(&draining(), &nat(&[(EIP, VMI)]))[..2], [true, true]);
    }

    #[test]
    fn an_address_leaves_once() {
        let staged = |stage| {
            let mut nat = nat(&[(EIP, VMI)]);
            nat.pairs.values_mut().for_each(|pair| pair.stage = stage);
            nat
        };
        let left = |before, now| leaving(&staged(before), &staged(now)).len();
        assert_eq!(left(Stage::Held, Stage::Leaving), 1);
        assert_eq!(left(Stage::Held, Stage::Draining), 1);
        assert_eq!(left(Stage::Leaving, Stage::Draining), 0);
        assert_eq!(left(Stage::Draining, Stage::Coming), 0);
    }

    #[test]
    fn a_machine_with_a_new_address_of_its_own_is_a_change() {
        let stale = stale(&nat(&[(EIP, "10.244.0.9")]), &nat(&[(EIP, VMI)]));
        assert_eq!(stale, [true, true, true, false, false]);
    }
}
