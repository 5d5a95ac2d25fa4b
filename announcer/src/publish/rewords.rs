//! How seldom a Service is told the same in other words. These may be those of another: who has its namespace pause, or who
//! holds a Lease that a thousand name; one edit there would have all of them written again. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::status::Update;
use crate::vip::Name;

/// So often at most, and the first time at once.
pub(super) const SELDOM: Duration = Duration::from_secs(60);

/// When Services were last told the same in other words.
#[derive(Debug, Default)]
pub(super) struct Rewords(BTreeMap<Name, Instant>);

impl Rewords {
    /// Whether it may be written: nobody waits for what does not change more than words.
    pub(super) fn may(&self, update: &Update, now: Instant) -> bool {
        !update.rewords() || self.0.get(&update.name).is_none_or(|said| *said + SELDOM <= now)
    }

    /// It is written.
    pub(super) fn wrote(&mut self, update: &Update, now: Instant) {
        self.0.retain(|_, said| now < *said + SELDOM);
        if update.rewords() {
            self.0.insert(update.name.clone(), now);
        }
    }

    /// When one may be written that may not be now.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.0.values().map(|said| *said + SELDOM).filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::status::{Answering, Removals, updates};
    use super::*;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::service;
    use crate::source::testing::{host, seen};
    use crate::vip::{Claimant, Refusal, Verdict};

    /// What is written of a Service that is told of `by`, and of nothing else where it shows `reason`.
    fn told(by: &str, reason: &str) -> Update {
        let (mut cluster, name) = (Cluster::default(), Name::new("d", "web"));
        let address = "192.0.2.1".parse().unwrap();
        let mut web = service(&["192.0.2.1"]);
        let said = serde_json::json!({
            "type": "berth.dev/Announced", "status": "False", "reason": reason, "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        });
        web.conditions.push(serde_json::from_value(said).unwrap());
        cluster.apply_service(name.clone(), web);
        let by = Claimant::Service(Name::new("d", by));
        let refusal = Refusal::NotServedTogether { address, by };
        let verdicts = [(name, Verdict::default())].into();
        let nobody = BTreeSet::new();
        let removals = Removals { clears: &nobody, stuck: &nobody };
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let lasting = |_: &Name| vec![&refusal];
        let answering = Answering::default();
        let all = updates(&cluster, &wanted, &verdicts, removals, lasting, &answering, "a");
        all.into_iter().next().unwrap()
    }

    #[test]
    fn other_words_for_the_same_are_written_once_a_minute_and_whatever_else_at_once() {
        let (mut rewords, now) = (Rewords::default(), Instant::now());
        let same = |by| told(by, "NotServedTogether");
        assert!(rewords.may(&same("x"), now));
        rewords.wrote(&same("x"), now);
        let next = now + Duration::from_secs(59);
        assert!(!rewords.may(&same("y"), next));
        assert_eq!(rewords.deadline(next), Some(now + SELDOM));
        assert!(rewords.may(&told("y", "NoEndpoint"), next), "another reason is news");
        rewords.wrote(&told("y", "NoEndpoint"), next);
        assert!(rewords.may(&same("y"), now + SELDOM));
        assert_eq!(rewords.deadline(now + SELDOM), None);
    }
}
