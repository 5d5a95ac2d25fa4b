//! The kernel half in throwaway network namespaces, judged from outside: by `ip -j`, `nft` and `tcpdump`. Needs root.
#![allow(clippy::unwrap_used)]

mod addresses;
mod announcements;
mod closed;
mod cluster;
mod elsewhere;
mod forward;
mod instances;
mod kept;
mod lan;
mod members;

mod namespace;
mod nat;
mod neighbours;
mod rounds;
mod settings;
mod unserved;
mod vlan;
mod wayback;
