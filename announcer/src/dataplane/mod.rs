//! What the kernel does with the packets of our addresses: one module for each thing that is kept there.
//!
//! | module | keeps |
//! |---|---|
//! | `unserved` | the guard that drops what kube-proxy does not serve yet |
//! | `forward` | where packets of connections go that began at an address's previous owner |
//! | `eip` | the translation of elastic IPs |

pub mod eip;
pub mod forward;
pub mod unserved;
