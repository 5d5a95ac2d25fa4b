//! How long to wait where each node may write something: before a status is cleared of what is not its own to show, say, which
//! who decides on the Service does at once, if it can. Pure.

use std::time::Duration;

use berth_membership::Request;

use crate::vip::Name;

/// For so long who decides on a Service has time to clear its status.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Where it is not known who else is alive nodes clear it one after the other within this time: the first
/// does, and the others find it done.
const SPREAD: Duration = Duration::from_secs(5);

/// When `node` clears the status of a Service where nobody says who is to.
pub(super) fn in_turn(node: &str, service: &Name) -> Duration {
    PATIENCE + turn(node, service, SPREAD)
}

/// When it is the turn of `node` to write something of a Service, of all nodes that may: each within `spread`, in whole
/// milliseconds, and not in the same order for each Service.
pub fn turn(node: &str, service: &Name, spread: Duration) -> Duration {
    let most = u64::try_from(spread.as_millis()).unwrap_or(u64::MAX).max(1);
    Duration::from_millis(Request::key_of(&format!("{node} {service}")) % most)
}
