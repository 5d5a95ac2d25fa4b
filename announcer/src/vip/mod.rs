//! The ground floor: what is known of one address, as values that every other room reads. Pure.
//!
//! | file | says |
//! |---|---|
//! | `claimant` | who wants an address |
//! | `nodes` | which nodes there are |
//! | `serve` | which of them may serve it, and who goes first |
//! | `attach` | where on this host it belongs |
//! | `wanted` | a VIP: all of that of one address, and all VIPs |
//! | `hold` | until when this node may answer for it |
//! | `refusal` | why it is not announced |
//! | `rank` | which of several such reasons stands first |
//! | `verdict` | what becomes of a Service |
//! | `state` | one record of everything that is known of it |

mod attach;
mod claimant;
mod hold;
pub mod nodes;
mod rank;
mod refusal;
pub mod serve;
mod state;
mod verdict;
mod wanted;

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use berth_api::{Family, NamespacedName as Name};

pub use attach::{Attach, Link};
pub use claimant::Claimant;
pub use hold::{Hold, Holds};
pub use refusal::Refusal;
pub use serve::{ByFamily, Serving, Traffic};
pub use state::Record;
pub use verdict::{Verdict, Voice, unserved};
pub use wanted::{Claim, Vip, VipId, Want, Wanted};

/// By address, where its previous owner is: an address of that node on a network of this one, of the same family.
pub type Forwards = BTreeMap<IpAddr, IpAddr>;
