//! Owns the clock of the fence: nanoseconds since boot, suspended time included, as the kernel's program reads it.

use std::fmt;
use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A point on CLOCK_BOOTTIME, in nanoseconds. It never steps when the wall clock does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BootTime(u64);

impl BootTime {
    /// A point that has always passed: an address with this deadline is mute.
    pub const PAST: BootTime = BootTime(0);

    /// Reads the clock. What decides takes the time as an argument; this is for what performs.
    pub fn now() -> BootTime {
        // Linux has had this clock since 2.6.39; reading it cannot fail.
        let time = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from).unwrap_or_default();
        BootTime::from_nanos(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
    }

    /// The point `nanos` nanoseconds after boot.
    pub const fn from_nanos(nanos: u64) -> BootTime {
        BootTime(nanos)
    }

    /// Nanoseconds since boot.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The later point, or the last there is.
    pub fn after(self, span: Duration) -> BootTime {
        BootTime(self.0.saturating_add(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// How long until `later`, or zero if it has passed.
    pub fn until(self, later: BootTime) -> Duration {
        Duration::from_nanos(later.0.saturating_sub(self.0))
    }
}

impl fmt::Display for BootTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09} s after boot", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}
