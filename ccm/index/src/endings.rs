//! Owns which Services and EipBindings the watch has shown the end of lately: an answer that was on its way meanwhile, of
//! a write or a read, brings none of them back. Nobody forgets those of another namespace for many of one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So many of a namespace are remembered, the latest: answers are late by seconds.
const MOST: usize = 1024;
/// And so many in all, of which the namespace with the most gives up its oldest.
const MOST_OF_ALL: usize = 16 * MOST;

/// The uids of those that are gone, by namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Endings {
    of: BTreeMap<String, Ended>,
    count: usize,
}

/// Those of one namespace. Never empty.
#[derive(Clone, Debug, Default)]
struct Ended {
    uids: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Endings {
    /// The watch shows that it is gone.
    pub(super) fn note(&mut self, namespace: &str, uid: &str) {
        let ended = self.of.entry(namespace.to_owned()).or_default();
        if !ended.uids.insert(uid.to_owned()) {
            return;
        }
        ended.order.push_back(uid.to_owned());
        self.count += 1;
        if ended.order.len() > MOST {
            self.forget_oldest(namespace);
        } else if self.count > MOST_OF_ALL {
            let most = self.of.iter().max_by_key(|(_, ended)| ended.order.len());
            let most = most.map(|(namespace, _)| namespace.clone());
            most.iter().for_each(|namespace| self.forget_oldest(namespace));
        }
    }

    fn forget_oldest(&mut self, namespace: &str) {
        let oldest = self.of.get(namespace).and_then(|ended| ended.order.front().cloned());
        oldest.iter().for_each(|uid| self.undo(namespace, uid));
    }

    /// The watch shows it after all, as of a server that was behind.
    pub(super) fn undo(&mut self, namespace: &str, uid: &str) {
        let Some(ended) = self.of.get_mut(namespace) else { return };
        if !ended.uids.remove(uid) {
            return;
        }
        self.count -= 1;
        // It is the first of them if it makes room.
        match ended.order.front().is_some_and(|first| first == uid) {
            true => _ = ended.order.pop_front(),
            false => ended.order.retain(|other| other != uid),
        }
        if ended.order.is_empty() {
            self.of.remove(namespace);
        }
    }

    /// Whether it is known to be gone.
    pub(super) fn has(&self, namespace: &str, uid: &str) -> bool {
        self.of.get(namespace).is_some_and(|ended| ended.uids.contains(uid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_thousands_the_latest_are_remembered() {
        let mut endings = Endings::default();
        for number in 0..2 * MOST {
            endings.note("d", &number.to_string());
            endings.note("d", &number.to_string());
        }
        assert!(!endings.has("d", "0") && endings.has("d", &MOST.to_string()));
        assert_eq!((endings.of["d"].uids.len(), endings.of["d"].order.len()), (MOST, MOST));
        endings.undo("d", "2000");
        assert!(!endings.has("d", "2000") && endings.count == MOST - 1);
    }

    #[test]
    fn who_deletes_thousands_has_none_of_another_namespace_forgotten() {
        let mut endings = Endings::default();
        endings.note("alice", "web");
        for number in 0..MOST + 100 {
            endings.note("mallory", &number.to_string());
        }
        assert!(endings.has("alice", "web") && !endings.has("mallory", "0"));
        // Nor by many namespaces.
        for namespace in 0..2 * MOST_OF_ALL / MOST {
            for number in 0..MOST {
                endings.note(&format!("m{namespace}"), &number.to_string());
            }
        }
        assert!(endings.has("alice", "web"));
        let count: usize = endings.of.values().map(|ended| ended.order.len()).sum();
        assert_eq!((count, endings.count), (MOST_OF_ALL, MOST_OF_ALL));
        endings.undo("alice", "web");
        assert!(!endings.has("alice", "web") && !endings.of.contains_key("alice"));
    }
}
