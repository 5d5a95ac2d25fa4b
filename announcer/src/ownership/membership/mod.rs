//! Fenced membership: nodes hold addresses by grants of a majority of voters, and the kernel silences what is not
//! granted any more. The protocol is `berth_membership`, the fence `berth_fence`; `peers` drives both, and these values
//! say what it is to do.
//!
//! | file | owns |
//! |---|---|
//! | `wishes` | who may have which address, out of what the watches show |
//! | `holdings` | what this node has, as the driver told it |
//! | `steady` | which interfaces have come back only lately |
//! | `formers` | whom an address came from, for connections that began there |
//! | `rival` | the Lease by which others may hold the addresses still |
//! | `exchange` | what the driver is told, and what it tells |
//!
//! The driver never waits for the cluster, and the announcer's rounds never wait for the driver: they exchange messages.

mod exchange;
mod formers;
mod holdings;
mod members;
mod rival;
mod steady;
mod wishes;

pub use exchange::{Command, Proposal, Told};
pub use holdings::{Holdings, Tenure};
pub use members::Members;
