//! What an `EipBinding` means on this node. Pure.
//!
//! An elastic IP is an address whose only candidate is the node that `status.node` names, bound and announced as those
//! of Services are. Besides, its node translates: from before it asks for the address until some time after it let go.
//!
//! | file | owns |
//! |---|---|
//! | `place` | which elastic IPs this node should hold, by membership or by Leases |
//! | `unproven` | which have to be asked for on the LAN before their first use, and which another host has |
//! | `translate` | what it translates, and until when |
//! | `status` | what it writes into the status of bindings |

mod place;
mod status;
mod translate;
mod unproven;

pub use place::{Turns, due, fenced, leased};
pub use status::{Apply, Outlook, Refused, applies};
pub use translate::Translations;
pub use unproven::{Usage, conflicts, questions};
