//! Where the pods of `manifests/` may be: on every node that common installers make, whatever taints they give it.
#![allow(clippy::unwrap_used)]

use serde_json::{Value, json};

/// What the nodes of installers have, as their documentation and their users say (rancher#35835, rke2, k3s, kubeadm).
fn tainted() -> [(&'static str, Value); 4] {
    let control_plane = json!({
        "key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule",
    });
    let etcd = json!({ "key": "node-role.kubernetes.io/etcd", "effect": "NoExecute" });
    let addons = json!({ "key": "CriticalAddonsOnly", "value": "true", "effect": "NoExecute" });
    [
        ("a control plane of kubeadm", json!([control_plane])),
        ("a server of Rancher's RKE2", json!([control_plane, etcd])),
        ("a server of RKE2 or K3s that runs nothing else", json!([control_plane, etcd, addons])),
        ("etcd alone", json!([etcd])),
    ]
}

/// The pod's tolerations.
fn tolerations(file: &str) -> Vec<Value> {
    let path = format!("{}/../manifests/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    let tolerations =
        |document: &Value| document["spec"]["template"]["spec"]["tolerations"].as_array().cloned();
    documents.iter().find_map(tolerations).unwrap()
}

/// As `Toleration.ToleratesTaint` of k8s.io/api/core/v1 compares, for as long as the taint stays.
fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let is_any_or = |field: &str| {
        let wanted = toleration[field].as_str().unwrap_or_default();
        wanted.is_empty() || wanted == taint[field]
    };
    let is_by_value = toleration["operator"] != "Exists";
    is_any_or("key")
        && is_any_or("effect")
        && (!is_by_value || toleration["value"] == taint["value"])
        && toleration["tolerationSeconds"].is_null()
}

#[test]
fn both_programs_run_on_every_node_that_common_installers_make() {
    for file in ["ccm.yaml", "announcer.yaml"] {
        let tolerations = tolerations(file);
        for (node, taints) in tainted() {
            for taint in taints.as_array().unwrap() {
                let is_tolerated = tolerations.iter().any(|all| tolerates(all, taint));
                assert!(is_tolerated, "{file} on {node}: {taint}");
            }
        }
    }
}

#[test]
fn a_node_that_does_not_answer_is_left_within_half_a_minute() {
    let tolerations = tolerations("ccm.yaml");
    for key in ["node.kubernetes.io/unreachable", "node.kubernetes.io/not-ready"] {
        let all = tolerations.iter().find(|all| all["key"] == key).unwrap();
        assert!(all["tolerationSeconds"].as_u64().is_some_and(|seconds| seconds <= 30), "{all}");
    }
}
