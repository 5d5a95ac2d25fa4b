//! Three control-plane nodes and what keeps their address.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Net, mac, node_host};
use berth_e2e::control_plane::{API_PORT, ControlPlane, Member, Part};
use berth_e2e::fault::Leftovers;
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::pki::Pki;
use berth_e2e::process::Process;
use berth_e2e::wire::{Record, Watch};
use berth_e2e::world::eventually;
use serde_json::json;

use crate::systems::{ADDRESS, Seat, System};

pub(crate) const NODES: usize = 3;
/// Of the announcers.
const METRICS: &str = "http://127.0.0.1:2112/metrics";

pub(crate) struct Stacked {
    pub(crate) lab: Lab,
    system: System,
    starts: usize,
    servers: Vec<Process>,
    /// What keeps the address, on each node.
    keepers: Vec<Process>,
}

impl Stacked {
    pub(crate) async fn up(system: System) -> Result<Self> {
        let lab = Lab::up(Spec::bare(NODES)).await?;
        // Nobody needs the control plane that a lab has of its own.
        for part in [Part::Scheduler, Part::ControllerManager, Part::ApiServer, Part::Etcd] {
            lab.kill_part(part)?;
        }
        let pki = Pki::open(&lab.dir().join("pki"))?;
        let reached = lab.nodes().iter().map(|node| IpAddr::from(node.addresses().lan.v4));
        ControlPlane::write_certificate(&pki, &reached.chain([ADDRESS]).collect::<Vec<_>>())?;
        let own = format!("https://127.0.0.1:{API_PORT}");
        pki.kubeconfig("stacked", &own, "kubernetes-admin", &["system:masters"])?;
        let (servers, keepers) = (Vec::new(), Vec::new());
        let mut stacked = Self { lab, system, starts: 0, servers, keepers };
        for node in 0..NODES {
            stacked.quiet(node)?;
            stacked.part(node, Part::Etcd)?;
        }
        for node in 0..NODES {
            let server = stacked.part(node, Part::ApiServer)?;
            stacked.servers.push(server);
        }
        for node in 0..NODES {
            stacked.ready(node).await?;
        }
        stacked.nodes()?;
        for node in 0..NODES {
            let keeper = stacked.keep(node)?;
            stacked.keepers.push(keeper);
        }
        Ok(stacked)
    }

    /// What a node of a lab has besides, and nobody needs here.
    fn quiet(&self, node: usize) -> Result<()> {
        let name = self.lab.node(node).name();
        ["kube-proxy", "agent"].iter().try_for_each(|one| self.lab.process(name, one)?.kill())
    }

    fn part(&mut self, node: usize, part: Part) -> Result<Process> {
        let all = self.lab.nodes().iter().map(|n| (n.name().to_owned(), n.addresses().lan.v4));
        let address = self.lab.node(node).addresses().lan.v4;
        let member = Member { address, all: all.collect() };
        self.starts += 1;
        let place = self.lab.node(node).place()?;
        let name = format!("{}-{}", part.program(), self.starts);
        ControlPlane::stacked(place, self.lab.programs(), member).start_as(part, &name)
    }

    fn keep(&mut self, node: usize) -> Result<Process> {
        self.starts += 1;
        let seat = Seat { lab: &self.lab, node, kubeconfig: &self.kubeconfig() };
        self.system.start(&seat, &format!("keeper-{}", self.starts))
    }

    /// Waits until the node's own API server is ready.
    pub(crate) async fn ready(&self, node: usize) -> Result<()> {
        let url = format!("https://127.0.0.1:{API_PORT}/readyz");
        let asked = [
            "curl",
            "--silent",
            "--fail",
            "--insecure",
            "--max-time",
            "2",
            "--output",
            "/dev/null",
            &url,
        ];
        let is_ready = || async {
            let place = self.lab.node(node).place()?;
            Ok(place.output(asked)?.status.success().then_some(()))
        };
        eventually("an API server is ready", 60, is_ready).await.with_context(|| self.logs())
    }

