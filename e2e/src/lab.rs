//! A whole lab: from nothing to a cluster, and back to nothing.

use std::{
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use kube::Client;
use serde::{Deserialize, Serialize};
use tokio::task::JoinHandle;

use crate::{
    addresses::{MAX_NODES, NodeAddresses, Slot},
    control_plane::{self, ControlPlane, Part, Tuning},
    disk::LabDir,
    fabric::{self, CLIENT, CONTROL_PLANE, FABRIC, ROUTER},
    node::{Kind, Node, NodeContext, ProxyMode},
    pauses,
    pki::Pki,
    place::{Keeper, Place},
    process::Process,
    programs, real_node, start,
    supervisor::{self, Owner},
};

/// What lab to make.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Spec {
    /// Its name; unset: one that no other lab has.
    pub name: Option<String>,
    /// How many nodes of kubelet, containerd and runc. They come first.
    pub real: usize,
    /// How many nodes of kube-proxy and a stand-in for the kubelet.
    pub bare: usize,
    /// How many machines that kubeadm is to make nodes of, in a lab without a control plane of its own.
    pub machines: usize,
    /// The folder of image archives for the real nodes; unset: packed from the programs beside the lab's own.
    pub images: Option<PathBuf>,
    /// For kube-proxy on every node.
    pub proxy_mode: ProxyMode,
    /// For the control plane.
    pub tuning: Tuning,
}

impl Spec {
    /// `n` bare nodes.
    pub fn bare(n: usize) -> Self {
        Self { bare: n, ..Self::default() }
    }

    /// `n` real nodes.
    pub fn real(n: usize) -> Self {
        Self { real: n, ..Self::default() }
    }

    /// `n` machines for kubeadm.
    pub fn machines(n: usize) -> Self {
        Self { machines: n, ..Self::default() }
    }

    /// The same with a name.
    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    fn kinds(&self) -> impl Iterator<Item = Kind> {
        let kinds =
            [(Kind::Real, self.real), (Kind::Bare, self.bare), (Kind::Machine, self.machines)];
        kinds.into_iter().flat_map(|(kind, count)| std::iter::repeat_n(kind, count))
    }
}

/// What a later process needs to know of a lab that is up.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Record {
    spec: Spec,
    slot: Slot,
    programs: PathBuf,
}

/// A lab that is up. Dropping the one that [`Lab::up`] gave takes it down, and keeps its logs and captures in
/// `target/lab/<name>`, because a test that succeeds calls [`Lab::down`].
pub struct Lab {
    dir: LabDir,
    owner: Option<Owner>,
    keeper: Keeper,
    record: Record,
    client: Client,
    nodes: Vec<Node>,
}

impl Lab {
    /// Makes a lab and returns once its nodes are Ready, or its machines have booted. What dead labs left is removed first.
    pub async fn up(spec: Spec) -> Result<Self> {
        pauses::watch();
        let count = spec.real + spec.bare + spec.machines;
        real_node::machine::check(spec.machines, spec.real + spec.bare)?;
        ensure!(count <= MAX_NODES, "{count} nodes: at most {MAX_NODES} are accepted");
        ensure!(
            nix::unistd::geteuid().is_root(),
            "the lab needs root: it makes network namespaces"
        );
        supervisor::sweep().context("remove what dead labs left")?;
        let programs = tokio::task::spawn_blocking(programs::build).await??;
        let dir = LabDir::new(&spec.name.clone().unwrap_or_else(unused_name))?;
        let owner = Owner::start(&dir)?;
        let keeper = owner.keeper.clone();

        let nodes: Vec<_> = (0..count).map(|n| (node_name(n), NodeAddresses::new(n))).collect();
        let slot = fabric::build(&dir, &keeper, &nodes).context("build the network")?;
        let record = Record { spec, slot, programs };
        dir.save("lab", &record)?;
        let pki = Pki::create(&dir.join("pki"))?;
        ControlPlane::write_credentials(&pki, slot)?;

        let mut lab = Self::assemble(dir, keeper, record).await?;
        lab.owner = Some(owner);
        let prepared = lab.prepare_real_nodes();
        if lab.record.spec.machines > 0 {
            prepared.await?.context("prepare machines")?;
            start::machines(&lab.nodes).await?;
            return Ok(lab);
        }
        lab.start_control_plane().await?;
        prepared.await?.context("prepare real nodes")?;
        start::nodes(&lab.client, &lab.nodes).await?;
        Ok(lab)
    }

    /// A lab that is already up, e.g. by `lab up`. Dropping this leaves it up.
    pub async fn attach(name: &str) -> Result<Self> {
        let dir = LabDir::new(name)?;
        ensure!(dir.is_live()?, "no lab {name:?} is up: {}", existing()?);
        let keeper = supervisor::keeper_of(&dir)?;
        let record = dir.load("lab").context("the lab is still starting")?;
        Self::assemble(dir, keeper, record).await
    }

    /// Lets the lab outlive this process: `lab down` takes it down.
    pub fn detach(mut self) -> Result<()> {
        self.owner.take().context("only who made the lab can let it go")?.detach()
    }

    /// Takes the lab down, and returns once nothing of it is left.
    pub fn down(mut self) -> Result<()> {
        match self.owner.take() {
            Some(owner) => owner.down(),
            None => supervisor::down(&self.dir).map(drop),
        }
    }

