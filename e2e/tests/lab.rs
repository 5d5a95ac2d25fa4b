//! The lab's own tests: it comes up, does what its faults and observers say, and leaves nothing behind.

#![allow(clippy::unwrap_used)]

#[path = "lab/faults.rs"]
mod faults;
#[path = "lab/leftovers.rs"]
mod leftovers;
#[path = "lab/life.rs"]
mod life;
#[path = "lab/observers.rs"]
mod observers;
