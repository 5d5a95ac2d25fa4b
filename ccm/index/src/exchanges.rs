//! Owns who was given another address lately, because another host answers for the one that it had: each at most once a
//! minute, and at most one of each family.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_ipam::Family;

use crate::claimant::Id;

/// How long a claimant that was given another address waits for the next one.
pub(super) const PAUSE: Duration = Duration::from_secs(60);

/// So many are remembered; beyond that everybody waits, for to forget one would let it go on.
const MOST: usize = 4096;

/// When claimants were last given another address of a family, for a minute each.
#[derive(Clone, Debug, Default)]
pub(super) struct Exchanges(BTreeMap<(Id, Family), Duration>);

impl Exchanges {
    /// The claimant is to be given another address of the family.
    ///
    /// # Errors
    /// When it was not a minute ago: from when on it may be.
    pub(super) fn begin(&mut self, id: &Id, family: Family, now: Duration) -> Result<(), Duration> {
        let key = (id.clone(), family);
        self.0.retain(|_, since| *since + PAUSE > now);
        if let Some(since) = self.0.get(&key) {
            return Err(*since + PAUSE);
        }
        if self.0.len() >= MOST {
            let first = self.0.values().min().copied().unwrap_or(now);
            return Err(first + PAUSE);
        }
        self.0.insert(key, now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use berth_api::NamespacedName;

    use super::*;

    fn id(number: usize) -> Id {
        let (namespace, name) = ("shop".to_owned(), format!("web-{number}"));
        Id::service(&NamespacedName { namespace, name })
    }

    #[test]
    fn each_waits_for_a_minute_and_everybody_where_too_many_are_remembered() {
        let (mut exchanges, v4) = (Exchanges::default(), Family::V4);
        let second = Duration::from_secs;
        assert_eq!(exchanges.begin(&id(0), v4, second(5)), Ok(()));
        assert_eq!(exchanges.begin(&id(0), Family::V6, second(6)), Ok(()));
        assert_eq!(exchanges.begin(&id(0), v4, second(64)), Err(second(65)));
        for number in 1..MOST - 1 {
            assert_eq!(exchanges.begin(&id(number), v4, second(20)), Ok(()));
        }
        assert_eq!(exchanges.begin(&id(MOST), v4, second(30)), Err(second(65)));
        assert_eq!(exchanges.0.len(), MOST);
        assert_eq!(exchanges.begin(&id(0), v4, second(65)), Ok(()));
        assert_eq!(exchanges.begin(&id(MOST), v4, second(80)), Ok(()));
        assert_eq!(exchanges.0.len(), 2, "what is over is forgotten");
    }
}
