//! Owns the way back: wait until the announcer is silent, delete the claim, let the Service go. In this order an
//! address is never given to somebody else while it may still answer for the old Service.

use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::Owner;

use super::{Index, PATIENCE};
use crate::service::{Service, Standing};
use crate::write::{Change, Object, Write};

impl Index {
    pub(super) fn release(&mut self, service: &Service, now: Duration, writes: &mut Vec<Write>) {
        let key = &service.key;
        let owner = service.owner();
        self.waiting.remove(&(service.created, key.clone()));
        self.verdicts.remove(key);
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        let is_marked = if service.standing == Standing::Foreign {
            service.labelled && (service.annotated.is_some() || service.has_finalizer())
        } else {
            service.has_finalizer()
        };
        if held.is_empty() && !is_marked {
            self.leaving.remove(key);
            return;
        }
        let since = *self.leaving.entry(key.clone()).or_insert(now);
        if !held.is_empty() && !service.is_silent() && now < since + PATIENCE {
            self.timers.insert((since + PATIENCE, Object::Service(key.clone())));
            return;
        }
        for address in &held {
            if self.claims.contains_key(address) {
                self.delete_claim(*address, &owner, false, now, writes);
            } else if !self.busy.contains(&Object::Claim(*address)) {
                self.abandon(*address, &owner);
            }
        }
        if self.ledger.held(&owner).next().is_none() {
            let finalizers = service.finalizers(false);
            let is_news = !service.deleting;
            let change = Change { addresses: Vec::new(), interface: None, finalizers, is_news };
            let (key, uid, version) = (key.clone(), service.uid.clone(), service.version.clone());
            self.start(Write::PatchService { key, uid, version, change }, writes);
        }
    }

    pub(super) fn delete_claim(
        &mut self,
        address: IpAddr,
        owner: &Owner,
        orphan: bool,
        now: Duration,
        writes: &mut Vec<Write>,
    ) {
        let Some(uid) = self.claims.get(&address).map(|claim| claim.uid.clone()) else { return };
        if !self.is_held_up(&Object::Claim(address), now) {
            self.start(Write::DeleteClaim { address, uid, owner: owner.clone(), orphan }, writes);
        }
    }

    /// Gives back claims whose owner has not been seen for a while.
    pub(super) fn poll_orphans(&mut self, now: Duration, slots: usize, writes: &mut Vec<Write>) {
        let free = slots.saturating_sub(writes.len());
        let due = self
            .loose
            .iter()
            .filter(|(_, since)| **since + PATIENCE <= now)
            .map(|(address, _)| *address);
        let due = due.filter(|address| !self.is_held_up(&Object::Claim(*address), now));
        let due: Vec<IpAddr> = due.take(free).collect();
        for address in due {
            match self.claims.get(&address).map(|claim| claim.owner.clone()) {
                Some(owner) => self.delete_claim(address, &owner, true, now, writes),
                None => _ = self.loose.remove(&address),
            }
        }
    }
}
