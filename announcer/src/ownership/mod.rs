//! Who owns an address: a pure function of the candidates, of what is seen of the others, and of the last owner; and
//! the strategies that say what is decided together, and by which Lease.

mod global;
pub mod leases;
mod per_service;
mod strategy;

pub use global::Global;
pub use per_service::PerService;
pub use strategy::{Candidates, Strategy, View, elect};

#[cfg(test)]
mod tests;
