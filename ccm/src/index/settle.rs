//! Owns what follows from the outcome of a write.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::{address, reason};
use berth_ipam::{AddressSet, Owner, Range};

use super::holders::remove_pair;
use super::{Index, PAUSE};
use crate::service::{Key, Service};
use crate::write::{Change, Object, Outcome, Write, key_of};

const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// What was refused once will hardly be accepted soon.
const REFUSED: Duration = Duration::from_secs(10);
/// How long to leave an address alone that another controller has.
const FOREIGN: Duration = Duration::from_secs(600);

impl Index {
    /// Takes in what became of a write that [`Index::poll`] gave.
    pub fn settle(&mut self, write: &Write, outcome: Outcome, now: Duration) {
        let object = write.object();
        self.busy.remove(&object);
        match &outcome {
            Outcome::Throttled(pause) => self.back_off(object, *pause, now),
            Outcome::Unknown(_) => self.back_off(object, Duration::ZERO, now),
            Outcome::Refused(_) => self.back_off(object, REFUSED, now),
            _ => _ = self.backoff.remove(&object),
        }
        match write {
            Write::CreateClaim { address, owner, .. } => {
                self.settle_claim(*address, None, owner, outcome, now);
            }
            Write::JoinClaim { address, uid, owner, .. } => {
                self.settle_claim(*address, Some(uid), owner, outcome, now);
            }
            Write::LeaveClaim { address, uid, owner, .. } => {
                self.settle_leave(*address, uid, owner, outcome, now);
            }
            Write::PatchService { key, uid, version, change } => {
                if let Outcome::Service(service) = &outcome {
                    self.patched(service, change, now);
                }
                self.settle_service(key, Some(uid), version, outcome, now);
            }
            Write::PatchStatus { key, uid, version, .. } => {
                if let Outcome::Service(_) = &outcome {
                    self.verdicts.remove(key);
                }
                self.settle_service(key, Some(uid), version, outcome, now);
            }
            Write::ReadService { key } => self.settle_service(key, None, "", outcome, now),
        }
        if let Object::Claim(address) = write.object() {
            if let Some(claim) = self.claims.get(&address)
                && self.ended.remove(&claim.uid)
            {
                self.unclaim(address, now);
            }
            // Who has the address, or wants it, may have waited for this write, whoever it was for.
            self.touch_holders(address);
            let queued = self.queued.remove(&address).unwrap_or_default();
            queued.iter().for_each(|key| self.touch_key(key));
        }
    }

    /// The owner was to come to hold the address: in a claim of its own, or in the one with this uid.
    fn settle_claim(
        &mut self,
        address: IpAddr,
        joined: Option<&str>,
        owner: &Owner,
        outcome: Outcome,
        now: Duration,
    ) {
        match outcome {
            // Did the ledger hold it for somebody else, the claim now ends that.
            Outcome::Claimed(claim) | Outcome::Taken(Some(claim)) => self.apply_claim(claim, now),
            Outcome::Taken(None) => {
                remove_pair(&mut self.adopting, address, owner);
                self.abandon(address, owner);
                self.foreign.insert(address, now + FOREIGN);
                self.timers.insert((now + FOREIGN, Object::Claim(address)));
                self.reserve_foreign();
            }
            Outcome::Released => {
                joined.into_iter().for_each(|uid| self.bury(address, uid, now));
            }
            Outcome::Throttled(_) | Outcome::Unknown(_) if self.is_owner_known(owner) => {}
            Outcome::Refused(_) => {
                // Whoever gets the address next may be accepted.
                self.backoff.remove(&Object::Claim(address));
                remove_pair(&mut self.adopting, address, owner);
                self.abandon(address, owner);
                self.back_off(Object::Service(key_of(owner)), REFUSED, now);
            }
            _ => {
                if !self.is_holder(address, owner) {
                    self.abandon(address, owner);
                }
            }
        }
        self.touch(owner);
    }

