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
            if self.is_holder(*address, &owner) {
                self.leave_claim(*address, &owner, false, now, writes);
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

    pub(super) fn leave_claim(
        &mut self,
        address: IpAddr,
        owner: &Owner,
        orphan: bool,
        now: Duration,
        writes: &mut Vec<Write>,
    ) {
        let Some(claim) = self.claims.get(&address) else { return };
        if self.is_held_up(&Object::Claim(address), now) {
            return;
        }
        let write = Write::LeaveClaim {
            address,
            uid: claim.uid.clone(),
            version: claim.version.clone(),
            owner: owner.clone(),
            others: claim.others(owner),
            orphan,
        };
        self.start(write, writes);
    }

    /// Gives back what is claimed for owners that have not been seen for a while.
    pub(super) fn poll_orphans(&mut self, now: Duration, slots: usize, writes: &mut Vec<Write>) {
        let free = slots.saturating_sub(writes.len());
        let due = self.loose.iter().filter(|(_, since)| **since + PATIENCE <= now);
        let due = due.map(|((address, owner), _)| (*address, owner.clone()));
        let due = due.filter(|(address, _)| !self.is_held_up(&Object::Claim(*address), now));
        let due: Vec<(IpAddr, Owner)> = due.take(free).collect();
        for (address, owner) in due {
            if self.is_holder(address, &owner) {
                self.leave_claim(address, &owner, true, now, writes);
            } else {
                self.loose.remove(&(address, owner));
            }
        }
    }
}
