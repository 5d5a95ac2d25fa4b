//! Owns the 2L rule, by which a timeout that starts at a moment nobody knows still ends before a moment that is known.
//! It decides only: the clock is an argument, what it returns is to be committed.
//!
//! An element `live` in the kernel expires a life L after the transaction that made it, and an address passes while
//! `live` exists and the address is held. The process may stall for any time between the decision and the commit. So a
//! refresh replaces `live` **only if it still exists** when the refresh commits; that is before b + L, where b was read
//! after the previous commit. The new one ends before b + 2L then, however long the stall was; and held is who was
//! granted that long. Where nothing is held, `live` can be made anew at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::time::BootTime;

/// How old the element gets before it is replaced, in parts of its life.
const PACE: u32 = 3;

/// A transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Hold nothing, and make `live` whether it exists or not.
    Start,
    /// Replace `live`, which must exist or nothing happens; hold more, hold less.
    Refresh {
        /// Addresses to hold from now on.
        hold: Vec<IpAddr>,
        /// Addresses to hold no longer.
        release: Vec<IpAddr>,
    },
    /// Hold less.
    Release(Vec<IpAddr>),
}

/// What was granted, and what the kernel was told.
#[derive(Debug)]
pub(crate) struct Rhythm {
    grants: BTreeMap<IpAddr, BootTime>,
    held: BTreeSet<IpAddr>,
    /// The clock, read after the commit that made `live`; none if it may have expired.
    since: Option<BootTime>,
    /// How long the element lives: L.
    life: Duration,
    /// How long after `since` a refresh that is decided now may keep an address passing: 2L.
    reach: Duration,
}

impl Rhythm {
    /// Nothing is granted, and the kernel knows nothing. An element lives for `life`.
    pub(crate) fn new(life: Duration) -> Rhythm {
        let (grants, held) = (BTreeMap::new(), BTreeSet::new());
        Rhythm { grants, held, since: None, life, reach: 2 * life }
    }

    /// An element that is made from now on lives for so long. The one that is there ends sooner or later than that by now:
    /// it counts as expired.
    pub(crate) fn set_life(&mut self, life: Duration) {
        (self.life, self.reach, self.since) = (life, 2 * life, None);
    }

    /// How long the element lives.
    pub(crate) fn life(&self) -> Duration {
        self.life
    }

    fn pace(&self) -> Duration {
        self.life / PACE
    }

    /// Notes that `address` is granted until `deadline`.
    pub(crate) fn grant(&mut self, address: IpAddr, deadline: BootTime) {
        self.grants.insert(address, deadline);
    }

    /// Notes that none of `addresses` is granted, and says what that takes at once.
    pub(crate) fn revoke<'a>(
        &mut self,
        addresses: impl IntoIterator<Item = &'a IpAddr>,
    ) -> Option<Change> {
        let mut held = Vec::new();
        for address in addresses {
            self.grants.remove(address);
            held.extend(self.held.get(address).copied());
        }
        (!held.is_empty()).then_some(Change::Release(held))
    }

    /// Every address that is granted or held.
    pub(crate) fn known(&self) -> BTreeSet<IpAddr> {
        self.grants.keys().chain(&self.held).copied().collect()
    }

    /// The transaction that is due at `now`.
    pub(crate) fn due(&self, now: BootTime) -> Option<Change> {
        let Some(since) = self.since.filter(|since| now < since.after(self.life)) else {
            return self.grants.values().any(|&grant| now < grant).then_some(Change::Start);
        };
        let reach = since.after(self.reach);
        let able: BTreeSet<_> =
            self.grants.iter().filter(|&(_, &grant)| reach <= grant).map(|(&x, _)| x).collect();
        if able == self.held && (able.is_empty() || now < since.after(self.pace())) {
            return None;
        }
        let hold = able.difference(&self.held).copied().collect();
        let release = self.held.difference(&able).copied().collect();
        Some(Change::Refresh { hold, release })
    }

    /// When `due` is to be asked again if nothing is granted or revoked before.
    pub(crate) fn next(&self, now: BootTime) -> Option<BootTime> {
        match self.since {
            Some(since) if !self.held.is_empty() => Some(since.after(self.pace())),
            None if !self.grants.is_empty() => Some(now.after(self.pace())),
            _ => None,
        }
    }

    /// Notes that `change` was committed, with the clock read after it.
    pub(crate) fn committed(&mut self, change: &Change, after: BootTime) {
        match change {
            Change::Start => {
                self.held.clear();
                self.since = Some(after);
            }
            Change::Refresh { hold, release } => {
                self.held.extend(hold);
                self.held.retain(|address| !release.contains(address));
                self.since = Some(after);
            }
            Change::Release(addresses) => self.held.retain(|address| !addresses.contains(address)),
        }
        self.grants.retain(|_, grant| after < *grant);
    }

    /// Notes that it is not known whether `change` was committed. Nothing passes for long, and all starts anew.
    pub(crate) fn refused(&mut self, change: &Change) {
        if let Change::Refresh { hold, .. } = change {
            self.held.extend(hold);
        }
        self.since = None;
    }
}

#[cfg(test)]
#[path = "rhythm_tests.rs"]
mod tests;