    /// Waits until each node counts its API server as healthy again, where that can be seen: one that was up and down has to be
    /// well for a while.
    pub(crate) async fn settled(&self) -> Result<()> {
        let Some(sign) = self.system.sign_of_health() else { return Ok(()) };
        let all = || async {
            for node in self.lab.nodes() {
                let place = node.place()?;
                let output = place.output(["curl", "--silent", "--max-time", "2", METRICS])?;
                let text = String::from_utf8_lossy(&output.stdout);
                if !text.lines().any(|line| line == sign) {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        eventually("all API servers count as healthy", 90, all).await.with_context(|| self.logs())
    }

    /// Their Nodes, as kubelets would have made them.
    fn nodes(&self) -> Result<()> {
        for node in self.lab.nodes() {
            let name = node.name();
            let labels = json!({ "node-role.kubernetes.io/control-plane": "" });
            let object = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": { "name": name, "labels": labels },
            });
            let addresses = [json!({ "type": "InternalIP", "address": node.addresses().lan.v4 })];
            let status = json!({ "status": { "addresses": addresses } }).to_string();
            self.kubectl(&["create", "--filename=-"], &object.to_string())?;
            self.kubectl(&["patch", "node", name, "--subresource=status", "--patch", &status], "")?;
        }
        Ok(())
    }

    fn kubectl(&self, argv: &[&str], input: &str) -> Result<String> {
        let program = self.lab.programs().join("kubectl").display().to_string();
        let config = format!("--kubeconfig={}", self.kubeconfig().display());
        let argv = [program.as_str(), &config].into_iter().chain(argv.iter().copied());
        self.lab.node(0).place()?.exec_with_input(argv, input)
    }

    /// By the node's own API server.
    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.lab.dir().join("pki/stacked.kubeconfig")
    }

    pub(crate) fn server(&self, node: usize) -> &Process {
        &self.servers[node]
    }

    /// Starts a node's API server again.
    pub(crate) fn start_server(&mut self, node: usize) -> Result<()> {
        self.servers[node] = self.part(node, Part::ApiServer)?;
        Ok(())
    }

    /// A node that lost its power comes back.
    pub(crate) fn reboot(&mut self, node: usize) -> Result<()> {
        self.lab.reboot(node, Leftovers::Flush)?;
        self.quiet(node)?;
        self.part(node, Part::Etcd)?;
        self.start_server(node)?;
        self.keepers[node] = self.keep(node)?;
        Ok(())
    }

    /// Drops what comes to the port of a node's API server, or no longer.
    pub(crate) fn drop_port(&self, node: usize, drops: bool) -> Result<()> {
        let script = if drops {
            format!(
                "table inet hang {{\n  chain input {{ type filter hook input priority -300; tcp dport {API_PORT} drop; }}\n}}\n"
            )
        } else {
            "delete table inet hang\n".to_owned()
        };
        self.lab.node(node).place()?.exec_with_input(["nft", "-f", "-"], script).map(drop)
    }

    /// Who spoke last.
    pub(crate) fn owner(&self, wire: &Watch) -> Result<usize> {
        let Record(heard) = wire.so_far();
        let last = heard.iter().rev().find(|said| said.address == ADDRESS);
        let last = last.context("nobody answers")?.mac;
        let found = (0..NODES).find(|node| mac(Net::Lan, node_host(*node)) == last);
        let found = found.with_context(|| format!("{last:x?} is no node's"))?;
        ensure!(self.keepers[found].is_alive(), "what keeps the address has ended");
        Ok(found)
    }

    pub(crate) fn logs(&self) -> String {
        let all = self.keepers.iter().chain(&self.servers);
        all.map(|one| format!("{} {}\n{}", one.place, one.name, one.log_tail()))
            .collect::<Vec<_>>()
            .join("\n---\n")
    }
}
