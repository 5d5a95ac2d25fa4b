//! Owns which addresses the statuses of objects show, and by whom. kube-proxy leads what comes for an address to whoever
//! shows it, whoever holds it by then.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::grant::Owner;

/// What the statuses of objects show.
#[derive(Clone, Debug, Default)]
pub(crate) struct Statuses {
    by_object: BTreeMap<Arc<Owner>, Box<[IpAddr]>>,
    by_address: BTreeMap<IpAddr, Vec<Arc<Owner>>>,
}

impl Statuses {
    /// The object of this name shows these addresses, in place of what one of its name showed before. Returns that.
    pub(crate) fn show(
        &mut self,
        owner: &Owner,
        addresses: impl Iterator<Item = IpAddr>,
    ) -> Option<(Arc<Owner>, Box<[IpAddr]>)> {
        let before = self.hide(owner);
        let addresses: Box<[IpAddr]> = addresses.collect();
        if !addresses.is_empty() {
            let owner = Arc::new(owner.clone());
            for address in &*addresses {
                self.by_address.entry(*address).or_default().push(owner.clone());
            }
            self.by_object.insert(owner, addresses);
        }
        before
    }

    /// The object of this name shows nothing any more. Returns what it showed.
    fn hide(&mut self, owner: &Owner) -> Option<(Arc<Owner>, Box<[IpAddr]>)> {
        let known = self.of_name(owner)?.clone();
        let addresses = self.by_object.remove(&known)?;
        for address in &*addresses {
            if let Some(all) = self.by_address.get_mut(address) {
                all.retain(|shower| *shower != known);
                if all.is_empty() {
                    self.by_address.remove(address);
                }
            }
        }
        Some((known, addresses))
    }

    /// Whether this very object shows these addresses and no others.
    pub(crate) fn shows(&self, owner: &Owner, addresses: &BTreeSet<IpAddr>) -> bool {
        match self.by_object.get(owner) {
            Some(known) => known.iter().eq(addresses),
            None => addresses.is_empty() && self.of_name(owner).is_none(),
        }
    }

    /// The object of this name that shows something, whatever its uid.
    pub(crate) fn of_name(&self, owner: &Owner) -> Option<&Arc<Owner>> {
        let next = self.by_object.range(owner.nameless()..).next();
        next.map(|(known, _)| known).filter(|known| known.same_name(owner))
    }

    /// Every object that shows something.
    pub(crate) fn objects(&self) -> impl Iterator<Item = &Owner> {
        self.by_object.keys().map(|owner| &**owner)
    }

    /// Who shows the address.
    pub(crate) fn of(&self, address: IpAddr) -> impl Iterator<Item = &Owner> {
        self.by_address.get(&address).into_iter().flatten().map(|owner| &**owner)
    }

    /// Whether anybody shows the address.
    pub(crate) fn has(&self, address: IpAddr) -> bool {
        self.by_address.contains_key(&address)
    }

    /// The addresses of a range that somebody shows.
    pub(crate) fn within(&self, first: IpAddr, last: IpAddr) -> impl Iterator<Item = IpAddr> {
        self.by_address.range(first..=last).map(|(address, _)| *address)
    }

    /// Every address that somebody shows.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.by_address.keys().copied()
    }
}
