//! Who wants addresses: what the watches show, and what each kind of object means.

pub mod cluster;
pub mod eip;
pub mod watch;
