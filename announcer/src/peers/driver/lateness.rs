//! What people are told of a node that is too busy for its leases.

use std::time::Duration;

use berth_membership::Moment;

/// A heartbeat that is later than this, or than half of the lease that it renews, is told of.
const LATE: Duration = Duration::from_millis(100);

/// Of each of both so often at most.
const EVERY: Duration = Duration::from_secs(10);

/// When it was last told.
#[derive(Debug, Default)]
pub(super) struct Lateness {
    late: Option<Moment>,
    lapsed: Option<Moment>,
}

impl Lateness {
    /// A heartbeat goes so late that is to renew such leases.
    pub(super) fn late(&mut self, late: Duration, lease: Duration, now: Moment) {
        if is_to_be_told(late, lease) && is_due(&mut self.late, now) {
            tracing::warn!(
                ?late,
                ?lease,
                "this node is too busy: what is not renewed within its lease is lost"
            );
        }
    }

    /// A lease ran out. What is lost is told for each address; why, once for all.
    pub(super) fn lapsed(&mut self, lease: Duration, now: Moment) {
        if is_due(&mut self.lapsed, now) {
            tracing::warn!(
                ?lease,
                "no majority of voters renewed a lease in time: this node, its voters or the network between them were late"
            );
        }
    }
}

fn is_due(told: &mut Option<Moment>, now: Moment) -> bool {
    let is_due = told.is_none_or(|at| now.since(at) > EVERY);
    if is_due {
        *told = Some(now);
    }
    is_due
}

/// Whether people should know, before what it renews is lost.
fn is_to_be_told(late: Duration, lease: Duration) -> bool {
    late > LATE.min(lease / 2)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_heartbeat_is_told_of_before_the_lease_that_it_renews_is_over() {
        // A seventh of a lease apart, 25 to 50 ms.
        for (lease, apart) in [(100, 25), (140, 25), (200, 29), (280, 40), (350, 50)] {
            let [lease, apart] = [lease, apart].map(Duration::from_millis);
            let lost = lease - apart;
            let is_told = |late| is_to_be_told(late, lease);
            assert!(is_told(lost - Duration::from_millis(20)), "{lease:?}");
            assert!(!is_told(lease / 4), "{lease:?}: nothing is near yet");
        }
    }
}
