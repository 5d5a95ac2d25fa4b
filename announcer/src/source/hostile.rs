//! Whatever objects say that others write: it is read or passed over, and what this node wants besides stays as it is.

use berth_api::claim::{self, ClaimPolicy};
use berth_api::election::Held;
use berth_api::host::{HostId, Told};
use berth_api::lean::Lean;
use berth_api::service::ClassPolicy;
use berth_hostile::objects;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::IPAddress;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::cluster::{Claims, Cluster, Eip, Labels, Name, Service, Slice};
use super::testing::{seen, two_interfaces};
use crate::vip::VipId;
use crate::vip::nodes::{Peer, Peers};

const OURS: &str = "192.0.2.9";

fn decoded<K: DeserializeOwned>(text: &[u8]) -> Option<K> {
    serde_json::from_slice(text).ok()
}

fn metadata(name: &str, annotations: Value) -> Value {
    json!({
        "namespace": "other", "name": name, "uid": "uid-other", "resourceVersion": "7", "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z", "labels": { "kubernetes.io/service-name": "hostile", "rack": "a" },
        "annotations": annotations,
        "managedFields": [{ "manager": "berth-announcer-a", "operation": "Apply", "subresource": "status" }],
    })
}

/// A cluster with a Service that this node may serve, and what `add` makes of it. The Service stays wanted.
fn beside(add: impl FnOnce(&mut Cluster)) {
    let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Ignored));
    let object = json!({
        "metadata": {
            "namespace": "shop", "name": "web", "uid": "uid-web", "creationTimestamp": "2025-01-01T00:00:00Z",
            "annotations": { "kube-vip.io/loadbalancerIPs": OURS },
        },
        "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
    });
    let object = serde_json::from_value(object).unwrap();
    let name = Name::new("shop", "web");
    cluster.apply_service(name, Service::read(&object, &ClassPolicy::default()));
    add(&mut cluster);
    let wanted = seen(&cluster, &two_interfaces(), None);
    let ours = VipId::Address(OURS.parse().unwrap());
    assert!(wanted.vips.contains_key(&ours), "{wanted:?}");
}

