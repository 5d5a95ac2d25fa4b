//! The nodes of the cluster, as far as they may be peers. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::names::annotation;
use berth_api::preference::Preference;
use berth_membership::NodeId;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::Node;

/// Nodes with it take no traffic from outside (`v1.LabelNodeExcludeBalancers`, KEP-1143).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A node, as far as it may be a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its internal addresses, in the order of its status.
    pub addresses: Vec<IpAddr>,
    /// Whether it is being emptied: cordoned, excluded from load balancing, or annotated so.
    pub emptied: bool,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The networks of its pods (`spec.podCIDRs`).
    pub pods: Vec<IpNetwork>,
}

impl Peer {
    /// Reads what matters of a Node.
    pub fn read(node: &Node) -> Self {
        let status = node.status.as_ref().and_then(|status| status.addresses.as_deref());
        let internal = status.unwrap_or_default().iter().filter(|a| a.type_ == "InternalIP");
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let notes = node.metadata.annotations.as_ref();
        let drained = notes.and_then(|notes| notes.get(annotation::DRAIN));
        let drained = drained.is_some_and(|value| value == "true");
        let pods = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref());
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        Self {
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            emptied: cordoned || drained || labels.contains_key(EXCLUDED),
            labels,
            pods: pods.unwrap_or_default().iter().filter_map(|pods| pods.parse().ok()).collect(),
        }
    }
}

/// The nodes, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers(BTreeMap<String, Peer>);

impl Peers {
    /// Takes in a node; true if that changed anything.
    pub fn apply(&mut self, name: String, peer: Peer) -> bool {
        let before = self.0.insert(name.clone(), peer);
        before.as_ref() != self.0.get(&name)
    }

    /// Takes in that a node is gone.
    pub fn delete(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// Forgets every node that is not in `kept`.
    pub fn retain(&mut self, kept: &BTreeSet<String>) -> bool {
        let before = self.0.len();
        self.0.retain(|name, _| kept.contains(name));
        self.0.len() != before
    }

    /// The internal addresses of a node; none if there is no such node.
    pub fn addresses_of(&self, name: &str) -> &[IpAddr] {
        self.0.get(name).map_or(&[], |peer| &peer.addresses)
    }

    /// Every node.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Peer)> {
        self.0.iter().map(|(name, peer)| (name.as_str(), peer))
    }

    /// The nodes that one of these means.
    pub fn meant(&self, preferences: &[Preference]) -> Vec<NodeId> {
        let meant = |name: &str, peer: &Peer| {
            preferences.iter().any(|preference| preference.means(name, &peer.labels))
        };
        self.iter()
            .filter(|(name, peer)| meant(name, peer))
            .map(|(name, _)| NodeId::of(name))
            .collect()
    }

    /// Of these nodes, those that take addresses: not the ones being emptied, unless all are.
    pub fn takers<'a>(&'a self, among: impl Fn(&str) -> bool + 'a) -> Vec<NodeId> {
        let asked = || self.iter().filter(|(name, _)| among(name));
        let staying: Vec<NodeId> =
            asked().filter(|(_, peer)| !peer.emptied).map(|(name, _)| NodeId::of(name)).collect();
        match staying.is_empty() {
            true => asked().map(|(name, _)| NodeId::of(name)).collect(),
            false => staying,
        }
    }
}

#[cfg(test)]
mod tests {
    use berth_api::preference::Preferences;
    use serde_json::json;

    use super::*;

    fn read(node: serde_json::Value) -> Peer {
        Peer::read(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_node_is_read_with_its_internal_addresses_and_whether_it_is_being_emptied() {
        let addresses = json!([
            { "type": "Hostname", "address": "a" },
            { "type": "ExternalIP", "address": "203.0.113.1" },
            { "type": "InternalIP", "address": "10.0.0.11" },
            { "type": "InternalIP", "address": "fd00::11" },
        ]);
        let peer = read(json!({ "status": { "addresses": addresses } }));
        let expected: Vec<IpAddr> = ["10.0.0.11", "fd00::11"].map(|a| a.parse().unwrap()).into();
        assert_eq!((peer.addresses, peer.emptied), (expected, false));
        assert!(read(json!({ "spec": { "unschedulable": true } })).emptied);
        let drain =
            |value: &str| json!({ "metadata": { "annotations": { "berth.dev/drain": value } } });
        assert!(read(drain("true")).emptied && !read(drain("false")).emptied);
        assert!(read(json!({ "metadata": { "labels": { EXCLUDED: "" } } })).emptied);
    }

    #[test]
    fn a_service_may_prefer_nodes_by_name_and_by_label() {
        let mut peers = Peers::default();
        for name in ["a", "b", "c"] {
            let labels = [("rack".to_owned(), name.to_owned())].into();
            peers.apply(name.to_owned(), Peer { labels, ..Peer::default() });
        }
        let preferences = Preferences::parse("a,rack=c,gone").read;
        assert_eq!(peers.meant(&preferences), [NodeId::of("a"), NodeId::of("c")]);
    }

    #[test]
    fn nodes_that_are_being_emptied_take_nothing_unless_all_are() {
        let mut peers = Peers::default();
        let emptied = |emptied| Peer { emptied, ..Peer::default() };
        peers.apply("a".to_owned(), emptied(true));
        peers.apply("b".to_owned(), emptied(false));
        assert_eq!(peers.takers(|_| true), [NodeId::of("b")]);
        assert_eq!(peers.takers(|name| name == "a"), [NodeId::of("a")]);
    }
}
