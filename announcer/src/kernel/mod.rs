//! What this program sees of the kernel and asks of it. Below everything that decides: it knows no Service and no Lease.
//!
//! Addresses are tagged with our protocol number, interfaces with our group, rules live in tables of our own. Only what is
//! tagged is ever removed.

mod advice;
mod arp_announce;
mod events;
mod host;
mod netlink;
pub(crate) mod nft;
pub(crate) mod tables;

pub use advice::{advice, translation_advice};
pub use arp_announce::ArpAnnounce;
pub use events::{Change, watch};
pub use host::{
    Binding, Error, Foreign, GROUP, Guard, Host, Interface, KUBE_VIP_PROTOCOL, Kernel, Lifetime,
    LinkError, PROTOCOL, Port, Step, Vlan,
};
pub use netlink::Netlink;
