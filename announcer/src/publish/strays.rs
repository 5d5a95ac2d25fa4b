//! When this node takes out of a status what is not its own to show and nobody who decides on the Service does. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::source::cluster::Name;

/// For so long a status that was cleared is remembered, so that who writes it again is contested.
const REMEMBERED: Duration = Duration::from_secs(900);

/// Statuses that show what is not theirs to show.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// When this node is to clear them, unless that is done by then.
    due: BTreeMap<Name, Instant>,
    /// When it did so last.
    cleared: BTreeMap<Name, Instant>,
}

impl Strays {
    /// Takes in which Services this node is to clear, and after how long. Gives those whose time has come.
    pub(super) fn see(
        &mut self,
        clears: &BTreeMap<Name, Duration>,
        now: Instant,
    ) -> BTreeSet<Name> {
        self.due.retain(|name, _| clears.contains_key(name));
        for (name, patience) in clears {
            let due = self.due.entry(name.clone()).or_insert(now + *patience);
            *due = (*due).min(now + *patience);
        }
        self.cleared.retain(|_, at| now < *at + REMEMBERED);
        let due: BTreeSet<Name> =
            self.due.iter().filter(|(_, due)| **due <= now).map(|(name, _)| name.clone()).collect();
        self.cleared.extend(due.iter().map(|name| (name.clone(), now)));
        due
    }

    /// Those that this node has cleared lately.
    pub(super) fn cleared(&self) -> impl Iterator<Item = &Name> {
        self.cleared.keys()
    }

    /// When the next one is due.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.due.values().copied().filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_decides_has_some_time_and_who_has_the_address_none() {
        let (mut strays, now, second) = (Strays::default(), Instant::now(), Duration::from_secs(1));
        let name = Name::new("d", "web");
        let after = |seconds| BTreeMap::from([(name.clone(), second * seconds)]);
        assert!(strays.see(&after(3), now).is_empty());
        assert_eq!(strays.deadline(now), Some(now + second * 3));
        assert!(strays.see(&after(3), now + second).is_empty(), "it does not begin anew");
        assert_eq!(strays.see(&after(0), now + second).len(), 1);
        assert!(strays.see(&BTreeMap::new(), now + second * 2).is_empty());
        assert_eq!((strays.cleared().count(), strays.deadline(now)), (1, None));
        assert!(strays.see(&after(3), now + second * 2).is_empty(), "it is shown again");
        assert_eq!(strays.see(&after(3), now + second * 5).len(), 1);
    }
}
