//! The sets as values, and what to feed to `ipset restore`. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use ipnetwork::IpNetwork;

use super::state::{Nat, Stage};
use crate::vip::Family;

/// Elements that a set has room for. It is part of what a set is, so it never depends on what is in it.
const ROOM: u32 = 65_536;

/// A set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Set {
    /// Networks that are never translated.
    Internal,
    /// Elastic IPs.
    Eip,
    /// Machines.
    Vmi,
    /// Machines that have come to this node not long ago, are about to, or have left it.
    Moving,
}

impl Set {
    pub(super) const ALL: [Self; 4] = [Self::Internal, Self::Eip, Self::Vmi, Self::Moving];

    /// Its name. The names of sets are shared by both families.
    pub(super) fn name(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Internal, Family::V4) => "k8s_internal_net",
            (Self::Eip, Family::V4) => "kube-eip-eip",
            (Self::Vmi, Family::V4) => "kube-eip-vmi",
            (Self::Moving, Family::V4) => "kube-eip-moving",
            (Self::Internal, Family::V6) => "k8s_internal_net6",
            (Self::Eip, Family::V6) => "kube-eip-eip6",
            (Self::Vmi, Family::V6) => "kube-eip-vmi6",
            (Self::Moving, Family::V6) => "kube-eip-moving6",
        }
    }

    /// The set in which its next contents are gathered.
    fn next(self, family: Family) -> String {
        format!("{}.new", self.name(family))
    }

    /// Its type.
    pub(super) fn kind(self) -> &'static str {
        match self {
            Self::Internal => "hash:net",
            Self::Eip | Self::Vmi | Self::Moving => "hash:ip",
        }
    }
}

/// Sets by name, each with its elements: an address alone is one with the length of its family.
pub(super) type Sets = BTreeMap<&'static str, BTreeSet<IpNetwork>>;

/// The sets that `nat` needs: none of a family without pairs.
pub(super) fn sets(nat: &Nat) -> Sets {
    let mut sets = Sets::new();
    for family in Family::ALL.into_iter().filter(|family| nat.of(*family).next().is_some()) {
        let eips = nat.led(family).map(|(eip, _)| IpNetwork::from(*eip)).collect();
        let vmis = nat.sources(family).into_keys().map(IpNetwork::from).collect();
        sets.insert(Set::Internal.name(family), nat.internal_of(family).copied().collect());
        sets.insert(Set::Eip.name(family), eips);
        sets.insert(Set::Vmi.name(family), vmis);
        let moving =
            nat.of(family).filter(|(_, pair)| !matches!(pair.stage, Stage::Held | Stage::Leaving));
        let moving = moving.map(|(_, pair)| IpNetwork::from(pair.vmi)).collect();
        sets.insert(Set::Moving.name(family), moving);
    }
    sets
}

/// What to feed to `ipset restore` so that `seen` becomes `wanted`; nothing if it is. A set that changes is made anew
/// beside itself and swapped: at no moment does it hold a part of its elements. Sets that are there for nothing are left
/// to [`destroy`], because rules may refer to them.
pub(super) fn restore(wanted: &Sets, seen: &Sets) -> Option<String> {
    let mut script = String::new();
    for family in Family::ALL {
        for set in Set::ALL {
            let name = set.name(family);
            let Some(elements) =
                wanted.get(name).filter(|elements| seen.get(name) != Some(elements))
            else {
                continue;
            };
            let next = set.next(family);
            if !seen.contains_key(name) {
                create(&mut script, name, set, family);
            }
            create(&mut script, &next, set, family);
            let _ = writeln!(script, "flush {next}");
            for element in elements {
                let single = element.prefix() == family.bits();
                let element = if single { element.ip().to_string() } else { element.to_string() };
                let _ = writeln!(script, "add {next} {element}");
            }
            let _ = writeln!(script, "swap {next} {name}\ndestroy {next}");
        }
    }
    (!script.is_empty()).then_some(script)
}

