//! One Lease for each Service, kube-vip's `svc_election`: `kubevip-<service>` in the Service's namespace.
//!
//! Services that share an address share the Lease of the oldest of them, so that the address has one owner, and so that
//! a Service that joins later moves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::names::lease;

use super::strategy::{Candidates, Strategy, needs_clearing};
use crate::source::cluster::{Cluster, Name, Service};

/// One Lease for each Service. Its cost grows with their number.
#[derive(Clone, Copy, Debug)]
pub struct PerService;

impl Strategy for PerService {
    fn leases(&self, cluster: &Cluster) -> BTreeMap<Name, Name> {
        let mut oldest_first: Vec<(&Name, &Service)> = cluster
            .services()
            .iter()
            .filter(|(_, service)| service.ours || service.claims_a_host())
            .collect();
        oldest_first.sort_by_key(|(name, service)| (&service.created, *name));
        let mut leases: BTreeMap<Name, Name> = BTreeMap::new();
        let mut of_address: BTreeMap<IpAddr, Name> = BTreeMap::new();
        for (name, service) in oldest_first {
            let shared = service.addresses.iter().find_map(|address| of_address.get(address));
            let lease = shared.cloned().unwrap_or_else(|| own_lease(name, service));
            if service.ours {
                for address in &service.addresses {
                    of_address.entry(*address).or_insert_with(|| lease.clone());
                }
            }
            leases.insert(name.clone(), lease);
        }
        leases
    }

    fn strives(
        &self,
        node: &str,
        services: &BTreeSet<&Name>,
        cluster: &Cluster,
        usable: &dyn Fn(&Name) -> bool,
    ) -> bool {
        let serves = |name: &Name| {
            let addressed = |service: &Service| service.ours && !service.addresses.is_empty();
            cluster.services().get(name).is_some_and(addressed)
                && Candidates::of(cluster, name).contains(node)
                && usable(name)
        };
        services.iter().any(|name| serves(name) || needs_clearing(cluster, name))
    }

    fn standing(&self) -> Option<&Name> {
        None
    }
}

fn own_lease(name: &Name, service: &Service) -> Name {
    let lease = service.lease.clone().unwrap_or_else(|| lease::of_service(&name.name));
    Name::new(&name.namespace, lease)
}
