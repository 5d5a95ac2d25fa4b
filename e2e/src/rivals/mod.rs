//! Systems that let one of several nodes answer for an address, each on the same lab and with the same way from the
//! address to the pods (kube-proxy), so that they can be measured side by side.

mod keepalived;
pub mod metallb;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::membership;
use crate::world::{World, env, eventually};
use keepalived::Keepalived;
use metallb::MetalLb;

/// The address that rivals serve. None of Berth's pool in the lab needs it.
const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 65, 1));

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Berth by fenced membership.
    Berth {
        /// How many nodes may answer.
        nodes: usize,
    },
    /// keepalived on three nodes.
    Keepalived {
        /// Between two advertisements of the master.
        advert: Duration,
    },
    /// MetalLB in layer 2 mode on three nodes.
    MetalLb,
}

impl System {
    /// All that `make bench-takeover` measures.
    pub fn all() -> Vec<Self> {
        vec![
            Self::Berth { nodes: 3 },
            Self::Berth { nodes: 5 },
            Self::Keepalived { advert: Duration::from_millis(100) },
            Self::Keepalived { advert: Duration::from_secs(1) },
            Self::MetalLb,
        ]
    }

    /// As in the report.
    pub fn name(self) -> Result<String> {
        Ok(match self {
            Self::Berth { .. } => "Berth, fenced membership".to_owned(),
            Self::Keepalived { advert } => format!("keepalived, advert {advert:?}"),
            Self::MetalLb => format!("MetalLB {}", MetalLb::version()?),
        })
    }

    /// How many nodes may answer.
    pub fn nodes(self) -> usize {
        match self {
            Self::Berth { nodes } => nodes,
            Self::Keepalived { .. } | Self::MetalLb => 3,
        }
    }

    /// Whether a takeover is to cost less than a second.
    pub fn is_fast(self) -> bool {
        match self {
            Self::Berth { .. } => true,
            Self::Keepalived { advert } => advert < Duration::from_secs(1),
            Self::MetalLb => false,
        }
    }

    /// A lab in which it serves one address. The pods are on one node more, which is never taken away.
    pub async fn up(self) -> Result<Stage> {
        let nodes = self.nodes();
        let mut stage = match self {
            Self::Berth { .. } => {
                let world = World::up(nodes, env([])).await?;
                world.expose("web", json!({})).await?;
                let address = world.published("web", 1).await?[0];
                return Ok(Stage { system: self, world, address, part: Part::Berth });
            }
            Self::Keepalived { advert } => {
                let world = World::without_berth(nodes + 1, env([])).await?;
                world.deploy("default", "hello", 2)?;
                let spec = json!({ "type": "ClusterIP", "externalIPs": [ADDRESS] });
                world.expose("web", spec).await?;
                let part = Part::Keepalived(Keepalived::new(nodes, advert, ADDRESS));
                Stage { system: self, world, address: ADDRESS, part }
            }
            Self::MetalLb => {
                let world = World::without_berth(nodes + 1, env([])).await?;
                world.deploy("default", "hello", 2)?;
                let part =
                    Part::MetalLb(MetalLb::up(&world, nodes, &[format!("{ADDRESS}/32")]).await?);
                world.expose("web", json!({})).await?;
                Stage { system: self, world, address: ADDRESS, part }
            }
        };
        for node in 0..nodes {
            stage.start(node).await?;
        }
        Ok(stage)
    }
}

/// A system at work.
pub struct Stage {
    system: System,
    /// Its lab.
    pub world: World,
    /// The address that it serves.
    pub address: IpAddr,
    part: Part,
}

enum Part {
    Berth,
    Keepalived(Keepalived),
    MetalLb(MetalLb),
}

impl Stage {
    /// Starts it on a node, for the first time or after a crash of the node.
    pub async fn start(&mut self, node: usize) -> Result<()> {
        match &mut self.part {
            Part::Berth => self.world.start_announcer(node).await.map(drop),
            Part::Keepalived(rival) => rival.start(&self.world.lab, node),
            Part::MetalLb(rival) => rival.start(&self.world.lab, node),
        }
    }

    /// Waits until every node takes part again.
    pub async fn settled(&self) -> Result<()> {
        let all = || async {
            let settled = match &self.part {
                Part::Berth => membership::is_settled(&self.world, self.system.nodes()).await?,
                Part::Keepalived(rival) => rival.is_settled(),
                Part::MetalLb(rival) => rival.is_settled(&self.world.lab),
            };
            Ok(settled.then_some(()))
        };
        eventually("all nodes take part", 90, all).await.with_context(|| self.logs())
    }

    /// What its processes said last.
    pub fn logs(&self) -> String {
        match &self.part {
            Part::Berth => self.world.logs(),
            Part::Keepalived(rival) => rival.logs(),
            Part::MetalLb(rival) => rival.logs(),
        }
    }
}
