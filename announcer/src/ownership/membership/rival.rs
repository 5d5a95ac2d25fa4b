//! The Lease of the other election: while somebody renews it, an announcer that goes by Leases (an older Berth in the
//! middle of an upgrade, or kube-vip) holds the addresses. Pure.

use std::time::{Duration, Instant};

use berth_api::election::Sight;

/// A Lease that names no duration (`leaseDurationSeconds`) lasts as long as kube-vip's default.
const DURATION: Duration = Duration::from_secs(15);

/// Who holds the Lease of the other election.
#[derive(Clone, Debug, Default)]
pub(super) struct Rival {
    seen: Option<Seen>,
}

#[derive(Clone, Debug)]
struct Seen {
    holder: String,
    version: Option<String>,
    until: Instant,
}

impl Rival {
    /// Takes in what the watch shows. What this node holds itself is no rival's: there is one announcer on a node.
    pub(super) fn observe(&mut self, sight: &Sight, node: &str, now: Instant) {
        let Sight::Present(lease) = sight else {
            self.seen = None;
            return;
        };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        let Some(holder) = holder.filter(|holder| !holder.is_empty() && *holder != node) else {
            self.seen = None;
            return;
        };
        let version = lease.metadata.resource_version.clone();
        if self.seen.as_ref().is_some_and(|seen| seen.version == version) {
            return;
        }
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        // Counted from when it was seen to change, by our clock: nobody's wall clock is trusted.
        let until = now + duration.map_or(DURATION, Duration::from_secs);
        self.seen = Some(Seen { holder: holder.to_owned(), version, until });
    }

    /// Who holds it, and until when at least.
    pub(super) fn holds(&self, now: Instant) -> Option<(&str, Instant)> {
        let seen = self.seen.as_ref().filter(|seen| seen.until > now)?;
        Some((&seen.holder, seen.until))
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use serde_json::json;

    use super::*;

    fn sight(holder: &str, version: &str) -> Sight {
        let lease: Lease = serde_json::from_value(json!({
            "metadata": { "resourceVersion": version },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 5 },
        }))
        .unwrap();
        Sight::Present(Box::new(lease))
    }

    #[test]
    fn a_holder_counts_for_the_duration_of_its_lease_from_its_last_renewal() {
        let (mut rival, now) = (Rival::default(), Instant::now());
        let second = Duration::from_secs(1);
        rival.observe(&sight("b", "1"), "a", now);
        assert_eq!(rival.holds(now), Some(("b", now + second * 5)));
        rival.observe(&sight("b", "1"), "a", now + second * 3);
        assert_eq!(rival.holds(now + second * 5), None, "seen again is not renewed");
        rival.observe(&sight("b", "2"), "a", now + second * 6);
        assert!(rival.holds(now + second * 10).is_some());
    }

    #[test]
    fn a_lease_that_was_given_back_or_is_this_nodes_own_holds_up_nobody() {
        let (mut rival, now) = (Rival::default(), Instant::now());
        for sight in [sight("a", "1"), sight("", "2"), Sight::Absent] {
            rival.observe(&super::tests::sight("b", "0"), "a", now);
            rival.observe(&sight, "a", now);
            assert_eq!(rival.holds(now), None, "{sight:?}");
        }
    }
}
