//! Whatever objects say that others write: it is read or passed over, and harms nobody else. A few of each kind meet an
//! index that serves somebody already.

use std::time::Duration;

use berth_api::host::{self, HostId, Told};
use berth_api::lean::Lean;
use berth_api::service::ClassPolicy;
use berth_hostile::objects;
use berth_index::binding::Binding;
use berth_index::claim::Claim;
use berth_index::finalizers::Finalizers;
use berth_index::intake::Change;
use berth_index::kubevirt::{VirtualMachineInstance, Vmi};
use berth_index::rests;
use berth_index::service::Service;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Service as Object};
use k8s_openapi::api::networking::v1::IPAddress;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, service};

/// Shows an index that serves a Service and a machine what an object says, if it can be decoded and read, and lets it
/// decide. Those keep what they have.
fn shown<K: DeserializeOwned>(text: &[u8], read: impl Fn(K) -> Option<Change>) {
    let Some(change) = serde_json::from_slice(text).ok().and_then(read) else { return };
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.9")]);
    lab.create(service("web"));
    // Not what the samples show: of two machines that show one address neither is led to.
    lab.run(machine("vm", "node-a", &["10.244.0.40"]));
    lab.bind(binding("vm", "vm"));
    let had = |lab: &Lab| (lab.cluster.addresses("web"), lab.cluster.shown("vm"));
    let before = had(&lab);
    assert_eq!(before.0, "192.0.2.1");
    lab.show(change);
    lab.settle();
    lab.pass(Duration::from_secs(90));
    assert_eq!(had(&lab), before);
}

fn metadata(name: &str, annotations: Value) -> Value {
    json!({
        "namespace": "other", "name": name, "uid": "uid-other", "resourceVersion": "7", "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
        "labels": { "implementation": "kube-vip", "ipaddress.kubernetes.io/managed-by": "berth", "berth.dev/host": "" },
        "annotations": annotations,
    })
}

#[test]
fn whatever_arrives_as_a_service_is_read_or_passed_over() {
    let annotations = json!({
        "kube-vip.io/loadbalancerIPs": "192.0.2.3,2001:db8::3",
        "kube-vip.io/serviceInterface": "eth1",
        "kube-vip.io/vipHost": "node-a",
        "kube-vip.io/ignore": "false",
        "berth.dev/conflict": "192.0.2.3=02:00:00:00:00:0a",
    });
    let condition = json!({
        "type": "berth.dev/AddressConflict", "status": "True", "reason": "AddressConflict",
        "message": "192.0.2.3=02:00:00:00:00:0a", "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let sample = json!({
        "metadata": metadata("hostile", annotations),
        "spec": {
            "type": "LoadBalancer", "loadBalancerIP": "192.0.2.3", "externalTrafficPolicy": "Local",
            "ipFamilies": ["IPv4", "IPv6"], "ipFamilyPolicy": "PreferDualStack", "selector": { "app": "a" },
            "ports": [{ "port": 80, "protocol": "TCP" }, { "port": 53, "protocol": "UDP" }],
        },
        "status": {
            "loadBalancer": { "ingress": [{ "ip": "192.0.2.3", "ipMode": "VIP" }] },
            "conditions": [condition],
        },
    });
    objects(&[sample], |text| {
        shown(text, |object: Lean<Object, Finalizers>| {
            let service = Service::read(&object, &ClassPolicy::default())?;
            Some(Change::Service(Box::new(service)))
        });
    });
}

#[test]
fn whatever_arrives_as_an_eip_binding_is_read_or_passed_over() {
    let condition = json!({
        "type": "Allocated", "status": "True", "reason": "Allocated", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z", "observedGeneration": 2,
    });
    let sample = json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
        "metadata": metadata("hostile", json!({})),
        "spec": { "vmi": "vm", "eip": "192.0.2.4", "families": ["IPv4"], "interface": "default", "retain": false },
        "status": {
            "eips": ["192.0.2.4"], "node": "node-a", "target": "node-b", "vmiIPs": ["10.244.0.4"], "epoch": 3,
            "observedGeneration": 2, "holder": { "node": "node-a", "epoch": 3 },
            "conflicts": [{ "eip": "192.0.2.4", "mac": "02:00:00:00:00:0a" }], "conditions": [condition],
        },
    });
    objects(&[sample], |text| {
        shown(text, |object: Lean<_, Finalizers>| {
            Some(Change::Eip(Box::new(Binding::read(&object)?)))
        });
    });
}

