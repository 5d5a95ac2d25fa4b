//! Fenced membership: nodes hold addresses by grants of a majority of voters, and the kernel silences what is not
//! granted any more. The protocol is `berth_membership`, the fence `berth_fence`; `peers` drives both, and these values
//! say what it is to do.
//!
//! | file | owns |
//! |---|---|
//! | `members` | what the driver is told, and when |
//! | `requests` | who may have which address, out of what is wanted |
//! | `holdings` | what this node has, as the driver told it |
//! | `report` | what becomes of Services |
//! | `left` | what is told of Services that others decide on |
//! | `damping` | which interfaces have come back only lately |
//! | `fitness` | whether this node may have the control plane's address, by the health of its own API server |
//! | `draining` | whom an address came from, for connections that began there |
//! | `rival` | the Lease by which others may hold the addresses still |
//! | `exchange` | what the driver is told, and what it tells |
//!
//! The driver never waits for the cluster, and the announcer's rounds never wait for the driver: they exchange messages.

mod damping;
mod draining;
mod exchange;
mod fitness;
mod holdings;
mod left;
mod members;
mod report;
mod requests;
mod rival;

pub use exchange::{Command, Keep, MembershipEvent, Proposal};
pub use fitness::Fitness;
pub use holdings::{Holdings, Tenure};
pub use members::Members;
