//! Layer 2: makes the LAN send the traffic of an address to this node, by ARP and neighbour discovery, and hears who
//! else has it.
//!
//! | file | owns |
//! |---|---|
//! | `frame`, `hearing` | frames as they are written and read |
//! | `schedule` | when an address is announced |
//! | `probe` | whether an address may be taken into use |
//! | `defence` | what to do when another host claims an address of ours |
//! | `filter` | which frames the kernel passes on to this program |
//! | `socket`, `listener` | the packet sockets that send, and those that hear |
//!
//! All but the last row is pure.

pub mod defence;
pub mod filter;
pub mod frame;
pub mod hearing;
pub mod listener;
pub mod probe;
pub mod schedule;
pub mod socket;
