//! What is kept of the objects that are watched: only what decides. A plain struct with synchronous changes.

mod claims;
mod eip;
mod networks;
mod pauses;
mod service;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::Family;
use berth_api::names::label;
use berth_api::service::Protocol;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

pub use crate::vip::Name;
pub use claims::Claims;
pub use eip::{Eip, manager};
pub use networks::Networks;
pub use pauses::{Pauses, Withheld};
pub use service::{Ingress, Service};

/// What matters of one EndpointSlice: where endpoints are ready, and to what it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// Whether one is ready; it need not be on a node. Never where another proxy than kube-proxy serves them.
    pub any: bool,
    /// The nodes that have one.
    pub nodes: BTreeSet<String>,
    /// The family of all of them; none of what has names for addresses.
    pub family: Option<Family>,
    /// The names of their ports.
    pub ports: BTreeSet<(Protocol, String)>,
    /// The addresses of all, ready or not.
    pub addresses: Vec<IpAddr>,
}

impl Ready {
    /// Reads what matters of an EndpointSlice; nothing if it belongs to no Service.
    pub fn read(slice: &EndpointSlice) -> Option<(Name, Self)> {
        let labels = slice.metadata.labels.as_ref()?;
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let service = Name::new(namespace, labels.get(label::SERVICE_NAME)?);
        let mut ready = Self {
            family: match slice.address_type.as_str() {
                "IPv4" => Some(Family::V4),
                "IPv6" => Some(Family::V6),
                _ => None,
            },
            ports: slice.ports.iter().flatten().map(port_name).collect(),
            addresses: slice.endpoints.iter().filter_map(address).collect(),
            ..Self::default()
        };
        if labels.contains_key(label::PROXY_NAME) {
            return Some((service, ready));
        }
        for endpoint in &slice.endpoints {
            // An endpoint that says nothing is ready (discovery/v1 EndpointConditions).
            let conditions = endpoint.conditions.as_ref();
            if !conditions.and_then(|conditions| conditions.ready).unwrap_or(true) {
                continue;
            }
            ready.any = true;
            ready.nodes.extend(endpoint.node_name.clone());
        }
        Some((service, ready))
    }
}

fn port_name(port: &EndpointPort) -> (Protocol, String) {
    (Protocol::read(port.protocol.as_deref()), port.name.clone().unwrap_or_default())
}

/// The only one of its addresses that kube-proxy reads.
fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

/// What the watches have shown.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    services: BTreeMap<Name, Service>,
    /// By Service, then by EndpointSlice: a Service with many endpoints has many slices.
    endpoints: BTreeMap<Name, BTreeMap<String, Ready>>,
    slices: BTreeMap<Name, Name>,
    eips: BTreeMap<Name, Eip>,
    /// Who holds which address.
    pub claims: Claims,
    /// Who took a port of another at an address that they share.
    pub pauses: Pauses,
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
        if self.services.get(&name).filter(newer).is_some() {
            self.services.insert(name, written);
        }
    }

    /// Takes in that a Service is gone.
    pub fn delete_service(&mut self, name: &Name) {
        self.services.remove(name);
    }

    /// Takes in an EndpointSlice.
    pub fn apply_slice(&mut self, slice: Name, read: Option<(Name, Ready)>) {
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

    /// Whether a Service has a ready endpoint anywhere.
    pub fn has_endpoint(&self, service: &Name) -> bool {
        self.ready(service).any(|ready| ready.any)
    }

    /// The nodes that have a ready endpoint of a Service.
    pub fn nodes_of(&self, service: &Name) -> BTreeSet<&str> {
        self.ready(service).flat_map(|ready| ready.nodes.iter().map(String::as_str)).collect()
    }

    /// The EndpointSlices of a Service.
    pub fn ready(&self, service: &Name) -> impl Iterator<Item = &Ready> {
        self.endpoints.get(service).into_iter().flat_map(BTreeMap::values)
    }
}

/// Objects for the tests of whoever decides on them.
#[cfg(test)]
pub(crate) mod testing {
    use std::sync::Arc;

    use berth_api::conflict::Conflicts;
    use berth_api::service::Port;

    use super::*;

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
            interface: None,
            vlan: None,
            cluster_ips: Vec::new(),
            without_endpoints: false,
            lease: None,
            published: Vec::new(),
            vip_host: None,
            conflict: Conflicts::default(),
            conditions: Vec::new(),
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
        let nodes: BTreeSet<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        let ready = Ready { any: !nodes.is_empty(), nodes, ..Ready::default() };
        cluster.apply_slice(Name::new("d", slice), Some((Name::new("d", service), ready)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn slice(name: &str, service: &str, endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": { "namespace": "d", "name": name, "labels": { label::SERVICE_NAME: service } },
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn apply(cluster: &mut Cluster, slice: &EndpointSlice) {
        cluster.apply_slice(Name::of(&slice.metadata), Ready::read(slice));
    }

    #[test]
    fn endpoints_count_over_all_slices_and_only_while_they_are_ready() {
        let mut cluster = Cluster::default();
        let web = Name::new("d", "web");
        let endpoint = |node, ready| json!([{ "addresses": ["10.0.0.1"], "nodeName": node, "conditions": { "ready": ready } }]);
        apply(&mut cluster, &slice("web-1", "web", endpoint("a", true)));
        apply(&mut cluster, &slice("web-2", "web", endpoint("b", true)));
        apply(&mut cluster, &slice("web-3", "web", endpoint("c", false)));
        assert_eq!(cluster.nodes_of(&web), ["a", "b"].into());
        apply(&mut cluster, &slice("web-1", "web", endpoint("a", false)));
        assert!(cluster.has_endpoint(&web));
        assert_eq!(cluster.nodes_of(&web), ["b"].into());
        cluster.retain_slices(&[Name::new("d", "web-1")].into());
        assert!(!cluster.has_endpoint(&web), "a slice that a new list does not show is gone");
    }

    #[test]
    fn an_endpoint_that_says_nothing_is_ready() {
        let mut cluster = Cluster::default();
        apply(&mut cluster, &slice("s", "web", json!([{ "addresses": ["10.0.0.1"] }])));
        assert!(cluster.has_endpoint(&Name::new("d", "web")));
        assert!(cluster.nodes_of(&Name::new("d", "web")).is_empty());
    }

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
