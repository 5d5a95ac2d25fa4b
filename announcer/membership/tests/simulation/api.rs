//! Owns the API server: one object, compare-and-swap, requests that are slow, lost, or applied though nobody hears it.

use berth_membership::View;

use crate::machine::{MILLI, SECOND, Time};
use crate::random::Random;

/// A client gives up after this.
pub(crate) const TIMEOUT: Time = SECOND;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Get,
    Replace { from_epoch: u64, view: View },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    Is(Option<View>),
    Stored(View),
    Conflict,
    TimedOut,
}

#[derive(Clone, Debug)]
pub(crate) struct Api {
    pub(crate) stored: Option<View>,
    pub(crate) down_until: Time,
    pub(crate) cut_until: Vec<Time>,
    /// While slow, a request or its answer takes up to this.
    pub(crate) slow_until: Time,
    pub(crate) slowest: Time,
    /// Without compare-and-swap the last write wins.
    pub(crate) compares: bool,
    /// Reads are answered with what was stored before.
    pub(crate) stale: bool,
    before: Option<View>,
}

impl Api {
    pub(crate) fn new(hosts: usize, stored: Option<View>) -> Self {
        let cut_until = vec![0; hosts];
        Self {
            before: stored.clone(),
            stored,
            down_until: 0,
            cut_until,
            slow_until: 0,
            slowest: 0,
            compares: true,
            stale: false,
        }
    }

    pub(crate) fn reaches(&self, now: Time, host: usize) -> bool {
        now >= self.down_until && now >= self.cut_until[host]
    }

    pub(crate) fn heal(&mut self) {
        (self.down_until, self.slow_until) = (0, 0);
        self.cut_until.fill(0);
    }

    /// How long one way takes.
    pub(crate) fn way(&self, now: Time, random: &mut Random) -> Time {
        let slowest = if now < self.slow_until { self.slowest } else { 10 * MILLI };
        random.magnitude(MILLI, slowest.max(2 * MILLI))
    }

    /// Performs a request that arrived.
    pub(crate) fn perform(&mut self, request: &Call) -> Reply {
        match request {
            Call::Get if self.stale => Reply::Is(self.before.clone()),
            Call::Get => Reply::Is(self.stored.clone()),
            Call::Replace { from_epoch, view } => {
                let epoch = self.stored.as_ref().map_or(0, View::epoch);
                if epoch != *from_epoch && self.compares {
                    return Reply::Conflict;
                }
                self.before = self.stored.replace(view.clone());
                Reply::Stored(view.clone())
            }
        }
    }
}
