//! Makes this node a member: the key, the sockets, the thread, and the task that keeps the view.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::key::{self, KeySource, Unavailable};
use super::view::ViewStore;
use super::{Wire, driver};
use crate::config::{self, Config, Election, Fenced, Fixed};
use crate::kernel::port_holder;
use crate::metrics::Metrics;
use crate::ownership::membership::{Command, Members, MembershipEvent};
use crate::source::cluster::Name;
use crate::vip::nodes::Peer;
use anyhow::Context;
use berth_api::names::lease;
use berth_fence::{Fence, Kind};
use berth_membership::Keyring;
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use futures::FutureExt;
use kube::Client;
use tokio::sync::mpsc;

/// How long until a port is tried again that somebody has.
const AGAIN: Duration = Duration::from_secs(1);

/// How often a key is looked for that is not there.
const MENDED: Duration = Duration::from_secs(2);

/// Who decides on owners.
pub(crate) enum Joined {
    /// Membership.
    Member(Box<Member>),
    /// Leases, with what was opened of the fence.
    Lease(Box<dyn Fence>),
}

/// A running member.
pub(crate) struct Member {
    pub(crate) members: Members,
    pub(crate) told: mpsc::UnboundedReceiver<MembershipEvent>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// The thread and what it needs.
    pub(crate) tasks: Vec<Task>,
}

/// The Lease by which others may hold the addresses still.
pub(crate) fn other_lease(fenced: &Fenced) -> &str {
    fenced.otherwise.as_deref().unwrap_or(lease::SERVICES)
}

/// Binds the port of the peers, as soon as nobody else has it. Until then this node serves nothing and readiness says why:
/// whoever decides without hearing the others may decide against them.
async fn wire(port: u16, health: &Health) -> anyhow::Result<Wire> {
    let mut told = String::new();
    loop {
        match Wire::bind(port) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let holder = tokio::task::spawn_blocking(move || port_holder(port)).await;
                let by = holder.ok().flatten().map(|holder| format!(" by {holder}"));
                let why = format!(
                    "berth_peer_port={port}: the UDP port is in use{}; nothing is served until it is free",
                    by.unwrap_or_default()
                );
                if told != why {
                    tracing::error!("{why}");
                }
                health.unready("membership", &why);
                told = why;
                tokio::time::sleep(AGAIN).await;
            }
            bound => {
                if !told.is_empty() {
                    health.unready("membership", "not yet");
                }
                return bound.with_context(|| format!("berth_peer_port={port}: listening for UDP"));
            }
        }
    }
}

/// Where the peers come from.
enum PeerSource {
    /// The Nodes of the cluster, which the announcer watches.
    Nodes,
    /// A list.
    List(Vec<config::Member>),
}

/// What stands behind the announcer.
#[derive(Clone)]
pub(crate) enum Backing {
    /// The API server of a cluster.
    Api(Client),
    /// Files.
    Files(Fixed),
}

/// Where membership gets what it needs.
struct Ports {
    keys: KeySource,
    views: ViewStore,
    peers: PeerSource,
}

impl Ports {
    fn of(backing: &Backing, fenced: &Fenced) -> anyhow::Result<Self> {
        match backing {
            Backing::Api(client) => Ok(Self::api(client, &fenced.namespace)),
            Backing::Files(fixed) => Self::files(fixed),
        }
    }

    fn api(client: &Client, namespace: &str) -> Self {
        let (client, namespace) = (client.clone(), namespace.to_owned());
        Self {
            keys: KeySource::Secret { client: client.clone(), namespace: namespace.clone() },
            views: ViewStore::Lease { client, namespace },
            peers: PeerSource::Nodes,
        }
    }

    fn files(fixed: &Fixed) -> anyhow::Result<Self> {
        let names = |members: &[config::Member]| {
            let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
            names.join(", ")
        };
        tracing::info!(
            members = names(&fixed.members),
            voters = names(fixed.voters()),
            addresses = ?fixed.addresses,
            port = fixed.port,
            "no API server: a fixed list of members, whose view never changes"
        );
        Ok(Self {
            keys: KeySource::file(fixed).context("berth_key_file")?,
            views: ViewStore::fixed(fixed).context("berth_members")?,
            peers: PeerSource::List(fixed.members.clone()),
        })
    }
}

