//! Owns the writes: which are under way, for what none is started for a while, and who waits for the end of one. No two
//! are under way for one object.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::claimant::{Claimant, Id};
use crate::write::{Object, Write};

/// The first pause before something is tried again; after a failure it doubles.
pub(super) const PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The pauses after what the API server refuses.
const REFUSED: Duration = Duration::from_secs(10);
const LONGEST_REFUSED: Duration = Duration::from_secs(300);

/// The writes.
#[derive(Clone, Debug, Default)]
pub(super) struct Traffic {
    /// What was started and is not handed out yet.
    started: Vec<Write>,
    /// Writes under way.
    busy: BTreeSet<Object>,
    /// Objects whose last write failed: how often in a row, and when to try again.
    backoff: BTreeMap<Object, (u32, Duration)>,
    /// Versions of claimants that turned out to be old.
    stale: BTreeMap<Id, String>,
    /// Claimants that wait for the end of a write of a claim.
    queued: BTreeMap<IpAddr, BTreeSet<Id>>,
}

impl Traffic {
    pub(super) fn start(&mut self, write: Write) {
        self.busy.insert(write.object());
        self.started.push(write);
    }

    /// How many were started and are not handed out yet.
    pub(super) fn started(&self) -> usize {
        self.started.len()
    }

    /// Hands out what was started.
    pub(super) fn take(&mut self) -> Vec<Write> {
        std::mem::take(&mut self.started)
    }

    /// The write for the object has ended.
    pub(super) fn end(&mut self, object: &Object) {
        self.busy.remove(object);
    }

    pub(super) fn is_busy(&self, object: &Object) -> bool {
        self.busy.contains(object)
    }

    /// Whether a write for the object is under way, or was tried a moment ago in vain.
    pub(super) fn is_held_up(&self, object: &Object, now: Duration) -> bool {
        self.busy.contains(object)
            || self.backoff.get(object).is_some_and(|(_, until)| *until > now)
    }

    /// When the object may be written again, if it is known and not over.
    pub(super) fn held_up_until(&self, object: &Object, now: Duration) -> Option<Duration> {
        self.backoff.get(object).map(|(_, until)| *until).filter(|until| *until > now)
    }

    /// Nothing is written to the object for so long. Returns when it may be again.
    pub(super) fn pause(
        &mut self,
        object: Object,
        tries: u32,
        pause: Duration,
        now: Duration,
    ) -> Duration {
        self.backoff.insert(object, (tries, now + pause));
        now + pause
    }

    /// The same after a failure: longer after each in a row.
    pub(super) fn back_off(&mut self, object: Object, now: Duration) -> Duration {
        let tries = self.backoff.get(&object).map_or(0, |(tries, _)| *tries) + 1;
        let pause = (PAUSE * 2u32.pow(tries.min(6) - 1)).min(LONGEST_PAUSE);
        self.pause(object, tries, pause, now)
    }

    /// The same after the API server has refused it, which it will do again: minutes, after a few in a row.
    pub(super) fn refused(&mut self, object: Object, now: Duration) -> Duration {
        let tries = self.backoff.get(&object).map_or(0, |(tries, _)| *tries) + 1;
        let pause = (REFUSED * 2u32.pow(tries.min(6) - 1)).min(LONGEST_REFUSED);
        self.pause(object, tries, pause, now)
    }

    /// The object may be written again at once.
    pub(super) fn resume(&mut self, object: &Object) {
        self.backoff.remove(object);
    }

    /// The claimant was seen anew: it is not old, and if that was all it waited for, it may be written. One that was
    /// refused for what it was before is tried again sooner: returns when.
    pub(super) fn renewed(&mut self, id: &Id, now: Duration) -> Option<Duration> {
        self.stale.remove(id);
        let object = Object::Claimant(id.clone());
        let (tries, until) = self.backoff.get_mut(&object)?;
        if *tries == 0 {
            self.backoff.remove(&object);
            return None;
        }
        let soon = now + REFUSED;
        (*until > soon).then(|| {
            *until = soon;
            soon
        })
    }

    /// The claimant is gone.
    pub(super) fn gone(&mut self, id: &Id) {
        self.stale.remove(id);
        self.backoff.remove(&Object::Claimant(id.clone()));
    }

    /// This version of a claimant is old: another has written it meanwhile.
    pub(super) fn outdated(&mut self, id: &Id, version: &str) {
        self.stale.insert(id.clone(), version.to_owned());
    }

    /// Whether the claimant is known only as it was before another wrote it.
    pub(super) fn is_stale(&self, claimant: &Claimant) -> bool {
        self.stale.get(&claimant.id()).is_some_and(|version| version == claimant.version())
    }

    /// The claimant is looked at again when the write of the claim has ended.
    pub(super) fn queue(&mut self, address: IpAddr, id: Id) {
        self.queued.entry(address).or_default().insert(id);
    }

    /// Who waited for the end of it.
    pub(super) fn take_queue(&mut self, address: IpAddr) -> BTreeSet<Id> {
        self.queued.remove(&address).unwrap_or_default()
    }
}
