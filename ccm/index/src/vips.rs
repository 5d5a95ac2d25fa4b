//! Owns which reservations may be of addresses that we gave ourselves: a node has bound what it answers for, and its kubelet
//! may list that as an address of the node. What is claimed is nobody's own.

use std::collections::BTreeMap;

use berth_ipam::{AddressSet, Ledger, Range};

/// What ends the name of a reservation that may be of VIPs: addresses without a subnet that a node has, as announcers
/// bind them. Where a status shows such an address, an announcer of before has bound it.
pub const MAY_BE_VIPS: &str = "(its interfaces, without a subnet)";

/// How the name of what a Node object lists begins. Of what the announcer of the node tells there is a word more behind it.
const OF_NODE: &str = "node ";

/// The most addresses of one node that are looked at.
const MOST: usize = 256;

/// Whether a reservation of that name may be of VIPs: by the Node object, or by what the announcer tells of addresses that
/// have no subnet.
pub fn may_be_vips(name: &str) -> bool {
    is_of_node(name) || name.ends_with(MAY_BE_VIPS)
}

/// Whether it is what a Node object lists.
pub(super) fn is_of_node(name: &str) -> bool {
    name.strip_prefix(OF_NODE).is_some_and(|node| !node.contains(' '))
}

/// What Node objects list, as they do. What is held, or was a moment ago, is no reservation: by the next look at it the
/// kubelet lists it no more.
#[derive(Clone, Debug, Default)]
pub(super) struct Listed(BTreeMap<String, AddressSet>);

impl Listed {
    /// Takes in what a Node object lists.
    pub(super) fn put(&mut self, name: &str, addresses: &AddressSet) {
        match addresses.is_empty() {
            true => _ = self.0.remove(name),
            false => _ = self.0.insert(name.to_owned(), addresses.clone()),
        }
    }

    /// What each reserves.
    pub(super) fn all(&self, ledger: &Ledger) -> Vec<(String, AddressSet)> {
        let all = self.0.iter();
        all.map(|(name, listed)| (name.clone(), without_vips(listed, ledger))).collect()
    }
}

/// The addresses but for those that somebody holds or has given back a moment ago.
pub(super) fn without_vips(listed: &AddressSet, ledger: &Ledger) -> AddressSet {
    let mut own = listed.clone();
    let is_given = |address| ledger.claim(address).is_some() || ledger.resting(address).is_some();
    for address in listed.addresses(MOST).filter(|address| is_given(*address)) {
        if let Ok(one) = Range::new(address, address) {
            own.remove(one);
        }
    }
    own
}
