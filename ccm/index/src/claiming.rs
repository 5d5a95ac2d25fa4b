//! Owns what stands between asking for a claim and seeing it, and between its end and seeing that.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{AddressSet, Range};

use super::pairs::Pairs;

/// Claims on their way.
#[derive(Clone, Debug, Default)]
pub(super) struct Claiming {
    /// Who has asked for an address and is not in its claim yet. The ledger has them already.
    pub(super) pending: Pairs,
    /// Addresses whose `IPAddress` belongs to another controller, and when to look again.
    foreign: BTreeMap<IpAddr, Duration>,
    /// Claims that are deleted and may still be shown by a late watch.
    buried: BTreeSet<String>,
    /// Claims that the watch showed as deleted before our own delete was answered.
    ended: BTreeSet<String>,
}

impl Claiming {
    /// Our delete of the claim was answered.
    pub(super) fn bury(&mut self, uid: &str) {
        if !self.ended.remove(uid) {
            self.buried.insert(uid.to_owned());
        }
    }

    /// Whether the claim is known to be deleted: a late watch shows it.
    pub(super) fn is_buried(&self, uid: &str) -> bool {
        self.buried.contains(uid)
    }

    /// The watch shows that the claim is deleted.
    pub(super) fn unbury(&mut self, uid: &str) {
        self.buried.remove(uid);
    }

    /// The watch shows that the claim is deleted, and our own write of it has no answer yet.
    pub(super) fn end(&mut self, uid: &str) {
        self.ended.insert(uid.to_owned());
    }

    /// Our write of the claim was answered. Returns whether the watch has shown meanwhile that it is deleted.
    pub(super) fn has_ended(&mut self, uid: &str) -> bool {
        self.ended.remove(uid)
    }

    /// Another controller has the address, which is left alone until then.
    pub(super) fn leave_to_others(&mut self, address: IpAddr, until: Duration) {
        self.foreign.insert(address, until);
    }

    /// Returns whether the address was left alone for long enough.
    pub(super) fn is_over(&mut self, address: IpAddr, now: Duration) -> bool {
        let is_over = self.foreign.get(&address).is_some_and(|until| *until <= now);
        is_over && self.foreign.remove(&address).is_some()
    }

    /// The addresses that other controllers have.
    pub(super) fn of_others(&self) -> AddressSet {
        self.foreign.keys().copied().map(Range::from).collect()
    }
}
