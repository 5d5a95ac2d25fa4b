//! The contract both programs compile against: names, how a Service is read, reasons, and the election for a Lease.
//!
//! Nothing here talks to a cluster, reads a clock or keeps a task: whoever calls brings the objects and the time.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod address;
pub mod claim;
pub mod conflict;
pub mod eip;
pub mod election;
mod family;
pub mod host;
pub mod lean;
pub mod limits;
pub mod names;
mod namespaced_name;
pub mod preference;
mod quoted;
pub mod reason;
pub mod service;

pub use family::Family;
pub use namespaced_name::NamespacedName;
pub use quoted::{Few, Quoted, one_line};
