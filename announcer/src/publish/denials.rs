//! Writes that the API server refuses, as it refuses an annotation on an object that is full. It will again, so they are
//! tried ever more rarely, and the object is told why, once. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use berth_api::reason;
use berth_runtime::events::{Report, Severity};
use k8s_openapi::api::core::v1::ObjectReference;

use crate::backoff::Backoff;
use crate::vip::Name;

/// The first pause and the longest. An API server that has just begun refuses for a moment what its roles grant.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// The objects whose status is refused.
#[derive(Debug)]
pub(super) struct Denials {
    pauses: Backoff<Name>,
    /// The uid and the version that was refused: another one may be taken.
    of: BTreeMap<Name, (String, String)>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { pauses: Backoff::new(FIRST, LONGEST), of: BTreeMap::new() }
    }
}

impl Denials {
    /// Whether an object may be written: it was not refused, or has changed since, or some time has passed.
    pub(super) fn allow(&self, name: &Name, uid: &str, version: &str, now: Instant) -> bool {
        let refused = self.of.get(name).is_some_and(|(u, v)| u == uid && v == version);
        !refused || self.pauses.is_due(name, now)
    }

    /// Takes in that it was refused. True if that is news.
    pub(super) fn deny(&mut self, name: &Name, uid: &str, version: &str, now: Instant) -> bool {
        let before = self.of.insert(name.clone(), (uid.to_owned(), version.to_owned()));
        let is_news = before.is_none_or(|(before, _)| before != uid);
        if is_news {
            self.pauses.retain(|other| other != name);
        }
        self.pauses.again(name.clone(), now);
        is_news
    }

    /// Takes in that it was written. True if its object was told that it is not.
    pub(super) fn end(&mut self, name: &Name, uid: &str) -> bool {
        let Some((told, _)) = self.of.remove(name) else { return false };
        self.pauses.retain(|other| other != name);
        told == uid
    }

    /// Forgets every object that does not pass.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Name) -> bool) {
        self.of.retain(|name, _| keep(name));
        self.pauses.retain(|name| self.of.contains_key(name));
    }

    /// When one may be tried again that has not changed.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.pauses.deadline(now)
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

/// Tells it that it is by now.
pub(super) fn accepted(regarding: ObjectReference) -> Report {
    Report {
        regarding,
        severity: Severity::Normal,
        reason: reason::WRITE_ACCEPTED,
        action: "Publish",
        note: "the API server takes what is to be written into the status, which it refused before"
            .to_owned(),
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
        assert!((5..=20).contains(&tries), "{tries}");
        assert_eq!(told, 1);
        assert!(denials.allow(&name, "u", "8", now) && denials.allow(&name, "v", "7", now));
        assert!(!denials.deny(&name, "u", "8", now), "told before");
        assert!(denials.end(&name, "u") && !denials.end(&name, "u"), "its end is told once");
        assert!(denials.deny(&name, "u", "9", now), "was written in between");
        assert!(!denials.end(&name, "v"), "another object was told");
    }
}
