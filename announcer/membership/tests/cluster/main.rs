//! A few nodes that nothing goes wrong with but what a test does to them.
#![allow(clippy::unwrap_used)]

mod cluster;
mod list;
mod replay;
mod versions;