    fn settle_leave(
        &mut self,
        address: IpAddr,
        uid: &str,
        owner: &Owner,
        outcome: Outcome,
        now: Duration,
    ) {
        match outcome {
            Outcome::Released => self.bury(address, uid, now),
            Outcome::Claimed(claim) | Outcome::Taken(Some(claim)) => self.apply_claim(claim, now),
            Outcome::Service(service) => {
                self.loose.remove(&(address, owner.clone()));
                self.apply_service(*service, now);
            }
            _ => {}
        }
        self.touch(owner);
    }

    /// The claim with this uid is gone, which the watch may already have shown, or will.
    fn bury(&mut self, address: IpAddr, uid: &str, now: Duration) {
        if self.claims.get(&address).is_some_and(|claim| claim.uid == uid) {
            if !self.ended.remove(uid) {
                self.buried.insert(uid.to_owned());
            }
            self.unclaim(address, now);
        }
    }

    fn settle_service(
        &mut self,
        key: &Key,
        uid: Option<&str>,
        version: &str,
        outcome: Outcome,
        now: Duration,
    ) {
        match outcome {
            Outcome::Service(service) => self.apply_service(*service, now),
            Outcome::Missing => self.remove_service(key, uid, now),
            // The watch brings the newer version in a moment; if not, it is read.
            Outcome::Conflict
                if self.services.get(key).is_some_and(|known| known.version == version) =>
            {
                self.stale.insert(key.clone(), version.to_owned());
                let object = Object::Service(key.clone());
                self.backoff.insert(object.clone(), (0, now + PAUSE));
                self.timers.insert((now + PAUSE, object));
            }
            _ => {}
        }
        self.touch_key(key);
    }

    /// The Service now has these addresses, or none. The watch may have shown it before the answer came.
    fn patched(&mut self, service: &Service, change: &Change, now: Duration) {
        let addresses = &change.addresses;
        if let Some(seen) = self.seen.remove(&service.key).filter(|_| !addresses.is_empty()) {
            self.latencies.push(now.saturating_sub(seen));
        }
        self.told.remove(&service.key);
        self.fresh.remove(&service.key);
        if addresses.is_empty() {
            self.leaving.remove(&service.key);
        }
        match (change.is_news, addresses.is_empty()) {
            (false, _) => {}
            (true, true) => {
                let note = "the Service is not, or not any more, one that Berth serves".to_owned();
                self.report(service, false, reason::ADDRESS_RELEASED, note);
            }
            (true, false) => {
                let pool =
                    addresses.iter().find_map(|address| self.claims.get(address)?.pool.as_ref());
                let from = pool.map(|pool| format!(" from {pool}")).unwrap_or_default();
                let note = format!("{}{from}", address::format(addresses.iter().copied()));
                self.report(service, false, reason::ADDRESS_ALLOCATED, note);
            }
        }
    }

    /// Waits before the object is written again: at least `least`, longer after each failure in a row.
    fn back_off(&mut self, object: Object, least: Duration, now: Duration) {
        let tries = self.backoff.get(&object).map_or(0, |(tries, _)| *tries) + 1;
        let pause = (PAUSE * 2u32.pow(tries.min(6) - 1)).min(LONGEST_PAUSE).max(least);
        self.timers.insert((now + pause, object.clone()));
        self.backoff.insert(object, (tries, now + pause));
    }

    fn is_owner_known(&self, owner: &Owner) -> bool {
        !self.is_owner_unseen(owner)
    }

    pub(super) fn expire_foreign(&mut self, address: IpAddr, now: Duration) {
        if self.foreign.get(&address).is_some_and(|until| *until <= now) {
            self.foreign.remove(&address);
            self.reserve_foreign();
        }
    }

    fn reserve_foreign(&mut self) {
        let set: AddressSet = self.foreign.keys().copied().map(Range::from).collect();
        self.reserve("an IPAddress of another controller", set);
    }
}
