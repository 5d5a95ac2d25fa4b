//! What is kept of an EndpointSlice: as little as decides, since whoever may write them fills them as they like. Names are kept
//! as numbers, addresses as their octets.

use std::collections::BTreeSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_api::Family;
use berth_api::lean::{Take, strip};
use berth_api::names::label;
use berth_api::service::Protocol;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::vip::Name;
use crate::vip::serve::{Endpoints, Where};

/// What matters of one EndpointSlice: where endpoints are, and to what it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The family of their addresses; nothing where they have names, or it is not said.
    pub family: Option<Family>,
    /// Where they are. None counts where another proxy than kube-proxy serves them, or where they have no port, as pods
    /// without the one that a Service names.
    pub endpoints: Sites,
    /// The names of their ports; without a number kube-proxy passes a port over.
    pub ports: Numbers,
    /// The addresses of all, ready or not.
    pub addresses: Addresses,
}

/// Where the endpoints of one slice are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sites {
    /// Those that are ready.
    pub ready: Site,
    /// Those that are being ended and serve until then.
    pub serving: Site,
}

/// Where some of them are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Whether there is one at all; it need not be on a node.
    pub any: bool,
    /// The nodes that have one.
    pub nodes: Numbers,
}

impl Site {
    /// On these nodes.
    pub(super) fn of(all: &Where) -> Self {
        Self { any: all.any, nodes: all.nodes.iter().map(String::as_str).collect() }
    }
}

/// Names, each as the number that comes of it, once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Box<[u64]>);

/// The number of a name.
pub(super) fn hash(name: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    name.hash(&mut hasher);
    hasher.finish()
}

impl Numbers {
    /// Whether this name is among them.
    pub fn contains(&self, name: impl Hash) -> bool {
        self.0.binary_search(&hash(name)).is_ok()
    }

    /// Each of them, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.0.iter().copied()
    }
}

impl<T: Hash> FromIterator<T> for Numbers {
    fn from_iter<I: IntoIterator<Item = T>>(names: I) -> Self {
        names
            .into_iter()
            .map(hash)
            .collect::<BTreeSet<u64>>()
            .into_iter()
            .collect::<Vec<_>>()
            .into()
    }
}

impl From<Vec<u64>> for Numbers {
    fn from(numbers: Vec<u64>) -> Self {
        Self(numbers.into())
    }
}

/// Addresses, those of IPv4 first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addresses {
    v4: Box<[Ipv4Addr]>,
    v6: Box<[Ipv6Addr]>,
}

impl Addresses {
    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = IpAddr> {
        let v6 = self.v6.iter().copied().map(IpAddr::from);
        self.v4.iter().copied().map(IpAddr::from).chain(v6)
    }
}

impl FromIterator<IpAddr> for Addresses {
    fn from_iter<I: IntoIterator<Item = IpAddr>>(all: I) -> Self {
        let (mut four, mut six) = (Vec::new(), Vec::new());
        for address in all {
            match address {
                IpAddr::V4(address) => four.push(address),
                IpAddr::V6(address) => six.push(address),
            }
        }
        Self { v4: four.into(), v6: six.into() }
    }
}

/// What is taken of an EndpointSlice as soon as it is decoded; nothing if it belongs to no Service.
#[derive(Clone, Debug)]
pub struct Taken(pub Option<(Name, Slice)>);

impl Take<EndpointSlice> for Taken {
    fn take(slice: &mut EndpointSlice) -> Self {
        let taken = Self(Slice::read(slice));
        strip(&mut slice.metadata);
        slice.metadata.annotations = None;
        (slice.endpoints, slice.ports) = (Vec::new(), None);
        taken
    }
}

impl Slice {
    /// One that has these endpoints, and says nothing else.
    pub fn of(endpoints: &Endpoints) -> Self {
        let Endpoints { ready, serving } = endpoints;
        let endpoints = Sites { ready: Site::of(ready), serving: Site::of(serving) };
        Self { endpoints, ..Self::default() }
    }

