//! What this program sees of the kernel and asks of it. Below everything that decides: it knows no Service and no Lease.
//!
//! Addresses are tagged with the number of the instance, interfaces with it as their group, rules live in tables of its
//! own. Only what is tagged so is ever removed: what another instance has tagged is somebody else's.
//!
//! | file | owns |
//! |---|---|
//! | `door` | everything below that is a socket |
//! | `rtnetlink` | the connection for links, addresses, routes and policy rules |
//! | `netlink` | addresses and links of ours |
//! | `dump` | the network as its dumps show it |
//! | `routes` | what matters of a route |
//! | `wayback` | where nobody could be answered |
//! | `netfilter` | the socket for requests to netfilter |
//! | `nftables` | small transactions of nftables |
//! | `owned` | tables that go with the process: locks |
//! | `events` | hearing what changes |
//! | `exec`, `nft` | programs, each with a limit on its time |
//! | `sysctl` | settings below `/proc/sys` |
//! | `reconciler` | the pattern of whatever a task of its own keeps in the kernel |
//! | `holder`, `listening` | who has a port, and on which somebody listens |
//! | `network` | which network of which boot this is |
//! | `host` | the network as values |
//! | `left`, `own` | which addresses are the host's own |

mod advice;
mod arp_announce;
mod door;
mod dump;
pub(crate) mod events;
pub(crate) mod exec;
mod holder;
mod host;
mod left;
mod listening;
pub(crate) mod netfilter;
mod netlink;
mod network;
pub(crate) mod nft;
pub(crate) mod nftables;
mod own;
pub(crate) mod owned;
pub(crate) mod reconciler;
pub(crate) mod routes;
pub(crate) mod rtnetlink;
pub mod sysctl;
mod task;
mod wayback;

pub use advice::{advice, neighbour_advice, translation_advice, way_back_advice};
pub use arp_announce::ArpAnnounce;
pub use door::Door;
pub use events::KernelChange;
pub use holder::port_holder;
pub use host::{
    Binding, Error, Guard, Guarded, Host, Interface, KUBE_VIP_PROTOCOL, Kernel, Lifetime,
    LinkError, Port, Step, Vlan, is_global,
};
pub use left::{Foreign, Left};
pub use listening::Listening;
pub use netlink::Netlink;
pub use network::network_id;
pub use reconciler::Reconciler;
pub use task::Task;
