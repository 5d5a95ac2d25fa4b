//! What is seen from this node.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_bgp::Filter;

use super::cluster::{Cluster, Eip, Service};
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
    /// The interface of addresses that routers lead here; none where neighbours are told of all.
    pub routed: Option<&'a str>,
    /// What neighbours are told of where routers are told of the rest.
    pub layer2: &'a [Filter],
}

impl<'a> Scene<'a> {
    /// The interface of what routers lead here of a Service, all of whose addresses go one way: that of the first.
    pub fn routed_of(&self, namespace: &str, service: &Service) -> Option<&'a str> {
        self.way(namespace, service.addresses.first(), Some(&service.labels.read))
    }

    /// The same of a binding.
    pub fn routed_of_eip(&self, namespace: &str, eip: &Eip) -> Option<&'a str> {
        self.way(namespace, eip.pairs.first().map(|(address, _)| address), None)
    }

    fn way(
        &self,
        namespace: &str,
        first: Option<&IpAddr>,
        labels: Option<&BTreeMap<String, String>>,
    ) -> Option<&'a str> {
        let pool = || first.and_then(|first| self.cluster.claims.pool(first)).unwrap_or_default();
        let on_lan = |filter: &Filter| filter.covers(pool(), namespace, labels);
        self.routed.filter(|_| !self.layer2.iter().any(on_lan))
    }
}
