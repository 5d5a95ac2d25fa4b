//! Owns when this node sends heartbeats.

use std::time::Duration;

use crate::moment::Moment;

/// A claim is repeated this long after the voter said it would be free.
const RETRY_LATE: Duration = Duration::from_micros(300);

/// Beats that something called for are this far apart for each address that they are about, at most half a heartbeat:
/// what happens in a crowd shares a beat, or thousands of addresses would have no time left to be renewed in.
const APART_EACH: Duration = Duration::from_micros(10);

#[derive(Debug)]
pub(crate) struct Beats {
    /// The longest time between two.
    heartbeat: Duration,
    last: Moment,
    next: Moment,
    retry_at: Moment,
}

impl Beats {
    pub(crate) fn new(heartbeat: Duration) -> Self {
        let (next, retry_at) = (Moment::NEVER, Moment::NEVER);
        Self { heartbeat, last: Moment::default(), next, retry_at }
    }

    pub(crate) fn next(&self) -> Moment {
        self.next
    }

    /// When there is something to send, at the latest.
    pub(crate) fn due(&self) -> Moment {
        self.next.min(self.retry_at)
    }

    /// A beat about so many addresses is to go as soon as may be.
    pub(crate) fn hurry(&mut self, now: Moment, about: usize) {
        self.next = self.next.min(self.soon(now, about));
    }

    /// What was refused may be asked for again after this.
    pub(crate) fn retry(&mut self, now: Moment, after: Duration, about: usize) {
        self.retry_at = self.retry_at.min(self.soon(now + after + RETRY_LATE, about));
    }

    /// When one went last.
    pub(crate) fn last(&self) -> Moment {
        self.last
    }

    /// One goes now, the next one after this.
    pub(crate) fn beat(&mut self, now: Moment, next: Duration, about: usize) {
        self.last = now;
        self.next = self.soon(now + next.min(self.heartbeat), about);
        self.retry_at = Moment::NEVER;
    }

    /// When a beat that is called for at a moment may go.
    fn soon(&self, moment: Moment, about: usize) -> Moment {
        let apart = APART_EACH * u32::try_from(about).unwrap_or(u32::MAX);
        moment.max(self.last + apart.min(self.heartbeat / 2))
    }
}
