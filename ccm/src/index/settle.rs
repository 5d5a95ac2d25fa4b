//! Owns what follows from the outcome of a write.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::{address, reason};
use berth_ipam::{AddressSet, Owner, OwnerKind, Range};

use super::holders::remove_pair;
use super::{Index, PAUSE};
use crate::claimant::{Claimant, Id};
use crate::write::{Change, News, Object, Outcome, Write};

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
            // A server that says when to come back is not asked to wait for longer each time.
            Outcome::Throttled(pause) => self.wait(object, 1, *pause, now),
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
                if let Outcome::Claimant(claimant) = &outcome {
                    self.patched(claimant, change, now);
                }
                self.settle_claimant(&Id::service(key), Some(uid), version, outcome, now);
            }
            Write::PatchStatus { key, uid, version, .. } => {
                let id = Id::service(key);
                if let Outcome::Claimant(_) = &outcome {
                    self.verdicts.remove(&id);
                }
                self.settle_claimant(&id, Some(uid), version, outcome, now);
            }
            Write::PatchEip { key, uid, version, .. } => {
                self.settle_claimant(&Id::eip(key), Some(uid), version, outcome, now);
            }
            Write::ApplyEip { key, uid, version, decided, news } => {
                if let Outcome::Claimant(claimant) = &outcome {
                    self.applied(claimant, !decided.eips.is_empty(), news, now);
                }
                self.settle_claimant(&Id::eip(key), Some(uid), version, outcome, now);
            }
            Write::Read { id } => self.settle_claimant(id, None, "", outcome, now),
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
            queued.iter().for_each(|id| self.touch_id(id));
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
                self.back_off(Object::Claimant(Id::from(owner)), REFUSED, now);
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
            Outcome::Claimant(claimant) => {
                self.loose.remove(&(address, owner.clone()));
                self.apply(*claimant, now);
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

    fn settle_claimant(
        &mut self,
        id: &Id,
        uid: Option<&str>,
        version: &str,
        outcome: Outcome,
        now: Duration,
    ) {
        match outcome {
            Outcome::Claimant(claimant) => self.apply(*claimant, now),
            Outcome::Missing => self.remove_claimant(id, uid, now),
            // The watch brings the newer version in a moment; if not, it is read.
            Outcome::Conflict
                if self.claimants.get(id).is_some_and(|known| known.version() == version) =>
            {
                self.stale.insert(id.clone(), version.to_owned());
                let object = Object::Claimant(id.clone());
                self.wait(object, 0, PAUSE, now);
            }
            _ => {}
        }
        self.touch_id(id);
    }

    /// The Service now has these addresses, or none. The watch may have shown it before the answer came.
    fn patched(&mut self, service: &Claimant, change: &Change, now: Duration) {
        let addresses = &change.addresses;
        self.served(&service.id(), !addresses.is_empty(), now);
        match (change.is_news, addresses.is_empty()) {
            (false, _) => {}
            (true, true) => {
                let note = "the Service is not, or not any more, one that Berth serves".to_owned();
                self.report(service, false, reason::ADDRESS_RELEASED, note);
            }
            (true, false) => {
                let note = self.given(addresses);
                self.report(service, false, reason::ADDRESS_ALLOCATED, note);
            }
        }
    }

    /// The status of the EipBinding now says what was decided.
    fn applied(&mut self, binding: &Claimant, has_addresses: bool, news: &[News], now: Duration) {
        let id = binding.id();
        self.verdicts.remove(&id);
        self.served(&id, has_addresses, now);
        for News { is_warning, reason, note } in news {
            if *reason == reason::ADDRESS_ALLOCATED {
                self.told.remove(&id);
            }
            self.moves += u64::from(*reason == reason::MOVED);
            self.report(binding, *is_warning, reason, note.clone());
        }
    }

    /// What was decided about the addresses of this claimant is written: it has some, or none.
    fn served(&mut self, id: &Id, has_addresses: bool, now: Duration) {
        if id.kind == OwnerKind::Service {
            self.told.remove(id);
        }
        // What is written to an EipBinding may also be why it has none.
        if (has_addresses || id.kind == OwnerKind::Service)
            && let Some(seen) = self.seen.remove(id).filter(|_| has_addresses)
        {
            self.latencies.push(now.saturating_sub(seen));
        }
        self.fresh.remove(id);
        if !has_addresses {
            self.leaving.remove(id);
        }
    }

    /// The addresses and where they are from, for people.
    pub(super) fn given(&self, addresses: &[IpAddr]) -> String {
        let pool = addresses.iter().find_map(|address| self.claims.get(address)?.pool.as_ref());
        let from = pool.map(|pool| format!(" from {pool}")).unwrap_or_default();
        format!("{}{from}", address::format(addresses.iter().copied()))
    }

    /// Waits before the object is written again: at least `least`, longer after each failure in a row.
    fn back_off(&mut self, object: Object, least: Duration, now: Duration) {
        let tries = self.backoff.get(&object).map_or(0, |(tries, _)| *tries) + 1;
        let pause = (PAUSE * 2u32.pow(tries.min(6) - 1)).min(LONGEST_PAUSE).max(least);
        self.wait(object, tries, pause, now);
    }

    fn wait(&mut self, object: Object, tries: u32, pause: Duration, now: Duration) {
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
