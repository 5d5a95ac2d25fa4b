//! Owns who is looked at next, and when somebody is looked at again although nothing happens.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_ipam::OwnerKind;

use crate::claimant::Id;
use crate::write::{Object, Verdict};

/// How many that come are looked at for one that goes.
const COME_FOR_ONE: u8 = 3;

/// So many that wait are looked at whenever something becomes free. Where more do, who comes after them would never have a
/// turn while things become free: then it is done ever more rarely, by this time for each.
const FEW: usize = 256;
const FOR_EACH: Duration = Duration::from_micros(50);

/// A claimant in the order in which it is served: who was made first, then by kind and name.
pub(super) type Turn = (i64, Id);

/// What is to be looked at.
#[derive(Clone, Debug, Default)]
pub(super) struct Agenda {
    /// Those that are looked at before all others, once, at the import.
    first: BTreeSet<Turn>,
    /// Claimants to look at, oldest first.
    dirty: BTreeSet<Turn>,
    /// Those of them that are to give back what they hold. They are older than who comes, and would go before.
    ending: BTreeSet<Turn>,
    /// How many of those that come were looked at since one that ends was, while there are both.
    came: u8,
    /// Claimants that want more than they got, and how it was refused.
    waiting: BTreeMap<Turn, Verdict>,
    /// Something has become free: the waiting are looked at again.
    retry: bool,
    /// Not before this.
    again: Duration,
    timers: BTreeSet<(Duration, Object)>,
}

impl Agenda {
    /// The claimant is looked at before all others.
    pub(super) fn put_first(&mut self, turn: Turn) {
        self.remove(&turn);
        self.first.insert(turn);
    }

    /// The claimant is to be looked at.
    pub(super) fn add(&mut self, turn: Turn, is_ending: bool) {
        if self.first.contains(&turn) {
            return;
        }
        let (now, before) = match is_ending {
            true => (&mut self.ending, &mut self.dirty),
            false => (&mut self.dirty, &mut self.ending),
        };
        before.remove(&turn);
        now.insert(turn);
    }

    /// The claimant is gone.
    pub(super) fn remove(&mut self, turn: &Turn) {
        self.first.remove(turn);
        self.dirty.remove(turn);
        self.ending.remove(turn);
        self.waiting.remove(turn);
    }

    /// The claimant wants more than it got.
    pub(super) fn wait(&mut self, turn: Turn, verdict: Verdict) {
        self.waiting.insert(turn, verdict);
    }

    /// The claimant wants nothing more.
    pub(super) fn wait_no_more(&mut self, turn: &Turn) {
        self.waiting.remove(turn);
    }

    /// How many Services wait that have nothing, by reason.
    pub(super) fn waiting(&self) -> BTreeMap<&'static str, u64> {
        let mut counts = BTreeMap::new();
        let services = self.waiting.iter().filter(|((_, id), _)| id.kind == OwnerKind::Service);
        let refused = services.filter(|(_, verdict)| !verdict.allocated);
        refused.for_each(|(_, verdict)| *counts.entry(verdict.reason).or_default() += 1);
        counts
    }

    /// Something has become free, or may have: the waiting are looked at again.
    pub(super) fn retry(&mut self) {
        self.retry = true;
    }

    /// Puts the waiting among those to look at, if something has become free.
    pub(super) fn recall_waiting(&mut self, now: Duration) {
        if self.retry && self.again <= now {
            self.retry = false;
            let many = u32::try_from(self.waiting.len()).unwrap_or(u32::MAX);
            if self.waiting.len() > FEW {
                self.again = now + FOR_EACH * many;
            }
            self.dirty.extend(self.waiting.keys().cloned());
        }
    }

    /// Who is looked at next. When the API server is slow, those who come do not wait until all have gone; and of
    /// every few one that goes, or they would never be gone.
    pub(super) fn next(&mut self) -> Option<Turn> {
        if let Some(turn) = self.first.pop_first() {
            return Some(turn);
        }
        if self.dirty.is_empty() || self.ending.is_empty() {
            self.came = 0;
            return self.dirty.pop_first().or_else(|| self.ending.pop_first());
        }
        if self.came < COME_FOR_ONE {
            self.came += 1;
            return self.dirty.pop_first();
        }
        self.came = 0;
        self.ending.pop_first()
    }

    /// Whether nobody is to be looked at now.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_empty() && self.dirty.is_empty() && self.ending.is_empty()
    }

    /// The object is to be looked at then.
    pub(super) fn at(&mut self, time: Duration, object: Object) {
        self.timers.insert((time, object));
    }

    /// The next object whose time has come.
    pub(super) fn due(&mut self, now: Duration) -> Option<Object> {
        let (at, _) = self.timers.first()?;
        if *at > now {
            return None;
        }
        self.timers.pop_first().map(|(_, object)| object)
    }

    /// When the next object is due.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let timer = self.timers.first().map(|(at, _)| *at);
        timer.into_iter().chain(self.retry.then_some(self.again)).min()
    }
}