/// The key; nothing where one Lease for all Services is to decide: nobody asked for membership by name, the cluster has no
/// view of one, and no Secret that could hold a key may be read. Beside a view there would be two elections, and two owners
/// of each address; a Secret that holds no key is somebody's slip. Both are waited for.
async fn obtain(
    ports: &Ports,
    fenced: &Fenced,
    health: &Health,
) -> anyhow::Result<Option<Keyring>> {
    let mut told = String::new();
    health.unready("membership", "not yet");
    loop {
        let error = match ports.keys.obtain().await {
            Ok(keyring) => return Ok(Some(keyring)),
            Err(error) => error,
        };
        let Some(lease) = &fenced.otherwise else {
            return Err(error).context("berth_election=membership");
        };
        let why = match (ports.views.exists().await, &error) {
            (true, _) => "Lease berth-membership says that the nodes go by membership",
            (false, Unavailable::Refused { .. }) => {
                tracing::warn!(%error, lease, "no key, so one Lease for all Services decides");
                health.ready("membership");
                return Ok(None);
            }
            (false, _) => "the Secret is there, so it is to hold a key",
        };
        let why = format!("{error}; nothing is served until that is mended, for {why}");
        if told != why {
            tracing::error!("{why}");
        }
        health.unready("membership", &why);
        told = why;
        tokio::time::sleep(MENDED).await;
    }
}

/// Starts what membership needs, if it is to decide. Where nobody asked for it by name and there is no key, the
/// configuration falls back to the Lease.
pub(crate) async fn join(
    config: &mut Config,
    backing: &Backing,
    fence: Box<dyn Fence>,
    metrics: &Metrics,
    health: &Health,
) -> anyhow::Result<Joined> {
    let Election::Membership(fenced) = config.election.clone() else {
        return Ok(Joined::Lease(fence));
    };
    let ports = Ports::of(backing, &fenced)?;
    let Some(keyring) = obtain(&ports, &fenced, health).await? else {
        config.election = Election::Global {
            namespace: fenced.namespace.clone(),
            name: other_lease(&fenced).to_owned(),
        };
        return Ok(Joined::Lease(fence));
    };
    let fenced_kind = fence.kind() != Kind::Unfenced;
    for check in ["membership", "nodes"] {
        health.unready(check, "not yet");
    }
    let wire = wire(fenced.port, health).await?;
    let (commands, commanded) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let (propose, proposals) = mpsc::unbounded_channel();
    let seed = u64::from_ne_bytes(key::random().context("reading /dev/urandom")?);
    let parts = driver::Parts {
        node: config.core.node.clone(),
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
    let lease = Name::new(&fenced.namespace, other_lease(&fenced));
    let now = Instant::now();
    let lease = Some(lease).filter(|_| !matches!(ports.peers, PeerSource::List(_)));
    let mut members = Members::new(&config.core.node, lease, fenced_kind, commands.clone(), now);
    if let PeerSource::List(list) = ports.peers {
        for member in &list {
            let peer = Peer { addresses: member.addresses.clone(), ..Peer::default() };
            members.peer(member.name.clone(), Some(peer));
        }
        members.peers(&list.into_iter().map(|member| member.name).collect());
        health.ready("nodes");
    }
    // The view is read after the protocol has begun, as that asks.
    let view = ports.views.fresh(health).keep(proposals, commands.clone());
    let tasks = vec![(driver::THREAD, thread), ("membership view", view.boxed())];
    tracing::info!(port = fenced.port, "this node is a member");
    Ok(Joined::Member(Box::new(Member { members, told, commands, tasks })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_somebody_has_is_waited_for_and_readiness_names_who_it_is() {
        let squatter = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        let port = squatter.local_addr().unwrap().port();
        let health = Health::default();
        let heard = health.clone();
        let waiting = tokio::spawn(async move { wire(port, &heard).await.map(drop) });
        let why = || health.unready_checks(Instant::now()).pop().map(|(_, why)| why);
        while why().is_none() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let me = format!("in use by the process {}", std::process::id());
        assert!(why().unwrap().contains(&me), "{:?}", why());
        tokio::time::sleep(AGAIN).await;
        assert!(!waiting.is_finished(), "it neither ends nor goes on without the others");
        drop(squatter);
        waiting.await.unwrap().unwrap();
        assert_eq!(why().as_deref(), Some("not yet"));
    }
}
