//! Who wants addresses: what the watches show, and what each kind of object means.
//!
//! | file | says |
//! |---|---|
//! | `watch` | what happens to the objects that are watched |
//! | `cluster` | what is kept of them |
//! | `scene` | what is seen from this node |
//! | `placement` | where an address belongs on this host |
//! | `own` | what the node tells of itself |
//! | `service`, `eip` | what each kind of object wants |
//! | `fixed` | what the operator wants by settings |
//! | `room` | how much of what all share is for a namespace |
//! | `doubt` | behind which addresses others may answer |
//! | `wanted` | all of it, by address |
//! | `proxied` | whether kube-proxy leads to what is here |
//! | `passwords` | those of routers, in Secrets |
//! | `view` | whether there is a view of membership |

pub mod cluster;
pub mod doubt;
pub mod eip;
pub mod fixed;
#[cfg(test)]
mod hostile;
pub mod own;
pub mod passwords;
pub mod placement;
pub mod proxied;
pub(crate) mod room;
pub mod scene;
pub mod service;
#[cfg(test)]
pub(crate) mod testing;
pub mod view;
pub mod wanted;
pub mod watch;
