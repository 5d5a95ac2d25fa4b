//! Owns the rules of a Lease election. Never says that it holds a Lease at a moment at which another candidate,
//! which keeps the same rules, may take it.
//!
//! A pure state machine for one Lease: what was seen and what was answered go in, with the time; the next write comes
//! out. The driver sends it and reports back. Two rules make it safe (Kubernetes API, `coordination.k8s.io/v1`):
//!
//! - Every write is a compare-and-swap on the `resourceVersion` that was seen. A conflict means lost.
//! - A Lease has expired once *this process* has seen it unchanged for its whole duration, on the monotonic clock.
//!   A holder counts from the moment it **sent** its last acknowledged renewal, and only to the renew deadline, which
//!   is shorter than the duration. Wall clocks are written for people to read and never compared.

use std::time::{Duration, Instant};

/// How long things take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Others may take a Lease that they have seen unchanged for so long (`leaseDurationSeconds`).
    pub duration: Duration,
    /// A holder whose renewals are not acknowledged stops after so long. Less than `duration`.
    pub renew_deadline: Duration,
    /// Pause between renewals. Less than `renew_deadline`.
    pub retry: Duration,
}

impl Default for Timing {
    /// The defaults of client-go and kube-vip: 15, 10 and 2 seconds.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What a candidate needs to know of the Lease object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// `metadata.resourceVersion`.
    pub version: String,
    /// `spec.holderIdentity`; empty or missing when nobody holds it.
    pub holder: Option<String>,
    /// `spec.leaseDurationSeconds` as the holder wrote it; the own duration where it is missing.
    pub duration: Option<Duration>,
    /// `spec.leaseTransitions`.
    pub transitions: i32,
}

impl Seen {
    /// Whether a watch that lags behind showed an earlier state. Versions of one resource are numbers that only grow
    /// (Kubernetes API conventions, KEP-5504); anything else is not compared.
    fn is_older_than(&self, other: &Self) -> bool {
        let number = |seen: &Self| seen.version.parse::<u128>().ok();
        matches!((number(self), number(other)), (Some(mine), Some(theirs)) if mine < theirs)
    }
}

/// The next write. Each carries all that the driver has to put into the Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the Lease with us as holder.
    Create,
    /// Replace the Lease at `version` with us as holder. `acquire` tells whether that changes the holder, and so
    /// sets a new `acquireTime`.
    Replace {
        /// The `resourceVersion` to swap on.
        version: String,
        /// `leaseTransitions` to write.
        transitions: i32,
        /// Whether the holder changes.
        acquire: bool,
    },
    /// Replace the Lease at `version` with nobody as holder.
    Release {
        /// The `resourceVersion` to swap on.
        version: String,
        /// `leaseTransitions` to write.
        transitions: i32,
    },
    /// Read the Lease: a write went out whose fate is unknown.
    Read,
    /// Nothing before this moment, unless something is seen.
    Wait(Instant),
    /// Nothing until something is seen.
    Idle,
}

/// How a write ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The API server applied it; the Lease is now as its answer says.
    Applied(Seen),
    /// 409: somebody else was first.
    Conflict,
    /// Time-out, refused connection, 429, 5xx: it may or may not have been applied.
    Unknown,
}

/// One candidate's view of one Lease.
#[derive(Clone, Debug)]
pub struct Election {
    identity: String,
    timing: Timing,
    /// The Lease as last seen; `None` before the first look.
    lease: Option<Option<Seen>>,
    /// When the Lease was first seen as it is.
    changed: Option<Instant>,
    /// When the last acknowledged renewal was sent, while we hold the Lease.
    renewed: Option<Instant>,
    /// The write under way: when it was sent, and whether it gives the Lease back.
    sent: Option<(Instant, bool)>,
    /// Not before this moment: the pause after a failure.
    pause: Option<Instant>,
    /// A write went out whose fate is unknown, and nothing was seen since.
    uncertain: bool,
    leaving: bool,
}

impl Election {
    /// A candidate that has seen nothing yet. `identity` must be unique among processes at any one time.
    #[must_use]
    pub fn new(identity: impl Into<String>, timing: Timing) -> Self {
        Self {
            identity: identity.into(),
            timing,
            lease: None,
            changed: None,
            renewed: None,
            sent: None,
            pause: None,
            uncertain: false,
            leaving: false,
        }
    }

