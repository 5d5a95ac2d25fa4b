//! Owns which addresses others may join. Finding one costs one step per distinct set of ports in use by the namespaces
//! that may share with the one that asks, whatever the number of addresses and of all other namespaces.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::free::RegionId;
use crate::grant::Sharing;
use crate::pools::Order;

/// Who uses an address together, and for what.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Together {
    /// The namespaces of the sharers; never none.
    pub(crate) namespaces: BTreeSet<String>,
    /// All their ports, and the policy.
    pub(crate) sharing: Sharing,
}

/// The addresses of one region, by the first of the namespaces that use each.
type ByNamespace = BTreeMap<String, BTreeMap<Together, BTreeSet<IpAddr>>>;

/// The shareable addresses, by region and by what their sharers use together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sharers(BTreeMap<RegionId, ByNamespace>);

impl Sharers {
    pub(crate) fn insert(&mut self, region: RegionId, together: Together, address: IpAddr) {
        let Some(first) = together.namespaces.first().cloned() else { return };
        let of_first = self.0.entry(region).or_default().entry(first).or_default();
        of_first.entry(together).or_default().insert(address);
    }

    pub(crate) fn remove(&mut self, region: RegionId, together: &Together, address: IpAddr) {
        let Some(by_namespace) = self.0.get_mut(&region) else { return };
        let Some(first) = together.namespaces.first() else { return };
        let Some(of_first) = by_namespace.get_mut(first) else { return };
        if let Some(addresses) = of_first.get_mut(together) {
            addresses.remove(&address);
            if addresses.is_empty() {
                of_first.remove(together);
            }
        }
        if of_first.is_empty() {
            by_namespace.remove(first);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The address of these regions that `sharing` fits on, that is used by none but these namespaces, and that comes
    /// first in order.
    pub(crate) fn find(
        &self,
        regions: impl Iterator<Item = RegionId>,
        among: &BTreeSet<&str>,
        sharing: &Sharing,
        order: Order,
        usable: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let is_among = |name: &String| among.contains(name.as_str());
        let fitting = regions
            .filter_map(|region| self.0.get(&region))
            .flat_map(|by_namespace| among.iter().filter_map(|name| by_namespace.get(*name)))
            .flatten()
            .filter(|(used, _)| used.namespaces.iter().all(is_among) && used.sharing.fits(sharing))
            .map(|(_, addresses)| addresses.iter().copied());
        match order {
            Order::Ascending => {
                fitting.filter_map(|mut all| all.find(|address| usable(*address))).min()
            }
            Order::Descending => {
                fitting.filter_map(|mut all| all.rfind(|address| usable(*address))).max()
            }
        }
    }
}
