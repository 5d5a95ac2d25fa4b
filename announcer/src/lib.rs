//! Binds and advertises the addresses of Services. Reads what berth-ccm writes; never chooses an address.
//!
//! Data flows one way: watch, then what is desired, then the plan, then the kernel, the sockets and the status writer.
//! Everything that decides is a pure function of values and a clock that is handed in.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod announcer;
pub mod cluster;
pub mod config;
pub mod contest;
pub mod desired;
pub mod drive;
pub mod eip;
pub mod kernel;
pub mod l2;
pub mod metrics;
pub mod nat;
pub mod ownership;
pub mod pace;
pub mod plan;
pub mod report;
pub mod status;
pub mod watches;
pub mod writer;
