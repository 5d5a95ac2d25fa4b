//! BIRD, FRR and GoBGP as routers of tests: how each is set up to take what nodes announce, and what each then says.
//!
//! | module | owns |
//! |---|---|
//! | `plan` | what a router is to be, and what it says, in words of no program |
//! | `bird`, `frr`, `gobgp` | the configuration of each, the commands that start it, and how its answers are read |
//! | `wired` | one of them in a network namespace, on a cable with a node's |
//!
//! Nothing here knows how Berth speaks: what is judged is judged by what a router says.
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod ask;
mod bird;
mod frr;
mod gobgp;
mod namespace;
mod plan;
mod wired;

pub use bird::Bird;
pub use frr::Frr;
pub use gobgp::GoBgp;
pub use namespace::Namespace;
pub use plan::{Daemon, Family, Neighbor, Plan, Program, Route, Session};
pub use wired::{Cable, Wired, until};
