//! Which voters do not answer, as it is told to objects: each change is a write to each Service that is silent. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_membership::Moment;

/// Who has not answered for so long is told of: sooner than anything else is told of what nobody grants.
pub(super) const AFTER: Duration = Duration::from_millis(1_500);

/// A change of who it is is told so long after the last one.
const APART: Duration = Duration::from_secs(10);

/// What was told, and what was seen last.
#[derive(Debug, Default)]
pub(super) struct Unheard {
    names: BTreeSet<String>,
    told: Option<Moment>,
    seen: BTreeSet<String>,
}

impl Unheard {
    /// Takes in who does not answer now. Gives it where it is to be told.
    pub(super) fn see(&mut self, names: BTreeSet<String>, now: Moment) -> Option<BTreeSet<String>> {
        // That there are some, or none any more, is told at once; some only as two looks see them: voters that are cut off
        // together fall silent one after the other, and those that were left out would not be named for long.
        let is_settled = names.is_empty() || self.seen == names;
        let is_first = self.names.is_empty() != names.is_empty();
        let is_due = is_first || self.told.is_none_or(|told| now.since(told) >= APART);
        self.seen.clone_from(&names);
        if self.names == names || !is_due || !is_settled {
            return None;
        }
        (self.names, self.told) = (names.clone(), Some(now));
        Some(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_does_not_answer_is_told_once_it_is_clear_and_changes_of_it_seldom() {
        let mut unheard = Unheard::default();
        let mut see = |names: &[&str], seconds: u64| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            let told = unheard.see(names, Moment::from_nanos(0) + Duration::from_secs(seconds));
            told.map(|told| told.into_iter().collect::<Vec<_>>().join(" "))
        };
        let told = |names: &str| Some(names.to_owned());
        assert_eq!(see(&[], 0), None);
        assert_eq!(see(&["b"], 1), None, "others may follow");
        assert_eq!(see(&["b"], 1), told("b"));
        assert_eq!(see(&["b"], 2), None);
        let flapping = (2..11)
            .filter_map(|second| see(if second % 2 == 0 { &["b", "c"] } else { &["b"] }, second));
        assert_eq!(flapping.count(), 0);
        assert_eq!(see(&["b", "c"], 11), told("b c"), "seen at second 10 as well");
        assert_eq!(see(&[], 12), told(""));
        assert_eq!(see(&["c"], 13), None);
        assert_eq!(see(&["b", "c"], 13), None, "cut off together, one a moment later");
        assert_eq!(see(&["b", "c"], 13), told("b c"));
    }
}
