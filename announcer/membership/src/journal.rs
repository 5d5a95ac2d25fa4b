//! Owns how a long list travels in short datagrams: the sender keeps a journal of versions, the receiver a replica.
//!
//! Guarantee: a replica that applied version v agrees with the journal on every key that is listed and whose last
//! change is not newer than v, whatever was lost, repeated or overtaken on the way. What it has beyond that, because
//! the journal forgot the removal, shows in the digest.

use std::collections::BTreeMap;

/// What can stand in a list: it knows its octets on the wire.
pub(crate) trait Item: Clone + PartialEq {
    fn put(&self, out: &mut Vec<u8>);
}

/// The changes that lead from one version to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Delta<K, V> {
    /// Can be applied by a replica that has this version or a later one.
    pub(crate) base: u64,
    /// The version the replica has afterwards.
    pub(crate) upto: u64,
    /// The newest version of the journal, and the digest of everything in it.
    pub(crate) latest: u64,
    pub(crate) digest: u64,
    pub(crate) changes: Vec<(K, Option<V>)>,
}

/// The sender's side.
#[derive(Clone, Debug)]
pub(crate) struct Journal<K, V> {
    entries: BTreeMap<K, (u64, Option<V>)>,
    order: BTreeMap<u64, K>,
    latest: u64,
    digest: u64,
    present: usize,
    memory: usize,
}

impl<K: Item + Ord + Copy, V: Item> Journal<K, V> {
    /// A journal that remembers at least `memory` removals.
    pub(crate) fn new(memory: usize) -> Self {
        let (entries, order) = (BTreeMap::new(), BTreeMap::new());
        Self { entries, order, latest: 0, digest: 0, present: 0, memory }
    }

    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    /// Notes the state of a key, and says under which version.
    pub(crate) fn set(&mut self, key: K, value: Option<V>) -> u64 {
        let old = self.entries.get(&key);
        match (old, &value) {
            (None, None) => return self.latest,
            (Some((version, had)), new) if had == new => return *version,
            _ => {}
        }
        if let Some((version, had)) = old {
            if let Some(had) = had {
                self.digest ^= fingerprint(&key, had);
                self.present -= 1;
            }
            self.order.remove(version);
        }
        if let Some(new) = &value {
            self.digest ^= fingerprint(&key, new);
            self.present += 1;
        }
        self.latest += 1;
        self.order.insert(self.latest, key);
        self.entries.insert(key, (self.latest, value));
        self.forget();
        self.latest
    }

    #[cfg(test)]
    fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key).and_then(|(_, value)| value.as_ref())
    }

    /// The changes after `base` in datagrams of at most `budget` octets of items, at most `burst` of them, at least
    /// one.
    pub(crate) fn deltas(&self, base: u64, budget: usize, burst: usize) -> Vec<Delta<K, V>> {
        let base = base.min(self.latest);
        let empty = |base, upto| Delta {
            base,
            upto,
            latest: self.latest,
            digest: self.digest,
            changes: Vec::new(),
        };
        let mut deltas = vec![empty(base, base)];
        let (mut octets, mut scratch) = (0, Vec::new());
        for (version, key) in self.order.range(base + 1..) {
            let (_, value) = &self.entries[key];
            scratch.clear();
            put_change(key, value.as_ref(), &mut scratch);
            let count = deltas.len();
            let last = &mut deltas[count - 1];
            if octets + scratch.len() > budget && !last.changes.is_empty() {
                if count == burst {
                    return deltas;
                }
                let mut next = empty(last.upto, *version);
                next.changes.push((*key, value.clone()));
                deltas.push(next);
                octets = scratch.len();
            } else {
                octets += scratch.len();
                last.upto = *version;
                last.changes.push((*key, value.clone()));
            }
        }
        if let Some(last) = deltas.last_mut() {
            last.upto = self.latest;
        }
        deltas
    }

    /// Keeps the removals within bounds, oldest out first. A replica that missed one of them finds the digest wrong and
    /// starts afresh.
    fn forget(&mut self) {
        let bound = self.memory.max(self.present);
        if self.entries.len() - self.present <= bound {
            return;
        }
        let gone = self.order.iter().filter(|(_, key)| self.entries[key].1.is_none());
        let old: Vec<_> = gone.take(bound / 2 + 1).map(|(version, key)| (*version, *key)).collect();
        for (version, key) in old {
            self.order.remove(&version);
            self.entries.remove(&key);
        }
    }
}

/// What a delta did to a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It brought the replica forward.
    Newer,
    /// Everything in it was known.
    Known,
    /// It begins after what the replica has, or the result is not what the sender has. Nothing may be built on it.
    Gap,
}

/// The receiver's side.
#[derive(Clone, Debug)]
pub(crate) struct Replica<K, V> {
    entries: BTreeMap<K, V>,
    applied: u64,
    digest: u64,
    complete: bool,
    diverged: bool,
}

