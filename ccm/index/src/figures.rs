//! Owns what is counted and measured for the metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::claimant::Id;

/// The figures.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// When claimants without an address were first seen.
    seen: BTreeMap<Id, Duration>,
    latencies: Vec<Duration>,
    /// How often an elastic IP went to another node.
    moves: u64,
}

impl Figures {
    /// A claimant without an address is seen.
    pub(super) fn see(&mut self, id: Id, now: Duration) {
        self.seen.insert(id, now);
    }

    /// The claimant is gone, or was given its addresses by another process.
    pub(super) fn forget(&mut self, id: &Id) {
        self.seen.remove(id);
    }

    /// The claimant has its addresses.
    pub(super) fn serve(&mut self, id: &Id, now: Duration) {
        if let Some(seen) = self.seen.remove(id) {
            self.latencies.push(now.saturating_sub(seen));
        }
    }

    pub(super) fn take_latencies(&mut self) -> Vec<Duration> {
        std::mem::take(&mut self.latencies)
    }

    pub(super) fn moved(&mut self) {
        self.moves += 1;
    }

    pub(super) fn moves(&self) -> u64 {
        self.moves
    }
}
