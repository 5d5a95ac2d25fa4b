//! A router of the lab's LAN that speaks BGP with every node: its own table says what they have told it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab_routers::{Neighbor, Plan, Program, Route};

use crate::addresses::router;
use crate::lab::Lab;
use crate::process::Process;

/// Its AS.
pub const ROUTER_AS: u32 = 65001;

/// How long it may take to answer.
const STARTS: Duration = Duration::from_secs(20);

/// A program that runs in the router's namespace, has a session with each node, and forwards by what it learns.
#[derive(Debug)]
pub struct LanRouter {
    program: &'static dyn Program,
    plan: Plan,
    folder: PathBuf,
    processes: Vec<Process>,
}

impl LanRouter {
    /// Starts it. What is said of each session beside addresses and ASes is said by `more`. Neighbours are called as the
    /// nodes are, with `_` in the place of hyphens.
    pub fn start(
        lab: &Lab,
        program: &'static dyn Program,
        nodes_as: u32,
        more: impl Fn(&mut Neighbor),
    ) -> Result<Self> {
        Self::start_with(lab, program, nodes_as, more, vec![])
    }

    /// The same with more beside its sessions with the nodes, as the program writes it.
    pub fn start_with(
        lab: &Lab,
        program: &'static dyn Program,
        nodes_as: u32,
        more: impl Fn(&mut Neighbor),
        beside: Vec<String>,
    ) -> Result<Self> {
        let place = lab.router();
        let own = router().v4;
        let neighbor = |node: &crate::node::Node| {
            let mut neighbor = Neighbor::new(own, node.addresses().lan.v4, nodes_as);
            neighbor.name = called(node.name());
            more(&mut neighbor);
            neighbor
        };
        let neighbors = lab.nodes().iter().map(neighbor).collect();
        let plan = Plan { asn: ROUTER_AS, router_id: own, neighbors, forwards: true, more: beside };
        // A client on the LAN that was told of a node would go there past the router. Of several ways each connection takes
        // one, by its ports.
        for setting in [
            "ipv4.conf.all.send_redirects=0",
            "ipv4.conf.eth0.send_redirects=0",
            "ipv4.fib_multipath_hash_policy=1",
            "ipv6.fib_multipath_hash_policy=1",
        ] {
            place.exec(["sysctl", "-qw", &format!("net.{setting}")])?;
        }
        let name = program.name().to_lowercase();
        let folder = lab.dir().join(&name);
        std::fs::create_dir_all(&folder)?;
        let mut running = Self { program, plan, folder, processes: vec![] };
        for (number, daemon) in
            running.program.configure(&running.plan, &running.folder)?.into_iter().enumerate()
        {
            let _ = std::fs::remove_file(&daemon.answers);
            let process = place.start(&format!("{name}-{number}"), daemon.command)?;
            running.processes.push(process);
            let begun = Instant::now();
            while !daemon.answers.exists() {
                running.is_alive()?;
                ensure!(begun.elapsed() < STARTS, "{name} does not answer: {}", running.log());
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        Ok(running)
    }

    fn is_alive(&self) -> Result<()> {
        let ended = self.processes.iter().find(|process| !process.is_alive());
        match ended {
            Some(ended) => {
                anyhow::bail!("{} ended: {}{}", ended.name, ended.log_tail(), self.log())
            }
            None => Ok(()),
        }
    }

    /// What it says to a command.
    pub fn says(&self, command: &str) -> Result<String> {
        self.is_alive()?;
        self.program.says(&self.folder, command)
    }

    /// Where its configuration is.
    pub(crate) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its log.
    pub fn log(&self) -> String {
        self.program.log(&self.folder)
    }

    /// All ways to an address that it has.
    pub fn routes(&self, address: IpAddr) -> Result<Vec<Route>> {
        self.is_alive()?;
        let length = if address.is_ipv4() { 32 } else { 128 };
        self.program.routes(&self.plan, &self.folder, &format!("{address}/{length}"))
    }

    /// The next hops of an address, by the neighbour that told it.
    pub fn paths(&self, address: IpAddr) -> Result<BTreeMap<String, IpAddr>> {
        let first = |route: Route| {
            let hop = route.next_hops.first().copied().context("a next hop")?;
            Ok((route.from, hop))
        };
        self.routes(address)?.into_iter().map(first).collect()
    }

    /// Ends it at once, as a crash would.
    pub fn kill(&self) -> Result<()> {
        self.processes.iter().rev().try_for_each(Process::kill)
    }
}

/// What a node is called in a router's configuration.
pub fn called(node: &str) -> String {
    node.replace(['-', '.'], "_")
}
