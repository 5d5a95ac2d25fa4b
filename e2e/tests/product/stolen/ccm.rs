//! What the token of berth-ccm is tried for.

use berth_e2e::world::ADDRESSES;
use serde_json::{Value, json};

use super::tries::{
    BINDINGS, CCM, CLAIMS, FAR, FULL, FULL_AS_CCM, How, LEASES, NODE_LEASE, POOLS, SECRETS,
    SERVICES, Tries, Try, claim, condition, crowded, events, gone, lease, metadata, said,
    signed_often, status,
};

/// `web` has `address`.
pub(super) fn tries(address: &str, web: &Value) -> Vec<Try> {
    let mut tries = Tries { account: CCM, all: Vec::new() };
    services(&mut tries, address);
    claims(&mut tries, address, web);
    bindings(&mut tries);
    let own = format!("{LEASES}/kube-vip-cloud-controller");
    tries.add("its own Lease", How::Replace, own.clone(), json!({}));
    let what = "labels, finalizers and owners of it";
    for metadata in [
        json!({ "labels": { "app": "other" } }),
        json!({ "finalizers": ["example.com/stays"] }),
        json!({ "ownerReferences": gone() }),
    ] {
        tries.add(what, How::Replace, own.clone(), json!({ "metadata": metadata }));
    }
    tries.add("a Lease of another name", How::Create, LEASES, lease("other"));
    let what = "a node's heartbeat in `kube-node-lease`";
    tries.add(what, How::Replace, NODE_LEASE, json!({}));
    tries.add("the ConfigMap of pools", How::Patch, POOLS, json!({ "data": { "x": "y" } }));
    tries.add("Secrets", How::Read, SECRETS, json!({}));
    events(&mut tries);
    tries.all
}

fn services(tries: &mut Tries, address: &str) {
    let service = format!("{SERVICES}/web");
    let given = json!({
        "metadata": { "annotations": { ADDRESSES: "192.0.2.1" } },
        "spec": { "loadBalancerIP": "192.0.2.1" },
    });
    for name in ["web", FULL, FULL_AS_CCM] {
        let what = "to give a Service any address";
        tries.add(what, How::Patch, format!("{SERVICES}/{name}"), given.clone());
    }
    for spec in [
        json!({ "type": "NodePort" }),
        json!({ "type": "ExternalName", "externalName": "example.com" }),
        json!({ "ports": [{ "port": 22 }] }),
        json!({ "selector": { "app": "other" } }),
        json!({ "externalIPs": ["192.0.2.1"] }),
        json!({ "externalTrafficPolicy": "Local" }),
        json!({ "loadBalancerSourceRanges": ["192.0.2.0/24"] }),
    ] {
        let what = "what a Service leads to";
        tries.add(what, How::Patch, service.clone(), json!({ "spec": spec }));
    }
    for metadata in metadata() {
        let what = "other annotations, labels, finalizers and owners of a Service";
        let patch = json!({ "metadata": metadata });
        tries.add(what, How::Patch, service.clone(), patch.clone());
        tries.add(what, How::Patch, format!("{service}/status"), patch);
    }
    let what = "conditions of others in a Service";
    let conflict = condition("berth.dev/AddressConflict");
    tries.add(what, How::Patch, format!("{service}/status"), conflict);
    let silent = |reason: &str| {
        let mut said = condition("berth.dev/Announced");
        said["status"]["conditions"][0]["status"] = json!("False");
        said["status"]["conditions"][0]["reason"] = json!(reason);
        said
    };
    let what = "that nobody announces a Service";
    for reason in ["NoAnnouncer", "Unannounced"] {
        tries.add(what, How::Patch, format!("{service}/status"), silent(reason));
    }
    let what = "that a Service is announced, or why an announcer does not";
    for said in [condition("berth.dev/Announced"), silent("NoEndpoint")] {
        tries.add(what, How::Patch, format!("{service}/status"), said);
    }
    let what = "to publish a Service";
    let shown = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    tries.add(what, How::Patch, format!("{SERVICES}/{FAR}/status"), shown);
    let what = "addresses and metadata without end";
    let long = "x".repeat(200_000);
    for patch in [
        json!({ "metadata": { "annotations": { ADDRESSES: long } } }),
        json!({ "spec": { "loadBalancerIP": long } }),
        crowded("v1"),
        signed_often("v1"),
    ] {
        tries.add(what, How::Patch, service.clone(), patch);
    }
    let allocated = condition("berth.dev/AddressAllocated");
    let (mut long, mut often) = (allocated.clone(), allocated.clone());
    long["status"]["conditions"][0]["message"] = json!("x".repeat(30_000));
    often["status"]["conditions"] = vec![allocated["status"]["conditions"][0].clone(); 200].into();
    for patch in [long, often] {
        tries.add(what, How::Patch, format!("{service}/status"), patch);
    }
    tries.add("the deletion of a Service", How::Delete, service, json!({}));
}

fn claims(tries: &mut Tries, address: &str, web: &Value) {
    let ours = json!({ "ipaddress.kubernetes.io/managed-by": "berth" });
    let own = format!("{CLAIMS}/{address}");
    tries.add("a claim of its own", How::Create, CLAIMS, claim("10.0.64.249", &ours));
    tries.add("a claim of its own", How::Delete, own.clone(), json!({}));
    let what = "a claim of another, as of a cluster IP";
    tries.add(what, How::Create, CLAIMS, claim("10.0.64.249", &json!({})));
    let cluster = web["spec"]["clusterIP"].as_str().unwrap_or_default();
    tries.add(what, How::Delete, format!("{CLAIMS}/{cluster}"), json!({}));
    let what = "a claim of a cluster IP that is free, so that no Service has it";
    for free in [neighbour(cluster), "fd00:96::4d2".to_owned()] {
        tries.add(what, How::Create, CLAIMS, claim(&free, &ours));
    }
    let what =
        "other labels, annotations, finalizers and owners of its claims, or more than they take";
    for metadata in [
        json!({ "labels": { "app": "other" } }),
        json!({ "annotations": { "example.com/other": "x" } }),
        json!({ "finalizers": ["example.com/stays"] }),
        json!({ "ownerReferences": gone() }),
    ] {
        tries.add(what, How::Patch, own.clone(), json!({ "metadata": metadata }));
    }
    tries.add(what, How::Patch, own, crowded("networking.k8s.io/v1"));
}

/// An address of the same /16 that nothing has.
fn neighbour(cluster: &str) -> String {
    let mut octets: Vec<&str> = cluster.split('.').collect();
    octets.truncate(2);
    format!("{}.231.77", octets.join("."))
}

fn bindings(tries: &mut Tries) {
    let vm = format!("{BINDINGS}/vm");
    let asked = json!({ "spec": { "retain": false } });
    tries.add("`spec` of an EipBinding", How::Patch, vm.clone(), asked);
    let vm = format!("{vm}/status");
    let decided = status("vm", &json!({ "eips": ["192.0.2.1"] }));
    tries.add("any elastic IP anywhere", How::Apply, vm.clone(), decided);
    let what = "that a node holds an elastic IP, or why not";
    for said in [
        json!({ "holder": { "node": "node0", "epoch": 1 } }),
        json!({ "conditions": said("Stolen") }),
        json!({ "conflicts": [{ "eip": "192.0.2.1", "mac": "02:00:00:00:00:0a" }] }),
    ] {
        tries.add(what, How::Apply, vm.clone(), status("vm", &said));
    }
}