impl<K: Item + Ord + Copy, V: Item> Replica<K, V> {
    pub(crate) fn new() -> Self {
        Self { entries: BTreeMap::new(), applied: 0, digest: 0, complete: false, diverged: false }
    }

    pub(crate) fn applied(&self) -> u64 {
        self.applied
    }

    /// Whether it had everything when it last heard from the journal.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Whether it has what the journal does not have.
    pub(crate) fn is_diverged(&self) -> bool {
        self.diverged
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.entries.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.entries.iter()
    }

    pub(crate) fn apply(&mut self, delta: &Delta<K, V>) -> Applied {
        if delta.base > self.applied || self.diverged {
            self.complete = false;
            return Applied::Gap;
        }
        if delta.upto <= self.applied {
            self.complete = self.applied >= delta.latest;
            return Applied::Known;
        }
        for (key, value) in &delta.changes {
            let old = match value {
                Some(value) => {
                    self.digest ^= fingerprint(key, value);
                    self.entries.insert(*key, value.clone())
                }
                None => self.entries.remove(key),
            };
            if let Some(old) = old {
                self.digest ^= fingerprint(key, &old);
            }
        }
        self.applied = delta.upto;
        self.complete = self.applied == delta.latest;
        if self.complete && self.digest != delta.digest {
            (self.complete, self.diverged) = (false, true);
            return Applied::Gap;
        }
        Applied::Newer
    }
}

/// The octets of a change.
pub(crate) fn put_change<K: Item, V: Item>(key: &K, value: Option<&V>, out: &mut Vec<u8>) {
    key.put(out);
    match value {
        None => out.push(0),
        Some(value) => {
            out.push(1);
            value.put(out);
        }
    }
}

/// FNV-1a over the octets of an entry; the digest of a list is the sum of all by exclusive or. It finds errors, it
/// does not withstand an attacker: the messages are authenticated.
fn fingerprint<K: Item, V: Item>(key: &K, value: &V) -> u64 {
    let mut octets = Vec::with_capacity(32);
    put_change(key, Some(value), &mut octets);
    octets.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    impl Item for u8 {
        fn put(&self, out: &mut Vec<u8>) {
            out.push(*self);
        }
    }

    fn agree(journal: &Journal<u8, u8>, replica: &Replica<u8, u8>) -> bool {
        (0..=u8::MAX).all(|key| journal.get(&key) == replica.get(&key))
    }

    proptest! {
        #[test]
        fn a_replica_agrees_on_all_it_applied_whatever_the_network_does(
            steps in prop::collection::vec((0u8..24, prop::option::of(0u8..4), 0u8..8, any::<prop::sample::Index>()), 1..300),
            budget in 2usize..30,
        ) {
            let mut journal = Journal::new(4);
            let mut replica = Replica::new();
            let mut wire: Vec<Delta<u8, u8>> = Vec::new();
            for (key, value, luck, which) in steps {
                journal.set(key, value);
                if luck < 4 {
                    wire.extend(journal.deltas(replica.applied(), budget, 3));
                }
                if luck > 2 && !wire.is_empty() {
                    let at = which.index(wire.len());
                    let delta = if luck == 7 { wire[at].clone() } else { wire.swap_remove(at) };
                    replica.apply(&delta);
                }
                for (version, key) in &journal.order {
                    if *version <= replica.applied() {
                        prop_assert_eq!(journal.get(key), replica.get(key));
                    }
                }
            }
            let mut afresh = 0;
            while replica.applied() < journal.latest() || replica.is_diverged() {
                for delta in journal.deltas(replica.applied(), budget, 3) {
                    if replica.apply(&delta) == Applied::Gap {
                        (replica, afresh) = (Replica::new(), afresh + 1);
                        break;
                    }
                }
                prop_assert!(afresh < 2, "an empty replica never has to start afresh");
            }
            prop_assert!(agree(&journal, &replica));
        }
    }

    #[test]
    fn a_replica_that_diverged_is_found_by_the_digest() {
        let mut journal = Journal::new(4);
        journal.set(1u8, Some(1u8));
        let mut delta = journal.deltas(0, 100, 1).remove(0);
        delta.changes[0].1 = Some(2);
        assert_eq!(Replica::new().apply(&delta), Applied::Gap);
    }

    #[test]
    fn removals_beyond_memory_are_forgotten_and_a_receiver_that_missed_one_learns_it() {
        let mut journal = Journal::new(4);
        journal.set(99u8, Some(0u8));
        let mut old = Replica::new();
        old.apply(&journal.deltas(0, 100, 1)[0]);
        journal.set(99, None);
        for key in 0..40u8 {
            journal.set(key, Some(0u8));
            journal.set(key, None);
        }
        assert!(journal.entries.len() <= 8);
        assert_eq!(old.apply(&journal.deltas(1, 100, 1)[0]), Applied::Gap);
        assert!(old.is_diverged());
    }
}
