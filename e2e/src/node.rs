//! A node: a network namespace on both bridges, and in it the processes of its kind.

use std::{ffi::OsStr, path::PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::{
    addresses::NodeAddresses,
    cgroup,
    control_plane::url_for_nodes,
    disk::LabDir,
    keeper::Setup,
    pki::Pki,
    place::{Keeper, Place},
};

/// How much of a node there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// kube-proxy and a small stand-in for the kubelet: starts in a moment, runs known images as plain processes.
    Bare,
    /// kubelet, containerd, runc and kube-proxy: runs any image.
    Real,
    /// What [`Kind::Real`] runs, and nothing of a cluster, until kubeadm makes a node of it.
    Machine,
}

/// How kube-proxy programs Services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProxyMode {
    /// `--proxy-mode=iptables`, what most clusters run.
    #[default]
    Iptables,
    /// `--proxy-mode=nftables`.
    Nftables,
}

/// Everything a kind needs to start a node's processes.
#[derive(Clone, Debug)]
pub struct NodeContext {
    /// The lab's folder. Files below it are removed with the lab; `nodes/<name>` is for the node's own.
    pub dir: LabDir,
    /// The keeper of the lab's PID namespace.
    pub lab: Keeper,
    /// The node's name and host name.
    pub name: String,
    /// Its number, from 0.
    pub index: usize,
    /// Its addresses, already set on `eth0` (LAN, default route) and `eth1` (API) by the time it is started.
    pub addresses: NodeAddresses,
    /// The folder with kubelet, kube-proxy and kubectl.
    pub programs: PathBuf,
    /// For kube-proxy.
    pub proxy_mode: ProxyMode,
}

/// A node of a lab.
#[derive(Clone, Debug)]
pub struct Node {
    /// What it was started from.
    pub context: NodeContext,
    /// Its kind.
    pub kind: Kind,
}

impl NodeContext {
    /// A folder on disk for the node's own files, gone with the lab.
    pub fn folder(&self) -> Result<PathBuf> {
        let folder = self.dir.join("nodes").join(&self.name);
        std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
        Ok(folder)
    }

    /// The node's cgroup, the same path in every hierarchy. Thawed, emptied and removed with the lab.
    pub fn cgroup(&self) -> String {
        format!("{}/{}", cgroup::of_lab(self.dir.name()), self.name)
    }

    /// A kubeconfig of `system:node:<name>`, made on first use.
    pub fn kubelet_kubeconfig(&self) -> Result<PathBuf> {
        let path = self.dir.join("pki").join(format!("{}.kubeconfig", self.name));
        if path.exists() {
            return Ok(path);
        }
        let user = format!("system:node:{}", self.name);
        Pki::open(&self.dir.join("pki"))?.kubeconfig(
            &self.name,
            &url_for_nodes(),
            &user,
            &["system:nodes"],
        )
    }

    /// The kubeconfig of `system:kube-proxy`.
    pub fn proxy_kubeconfig(&self) -> PathBuf {
        self.dir.join("pki/kube-proxy.kubeconfig")
    }

    /// The cluster's CA certificate.
    pub fn ca(&self) -> PathBuf {
        self.dir.join("pki/ca.crt")
    }

    /// Starts the node's keeper: PID 1 of the node, in its network namespace and cgroup, with mount, UTS, IPC and
    /// cgroup namespaces, `/proc` and `/sys` of its own and an empty `/run`. `prepare` runs to its end in there
    /// before anything else, e.g. to mount more. Killing the keeper crashes the node.
    pub fn start_keeper(&self, prepare: Vec<String>) -> Result<Place> {
        let setup = Setup {
            socket: self.dir.join("keepers").join(&self.name),
            cgroup: Some(self.cgroup()),
            hostname: Some(self.name.clone()),
            prepare,
            ..Setup::default()
        };
        let keeper =
            self.lab.start_keeper(&self.dir, &self.name, self.dir.netns(&self.name), &setup)?;
        self.dir.save(&format!("keepers/{}", self.name), &keeper)?;
        self.place()
    }

    /// The node as a place: with the keeper of its last start.
    pub fn place(&self) -> Result<Place> {
        let keeper = self
            .dir
            .load(&format!("keepers/{}", self.name))
            .with_context(|| format!("{} never started", self.name))?;
        Ok(Place {
            name: self.name.clone(),
            dir: self.dir.clone(),
            lab: self.lab.clone(),
            keeper,
            net: self.name.clone(),
        })
    }

    /// kube-proxy's arguments, for every kind of node.
    pub fn kube_proxy(&self) -> Vec<String> {
        let mode = match self.proxy_mode {
            ProxyMode::Iptables => "iptables",
            ProxyMode::Nftables => "nftables",
        };
        vec![
            self.programs.join("kube-proxy").display().to_string(),
            format!("--kubeconfig={}", self.proxy_kubeconfig().display()),
            format!("--hostname-override={}", self.name),
            format!("--proxy-mode={mode}"),
            format!("--cluster-cidr={}", crate::addresses::CLUSTER_CIDR),
            // These settings are the host's, not the namespace's.
            "--conntrack-max-per-core=0".into(),
            "--conntrack-tcp-timeout-established=0s".into(),
            "--conntrack-tcp-timeout-close-wait=0s".into(),
            "--profiling=false".into(),
        ]
    }
}

impl Node {
    /// The node's name.
    pub fn name(&self) -> &str {
        &self.context.name
    }

    /// Its addresses.
    pub fn addresses(&self) -> &NodeAddresses {
        &self.context.addresses
    }

    /// Where its processes run. Fails while the node never started.
    pub fn place(&self) -> Result<Place> {
        self.context.place()
    }

    /// Runs a command on the node and gives its standard output; anything but success is an error.
    pub fn exec<S: AsRef<OsStr>>(&self, argv: impl IntoIterator<Item = S>) -> Result<String> {
        self.place()?.exec(argv)
    }
}
