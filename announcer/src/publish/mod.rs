//! What is told to people and to other programs: status, Events, and the writes that carry them.

pub mod contention;
pub mod events;
pub mod status;
pub mod writer;
