//! A few nodes that nothing goes wrong with but what a test does to them.
#![allow(clippy::unwrap_used)]

mod cluster;
mod hostile;
mod leases;
mod list;
mod replay;
mod versions;

#[global_allocator]
static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;
