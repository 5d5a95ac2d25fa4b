//! Owns the import: addresses that Services and EipBindings already have are claimed for them before any is given out.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::reason;
use berth_ipam::{Family, Owner};

use super::Index;
use crate::claimant::{Claimant, Id};
use crate::service::Standing;
use crate::write::{Object, Verdict, Write};

impl Index {
    /// Finds the addresses that Services were given without a claim, by the stock provider or in a restored cluster.
    /// No rule of any pool is asked: they are in use.
    pub(super) fn adopt(&mut self) {
        self.adopting.clear();
        self.conflicted.clear();
        let mut served: Vec<Claimant> =
            self.claimants.values().filter(|claimant| is_adoptable(claimant)).cloned().collect();
        served.sort_by_key(|claimant| (claimant.created(), claimant.id()));
        for claimant in served {
            let owner = claimant.owner();
            let mut addresses = claimant.current();
            if addresses.is_empty() {
                addresses = claimant.listed();
            }
            for address in addresses.into_iter().filter(|address| !address.is_unspecified()) {
                let has = |held: IpAddr| Family::of(held) == Family::of(address);
                if !self.ledger.held(&owner).any(has) {
                    self.adopt_one(&claimant, &owner, address);
                }
            }
        }
    }

    pub(super) fn adopt_one(&mut self, claimant: &Claimant, owner: &Owner, address: IpAddr) {
        let pools = self.ledger.pools();
        let pool = pools.locate(&owner.namespace, address).cloned();
        let holders = self.ledger.claim(address).into_iter().flat_map(|claim| claim.owners());
        let may_share = holders.chain([owner]).all(|owner| pools.allows_sharing(&owner.namespace));
        let sharing = claimant.sharing().filter(|_| may_share).cloned();
        match self.hold(address, owner, sharing, pool) {
            Ok(()) => {
                self.set_pending(address, owner);
                self.adopting.entry(address).or_default().insert(owner.clone());
            }
            Err(conflict) => {
                self.conflicted.insert(claimant.id(), claimant.written());
                for holder in &conflict.holders {
                    if let Some(other) = self.claimants.get(&Id::from(holder)).cloned() {
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
            let claimant = self.claimants.get(&Id::from(&owner));
            let sharing = claimant.and_then(Claimant::sharing).cloned();
            let write = self.claim_write(address, &owner, sharing.as_ref(), pool, false);
            self.start(write, writes);
        }
    }

    /// Whether the claimant still has, as at the import, an address that is somebody else's.
    pub(super) fn is_conflicted(&mut self, claimant: &Claimant, owner: &Owner) -> bool {
        let id = claimant.id();
        if self.conflicted.get(&id) != Some(&claimant.written()) {
            self.conflicted.remove(&id);
            return false;
        }
        let listed = claimant.listed();
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
            self.conflicted.remove(&id);
            return false;
        };
        let message =
            format!("{address} is also the address of {}; nothing is moved", holders.join(", "));
        let verdict = Verdict { allocated: false, reason: reason::ADDRESS_CONFLICT, message };
        self.refuse((claimant.created(), id), claimant, verdict);
        true
    }
}

fn is_adoptable(claimant: &Claimant) -> bool {
    let service = match claimant {
        Claimant::Service(service) => service,
        Claimant::Eip(binding) => {
            let is_over = binding.deleting && binding.holder.is_none();
            return !is_over && !binding.eips.is_empty();
        }
    };
    let ours = match service.standing {
        Standing::Ours => true,
        Standing::Ignored => service.labelled,
        Standing::Foreign => false,
    };
    ours && service.is_served() && !(service.deleting && service.is_silent())
}
