//! The kernel's fence (`berth_fence`), as whoever decides on owners drives it.
//!
//! | file | owns |
//! |---|---|
//! | `open` | how it is opened at the start, and taken away |
//! | `upkeep` | deadlines, repair, and what is done where the kernel fails |
//! | `thread` | the thread that does this where Leases decide; membership has its own (`peers/driver`) |

mod open;
pub(crate) mod thread;
pub(crate) mod upkeep;

pub(crate) use open::{arp_announce, by_lease, left, open, remove};
