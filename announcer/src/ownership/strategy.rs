//! The decision, and what a strategy has to say. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use crate::source::cluster::{Cluster, Name};

/// Nodes that could serve an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Every node: the traffic finds an endpoint from anywhere.
    Every,
    /// These nodes only; none if there is no endpoint.
    Only(BTreeSet<String>),
}

impl Candidates {
    /// The candidates for a Service: where its traffic finds a ready endpoint.
    pub fn of(cluster: &Cluster, name: &Name) -> Self {
        let Some(service) = cluster.services().get(name).filter(|service| service.ours) else {
            return Self::none();
        };
        match (service.without_endpoints, service.local) {
            (true, _) => Self::Every,
            (false, true) => {
                Self::Only(cluster.nodes_of(name).into_iter().map(str::to_owned).collect())
            }
            (false, false) if cluster.has_endpoint(name) => Self::Every,
            (false, false) => Self::none(),
        }
    }

    /// Nobody.
    pub fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether `node` is one.
    pub fn contains(&self, node: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Only(nodes) => nodes.contains(node),
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(nodes) if nodes.is_empty())
    }
}

/// What is seen of the other nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Who holds what is decided together, if it is held now.
    pub holder: Option<String>,
}

/// The owner of an address, if it has one.
///
/// With a Lease the holder is the owner if it is a candidate; nobody else may be, not even the last owner, because only
/// the holder knows that nobody else answers.
pub fn elect<'a>(
    candidates: &Candidates,
    view: &'a View,
    _previous: Option<&'a str>,
) -> Option<&'a str> {
    view.holder.as_deref().filter(|holder| candidates.contains(holder))
}

/// A way to decide on owners.
pub trait Strategy: Debug + Send {
    /// For each Service that is ours or has been, the Lease that decides on its addresses. Services with an address in
    /// common are decided together.
    fn leases(&self, cluster: &Cluster) -> BTreeMap<Name, Name>;

    /// Whether `node` should strive for the Lease that decides on `services`. `usable` tells whether the node has the
    /// interface for a Service.
    fn strives(
        &self,
        node: &str,
        services: &BTreeSet<&Name>,
        cluster: &Cluster,
        usable: &dyn Fn(&Name) -> bool,
    ) -> bool;

    /// Leases that are there whether there is a Service or not.
    fn standing(&self) -> Option<&Name>;
}

/// A Service that says it is announced and should not be: somebody must hold its Lease to clear what it says.
pub(super) fn needs_clearing(cluster: &Cluster, name: &Name) -> bool {
    cluster.services().get(name).is_some_and(|service| service.claims_a_host())
        && Candidates::of(cluster, name).is_empty()
}
