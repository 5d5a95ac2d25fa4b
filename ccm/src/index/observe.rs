//! Owns how the index takes in what the watches show. Late, repeated and reordered events change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{AddressSet, Owner, OwnerKind};

use super::{Index, holders::remove_pair};
use crate::claim::Claim;
use crate::claimant::{Claimant, Id};
use crate::write::Object;

impl Index {
    /// Takes in a Service or EipBinding. What is older than what is known is passed over.
    pub fn apply(&mut self, claimant: Claimant, now: Duration) {
        let (id, owner) = (claimant.id(), claimant.owner());
        let concerns = match &claimant {
            Claimant::Service(service) => service.concerns(),
            Claimant::Eip(_) => true,
        };
        if !concerns && self.ledger.held(&owner).next().is_none() {
            self.remove_claimant(&id, None, now);
            return;
        }
        let is_served = claimant.written().is_some();
        match self.claimants.get(&id) {
            Some(known) if !is_newer(claimant.version(), known.version()) => return,
            Some(known) if known.uid() != claimant.uid() => self.remove_claimant(&id, None, now),
            None if !is_served => _ = self.seen.insert(id.clone(), now),
            _ => {}
        }
        if !self.leading && is_served {
            self.seen.remove(&id);
        }
        self.stale.remove(&id);
        let object = Object::Claimant(id.clone());
        if self.backoff.get(&object).is_some_and(|(tries, _)| *tries == 0) {
            self.backoff.remove(&object);
        }
        if let Claimant::Eip(binding) = &claimant {
            self.machines.bind(binding);
        }
        let sharing = claimant.sharing().cloned();
        let before = self.claimants.insert(id.clone(), claimant);
        self.touch_id(&id);
        let has_other_ports = before.is_none_or(|before| before.sharing() != sharing.as_ref());
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        for address in held {
            self.loose.remove(&(address, owner.clone()));
            if has_other_ports && self.is_holder(address, &owner) {
                self.regrant(address);
            }
        }
    }

    /// Takes in that a Service or EipBinding is gone; with a uid, only if it is that one.
    pub fn remove_claimant(&mut self, id: &Id, uid: Option<&str>, now: Duration) {
        if uid.is_some_and(|uid| self.claimants.get(id).is_some_and(|known| known.uid() != uid)) {
            return;
        }
        let Some(claimant) = self.claimants.remove(id) else { return };
        let turn = (claimant.created(), id.clone());
        let owner = claimant.owner();
        self.dirty.remove(&turn);
        self.ending.remove(&turn);
        self.waiting.remove(&turn);
        self.leaving.remove(id);
        self.stale.remove(id);
        self.verdicts.remove(id);
        self.told.remove(id);
        self.conflicted.remove(id);
        self.fresh.remove(id);
        self.seen.remove(id);
        self.backoff.remove(&Object::Claimant(id.clone()));
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        for address in held {
            self.moved.remove(&(address, id.clone()));
            remove_pair(&mut self.adopting, address, &owner);
            if self.is_holder(address, &owner) {
                self.loosen(address, owner.clone(), now);
            } else if !self.busy.contains(&Object::Claim(address)) {
                self.abandon(address, &owner);
            }
        }
        if let Claimant::Eip(binding) = &claimant {
            self.unbind(binding);
        }
    }

    /// Takes in a claim.
    pub fn apply_claim(&mut self, claim: Claim, now: Duration) {
        let address = claim.address;
        match self.claims.get(&address) {
            _ if self.buried.contains(&claim.uid) => return,
            Some(known) if !is_newer(&claim.version, &known.version) => return,
            Some(known) if known.uid != claim.uid => self.unclaim(address, now),
            _ => {}
        }
        let owners: Vec<Owner> = claim.holders.iter().map(|holder| holder.owner.clone()).collect();
        let gone = self.claims.get(&address).map(|known| known.holders.clone()).unwrap_or_default();
        let gone = gone.into_iter().filter(|holder| claim.holder(&holder.owner).is_none());
        gone.for_each(|holder| self.left(address, &holder.owner, now));
        let (came, missed): (Vec<_>, Vec<_>) = self
            .pending
            .remove(&address)
            .unwrap_or_default()
            .into_iter()
            .partition(|owner| claim.holder(owner).is_some());
        came.iter().for_each(|owner| _ = self.fresh.insert(Id::from(owner)));
        missed.iter().for_each(|owner| _ = self.ledger.forget(owner, address));
        self.claims.insert(address, claim);
        self.regrant(address);
        for owner in &owners {
            remove_pair(&mut self.adopting, address, owner);
            if self.is_owner_unseen(owner) {
                self.loosen(address, owner.clone(), now);
            }
            self.touch(owner);
        }
        for owner in &missed {
            if remove_pair(&mut self.adopting, address, owner)
                && let Some(claimant) = self.claimants.get(&Id::from(owner)).cloned()
            {
                self.adopt_one(&claimant, owner, address);
            }
            self.touch(owner);
        }
    }

    /// Takes in that a claim is gone, if it is that one.
    pub fn remove_claim(&mut self, address: IpAddr, uid: &str, now: Duration) {
        self.buried.remove(uid);
        if self.claims.get(&address).is_none_or(|known| known.uid != uid) {
            return;
        }
        if self.busy.contains(&Object::Claim(address)) {
            // Our own write is still without an answer. Until it has one nobody can be given the address.
            self.ended.insert(uid.to_owned());
        } else {
            self.unclaim(address, now);
        }
    }

    /// Takes in that an address was given back before this process could see it.
    pub fn rest(&mut self, address: IpAddr, owner: Owner, since: Duration) {
        if self.ledger.resting(address).is_none() {
            self.ledger.rest(address, owner, since);
        }
    }

    /// Keeps addresses from ever being given out, in place of what `name` reserved before.
    pub fn reserve(&mut self, name: &str, addresses: AddressSet) {
        let known =
            self.ledger.reservations().find(|(known, _)| *known == name).map(|(_, set)| set);
        if known.map_or(addresses.is_empty(), |known| *known == addresses) {
            return;
        }
        self.ledger.reserve(name, addresses);
        self.retry = true;
        self.report_pools();
    }

    /// What is known of a kind, for a list that starts again: whatever it does not have is gone.
    pub fn known_claimants(&self, kind: OwnerKind) -> BTreeSet<Id> {
        self.claimants.keys().filter(|id| id.kind == kind).cloned().collect()
    }

    /// The addresses and uids of the claims, for the same.
    pub fn known_claims(&self) -> BTreeMap<IpAddr, String> {
        self.claims.iter().map(|(address, claim)| (*address, claim.uid.clone())).collect()
    }
}

/// Versions of one resource are numbers that grow (KEP-5504); should one not be, a different one counts as newer.
pub(super) fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}
