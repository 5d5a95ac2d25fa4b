//! Owns pairs of an address and one who has it, or is to have it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_ipam::Owner;

/// By address, its owners. An address without any is not in it.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs(BTreeMap<IpAddr, BTreeSet<Owner>>);

impl Pairs {
    pub(super) fn insert(&mut self, address: IpAddr, owner: &Owner) {
        self.0.entry(address).or_default().insert(owner.clone());
    }

    /// Returns whether it was there.
    pub(super) fn remove(&mut self, address: IpAddr, owner: &Owner) -> bool {
        let Some(owners) = self.0.get_mut(&address) else { return false };
        let was_there = owners.remove(owner);
        if owners.is_empty() {
            self.0.remove(&address);
        }
        was_there
    }

    /// Takes out all the owners of an address.
    pub(super) fn take(&mut self, address: IpAddr) -> BTreeSet<Owner> {
        self.0.remove(&address).unwrap_or_default()
    }

    pub(super) fn contains(&self, address: IpAddr, owner: &Owner) -> bool {
        self.0.get(&address).is_some_and(|owners| owners.contains(owner))
    }

    /// Each address with each of its owners.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        self.0.iter().flat_map(|(address, owners)| owners.iter().map(|owner| (*address, owner)))
    }

    /// Each address with the first of its owners.
    pub(super) fn firsts(&self) -> impl Iterator<Item = (IpAddr, &Owner)> {
        self.0.iter().filter_map(|(address, owners)| Some((*address, owners.first()?)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
