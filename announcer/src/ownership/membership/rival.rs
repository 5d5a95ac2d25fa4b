//! The Lease of the other election: while somebody renews it, an announcer that goes by Leases (an older Berth in the
//! middle of an upgrade, or kube-vip) holds the addresses. Pure.

use std::time::{Duration, Instant};

use berth_api::election::Sight;

use crate::vip::Name;

/// A Lease that names no duration (`leaseDurationSeconds`) lasts as long as kube-vip's default.
const DURATION: Duration = Duration::from_secs(15);

/// The Lease by which others may hold the addresses still, and what is known of it.
#[derive(Debug)]
pub(super) struct Rivalry {
    lease: Option<Name>,
    listed: bool,
    rival: Rival,
    /// Whether its holder was told of.
    told: bool,
}

impl Rivalry {
    /// Nothing is known of `lease`; where there is none, nobody else holds anything.
    pub(super) fn new(lease: Option<Name>) -> Self {
        let listed = lease.is_none();
        Self { lease, listed, rival: Rival::default(), told: false }
    }

    /// Takes in what the watch shows of a Lease; true if it is this one.
    pub(super) fn observe(&mut self, name: &Name, sight: &Sight, node: &str, now: Instant) -> bool {
        let is_it = self.lease.as_ref() == Some(name);
        if is_it {
            self.rival.observe(sight, node, now);
        }
        is_it
    }

    /// Takes in that every Lease was shown.
    pub(super) fn listed(&mut self) {
        self.listed = true;
    }

    /// Whether every Lease was shown.
    pub(super) fn is_listed(&self) -> bool {
        self.listed
    }

    /// Who holds it, and until when at least.
    pub(super) fn holds(&self, now: Instant) -> Option<(&str, Instant)> {
        self.rival.holds(now)
    }

    /// Whether somebody holds it; tells of each holder once.
    pub(super) fn keeps_back(&mut self, now: Instant) -> bool {
        let Some((holder, _)) = self.rival.holds(now) else {
            self.told = false;
            return false;
        };
        if !self.told
            && let Some(lease) = &self.lease
        {
            tracing::warn!(%lease, holder, "another announcer goes by this Lease still");
        }
        self.told = true;
        true
    }
}

/// Who holds the Lease of the other election.
#[derive(Clone, Debug, Default)]
struct Rival {
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
    fn observe(&mut self, sight: &Sight, node: &str, now: Instant) {
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
    fn holds(&self, now: Instant) -> Option<(&str, Instant)> {
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
