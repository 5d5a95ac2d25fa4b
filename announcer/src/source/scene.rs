//! What is seen from this node.

use super::cluster::Cluster;
use crate::config::Permits;
use crate::kernel::Host;

/// What is seen from this node.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// What the watches have shown.
    pub cluster: &'a Cluster,
    /// What the kernel has shown.
    pub host: &'a Host,
    /// This node.
    pub node: &'a str,
    /// Interface for addresses that name none; none for that of the default route.
    pub interface: Option<&'a str>,
    /// Which others Services may name.
    pub permits: &'a Permits,
    /// The interface of addresses that routers lead here; none where neighbours are told of them.
    pub routed: Option<&'a str>,
}
