//! Which address a Service or virtual machine gets, decided as a value.
//!
//! This crate is deterministic: no clock, no randomness, no I/O. The same pools, the same ledger and the same request
//! give the same answer on every machine. Time comes in as a [`std::time::Duration`] since an origin of the caller's
//! choice that only moves forward.
//!
//! | module | owns |
//! |---|---|
//! | [`Range`], [`AddressSet`] | address arithmetic; never a cost that grows with the number of addresses |
//! | [`Pools`] | the ConfigMap's keys, each with its last good value |
//! | [`Ledger`] | who holds which address, what rests, what is reserved, what is free |
//! | [`allocate`] | the decision: a [`Request`] in, an [`Allocation`] or a [`Refusal`] out |
//!
//! ```
//! use berth_ipam::{Families, Family, Grant, Ledger, Owner, OwnerKind, Request, allocate};
//!
//! let mut ledger = Ledger::new();
//! let data = [("cidr-global".to_owned(), "192.0.2.0/29".to_owned())].into();
//! assert!(ledger.update_pools(&data).is_empty());
//!
//! let owner = Owner::new(OwnerKind::Service, "shop", "web", "uid-1");
//! let request = Request::new(owner.clone(), Families::single(Family::V4));
//! let allocation = allocate(&ledger, &request).expect("six addresses are free");
//! let chosen = &allocation.addresses[0];
//! assert_eq!(chosen.address.to_string(), "192.0.2.1");
//! ledger.insert(chosen.address, Grant::new(owner).in_pool(chosen.pool.clone())).expect("nobody else holds it");
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod allocate;
mod counted;
mod facts;
mod free;
mod grant;
mod keys;
mod ledger;
mod pools;
mod range;
mod request;
mod reserved;
mod selections;
mod set;
mod sharers;
mod shown;
mod shows;
mod statuses;

pub use allocate::allocate;
pub use counted::Counted;
pub use facts::{Crossing, Overlap, ReservedOverlap, Stray, Usage};
pub use grant::{
    Claim, Clash, Full, Grant, Owner, OwnerKind, Protocol, Sharing, TrafficPolicy, UnknownProtocol,
};
pub use keys::{KeyError, Scope};
pub use ledger::{Conflict, Ledger, names};
pub use pools::{Order, Pool, Pools};
pub use range::{Family, Range, RangeError};
pub use request::{Allocation, Assigned, Families, FamilyPolicy, Origin, Refusal, Request};
pub use set::AddressSet;
