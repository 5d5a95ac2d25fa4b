//! A world of which each half is run by either side, and is exchanged as the pages of migration say.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::membership;
use berth_e2e::process::Process;
use berth_e2e::stock::Stock;
use berth_e2e::world::{Env, POOL, World, env, eventually};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;

/// With an announcer. The pods are on one node more.
pub(crate) const NODES: usize = 3;

/// How long a program may take to end.
const END: Duration = Duration::from_secs(30);
/// The stock provider leaves its Lease to run out, which takes 15 s, and others look at it each two.
const LEADS: u64 = 45;

/// Whose program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    Berth,
    Stock,
}

impl Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Berth => "Berth",
            Self::Stock => "stock",
        })
    }
}

/// How our announcers are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ours {
    /// As `manifests/` are: membership decides.
    Membership,
    /// As `manifests/`, with a Lease for each Service.
    Leases,
    /// By kube-vip's DaemonSet and role, of which the image alone is another.
    Image,
}

impl Display for Ours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Membership => "membership",
            Self::Leases => "Leases",
            Self::Image => "kube-vip's manifest",
        })
    }
}

impl Ours {
    fn environment(self, stock: &Stock) -> Result<Env> {
        let each = env([
            ("vip_leaderelection", "true"),
            ("vip_leaseduration", "5"),
            ("vip_renewdeadline", "3"),
            ("vip_retryperiod", "1"),
            ("svc_election", "true"),
        ]);
        match self {
            Self::Membership => Ok(env([])),
            Self::Leases => Ok(each),
            Self::Image => stock.environment(),
        }
    }
}

/// A world, and who runs its halves.
pub(crate) struct Halves {
    pub(crate) world: World,
    stock: Stock,
    /// Of stock announcers, besides that of their manifest.
    theirs: Env,
    ours: Ours,
    starts: usize,
    allocating: Option<(Side, Process)>,
    announcing: BTreeMap<usize, (Side, Process)>,
}

impl Halves {
    /// Nobody runs yet.
    pub(crate) async fn new(stock: &Stock, ours: Ours, theirs: &Env) -> Result<Self> {
        let world = World::without_berth(NODES + 1, ours.environment(stock)?).await?;
        stock.grant(&world).await?;
        let pools = json!({ "range-global": POOL, "allow-share-global": "true" });
        world.pools(pools).await?;
        world.deploy("default", "hello", 2)?;
        Ok(Self {
            world,
            stock: stock.clone(),
            theirs: theirs.clone(),
            ours,
            starts: 0,
            allocating: None,
            announcing: BTreeMap::new(),
        })
    }

    /// All of both halves run.
    pub(crate) async fn up(stock: &Stock, side: Side, ours: Ours, theirs: &Env) -> Result<Self> {
        let mut halves = Self::new(stock, ours, theirs).await?;
        halves.allocate(side).await?;
        for node in 0..NODES {
            halves.announce(node, side).await?;
        }
        halves.settled().await?;
        Ok(halves)
    }

    pub(crate) fn allocates(&self) -> Option<Side> {
        self.allocating.as_ref().map(|(side, _)| *side)
    }

    /// Who announces on a node.
    pub(crate) fn announces(&self, node: usize) -> Option<Side> {
        self.announcing.get(&node).map(|(side, _)| *side)
    }

    pub(crate) fn announcer(&self, node: usize) -> Result<&Process> {
        Ok(&self.announcing.get(&node).context("nobody announces there")?.1)
    }

    /// Whoever allocates ends; this side allocates when this returns.
    pub(crate) async fn allocate(&mut self, side: Side) -> Result<()> {
        if let Some((_, process)) = self.allocating.take() {
            process.terminate(END)?;
        }
        // Ours gives its Lease back, and the next one of ours has the same name.
        let before = self.leader().await?;
        self.starts += 1;
        let name = format!("allocating-{}", self.starts);
        let process = match side {
            Side::Berth => self.world.start_ccm().await?.clone(),
            Side::Stock => self.stock.ccm(&self.world, &name).await?,
        };
        self.allocating = Some((side, process));
        eventually("it has the Lease of who allocates", LEADS, || async {
            let now = self.leader().await?;
            Ok((now.is_some() && now != before).then_some(()))
        })
        .await
        .with_context(|| self.logs())
    }

