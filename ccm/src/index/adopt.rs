//! Owns the import: addresses that Services already have are claimed for them before any is given out.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::reason;
use berth_ipam::{Family, Owner};

use super::Index;
use crate::service::{Service, Standing};
use crate::write::{Object, Verdict, Write, key_of};

impl Index {
    /// Finds the addresses that Services were given without a claim, by the stock provider or in a restored cluster.
    /// No rule of any pool is asked: they are in use.
    pub(super) fn adopt(&mut self) {
        self.adopting.clear();
        self.conflicted.clear();
        let mut served: Vec<Service> =
            self.services.values().filter(|service| is_adoptable(service)).cloned().collect();
        served.sort_by(|one, other| (one.created, &one.key).cmp(&(other.created, &other.key)));
        for service in served {
            let owner = service.owner();
            let mut addresses: Vec<IpAddr> = service.annotation().addresses().collect();
            if addresses.is_empty() {
                addresses = service.field().addresses().collect();
            }
            for address in addresses.into_iter().filter(|address| !address.is_unspecified()) {
                let has = |held: IpAddr| Family::of(held) == Family::of(address);
                if !self.ledger.held(&owner).any(has) {
                    self.adopt_one(&service, &owner, address);
                }
            }
        }
    }

    pub(super) fn adopt_one(&mut self, service: &Service, owner: &Owner, address: IpAddr) {
        let pools = self.ledger.pools();
        let pool = pools.locate(&owner.namespace, address).cloned();
        let holders = self.ledger.claim(address).into_iter().flat_map(|claim| claim.owners());
        let may_share = holders.chain([owner]).all(|owner| pools.allows_sharing(&owner.namespace));
        let sharing = may_share.then(|| service.sharing.clone());
        match self.hold(address, owner, sharing, pool) {
            Ok(()) => {
                self.set_pending(address, owner);
                self.adopting.entry(address).or_default().insert(owner.clone());
            }
            Err(conflict) => {
                self.conflicted.insert(service.key.clone(), service.annotated.clone());
                for holder in &conflict.holders {
                    if let Some(other) = self.services.get(&key_of(holder)).cloned() {
                        let note =
                            format!("{address} is also the address of {owner}; nothing is moved");
                        self.report(&other, true, reason::ADDRESS_CONFLICT, note);
                    }
                }
            }
        }
    }

    /// Whether the address is still to be claimed for the owner, who had it before there were claims.
    pub(super) fn is_adopting(&self, address: IpAddr, owner: &Owner) -> bool {
        self.adopting.get(&address).is_some_and(|owners| owners.contains(owner))
    }

    pub(super) fn poll_adoption(&mut self, now: Duration, slots: usize, writes: &mut Vec<Write>) {
        let open = self
            .adopting
            .iter()
            .filter(|(address, _)| !self.is_held_up(&Object::Claim(**address), now))
            .filter_map(|(address, owners)| Some((*address, owners.first()?.clone())));
        let open: Vec<(IpAddr, Owner)> = open.take(slots).collect();
        for (address, owner) in open {
            let pool = self.ledger.pools().locate(&owner.namespace, address).cloned();
            let service = self.services.get(&key_of(&owner));
            let sharing = service.map(|service| service.sharing.clone()).unwrap_or_default();
            let write = self.claim_write(address, &owner, &sharing, pool, false);
            self.start(write, writes);
        }
    }

    /// Whether the Service still has, as at the import, an address that is somebody else's.
    pub(super) fn is_conflicted(&mut self, service: &Service, owner: &Owner) -> bool {
        if self.conflicted.get(&service.key) != Some(&service.annotated) {
            self.conflicted.remove(&service.key);
            return false;
        }
        let listed: Vec<IpAddr> =
            service.annotation().addresses().chain(service.field().addresses()).collect();
        let others = |address: &IpAddr| {
            let claim = self.ledger.claim(*address);
            let holders = claim.into_iter().flat_map(|claim| claim.owners());
            holders.filter(|holder| *holder != owner).map(ToString::to_string).collect::<Vec<_>>()
        };
        let Some((address, holders)) = listed
            .iter()
            .map(|address| (address, others(address)))
            .find(|(_, holders)| !holders.is_empty())
        else {
            self.conflicted.remove(&service.key);
            return false;
        };
        let message =
            format!("{address} is also the address of {}; nothing is moved", holders.join(", "));
        let verdict = Verdict { allocated: false, reason: reason::ADDRESS_CONFLICT, message };
        self.refuse((service.created, service.key.clone()), service, verdict);
        true
    }
}

fn is_adoptable(service: &Service) -> bool {
    let ours = match service.standing {
        Standing::Ours => true,
        Standing::Ignored => service.labelled,
        Standing::Foreign => false,
    };
    ours && service.is_served() && !(service.deleting && service.is_silent())
}
