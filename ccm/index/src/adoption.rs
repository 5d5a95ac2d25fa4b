//! Owns which addresses of before there were claims are still to be claimed, and whose are somebody else's.

use std::collections::BTreeMap;

use super::pairs::Pairs;
use crate::claimant::{Claimant, Id};

/// The import.
#[derive(Clone, Debug, Default)]
pub(super) struct Adoption {
    /// Addresses that served Services had when this process began to lead, still to be claimed.
    pub(super) open: Pairs,
    /// Those that had an address of somebody else when this process began to lead, and how they had it written.
    conflicted: BTreeMap<Id, Option<String>>,
}

impl Adoption {
    /// The import starts again.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.conflicted.clear();
    }

    /// The claimant has an address that is somebody else's.
    pub(super) fn conflict(&mut self, claimant: &Claimant) {
        self.conflicted.insert(claimant.id(), claimant.written());
    }

    /// Whether the claimant still has written what it had then.
    pub(super) fn is_conflicted(&self, claimant: &Claimant) -> bool {
        self.conflicted.get(&claimant.id()) == Some(&claimant.written())
    }

    /// The claimant has no address of somebody else.
    pub(super) fn resolve(&mut self, id: &Id) {
        self.conflicted.remove(id);
    }
}