    async fn leader(&self) -> Result<Option<String>> {
        let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), "kube-system");
        let spec = leases.get_opt("kube-vip-cloud-controller").await?.and_then(|lease| lease.spec);
        Ok(spec.and_then(|spec| spec.holder_identity).filter(|holder| !holder.is_empty()))
    }

    /// Whoever announces on a node ends, as a pod does; this side's announcer answers for its metrics when this returns.
    pub(crate) async fn announce(&mut self, node: usize, side: Side) -> Result<()> {
        self.end(node)?;
        self.start(node, side).await
    }

    /// Whoever announces on a node ends, as a pod does.
    pub(crate) fn end(&mut self, node: usize) -> Result<()> {
        match self.announcing.remove(&node) {
            Some((_, process)) => process.terminate(END),
            None => Ok(()),
        }
    }

    /// Starts an announcer where none is, or one has died.
    pub(crate) async fn start(&mut self, node: usize, side: Side) -> Result<()> {
        self.starts += 1;
        let name = format!("announcing-{}", self.starts);
        let process = match side {
            Side::Berth if self.ours == Ours::Image => {
                let mut variables = self.ours.environment(&self.stock)?;
                variables.insert("KUBECONFIG".to_owned(), self.stock.rights(&self.world).await?);
                self.world.start_announcer_with(node, variables).await?.clone()
            }
            Side::Berth => self.world.start_announcer(node).await?.clone(),
            Side::Stock => self.stock.announcer(&self.world, node, &name, &self.theirs).await?,
        };
        self.announcing.insert(node, (side, process));
        let serves = || async { Ok(self.serves_metrics(node)?.then_some(())) };
        eventually("it serves its metrics", 20, serves).await.with_context(|| self.logs())
    }

    fn serves_metrics(&self, node: usize) -> Result<bool> {
        let place = self.world.lab.node(node).place()?;
        place.in_network(|| TcpStream::connect(("127.0.0.1", 2112)).is_ok())
    }

    /// Where all announcers are ours by membership: until all take part.
    pub(crate) async fn settled(&self) -> Result<()> {
        let all = (0..NODES).all(|node| self.announces(node) == Some(Side::Berth));
        if !all || self.ours != Ours::Membership {
            return Ok(());
        }
        eventually("all nodes take part", 60, || async {
            Ok(membership::is_settled(&self.world, NODES).await?.then_some(()))
        })
        .await
        .with_context(|| self.logs())
    }

    /// The numbers of the nodes that have an address on any interface.
    pub(crate) fn holders(&self, address: IpAddr) -> Result<Vec<usize>> {
        let mut all = Vec::new();
        for node in 0..NODES {
            let Ok(place) = self.world.lab.node(node).place() else { continue };
            let Ok(shown) = place.exec(["ip", "-json", "address", "show"]) else { continue };
            if shown.contains(&format!("\"{address}\"")) {
                all.push(node);
            }
        }
        Ok(all)
    }

    /// The Leases of all namespaces whose name begins so.
    pub(crate) async fn leases(&self, prefix: &str) -> Result<Vec<(String, String)>> {
        let leases: Api<Lease> = Api::all(self.world.client.clone());
        let all = leases.list(&<_>::default()).await?.items.into_iter();
        let pair = all.filter_map(|lease| {
            let holder = lease.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
            Some((lease.metadata.name?, holder))
        });
        Ok(pair.filter(|(name, _)| name.starts_with(prefix)).collect())
    }

    /// The tables and chains of nftables, and of iptables in it, that an announcer of this side has made and that are left
    /// on nodes where it runs no more.
    pub(crate) fn tables(&self, side: Side) -> Result<Vec<String>> {
        let word = if side == Side::Berth { "berth" } else { "kube-vip" };
        let mut found = Vec::new();
        for node in (0..NODES).filter(|node| self.announces(*node) != Some(side)) {
            let place = self.world.lab.node(node).place()?;
            // In words: what iptables has made there is none of nft's JSON.
            for line in place.exec(["nft", "list", "ruleset"])?.lines() {
                let line = line.trim().trim_end_matches('{').trim_end();
                let is_one = line.starts_with("table ") || line.starts_with("chain ");
                if is_one && line.to_lowercase().contains(word) {
                    found.push(format!("node{node}: {line}"));
                }
            }
        }
        Ok(found)
    }

    /// What all programs said last.
    pub(crate) fn logs(&self) -> String {
        let allocating = self.allocating.iter();
        let all = allocating.chain(self.announcing.values());
        let tails = all.map(|(side, process)| {
            format!("--- {side}, {} on {}\n{}", process.name, process.place, process.log_tail())
        });
        tails.collect::<Vec<_>>().join("\n")
    }

    /// The end.
    pub(crate) fn down(self) -> Result<()> {
        self.world.lab.down()
    }
}
