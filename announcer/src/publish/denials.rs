//! Writes that the API server refuses, as it refuses an annotation on an object that is full. It will again, so they are
//! tried ever more rarely, and the object is told why, once. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_api::reason;
use berth_runtime::events::{Report, Severity};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::vip::Name;

/// The first pause and the longest.
const FIRST: Duration = Duration::from_secs(5);
const LONGEST: Duration = Duration::from_secs(300);

/// The objects whose status is refused.
#[derive(Debug, Default)]
pub(super) struct Denials {
    of: BTreeMap<Name, Denial>,
}

#[derive(Debug)]
struct Denial {
    uid: String,
    /// The version that was refused: a later one may be taken.
    version: String,
    count: u32,
    due: Instant,
}

impl Denials {
    /// Whether an object may be written: it was not refused, or has changed since, or some time has passed.
    pub(super) fn allow(&self, name: &Name, uid: &str, version: &str, now: Instant) -> bool {
        self.of.get(name).is_none_or(|denial| {
            denial.uid != uid || denial.version != version || denial.due <= now
        })
    }

    /// Takes in that it was refused. True if that is news.
    pub(super) fn deny(&mut self, name: &Name, uid: &str, version: &str, now: Instant) -> bool {
        let known = self.of.get(name).filter(|denial| denial.uid == uid);
        let count = known.map_or(0, |denial| denial.count);
        let due = now + FIRST.saturating_mul(1 << count.min(16)).min(LONGEST);
        let (uid, version) = (uid.to_owned(), version.to_owned());
        self.of.insert(name.clone(), Denial { uid, version, count: count + 1, due });
        count == 0
    }

    /// Takes in that it was written.
    pub(super) fn end(&mut self, name: &Name) {
        self.of.remove(name);
    }

    /// Forgets every object that does not pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Name) -> bool) {
        self.of.retain(|name, _| keep(name));
    }

    /// When one may be tried again that has not changed.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.of.values().map(|denial| denial.due).filter(|due| *due > now).min()
    }
}

/// Tells an object that its status is not written.
pub(super) fn denied(regarding: ObjectReference, why: &str) -> Report {
    Report {
        regarding,
        severity: Severity::Warning,
        reason: reason::WRITE_REFUSED,
        action: "Publish",
        note: format!(
            "the API server refuses what is to be written into the status: {why}; it is tried again ever more rarely, and \
             at once when this object changes"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_is_news_once_and_tried_ever_more_rarely_until_the_object_changes() {
        let (mut denials, mut now) = (Denials::default(), Instant::now());
        let name = Name::new("d", "web");
        let begin = now;
        let mut told = 0;
        let mut tries = 0;
        while now < begin + Duration::from_secs(3600) {
            if denials.allow(&name, "u", "7", now) {
                tries += 1;
                told += u32::from(denials.deny(&name, "u", "7", now));
            }
            now += Duration::from_secs(1);
        }
        assert!((5..20).contains(&tries), "{tries}");
        assert_eq!(told, 1);
        assert!(denials.allow(&name, "u", "8", now) && denials.allow(&name, "v", "7", now));
        assert!(!denials.deny(&name, "u", "8", now), "told before");
        denials.end(&name);
        assert!(denials.deny(&name, "u", "9", now), "was written in between");
    }
}
