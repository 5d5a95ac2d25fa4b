//! What the Pods that have the control plane's address are given: one manifest is for all nodes.
//!
//! A kubelet shows the cluster whatever Pods it likes, on its own node alone (the admission plugin NodeRestriction), and does not say
//! itself what its node is: Pods of nodes count that belong to the control plane, and no other.
//!
//! # Permissions
//!
//! `list` on `pods` of the namespace, and on `nodes`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use berth_api::Quoted;
use berth_runtime::client;
use berth_runtime::watch::chain;
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use kube::api::{Api, ListParams, ResourceExt};
use kube::{Client, Error};

use crate::config::Settings;

use crate::config::SECRET;

/// The containers that `manifest` prints.
const CONTAINERS: [&str; 2] = ["berth-control-plane", "berth-announcer"];
/// Pods with these.
const SELECTED: &str = "app.kubernetes.io/name in (berth-control-plane,berth-announcer)";
/// On the Pod of a file, as the kubelet shows it to the cluster (`kubetypes.ConfigMirrorAnnotationKey`).
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Nodes with this one (`kubeadmconstants.LabelNodeRoleControlPlane`).
const ROLE: &str = "node-role.kubernetes.io/control-plane";
/// Of one node.
const OF_NODE: &str = "vip_nodename";
const TIMEOUT: Duration = Duration::from_secs(10);

/// What a Pod of the control plane's address is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) image: Option<String>,
    /// Its settings, but for the name of its node.
    pub(super) environment: BTreeMap<String, String>,
}

/// What a Pod is given, if the control plane's address is its affair.
pub(super) fn given(pod: &Pod) -> Option<Given> {
    let containers = pod.spec.as_ref().map(|spec| &spec.containers[..]).unwrap_or_default();
    let found = containers.iter().filter(|container| CONTAINERS.contains(&container.name.as_str()));
    found.map(of).find(|given| {
        let settings = Settings::gather(given.environment.clone(), []);
        settings.switch("cp_enable") == Some(true)
    })
}

/// The other files of the folder of this one whose Pod the control plane's address is the affair of: the kubelet starts the Pod of
/// each file there, but for those whose name begins with a dot, a copy for safety among them (kubernetes/kubernetes#136962).
pub(super) fn beside(file: &Path) -> Vec<PathBuf> {
    let folder = file.parent().and_then(|folder| std::fs::read_dir(folder).ok());
    let files = folder.into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
    let is_seen = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy());
        path != file && name.is_some_and(|name| !name.starts_with('.'))
    };
    let is_one = |path: &PathBuf| {
        let text = std::fs::read_to_string(path).ok();
        text.and_then(|text| read(&text)).is_some_and(|pod| given(&pod).is_some())
    };
    let mut found: Vec<PathBuf> = files.filter(is_seen).filter(is_one).collect();
    found.sort();
    found
}

/// What to do about these, if there are any.
pub(super) fn told_of(beside: &[PathBuf]) -> Option<String> {
    let named: Vec<String> = beside.iter().map(|file| file.display().to_string()).collect();
    (!named.is_empty()).then(|| {
        format!(
            "{}: the kubelet starts this one as well, which has the control plane's address; move it out of the folder",
            named.join(", ")
        )
    })
}

/// The Pod of a file.
pub(super) fn read(text: &str) -> Option<Pod> {
    let pod: Option<serde_json::Value> = serde_saphyr::from_str(text).ok();
    pod.and_then(|pod| serde_json::from_value(pod).ok())
}

fn of(container: &Container) -> Given {
    let variables = container.env.iter().flatten().filter(|variable| variable.name != OF_NODE);
    let said =
        variables.filter_map(|variable| Some((variable.name.clone(), variable.value.clone()?)));
    Given { image: container.image.clone(), environment: said.collect() }
}

/// What the Pods of the cluster that this kubeconfig names are given.
///
/// # Errors
/// When it does not answer, none is there, or they are not alike; in words.
pub(super) async fn asked(kubeconfig: &Path, namespace: &str) -> Result<Given, String> {
    let hint = "give the settings as flags, as for `kubeadm init`, and no cluster is asked";
    let config = client::configure(Some(kubeconfig)).await;
    // That of the node is written as it joins.
    let config = config.map_err(|error| {
        format!("--config: {}; copy it from a node that has joined, or {hint}", chain(&error))
    })?;
    let server = config.cluster_url.to_string();
    let client = client::connect(config).map_err(|error| chain(&error))?;
    match tokio::time::timeout(TIMEOUT, of_cluster(&client, namespace)).await {
        Ok(found) => found.map_err(|why| format!("{why}; {hint}")),
        Err(_) => Err(format!("{server}: no answer within {TIMEOUT:?}; {hint}")),
    }
}

/// The same of whatever this client asks.
pub(super) async fn of_cluster(client: &Client, namespace: &str) -> Result<Given, String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pods = pods.list(&ListParams::default().labels(SELECTED)).await;
    let pods = pods.map_err(|error| format!("Pods of {namespace}: {}", said(&error)))?;
    let nodes = Api::<Node>::all(client.clone()).list(&ListParams::default().labels(ROLE)).await;
    let nodes = nodes.map_err(|error| format!("Nodes: {}", said(&error)))?;
    let nodes: BTreeSet<String> = nodes.iter().map(ResourceExt::name_any).collect();
    let is_of_one = |pod: &&Pod| {
        let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_ref());
        node.is_some_and(|node| nodes.contains(node))
    };
    let all: Vec<(&Pod, Given)> =
        pods.iter().filter(is_of_one).filter_map(|pod| Some((pod, given(pod)?))).collect();
    let of_file = |pod: &Pod| pod.annotations().contains_key(MIRROR);
    if let Some((pod, _)) = all.iter().find(|(pod, _)| !of_file(pod)) {
        return Err(format!(
            "Pod {namespace}/{} has the control plane's address and is of no file: a DaemonSet brings it to the nodes that join",
            pod.name_any()
        ));
    }
    let named: Vec<(String, Given)> =
        all.into_iter().map(|(pod, given)| (pod.name_any(), given)).collect();
    agreed(&named).map_err(|why| format!("namespace {namespace}: {why}"))
}

/// What an API server says where it refuses, and else why it says nothing.
fn said(error: &Error) -> String {
    match error {
        Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        error => chain(error),
    }
}

/// What all of them are given.
fn agreed(pods: &[(String, Given)]) -> Result<Given, String> {
    let Some((first, given)) = pods.first() else {
        return Err("no Pod of berth-announcer has the control plane's address on a node with the label node-role.kubernetes.io/control-plane".to_owned());
    };
    for (other, differs) in pods {
        let names = given.environment.keys().chain(differs.environment.keys());
        let mut unlike = names
            .filter(|name| given.environment.get(*name) != differs.environment.get(*name))
            .map(|name| {
                (name.as_str(), given.environment.get(name), differs.environment.get(name))
            });
        let image = (given.image != differs.image).then_some((
            "image",
            given.image.as_ref(),
            differs.image.as_ref(),
        ));
        if let Some((name, here, there)) = unlike.next().or(image) {
            let shown = |value: Option<&String>| {
                value.map_or("nothing".to_owned(), |value| Quoted::of(value).to_string())
            };
            let values = match SECRET.contains(&name) {
                true => ", whose values are not shown".to_owned(),
                false => format!(": {} and {}", shown(here), shown(there)),
            };
            return Err(format!(
                "Pods {first} and {other} differ in {name}{values}; one manifest is for all nodes"
            ));
        }
    }
    Ok(given.clone())
}
