//! Which address leads to which VM on this node, as a value. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::vip::Family;

/// The VM that an elastic IP leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    /// The VM's own address, of the same family.
    pub vmi: IpAddr,
    /// How far this node is with it.
    pub stage: Stage,
}

/// How far a node is with an address that it translates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Its VM is migrating to this node: what the VM sends is translated, what comes to it is not yet.
    Expected,
    /// It is to answer for it, or has not long answered for it: the node before may still send on what comes to it.
    Coming,
    /// It answers for it.
    Held,
    /// It answers for it until the node that is named now does.
    Leaving,
    /// It no longer does, and goes on for connections that are under way.
    Draining,
}

impl Stage {
    /// Whether what comes to the address is led to the VM.
    pub fn leads(self) -> bool {
        self != Self::Expected
    }
}

/// Everything that this node translates. Empty, nothing of ours is in the kernel.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nat {
    /// By elastic IP.
    pub pairs: BTreeMap<IpAddr, Pair>,
    /// Elastic IPs whose VMs may go on elsewhere at any moment: from then on half of their connections passes here.
    pub parting: BTreeSet<IpAddr>,
    /// Where VMs are met under their own addresses: the networks of pods and Services.
    pub internal: BTreeSet<IpNetwork>,
    /// The interface of the elastic IPs; none for that of the default route.
    pub uplink: Option<String>,
    /// The gateways by which answers leave, at most one of each family; none for those of the uplink's default route.
    pub gateways: BTreeSet<IpAddr>,
}

impl Nat {
    /// Whether nothing is to be translated.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The pairs of a family.
    pub fn of(&self, family: Family) -> impl Iterator<Item = (&IpAddr, &Pair)> {
        self.pairs.iter().filter(move |(eip, _)| Family::of(eip) == family)
    }

    /// The pairs of a family that are led to their VMs.
    pub fn led(&self, family: Family) -> impl Iterator<Item = (&IpAddr, &Pair)> {
        self.of(family).filter(|(_, pair)| pair.stage.leads())
    }

    /// The networks of a family that are never translated.
    pub fn internal_of(&self, family: Family) -> impl Iterator<Item = &IpNetwork> {
        self.internal.iter().filter(move |network| Family::of(&network.ip()) == family)
    }

    /// By VM, what it appears as. One that answers for its address comes before one that is only kept.
    pub fn sources(&self, family: Family) -> BTreeMap<IpAddr, IpAddr> {
        let mut pairs: Vec<_> = self.of(family).collect();
        pairs.sort_by_key(|(eip, pair)| (pair.stage == Stage::Draining, **eip));
        let mut sources = BTreeMap::new();
        for (eip, pair) in pairs {
            sources.entry(pair.vmi).or_insert(*eip);
        }
        sources
    }

    /// Whether an address is translated to `vmi`, and not only for what is under way.
    pub fn serves(&self, eip: &IpAddr, vmi: &IpAddr) -> bool {
        let pair = self.pairs.get(eip);
        let serves = |stage: Stage| stage.leads() && stage != Stage::Draining;
        pair.is_some_and(|pair| pair.vmi == *vmi && serves(pair.stage))
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;

    /// These pairs, all held, with the usual networks of pods and Services.
    pub(in crate::dataplane::eip) fn nat(pairs: &[(&str, &str)]) -> Nat {
        let pair = |vmi: &str| Pair { vmi: vmi.parse().unwrap(), stage: Stage::Held };
        Nat {
            pairs: pairs.iter().map(|(eip, vmi)| (eip.parse().unwrap(), pair(vmi))).collect(),
            internal: ["10.244.0.0/16", "10.96.0.0/12", "fd00:244::/48", "fd00:96::/108"]
                .map(|network| network.parse().unwrap())
                .into(),
            ..Nat::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_appears_as_the_address_that_is_answered_for_and_not_as_one_that_drains() {
        let mut nat = testing::nat(&[("192.0.2.1", "10.244.0.4"), ("192.0.2.2", "10.244.0.4")]);
        nat.pairs.get_mut(&"192.0.2.1".parse::<IpAddr>().unwrap()).unwrap().stage = Stage::Draining;
        let sources = nat.sources(Family::V4);
        assert_eq!(sources[&"10.244.0.4".parse::<IpAddr>().unwrap()].to_string(), "192.0.2.2");
    }
}
