//! Owns the three durations of an election. A [`Timing`] that exists keeps two holders apart.

use std::time::Duration;

/// How long a Lease lasts, and how it is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    duration: Duration,
    renew_deadline: Duration,
    retry: Duration,
}

/// Why three durations do not make an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// The API knows whole seconds only.
    #[error("a Lease lasts whole seconds, at least 1, not {0:?}")]
    NotWholeSeconds(Duration),
    /// A holder must stop before others may start.
    #[error("the renew deadline ({deadline:?}) must be shorter than the Lease ({duration:?})")]
    DeadlineTooLong {
        /// The renew deadline.
        deadline: Duration,
        /// The duration of the Lease.
        duration: Duration,
    },
    /// A holder must try at least once before its deadline.
    #[error(
        "the retry period ({retry:?}) must be shorter than the renew deadline ({deadline:?}), and not zero"
    )]
    RetryTooLong {
        /// The retry period.
        retry: Duration,
        /// The renew deadline.
        deadline: Duration,
    },
}

impl Timing {
    /// Others may take a Lease that they have seen unchanged for `duration`; a holder acts no longer than
    /// `renew_deadline` after it sent the last renewal that was acknowledged; it renews every `retry`.
    ///
    /// # Errors
    /// When `retry < renew_deadline < duration` does not hold, or `duration` has fractions of a second.
    pub fn new(
        duration: Duration,
        renew_deadline: Duration,
        retry: Duration,
    ) -> Result<Self, TimingError> {
        let seconds = i32::try_from(duration.as_secs()).unwrap_or(0);
        if seconds < 1 || duration.subsec_nanos() != 0 {
            return Err(TimingError::NotWholeSeconds(duration));
        }
        if renew_deadline >= duration {
            return Err(TimingError::DeadlineTooLong { deadline: renew_deadline, duration });
        }
        if retry >= renew_deadline || retry.is_zero() {
            return Err(TimingError::RetryTooLong { retry, deadline: renew_deadline });
        }
        Ok(Self { duration, renew_deadline, retry })
    }

    /// What client-go's controllers use: 15, 10 and 2 seconds.
    pub const DEFAULT: Self = Self {
        duration: Duration::from_secs(15),
        renew_deadline: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    };

    /// How long others wait.
    pub fn duration(&self) -> Duration {
        self.duration
    }

    /// How long a holder acts on one renewal.
    pub fn renew_deadline(&self) -> Duration {
        self.renew_deadline
    }

    /// How long what stands in the kernel for a holder may go on after it sent the last renewal that was acknowledged:
    /// others wait for `duration` on the fastest clock, and by then the kernel has acted on the slowest, and its last
    /// frame has left.
    pub fn lapse(&self) -> Duration {
        let (whole, drift) = (1_000_000, Self::DRIFT_PPM);
        let waited = self.duration * whole / (whole + drift);
        waited.saturating_sub(Self::LATENESS) * (whole - drift) / whole
    }

    /// How far the rate of a clock may be off, in parts per million.
    pub const DRIFT_PPM: u32 = 1_000;

    /// How late the kernel may act on a deadline, and a frame may leave after it was let through.
    pub const LATENESS: Duration = Duration::from_millis(10);

    /// The pause between renewals, and after a failure.
    pub fn retry(&self) -> Duration {
        self.retry
    }

    /// How long to wait for the reply to one request: so long that two of them and the pause between fit before the
    /// deadline.
    pub fn request_timeout(&self) -> Duration {
        (self.renew_deadline - self.retry) / 2
    }

    pub(super) fn seconds(&self) -> i32 {
        i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX)
    }
}

impl Default for Timing {
    fn default() -> Self {
        Self::DEFAULT
    }
}
