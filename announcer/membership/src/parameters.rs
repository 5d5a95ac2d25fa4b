//! Owns the times of the protocol and what follows from them.

use std::time::Duration;

/// The times of the protocol. Every node of a cluster must use the same ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// Between two heartbeats of a node.
    pub heartbeat: Duration,
    /// How long an owner may answer after it *sent* the heartbeat that a majority granted.
    pub lease: Duration,
    /// How far the rate of a clock may be off, in parts per million.
    pub drift_ppm: u32,
    /// How late the kernel may act on a deadline, and a frame may leave after it was let through.
    pub lateness: Duration,
    /// Silence that makes a node suspected.
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
            lease: Duration::from_millis(350),
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
    /// What a voter promises from the moment it *received* a heartbeat: the lease on the slowest clock of an owner and
    /// the kernel's lateness, on the fastest clock of a voter.
    pub fn promise(&self) -> Duration {
        let whole = 1_000_000;
        let slow = whole - self.drift_ppm.min(whole / 2);
        let fast = whole + self.drift_ppm.min(whole / 2);
        // A nanosecond for each division that rounds down.
        let held = self.lease * whole / slow + self.lateness + Duration::from_nanos(1);
        held * fast / whole + Duration::from_nanos(1)
    }

    /// Checks that the times fit each other.
    ///
    /// # Errors
    /// The first value that cannot work, with what is accepted.
    pub fn check(&self) -> Result<(), ParameterError> {
        let Self { heartbeat, lease, suspicion, .. } = *self;
        if heartbeat.is_zero() || lease < heartbeat * 4 {
            return Err(ParameterError::Lease { lease, heartbeat });
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
        assert_eq!(parameters.check(), Ok(()));
    }

    #[test]
    fn parameters_that_cannot_work_name_the_value() {
        let short = Parameters { lease: Duration::from_millis(120), ..Parameters::default() };
        let text = short.check().unwrap_err().to_string();
        assert_eq!(text, "lease 120ms: must be at least four heartbeats of 50ms");
        let blind = Parameters { suspicion: Duration::from_millis(60), ..Parameters::default() };
        assert!(matches!(blind.check(), Err(ParameterError::Suspicion { .. })));
        assert_eq!(
            Parameters { datagram: 100, ..Parameters::default() }.check(),
            Err(ParameterError::Datagram(100))
        );
    }
}
