//! Owns who holds an address: by a claim that is there, or by one that was asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{Conflict, Grant, Owner, Scope, Sharing};

use super::{Index, SILENT};
use crate::claim::Holder;
use crate::claimant::Id;
use crate::write::Write;

impl Index {
    /// The claim is gone: the address rests. Who was about to join it asks again.
    pub(super) fn unclaim(&mut self, address: IpAddr, now: Duration) {
        let Some(claim) = self.claims.remove(&address) else { return };
        for owner in self.pending.remove(&address).unwrap_or_default() {
            if self.is_adopting(address, &owner) {
                self.set_pending(address, &owner);
            } else {
                self.ledger.forget(&owner, address);
                self.touch(&owner);
            }
        }
        claim.holders.iter().for_each(|holder| self.left(address, &holder.owner, now));
    }

    /// The owner does not hold the address any more.
    pub(super) fn left(&mut self, address: IpAddr, owner: &Owner, now: Duration) {
        self.ledger.release(owner, address, now);
        if self.unheard.remove(&(address, owner.clone())) {
            let more = SILENT.saturating_sub(self.ledger.pools().reuse_delay());
            self.ledger.rest(address, owner.clone(), now + more);
        }
        self.loose.remove(&(address, owner.clone()));
        self.moved.remove(&(address, Id::from(owner)));
        self.retry = true;
        self.touch(owner);
    }

    /// Records anew who holds a claimed address and with which ports: a lone holder uses the ports that its Service
    /// has, sharers those they were let in with.
    pub(super) fn regrant(&mut self, address: IpAddr) {
        let Some(claim) = self.claims.get(&address) else { return };
        let alone = claim.holders.len() == 1;
        let grants: Vec<Grant> = claim
            .holders
            .iter()
            .map(|Holder { owner, sharing, .. }| {
                let claimant = self.claimants.get(&Id::from(owner)).filter(|_| alone);
                let sharing = match claimant.filter(|claimant| claimant.uid() == owner.uid) {
                    Some(claimant) => claimant.sharing().cloned(),
                    None => sharing.clone(),
                };
                Grant::new(owner.clone()).sharing(sharing).in_pool(claim.pool.clone())
            })
            .collect();
        grants.iter().for_each(|grant| _ = self.ledger.forget(&grant.owner, address));
        for grant in grants {
            let Err(conflict) = self.ledger.insert(address, grant.clone()) else { continue };
            // Only who is about to join can be in the way, and has to ask again.
            for owner in &conflict.holders {
                self.abandon(address, owner);
                self.touch(owner);
            }
            if let Err(conflict) = self.ledger.insert(address, grant) {
                tracing::error!("{conflict}, and another has the claim");
            }
        }
    }

    /// Records that the owner holds the address, or will once a write that it needs is done.
    ///
    /// # Errors
    /// When others hold the address and the owner does not fit beside them; nothing changes then.
    pub(super) fn hold(
        &mut self,
        address: IpAddr,
        owner: &Owner,
        sharing: Option<Sharing>,
        pool: Option<Scope>,
    ) -> Result<(), Conflict> {
        let grant = Grant::new(owner.clone()).sharing(sharing).in_pool(pool);
        self.ledger.insert(address, grant)
    }

    /// Who holds the address according to its claim.
    pub(super) fn is_holder(&self, address: IpAddr, owner: &Owner) -> bool {
        self.claims.get(&address).is_some_and(|claim| claim.holder(owner).is_some())
    }

    /// The write that makes the owner a holder: a claim of its own, or its part of one.
    pub(super) fn claim_write(
        &self,
        address: IpAddr,
        owner: &Owner,
        sharing: Option<&Sharing>,
        pool: Option<Scope>,
        pinned: bool,
    ) -> Write {
        let owner = owner.clone();
        let Some(claim) = self.claims.get(&address) else {
            return Write::CreateClaim { address, owner, pool, pinned };
        };
        let grants = self.ledger.claim(address);
        let others = claim.others(&owner).into_iter().map(|holder| {
            let grant = grants.and_then(|grants| grants.grant(&holder.owner));
            let sharing = grant.and_then(|grant| grant.sharing.clone());
            Holder { sharing: sharing.or(holder.sharing), ..holder }
        });
        Write::JoinClaim {
            address,
            uid: claim.uid.clone(),
            version: claim.version.clone(),
            sharing: sharing.cloned().unwrap_or_default(),
            others: others.collect(),
            pinned: claim.pinned.iter().cloned().chain(pinned.then(|| owner.uid.clone())).collect(),
            owner,
        }
    }

    pub(super) fn set_pending(&mut self, address: IpAddr, owner: &Owner) {
        self.pending.entry(address).or_default().insert(owner.clone());
    }

    /// Takes back what never came to be in a claim.
    pub(super) fn abandon(&mut self, address: IpAddr, owner: &Owner) {
        remove_pair(&mut self.pending, address, owner);
        self.retry |= self.ledger.forget(owner, address);
    }
}

/// Each address with each of its owners.
pub(super) fn pairs(
    map: &BTreeMap<IpAddr, BTreeSet<Owner>>,
) -> impl Iterator<Item = (IpAddr, &Owner)> {
    map.iter().flat_map(|(address, owners)| owners.iter().map(|owner| (*address, owner)))
}

/// Returns whether it was there.
pub(super) fn remove_pair(
    map: &mut BTreeMap<IpAddr, BTreeSet<Owner>>,
    address: IpAddr,
    owner: &Owner,
) -> bool {
    let Some(owners) = map.get_mut(&address) else { return false };
    let was_there = owners.remove(owner);
    if owners.is_empty() {
        map.remove(&address);
    }
    was_there
}
