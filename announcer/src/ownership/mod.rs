//! Who owns an address: a pure function of the candidates, of what is seen of the others, and of the last owner; and
//! the strategies: by Leases, which say what is decided together, or by membership, which decides on each address.

mod global;
pub mod leases;
pub mod membership;
mod per_service;
mod strategy;

pub use global::Global;
pub use per_service::PerService;
pub use strategy::{Candidates, Strategy, View, elect};

#[cfg(test)]
mod tests;
