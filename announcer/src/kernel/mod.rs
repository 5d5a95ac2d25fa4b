//! What this program sees of the kernel and asks of it. Below everything that decides: it knows no Service and no Lease.
//!
//! Addresses are tagged with our protocol number, interfaces with our group, rules live in tables of our own. Only what is
//! tagged is ever removed.

mod advice;
mod arp_announce;
pub mod detour;
mod events;
pub mod guard;
mod host;
mod netlink;
mod nft;
mod tables;

pub use advice::{advice, translation_advice};
pub use arp_announce::ArpAnnounce;
pub use detour::Detours;
pub use events::{Change, watch};
pub use host::{
    Binding, Error, Foreign, GROUP, Guard, Host, Interface, KUBE_VIP_PROTOCOL, Kernel, Lifetime,
    LinkError, PROTOCOL, Port, Step, Vlan,
};
pub use netlink::Netlink;
