//! Announcing by BGP: routers are told of what this node serves, and lead it here.
//!
//! | file | owns |
//! |---|---|
//! | `routed` | what is to be announced, and what stays bound until routers know better: a value |
//! | `pace` | how often what is said of an address changes: a value |
//! | `kept` | what an earlier life has left that routers may lead here still: a value |
//! | `told` | what is known of each peer: a value |
//! | `shown` | what is known of each peer, for people: a value |
//! | `addresses` | what is nobody's to have, since it is a router's, or routers know a node by it: a value |
//! | `ending` | what a stop is: a restart, or the end: a value |
//! | `awaited` | the sessions of an earlier life, for which readiness waits: a value |
//! | `speaker` | the task that has the peers |
//! | `line` | the task of each: its session, what it is told, what is known of it |
//! | `peers` | which peers this node has, of all that is said: a value |
//! | `words` | what the log says of peers |
//! | `passwords` | what sessions are signed with, read where it is |
//! | `port` | where peers connect to, where any does |
//! | `place` | where a peer is from here |
//! | `hops` | addresses of this host that routes lead to, as they come and go: a value |
//!
//! Nothing of it runs, and no socket is opened, where it is not asked for.

mod addresses;
mod awaited;
mod ending;
mod hops;
mod kept;
mod line;
mod pace;
mod passwords;
mod peers;
mod place;
mod port;
mod routed;
mod shown;
mod speaker;
mod told;
mod words;

pub use addresses::OfRouters;
pub use awaited::Awaited;
pub use ending::{Answer, Ending};
pub use kept::Kept;
pub use passwords::Secrets;
pub use routed::{Advert, Orders, Routed, Said, Way};
pub use shown::shown;
pub use speaker::{Speaker, TASK};
pub use told::{Absence, PeerTold, Told};
