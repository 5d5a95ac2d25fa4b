//! Binds and advertises the addresses of Services. Reads what berth-ccm writes; never chooses an address.
//!
//! Data flows one way: watch, then what is desired, then the plan, then the kernel, the sockets and the status writer.
//! Everything that decides is a pure function of values and a clock that is handed in.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod advertise;
pub mod backoff;
pub mod config;
pub mod dataplane;
pub mod desired;
pub mod instance;
pub mod kernel;
pub mod metrics;
pub mod ownership;
pub mod peers;
pub mod publish;
pub mod reconcile;
pub mod run;
pub mod source;
pub mod vip;
