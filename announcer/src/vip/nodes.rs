//! The nodes of the cluster, as far as they may be peers. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::names::annotation;
use berth_api::preference::Preference;
use berth_membership::NodeId;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1::{Node, Taint};

/// Nodes with it take no traffic from outside (`v1.LabelNodeExcludeBalancers`, KEP-1143).
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What a kubelet says of its node that is being switched off, among other things in the message of the condition `Ready`
/// (`nodeshutdown` in kubernetes/pkg/kubelet, KEP-2000).
const SHUTS_DOWN: &str = "node is shutting down";

/// Annotations that are kept of a node, and the octets of each.
const MOST_NOTES: usize = 256;
const LONGEST_NOTE: usize = 1024;

/// Whether a node stays where traffic from outside comes in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stay {
    /// It does.
    #[default]
    Stays,
    /// New pods are kept away from it: it keeps what it has and goes later for what is new. Kubernetes takes a cordoned
    /// node out of no load balancer since 1.19 (kubernetes#90823).
    Cordoned,
    /// It is being emptied: it gives what it has to others, and goes last.
    Emptied,
}

/// A node, as far as it may be a peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Its internal addresses, in the order of its status.
    pub addresses: Vec<IpAddr>,
    /// Whether it stays. Emptied it is where it is excluded from load balancing, annotated so, or has a taint that the
    /// operator lists.
    pub stay: Stay,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The networks of its pods (`spec.podCIDRs`).
    pub pods: Vec<IpNetwork>,
    /// Whether it is being switched off, as its kubelet says: the pods on it end before it does.
    pub shuts_down: bool,
    /// What its annotations say to announcers by BGP: those with the prefix that is set.
    pub notes: Notes,
}

/// Annotations of a node, by their whole keys.
pub type Notes = BTreeMap<String, String>;

impl Peer {
    /// The same with those of its annotations that have this prefix, if any is set.
    #[must_use]
    pub fn noting(self, node: &Node, prefix: Option<&str>) -> Self {
        let Some(prefix) = prefix else { return self };
        let all = node.metadata.annotations.iter().flatten();
        let ours =
            all.filter(|(key, _)| key.strip_prefix(prefix).is_some_and(|key| key.starts_with('/')));
        let ours = ours.filter(|(_, value)| value.len() <= LONGEST_NOTE).take(MOST_NOTES);
        let notes = ours.map(|(key, value)| (key.clone(), value.clone())).collect();
        Self { notes, ..self }
    }

    /// Reads what matters of a Node, which is emptied with a taint that `drains`.
    pub fn read(node: &Node, drains: impl Fn(&Taint) -> bool) -> Self {
        let status = node.status.as_ref();
        let conditions = status.and_then(|status| status.conditions.as_deref());
        let shuts_down = conditions.unwrap_or_default().iter().any(|told| {
            let says = told.message.as_ref().is_some_and(|message| message.contains(SHUTS_DOWN));
            says && told.type_ == "Ready" && told.status == "False"
        });
        let addresses = status.and_then(|status| status.addresses.as_deref());
        let internal = addresses.unwrap_or_default().iter().filter(|a| a.type_ == "InternalIP");
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let notes = node.metadata.annotations.as_ref();
        let drained = notes.and_then(|notes| notes.get(annotation::DRAIN));
        let drained = drained.is_some_and(|value| value == "true");
        let pods = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_deref());
        let cordoned = node.spec.as_ref().and_then(|spec| spec.unschedulable) == Some(true);
        let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
        let tainted = taints.unwrap_or_default().iter().any(drains);
        Self {
            addresses: internal.filter_map(|address| address.address.parse().ok()).collect(),
            stay: match drained || tainted || labels.contains_key(EXCLUDED) {
                true => Stay::Emptied,
                false if cordoned => Stay::Cordoned,
                false => Stay::Stays,
            },
            labels,
            shuts_down,
            pods: pods.unwrap_or_default().iter().filter_map(|pods| pods.parse().ok()).collect(),
            notes: Notes::new(),
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

    /// A node.
    pub fn get(&self, name: &str) -> Option<&Peer> {
        self.0.get(name)
    }

    /// The internal addresses of a node; none if there is no such node.
    pub fn addresses_of(&self, name: &str) -> &[IpAddr] {
        self.get(name).map_or(&[], |peer| &peer.addresses)
    }

    /// Whether a node stays; nothing if there is no such node.
    pub fn stay(&self, name: &str) -> Option<Stay> {
        self.get(name).map(|peer| peer.stay)
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
}

#[cfg(test)]
mod tests {
    use berth_api::preference::Preferences;
    use serde_json::json;

    use super::*;

    fn read(node: serde_json::Value) -> Peer {
        let drains = |taint: &Taint| taint.key == "out-of-service";
        Peer::read(&serde_json::from_value(node).unwrap(), drains)
    }

    #[test]
    fn a_node_is_read_with_its_internal_addresses_and_whether_it_stays() {
        let addresses = json!([
            { "type": "Hostname", "address": "a" },
            { "type": "ExternalIP", "address": "203.0.113.1" },
            { "type": "InternalIP", "address": "10.0.0.11" },
            { "type": "InternalIP", "address": "fd00::11" },
        ]);
        let peer = read(json!({ "status": { "addresses": addresses } }));
        let expected: Vec<IpAddr> = ["10.0.0.11", "fd00::11"].map(|a| a.parse().unwrap()).into();
        assert_eq!((peer.addresses, peer.stay), (expected, Stay::Stays));
        let stay = |node: serde_json::Value| read(node).stay;
        assert_eq!(stay(json!({ "spec": { "unschedulable": true } })), Stay::Cordoned);
        let drain =
            |value: &str| json!({ "metadata": { "annotations": { "berth.dev/drain": value } } });
        assert_eq!((stay(drain("true")), stay(drain("false"))), (Stay::Emptied, Stay::Stays));
        assert_eq!(stay(json!({ "metadata": { "labels": { EXCLUDED: "" } } })), Stay::Emptied);
        let taint = |key: &str| {
            let taints = json!([{ "key": key, "effect": "NoSchedule" }]);
            json!({ "spec": { "unschedulable": true, "taints": taints } })
        };
        assert_eq!(stay(taint("out-of-service")), Stay::Emptied);
        assert_eq!(stay(taint("node.kubernetes.io/unschedulable")), Stay::Cordoned);
    }

    #[test]
    fn a_node_is_switched_off_where_its_kubelet_says_so() {
        let node = |status: &str, message: &str| {
            let ready = json!({ "type": "Ready", "status": status, "reason": "KubeletNotReady", "message": message });
            let other = json!({ "type": "MemoryPressure", "status": "False" });
            read(json!({ "status": { "conditions": [other, ready] } })).shuts_down
        };
        assert!(node("False", "node is shutting down"));
        assert!(node("False", "[container runtime is down, node is shutting down]"));
        assert!(!node("False", "container runtime is down"));
        assert!(!node("True", "node is shutting down"));
        assert!(!read(json!({})).shuts_down);
    }

    #[test]
    fn of_its_annotations_those_with_the_prefix_that_is_set_are_kept() {
        let notes = json!({ "example.com/a": "1", "example.com.net/a": "2", "other/a": "3" });
        let node = json!({ "metadata": { "annotations": notes } });
        let node: Node = serde_json::from_value(node).unwrap();
        let noted = |prefix| Peer::default().noting(&node, prefix).notes;
        assert_eq!(noted(None), Notes::new());
        assert_eq!(noted(Some("example.com")), [("example.com/a".into(), "1".into())].into());
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
}
