//! Owns how the index takes in what the watches show. Late, repeated and reordered events change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{AddressSet, Owner};

use super::{Index, holders::remove_pair};
use crate::claim::Claim;
use crate::service::{Key, Service};
use crate::write::{Object, key_of};

impl Index {
    /// Takes in a Service. What is older than what is known is passed over.
    pub fn apply_service(&mut self, service: Service, now: Duration) {
        let key = service.key.clone();
        let owner = service.owner();
        if !service.concerns() && self.ledger.held(&owner).next().is_none() {
            self.remove_service(&key, None, now);
            return;
        }
        match self.services.get(&key) {
            Some(known) if !is_newer(&service.version, &known.version) => return,
            Some(known) if known.uid != service.uid => self.remove_service(&key, None, now),
            None if service.annotated.is_none() => _ = self.seen.insert(key.clone(), now),
            _ => {}
        }
        if !self.leading && service.annotated.is_some() {
            self.seen.remove(&key);
        }
        self.stale.remove(&key);
        let conflicted =
            self.backoff.get(&Object::Service(key.clone())).is_some_and(|(tries, _)| *tries == 0);
        if conflicted {
            self.backoff.remove(&Object::Service(key.clone()));
        }
        let before = self.services.insert(key.clone(), service);
        self.touch_key(&key);
        let has_other_ports = self.services.get(&key).map(|now| &now.sharing)
            != before.as_ref().map(|before| &before.sharing);
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        for address in held {
            self.loose.remove(&(address, owner.clone()));
            if has_other_ports && self.is_holder(address, &owner) {
                self.regrant(address);
            }
        }
    }

    /// Takes in that a Service is gone; with a uid, only if it is that one.
    pub fn remove_service(&mut self, key: &Key, uid: Option<&str>, now: Duration) {
        if uid.is_some_and(|uid| self.services.get(key).is_some_and(|known| known.uid != uid)) {
            return;
        }
        let Some(service) = self.services.remove(key) else { return };
        let turn = (service.created, key.clone());
        let owner = service.owner();
        self.dirty.remove(&turn);
        self.ending.remove(&turn);
        self.waiting.remove(&turn);
        self.leaving.remove(key);
        self.stale.remove(key);
        self.verdicts.remove(key);
        self.told.remove(key);
        self.conflicted.remove(key);
        self.fresh.remove(key);
        self.seen.remove(key);
        self.backoff.remove(&Object::Service(key.clone()));
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        for address in held {
            self.moved.remove(&(address, key.clone()));
            remove_pair(&mut self.adopting, address, &owner);
            if self.is_holder(address, &owner) {
                self.loosen(address, owner.clone(), now);
            } else if !self.busy.contains(&Object::Claim(address)) {
                self.abandon(address, &owner);
            }
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
        came.iter().for_each(|owner| _ = self.fresh.insert(key_of(owner)));
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
                && let Some(service) = self.services.get(&key_of(owner)).cloned()
            {
                self.adopt_one(&service, owner, address);
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

    /// What is known, for a list that starts again: whatever it does not have is gone.
    pub fn known_services(&self) -> BTreeSet<Key> {
        self.services.keys().cloned().collect()
    }

    /// The addresses and uids of the claims, for the same.
    pub fn known_claims(&self) -> BTreeMap<IpAddr, String> {
        self.claims.iter().map(|(address, claim)| (*address, claim.uid.clone())).collect()
    }
}

/// Versions of one resource are numbers that grow (KEP-5504); should one not be, a different one counts as newer.
fn is_newer(version: &str, than: &str) -> bool {
    match (version.parse::<u64>(), than.parse::<u64>()) {
        (Ok(version), Ok(than)) => version > than,
        _ => version != than,
    }
}
