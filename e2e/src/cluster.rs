//! What black-box tests need of a cluster, so that the same ones run in the lab and in kind.
//!
//! `BERTH_E2E_CLUSTER` chooses: `lab` (the default) makes a lab of three real nodes, or takes the one that
//! `BERTH_E2E_LAB` names; `kind` takes the cluster that `e2e/kind.sh` made.

use std::{
    collections::BTreeSet,
    env,
    io::Write,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use ipnetwork::IpNetwork;
use serde_json::Value;

use crate::{
    addresses::{self, DualStack},
    lab::{Lab, Spec},
    node::Node,
};

/// A cluster with a host beside it on the same LAN.
pub trait Cluster: Send + Sync {
    /// A kubeconfig with all rights.
    fn kubeconfig(&self) -> PathBuf;
    /// kubectl.
    fn kubectl(&self) -> PathBuf;
    /// The nodes' names.
    fn nodes(&self) -> Result<Vec<String>>;
    /// The nodes' interface on the LAN.
    fn interface(&self) -> &str;
    /// Runs a command on a node; its standard output, anything but success is an error.
    fn exec(&self, node: &str, argv: &[&str]) -> Result<String>;
    /// The same on the host beside the nodes.
    fn exec_outside(&self, argv: &[&str]) -> Result<String>;
    /// Addresses of the LAN that nothing uses; consecutive for consecutive `n`.
    fn free(&self, n: u16) -> DualStack;
    /// Takes the cluster down in order, if this process made it.
    fn finish(self: Box<Self>) -> Result<()>;
}

impl dyn Cluster + '_ {
    /// kubectl with all rights; its standard output.
    pub fn run_kubectl(&self, arguments: &[&str]) -> Result<String> {
        self.kubectl_with_input(arguments, "")
    }

    /// Applies YAML.
    pub fn apply(&self, yaml: &str) -> Result<()> {
        self.kubectl_with_input(&["apply", "-f", "-"], yaml).map(drop)
    }

    /// The addresses of a node's interface on the LAN, as `ip -j` says.
    pub fn addresses_of(&self, node: &str) -> Result<BTreeSet<IpAddr>> {
        let text = self.exec(node, &["ip", "-json", "address", "show", "dev", self.interface()])?;
        let links: Vec<Value> = serde_json::from_str(&text).context("ip -json")?;
        let entries = links.iter().filter_map(|link| link["addr_info"].as_array()).flatten();
        entries
            .filter_map(|entry| entry["local"].as_str())
            .map(|local| local.parse().with_context(|| format!("ip says {local}")))
            .collect()
    }

    /// The nodes whose interface on the LAN has the address.
    pub fn holders(&self, address: IpAddr) -> Result<Vec<String>> {
        let mut holders = self.nodes()?;
        let mut failed = None;
        holders.retain(|node| match self.addresses_of(node) {
            Ok(addresses) => addresses.contains(&address),
            Err(e) => {
                failed = Some(e);
                false
            }
        });
        failed.map_or(Ok(holders), Err)
    }

    /// One HTTP request from the host beside the nodes; the body, or why not.
    pub fn curl(&self, address: IpAddr) -> Result<String> {
        let url = match address {
            IpAddr::V4(v4) => format!("http://{v4}/"),
            IpAddr::V6(v6) => format!("http://[{v6}]/"),
        };
        self.exec_outside(&["curl", "-sS", "--fail", "--max-time", "5", &url])
    }

    fn kubectl_with_input(&self, arguments: &[&str], input: &str) -> Result<String> {
        let mut child = Command::new(self.kubectl())
            .arg("--kubeconfig")
            .arg(self.kubeconfig())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("start kubectl")?;
        child.stdin.take().context("no standard input")?.write_all(input.as_bytes())?;
        let output = child.wait_with_output()?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        ensure!(output.status.success(), "kubectl {arguments:?}: {}", text(&output.stderr));
        Ok(text(&output.stdout))
    }
}

/// The cluster that the environment asks for. Dropping it removes what this made.
pub async fn from_env() -> Result<Box<dyn Cluster>> {
    match env::var("BERTH_E2E_CLUSTER").as_deref() {
        Ok("kind") => Ok(Box::new(Kind::from_env()?)),
        Ok("lab") | Err(_) => Ok(Box::new(match env::var("BERTH_E2E_LAB") {
            Ok(name) => Lab::attach(&name).await?,
            Err(_) => Lab::up(Spec::real(3)).await?,
        })),
        Ok(other) => bail!("BERTH_E2E_CLUSTER={other:?}: lab or kind is accepted"),
    }
}

