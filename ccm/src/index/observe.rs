//! Owns how the index takes in what the watches show. Late, repeated and reordered events change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{AddressSet, Grant, Range};

use super::Index;
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
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        held.iter().for_each(|address| _ = self.loose.remove(address));
        self.dirty.insert((service.created, key.clone()));
        self.services.insert(key, service);
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
            self.moved.remove(&address);
            self.adopting.remove(&address);
            if self.claims.contains_key(&address) {
                self.loosen(address, now);
            } else if !self.busy.contains(&Object::Claim(address)) {
                self.abandon(address, &owner);
            }
        }
    }

    /// Takes in a claim.
    pub fn apply_claim(&mut self, claim: Claim, now: Duration) {
        let (address, owner) = (claim.address, claim.owner.clone());
        match self.claims.get(&address) {
            _ if self.buried.contains(&claim.uid) => return,
            Some(known) if !is_newer(&claim.version, &known.version) => return,
            Some(known) if known.owner != owner => self.unclaim(address, now),
            _ => {}
        }
        match self.pending.remove(&address) {
            Some(ours) if ours != owner => {
                self.ledger.forget(&ours, address);
                if self.adopting.contains_key(&address)
                    && let Some(service) = self.services.get(&key_of(&ours))
                {
                    self.conflicted.insert(service.key.clone(), service.annotated.clone());
                }
                self.touch(&ours);
            }
            Some(_) => _ = self.fresh.insert(key_of(&owner)),
            None => {}
        }
        self.adopting.remove(&address);
        let grant = Grant::new(owner.clone()).in_pool(claim.pool.clone());
        if let Err(conflict) = self.ledger.insert(address, grant) {
            // Only what was pending can have been in the way, and that is gone.
            tracing::error!("{conflict}, yet {owner} has the claim");
        }
        self.claims.insert(address, claim);
        if self.is_owner_unseen(&owner) {
            self.loosen(address, now);
        }
        self.touch(&owner);
    }

    /// Takes in that a claim is gone, if it is that one.
    pub fn remove_claim(&mut self, address: IpAddr, uid: &str, now: Duration) {
        self.buried.remove(uid);
        if self.claims.get(&address).is_none_or(|known| known.uid != uid) {
            return;
        }
        if self.busy.contains(&Object::Claim(address)) {
            // Our own delete is still without an answer. Until it has one nobody can be given the address.
            self.ended.insert(uid.to_owned());
        } else {
            self.unclaim(address, now);
        }
    }

    /// Takes in the addresses of a Node; none when it is gone.
    pub fn apply_node(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        let set: AddressSet = addresses.into_iter().map(Range::from).collect();
        self.reserve(&format!("node {name}"), set);
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
