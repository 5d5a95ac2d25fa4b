//! What one peer is to know, what it knows, and what it is to be told next (the Adj-RIB-Out of RFC 4271 §3.2).
//!
//! What is wanted may change faster than a peer reads: of each prefix the last word alone is sent. Routes come before
//! withdrawals, so that what takes the place of another is there before that goes; the end of a family comes behind all
//! of its routes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::attributes::Attributes;
use crate::prefix::{Family, Prefix};
use crate::wire::{self, Path};

/// Routes, each with what is said about it. Those that are treated alike share that.
pub type Routes = BTreeMap<Prefix, Arc<Attributes>>;

/// More prefixes than fit into a message.
const MOST: usize = 2048;

/// What goes into one message: routes with the same attributes, and then withdrawals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Batch {
    Announce(Family, Arc<Attributes>),
    Withdraw(Family),
}

/// The routes of one peer.
#[derive(Debug, Default)]
pub(crate) struct Rib {
    wanted: Routes,
    /// What the peer has been told since the session is up.
    told: Routes,
    queue: BTreeMap<Batch, BTreeSet<Prefix>>,
    queued: BTreeMap<Prefix, Batch>,
    /// Families that are spoken, and whether their end is still to be told.
    families: BTreeMap<Family, bool>,
    /// Those of them of which routes lead somewhere; of the others none is announced.
    leading: BTreeSet<Family>,
    /// Families of which the peer is to have all routes again.
    again: BTreeSet<Family>,
    /// Routes that it is to have again although it has them: until they are sent they are still to be withdrawn.
    stale: BTreeSet<Prefix>,
}

impl Rib {
    /// From now on these routes are wanted, and no others.
    pub(crate) fn replace(&mut self, routes: Routes) {
        let before = std::mem::replace(&mut self.wanted, routes);
        let same = |prefix: &Prefix, attributes| self.wanted.get(prefix) == Some(attributes);
        let gone = before.iter().filter(|(prefix, attributes)| !same(prefix, attributes));
        let mut changed: BTreeSet<Prefix> = gone.map(|(prefix, _)| *prefix).collect();
        changed.extend(self.wanted.keys().filter(|prefix| !before.contains_key(prefix)));
        changed.into_iter().for_each(|prefix| self.enqueue(prefix));
    }

    /// From now on this route is wanted, or none for the prefix.
    pub(crate) fn set(&mut self, prefix: Prefix, attributes: Option<Arc<Attributes>>) {
        match attributes {
            Some(attributes) => self.wanted.insert(prefix, attributes),
            None => self.wanted.remove(&prefix),
        };
        self.enqueue(prefix);
    }

    /// A session is up: the peer knows nothing. The end of each family is told where the peer waits for it, of those without a
    /// route that leads anywhere as well: what it has kept of these goes with it.
    pub(crate) fn up(
        &mut self,
        families: impl IntoIterator<Item = Family>,
        leading: BTreeSet<Family>,
        ends: bool,
    ) {
        self.down();
        self.families = families.into_iter().map(|family| (family, ends)).collect();
        self.leading = leading;
        let all: Vec<Prefix> = self.wanted.keys().copied().collect();
        all.into_iter().for_each(|prefix| self.enqueue(prefix));
    }

    /// From now on routes of these families lead somewhere, and of no others; those of `moved` to somewhere else, which the peer is
    /// told.
    pub(crate) fn lead(&mut self, leading: BTreeSet<Family>, moved: &BTreeSet<Family>) {
        let before = std::mem::replace(&mut self.leading, leading);
        let others: Vec<Family> = before.symmetric_difference(&self.leading).copied().collect();
        let known = self.wanted.keys().chain(self.told.keys());
        let changed: BTreeSet<Prefix> =
            known.filter(|prefix| others.contains(&prefix.family())).copied().collect();
        changed.into_iter().for_each(|prefix| self.enqueue(prefix));
        let still = moved.intersection(&before).filter(|family| self.leading.contains(family));
        self.again.extend(still);
    }

    /// The session is over.
    pub(crate) fn down(&mut self) {
        self.told.clear();
        self.queue.clear();
        self.queued.clear();
        self.families.clear();
        self.leading.clear();
        self.again.clear();
        self.stale.clear();
    }

