//! Owns which addresses others may join. Finding one costs one step per distinct set of ports in use, whatever the
//! number of addresses.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::free::RegionId;
use crate::grant::Sharing;
use crate::pools::Order;

/// The shareable addresses, by region and by what their sharers use together.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sharers(BTreeMap<RegionId, BTreeMap<Sharing, BTreeSet<IpAddr>>>);

impl Sharers {
    pub(crate) fn insert(&mut self, region: RegionId, sharing: Sharing, address: IpAddr) {
        self.0.entry(region).or_default().entry(sharing).or_default().insert(address);
    }

    pub(crate) fn remove(&mut self, region: RegionId, sharing: &Sharing, address: IpAddr) {
        let Some(addresses) =
            self.0.get_mut(&region).and_then(|by_ports| by_ports.get_mut(sharing))
        else {
            return;
        };
        addresses.remove(&address);
        if addresses.is_empty()
            && let Some(by_ports) = self.0.get_mut(&region)
        {
            by_ports.remove(sharing);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// The address of these regions that `sharing` fits on and that comes first in order.
    pub(crate) fn find(
        &self,
        regions: impl Iterator<Item = RegionId>,
        sharing: &Sharing,
        order: Order,
        usable: impl Fn(IpAddr) -> bool,
    ) -> Option<IpAddr> {
        let fitting = regions
            .filter_map(|region| self.0.get(&region))
            .flatten()
            .filter(|(used, _)| used.fits(sharing))
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
