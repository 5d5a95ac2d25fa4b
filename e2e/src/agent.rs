//! The stand-in for the kubelet on a bare node.
//!
//! It acts as `system:node:<name>`, so the API server holds it to what a kubelet may do: it keeps the node Ready by
//! its Lease, and runs the pods that are bound to the node, each in a network namespace on the node's bridge. It
//! knows the images of this workspace only, as the programs that lie beside its own. Pods outlive it, and it finds
//! them again, as with a kubelet.

use std::{collections::BTreeMap, path::Path, time::Duration};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        coordination::v1::Lease,
        core::v1::{Node, Pod},
    },
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams},
    runtime::{WatchStreamExt, watcher},
};
use serde_json::json;
use tokio::sync::oneshot;

use crate::{addresses::NodeAddresses, control_plane};

mod pod;
mod run;
mod sandbox;

/// How often a kubelet renews its Lease, and how long one lasts.
const RENEW: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;

/// Runs until killed.
pub async fn run(node: &str, index: usize, kubeconfig: &Path) -> Result<()> {
    let addresses = NodeAddresses::new(index);
    let client = control_plane::client(kubeconfig).await?;
    let sandboxes = sandbox::Sandboxes::open(node, addresses.clone())?;
    tokio::spawn(heartbeat(client.clone(), node.to_owned(), addresses));
    pods(&client, node, &sandboxes).await
}

/// Says Ready once, then renews the Lease, as kubelets do (KEP-589).
async fn heartbeat(client: Client, node: String, addresses: NodeAddresses) {
    let mut said = false;
    loop {
        let beat = async {
            if !said {
                say_ready(&client, &node, &addresses).await?;
            }
            renew(&client, &node).await
        };
        let result = beat.await;
        if let Err(e) = &result {
            eprintln!("heartbeat: {e:#}");
        }
        said = result.is_ok();
        tokio::time::sleep(if said { RENEW } else { Duration::from_secs(1) }).await;
    }
}

async fn say_ready(client: &Client, node: &str, addresses: &NodeAddresses) -> Result<()> {
    let now = Timestamp::now().to_string();
    let room = json!({"cpu": "16", "memory": "64Gi", "pods": "250"});
    let status = json!({"status": {
        "addresses": [
            {"type": "InternalIP", "address": addresses.lan.v4},
            {"type": "InternalIP", "address": addresses.lan.v6},
            {"type": "Hostname", "address": node},
        ],
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "KubeletReady", "message": "a bare node of the lab",
            "lastHeartbeatTime": now, "lastTransitionTime": now,
        }],
        "capacity": room,
        "allocatable": room,
    }});
    let api: Api<Node> = Api::all(client.clone());
    // The strategic way merges addresses by type, and two are of one type.
    api.patch_status(node, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

async fn renew(client: &Client, node: &str) -> Result<()> {
    let api: Api<Lease> = Api::namespaced(client.clone(), "kube-node-lease");
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": node},
        "spec": {
            "holderIdentity": node,
            "leaseDurationSeconds": LEASE_SECONDS,
            "renewTime": MicroTime(Timestamp::now()),
        },
    });
    let merge = api.patch(node, &PatchParams::default(), &Patch::Merge(&lease)).await;
    match merge {
        Err(kube::Error::Api(status)) if status.is_not_found() => {
            api.create(&Default::default(), &serde_json::from_value(lease)?).await?;
        }
        result => drop(result?),
    }
    Ok(())
}

/// Runs the pods bound to the node: one task a pod, ended by the pod's deletion.
async fn pods(client: &Client, node: &str, sandboxes: &sandbox::Sandboxes) -> Result<()> {
    let api: Api<Pod> = Api::all(client.clone());
    let mine = watcher::Config::default().fields(&format!("spec.nodeName={node}"));
    let mut events = watcher(api, mine).default_backoff().boxed();
    let mut running: BTreeMap<String, Option<oneshot::Sender<()>>> = BTreeMap::new();
    let mut listed: Vec<String> = Vec::new();
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            Err(e) => {
                eprintln!("watch of pods: {e}");
                continue;
            }
        };
        match event {
            watcher::Event::Init => listed.clear(),
            watcher::Event::InitApply(pod) => {
                listed.extend(pod.uid());
                apply(client, sandboxes, &mut running, pod);
            }
            watcher::Event::InitDone => {
                // What was deleted while nobody watched.
                running.retain(|uid, _| listed.contains(uid));
                sandboxes.retain(&listed);
            }
            watcher::Event::Apply(pod) => apply(client, sandboxes, &mut running, pod),
            watcher::Event::Delete(pod) => {
                if let Some(uid) = pod.uid() {
                    running.remove(&uid);
                    sandboxes.remove(&uid);
                }
            }
        }
    }
}

fn apply(
    client: &Client,
    sandboxes: &sandbox::Sandboxes,
    running: &mut BTreeMap<String, Option<oneshot::Sender<()>>>,
    pod: Pod,
) {
    let Some(uid) = pod.uid() else { return };
    let ending = pod.metadata.deletion_timestamp.is_some();
    let stop = running.entry(uid).or_insert_with(|| {
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(run::live(client.clone(), sandboxes.clone(), pod, stopped));
        Some(stop)
    });
    if ending {
        // Dropping the sender is the signal.
        *stop = None;
    }
}
