//! Writes that another writer's came before. Who has seen what came between goes on at once, and one that is overtaken again
//! and again is tried ever more rarely like any other. Pure.

use std::collections::BTreeMap;

use crate::vip::Name;

/// How often in a row somebody goes on at once.
const OFTEN: u8 = 3;

/// The objects whose last write was overtaken: the version that it went by, and how often in a row.
#[derive(Debug, Default)]
pub(super) struct Overtaken(BTreeMap<Name, (String, u8)>);

impl Overtaken {
    /// A write by this version was overtaken.
    pub(super) fn note(&mut self, name: &Name, version: &str) {
        let (of, count) = self.0.entry(name.clone()).or_default();
        (*of, *count) = (version.to_owned(), count.saturating_add(1));
    }

    /// A write has ended in another way.
    pub(super) fn end(&mut self, name: &Name) {
        self.0.remove(name);
    }

    /// Whether to write at once, since this version is news to who was overtaken.
    pub(super) fn may_go_on(&self, name: &Name, version: &str) -> bool {
        let of = self.0.get(name);
        of.is_some_and(|(before, count)| before != version && *count <= OFTEN)
    }

    /// Forgets every object that does not pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Name) -> bool) {
        self.0.retain(|name, _| keep(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_overtaken_goes_on_once_it_has_seen_by_what_but_not_without_end() {
        let (mut overtaken, name) = (Overtaken::default(), Name::new("d", "vm"));
        assert!(!overtaken.may_go_on(&name, "1"), "nobody came before");
        for version in ["1", "2", "3"] {
            overtaken.note(&name, version);
            assert!(!overtaken.may_go_on(&name, version), "it would be overtaken again");
            assert!(overtaken.may_go_on(&name, "9"));
        }
        overtaken.note(&name, "4");
        assert!(!overtaken.may_go_on(&name, "9"), "too often");
        overtaken.end(&name);
        overtaken.note(&name, "5");
        assert!(overtaken.may_go_on(&name, "9"));
    }
}
