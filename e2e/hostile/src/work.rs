//! Owns how work is measured.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// What the calling thread had of a processor.
pub(crate) fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}
