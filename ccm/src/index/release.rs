//! Owns the way back: wait until the announcer is silent, delete the claim, let the Service go. In this order an
//! address is never given to somebody else while it may still answer for the old Service.

use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::Owner;

use super::{Index, PATIENCE};
use crate::claimant::Id;
use crate::service::{Service, Standing};
use crate::write::{Change, Object, Write};

impl Index {
    pub(super) fn release(&mut self, service: &Service, now: Duration, writes: &mut Vec<Write>) {
        let id = Id::service(&service.key);
        let owner = service.owner();
        self.waiting.remove(&(service.created, id.clone()));
        self.verdicts.remove(&id);
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        let is_marked = if service.standing == Standing::Foreign {
            service.labelled && (service.annotated.is_some() || service.has_finalizer())
        } else {
            service.has_finalizer()
        };
        if held.is_empty() && !is_marked {
            self.leaving.remove(&id);
            return;
        }
        let since = *self.leaving.entry(id.clone()).or_insert(now);
        if !held.is_empty() && !service.is_silent() && now < since + PATIENCE {
            self.timers.insert((since + PATIENCE, Object::Claimant(id)));
            return;
        }
        if self.leave_all(&owner, now, writes) {
            let finalizers = service.finalizers(false);
            let is_news = !service.deleting;
            let change = Change { addresses: Vec::new(), interface: None, finalizers, is_news };
            let Service { key, uid, version, .. } = service.clone();
            self.start(Write::PatchService { key, uid, version, change }, writes);
        }
    }

    /// Gives back all that the owner holds. Returns whether it holds nothing any more.
    pub(super) fn leave_all(
        &mut self,
        owner: &Owner,
        now: Duration,
        writes: &mut Vec<Write>,
    ) -> bool {
        let held: Vec<IpAddr> = self.ledger.held(owner).collect();
        for address in held {
            if self.is_holder(address, owner) {
                self.leave_claim(address, owner, false, now, writes);
            } else if !self.busy.contains(&Object::Claim(address)) {
                self.abandon(address, owner);
            }
        }
        self.ledger.held(owner).next().is_none()
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
