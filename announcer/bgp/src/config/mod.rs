//! What the operator says: kube-vip's settings, annotations of nodes, and the ConfigMap `berth-bgp`. Everything is looked
//! at before anything is used: what is wrong is told, all of it, each with peer, field and position; what is right goes on.
//!
//! | module | reads |
//! |---|---|
//! | `settings` | `bgp_*` and `mpbgp_*` of the environment, and in it `grammar`: `bgp_peers` |
//! | `annotations` | a node's own, with whatever prefix is set |
//! | `document` | the ConfigMap, by `yaml` |
//! | `permits` | what Services ask for, and which of them may |
//! | `merge`, `peer` | what all of these give together |
//! | `report` | what `berth-announcer check-bgp` says |

mod annotations;
mod document;
mod flaw;
mod grammar;
mod merge;
mod password;
mod peer;
mod permits;
mod report;
mod settings;
mod yaml;

pub use annotations::{NodeSays, node_annotations};
pub use document::{Document, check, config_map};
pub use flaw::{Flaw, Place};
pub use grammar::peers;
pub use merge::Config;
pub use password::{LONGEST_PASSWORD, Password};
pub use peer::{Bfd, Distance, Hops, Listen, PORT, Peer, Remote, RouterId, Speaker};
pub use permits::{ASKED, Denied, Pattern, Permit, Permits, asked, misspelt};
pub use report::{Report, report};
pub use settings::settings;
