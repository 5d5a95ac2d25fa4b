//! What is told to people and to other programs: status, Events, and the writes that carry them.

mod announced;
mod closed;
pub mod contention;
mod denials;
pub mod eip;
pub mod events;
pub mod host;
pub mod labeler;
pub mod labels;
mod open;
mod order;
mod overtaken;
pub mod publisher;
mod rewords;
mod shared;
pub mod status;
mod strays;
mod turns;
pub mod writer;
