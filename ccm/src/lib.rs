//! Gives Services of type LoadBalancer and virtual machines their addresses. Never touches a network interface.
//!
//! Data flows one way: watches, then [`berth_index::Index`], then [`berth_index::write::Write`]s as values, then the one
//! writer, whose outcomes go back to the index. Everything that decides is in berth-index.
//!
//! | module | owns |
//! |---|---|
//! | [`watches`], [`reserved`], [`writer`], [`held`] | the traffic with the API server, and what stands in for some of it |
//! | [`run`], `writes` | the loop that joins them with the index |
//! | [`check`], [`convert`], [`import`], [`uninstall`] | the commands |
//! | `objects` | the files that commands read |
//! | [`options`], [`theirs`], [`environment`], [`rights`], [`metrics`] | what users set, grant and see |
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod check;
pub mod convert;
pub mod environment;
pub mod held;
pub mod import;
pub mod metrics;
mod objects;
pub mod options;
pub mod reserved;
pub mod rights;
pub mod run;
pub mod theirs;
pub mod uninstall;
pub mod watches;
pub mod writer;
mod writes;
