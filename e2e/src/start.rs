//! Brings nodes up: registers them, starts the processes of their kind, waits until the API server says Ready.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use k8s_openapi::api::core::v1::{Node as NodeObject, NodeSpec};
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams},
};

use crate::{
    bare_node,
    node::{Kind, Node},
    real_node,
};

/// Brings all nodes of a new lab up.
pub(crate) async fn nodes(client: &Client, nodes: &[Node]) -> Result<()> {
    for node in nodes {
        register(client, node).await?;
    }
    let all = nodes.to_vec();
    tokio::task::spawn_blocking(move || start_all(&all)).await??;
    let names: Vec<_> = nodes.iter().map(Node::name).collect();
    until_ready(client, &names, Duration::from_secs(120)).await
}

/// Boots the machines of a new lab.
pub(crate) async fn machines(nodes: &[Node]) -> Result<()> {
    let all = nodes.to_vec();
    tokio::task::spawn_blocking(move || start_all(&all)).await?
}

fn start_all(nodes: &[Node]) -> Result<()> {
    thread::scope(|scope| {
        let running: Vec<_> = nodes.iter().map(|node| scope.spawn(|| processes(node))).collect();
        running.into_iter().zip(nodes).try_for_each(|(thread, node)| match thread.join() {
            Ok(result) => result.with_context(|| format!("start {}", node.name())),
            Err(_) => bail!("the thread that starts {} panicked", node.name()),
        })
    })
}

/// Starts the processes of one node, the first time or after a crash.
pub(crate) fn processes(node: &Node) -> Result<()> {
    match node.kind {
        Kind::Bare => bare_node::start(&node.context),
        Kind::Real => real_node::start(&node.context),
        Kind::Machine => real_node::machine::start(&node.context),
    }
}

/// The Node object is made ahead, so that pod networks and routes are known and never race with the allocator.
async fn register(client: &Client, node: &Node) -> Result<()> {
    let labels = [
        ("kubernetes.io/hostname", node.name()),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }),
        (
            "berth.dev/lab-node",
            match node.kind {
                Kind::Bare => "bare",
                Kind::Real => "real",
                Kind::Machine => "machine",
            },
        ),
    ];
    let cidrs = node.addresses().pod_cidrs().map(|c| c.to_string());
    let object = NodeObject {
        metadata: ObjectMeta {
            name: Some(node.name().to_owned()),
            labels: Some(labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into()),
            ..ObjectMeta::default()
        },
        spec: Some(NodeSpec {
            pod_cidr: Some(cidrs[0].clone()),
            pod_cidrs: Some(cidrs.to_vec()),
            ..NodeSpec::default()
        }),
        status: None,
    };
    let api: Api<NodeObject> = Api::all(client.clone());
    api.create(&PostParams::default(), &object)
        .await
        .with_context(|| format!("register {}", node.name()))?;
    Ok(())
}

/// Waits until all the named nodes are Ready and may be scheduled to.
pub(crate) async fn until_ready(client: &Client, names: &[&str], limit: Duration) -> Result<()> {
    let api: Api<NodeObject> = Api::all(client.clone());
    let start = Instant::now();
    loop {
        let list = api.list(&ListParams::default()).await?;
        let waiting: Vec<_> = names
            .iter()
            .filter(|name| {
                !list
                    .items
                    .iter()
                    .any(|n| n.metadata.name.as_deref() == Some(**name) && is_ready(n))
            })
            .collect();
        if waiting.is_empty() {
            return Ok(());
        }
        ensure!(start.elapsed() < limit, "not Ready after {limit:?}: {waiting:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn is_ready(node: &NodeObject) -> bool {
    let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready =
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
    let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
    ready && taints.is_none_or(|all| !all.iter().any(|t| t.key.starts_with("node.kubernetes.io/")))
}
