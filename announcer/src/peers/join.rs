//! Makes this node a member: the fence, the key, the sockets, the thread, and the task that keeps the view.

use std::collections::BTreeSet;
use std::thread::JoinHandle;
use std::time::Instant;

use super::{Wire, driver, key, view};
use crate::config::{Config, Election, Fence as Wanted, Fenced};
use crate::desired::{self, Scene};
use crate::kernel::{ArpAnnounce, Host};
use crate::metrics::Metrics;
use crate::ownership::membership::{Command, Members, Told};
use crate::source::cluster::{Cluster, Name};
use anyhow::Context;
use berth_api::names::lease;
use berth_fence::{Fence, Kind, Options};
use berth_runtime::http::Health;
use kube::Client;
use tokio::sync::mpsc;

/// Addresses that the fence has room for: of 8,000 Services with two each.
const CAPACITY: u32 = 1 << 14;

/// A running member.
pub(crate) struct Member {
    pub(crate) members: Members,
    pub(crate) told: mpsc::UnboundedReceiver<Told>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) arp: Option<ArpAnnounce>,
}

/// The Lease by which others may hold the addresses still.
pub(crate) fn other_lease(fenced: &Fenced) -> &str {
    fenced.otherwise.as_deref().unwrap_or(lease::SERVICES)
}

/// Removes every fence.
pub(crate) fn unfence() {
    let options = Options { strongest: Kind::Unfenced, ..Options::default() };
    for error in berth_fence::open(&options).fence.remove() {
        tracing::warn!(%error, "cannot remove what an earlier fence left");
    }
}

/// Opens the strongest fence there is, covers what is bound and attaches it where neighbours may ask: from here on all
/// of it is silent.
pub(crate) fn open_fence(fenced: &Fenced, config: &Config, host: &Host) -> Box<dyn Fence> {
    let strongest = match fenced.fence {
        Wanted::Bpf => Kind::Bpf,
        Wanted::NftTimeout => Kind::NftTimeout,
        Wanted::Unfenced => Kind::Unfenced,
    };
    let opened = berth_fence::open(&Options { strongest, capacity: CAPACITY });
    for refusal in &opened.refusals {
        tracing::warn!("no {refusal}");
    }
    let mut fence = opened.fence;
    match fence.kind() {
        Kind::Bpf => tracing::info!(fence = %fence.kind(), "the kernel holds the deadline"),
        kind => {
            tracing::warn!(fence = %kind, "a weaker fence holds; docs/fence.md says what is lost")
        }
    }
    let found: BTreeSet<_> = host.ours.keys().map(|binding| binding.address).collect();
    if let Err(error) = fence.cover(&found) {
        tracing::error!(%error, "what an earlier life left bound is not covered");
    }
    let (cluster, interface) = (Cluster::default(), config.interface.as_deref());
    let scene = Scene { cluster: &cluster, host, node: &config.node, interface };
    for error in fence.attach(&desired::guarded(scene)) {
        tracing::warn!(%error, "the fence is not everywhere");
    }
    fence
}

/// A node that has let go of an address forwards for it still. With 0 Linux would ask for the next hop in the name of
/// that address, which the fence drops, and the traffic would stop.
fn arp_announce(interface: &str) -> Option<ArpAnnounce> {
    match ArpAnnounce::set(interface) {
        Ok(set) => set,
        Err(error) => {
            let setting = format!("net.ipv4.conf.{interface}.arp_announce");
            tracing::warn!(%error, "set {setting} to 2 on the host: traffic may stop while an address moves");
            None
        }
    }
}

/// Starts what membership needs, if it is to decide. Where nobody asked for it by name and there is no key, the
/// configuration falls back to the Lease.
pub(crate) async fn join(
    config: &mut Config,
    client: Client,
    fence: Option<Box<dyn Fence>>,
    metrics: &Metrics,
    health: &Health,
    interface: Option<&str>,
) -> anyhow::Result<Option<Member>> {
    let Election::Membership(fenced) = config.election.clone() else { return Ok(None) };
    let keyring = match (key::obtain(&client, &fenced.namespace).await, &fenced.otherwise) {
        (Ok(keyring), _) => keyring,
        (Err(error), Some(name)) => {
            tracing::warn!(%error, lease = name, "no key, so one Lease for all Services decides");
            let (namespace, name) = (fenced.namespace, name.clone());
            config.election = Election::Global { namespace, name };
            drop(fence);
            unfence();
            return Ok(None);
        }
        (Err(error), None) => return Err(error).context("berth_election=membership"),
    };
    let fence = fence.context("membership without a fence")?;
    let fenced_kind = fence.kind() != Kind::Unfenced;
    for check in ["membership", "nodes"] {
        health.unready(check, "not yet");
    }
    let arp = interface.and_then(arp_announce);
    let wire = Wire::bind(fenced.port)
        .with_context(|| format!("berth_peer_port={}: listening for UDP", fenced.port))?;
    let (commands, commanded) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let (propose, proposals) = mpsc::unbounded_channel();
    let seed = u64::from_ne_bytes(key::random().context("reading /dev/urandom")?);
    let parts = driver::Parts {
        node: config.node.clone(),
        keyring,
        seed,
        wire,
        fence,
        told: tell,
        proposals: propose,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    let thread = driver::start(parts, commanded)?;
    // The view is read after the protocol has begun, as that asks.
    tokio::spawn(view::keep(client, fenced.namespace.clone(), proposals, commands.clone()));
    let lease = Name::new(&fenced.namespace, other_lease(&fenced));
    let members = Members::new(&config.node, lease, fenced_kind, commands.clone(), Instant::now());
    tracing::info!(port = fenced.port, "this node is a member");
    Ok(Some(Member { members, told, commands, thread, arp }))
}
