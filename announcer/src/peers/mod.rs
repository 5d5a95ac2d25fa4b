//! The input and output of membership: the thread of the protocol, its sockets, the key and the view.
//!
//! | file | owns |
//! |---|---|
//! | `driver` | a thread: the protocol, its clock, the fence, and the order in which things take effect |
//! | `udp` | the UDP sockets |
//! | `filter`, `admission` | which datagrams the kernel keeps, and whose are looked at |
//! | `priority` | how the thread is scheduled |
//! | `view` | where the view is: an object in the API, or fixed for ever |
//! | `key` | where the key is: a Secret in the API, or a file |
//! | `kept` | what of a control-plane node's membership is on its disk |
//! | `lock` | the Lease by which other announcers decide, in the hands of the members |
//! | `join` | all of it together |

mod admission;
pub mod driver;
mod filter;
pub(crate) mod join;
pub(crate) mod kept;
pub mod key;
mod lock;
mod priority;
mod udp;
pub mod view;

pub(crate) use lock::TASK as LOCK;
pub use udp::Wire;
