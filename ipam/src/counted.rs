//! Owns what counts against the quota of a namespace. Changes nothing.

use std::net::IpAddr;

use crate::grant::Owner;
use crate::ledger::Ledger;
use crate::range::Family;

/// What counts against the quota of a namespace, each address once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Held by its owners.
    pub held: u64,
    /// Given back by one of its owners, and resting.
    pub resting: u64,
    /// Set aside because of it, and neither held by it nor resting.
    pub aside: u64,
    /// Shown by the status of one of its objects and held by nobody, and none of the above.
    pub shown: u64,
}

impl Counted {
    /// How many addresses that are.
    pub fn total(&self) -> u64 {
        self.held + self.resting + self.aside + self.shown
    }
}

impl Ledger {
    /// How many addresses the owners of a namespace hold. One that several of them share counts once.
    pub fn held_in(&self, namespace: &str) -> u64 {
        self.by_namespace.of(namespace)
    }

    /// What counts against the quota of a namespace: what its owners hold, and what nobody else gets because of them.
    pub fn counted_in(&self, namespace: &str) -> Counted {
        let aside = self.aside_in.get(namespace).into_iter().flatten();
        let aside = aside.filter(|address| {
            let rests = self.resting.get(*address);
            !self.holds_for(**address, namespace)
                && rests.is_none_or(|rest| rest.owner.namespace != namespace)
        });
        let shown = self.loose.iter().filter(|address| {
            let rests = self.resting.get(*address);
            self.is_shown_for(**address, namespace)
                && !self.is_aside_for(**address, namespace)
                && rests.is_none_or(|rest| rest.owner.namespace != namespace)
        });
        Counted {
            held: self.held_in(namespace),
            resting: self.resting_in.of(namespace),
            aside: aside.count() as u64,
            shown: shown.count() as u64,
        }
    }

    /// Whether the address counts against the quota of the namespace.
    pub(crate) fn counts(&self, address: IpAddr, namespace: &str) -> bool {
        let rests = self.resting.get(&address);
        self.holds_for(address, namespace)
            || rests.is_some_and(|rest| rest.owner.namespace == namespace)
            || self.is_aside_for(address, namespace)
            || self.is_shown_for(address, namespace)
    }

    /// Whether the address is set aside because of the namespace.
    pub(crate) fn is_aside_for(&self, address: IpAddr, namespace: &str) -> bool {
        self.aside.get(&address).is_some_and(|aside| aside.namespace == namespace)
    }

    fn holds_for(&self, address: IpAddr, namespace: &str) -> bool {
        self.claims.get(&address).is_some_and(|claim| claim.holds_for(namespace))
    }

    /// Whether anything rests that an object of this kind, namespace and name held last.
    pub fn has_rested(&self, owner: &Owner) -> bool {
        self.rested_by.contains_key(&owner.nameless())
    }

    /// The addresses of the family that rest, were last held by an object of this kind, namespace and name, and are not
    /// set aside because of its namespace.
    pub(crate) fn own_rests(
        &self,
        owner: &Owner,
        family: Family,
    ) -> impl Iterator<Item = IpAddr> + '_ {
        let rests = self.rested_by.get(&owner.nameless()).into_iter().flatten().copied();
        let namespace = owner.namespace.clone();
        rests.filter(move |address| {
            Family::of(*address) == family && !self.is_aside_for(*address, &namespace)
        })
    }

    /// Whether nobody holds the address, and an object of the namespace shows it.
    fn is_shown_for(&self, address: IpAddr, namespace: &str) -> bool {
        self.loose.contains(&address)
            && self.statuses.of(address).any(|owner| owner.namespace == namespace)
    }
}