    /// Whether this made the lab and has not let it go.
    pub fn is_owned(&self) -> bool {
        self.owner.is_some()
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        self.dir.name()
    }

    /// The lab's folder: `logs/` has what every process said.
    pub fn dir(&self) -> &LabDir {
        &self.dir
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig of that client, for programs in the host's network namespace.
    pub fn kubeconfig(&self) -> PathBuf {
        self.dir.join("pki/admin.kubeconfig")
    }

    /// The folder of kubectl and its like, in the version of the lab.
    pub fn programs(&self) -> &Path {
        &self.record.programs
    }

    /// The `i`th node. Panics beyond the last, as an index does.
    pub fn node(&self, i: usize) -> &Node {
        &self.nodes[i]
    }

    /// All nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The host on the LAN from which tests look at the cluster.
    pub fn outside(&self) -> Place {
        self.place(CLIENT)
    }

    /// The LAN's router.
    pub fn router(&self) -> Place {
        self.place(ROUTER)
    }

    /// The namespace of the bridges.
    pub fn fabric(&self) -> Place {
        self.place(FABRIC)
    }

    /// The namespace of the control plane.
    pub fn control_plane(&self) -> Place {
        self.place(CONTROL_PLANE)
    }

    /// A long-running process by place and name, as it was last started.
    pub fn process(&self, place: &str, name: &str) -> Result<Process> {
        self.dir.load(&format!("processes/{place}.{name}"))
    }

    /// Starts one part of the control plane, again or for the first time.
    pub fn start_part(&self, part: Part) -> Result<Process> {
        ControlPlane::new(
            self.control_plane(),
            &self.record.programs,
            self.record.spec.tuning.clone(),
        )
        .start(part)
    }

    /// A part of the control plane, as it was last started.
    pub fn part(&self, part: Part) -> Result<Process> {
        self.process(CONTROL_PLANE, part.program())
    }

    /// A place by name: a node, `client`, `router`, `fabric` or `control`.
    pub fn place_named(&self, name: &str) -> Result<Place> {
        if let Some(node) = self.nodes.iter().find(|n| n.name() == name) {
            return node.place();
        }
        let known = [CLIENT, ROUTER, FABRIC, CONTROL_PLANE];
        let nodes: Vec<_> = self.nodes.iter().map(Node::name).collect();
        ensure!(
            known.contains(&name),
            "no place {name:?}: {}, {} are accepted",
            nodes.join(", "),
            known.join(", ")
        );
        Ok(self.place(name))
    }

    /// The keeper of the lab's PID namespace.
    pub(crate) fn keeper(&self) -> &Keeper {
        &self.keeper
    }

    /// The network namespace of a node or another place, even while the node is down.
    pub fn place_in_network(&self, name: &str) -> Place {
        self.place(name)
    }

    fn place(&self, name: &str) -> Place {
        Place::of_lab(&self.dir, &self.keeper, name)
    }

    async fn assemble(dir: LabDir, keeper: Keeper, record: Record) -> Result<Self> {
        let client = control_plane::client(&dir.join("pki/admin.kubeconfig")).await?;
        let nodes = record.spec.kinds().enumerate().map(|(index, kind)| {
            let context = NodeContext {
                dir: dir.clone(),
                lab: keeper.clone(),
                name: node_name(index),
                index,
                addresses: NodeAddresses::new(index),
                programs: record.programs.clone(),
                proxy_mode: record.spec.proxy_mode,
            };
            Node { context, kind }
        });
        Ok(Self { nodes: nodes.collect(), dir, owner: None, keeper, record, client })
    }

    /// Gets images and containerd ready while the control plane starts.
    fn prepare_real_nodes(&self) -> JoinHandle<Result<()>> {
        let (dir, spec) = (self.dir.clone(), self.record.spec.clone());
        let programs = self.record.programs.clone();
        tokio::task::spawn_blocking(move || match (spec.real, spec.machines) {
            (0, 0) => Ok(()),
            (0, _) => real_node::machine::prepare(&dir, &programs),
            _ => real_node::prepare(&dir, spec.images.as_deref()),
        })
    }

    async fn start_control_plane(&self) -> Result<()> {
        self.start_part(Part::Etcd)?;
        let server = self.start_part(Part::ApiServer)?;
        control_plane::wait_until_ready(&self.client, &server, Duration::from_secs(60)).await?;
        self.start_part(Part::ControllerManager)?;
        self.start_part(Part::Scheduler)?;
        Ok(())
    }
}

impl Drop for Lab {
    /// Only [`Lab::down`] and [`Lab::detach`] are an orderly end: after any other the logs are kept.
    fn drop(&mut self) {
        if self.owner.is_some() {
            match self.dir.keep_logs() {
                Ok(kept) => eprintln!("lab {}: logs are kept in {}", self.name(), kept.display()),
                Err(e) => eprintln!("lab {}: logs are lost: {e:#}", self.name()),
            }
        }
    }
}

/// The name of node `index` in every lab.
fn node_name(index: usize) -> String {
    format!("node{index}")
}

fn unused_name() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The labs that are up, for an error message.
fn existing() -> Result<String> {
    let mut live = Vec::new();
    for dir in LabDir::all()? {
        if dir.is_live()? {
            live.push(dir.name().to_owned());
        }
    }
    Ok(if live.is_empty() {
        "none is; `lab up` makes one".into()
    } else {
        format!("up: {}", live.join(", "))
    })
}