    /// Reads what matters of an EndpointSlice; nothing if it belongs to no Service.
    pub fn read(slice: &EndpointSlice) -> Option<(Name, Self)> {
        let labels = slice.metadata.labels.as_ref()?;
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let service = Name::new(namespace, labels.get(label::SERVICE_NAME)?);
        let mut read = Self {
            family: match slice.address_type.as_str() {
                "IPv4" => Some(Family::V4),
                "IPv6" => Some(Family::V6),
                _ => None,
            },
            ports: slice.ports.iter().flatten().filter_map(port_name).collect(),
            addresses: slice.endpoints.iter().filter_map(address).collect(),
            ..Self::default()
        };
        if !labels.contains_key(label::PROXY_NAME) && read.ports.iter().next().is_some() {
            let of = |is_ready: bool| {
                slice.endpoints.iter().filter(move |endpoint| side(endpoint) == Some(is_ready))
            };
            let site = |is_ready: bool| Site {
                any: of(is_ready).next().is_some(),
                nodes: of(is_ready).filter_map(|own| own.node_name.as_deref()).collect(),
            };
            read.endpoints = Sites { ready: site(true), serving: site(false) };
        }
        Some((service, read))
    }
}

/// Whether an endpoint is ready, or serves until it ends, as kube-proxy has it do where none is ready; nothing if neither.
fn side(endpoint: &Endpoint) -> Option<bool> {
    let conditions = endpoint.conditions.as_ref();
    let is = |ready: Option<bool>| ready == Some(true);
    // An endpoint that says nothing is ready (discovery/v1 EndpointConditions).
    if conditions.and_then(|said| said.ready).unwrap_or(true) {
        return Some(true);
    }
    conditions.filter(|said| is(said.serving) && is(said.terminating)).map(|_| false)
}

fn port_name(port: &EndpointPort) -> Option<(Protocol, String)> {
    port.port.filter(|number| *number > 0)?;
    Some((Protocol::read(port.protocol.as_deref()), port.name.clone().unwrap_or_default()))
}

