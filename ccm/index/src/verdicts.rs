//! Owns the verdicts that objects are still to show, and whose turn it is: the namespaces take turns, and in each the one
//! that waits longest. So nobody waits for all that another namespace is told.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;

use crate::claimant::Id;
use crate::write::Verdict;

/// How long a verdict waits until nobody waits for an address. After that it has its turn among them.
const LATE: Duration = Duration::from_secs(1);
/// How much is done for others for one verdict that is late: three writes, or so many looks that lead to none.
const FOR_ONE: usize = 3 * WRITE;
const WRITE: usize = 16;

/// The verdicts that are to be shown.
#[derive(Clone, Debug, Default)]
pub(super) struct Verdicts {
    open: BTreeMap<Id, (Verdict, Place)>,
    /// By namespace, those whose turn comes, and since when.
    queues: BTreeMap<String, BTreeSet<(Duration, Id)>>,
    /// Those that came since this was last told the time.
    fresh: BTreeSet<Id>,
    /// Those of objects that cannot be written, and until when.
    parked: BTreeSet<(Duration, Id)>,
    /// The namespace that had its turn last.
    last: String,
    /// How much was done for others since a late one.
    done: usize,
}

/// Where a verdict waits.
#[derive(Clone, Copy, Debug)]
enum Place {
    Fresh,
    Queued(Duration),
    Parked(Duration),
}

impl Verdicts {
    /// The object is to show this, in place of what it was to show. It keeps its turn.
    pub(super) fn put(&mut self, id: Id, verdict: Verdict) {
        match self.open.get_mut(&id) {
            Some((open, _)) => *open = verdict,
            None => {
                self.fresh.insert(id.clone());
                self.open.insert(id, (verdict, Place::Fresh));
            }
        }
    }

    /// The object is to show nothing any more.
    pub(super) fn remove(&mut self, id: &Id) {
        if let Some((_, place)) = self.open.remove(id) {
            self.take_from(place, id);
        }
    }

    /// What the object is to show.
    pub(super) fn of(&self, id: &Id) -> Option<&Verdict> {
        self.open.get(id).map(|(verdict, _)| verdict)
    }

    /// Time passes: what came waits since now, and what was to wait until now has its turn again.
    pub(super) fn advance(&mut self, now: Duration) {
        while let Some(id) = self.fresh.first().cloned() {
            self.move_to(Place::Queued(now), &id);
        }
        while let Some((until, id)) = self.parked.first().filter(|(until, _)| *until <= now) {
            self.move_to(Place::Queued(*until), &id.clone());
        }
    }

    /// The object cannot be written before then.
    pub(super) fn park(&mut self, id: &Id, until: Duration) {
        self.move_to(Place::Parked(until), id);
    }

    /// Whose turn it is.
    pub(super) fn next(&mut self) -> Option<Id> {
        self.next_before(Duration::MAX)
    }

    /// Who waits too long, if so much was done for others that it is its turn.
    pub(super) fn next_late(&mut self, now: Duration) -> Option<Id> {
        if self.done < FOR_ONE {
            return None;
        }
        self.done = 0;
        self.next_before(now.checked_sub(LATE)?)
    }

    /// Another was looked at, for which so many writes were started.
    pub(super) fn looked(&mut self, writes: usize) {
        self.done = self.done.saturating_add(1 + WRITE * writes);
    }

    /// When something has its turn again that cannot be written now.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.parked.first().map(|(until, _)| *until)
    }

    fn next_before(&mut self, until: Duration) -> Option<Id> {
        let after = self.queues.range::<String, _>((Excluded(&self.last), Unbounded));
        let all = after.chain(self.queues.range::<String, _>(..=&self.last));
        let mut due = all.filter_map(|(namespace, queue)| Some((namespace, queue.first()?)));
        let (namespace, (_, id)) = due.find(|(_, (since, _))| *since <= until)?;
        let id = id.clone();
        self.last = namespace.clone();
        Some(id)
    }

    fn move_to(&mut self, place: Place, id: &Id) {
        let Some((_, now)) = self.open.get_mut(id) else { return };
        let before = std::mem::replace(now, place);
        self.take_from(before, id);
        match place {
            Place::Fresh => _ = self.fresh.insert(id.clone()),
            Place::Parked(until) => _ = self.parked.insert((until, id.clone())),
            Place::Queued(since) => {
                let queue = self.queues.entry(id.key.namespace.clone()).or_default();
                queue.insert((since, id.clone()));
            }
        }
    }

    fn take_from(&mut self, place: Place, id: &Id) {
        match place {
            Place::Fresh => _ = self.fresh.remove(id),
            Place::Parked(until) => _ = self.parked.remove(&(until, id.clone())),
            Place::Queued(since) => {
                let Some(queue) = self.queues.get_mut(&id.key.namespace) else { return };
                queue.remove(&(since, id.clone()));
                if queue.is_empty() {
                    self.queues.remove(&id.key.namespace);
                }
            }
        }
    }
}
