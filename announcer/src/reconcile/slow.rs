//! Tells of what the kernel took long for: addresses waited for it, and nothing else says why.

use std::future::Future;
use std::time::{Duration, Instant};

/// What takes longer than this is told of.
const SLOW: Duration = Duration::from_millis(500);

/// Does the work, and tells if it took long.
pub(super) async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let done = work.await;
    tell_if_slow(what, start.elapsed());
    done
}

/// Other programs may hold the kernel's lock of interfaces and addresses, or that of nftables, for seconds.
pub(super) fn tell_if_slow(what: &str, took: Duration) {
    if took > SLOW {
        tracing::warn!(
            seconds = took.as_secs_f32(),
            "{what} took long, and addresses waited: the kernel was busy"
        );
    }
}
