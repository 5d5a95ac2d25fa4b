//! Owns the times of the protocol and what follows from them.

use std::time::Duration;

use crate::bounds::{LONGEST, SHORTEST};

/// The times of the protocol. Every node of a cluster must use the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Between two heartbeats of a node that asks for [`lease`](Self::lease), and at most.
    pub heartbeat: Duration,
    /// The same of one that asks for short ones, and at least.
    pub quickest: Duration,
    /// How long an owner may answer after it *sent* the heartbeat that a majority granted, where nobody says for how long: nodes
    /// of versions 1 and 2 of the wire know no other. A node asks for it when it starts.
    pub lease: Duration,
    /// This node asks for no shorter one, whatever the view allows: what its fence can keep to, for example.
    pub shortest: Duration,
    /// The longest lease that any node may have been granted: whatever cannot know what was promised waits for that.
    pub longest: Duration,
    /// How far the rate of a clock may be off, in parts per million.
    pub drift_ppm: u32,
    /// How late the kernel may act on a deadline, and a frame may leave after it was let through.
    pub lateness: Duration,
    /// Silence that makes a node suspected that asks for [`lease`](Self::lease), or does not say.
    pub suspicion: Duration,
    /// How long the next candidate waits after a better one.
    pub stagger: Duration,
    /// Largest UDP payload, in octets.
    pub datagram: usize,
    /// How many datagrams one heartbeat or its answer may fill.
    pub burst: usize,
    /// How many removals a versioned list remembers beyond its own length.
    pub memory: usize,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            quickest: Duration::from_millis(25),
            lease: Duration::from_millis(350),
            shortest: SHORTEST,
            longest: LONGEST,
            drift_ppm: 1_000,
            lateness: Duration::from_millis(10),
            suspicion: Duration::from_millis(125),
            stagger: Duration::from_millis(100),
            datagram: 1_400,
            burst: 32,
            memory: 1_024,
        }
    }
}

/// Why a set of parameters cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// A lease must survive lost heartbeats.
    #[error("lease {lease:?}: must be at least four heartbeats of {heartbeat:?}")]
    Lease {
        /// The lease given.
        lease: Duration,
        /// The heartbeat given.
        heartbeat: Duration,
    },
    /// No lease may be shorter than a view allows, nor outlast what is waited for.
    #[error(
        "leases of {shortest:?}, {lease:?} and {longest:?}: must be {SHORTEST:?} to {LONGEST:?}, the shorter ones first"
    )]
    Leases {
        /// The shortest one given.
        shortest: Duration,
        /// The lease given.
        lease: Duration,
        /// The longest one given.
        longest: Duration,
    },
    /// A node that was heard on time must not be suspected.
    #[error(
        "suspicion {suspicion:?}: must be at least two heartbeats of {heartbeat:?} and shorter than the lease"
    )]
    Suspicion {
        /// The suspicion given.
        suspicion: Duration,
        /// The heartbeat given.
        heartbeat: Duration,
    },
    /// A clock that is a tenth off is broken.
    #[error("drift {0} ppm: must be at most 100000")]
    Drift(u32),
    /// The head of a message needs room.
    #[error("datagram of {0} octets: must be 512 to 65507")]
    Datagram(usize),
    /// Something must be sent.
    #[error("burst 0: must be at least 1")]
    Burst,
}

impl Parameters {
    /// What a voter promises where nobody says for how long.
    pub fn promise(&self) -> Duration {
        self.promise_of(self.lease)
    }

    /// The longest promise there may be: whatever waits for promises that it does not know waits for this one.
    pub fn longest_promise(&self) -> Duration {
        self.promise_of(self.longest)
    }

    /// What a voter that grants so long a lease promises from the moment it *received* a heartbeat: the lease on the slowest
    /// clock of an owner and the kernel's lateness, on the fastest clock of a voter.
    pub(crate) fn promise_of(&self, lease: Duration) -> Duration {
        let whole = 1_000_000;
        let slow = whole - self.drift_ppm.min(whole / 2);
        let fast = whole + self.drift_ppm.min(whole / 2);
        // A nanosecond for each division that rounds down.
        let held = lease * whole / slow + self.lateness + Duration::from_nanos(1);
        held * fast / whole + Duration::from_nanos(1)
    }

