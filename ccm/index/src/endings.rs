//! Owns which Services and EipBindings the watch has shown the end of lately: an answer that was on its way meanwhile, of
//! a write or a read, brings none of them back.

use std::collections::{BTreeSet, VecDeque};

/// So many are remembered, the latest: answers are late by seconds.
const MOST: usize = 1024;

/// The uids of those that are gone.
#[derive(Clone, Debug, Default)]
pub(super) struct Endings {
    of: BTreeSet<String>,
    order: VecDeque<String>,
}

impl Endings {
    /// The watch shows that it is gone.
    pub(super) fn note(&mut self, uid: &str) {
        if self.of.insert(uid.to_owned()) {
            self.order.push_back(uid.to_owned());
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.of.remove(&oldest);
        }
    }

    /// The watch shows it after all, as of a server that was behind.
    pub(super) fn undo(&mut self, uid: &str) {
        if self.of.remove(uid) {
            self.order.retain(|other| other != uid);
        }
    }

    /// Whether it is known to be gone.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.of.contains(uid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_thousands_the_latest_are_remembered() {
        let mut endings = Endings::default();
        for number in 0..2 * MOST {
            endings.note(&number.to_string());
            endings.note(&number.to_string());
        }
        assert!(!endings.has("0") && endings.has(&MOST.to_string()));
        assert_eq!((endings.of.len(), endings.order.len()), (MOST, MOST));
        endings.undo("2000");
        assert!(!endings.has("2000") && endings.order.len() == MOST - 1);
    }
}