/// The only one of its addresses that kube-proxy reads.
fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use berth_api::lean::Lean;
    use serde_json::json;

    use super::super::Cluster;
    use super::*;

    fn slice(name: &str, endpoints: serde_json::Value) -> EndpointSlice {
        serde_json::from_value(json!({
            "addressType": "IPv4",
            "metadata": { "namespace": "d", "name": name, "labels": { label::SERVICE_NAME: "web" } },
            "ports": [{ "port": 8080 }],
            "endpoints": endpoints,
        }))
        .unwrap()
    }

    fn endpoint(node: &str, conditions: serde_json::Value) -> serde_json::Value {
        json!([{ "addresses": ["10.0.0.1"], "nodeName": node, "conditions": conditions }])
    }

    fn apply(cluster: &mut Cluster, slice: &EndpointSlice) {
        let nodes = slice.endpoints.iter().filter_map(|endpoint| endpoint.node_name.as_deref());
        nodes.for_each(|node| _ = cluster.nodes.apply(node));
        cluster.apply_slice(Name::of(&slice.metadata), Slice::read(slice));
    }

    /// The nodes with ready endpoints of IPv4, and with those that serve until they end.
    fn nodes(cluster: &Cluster) -> (Vec<String>, Vec<String>) {
        let Endpoints { ready, serving } = cluster.endpoints(&Name::new("d", "web"), Family::V4);
        assert_eq!((ready.any, serving.any), (!ready.nodes.is_empty(), !serving.nodes.is_empty()));
        (ready.nodes.into_iter().collect(), serving.nodes.into_iter().collect())
    }

    fn names(nodes: &[&str]) -> Vec<String> {
        nodes.iter().map(|node| (*node).to_owned()).collect()
    }

    #[test]
    fn endpoints_count_over_all_slices_while_they_are_ready_or_serve_until_they_end() {
        let mut cluster = Cluster::default();
        let is = |ready: bool| json!({ "ready": ready });
        let ending =
            |serving: bool| json!({ "ready": false, "serving": serving, "terminating": true });
        for (name, node, conditions) in [
            ("web-1", "a", is(true)),
            ("web-2", "b", is(true)),
            ("web-3", "c", is(false)),
            ("web-4", "d", ending(true)),
            ("web-5", "e", ending(false)),
            ("web-6", "f", json!({ "ready": false, "serving": true, "terminating": false })),
        ] {
            apply(&mut cluster, &slice(name, endpoint(node, conditions)));
        }
        assert_eq!(nodes(&cluster), (names(&["a", "b"]), names(&["d"])));
        apply(&mut cluster, &slice("web-1", endpoint("a", is(false))));
        assert_eq!(nodes(&cluster).0, ["b"]);
        cluster.retain_slices(&[Name::new("d", "web-1")].into());
        assert_eq!(
            nodes(&cluster),
            (names(&[]), names(&[])),
            "what a new list does not show is gone"
        );
    }

    #[test]
    fn an_endpoint_that_says_nothing_is_ready_and_counts_for_the_family_of_its_slice() {
        let mut cluster = Cluster::default();
        apply(&mut cluster, &slice("s", json!([{ "addresses": ["10.0.0.1"] }])));
        let of = |family| cluster.endpoints(&Name::new("d", "web"), family).ready;
        assert!(of(Family::V4).any && of(Family::V4).nodes.is_empty());
        assert!(!of(Family::V6).any);
    }

    #[test]
    fn an_endpoint_without_the_port_that_a_service_names_is_on_no_node() {
        let endpoint = json!([{ "addresses": ["10.0.0.1"], "nodeName": "a" }]);
        for ports in [None, Some(vec![]), Some(vec![EndpointPort::default()])] {
            let mut cluster = Cluster::default();
            let with = slice("web-1", endpoint.clone());
            apply(&mut cluster, &EndpointSlice { ports, ..with });
            let endpoints = cluster.endpoints(&Name::new("d", "web"), Family::V4);
            assert_eq!(endpoints, Endpoints::default());
        }
    }

    #[test]
    fn what_is_kept_of_a_slice_is_a_few_octets_of_each_endpoint_and_port_however_long_their_names()
    {
        let long = vec!["x".repeat(60); 4].join(".");
        let endpoint = |n: u16| {
            let [high, low] = n.to_be_bytes();
            json!({ "addresses": [format!("10.9.{high}.{low}")], "nodeName": format!("n{n}.{long}") })
        };
        let port = |n: u16| json!({ "name": format!("p{n}-{}", "x".repeat(50)), "port": 1 + n });
        let metadata = |n: u16| {
            json!({
                "namespace": "d", "name": format!("ghost-{n}"),
                "labels": { label::SERVICE_NAME: "ghost", "kept": "not" },
                "annotations": { "text": "x".repeat(100_000) },
            })
        };
        let text = |n: u16| {
            let object = json!({
                "addressType": "IPv4", "metadata": metadata(n),
                "ports": (0..1000).map(port).collect::<Vec<_>>(),
                "endpoints": (0..1000).map(endpoint).collect::<Vec<_>>(),
            });
            object.to_string()
        };
        let texts: Vec<String> = (0..20).map(text).collect();
        assert!(texts[0].len() > 400_000);
        let mut cluster = Cluster::default();
        let ((), kept) = berth_hostile::kept(|| {
            for (n, text) in texts.iter().enumerate() {
                let lean: Lean<EndpointSlice, Taken> = serde_json::from_str(text).unwrap();
                let rest = format!("{:?}", lean.object);
                assert!(rest.len() < 2_000, "{rest}");
                cluster.apply_slice(Name::new("d", format!("ghost-{n}")), lean.taken.0);
            }
        });
        assert!(kept / 20 < 24_000, "{kept}");
        let endpoints = cluster.endpoints(&Name::new("d", "ghost"), Family::V4);
        assert_eq!(endpoints.ready.nodes.len(), 1000, "and each is another node");
    }
}
