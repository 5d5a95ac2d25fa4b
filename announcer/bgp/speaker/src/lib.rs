//! The sockets of BGP sessions: a [`Session`](berth_bgp::Session) for each peer, on a task of its own that owns its
//! connections and its clock, and one door for peers that connect.
//!
//! | module | owns |
//! |---|---|
//! | `socket` | how a connection is made: source, interface, TTL and its security, TCP-MD5 |
//! | `door` | the port that peers connect to, and who gets which connection |
//! | `peer` | the task of one peer: octets between its connections and its session, timers, what it is told |
//!
//! What is decided is decided in `berth-bgp`. Nothing here knows Kubernetes.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod door;
mod peer;
mod socket;

pub use door::Door;
pub use peer::{Addresses, Gone, Handle, News, spawn};
pub use socket::{Key, Target};