    /// Who this candidate is.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Who holds the Lease as far as was seen, expired or not.
    #[must_use]
    pub fn holder(&self) -> Option<&str> {
        self.lease.as_ref()?.as_ref()?.holder.as_deref()
    }

    /// The end of our hold: until then, and not at that moment, we may act. `None` while we do not hold the Lease.
    #[must_use]
    pub fn holds_until(&self, now: Instant) -> Option<Instant> {
        self.renewed.map(|sent| sent + self.timing.renew_deadline).filter(|end| now < *end)
    }

    /// Takes in the Lease as a watch or a read showed it; `None` when there is none.
    pub fn observe(&mut self, lease: Option<Seen>, now: Instant) {
        if let (Some(Some(old)), Some(new)) = (&self.lease, &lease)
            && new.is_older_than(old)
        {
            return;
        }
        self.uncertain = false;
        if self.lease.as_ref() != Some(&lease) {
            self.changed = Some(now);
            // A write of ours that is under way may have been what was seen; its answer will tell.
            if self.sent.is_none() && !self.is_ours(lease.as_ref()) {
                self.renewed = None;
            }
            self.lease = Some(lease);
        }
    }

    /// Says that the candidate wants to give up: the Lease is given back, and never taken again.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.pause = None;
    }

    /// The next thing to do. After a write has been sent call [`Election::sent`], then [`Election::answered`].
    #[must_use]
    pub fn decide(&self, now: Instant) -> Action {
        if self.sent.is_some() {
            return Action::Idle;
        }
        if let Some(pause) = self.pause.filter(|pause| now < *pause) {
            return Action::Wait(pause);
        }
        if self.uncertain {
            return Action::Read;
        }
        let Some(seen) = &self.lease else { return Action::Idle };
        match seen {
            None if self.leaving => Action::Idle,
            None => Action::Create,
            Some(seen) if self.leaving => match self.is_ours(Some(seen)) {
                true => {
                    Action::Release { version: seen.version.clone(), transitions: seen.transitions }
                }
                false => Action::Idle,
            },
            Some(seen) => self.take(seen, now),
        }
    }

    fn take(&self, seen: &Seen, now: Instant) -> Action {
        let mine = self.is_ours(Some(seen));
        let due = match self.renewed {
            Some(renewed) if mine => renewed + self.timing.retry,
            // Ours by name but of an earlier life: nobody else has it, so there is nothing to wait for.
            None if mine => now,
            _ if seen.holder.as_deref().unwrap_or_default().is_empty() => now,
            _ => self.changed.unwrap_or(now) + seen.duration.unwrap_or(self.timing.duration),
        };
        if now < due {
            return Action::Wait(due);
        }
        let transitions = seen.transitions + i32::from(!mine);
        Action::Replace { version: seen.version.clone(), transitions, acquire: !mine }
    }

    /// Notes that the write which [`Election::decide`] gave goes out. Call it **before** sending.
    pub fn sent(&mut self, action: &Action, now: Instant) {
        let release = matches!(action, Action::Release { .. });
        if release {
            // Whatever becomes of it: from here on somebody else may have the Lease.
            self.renewed = None;
        }
        self.sent = Some((now, release));
    }

    /// Takes in how that write ended.
    pub fn answered(&mut self, answer: &Answer, now: Instant) {
        let Some((sent, release)) = self.sent.take() else { return };
        match answer {
            Answer::Applied(seen) => {
                self.lease = Some(Some(seen.clone()));
                self.changed = Some(now);
                self.renewed = (!release).then_some(sent);
                self.pause = None;
                self.uncertain = false;
            }
            // Our hold stands: it was acknowledged, and nobody may take the Lease before it ends.
            Answer::Conflict => self.uncertain = true,
            Answer::Unknown => {
                self.uncertain = true;
                self.pause = Some(now + (self.timing.retry / 4).min(Duration::from_millis(500)));
            }
        }
    }

    /// Notes that a read that [`Action::Read`] asked for failed.
    pub fn unread(&mut self, now: Instant) {
        self.pause = Some(now + (self.timing.retry / 4).min(Duration::from_millis(500)));
    }

    fn is_ours(&self, lease: Option<&Seen>) -> bool {
        lease.is_some_and(|seen| seen.holder.as_deref() == Some(&self.identity))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    fn seen(version: u64, holder: &str) -> Seen {
        let holder = (!holder.is_empty()).then(|| holder.to_owned());
        Seen {
            version: version.to_string(),
            holder,
            duration: Some(TIMING.duration),
            transitions: 0,
        }
    }

    fn after(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    /// A candidate `a` that has just acquired the Lease at version 1.
    fn holder(start: Instant) -> Election {
        let mut election = Election::new("a", TIMING);
        election.observe(None, start);
        let action = election.decide(start);
        assert_eq!(action, Action::Create);
        election.sent(&action, start);
        election.answered(&Answer::Applied(seen(1, "a")), after(start, 1));
        election
    }

    #[test]
    fn nothing_is_written_before_the_lease_was_looked_at() {
        assert_eq!(Election::new("a", TIMING).decide(Instant::now()), Action::Idle);
    }

    #[test]
    fn a_hold_counts_from_the_moment_the_write_was_sent() {
        let start = Instant::now();
        assert_eq!(holder(start).holds_until(after(start, 1)), Some(after(start, 10)));
        assert_eq!(holder(start).holds_until(after(start, 10)), None);
    }

    #[test]
    fn a_lease_is_taken_only_after_it_was_seen_unchanged_for_its_duration() {
        let start = Instant::now();
        let mut other = Election::new("b", TIMING);
        other.observe(Some(seen(1, "a")), start);
        assert_eq!(other.decide(start), Action::Wait(after(start, 15)));
        other.observe(Some(seen(2, "a")), after(start, 14));
        assert_eq!(other.decide(after(start, 15)), Action::Wait(after(start, 29)));
        let taken = Action::Replace { version: "2".into(), transitions: 1, acquire: true };
        assert_eq!(other.decide(after(start, 29)), taken);
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let start = Instant::now();
        let mut other = Election::new("b", TIMING);
        other.observe(Some(seen(3, "")), start);
        assert!(matches!(other.decide(start), Action::Replace { acquire: true, .. }));
    }

    #[test]
    fn a_restarted_holder_need_not_wait_for_itself() {
        let start = Instant::now();
        let mut again = Election::new("a", TIMING);
        again.observe(Some(seen(7, "a")), start);
        assert_eq!(again.holds_until(start), None, "a hold of an earlier life is not ours");
        let taken = Action::Replace { version: "7".into(), transitions: 0, acquire: false };
        assert_eq!(again.decide(start), taken);
    }

    #[test]
    fn a_watch_that_lags_behind_takes_nothing_away() {
        let start = Instant::now();
        let mut election = holder(start);
        election.answered(&Answer::Unknown, start);
        election.observe(Some(seen(0, "b")), after(start, 2));
        assert!(election.holds_until(after(start, 2)).is_some());
    }

    #[test]
    fn a_lost_reply_is_cleared_up_by_a_read() {
        let start = Instant::now();
        let mut election = holder(start);
        let action = election.decide(after(start, 2));
        assert!(matches!(action, Action::Replace { acquire: false, .. }));
        election.sent(&action, after(start, 2));
        election.answered(&Answer::Unknown, after(start, 3));
        assert!(matches!(election.decide(after(start, 3)), Action::Wait(_)));
        assert_eq!(election.decide(after(start, 4)), Action::Read);
        election.observe(Some(seen(2, "a")), after(start, 4));
        assert_eq!(
            election.holds_until(after(start, 4)),
            Some(after(start, 10)),
            "unacknowledged time does not count"
        );
    }

    #[test]
    fn who_leaves_stops_before_the_release_is_sent_and_never_comes_back() {
        let start = Instant::now();
        let mut election = holder(start);
        election.leave();
        let action = election.decide(after(start, 1));
        assert_eq!(action, Action::Release { version: "1".into(), transitions: 0 });
        election.sent(&action, after(start, 1));
        assert_eq!(election.holds_until(after(start, 1)), None);
        election.answered(&Answer::Applied(seen(2, "")), after(start, 1));
        assert_eq!(election.decide(after(start, 2)), Action::Idle);
    }
}
