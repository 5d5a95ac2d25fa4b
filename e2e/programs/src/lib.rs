//! What the lab runs and others wrote: built from source once, kept in a cache outside the source tree.
//!
//! It is a crate of its own so that building Kubernetes, which takes minutes, need not wait for the lab to be compiled.

pub mod cache;
pub mod go_tools;
pub mod gobgp;
pub mod kind;
pub mod kubernetes;
