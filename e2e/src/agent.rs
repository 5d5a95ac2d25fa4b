//! The stand-in for the kubelet on a bare node. Same user, same API calls in kind; see [`run`].

use std::{path::Path, time::Duration};

use anyhow::Result;
use k8s_openapi::{api::core::v1::Node, jiff::Timestamp};
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::json;

use crate::{addresses::NodeAddresses, control_plane};

/// Keeps the node Ready.
pub async fn run(node: &str, index: usize, kubeconfig: &Path) -> Result<()> {
    let client = control_plane::client(kubeconfig).await?;
    let api: Api<Node> = Api::all(client);
    let lan = NodeAddresses::new(index).lan;
    loop {
        let now = Timestamp::now().to_string();
        let status = json!({"status": {
            "addresses": [
                {"type": "InternalIP", "address": lan.v4}, {"type": "InternalIP", "address": lan.v6},
                {"type": "Hostname", "address": node}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "bare node",
                "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "capacity": {"cpu": "16", "memory": "64Gi", "pods": "250"},
            "allocatable": {"cpu": "16", "memory": "64Gi", "pods": "250"},
        }});
        let result =
            api.patch_status(node, &PatchParams::default(), &Patch::Strategic(status)).await;
        if let Err(e) = &result {
            eprintln!("{e}");
        }
        tokio::time::sleep(Duration::from_secs(if result.is_ok() { 8 } else { 1 })).await;
    }
}
