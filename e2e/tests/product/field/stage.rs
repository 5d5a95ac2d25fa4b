//! A world in which cases are played, and what they have done to its nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::fault::Leftovers;
use berth_e2e::membership::is_settled;
use berth_e2e::wire::Watch;
use berth_e2e::world::{Env, World, eventually};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use super::case::{Case, Election};
use super::play::Play;

pub(crate) const NODES: usize = 3;
/// What empties a node here, as `berth_drain_taints` has it.
pub(crate) const TAINT: &str = "berth.example/upkeep";
pub(crate) const LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
pub(crate) const NOTE: &str = "berth.dev/drain";
/// Where the pods of the lab are.
const DEFAULT: &str = "default";

/// A world, and what cases have changed of its nodes.
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) election: Election,
    pub(crate) wire: Watch,
    /// The address of a pod.
    pub(crate) pod: String,
    /// By namespace, the last octet of the first address that a case there may ask for.
    firsts: BTreeMap<String, u8>,
    changed: Mutex<Changed>,
}

/// Nodes that are not as they were.
#[derive(Debug, Default)]
pub(crate) struct Changed {
    pub(crate) crashed: BTreeSet<usize>,
    pub(crate) left: BTreeSet<usize>,
    pub(crate) emptied: bool,
}

impl Stage {
    /// A world in which these cases can be played beside each other: each has a namespace with addresses of its own.
    pub(crate) async fn up(election: Election, environment: Env, apart: &[&Case]) -> Result<Self> {
        let world = World::up(NODES, environment).await?;
        let mut pools =
            json!({ "range-global": "10.0.64.1-10.0.64.99", "allow-share-global": "true" });
        let namespaces: Api<Namespace> = Api::all(world.client.clone());
        let mut firsts = BTreeMap::new();
        for (number, case) in (0u8..).zip(apart) {
            let first = 100 + 4 * number;
            firsts.insert(case.name.clone(), first);
            pools[format!("range-{}", case.name)] =
                format!("10.0.64.{first}-10.0.64.{}", first + 3).into();
            pools[format!("allow-share-{}", case.name)] = "true".into();
            let namespace = json!({ "metadata": { "name": case.name } });
            let namespace = serde_json::from_value(namespace)?;
            namespaces.create(&PostParams::default(), &namespace).await?;
        }
        world.pools(pools).await?;
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), DEFAULT);
        let list = pods.list(&ListParams::default().labels("app=hello")).await?;
        let pod = list.into_iter().find_map(|pod| pod.status?.pod_ip).context("a pod's address")?;
        let (wire, changed) = (world.lab.watch()?, Mutex::default());
        let stage = Self { world, election, wire, pod, firsts, changed };
        stage.settled().await?;
        Ok(stage)
    }

    /// A case begins.
    pub(crate) fn begin<'a>(&'a self, case: &'a Case) -> Play<'a> {
        Play::new(self, if case.is_apart() { &case.name } else { DEFAULT })
    }

    /// The address of this number of those that a case of the namespace has.
    pub(crate) fn address(&self, namespace: &str, number: u8) -> IpAddr {
        let first = self.firsts.get(namespace).copied().unwrap_or(60);
        [10, 0, 64, first + number].into()
    }

    pub(crate) fn changed(&self) -> MutexGuard<'_, Changed> {
        self.changed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The nodes on which an announcer runs.
    pub(crate) fn there(&self) -> Vec<usize> {
        let changed = self.changed();
        let is_there =
            |node: &usize| !changed.left.contains(node) && !changed.crashed.contains(node);
        (0..NODES).filter(is_there).collect()
    }

    pub(crate) async fn settled(&self) -> Result<()> {
        if self.election != Election::Membership || !self.changed().left.is_empty() {
            return Ok(());
        }
        let all = || async { Ok(is_settled(&self.world, NODES).await?.then_some(())) };
        eventually("all nodes take part", 60, all).await.with_context(|| self.logs())
    }

    /// Makes nodes as they were.
    pub(crate) async fn restore(&mut self) -> Result<()> {
        let Changed { crashed, left, emptied } = std::mem::take(&mut *self.changed());
        if emptied {
            let filled = json!({
                "metadata": { "labels": { LABEL: null }, "annotations": { NOTE: null } },
                "spec": { "unschedulable": null, "taints": null },
            });
            for node in 0..NODES {
                self.patch(node, &filled).await?;
            }
        }
        for node in &crashed {
            self.world.lab.reboot(*node, Leftovers::Flush)?;
        }
        for node in left.union(&crashed) {
            self.world.start_announcer(*node).await?;
        }
        self.settled().await
    }

    pub(crate) async fn patch(&self, node: usize, patch: &Value) -> Result<()> {
        let nodes: Api<Node> = Api::all(self.world.client.clone());
        let name = self.world.lab.node(node).name();
        nodes.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Ends the announcer of a node.
    pub(crate) fn ends(&self, node: usize) -> Result<()> {
        let name = self.world.lab.node(node).name();
        self.world.announcer(name)?.terminate(Duration::from_secs(20))
    }

    pub(crate) fn logs(&self) -> String {
        self.world.logs()
    }

    pub(crate) fn down(self) -> Result<()> {
        self.wire.finish()?;
        self.world.lab.down()
    }
}

pub(crate) fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}
