//! Fenced membership: nodes hold addresses by grants of a majority of voters, and the kernel silences what is not
//! granted any more. The protocol is `berth_membership`, the fence `berth_fence`; this drives both.
//!
//! | file | owns |
//! |---|---|
//! | `keeper` | a thread: the protocol, its clock, the fence, and the order in which things take effect |
//! | `wire` | the UDP sockets |
//! | `priority` | how the thread is scheduled |
//! | `store` | the view object in the API |
//! | `key` | the Secret with the key |
//! | `wishes` | who may have which address, out of what the watches show |
//! | `holdings` | what this node has, as the keeper told it |
//! | `steady` | which interfaces have come back only lately |
//! | `formers` | whom an address came from, for connections that began there |
//! | `rival` | the Lease by which others may hold the addresses still |
//! | `exchange` | what the keeper is told, and what it tells |
//!
//! The keeper never waits for the cluster, and the announcer's rounds never wait for the keeper: they exchange messages.

mod exchange;
mod formers;
mod holdings;
pub mod keeper;
pub mod key;
mod members;
mod peers;
mod priority;
mod rival;
mod steady;
pub mod store;
mod wire;
mod wishes;

pub use exchange::{Command, Proposal, Told};
pub use holdings::{Holdings, Tenure};
pub use members::Members;
pub use peers::{Peer, Peers};
pub use wire::Wire;
