//! Owns which Services nobody says anything of, since when, and what their status is still to say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::claimant::Id;
use crate::write::Silence;

/// Who is silent.
#[derive(Clone, Debug, Default)]
pub(super) struct Silences {
    /// Since when Services have addresses of which nobody says anything.
    since: BTreeMap<Id, Duration>,
    /// Services of which something was said after our announcer there fell silent: another program announces them.
    others: BTreeSet<Id>,
    /// What the status of Services is still to say; none takes it back.
    open: BTreeMap<Id, Option<Silence>>,
    /// Whether something was heard of announcers.
    is_news: bool,
    /// When all are looked at for that.
    again: Duration,
}

/// How often all are looked at while announcers come and go one by one.
const REVIEW: Duration = Duration::from_secs(1);

impl Silences {
    /// The Service is gone.
    pub(super) fn gone(&mut self, id: &Id) {
        self.since.remove(id);
        self.others.remove(id);
        self.open.remove(id);
    }

    /// Since when nobody says anything of the Service; from now on if that is news.
    pub(super) fn begin(&mut self, id: &Id, now: Duration) -> Duration {
        *self.since.entry(id.clone()).or_insert(now)
    }

    /// Somebody says something of the Service, or nobody is to.
    pub(super) fn end(&mut self, id: &Id) {
        self.since.remove(id);
    }

    /// Whether it is another program's word what the Service says now.
    pub(super) fn is_of_others(&mut self, id: &Id, is_anothers: bool) {
        match is_anothers {
            true => _ = self.others.insert(id.clone()),
            false => _ = self.others.remove(id),
        }
    }

    pub(super) fn has_others(&self, id: &Id) -> bool {
        self.others.contains(id)
    }

    /// The status of the Service is to say this (none takes it back), or nothing is to be written.
    pub(super) fn open(&mut self, id: Id, open: Option<Option<Silence>>) {
        match open {
            Some(silence) => _ = self.open.insert(id, silence),
            None => _ = self.open.remove(&id),
        }
    }

    /// Those whose status is to be written.
    pub(super) fn all_open(&self) -> impl Iterator<Item = &Id> {
        self.open.keys()
    }

    /// What the status of the Service is to say; none takes it back.
    pub(super) fn is_open(&self, id: &Id) -> Option<&Silence> {
        self.open.get(id)?.as_ref()
    }

    /// The status of the Service says it.
    pub(super) fn said(&mut self, id: &Id) {
        self.open.remove(id);
    }

    /// Something was heard of an announcer: all are looked at soon.
    pub(super) fn hear(&mut self) {
        self.is_news = true;
    }

    /// The same of all announcers.
    pub(super) fn hear_at_once(&mut self) {
        (self.is_news, self.again) = (true, Duration::ZERO);
    }

    /// Whether all are to be looked at now.
    pub(super) fn begin_review(&mut self, now: Duration) -> bool {
        let is_due = self.is_news && self.again <= now;
        if is_due {
            (self.is_news, self.again) = (false, now + REVIEW);
        }
        is_due
    }

    /// When all are to be looked at.
    pub(super) fn deadline(&self) -> Option<Duration> {
        self.is_news.then_some(self.again)
    }
}