    /// The peer wants all routes of a family again. However often it asks meanwhile, it has them once, and not before it has
    /// read what waits for it.
    pub(crate) fn refresh(&mut self, family: Family) {
        if self.families.contains_key(&family) {
            self.again.insert(family);
        }
    }

    fn begin_again(&mut self, family: Family) {
        let of_family = self.told.keys().filter(|prefix| prefix.family() == family);
        let again: Vec<Prefix> = of_family.copied().collect();
        self.stale.extend(again.iter().copied());
        again.into_iter().for_each(|prefix| self.enqueue(prefix));
    }

    /// Puts a prefix where it belongs now: into one batch, or none if the peer knows it as it is wanted.
    fn enqueue(&mut self, prefix: Prefix) {
        if let Some(batch) = self.queued.remove(&prefix) {
            self.leave(&batch, prefix);
        }
        let family = prefix.family();
        if !self.families.contains_key(&family) {
            return;
        }
        let wanted = self.wanted.get(&prefix).filter(|_| self.leading.contains(&family));
        let batch = match (wanted, self.told.get(&prefix)) {
            (wanted, told) if wanted == told && !self.stale.contains(&prefix) => return,
            (Some(attributes), _) => Batch::Announce(family, Arc::clone(attributes)),
            (None, _) => Batch::Withdraw(family),
        };
        self.queue.entry(batch.clone()).or_default().insert(prefix);
        self.queued.insert(prefix, batch);
    }

    fn leave(&mut self, batch: &Batch, prefix: Prefix) {
        if let Some(prefixes) = self.queue.get_mut(batch) {
            prefixes.remove(&prefix);
            if prefixes.is_empty() {
                self.queue.remove(batch);
            }
        }
    }

    /// Appends the next message; false where the peer has been told everything.
    pub(crate) fn next(&mut self, path: &Path, out: &mut Vec<u8>) -> bool {
        while let Some(family) = self.again.pop_first() {
            self.begin_again(family);
        }
        if let Some(family) = self.ended() {
            self.families.insert(family, false);
            wire::end_of_rib(out, family);
            return true;
        }
        let Some((batch, prefixes)) = self.queue.first_key_value() else { return false };
        let (batch, prefixes): (_, Vec<_>) =
            (batch.clone(), prefixes.iter().take(MOST).copied().collect());
        let count = match &batch {
            Batch::Announce(family, attributes) => {
                wire::announce(out, path, attributes, *family, &prefixes)
            }
            Batch::Withdraw(family) => wire::withdraw(out, path, *family, &prefixes),
        };
        for prefix in &prefixes[..count] {
            self.queued.remove(prefix);
            self.leave(&batch, *prefix);
            self.stale.remove(prefix);
            match &batch {
                Batch::Announce(_, attributes) => self.told.insert(*prefix, Arc::clone(attributes)),
                Batch::Withdraw(_) => self.told.remove(prefix),
            };
        }
        true
    }

    /// A family whose end is to be told and of which no route is left to be.
    fn ended(&self) -> Option<Family> {
        let routes_left = |family: &Family| {
            let first = Batch::Announce(*family, Arc::default());
            let next = self.queue.range(first..).next();
            next.is_some_and(|(batch, _)| matches!(batch, Batch::Announce(of, _) if of == family))
        };
        let mut waiting =
            self.families.iter().filter(|(_, waits)| **waits).map(|(family, _)| *family);
        waiting.find(|family| !routes_left(family))
    }

    /// Whether the peer has been told everything, ends too.
    pub(crate) fn is_told(&self) -> bool {
        let told = self.queue.is_empty() && self.again.is_empty();
        told && self.families.values().all(|waits| !waits)
    }

    /// How many routes of a family the peer has been told.
    pub(crate) fn told(&self, family: Family) -> usize {
        self.told.keys().filter(|prefix| prefix.family() == family).count()
    }

    /// Whether the peer has been told of a route as it is wanted now.
    pub(crate) fn knows(&self, prefix: Prefix) -> bool {
        let told = self.told.get(&prefix);
        told.is_some() && told == self.wanted.get(&prefix) && !self.stale.contains(&prefix)
    }
}

#[cfg(test)]
mod tests;
