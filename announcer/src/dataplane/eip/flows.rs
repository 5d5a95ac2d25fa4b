//! Which tracked connections are stale after a change of what is translated. Pure.
//!
//! Linux asks the NAT rules for the first packet of a connection only. What it tracked while other rules held goes on
//! as it was: untranslated, masqueraded by the CNI, led to where the VM no longer is, or held to the TCP window of
//! before the VM left. Forgotten, it is picked up anew in the middle (`nf_conntrack_tcp_loose`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::state::{Nat, Pair, Stage};

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
    /// Those that begin to lead to a VM whose own connections are translated already.
    led: BTreeMap<IpAddr, IpAddr>,
    /// By VM, what it appears as from now on.
    vmis: BTreeMap<IpAddr, IpAddr>,
    internal: BTreeSet<IpNetwork>,
}

/// What changes from `before` to `now`. An elastic IP that drained here and is answered for again comes back: the
/// connections tracked before know nothing of what happened elsewhere.
pub(super) fn shift(before: &Nat, now: &Nat) -> Shift {
    let mut shift = Shift { internal: now.internal.clone(), ..Shift::default() };
    for (eip, pair) in &now.pairs {
        let was = before.pairs.get(eip).filter(|was| was.vmi == pair.vmi).map(|was| was.stage);
        let sends = match (was, pair.stage) {
            (Some(was), is) if was == is => continue,
            // What others on this node have with it goes by another node still.
            (None, Stage::Expected) => true,
            (Some(Stage::Expected), _) => {
                shift.led.insert(*eip, pair.vmi);
                true
            }
            (None | Some(Stage::Draining), stage) => {
                shift.eips.insert(*eip);
                stage != Stage::Draining
            }
            (Some(_), Stage::Expected) => shift.eips.insert(*eip),
            (Some(_), _) => continue,
        };
        if sends {
            shift.vmis.insert(pair.vmi, *eip);
        }
    }
    let gone = before.pairs.iter().filter(|(eip, _)| !now.pairs.contains_key(eip));
    shift.eips.extend(gone.filter(|(_, was)| was.stage.leads()).map(|(eip, _)| *eip));
    shift
}

/// Addresses that leave this node from `before` to `now`, or whose VMs may at any moment. From then on their
/// connections may pass two nodes, each way another one, and neither sees enough to know what is within the TCP window.
pub(super) fn leaving(before: &Nat, now: &Nat) -> BTreeSet<IpAddr> {
    let left = |stage| matches!(stage, Stage::Leaving | Stage::Draining);
    // At either step, for connections that began in between.
    let newly = |(eip, pair): &(&IpAddr, &Pair)| {
        before.pairs.get(eip).is_none_or(|was| was.stage != pair.stage)
    };
    let leaves = now.pairs.iter().filter(|(_, pair)| left(pair.stage)).filter(newly);
    leaves.map(|(eip, _)| *eip).chain(now.parting.iter().copied()).collect()
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
        self.eips.is_empty() && self.led.is_empty() && self.vmis.is_empty()
    }

    /// Whether a connection is stale.
    pub(super) fn makes_stale(&self, flow: &Flow) -> bool {
        if flow.uses(&self.eips) {
            return true;
        }
        if self.led.get(&flow.destination).is_some_and(|vmi| flow.reply_source != *vmi) {
            return true;
        }
        // What the VM began itself and is not translated, though it goes outside.
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

    fn staged(stage: Stage) -> Nat {
        let mut nat = nat(&[(EIP, VMI)]);
        nat.pairs.values_mut().for_each(|pair| pair.stage = stage);
        nat
    }

    fn draining() -> Nat {
        staged(Stage::Draining)
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
    fn an_address_leaves_in_two_steps_and_is_about_to_while_its_machine_migrates() {
        let left = |before, now| leaving(&staged(before), &staged(now)).len();
        assert_eq!(left(Stage::Held, Stage::Leaving), 1);
        assert_eq!(left(Stage::Held, Stage::Draining), 1);
        assert_eq!(left(Stage::Leaving, Stage::Draining), 1, "some may have begun in between");
        assert_eq!(left(Stage::Draining, Stage::Draining), 0);
        assert_eq!(left(Stage::Draining, Stage::Coming), 0);
        let held = staged(Stage::Held);
        let parting = Nat { parting: [EIP.parse().unwrap()].into(), ..held.clone() };
        assert_eq!(leaving(&held, &parting).len(), 1);
    }

    #[test]
    fn a_machine_that_comes_keeps_what_it_began_here_and_others_find_it() {
        let (none, expected) = (nat(&[]), staged(Stage::Expected));
        assert_eq!(stale(&none, &expected), [false, false, true, false, false]);
        let came = shift(&expected, &staged(Stage::Coming));
        let is_stale = |addresses| came.makes_stale(&flow(addresses));
        assert!(!is_stale([VMI, OUTSIDE, OUTSIDE, EIP]), "it is translated as it should be");
        assert!(!is_stale([OUTSIDE, EIP, VMI, OUTSIDE]));
        assert!(is_stale(["10.244.0.48", EIP, EIP, "10.244.0.48"]), "it went by the other node");
        assert!(shift(&expected, &none).is_empty(), "a failed migration touches nothing");
    }

    #[test]
    fn a_machine_with_a_new_address_of_its_own_is_a_change() {
        let stale = stale(&nat(&[(EIP, "10.244.0.9")]), &nat(&[(EIP, VMI)]));
        assert_eq!(stale, [true, true, true, false, false]);
    }
}
