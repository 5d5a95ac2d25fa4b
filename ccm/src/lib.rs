//! Gives Services of type LoadBalancer and virtual machines their addresses. Never touches a network interface.
//!
//! Data flows one way: watches, then [`index::Index`], then [`write::Write`]s as values, then the one writer, whose
//! outcomes go back to the index. Everything that decides is a pure function of what was seen and of the time that is
//! handed in.
//!
//! | module | owns |
//! |---|---|
//! | [`index`] | what is known, and what is to be written |
//! | [`service`], [`binding`], [`kubevirt`], [`claim`] | what is kept of the cluster's objects |
//! | [`claimant`] | what Services and EipBindings have in common |
//! | [`placement`] | where an elastic IP belongs |
//! | [`mod@write`], [`report`] | the words for what is to be done and told |
//! | [`watches`], [`writer`] | the traffic with the API server |
//! | [`run`] | the loop that joins them |
//! | [`options`], [`metrics`] | what users set and see |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod binding;
pub mod check;
pub mod claim;
pub mod claimant;
pub mod import;
pub mod index;
pub mod kubevirt;
pub mod metrics;
pub mod options;
pub mod placement;
pub mod report;
pub mod reserved;
pub mod rests;
pub mod run;
pub mod service;
pub mod watches;
pub mod write;
pub mod writer;
