//! How the network learns where an address is.

pub mod arp_nd;
pub mod bgp;
