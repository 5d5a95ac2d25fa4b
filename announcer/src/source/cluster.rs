//! What is kept of the objects that are watched: only what decides. A plain struct with synchronous changes.

mod asks;
mod claims;
mod eip;
mod networks;
mod nodes;
mod pauses;
mod service;
mod slice;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::Family;

pub use crate::vip::Name;
use crate::vip::serve::Endpoints;
pub use asks::{Asks, Labels};
pub use claims::Claims;
pub use eip::Eip;
pub use networks::Networks;
pub use nodes::Nodes;
pub use pauses::{Pauses, Withheld};
pub use service::{Ingress, Service};
pub use slice::{Addresses, Numbers, Site, Sites, Slice, Taken};

/// What the watches have shown.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    services: BTreeMap<Name, Service>,
    /// By Service, then by EndpointSlice: a Service with many endpoints has many slices.
    endpoints: BTreeMap<Name, BTreeMap<String, Slice>>,
    slices: BTreeMap<Name, Name>,
    /// Whether these are not shown, but Endpoints in their place: kube-proxy may know of more.
    pub slices_denied: bool,
    eips: BTreeMap<Name, Eip>,
    /// The nodes by whose names endpoints are told.
    pub nodes: Nodes,
    /// Who holds which address.
    pub claims: Claims,
    /// Who took a port of another at an address that they share.
    pub pauses: Pauses,
    /// The addresses of routers that nodes speak to, and those by which they know nodes, each with what it is.
    pub routers: BTreeMap<IpAddr, String>,
}

impl Cluster {
    /// Nothing was shown yet.
    pub fn new(claims: Claims) -> Self {
        Self { claims, ..Self::default() }
    }

    /// Takes in that it is `now`, and who takes a port of another at an address that they share.
    pub fn see(&mut self, now: Instant) {
        self.pauses.see(&self.services, &self.claims, now);
    }

    /// Every Service that was shown, ours or not.
    pub fn services(&self) -> &BTreeMap<Name, Service> {
        &self.services
    }

    /// Every `EipBinding` that was shown.
    pub fn eips(&self) -> &BTreeMap<Name, Eip> {
        &self.eips
    }

    /// Takes in an `EipBinding`.
    pub fn apply_eip(&mut self, name: Name, eip: Eip) {
        self.eips.insert(name, eip);
    }

    /// Takes in an `EipBinding` as the answer to a write shows it, unless the watch has shown a later state or its end.
    pub fn apply_written_eip(&mut self, name: Name, written: Eip) {
        let number = |eip: &Eip| eip.version.parse::<u64>().ok();
        let newer = |known: &&Eip| known.uid == written.uid && number(known) < number(&written);
        if self.eips.get(&name).filter(newer).is_some() {
            self.eips.insert(name, written);
        }
    }

    /// Takes in that an `EipBinding` is gone.
    pub fn delete_eip(&mut self, name: &Name) {
        self.eips.remove(name);
    }

    /// Forgets every `EipBinding` that is not in `kept`: a new list did not show it.
    pub fn retain_eips(&mut self, kept: &BTreeSet<Name>) {
        self.eips.retain(|name, _| kept.contains(name));
    }

    /// Takes in a Service.
    pub fn apply_service(&mut self, name: Name, service: Service) {
        self.services.insert(name, service);
    }

    /// Takes in a Service as the answer to a write shows it, unless the watch has shown a later state or its end.
    pub fn apply_written(&mut self, name: Name, written: Service) {
        // Resource versions are numbers that grow (KEP-5504).
        let number = |service: &Service| service.version.parse::<u64>().ok();
        let newer = |known: &&Service| known.uid == written.uid && number(known) < number(&written);
        if let Some(known) = self.services.get(&name).filter(newer) {
            // The answer to a write has no labels.
            let labels = known.labels.clone();
            self.services.insert(name, Service { labels, ..written });
        }
    }

    /// Takes in that a Service is gone.
    pub fn delete_service(&mut self, name: &Name) {
        self.services.remove(name);
    }

    /// Takes in an EndpointSlice.
    pub fn apply_slice(&mut self, slice: Name, read: Option<(Name, Slice)>) {
        self.delete_slice(&slice);
        let Some((service, ready)) = read else { return };
        self.endpoints.entry(service.clone()).or_default().insert(slice.name.clone(), ready);
        self.slices.insert(slice, service);
    }

    /// Takes in that an EndpointSlice is gone.
    pub fn delete_slice(&mut self, slice: &Name) {
        let Some(service) = self.slices.remove(slice) else { return };
        if let Some(of_service) = self.endpoints.get_mut(&service) {
            of_service.remove(&slice.name);
            if of_service.is_empty() {
                self.endpoints.remove(&service);
            }
        }
    }

    /// Forgets every Service that is not in `kept`: a new list did not show it.
    pub fn retain_services(&mut self, kept: &BTreeSet<Name>) {
        self.services.retain(|name, _| kept.contains(name));
    }

