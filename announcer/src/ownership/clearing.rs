//! How long to wait before a status is cleared of what is not its own to show: who decides on the Service does it at once, if
//! it can. Pure.

use std::time::Duration;

use berth_membership::Request;

use crate::vip::Name;

/// For so long who decides on a Service has time to clear its status.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// Where it is not known who else is alive nodes clear it one after the other within this time, in milliseconds: the first
/// does, and the others find it done.
const SPREAD: u64 = 5_000;

/// When `node` clears the status of a Service where nobody says who is to.
pub(super) fn in_turn(node: &str, service: &Name) -> Duration {
    PATIENCE + Duration::from_millis(Request::key_of(&format!("{node} {service}")) % SPREAD)
}