#[test]
fn whatever_arrives_as_a_virtual_machine_is_read_or_passed_over() {
    let interfaces = json!([
        { "name": "default", "ipAddress": "10.244.0.4", "ipAddresses": ["10.244.0.4", "fe80::1", "fd00::4"], "mac": "" },
        { "name": "", "ipAddresses": ["10.0.2.2"] },
    ]);
    let sample = json!({
        "metadata": metadata("vm", json!({})),
        "status": {
            "nodeName": "node-a", "phase": "Running", "interfaces": interfaces,
            "migrationState": {
                "sourceNode": "node-a", "targetNode": "node-b", "completed": false, "failed": false,
                "targetNodeDomainReadyTimestamp": "2026-01-01T00:00:00Z", "abortStatus": "Aborting",
            },
        },
    });
    objects(&[sample], |text| {
        shown(text, |object: Lean<VirtualMachineInstance>| {
            Some(Change::Machine(Box::new(Vmi::read(&object.object)?)))
        });
    });
}

#[test]
fn whatever_arrives_as_the_pools_is_taken_key_by_key_and_nothing_is_released() {
    let sample = json!({ "metadata": metadata("kubevip", json!({})), "data": {
        "cidr-global": "192.0.2.0/24,2001:db8::/64,198.51.100.0/22",
        "range-shop": "192.0.2.10-192.0.2.20, 192.0.2.30",
        "exclude-global": "192.0.2.1/32",
        "drain-shop": "192.0.2.12",
        "skip-end-ips-in-cidr": "true",
        "search-order": "desc",
        "quota-shop": "7",
        "namespace-quota": "3",
        "overflow-shop": "true",
        "allow-share-shop": "true",
        "share-with-shop": "other,default",
        "interface-shop": "eth1",
        "pins-global": "pool",
        "reuse-delay": "60s",
    }});
    objects(&[sample], |text| {
        shown(text, |map: ConfigMap| {
            Some(Change::Pools("map".to_owned(), map.data.unwrap_or_default()))
        });
    });
}

#[test]
fn whatever_arrives_as_a_claim_is_read_or_passed_over() {
    let holders = json!([
        { "uid": "a", "namespace": "other", "name": "a", "ports": ["TCP/80"], "since": 1 },
        { "uid": "b", "namespace": "other", "name": "b", "ports": ["UDP/53"], "since": 2 },
    ]);
    let annotations = json!({
        "berth.dev/owner-uid": "a", "berth.dev/holders": holders.to_string(), "berth.dev/pool": "global",
        "berth.dev/pinned": "a,b", "berth.dev/imported": "true",
    });
    let parent =
        json!({ "group": "", "resource": "services", "namespace": "shop", "name": "other" });
    let claim = |name| {
        let mut metadata = metadata(name, annotations.clone());
        metadata["namespace"].take();
        json!({ "metadata": metadata, "spec": { "parentRef": parent } })
    };
    objects(&[claim("192.0.2.5"), claim("2001:db8::5")], |text| {
        shown(text, |object: IPAddress| {
            // Whoever may write claims decides, of the addresses of those two as well.
            let taken = ["192.0.2.1", "192.0.2.2"];
            let claim = Claim::read(&object)?;
            if taken.contains(&claim.address.to_string().as_str()) {
                return None;
            }
            Some(Change::Claim(Box::new(claim)))
        });
    });
}

#[test]
fn whatever_arrives_in_annotations_of_leases_is_read_or_passed_over() {
    let resting = json!([
        { "address": "192.0.2.7", "namespace": "shop", "name": "web", "since": 1_700_000_000, "more": 60 },
        { "address": "192.0.2.8", "kind": "EipBinding", "namespace": "shop", "name": "vm", "since": 0, "until": 9 },
    ]);
    let annotations = json!({
        "berth.dev/resting": resting.to_string(),
        "berth.dev/host-addresses": "10.0.0.11/24,fd00::11/64",
        "berth.dev/host-gateways": "10.0.0.1",
        "berth.dev/bgp-keeps": "150",
        "berth.dev/bgp-sessions": "tor-a,tor-b",
        "berth.dev/bgp-addresses": "10.0.0.200,fd00::200",
        "berth.dev/host-id": "a/b,02:00:00:00:00:0a",
        "berth.dev/offers": "uid-other=192.0.2.7",
        "berth.dev/leaving": "true",
    });
    let sample = json!({
        "metadata": metadata("host-a", annotations),
        "spec": { "holderIdentity": "node-a", "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.000000Z" },
    });
    let unix = Duration::from_secs(1_800_000_000);
    objects(&[sample], |text| {
        let Ok(lease) = serde_json::from_slice::<Lean<Lease>>(text) else { return };
        let _ = (host::node(&lease.object), Told::read(&lease.object), HostId::read(&lease.object));
        let annotations = lease.object.metadata.annotations.unwrap_or_default();
        let resting = annotations.get("berth.dev/resting").map_or("", String::as_str);
        let _ = rests::read(resting, Duration::from_secs(60), unix);
    });
}