impl Cluster for Lab {
    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig()
    }

    fn kubectl(&self) -> PathBuf {
        self.programs().join("kubectl")
    }

    fn nodes(&self) -> Result<Vec<String>> {
        Ok(Lab::nodes(self).iter().map(|node| node.name().to_owned()).collect())
    }

    fn interface(&self) -> &str {
        addresses::Net::Lan.interface()
    }

    fn exec(&self, node: &str, argv: &[&str]) -> Result<String> {
        let found = Lab::nodes(self).iter().find(|n| Node::name(n) == node);
        found.with_context(|| format!("no node {node}"))?.exec(argv)
    }

    fn exec_outside(&self, argv: &[&str]) -> Result<String> {
        self.outside().exec(argv)
    }

    fn free(&self, n: u16) -> DualStack {
        addresses::free(n)
    }

    fn finish(self: Box<Self>) -> Result<()> {
        if self.is_owned() { self.down() } else { Ok(()) }
    }
}

/// A kind cluster as `e2e/kind.sh` makes it: with a container `<name>-client` on its network.
#[derive(Clone, Debug)]
pub struct Kind {
    name: String,
    kubeconfig: PathBuf,
    v4: Ipv4Addr,
    v6: Ipv6Addr,
}

impl Kind {
    /// The cluster that `BERTH_E2E_KIND_NAME` names (`berth-e2e` if unset), by the kubeconfig in `KUBECONFIG`.
    pub fn from_env() -> Result<Self> {
        let name = env::var("BERTH_E2E_KIND_NAME").unwrap_or_else(|_| "berth-e2e".into());
        let kubeconfig =
            env::var("KUBECONFIG").context("KUBECONFIG is unset: e2e/kind.sh sets it")?;
        let (v4, v6) = networks(&docker(&["network", "inspect", "kind"])?)?;
        Ok(Self { name, kubeconfig: kubeconfig.into(), v4, v6 })
    }
}

impl Cluster for Kind {
    fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.clone()
    }

    fn kubectl(&self) -> PathBuf {
        "kubectl".into()
    }

    fn nodes(&self) -> Result<Vec<String>> {
        let label = format!("label=io.x-k8s.kind.cluster={}", self.name);
        let role = "label=io.x-k8s.kind.role";
        let text = docker(&["ps", "--filter", &label, "--filter", role, "--format", "{{.Names}}"])?;
        let mut names: Vec<_> = text.lines().map(str::to_owned).collect();
        names.sort();
        Ok(names)
    }

    fn interface(&self) -> &str {
        "eth0"
    }

    fn exec(&self, node: &str, argv: &[&str]) -> Result<String> {
        docker(&[&["exec", node], argv].concat())
    }

    fn exec_outside(&self, argv: &[&str]) -> Result<String> {
        docker(&[&["exec", &format!("{}-client", self.name)], argv].concat())
    }

    fn free(&self, n: u16) -> DualStack {
        // Docker gives addresses from the low end of a network; these are far from it in any /16 and /64.
        DualStack {
            v4: (u32::from(self.v4) + 0xc800 + u32::from(n % 0x1000)).into(),
            v6: (u128::from(self.v6) + 0xbe70_0000 + u128::from(n)).into(),
        }
    }

    /// `e2e/kind.sh` made it, and removes it.
    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}

/// The IPv4 and the IPv6 network of `docker network inspect`.
fn networks(inspected: &str) -> Result<(Ipv4Addr, Ipv6Addr)> {
    let value: Value = serde_json::from_str(inspected).context("docker network inspect")?;
    let configs = value[0]["IPAM"]["Config"].as_array().context("no IPAM.Config")?;
    let subnets: Vec<IpNetwork> =
        configs.iter().filter_map(|c| c["Subnet"].as_str()?.parse().ok()).collect();
    let v4 = subnets.iter().find_map(|s| match s {
        IpNetwork::V4(v4) => Some(*v4),
        IpNetwork::V6(_) => None,
    });
    let v6 = subnets.iter().find_map(|s| match s {
        IpNetwork::V6(v6) => Some(*v6),
        IpNetwork::V4(_) => None,
    });
    let v4 = v4.context("kind's network has no IPv4")?;
    ensure!(v4.prefix() <= 16, "kind's network {v4}: a /16 or larger is accepted");
    Ok((v4.network(), v6.context("kind's network has no IPv6")?.network()))
}

fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).output().context("start docker")?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    ensure!(output.status.success(), "docker {arguments:?}: {}", text(&output.stderr));
    Ok(text(&output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_of_kind_are_found_in_any_order() {
        let text = r#"[{"IPAM": {"Config": [
            {"Subnet": "fc00:f853:ccd:e793::/64"}, {"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}}]"#;
        let (v4, v6) = networks(text).unwrap();
        assert_eq!(
            (v4.to_string(), v6.to_string()),
            ("172.18.0.0".into(), "fc00:f853:ccd:e793::".into())
        );
        assert!(networks(r#"[{"IPAM": {"Config": [{"Subnet": "172.18.0.0/16"}]}}]"#).is_err());
    }
}
