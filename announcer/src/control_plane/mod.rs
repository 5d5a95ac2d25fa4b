//! How the API server of this node is reached and asked, for an announcer that has the control plane's address.
//!
//! | file | owns |
//! |---|---|
//! | `credentials` | which kubeconfig is asked with |
//! | `access` | a client that goes on with another kubeconfig, without a restart |
//! | `checker` | asking the API server whether it is healthy |
//! | `alive` | hearing at once that it has ended |
//! | `reach` | whether who comes by the address meets it |
//! | `others` | asking those of other nodes, while it is not |
//! | `certificate` | telling of a certificate that does not have the address |
//! | `expiry` | until when the certificate of a kubeconfig is good |
//! | `names` | which addresses its names have |
//! | `place` | whether the address has a place on this node |
//! | `nodes` | whether it is another node's |

pub(crate) mod access;
mod alive;
pub(crate) mod certificate;
pub(crate) mod checker;
mod credentials;
mod expiry;
pub(crate) mod names;
pub(crate) mod nodes;
pub(crate) mod others;
pub(crate) mod place;
mod reach;
