//! Bare nodes: kube-proxy and the stand-in for the kubelet, in a keeper's namespaces.

use anyhow::Result;

use crate::{node::NodeContext, place::lab_program};

/// Starts the node's processes.
pub(crate) fn start(context: &NodeContext) -> Result<()> {
    let place = context.start_keeper(Vec::new())?;
    place.start("kube-proxy", context.kube_proxy())?;
    place.start_with(
        "agent",
        [
            lab_program()?.display().to_string(),
            "agent".into(),
            format!("--node={}", context.name),
            format!("--kubeconfig={}", context.kubelet_kubeconfig()?.display()),
            format!("--index={}", context.index),
        ],
        [("BERTH_LAB".to_owned(), context.dir.name().to_owned())].into(),
    )?;
    Ok(())
}
