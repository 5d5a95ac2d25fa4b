//! What the token of an announcer of the control plane's own address on `node0` is tried for.

use serde_json::{Value, json};

use super::announcer::other_keys;
use super::tries::{
    CLAIMS, CONTROL_PLANE, How, LEASES, NODE_LEASE, SECRETS, SERVICES, Tries, Try, claim, events,
    gone, lease, merged,
};

pub(super) const LOCK: &str = "plndr-cp-lock";
/// Lease and Secret of the members, by which view and key they go.
const MEMBERS: &str = "berth-membership-cp";

/// That of the members, as the first of them has filled it.
pub(super) fn secret() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": { "name": MEMBERS, "namespace": "kube-system" },
        "stringData": { "key": "0123456789abcdef0123456789abcdef" },
    })
}

/// What a view is written as, readable or not.
fn views(tries: &mut Tries) {
    let what = "a view of the control plane's members";
    for view in ["x", r#"{"epoch":2,"voters":["1","2","3"]}"#] {
        let note = json!({ "metadata": { "annotations": { "berth.dev/view": view } } });
        tries.add(what, How::Replace, named(MEMBERS), merged(lease(MEMBERS), &note));
    }
}

fn named(name: &str) -> String {
    format!("{LEASES}/{name}")
}

/// What a node tells of its API server.
fn told(node: &str, more: &Value) -> Value {
    let told = json!({
        "metadata": {
            "labels": { "berth.dev/host": "", "berth.dev/control-plane": "" },
            "annotations": {
                "berth.dev/api-server": "healthy", "berth.dev/control-plane-addresses": "10.0.64.99",
            },
        },
    });
    merged(merged(lease(&format!("berth-control-plane-{node}")), &told), more)
}

/// Neither is for an announcer of Services.
pub(super) fn of_services(tries: &mut Tries) {
    let what = "`plndr-cp-lock`, or what its API server is said to be";
    tries.add(what, How::Replace, named(LOCK), json!({ "spec": { "holderIdentity": "node0" } }));
    let own = told("node0", &json!({}));
    tries.add(what, How::Replace, named("berth-control-plane-node0"), own);
    views(tries);
}

pub(super) fn tries(address: &str) -> Vec<Try> {
    let mut tries = Tries { account: CONTROL_PLANE, all: Vec::new() };
    let held = |who: &str| json!({ "spec": { "holderIdentity": who } });
    let what = "`plndr-cp-lock` for its own node, whoever has it";
    tries.add(what, How::Replace, named(LOCK), held("node0"));
    let what = "`plndr-cp-lock` for another node";
    tries.add(what, How::Replace, named(LOCK), held("node1"));
    let mut tell = |what, node: &str, more: Value| {
        let path = named(&format!("berth-control-plane-{node}"));
        tries.add(what, How::Replace, path, told(node, &more));
    };
    tell("what its own API server is said to be", "node0", json!({}));
    let what = "what another node's API server is said to be";
    tell(what, "node1", json!({}));
    tell(what, "node1", held("node1"));
    let what = "other labels, finalizers and owners of Leases, or annotations without end";
    let long = "x".repeat(2_000);
    let many: serde_json::Map<String, Value> =
        (0..100).map(|n| (format!("x{n}"), json!(""))).collect();
    for metadata in [
        json!({ "labels": { "app": "other" } }),
        json!({ "finalizers": ["example.com/stays"] }),
        json!({ "ownerReferences": gone() }),
        json!({ "annotations": { "berth.dev/control-plane-addresses": long } }),
        json!({ "annotations": many }),
    ] {
        tell(what, "node0", json!({ "metadata": metadata }));
    }
    for metadata in [
        json!({ "labels": { "berth.dev/control-plane": "" } }),
        json!({ "ownerReferences": gone() }),
    ] {
        tries.add(what, How::Replace, named(LOCK), json!({ "metadata": metadata }));
    }
    let what = "a Lease of another program, or of announcers of Services";
    tries.add(what, How::Replace, named("kube-controller-manager"), held("node0"));
    for name in ["plndr-svcs-lock", "berth-membership", "berth-announcer-node0", "other"] {
        tries.add(what, How::Replace, named(name), lease(name));
    }
    views(&mut tries);
    let key = format!("{SECRETS}/{MEMBERS}");
    tries.add("to read the key of the control plane's members", How::Read, key.clone(), json!({}));
    for change in other_keys() {
        let what = "to replace the key of the control plane's members";
        tries.add(what, How::Replace, key.clone(), change);
    }
    tries.add("to delete a Lease", How::Delete, named(LOCK), json!({}));
    let what = "a node's heartbeat, Services, claims and Secrets";
    tries.add(what, How::Replace, NODE_LEASE, json!({}));
    tries.add(what, How::Read, SERVICES, json!({}));
    let status = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    tries.add(what, How::Patch, format!("{SERVICES}/web/status"), status);
    tries.add(what, How::Create, CLAIMS, claim("10.0.64.249", &json!({})));
    tries.add(what, How::Read, format!("{SECRETS}/berth-membership"), json!({}));
    events(&mut tries);
    tries.all
}
