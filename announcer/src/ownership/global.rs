//! One Lease for all Services, kube-vip's `plndr-svcs-lock`: its holder owns every address it is a candidate for.

use std::collections::{BTreeMap, BTreeSet};

use super::strategy::Strategy;
use crate::source::cluster::{Cluster, Name};

/// One Lease for all Services. Its cost does not grow with their number.
#[derive(Clone, Debug)]
pub struct Global {
    lease: Name,
}

impl Global {
    /// Decides by `lease`.
    pub fn new(lease: Name) -> Self {
        Self { lease }
    }
}

impl Strategy for Global {
    fn leases(&self, cluster: &Cluster) -> BTreeMap<Name, Name> {
        cluster.services().keys().map(|name| (name.clone(), self.lease.clone())).collect()
    }

    /// As in kube-vip every node does, with or without an endpoint: the Lease has to have a holder.
    fn strives(
        &self,
        _node: &str,
        _services: &BTreeSet<&Name>,
        _cluster: &Cluster,
        _usable: &dyn Fn(&Name) -> bool,
    ) -> bool {
        true
    }

    fn standing(&self) -> Option<&Name> {
        Some(&self.lease)
    }
}
