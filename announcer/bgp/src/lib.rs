//! A BGP speaker that announces addresses and takes no routes, decided without I/O.
//!
//! This crate is deterministic: no clock, no randomness, no sockets, no client. A driver owns those, and tells a
//! [`Session`] what happened and when; steps, octets and a deadline come out.
//!
//! | module | owns |
//! |---|---|
//! | `session` | one peer: its connections, their collision, timers, retries, restarts (RFC 4271, 4724, 8538, 9687) |
//! | `rib` | what the peer is to know, knows, and is told next |
//! | `wire` | messages as octets, and as many routes in each as fit |
//! | `policy` | what each peer is to know of what is announced, and how |
//! | `config` | settings and the ConfigMap, checked whole: peers, policy, what Services may ask for |
//! | `attributes`, `prefix` | what is said of a route |
//!
//! ```
//! use std::net::Ipv4Addr;
//! use std::time::{Duration, Instant};
//! use berth_bgp::{NextHops, Parameters, Prefix, RemoteAs, Session, State, Step};
//!
//! let start = Instant::now();
//! let parameters = Parameters::new(65000, RemoteAs::External, Ipv4Addr::new(192, 0, 2, 11));
//! let mut session = Session::new(start, parameters, 7);
//! session.set_route(Prefix::host("198.51.100.7".parse()?), Some(Default::default()));
//! session.start(start, None);
//! let Some(Step::Connect(link)) = session.next_step() else { panic!() };
//!
//! // The driver has connected: this speaker says who it is.
//! let own = NextHops { v4: Some(Ipv4Addr::new(192, 0, 2, 11)), ..NextHops::default() };
//! session.connected(start, link, own);
//! let sent = session.output(start, link).len();
//! session.written(start, link, sent);
//! assert_eq!(session.status().state, State::OpenSent);
//!
//! // The peer says nothing for four minutes.
//! let late = start + Duration::from_secs(240);
//! session.poll(late);
//! assert_eq!(session.status().last.unwrap().1.to_string(), "ended: Hold Timer Expired");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod attributes;
pub mod config;
mod policy;
mod prefix;
mod rib;
mod session;
pub mod wire;

pub use attributes::{
    Attributes, Community, CommunityError, LargeCommunity, MOST_COMMUNITIES, MOST_PREPENDS,
};
pub use policy::{
    Announcement, Asked, Change, Filter, LeftOut, Policy, Requirement, Rule, Selector, Widened,
};
pub use prefix::{Family, Prefix, PrefixError};
pub use rib::Routes;
pub use session::{
    Agreed, Cause, Event, Link, NextHops, Parameters, RemoteAs, Restart, Role, Session, State,
    Status, Step, Stop,
};
