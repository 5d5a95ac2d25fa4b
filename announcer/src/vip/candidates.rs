//! Which nodes could serve an address.

use std::collections::BTreeSet;

/// Nodes that could serve an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Candidates {
    /// Every node: the traffic finds an endpoint from anywhere.
    Every,
    /// These nodes only; none if there is no endpoint.
    Only(BTreeSet<String>),
    /// This node and no other, whether or not it is being emptied: it has the VM.
    Named(String),
}

impl Candidates {
    /// Nobody.
    pub fn none() -> Self {
        Self::Only(BTreeSet::new())
    }

    /// Whether `node` is one.
    pub fn contains(&self, node: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Only(nodes) => nodes.contains(node),
            Self::Named(named) => named == node,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Only(nodes) if nodes.is_empty())
    }
}