#[test]
fn whatever_arrives_as_a_service_is_read_or_passed_over() {
    let annotations = json!({
        "kube-vip.io/loadbalancerIPs": "192.0.2.3,2001:db8::3",
        "kube-vip.io/serviceInterface": "eth1",
        "kube-vip.io/serviceVLAN": "12",
        "kube-vip.io/vipHost": "a",
        "kube-vip.io/leaseName": "lease",
        "kube-vip.io/allow-reconcile-without-endpoints": "true",
        "kube-vip.io/egress": "true",
        "berth.dev/preferred-nodes": "a,rack=b",
        "berth.dev/bgp-communities": "65000:1,4200000000:1:2",
        "berth.dev/bgp-local-pref": "200",
        "berth.dev/bgp-peers": "tor-a,tor-b",
        "berth.dev/conflict": "192.0.2.3=02:00:00:00:00:0a",
    });
    let condition = json!({
        "type": "berth.dev/AddressConflict", "status": "True", "reason": "AddressConflict",
        "message": "192.0.2.3=02:00:00:00:00:0a", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let ingress =
        json!({ "ip": "192.0.2.3", "ipMode": "VIP", "ports": [{ "port": 80, "protocol": "TCP" }] });
    let sample = json!({
        "metadata": metadata("hostile", annotations),
        "spec": {
            "type": "LoadBalancer", "loadBalancerIP": "192.0.2.3", "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack",
            "ports": [{ "port": 80, "protocol": "TCP", "nodePort": 30080 }, { "port": 53, "protocol": "UDP" }],
        },
        "status": { "loadBalancer": { "ingress": [ingress] }, "conditions": [condition] },
    });
    objects(&[sample], |text| {
        let Some(object) = decoded::<Lean<core::Service, Labels>>(text) else { return };
        let labels = object.taken;
        let service = Service { labels, ..Service::read(&object.object, &ClassPolicy::default()) };
        beside(|cluster| cluster.apply_service(Name::new("other", "hostile"), service));
    });
}

#[test]
fn whatever_arrives_as_an_eip_binding_is_read_or_passed_over() {
    let condition = json!({
        "type": "Bound", "status": "True", "reason": "Bound", "message": "", "observedGeneration": 2,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let sample = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
        "metadata": metadata("hostile", json!({})),
        "spec": { "vmi": "vm", "eip": "192.0.2.4", "families": ["IPv4"], "retain": false },
        "status": {
            "eips": ["192.0.2.4", "2001:db8::4"], "node": "a", "target": "b", "vmiIPs": ["10.244.0.4", "fd00::4"],
            "epoch": 3, "holder": { "node": "a", "epoch": 3 },
            "conflicts": [{ "eip": "192.0.2.4", "mac": "02:00:00:00:00:0a" }], "conditions": [condition],
        },
    });
    objects(&[sample], |text| {
        let Some(object) = decoded::<Lean<_>>(text) else { return };
        let eip = Eip::read(&object.object, "berth-announcer-a");
        beside(|cluster| cluster.apply_eip(Name::new("other", "hostile"), eip));
    });
}

#[test]
fn whatever_arrives_as_a_node_an_endpoint_slice_or_a_claim_is_read_or_passed_over() {
    let address = |kind, text| json!({ "type": kind, "address": text });
    let node = json!({
        "metadata": metadata("b", json!({ "berth.dev/drain": "true" })),
        "spec": {
            "unschedulable": false, "taints": [{ "key": "a", "value": "b", "effect": "NoSchedule" }],
            "podCIDRs": ["10.244.0.0/24", "fd00::/64"],
        },
        "status": { "addresses": [address("InternalIP", "10.0.0.12"), address("InternalIP", "fd00::12")] },
    });
    let slice = json!({
        "metadata": metadata("hostile-a", json!({})), "addressType": "IPv4",
        "endpoints": [{ "addresses": ["10.244.0.7"], "nodeName": "a",
            "conditions": { "ready": false, "serving": true, "terminating": true },
        }],
        "ports": [{ "name": "http", "port": 8080, "protocol": "TCP" }],
    });
    let holders = json!([
        { "uid": "a", "namespace": "other", "name": "a", "ports": ["TCP/80"], "since": 1 },
    ]);
    let annotations =
        json!({ "berth.dev/owner-uid": "a", "berth.dev/holders": holders.to_string() });
    let parent = json!({ "group": "", "resource": "services", "namespace": "other", "name": "a" });
    let claim =
        json!({ "metadata": metadata("192.0.2.5", annotations), "spec": { "parentRef": parent } });
    objects(&[node, slice, claim], |text| {
        let mut peers = Peers::default();
        decoded(text)
            .map(|node| peers.apply("b".to_owned(), Peer::read(&node, |taint| taint.key == "a")));
        let slice = decoded::<EndpointSlice>(text).and_then(|slice| Slice::read(&slice));
        let claim = decoded::<Lean<IPAddress>>(text).map(|claim| claim.object);
        beside(|cluster| {
            if let Some((service, ready)) = slice {
                cluster.apply_slice(Name::new("other", "hostile-a"), Some((service, ready)));
            }
            if let Some(claim) = claim {
                let name = claim.metadata.name.clone().unwrap_or_default();
                cluster.claims.apply(&name, claim::holders(&claim), claim::is_imported(&claim));
            }
        });
    });
}

#[test]
fn whatever_arrives_in_annotations_of_leases_is_read_or_passed_over() {
    let annotations = json!({
        "berth.dev/host-addresses": "10.0.0.11/24,fd00::11/64",
        "berth.dev/host-gateways": "10.0.0.1",
        "berth.dev/bgp-keeps": "150",
        "berth.dev/bgp-sessions": "tor-a,tor-b",
        "berth.dev/bgp-addresses": "10.0.0.200,fd00::200",
        "berth.dev/host-id": "a/b,02:00:00:00:00:0a",
        "berth.dev/offers": "uid-other=192.0.2.7",
        "berth.dev/leaving": "true",
        "berth.dev/resting": "[]",
        "berth.dev/resting-by": "a",
    });
    let sample = json!({
        "metadata": metadata("lease", annotations),
        "spec": {
            "holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 2,
            "renewTime": "2026-01-01T00:00:00.000000Z", "acquireTime": "2026-01-01T00:00:00.000000Z",
        },
    });
    objects(&[sample], |text| {
        let Some(lease) = decoded::<Lean<Lease>>(text) else { return };
        let lease = lease.object;
        let _ = (Told::read(&lease), HostId::read(&lease), Held::of(&lease));
        let _ = claim::is_import_complete(&lease);
    });
}
