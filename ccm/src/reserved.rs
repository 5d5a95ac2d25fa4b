//! Owns which addresses the cluster itself uses. They are never given out, whatever the pools say.

use std::net::IpAddr;

use berth_api::host::{self, ControlPlane, Told};
use berth_api::names::label;
use berth_index::intake::Reservation;
use berth_index::{MAY_BE_VIPS, PODS};
use berth_ipam::{AddressSet, Range};
use http::Uri;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::config::Kubeconfig;

/// Where kubeadm leaves word of how the API server is reached: the ConfigMap `cluster-info` in `kube-public`.
pub const CLUSTER_INFO: (&str, &str) = ("kube-public", "cluster-info");

/// Where kubeadm has its static Pods, and `manifest kubeadm` the control plane's announcers.
pub const STATIC_PODS: &str = "kube-system";

/// The namespace of the Service `kubernetes`.
pub const API_SERVERS: &str = "default";

/// Selects its EndpointSlices.
pub fn of_kubernetes() -> String {
    format!("{}=kubernetes", label::SERVICE_NAME)
}

/// The addresses of a node (`status.addresses`) and those of its pods (`spec.podCIDRs`).
pub fn of_node(node: &Node) -> [Reservation; 2] {
    let listed = node.status.as_ref().and_then(|status| status.addresses.as_ref());
    let addresses =
        listed.into_iter().flatten().filter_map(|listed| listed.address.parse::<IpAddr>().ok());
    let pods = node.spec.as_ref().and_then(|spec| spec.pod_cidrs.as_ref());
    let [name, pod_network] = names_of_node(node.metadata.name.as_deref().unwrap_or_default());
    [(name, addresses.collect()), (pod_network, ranges(pods.into_iter().flatten()))]
}

/// What [`of_node`] calls the reservations of a node.
pub fn names_of_node(name: &str) -> [String; 2] {
    [format!("node {name}"), format!("{PODS}node {name}")]
}

/// What a node tells of itself: its addresses, of which Kubernetes lists but some, its routers, the ends of its IPv4 subnets,
/// which no host answers for (RFC 919; Linux takes the first address for a broadcast too), and the routers that it speaks BGP
/// with: who has the address of one has the session, and who has a next hop what is led there.
pub fn of_host(node: &str, told: &Told) -> [Reservation; 5] {
    let [own, alone, routers, ends, spoken_to] = names_of_host(node);
    let subnets =
        told.addresses.iter().filter(|(address, length)| address.is_ipv4() && **length < 31);
    let subnets =
        subnets.filter_map(|(own, length)| format!("{own}/{length}").parse::<Range>().ok());
    let ends_of = subnets.flat_map(|subnet| [subnet.first(), subnet.last()]);
    // That of all routers of the link (RFC 4291 §2.6.1), but where a link has two addresses (RFC 6164).
    let v6 = told.addresses.iter().filter(|(own, length)| own.is_ipv6() && **length < 127);
    let v6 = v6.filter_map(|(own, length)| format!("{own}/{length}").parse::<Range>().ok());
    let ends_of = ends_of.chain(v6.map(|subnet| subnet.first()));
    let with_subnet =
        |(address, length): (&IpAddr, &u8)| *length < if address.is_ipv4() { 32 } else { 128 };
    let addresses = |subnet: bool| {
        let told = told.addresses.iter().filter(|&told| with_subnet(told) == subnet);
        told.map(|(address, _)| *address).collect()
    };
    let gateways = told.gateways.iter().copied().collect();
    let peers = told.routers.iter().flat_map(|routers| &routers.addresses).copied();
    [
        (own, addresses(true)),
        (alone, addresses(false)),
        (routers, gateways),
        (ends, ends_of.collect()),
        (spoken_to, peers.collect()),
    ]
}

/// What [`of_host`] calls the reservations of a node. They sort behind that of its Node object, which is told first.
fn names_of_host(node: &str) -> [String; 5] {
    [
        format!("node {node} (its interfaces)"),
        format!("node {node} {MAY_BE_VIPS}"),
        format!("the router of node {node}"),
        format!("the subnet of node {node} (its first or last address)"),
        format!("BGP on node {node} (a router, a next hop or a router id)"),
    ]
}

