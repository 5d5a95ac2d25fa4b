//! Owns which addresses the network gave nodes for Services that asked for DHCP. An offer is a wish as any pin is: pools,
//! quotas and what nodes use themselves are asked.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use berth_ipam::Family;

/// What nodes offer.
#[derive(Clone, Debug, Default)]
pub(super) struct Offers(BTreeMap<String, BTreeSet<(String, IpAddr)>>);

impl Offers {
    /// Takes in all that a node offers. Gives the uids of the Services for which that is news.
    pub(super) fn apply(
        &mut self,
        node: &str,
        offers: BTreeSet<(String, IpAddr)>,
    ) -> BTreeSet<String> {
        let before = self.0.remove(node).unwrap_or_default();
        let news = before.symmetric_difference(&offers).map(|(uid, _)| uid.clone()).collect();
        if !offers.is_empty() {
            self.0.insert(node.to_owned(), offers);
        }
        news
    }

    /// The nodes that offer anything.
    pub(super) fn nodes(&self) -> BTreeSet<String> {
        self.0.keys().cloned().collect()
    }

    /// What the Service of this uid is offered, of each family one address: what it holds, if that is offered still.
    pub(super) fn to(&self, uid: &str, held: &BTreeSet<IpAddr>) -> BTreeMap<Family, IpAddr> {
        // Each node's offers sort by Service, and no address sorts before this one.
        let first = (uid.to_owned(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut offered = BTreeMap::new();
        let of_node = |offers| {
            let from_first = BTreeSet::range(offers, &first..);
            from_first.take_while(|(whose, _)| whose == uid)
        };
        for (_, address) in self.0.values().flat_map(of_node) {
            let known = offered.entry(Family::of(*address)).or_insert(*address);
            if held.contains(address) {
                *known = *address;
            }
        }
        offered
    }
}

/// What a Service shows in place of an address that it was offered: that it asks for DHCP.
pub(super) fn shown(offered: &BTreeMap<Family, IpAddr>, addresses: &[IpAddr]) -> Vec<IpAddr> {
    let show = |address: &IpAddr| {
        let family = Family::of(*address);
        if offered.get(&family) == Some(address) { family.dhcp_marker() } else { *address }
    };
    addresses.iter().map(show).collect()
}
