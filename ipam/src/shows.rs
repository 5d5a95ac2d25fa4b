//! Owns what follows from the statuses of objects: an address that one shows is given to nobody else, until none does.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::grant::Owner;
use crate::keys::Scope;
use crate::ledger::Ledger;
use crate::range::Family;

impl Ledger {
    /// Records that the status of the object shows these addresses, in place of what one of its name showed before. What
    /// is shown is given to nobody else who does not hold it already: kube-proxy leads what comes for it to the object.
    ///
    /// Returns whether others may have anything now that was kept from them.
    pub fn show(&mut self, owner: &Owner, addresses: impl IntoIterator<Item = IpAddr>) -> bool {
        let addresses = addresses.into_iter().filter(|address| !address.is_unspecified());
        let addresses: BTreeSet<IpAddr> = addresses.collect();
        if self.statuses.shows(owner, &addresses) {
            return false;
        }
        let before = self.statuses.show(owner, addresses.iter().copied());
        for address in addresses.iter().copied() {
            if self.claim(address).is_none() {
                self.free.take(address.into());
                self.loosen(address);
            }
        }
        let Some((before, gone)) = before else { return false };
        let is_same = *before == *owner;
        let gone = gone.iter().filter(|address| !is_same || !addresses.contains(address));
        let mut news = false;
        for address in gone.copied() {
            let holds = self.claim(address).is_some_and(|claim| claim.grant(&before).is_some());
            news |= !holds;
            if self.claim(address).is_none() && !self.statuses.has(address) {
                self.loose.remove(&address);
                self.restore(address.into());
            }
        }
        news
    }

    /// The same of an object that is gone; with a uid, only of that one.
    pub fn hide(&mut self, owner: &Owner, uid: Option<&str>) -> bool {
        let known = self.statuses.of_name(owner).map(|known| known.uid.clone());
        let is_it = known.is_some_and(|known| uid.is_none_or(|uid| uid == known));
        is_it && self.show(owner, [])
    }

    /// Every object whose status shows addresses.
    pub fn showing(&self) -> impl Iterator<Item = &Owner> {
        self.statuses.objects()
    }

    /// Who shows the address in its status and neither holds it nor is `owner`.
    pub fn shown_by_another(&self, address: IpAddr, owner: &Owner) -> Option<&Owner> {
        let claim = self.claim(address);
        let holds = |other: &Owner| claim.is_some_and(|claim| claim.grant(other).is_some());
        self.statuses.of(address).find(|other| *other != owner && !holds(other))
    }

    /// The addresses of a pool that only rest because a status shows them.
    pub(crate) fn loose_of(&self, scope: &Scope, family: Family) -> u64 {
        let of_pool = |address: &&IpAddr| {
            let region = self.free.locate(**address).map(|region| self.free.region(region));
            Family::of(**address) == family
                && region.is_some_and(|region| region.members.contains(scope))
                && self.resting(**address).is_none()
        };
        self.loose.iter().filter(of_pool).count() as u64
    }
}