/// The addresses at which API servers answer, as they list themselves (EndpointSlices of the Service `kubernetes`).
pub fn of_api_servers(slice: &EndpointSlice) -> Reservation {
    let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    let name = name_of_api_servers(slice.metadata.name.as_deref().unwrap_or_default());
    (name, addresses.filter_map(|address| address.parse::<IpAddr>().ok()).collect())
}

/// What [`of_api_servers`] calls it.
pub fn name_of_api_servers(slice: &str) -> String {
    format!("an API server ({slice})")
}

/// A range of cluster IPs (`spec.cidrs` of a `ServiceCIDR`, KEP-1880).
pub fn of_service_cidr(cidr: &ServiceCIDR) -> Reservation {
    let listed = cidr.spec.as_ref().and_then(|spec| spec.cidrs.as_ref());
    let name = name_of_service_cidr(cidr.metadata.name.as_deref().unwrap_or_default());
    (name, ranges(listed.into_iter().flatten()))
}

/// What [`of_service_cidr`] calls it.
pub fn name_of_service_cidr(name: &str) -> String {
    format!("the Service network ({name})")
}

/// The address at which the API server is reached from outside, where that is an address: the control-plane VIP.
pub fn of_cluster_info(info: &ConfigMap) -> Reservation {
    let text = info.data.as_ref().and_then(|data| data.get("kubeconfig"));
    let config = text.and_then(|text| Kubeconfig::from_yaml(text).ok()).unwrap_or_default();
    let servers = config.clusters.into_iter().filter_map(|named| named.cluster?.server);
    let hosts = servers.filter_map(|server| {
        let server: Uri = server.parse().ok()?;
        server.host()?.trim_matches(['[', ']']).parse::<IpAddr>().ok()
    });
    ("the control plane".to_owned(), hosts.collect())
}

/// The control plane's own addresses, as a node of it tells them in a Lease that belongs to its Node object.
pub fn of_control_plane(lease: &Lease) -> Option<Reservation> {
    let (node, told) = ControlPlane::read(lease)?;
    let addresses = told.addresses.into_iter().collect();
    host::is_of_node(lease, node).then(|| (name_of_control_plane(node), addresses))
}

/// What [`of_control_plane`] calls it.
pub fn name_of_control_plane(node: &str) -> String {
    format!("the control plane (by node {node})")
}

/// The same of a Lease in another namespace than berth-ccm's: a node may have one in each.
pub fn of_control_plane_elsewhere(lease: &Lease) -> Option<Reservation> {
    let (_, addresses) = of_control_plane(lease)?;
    let (node, _) = ControlPlane::read(lease)?;
    Some((name_of_control_plane_elsewhere(node), addresses))
}

/// What [`of_control_plane_elsewhere`] calls it.
pub fn name_of_control_plane_elsewhere(node: &str) -> String {
    format!("the control plane (by node {node}, in {STATIC_PODS})")
}

fn ranges<'a>(texts: impl Iterator<Item = &'a String>) -> AddressSet {
    texts.filter_map(|text| text.parse::<Range>().ok()).collect()
}

#[cfg(test)]
mod tests {
    use berth_api::host::Routers;

    use super::*;
    use serde_json::{Value, from_value, json};

    fn shown((name, set): Reservation) -> String {
        let ranges: Vec<_> = set.iter().map(|range| range.to_string()).collect();
        format!("{name}: {}", ranges.join(" "))
    }

    fn info(server: &str) -> ConfigMap {
        let kubeconfig = json!({ "apiVersion": "v1", "kind": "Config", "clusters": [{ "name": "", "cluster": { "server": server } }] });
        from_value(json!({ "data": { "kubeconfig": kubeconfig.to_string() } })).unwrap()
    }