    /// Forgets every EndpointSlice that is not in `kept`: a new list did not show it.
    pub fn retain_slices(&mut self, kept: &BTreeSet<Name>) {
        let gone: Vec<Name> =
            self.slices.keys().filter(|slice| !kept.contains(slice)).cloned().collect();
        for slice in gone {
            self.delete_slice(&slice);
        }
    }

    /// The EndpointSlices of a Service.
    pub fn slices(&self, service: &Name) -> impl Iterator<Item = &Slice> {
        self.endpoints.get(service).into_iter().flat_map(BTreeMap::values)
    }

    /// The endpoints of a Service for addresses of a family.
    pub fn endpoints(&self, service: &Name, family: Family) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for slice in self.slices_of(service, family) {
            self.nodes.tell(&slice.ready, &mut endpoints.ready);
            self.nodes.tell(&slice.serving, &mut endpoints.serving);
        }
        endpoints
    }

    /// Whether there are any: nobody asks on which nodes they are, of which there may be many.
    pub fn any_endpoints(&self, service: &Name, family: Family) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for slice in self.slices_of(service, family) {
            endpoints.ready.any |= slice.ready.any;
            endpoints.serving.any |= slice.serving.any;
        }
        endpoints
    }

    fn slices_of(&self, service: &Name, family: Family) -> impl Iterator<Item = &Sites> {
        let of_family =
            self.slices(service).filter(move |slice| slice.family.is_none_or(|own| own == family));
        of_family.map(|slice| &slice.endpoints)
    }
}

/// Objects for the tests of whoever decides on them.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use berth_api::conflict::Conflicts;
    use berth_api::service::{Port, Protocol};

    use super::*;
    use crate::vip::serve::Where;

    /// A Service of ours with these addresses, port 80 of TCP, and nothing else.
    pub(crate) fn service(addresses: &[&str]) -> Service {
        Service {
            uid: "uid".to_owned(),
            version: "1".to_owned(),
            created: String::new(),
            ours: true,
            foreign: false,
            ending: false,
            ignored: false,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            remarks: Arc::default(),
            preferred: Arc::default(),
            ports: vec![Port { protocol: Protocol::Tcp, number: 80 }],
            names: [(Protocol::Tcp, String::new())].into(),
            node_ports: Vec::new(),
            passed_over: false,
            has_more_ports: false,
            local: false,
            health_port: None,
            interface: None,
            vlan: None,
            cluster_ips: Vec::new(),
            without_endpoints: false,
            lease: None,
            published: Vec::new(),
            vip_host: None,
            conflict: Conflicts::default(),
            conditions: Vec::new(),
            labels: Labels::default(),
            asks: Arc::default(),
        }
    }

    /// A binding of these elastic IPs to these VMs that names `node`, in epoch 7.
    pub(crate) fn eip(node: &str, pairs: &[(&str, &str)]) -> Eip {
        let pair = |(eip, vmi): &(&str, &str)| (eip.parse().unwrap(), vmi.parse().unwrap());
        Eip {
            uid: "uid".to_owned(),
            created: String::new(),
            version: "1".to_owned(),
            generation: Some(1),
            node: Some(node.to_owned()),
            target: None,
            pairs: pairs.iter().map(pair).collect(),
            epoch: 7,
            holder: None,
            conflicts: Conflicts::default(),
            conditions: Vec::new(),
            signed: false,
        }
    }

    /// Ready endpoints of the Service `d/<service>` on these nodes.
    pub(crate) fn slice(cluster: &mut Cluster, service: &str, slice: &str, nodes: &[&str]) {
        ending(cluster, service, slice, ready(nodes));
    }

    fn ready(nodes: &[&str]) -> Endpoints {
        let nodes: BTreeSet<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        let ready = Where { any: !nodes.is_empty(), nodes };
        Endpoints { ready, ..Endpoints::default() }
    }

    /// The same of any namespace: of a Service by a slice of its name.
    pub(crate) fn slice_of(cluster: &mut Cluster, service: &Name, nodes: &[&str]) {
        let read = Slice::of(&ready(nodes));
        cluster.apply_slice(service.clone(), Some((service.clone(), read)));
    }

    /// The same with these endpoints, on nodes that are known.
    pub(crate) fn ending(cluster: &mut Cluster, service: &str, slice: &str, endpoints: Endpoints) {
        let nodes = endpoints.ready.nodes.iter().chain(&endpoints.serving.nodes);
        nodes.for_each(|node| _ = cluster.nodes.apply(node));
        let read = Slice::of(&endpoints);
        cluster.apply_slice(Name::new("d", slice), Some((Name::new("d", service), read)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_a_write_never_hides_what_the_watch_has_shown_since() {
        let (mut cluster, name) = (Cluster::default(), Name::new("d", "web"));
        let version =
            |version: &str| Service { version: version.to_owned(), ..testing::service(&[]) };
        cluster.apply_written(name.clone(), version("9"));
        assert!(cluster.services().is_empty(), "it is gone meanwhile");
        cluster.apply_service(name.clone(), version("9"));
        cluster.apply_written(name.clone(), version("10"));
        assert_eq!(cluster.services()[&name].version, "10");
        cluster.apply_written(name.clone(), version("9"));
        assert_eq!(cluster.services()[&name].version, "10");
    }
}