fn create(script: &mut String, name: &str, set: Set, family: Family) {
    let inet = match family {
        Family::V4 => "inet",
        Family::V6 => "inet6",
    };
    let _ =
        writeln!(script, "create {name} {} family {inet} hashsize 1024 maxelem {ROOM}", set.kind());
}

/// What to feed to `ipset restore` so that what is seen and not wanted goes; nothing if there is nothing of that kind.
pub(super) fn destroy(wanted: &Sets, seen: &Sets) -> Option<String> {
    let gone = seen.keys().filter(|name| !wanted.contains_key(*name));
    let script: String = gone.map(|name| format!("destroy {name}\n")).collect();
    (!script.is_empty()).then_some(script)
}

#[cfg(test)]
mod tests {
    use super::super::state::testing::nat;
    use super::*;

    #[test]
    fn a_set_that_changes_is_made_beside_itself_and_swapped() {
        let wanted = sets(&nat(&[("192.0.2.1", "10.244.0.4")]));
        assert_eq!(
            restore(&wanted, &Sets::new()).unwrap(),
            "\
create k8s_internal_net hash:net family inet hashsize 1024 maxelem 65536
create k8s_internal_net.new hash:net family inet hashsize 1024 maxelem 65536
flush k8s_internal_net.new
add k8s_internal_net.new 10.96.0.0/12
add k8s_internal_net.new 10.244.0.0/16
swap k8s_internal_net.new k8s_internal_net
destroy k8s_internal_net.new
create kube-eip-eip hash:ip family inet hashsize 1024 maxelem 65536
create kube-eip-eip.new hash:ip family inet hashsize 1024 maxelem 65536
flush kube-eip-eip.new
add kube-eip-eip.new 192.0.2.1
swap kube-eip-eip.new kube-eip-eip
destroy kube-eip-eip.new
create kube-eip-vmi hash:ip family inet hashsize 1024 maxelem 65536
create kube-eip-vmi.new hash:ip family inet hashsize 1024 maxelem 65536
flush kube-eip-vmi.new
add kube-eip-vmi.new 10.244.0.4
swap kube-eip-vmi.new kube-eip-vmi
destroy kube-eip-vmi.new
create kube-eip-moving hash:ip family inet hashsize 1024 maxelem 65536
create kube-eip-moving.new hash:ip family inet hashsize 1024 maxelem 65536
flush kube-eip-moving.new
swap kube-eip-moving.new kube-eip-moving
destroy kube-eip-moving.new
"
        );
        assert_eq!(restore(&wanted, &wanted), None);
        let more = sets(&nat(&[("192.0.2.1", "10.244.0.4"), ("2001:db8::1", "fd00:244::4")]));
        let script = restore(&more, &wanted).unwrap();
        assert!(script.contains("create kube-eip-vmi6.new hash:ip family inet6"), "{script}");
        assert!(!script.contains("swap kube-eip-vmi.new"), "what is as wanted stays: {script}");
    }

    #[test]
    fn a_machine_that_is_expected_is_known_and_its_elastic_ip_is_not_answered_for() {
        let mut nat = nat(&[("192.0.2.1", "10.244.0.4")]);
        nat.pairs.values_mut().for_each(|pair| pair.stage = Stage::Expected);
        let sets = sets(&nat);
        let sizes = ["kube-eip-eip", "kube-eip-vmi", "kube-eip-moving"].map(|set| sets[set].len());
        assert_eq!(sizes, [0, 1, 1]);
    }

    #[test]
    fn sets_without_a_purpose_are_destroyed() {
        let seen = sets(&nat(&[("192.0.2.1", "10.244.0.4")]));
        assert_eq!(destroy(&seen, &seen), None);
        assert_eq!(
            destroy(&Sets::new(), &seen).unwrap(),
            "destroy k8s_internal_net\ndestroy kube-eip-eip\ndestroy kube-eip-moving\ndestroy kube-eip-vmi\n"
        );
    }
}
