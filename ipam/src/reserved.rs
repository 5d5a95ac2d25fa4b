//! Owns what is never given to anybody.

use std::net::IpAddr;

use crate::ledger::Ledger;
use crate::set::AddressSet;

impl Ledger {
    /// Keeps these addresses from ever being given, in place of what `name` reserved before; an empty set ends it.
    ///
    /// The name is what users read: `node worker-1`, `the control plane`, `the pod network`. Who holds one of them
    /// already keeps it.
    pub fn reserve(&mut self, name: impl Into<String>, addresses: AddressSet) {
        let name = name.into();
        let mut gone = self.reservations.remove(&name).unwrap_or_default();
        gone.subtract(&addresses);
        self.reserved.extend_with(&addresses);
        addresses.iter().for_each(|range| self.free.take(range));
        if !addresses.is_empty() {
            self.reservations.insert(name, addresses);
        }
        if gone.is_empty() {
            return;
        }
        self.reserved.subtract(&gone);
        for other in self.reservations.values() {
            self.reserved.extend_with(&other.intersection(&gone));
        }
        gone.iter().for_each(|range| self.restore(range));
    }

    /// Every reservation by name.
    pub fn reservations(&self) -> impl Iterator<Item = (&str, &AddressSet)> {
        self.reservations.iter().map(|(name, addresses)| (name.as_str(), addresses))
    }

    /// What `name` reserves.
    pub fn reservation(&self, name: &str) -> Option<&AddressSet> {
        self.reservations.get(name)
    }

    /// The reservation that has the address.
    pub fn reserved_by(&self, address: IpAddr) -> Option<&str> {
        if !self.reserved.contains(address) {
            return None;
        }
        self.reservations().find(|(_, addresses)| addresses.contains(address)).map(|(name, _)| name)
    }
}
