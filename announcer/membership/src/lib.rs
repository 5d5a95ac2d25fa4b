//! Fenced ownership: at any instant at most one node's kernel answers for an address, decided without I/O.
//!
//! Nodes hold addresses by short leases from a majority of voters; the kernel silences itself at an absolute deadline;
//! the API stores only the voter set; placement is advice. `docs/fenced-ownership.md` states the protocol and argues
//! why two owners cannot answer.
//!
//! This crate is deterministic: no clock, no randomness, no sockets, no client. A driver owns those, and tells a
//! [`Node`] what happened and when:
//!
//! | module | owns |
//! |---|---|
//! | `node` | the composition: [`Input`] and [`Moment`] in, [`Output`]s and a deadline out |
//! | `voter` | what this node promised to others |
//! | `owner` | what it holds: leases from majorities, counted from the send time |
//! | `view` | the voter set, its adoption, sealing and activity |
//! | `proposal`, `claims`, `placement`, `handover` | policy: which voters, who asks when, who should have what, planned moves |
//! | `pace`, `bounds` | for how long leases are asked for, and how short and long they may be |
//! | `serving`, `beats`, `outbox` | what is ready and armed, when heartbeats go, what a turn leaves to be done |
//! | `sight` | what voters report about nodes and addresses |
//! | `kept` | which views are on the disk, where they are kept |
//! | `journal` | long lists in short datagrams: versions, digests, deltas |
//! | `message`, `wire`, `decode`, `keyring` | what nodes say, as octets, authenticated |
//! | `envelope` | what a datagram looks like from outside |
//! | `dialect` | in which version each node is spoken to, and taken |
//!
//! ```
//! use berth_membership::{Cause, Input, Keyring, Moment, Node, NodeId, Output, Parameters, View, Request};
//!
//! let me = NodeId::of("node-a");
//! let keyring = Keyring::new("of this cluster", [&b"thirty-two octets from a Secret!"[..]])?;
//! let clock = |millis: u64| Moment::from_nanos(millis * 1_000_000);
//! let mut node = Node::new(me, Parameters::default(), keyring, 7, clock(0))?;
//! assert_eq!(node.poll(clock(0)), [Output::MuteAll]);
//!
//! // The view was read from the API: this node is the only voter.
//! node.handle(clock(1), Input::View(View::first(me)));
//! let address = "192.0.2.1".parse()?;
//! let request = Request { candidates: vec![me], ..Request::default() };
//! let outputs = node.handle(clock(2), Input::Request { address, request });
//! assert!(outputs.contains(&Output::Prepare { address, cause: Cause::First }));
//! node.handle(clock(3), Input::Prepared { address });
//!
//! // A voter grants no claim before everything that an earlier run of it promised has run out.
//! let mut armed = None;
//! while armed.is_none() {
//!     let due = node.deadline();
//!     let outputs = node.poll(due);
//!     armed = outputs.iter().any(|output| matches!(output, Output::Arm { .. })).then_some(due);
//! }
//! assert!(armed >= Some(clock(511)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod beats;
mod bounds;
mod claims;
mod decode;
mod dialect;
pub mod envelope;
mod event;
mod handover;
mod journal;
mod kept;
mod keyring;
mod message;
mod moment;
mod name;
mod node;
mod outbox;
mod owner;
mod pace;
mod parameters;
mod placement;
mod proposal;
mod rules;
mod serving;
mod sight;
mod view;
mod voter;
mod wire;

pub use bounds::{Bounds, BoundsError, LONGEST, SHORTEST};
pub use event::{Cause, Input, Loss, Output};
pub use keyring::{KeyError, Keyring};
pub use moment::Moment;
pub use name::NodeId;
pub use node::Node;
#[cfg(feature = "simulation")]
pub use node::pressure::Pressure;
pub use parameters::{ParameterError, Parameters};
pub use placement::{Request, rank};
#[cfg(feature = "simulation")]
pub use rules::Rules;
pub use view::{LEAST_MEMBERS, MOST_PREVIOUS, MOST_VOTERS, View, ViewError, Voters, voters_among};
pub use wire::DatagramError;
