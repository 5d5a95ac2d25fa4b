//! Binds and advertises the addresses of Services. Reads what berth-ccm writes; never chooses an address.
//!
//! Data flows one way: watch, then what is wanted, then what is desired, then the plan, then the kernel, the sockets and
//! the status writer. Everything that decides is a pure function of values and a clock that is handed in.
//!
//! | module | owns |
//! |---|---|
//! | `run` | start and end, and which tasks there are |
//! | `sweep` | what earlier lives have left |
//! | `reconcile` | the loop, one round, the plan |
//! | `fencing` | the kernel's fence, as whoever decides on owners drives it |
//! | `peers` | the input and output of membership |
//! | `control_plane` | how the API server of this node is reached and asked |
//! | `publish` | status, Events, writes |
//! | `ownership` | who may answer |
//! | `source` | who wants addresses |
//! | `dataplane` | what the kernel does with packets |
//! | `advertise` | how the network learns where an address is |
//! | `vip` | one address, and all that is wanted of it |
//! | `kernel` | the only door to the kernel |
//! | `kubeadm` | the control plane's static Pod beside kubeadm |
//! | `manifest` | manifests for settings, and what kube-vip's mean here |
//! | `config`, `instance`, `locks` | settings, what is ours on the node, and that nobody else has it |
//!
//! Who imports whom is in docs/architecture.md.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod advertise;
pub mod backoff;
pub mod config;
mod control_plane;
pub mod dataplane;
mod fencing;
pub mod flags;
pub mod instance;
pub mod kernel;
pub mod kubeadm;
pub mod locks;
pub mod manifest;
pub mod metrics;
pub mod ownership;
pub mod peers;
pub mod publish;
pub mod reconcile;
pub mod run;
pub mod source;
pub mod sweep;
pub mod vip;

/// What others send may take memory in proportion only.
#[cfg(test)]
#[global_allocator]
static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;
