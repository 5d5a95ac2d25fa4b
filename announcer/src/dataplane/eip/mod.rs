//! The data plane of elastic IPs on this node: sets, chains, policy rules and a route table, all of them ours and named
//! as in docs/contract.md, beside kube-proxy's rules and anyone else's.
//!
//! | file | owns |
//! |---|---|
//! | `state` | which address leads to which machine: what is wanted, as a value |
//! | `sets` | the sets as values, and what to feed to `ipset restore` |
//! | `tables` | the chains as values, what `iptables-save` shows of them, and what to feed to `iptables-restore` |
//! | `routes` | policy rules and the route table as values |
//! | `flows` | which tracked connections are stale, as values |
//! | `backend` | which iptables the node uses, and running its programs |
//! | `netfilter` | reading sets, reading and deleting tracked connections, by netlink |
//! | `routing` | policy rules and routes, by netlink |
//! | `events` | hearing that somebody changed any of it |
//! | `legacy` | the size of a table of the older iptables |
//! | `keep` | a task that makes the kernel as wanted, and keeps it so |
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
pub use keep::{Told, keep, sweep};
pub use routes::TABLE;
pub use state::{Family, Nat, Pair, Stage};
