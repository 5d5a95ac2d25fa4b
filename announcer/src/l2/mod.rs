//! Layer 2: makes the LAN send the traffic of an address to this node, by ARP and neighbour discovery.
//!
//! What to send and when are decided by [`schedule`] and [`frame`], which are pure; [`socket`] owns the sockets.

pub mod frame;
pub mod schedule;
pub mod socket;
