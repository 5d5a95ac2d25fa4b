//! The data plane of elastic IPs on this node: sets, chains, policy rules and a route table, all of them ours and named
//! as in docs/contract.md, beside kube-proxy's rules and anyone else's.
//!
//! | file | owns |
//! |---|---|
//! | `state` | which address leads to which VM: what is wanted, as a value |
//! | `sets` | the sets as values, and what to feed to `ipset restore` |
//! | `tables` | the chains as values, what `iptables-save` shows of them, and what to feed to `iptables-restore` |
//! | `routes` | policy rules and the route table as values |
//! | `flows` | which tracked connections are stale, as values |
//! | `backend` | which iptables the node uses, and running its programs |
//! | `netfilter` | reading sets, reading and deleting tracked connections |
//! | `routing` | policy rules and routes in the kernel |
//! | `events` | which changes in the kernel matter |
//! | `legacy` | the size of a table of the older iptables |
//! | `keep` | what makes the kernel as wanted, and keeps it so |
//!
//! Data flows down: the rounds of the announcer say what is wanted and hear what holds, as with the guard.

mod backend;
mod events;
mod flows;
mod keep;
mod legacy;
mod netfilter;
mod routes;
mod routing;
mod sets;
mod state;
mod tables;

pub use backend::Backend;
pub(super) use keep::Translator;
pub use keep::{Translation, sweep, unroute};
pub use state::{Nat, Pair, Stage};
