//! The sockets of BGP sessions: a [`Session`](berth_bgp::Session) for each peer, on a task of its own that owns its
//! connections and its clock, and one door for peers that connect.
//!
//! | module | owns |
//! |---|---|
//! | `socket` | how a connection is made: source, interface, TTL and its security, TCP-MD5 |
//! | `door` | the port that peers connect to, and who gets which connection |
//! | `link` | who the router on a link is |
//! | `handle` | the way to the task of a peer |
//! | `peer` | the task of one peer: octets between its connections and its session, timers, what it is told |
//!
//! What is decided is decided in `berth-bgp`. Nothing here knows Kubernetes.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod door;
mod handle;
mod link;
mod peer;
mod socket;

pub use door::{Admission, Door};
pub use handle::{Addresses, Find, Gone, Handle, News, Reach};
pub use link::router_on;
pub use peer::{spawn, spawn_finding};
pub use socket::{Key, Target};
