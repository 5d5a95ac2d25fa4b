//! The index on a simulated cluster: what is written, and what never is.
#![allow(clippy::unwrap_used)]

mod adoption;
mod allocation;
mod cluster;
mod conflicts;
mod dhcp;
mod elastic;
mod faults;
mod field;
mod guests;
mod hostile;
mod late;
mod limits;
mod liveness;
mod many;
mod placement;
mod pools;
mod release;
mod sharing;
mod shown;
mod vips;

#[global_allocator]
static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;
