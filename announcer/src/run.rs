//! Wires the program together and drives its rounds until it is told to leave.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as SocketName, UnixDatagram};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use berth_runtime::http::Health;
use berth_runtime::{client, events, http};
use kube::Client;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch as latest};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, Election};
use crate::dataplane::{eip as nat, forward, unserved};
use crate::kernel::{self, Kernel, Netlink};
use crate::metrics::Metrics;
use crate::ownership::membership::Command;
use crate::peers::join::{self as member, Member};
use crate::publish::writer::Writer;
use crate::reconcile::drive::{Sources, drive};
use crate::reconcile::{Announcer, CHECKS, Outlets, Tables};
use crate::source::cluster::Name;
use crate::source::watch::{self, Scope};
use crate::vip::Forwards;

/// How long an `nft` that is under way may take to end.
const UNGUARDING: Duration = Duration::from_secs(5);

/// Runs until `stop` is cancelled, then hands over, removes everything and returns.
///
/// # Errors
/// When the kernel, a listener or the configuration of the cluster cannot be used at all.
pub async fn run(mut config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let _only = alone()?;
    let mut kernel = Netlink::open().context("opening a netlink socket")?;
    // Before anything is unbound: what an earlier life has left may still be armed.
    let fence = fence(&mut kernel, &config).await;
    sweep(&mut kernel).await;
    let interface = advise(&mut kernel, &config).await;
    let changes = kernel::watch().context("listening for changes of the network")?;

    let (health, metrics) = (Health::new(CHECKS), Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let registry = Arc::new(registry);
    let ended = CancellationToken::new();
    for address in [config.metrics, config.health].into_iter().flatten() {
        serve(address, &health, &registry, &ended).await?;
    }

    let client = connect(&config).await?;
    let join =
        member::join(&mut config, client.clone(), fence, &metrics, &health, interface.as_deref());
    let member = tokio::select! {
        member = join => member?,
        () = stop.cancelled() => {
            member::unfence();
            return Ok(());
        }
    };
    let (members, told, keeper) = match member {
        Some(Member { members, told, commands, thread, arp }) => {
            (Some(members), told, Some((commands, thread, arp)))
        }
        None => (None, mpsc::unbounded_channel().1, None),
    };
    let (events, publisher) = events::channel(client.clone(), "berth-announcer", &config.node);
    tokio::spawn(publisher.run());
    let seen = watch::start(&client, scope(&config));
    let (writer, done) = Writer::new(client, config.timing.request_timeout());
    let (guarded, ports) = latest::channel(BTreeSet::new());
    let (tell, guard) = mpsc::channel(16);
    let guarding = tokio::spawn(unserved::keep(ports, tell));
    let (detours, wanted) = latest::channel(Forwards::new());
    let (tell, detoured) = mpsc::unbounded_channel();
    let detouring = tokio::spawn(forward::keep(wanted, tell));
    let tables = Tables { guarded, detours };
    let (translations, wanted) = latest::channel(None);
    let (tell, nat) = mpsc::channel(16);
    let translating = tokio::spawn(nat::keep(wanted, tell, metrics.clone()));

    let outlets = Outlets { events, metrics, health };
    let mut announcer =
        Announcer::new(config, members, kernel, tables, writer, outlets, Instant::now())
            .with_translation(translations);
    let sources = Sources { seen, done, changes, guard, detoured, nat, told };
    let left = drive(&mut announcer, sources, stop).await;
    if !left {
        tracing::warn!("leaving before everything could be handed over");
    }
    if let Some((commands, thread, _arp)) = keeper {
        // What is still bound stays fenced.
        let _ = commands.send(Command::End { unfence: left });
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
    // The tables go last: nothing that they are about is bound any more.
    drop(announcer);
    for task in [guarding, detouring] {
        if tokio::time::timeout(UNGUARDING, task).await.is_err() {
            tracing::warn!("nft does not end");
        }
    }
    unguard().await;
    untranslate(translating).await;
    ended.cancel();
    Ok(())
}

/// A name that only one process can have in a network namespace, and that goes with the process: a second announcer on
/// the node would sweep what the first one holds.
fn alone() -> anyhow::Result<UnixDatagram> {
    let name = SocketName::from_abstract_name("berth-announcer").context("naming a socket")?;
    UnixDatagram::bind_addr(&name)
        .context("another berth-announcer runs on this node: its socket @berth-announcer is taken")
}

/// Removes what an earlier life has left behind, before anything else: not even the cluster need be there.
async fn sweep(kernel: &mut impl Kernel) {
    match kernel.look().await {
        Ok(host) => {
            for binding in host.ours.keys() {
                match kernel.remove(*binding).await {
                    Ok(()) => tracing::info!(address = %binding.address, "swept"),
                    Err(error) => tracing::error!(%error, "cannot sweep"),
                }
            }
            for index in host.made {
                match kernel.remove_link(index).await {
                    Ok(()) => tracing::info!(index, "swept a VLAN interface"),
                    Err(error) => tracing::error!(%error, "cannot sweep"),
                }
            }
        }
        Err(error) => tracing::error!(%error, "cannot sweep"),
    }
    unguard().await;
}

/// Opens the fence if membership is to decide, with all that is bound covered; else removes what an earlier life by
/// membership has left, which would go on dropping what nobody refreshes.
async fn fence(kernel: &mut impl Kernel, config: &Config) -> Option<Box<dyn berth_fence::Fence>> {
    let Election::Membership(fenced) = &config.election else {
        member::unfence();
        return None;
    };
    let host = kernel.look().await.unwrap_or_default();
    Some(member::open_fence(fenced, config, &host))
}

/// Tells what of the host gets in the way. Gives the interface of the addresses.
async fn advise(kernel: &mut impl Kernel, config: &Config) -> Option<String> {
    let host = kernel.look().await.ok()?;
    let interface = config.interface.as_deref().or(host.default_route.as_deref());
    let read = |path: &str| std::fs::read_to_string(format!("/proc/sys/{path}")).ok();
    for advice in kernel::advice(&host, interface.unwrap_or("all"), read) {
        tracing::warn!("{advice}");
    }
    interface.map(str::to_owned)
}

async fn unguard() {
    if let Err(error) = unserved::remove().await {
        tracing::debug!(%error, "no guard to remove");
    }
    if let Err(error) = forward::remove().await {
        tracing::debug!(%error, "no detour to remove");
    }
}

/// Takes away what translates, once nothing is bound that it is for.
async fn untranslate(translating: JoinHandle<()>) {
    if tokio::time::timeout(UNGUARDING, translating).await.is_err() {
        tracing::warn!("iptables does not end");
    }
    if let Err(error) = nat::sweep().await {
        tracing::warn!(%error, "rules of elastic IPs are left");
    }
}

async fn connect(config: &Config) -> anyhow::Result<Client> {
    let mut cluster = client::configure(config.kubeconfig.as_deref()).await?;
    if let Some(server) = &config.api_server {
        cluster.cluster_url =
            server.parse().with_context(|| format!("kubernetes_addr={server}"))?;
    }
    Ok(client::connect(cluster)?)
}

fn scope(config: &Config) -> Scope {
    let lease = match &config.election {
        Election::Global { namespace, name } => Some(Name::new(namespace, name)),
        Election::Membership(fenced) => {
            Some(Name::new(&fenced.namespace, member::other_lease(fenced)))
        }
        Election::PerService => None,
    };
    let nodes = matches!(config.election, Election::Membership(_));
    Scope {
        namespace: config.namespace.clone(),
        lease,
        classes: config.classes.clone(),
        nodes,
        node: config.node.clone(),
        networks: config.internal.is_none(),
    }
}

/// Listens on `address`; where the host has no IPv6 at all, every address means every IPv4 address.
async fn serve(
    address: SocketAddr,
    health: &Health,
    registry: &Arc<Registry>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let listen = |address| http::serve(address, health.clone(), registry.clone(), stop.clone());
    let result = match listen(address).await {
        Err(_) if address.ip().is_unspecified() && address.is_ipv6() => {
            listen(SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port())).await
        }
        result => result,
    };
    let bound = result.context("prometheus_server, health_check_port")?;
    tracing::info!(%bound, "serving /metrics, /healthz and /readyz");
    Ok(())
}