    /// Between two heartbeats of a node that asks for so long a lease.
    pub(crate) fn heartbeat_of(&self, lease: Duration) -> Duration {
        let all = self.heartbeat.as_nanos() * lease.as_nanos() / self.lease.as_nanos().max(1);
        let all = Duration::from_nanos(u64::try_from(all).unwrap_or(u64::MAX));
        all.clamp(self.quickest.min(self.heartbeat), self.heartbeat)
    }

    /// Silence that makes a node suspected that asks for so long a lease, or does not say.
    pub(crate) fn suspicion_of(&self, lease: Option<Duration>) -> Duration {
        let Some(lease) = lease else { return self.suspicion };
        let all = self.suspicion.as_nanos() * self.heartbeat_of(lease).as_nanos();
        let all = all / self.heartbeat.as_nanos().max(1);
        Duration::from_nanos(u64::try_from(all).unwrap_or(u64::MAX))
    }

    /// Checks that the times fit each other.
    ///
    /// # Errors
    /// The first value that cannot work, with what is accepted.
    pub fn check(&self) -> Result<(), ParameterError> {
        let Self { heartbeat, lease, shortest, longest, suspicion, .. } = *self;
        if heartbeat.is_zero() || lease < heartbeat * 4 {
            return Err(ParameterError::Lease { lease, heartbeat });
        }
        if shortest < SHORTEST || shortest > lease || lease > longest || longest > LONGEST {
            return Err(ParameterError::Leases { shortest, lease, longest });
        }
        if suspicion < heartbeat * 2 || suspicion >= lease {
            return Err(ParameterError::Suspicion { suspicion, heartbeat });
        }
        if self.drift_ppm > 100_000 {
            return Err(ParameterError::Drift(self.drift_ppm));
        }
        if !(512..=65_507).contains(&self.datagram) {
            return Err(ParameterError::Datagram(self.datagram));
        }
        if self.burst == 0 { Err(ParameterError::Burst) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_promise_outlasts_a_lease_on_the_worst_pair_of_clocks() {
        let parameters = Parameters::default();
        let silent = parameters.lease.as_secs_f64() / 0.999 + parameters.lateness.as_secs_f64();
        let free = parameters.promise().as_secs_f64() / 1.001;
        assert!(free >= silent && free < silent + 1e-6, "{free} {silent}");
        assert_eq!(parameters.promise().as_millis(), 360);
        assert_eq!(parameters.longest_promise().as_millis(), 511);
        assert_eq!(parameters.check(), Ok(()));
    }

    #[test]
    fn who_asks_for_less_is_heard_more_often_and_missed_sooner() {
        let parameters = Parameters::default();
        let of = |millis: u64| {
            let lease = Duration::from_millis(millis);
            let pair = (parameters.heartbeat_of(lease), parameters.suspicion_of(Some(lease)));
            (pair.0.as_millis(), pair.1.as_micros())
        };
        assert_eq!(
            [100, 175, 350, 500].map(of),
            [(25, 62_500), (25, 62_500), (50, 125_000), (50, 125_000)]
        );
        assert_eq!(of(280), (40, 100_000));
        assert_eq!(parameters.suspicion_of(None), parameters.suspicion);
    }

    #[test]
    fn parameters_that_cannot_work_name_the_value() {
        let short = Parameters { lease: Duration::from_millis(120), ..Parameters::default() };
        let text = short.check().unwrap_err().to_string();
        assert_eq!(text, "lease 120ms: must be at least four heartbeats of 50ms");
        let blind = Parameters { suspicion: Duration::from_millis(60), ..Parameters::default() };
        assert!(matches!(blind.check(), Err(ParameterError::Suspicion { .. })));
        let hasty = Parameters { shortest: Duration::from_millis(99), ..Parameters::default() };
        assert!(matches!(hasty.check(), Err(ParameterError::Leases { .. })));
        assert_eq!(
            Parameters { datagram: 100, ..Parameters::default() }.check(),
            Err(ParameterError::Datagram(100))
        );
    }
}