    #[test]
    fn the_control_planes_own_addresses_are_reserved_where_a_node_of_the_cluster_tells_them() {
        let lease = |owner: &str| {
            let lease: Lease = from_value(json!({ "metadata": {
                "name": "berth-control-plane-a",
                "annotations": {
                    "berth.dev/api-server": "healthy",
                    "berth.dev/control-plane-addresses": "192.0.2.100,2001:db8::100",
                },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": owner, "uid": "1" }],
            } }))
            .unwrap();
            of_control_plane(&lease).map(shown)
        };
        let told = "the control plane (by node a): 192.0.2.100 2001:db8::100";
        assert_eq!(lease("a").as_deref(), Some(told));
        assert_eq!(lease("b"), None, "of no node");
    }

    #[test]
    fn a_node_has_its_addresses_and_those_of_its_pods() {
        let node: Value = json!({
            "metadata": { "name": "a" },
            "spec": { "podCIDRs": ["10.244.1.0/24", "fd00:244::/64"] },
            "status": { "addresses": [
                { "type": "Hostname", "address": "a" },
                { "type": "InternalIP", "address": "192.0.2.1" },
                { "type": "ExternalIP", "address": "2001:db8::1" },
            ] },
        });
        let [own, pods] = of_node(&from_value(node).unwrap());
        assert_eq!(shown(own), "node a: 192.0.2.1 2001:db8::1");
        assert_eq!(shown(pods), "the pod network of node a: 10.244.1.0/24 fd00:244::/64");
    }

    #[test]
    fn a_node_tells_what_else_it_has() {
        let told = Told {
            addresses: [
                ("192.0.2.7".parse().unwrap(), 24),
                ("198.51.100.1".parse().unwrap(), 32),
                ("2001:db8::7".parse().unwrap(), 64),
            ]
            .into(),
            gateways: ["192.0.2.254".parse().unwrap()].into(),
            routers: Some(Routers {
                addresses: ["198.51.100.200".parse().unwrap()].into(),
                ..Routers::default()
            }),
            ..Told::default()
        };
        assert_eq!(
            of_host("a", &told).map(shown),
            [
                "node a (its interfaces): 192.0.2.7 2001:db8::7",
                "node a (its interfaces, without a subnet): 198.51.100.1",
                "the router of node a: 192.0.2.254",
                "the subnet of node a (its first or last address): 192.0.2.0 192.0.2.255 2001:db8::",
                "BGP on node a (a router, a next hop or a router id): 198.51.100.200",
            ]
        );
    }

    #[test]
    fn an_api_server_is_where_it_says() {
        let slice = json!({
            "metadata": { "name": "kubernetes" }, "addressType": "IPv4",
            "endpoints": [{ "addresses": ["192.0.2.1"] }, { "addresses": ["192.0.2.2"] }],
        });
        let reserved = of_api_servers(&from_value(slice).unwrap());
        assert_eq!(shown(reserved), "an API server (kubernetes): 192.0.2.1-192.0.2.2");
    }

    #[test]
    fn a_service_cidr_has_both_families() {
        let cidr = json!({
            "metadata": { "name": "kubernetes" },
            "spec": { "cidrs": ["10.96.0.0/16", "fd00:96::/112"] },
        });
        assert_eq!(
            shown(of_service_cidr(&from_value(cidr).unwrap())),
            "the Service network (kubernetes): 10.96.0.0/16 fd00:96::/112"
        );
    }

    #[test]
    fn the_control_plane_is_where_the_kubeconfig_for_joining_nodes_points_to() {
        let cases = [
            ("https://192.0.2.10:6443", "192.0.2.10"),
            ("https://[2001:db8::10]:6443", "2001:db8::10"),
            ("https://cluster.example.org:6443", ""),
            ("", ""),
        ];
        for (server, expected) in cases {
            let [_, addresses] = &shown(of_cluster_info(&info(server)))
                .split(": ")
                .map(str::to_owned)
                .collect::<Vec<_>>()[..]
            else {
                panic!()
            };
            assert_eq!(addresses, expected, "{server}");
        }
        assert!(of_cluster_info(&ConfigMap::default()).1.is_empty());
    }
}
