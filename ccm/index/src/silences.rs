//! Owns which Services nobody says anything of, since when, and what their status is still to say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Included, Unbounded};
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
    /// The same Services by namespace: these take turns.
    lines: BTreeMap<String, BTreeSet<Id>>,
    /// Whose turn was last, and when.
    last: (String, Duration),
    /// Whether something was heard of announcers.
    is_news: bool,
    /// When all are looked at for that.
    again: Duration,
}

/// So long they let everything else go before them.
const LATE: Duration = Duration::from_secs(1);

/// How often all are looked at while announcers come and go one by one.
const REVIEW: Duration = Duration::from_secs(1);

impl Silences {
    /// The Service is gone.
    pub(super) fn gone(&mut self, id: &Id) {
        self.since.remove(id);
        self.others.remove(id);
        self.close(id);
    }

    fn close(&mut self, id: &Id) {
        if self.open.remove(id).is_some()
            && let Some(line) = self.lines.get_mut(&id.key.namespace)
        {
            line.remove(id);
            if line.is_empty() {
                self.lines.remove(&id.key.namespace);
            }
        }
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
            Some(silence) => {
                self.lines.entry(id.key.namespace.clone()).or_default().insert(id.clone());
                self.open.insert(id, silence);
            }
            None => self.close(&id),
        }
    }

    /// Those whose status is to be written next, at most so many, of those that `may` be: the namespaces take turns, so that
    /// nobody waits for thousands of another.
    pub(super) fn in_turn(&self, most: usize, may: impl Fn(&Id) -> bool) -> Vec<Id> {
        let last = self.last.0.as_str();
        let after = self.lines.range::<str, _>((Excluded(last), Unbounded));
        let lines = after.chain(self.lines.range::<str, _>((Unbounded, Included(last))));
        let lines = lines.map(|(_, line)| line.iter().filter(|id| may(id)).peekable());
        let mut lines: Vec<_> =
            lines.filter_map(|mut line| line.peek().is_some().then_some(line)).take(most).collect();
        let mut ids = Vec::new();
        while ids.len() < most && !lines.is_empty() {
            lines.retain_mut(|line| {
                let id = line.next_if(|_| ids.len() < most);
                ids.extend(id.into_iter().cloned());
                line.peek().is_some()
            });
        }
        ids
    }

    /// It is written now.
    pub(super) fn has_turn(&mut self, id: &Id, now: Duration) {
        self.last = (id.key.namespace.clone(), now);
    }

    /// Whether none had a turn for so long that one is to have it, whoever else waits for anything.
    pub(super) fn are_late(&self, now: Duration) -> bool {
        !self.open.is_empty() && self.last.1 + LATE <= now
    }

    /// What the status of the Service is to say; none takes it back.
    pub(super) fn is_open(&self, id: &Id) -> Option<&Silence> {
        self.open.get(id)?.as_ref()
    }

    /// The status of the Service says it.
    pub(super) fn said(&mut self, id: &Id) {
        self.close(id);
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
