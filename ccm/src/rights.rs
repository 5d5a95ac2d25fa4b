//! The rights that berth-ccm has use for, each with what is lost without it: those of `manifests/ccm-rbac.yaml`.

use berth_api::NamespacedName;
use berth_runtime::rights::Right;

use crate::reserved::STATIC_PODS;

const SEE: &[&str] = &["list", "watch"];

/// Those of a berth-ccm with this ConfigMap of pools, and with this Lease in its namespace `home`.
pub fn needed(pools: &NamespacedName, home: &str, lease: &str) -> Vec<Right> {
    let right = |group, resource, verbs, without| Right {
        namespace: None,
        group,
        resource,
        name: None,
        verbs,
        without,
    };
    let within = |namespace: &str, name: Option<&str>, right: Right| Right {
        namespace: Some(namespace.to_owned()),
        name: name.map(str::to_owned),
        ..right
    };
    let claims =
        "what is given out is known to this process alone, and announcers go by annotations";
    let unknown = "nothing is given out, since addresses of nodes could be";
    let ranges = "the ranges of cluster IPs are not known, and their addresses could be given out";
    let bindings = "no elastic IP is given out";
    let elects = "none of several berth-ccm gives addresses out, unless --leader-elect=false";
    let control_plane = within(
        STATIC_PODS,
        None,
        right(
            "coordination.k8s.io",
            "leases",
            SEE,
            "the control plane's address, as its announcers there tell it, could be given out",
        ),
    );
    let mut rights = vec![
        right(
            "networking.k8s.io",
            "ipaddresses",
            &["get", "list", "watch", "create", "patch", "delete"],
            claims,
        ),
        right(
            "",
            "services",
            &["get", "list", "watch", "patch"],
            "no Service is given an address; without patch alone each is replaced (get, update)",
        ),
        right("", "services/status", &["patch"], "no Service says why it waits; Events do"),
        within(
            &pools.namespace,
            Some(&pools.name),
            right("", "configmaps", SEE, "there is no pool"),
        ),
        right("", "nodes", SEE, unknown),
        right("networking.k8s.io", "servicecidrs", SEE, ranges),
        within(
            "default",
            None,
            right(
                "discovery.k8s.io",
                "endpointslices",
                SEE,
                "addresses of API servers that are no nodes' could be given out",
            ),
        ),
        within(
            "kube-public",
            Some("cluster-info"),
            right(
                "",
                "configmaps",
                &["get"],
                "the address of the control plane could be given out",
            ),
        ),
        within(
            home,
            None,
            right(
                "coordination.k8s.io",
                "leases",
                &["list", "watch", "create"],
                "addresses that nodes tell themselves could be given out, and no Lease is held",
            ),
        ),
        within(
            home,
            Some(lease),
            right("coordination.k8s.io", "leases", &["get", "update"], elects),
        ),
        right("berth.dev", "eipbindings", &["get", "list", "watch", "patch"], bindings),
        right("berth.dev", "eipbindings/status", &["patch"], bindings),
        right("kubevirt.io", "virtualmachineinstances", SEE, bindings),
        right(
            "events.k8s.io",
            "events",
            &["create", "patch"],
            "no Event tells what is wrong; the log and conditions do",
        ),
    ];
    rights.extend(Some(control_plane).filter(|_| home != STATIC_PODS));
    rights
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn they_are_those_of_manifests_and_no_others() {
        let text = include_str!("../../manifests/ccm-rbac.yaml");
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        let mut given = BTreeSet::new();
        for rule in documents.iter().flat_map(|role| role["rules"].as_array()).flatten() {
            let texts = |key: &str| {
                let list = rule[key].as_array().cloned().unwrap_or_default();
                list.iter().map(|one| one.as_str().unwrap().to_owned()).collect::<Vec<_>>()
            };
            for verb in texts("verbs") {
                given.insert((texts("apiGroups")[0].clone(), texts("resources")[0].clone(), verb));
            }
        }
        // No such subresource is served: it is asked about by overlays/tenants.
        given.retain(|(_, resource, _)| resource != "services/pins");
        let pools = NamespacedName::new("kube-system", "kubevip");
        let needed = needed(&pools, "kube-system", "kube-vip-cloud-controller");
        let needed: BTreeSet<_> = needed
            .iter()
            .flat_map(|right| {
                let of = |verb: &&str| {
                    (right.group.to_owned(), right.resource.to_owned(), (*verb).to_owned())
                };
                right.verbs.iter().map(of)
            })
            .collect();
        assert_eq!(needed, given);
    }

    #[test]
    fn in_another_namespace_what_announcers_tell_in_kube_system_may_be_read_besides() {
        let text = include_str!("../../overlays/own-namespace/control-plane.yaml");
        let documents: Vec<Value> = serde_saphyr::from_multiple(text).unwrap();
        let [role, binding] = &documents[..] else { panic!("{documents:?}") };
        let pools = NamespacedName::new("berth", "kubevip");
        let at =
            |home: &str| {
                let needed = needed(&pools, home, "kube-vip-cloud-controller").into_iter();
                let mut there = needed.filter(|right| {
                    right.namespace.as_deref() == Some(STATIC_PODS) && right.name.is_none()
                });
                there.next().map(|right| serde_json::json!({
                "apiGroups": [right.group], "resources": [right.resource], "verbs": right.verbs,
            }))
            };
        assert_eq!(role["rules"], serde_json::json!([at("berth").unwrap()]));
        assert_eq!(binding["roleRef"]["name"], role["metadata"]["name"]);
        let verbs = at(STATIC_PODS).unwrap()["verbs"].clone();
        assert_eq!(verbs, serde_json::json!(["list", "watch", "create"]), "its own, and no second");
    }
}
