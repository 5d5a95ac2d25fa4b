//! Wires the program together and drives its rounds until it is told to leave.

use std::collections::BTreeSet;
use std::future::pending;
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
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use berth_announcer::announcer::{Announcer, CHECKS, Outlets};
use berth_announcer::cluster::Name;
use berth_announcer::config::{Config, Election};
use berth_announcer::kernel::{self, Kernel, Netlink, guard};
use berth_announcer::metrics::Metrics;
use berth_announcer::watches::{self, Scope};
use berth_announcer::writer::Writer;

/// How long leaving may take before the process ends with what is left; the kernel drops addresses by itself then.
const LEAVING: Duration = Duration::from_secs(5);

/// Changes that one round takes in at most, so that it is not put off for ever.
const AT_ONCE: usize = 512;

/// Runs until `stop` is cancelled, then hands over, removes everything and returns.
///
/// # Errors
/// When the kernel, a listener or the configuration of the cluster cannot be used at all.
pub(crate) async fn run(config: Config, stop: CancellationToken) -> anyhow::Result<()> {
    let _only = alone()?;
    let mut kernel = Netlink::open().context("opening a netlink socket")?;
    sweep(&mut kernel).await;
    let mut changes = kernel::watch().context("listening for changes of the network")?;

    let (health, metrics) = (Health::new(CHECKS), Metrics::default());
    let mut registry = Registry::default();
    metrics.register(&mut registry);
    let registry = Arc::new(registry);
    let ended = CancellationToken::new();
    for address in [config.metrics, config.health].into_iter().flatten() {
        serve(address, &health, &registry, &ended).await?;
    }

    let client = connect(&config).await?;
    let (events, publisher) = events::channel(client.clone(), "berth-announcer", &config.node);
    tokio::spawn(publisher.run());
    let mut seen = watches::start(&client, scope(&config));
    let (writer, mut done) = Writer::new(client, config.timing.request_timeout());
    let (guarded, ports) = watch::channel(BTreeSet::new());
    let (tell, mut told) = mpsc::channel(16);
    let keeper = tokio::spawn(guard::keep(ports, tell));

    let outlets = Outlets { events, metrics, health };
    let mut announcer = Announcer::new(config, kernel, guarded, writer, outlets, Instant::now());
    let mut end: Option<Instant> = None;
    loop {
        let wake = announcer.round().await;
        if announcer.has_left() || end.is_some_and(|end| end <= Instant::now()) {
            break;
        }
        let wake = end.map_or(wake, |end| end.min(wake));
        tokio::select! {
            Some(first) = seen.recv() => {
                let now = Instant::now();
                announcer.see(first, now);
                for _ in 0..AT_ONCE {
                    let Ok(next) = seen.try_recv() else { break };
                    announcer.see(next, now);
                }
            }
            Some(first) = done.recv() => {
                let now = Instant::now();
                announcer.done(first, now);
                while let Ok(next) = done.try_recv() {
                    announcer.done(next, now);
                }
            }
            Some(first) = changes.recv() => {
                let now = Instant::now();
                announcer.changed(first, now);
                while let Ok(next) = changes.try_recv() {
                    announcer.changed(next, now);
                }
            }
            Some(guard) = told.recv() => announcer.guard(guard),
            () = tokio::time::sleep_until(wake.into()) => {}
            () = cancelled(&stop, end.is_some()) => {
                announcer.leave();
                end = Some(Instant::now() + LEAVING);
            }
        }
    }
    if !announcer.has_left() {
        tracing::warn!("leaving before everything could be handed over");
    }
    // Its table goes last: nothing that it guards is bound any more.
    keeper.abort();
    unguard().await;
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
        }
        Err(error) => tracing::error!(%error, "cannot sweep"),
    }
    unguard().await;
}

async fn unguard() {
    if let Err(error) = guard::remove().await {
        tracing::debug!(%error, "no guard to remove");
    }
}

async fn cancelled(stop: &CancellationToken, already: bool) {
    if already {
        pending::<()>().await;
    }
    stop.cancelled().await;
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
        Election::PerService => None,
    };
    Scope { namespace: config.namespace.clone(), lease, classes: config.classes.clone() }
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
