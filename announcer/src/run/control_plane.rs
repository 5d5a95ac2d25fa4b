//! How an announcer reaches its API server: where it has the control plane's address, that of its own node, which is asked
//! whether it is healthy.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use berth_api::host::{ControlPlane as Words, Told};
use berth_runtime::http::Health;
use berth_runtime::refusals::Refusals;
use berth_runtime::supervise::Supervisor;
use berth_runtime::watch::{chain, forbidden};
use kube::{Client, Error};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use super::ties::connect;
use crate::advertise::bgp;
use crate::config::{Api, Config, ControlPlane};
use crate::control_plane::access::{self, Way};
use crate::control_plane::place::Obstacle;
use crate::control_plane::{certificate, checker, names, nodes, others, place};
use crate::kernel::{Host, Kernel};
use crate::metrics::Metrics;
use crate::ownership::health::{Heard, Standing};
use crate::ownership::{Answers, Whom};

/// How long an interface, a route, an address of the node or of a name may come after the announcer: a kubelet gives a process that
/// answers no probe half a minute, and both are waited for. And how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(12);
const LOOK: Duration = Duration::from_millis(500);

/// What readiness is told under while it is not known yet whether another node has the address.
const OTHERS: &str = "control plane's address";
/// How long an answer is waited for, and how soon it is asked again.
const ANSWER: Duration = Duration::from_secs(10);
const AGAIN: Duration = Duration::from_secs(1);

/// What is known of the API server of this node, for whoever decides by it and for the other nodes.
pub(super) struct Known {
    pub(super) standing: watch::Receiver<Heard>,
    pub(super) told: watch::Receiver<Option<Told>>,
    /// What those of other nodes answer.
    pub(super) answers: watch::Receiver<Answers>,
    /// Which of them are asked, where that matters.
    pub(super) asks: Option<watch::Sender<Whom>>,
}

impl Known {
    /// Nothing, and nothing ever will be.
    pub(super) fn nothing() -> Self {
        let (standing, told) = (watch::channel(Heard::default()).1, watch::channel(None).1);
        Self { standing, told, answers: watch::channel(Answers::new()).1, asks: None }
    }
}

/// A client of the API server, and what becomes known of its health, which `ask` has asked for at once.
pub(super) async fn reach(
    config: &Config,
    api: &Api,
    ask: Arc<Notify>,
    (health, metrics): (&Health, &Metrics),
    supervisor: &mut Supervisor,
) -> anyhow::Result<(Client, Known)> {
    let Some(own) = &config.control_plane else {
        return Ok((connect(api).await?, Known::nothing()));
    };
    let (stands, standing) = watch::channel(Heard::default());
    let word = |is_healthy| {
        let addresses = own.addresses.iter().copied().collect();
        let control_plane = Words { is_healthy, addresses, ..Words::default() };
        Some(Told { control_plane, ..Told::default() })
    };
    let words = [word(false), word(true)];
    let (tell, told) = watch::channel(words[0].clone());
    let way = Way::of(api, own);
    let (client, keeping) = access::open(way.clone(), health.clone()).await;
    supervisor.spawn_all([keeping]);
    health.unready(checker::TASK, "not yet");
    let healthy = metrics.api_server.clone();
    let tell = move |heard: Heard| {
        stands.send_replace(heard);
        let is_healthy = heard.standing == Standing::Healthy;
        healthy.set(is_healthy.into());
        let word = &words[usize::from(is_healthy)];
        tell.send_if_modified(|told| {
            let is_news = told != word;
            told.clone_from(word);
            is_news
        });
    };
    // Whoever goes by a name asks for that.
    let names = own.wished.iter().map(ToString::to_string).collect();
    let looking = certificate::watch(names, way.clone(), health.clone());
    supervisor.spawn(certificate::TASK, looking);
    let (tell_answers, answers) = watch::channel(Answers::new());
    let asks = config.bgp.is_some().then(|| {
        let (asks, whom) = watch::channel(Whom::new());
        let asking = others::ask(own.health.clone(), way.clone(), whom, tell_answers);
        supervisor.spawn(others::TASK, asking);
        asks
    });
    let (addresses, check, probes) = (own.addresses.clone(), own.health.clone(), health.clone());
    let of = (client.clone(), api.namespace.clone());
    let asking = checker::ask(addresses, check, of, way, probes, ask, tell);
    supervisor.spawn(checker::TASK, asking);
    Ok((client, Known { standing, told, answers, asks }))
}

/// What this node says of itself: what is `said` of its API server, and which addresses are `here`. Where routers are told of that,
/// it is healthy once one of them leads here, for others withdraw by it. Ends with whoever tells what is here.
pub(super) fn words(
    mut said: watch::Receiver<Option<Told>>,
    mut routers: Option<watch::Receiver<bgp::Told>>,
    mut here: watch::Receiver<BTreeSet<IpAddr>>,
    supervisor: &mut Supervisor,
) -> watch::Receiver<Option<Told>> {
    let (tell, told) = watch::channel(None);
    supervisor.spawn("control plane's word", async move {
        loop {
            let word = {
                let routers = routers.as_mut().map(watch::Receiver::borrow_and_update);
                let said = said.borrow_and_update().clone();
                word(said, routers.as_deref(), &here.borrow_and_update())
            };
            tell.send_if_modified(|told| {
                let is_news = *told != word;
                *told = word;
                is_news
            });
            let routers = async {
                match &mut routers {
                    Some(routers) => routers.changed().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                Ok(()) = said.changed() => {}
                Ok(()) = routers => {}
                changed = here.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    });
    told
}

/// The same as it is said while routers know this much, and these are here.
fn word(said: Option<Told>, routers: Option<&bgp::Told>, here: &BTreeSet<IpAddr>) -> Option<Told> {
    said.map(|mut told| {
        let own = &mut told.control_plane;
        if let Some(routers) = routers {
            let known = routers.known();
            own.is_healthy &= own.addresses.iter().any(|address| known.contains(address));
        }
        own.announced.clone_from(here);
        told
    })
}

/// Stops this process when a name has another address: another node may have that already, and no node is to have both.
pub(super) async fn follow(
    own: ControlPlane,
    health: Health,
    moved: CancellationToken,
    stop: CancellationToken,
) {
    let what = names::follow(own, health).await;
    tracing::warn!("{what}: handing over what it had");
    if !stop.is_cancelled() {
        moved.cancel();
        stop.cancel();
    }
    std::future::pending::<()>().await;
}

/// What this host is, once the control plane's addresses have a place on it: bound on what has none, or taken off again where it
/// is the node's own, they would end more than this process. An interface that comes late when a node boots is waited for, and
/// so is whoever knows which addresses its names have. Nothing where it is stopped before that.
///
/// # Errors
/// Everything that keeps them from it, or what the kernel says.
pub(super) async fn ground(
    own: Option<&mut ControlPlane>,
    routed: Option<&str>,
    kernel: &mut impl Kernel,
    stop: &CancellationToken,
) -> anyhow::Result<Option<Host>> {
    stop.run_until_cancelled(settled(own, routed, kernel)).await.transpose()
}

async fn settled(
    mut own: Option<&mut ControlPlane>,
    routed: Option<&str>,
    kernel: &mut impl Kernel,
) -> anyhow::Result<Host> {
    let begun = Instant::now();
    let (mut unnamed, mut is_told) = (true, false);
    loop {
        let mut found = match &mut own {
            Some(own) if unnamed => unresolved(own).await,
            _ => Vec::new(),
        };
        unnamed = !found.is_empty();
        let host = kernel.look().await.context("looking at the addresses of this node")?;
        if let Some(own) = &own {
            found.extend(place::obstacles(own, &host, routed));
        }
        if found.is_empty() {
            return Ok(host);
        }
        let lines: Vec<String> = found.iter().map(|one| one.why.clone()).collect();
        if found.iter().any(|one| !one.may_go) || begun.elapsed() >= PATIENCE {
            anyhow::bail!(all(&lines));
        }
        if !std::mem::replace(&mut is_told, true) {
            tracing::warn!("waited for, {PATIENCE:?} at most: {}", lines.join("; "));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What keeps its names from having addresses, which are taken in.
async fn unresolved(own: &mut ControlPlane) -> Vec<Obstacle> {
    match names::resolve(own).await {
        Ok(()) => {
            if own.names().next().is_some() {
                tracing::info!(addresses = ?own.addresses, "the control plane's names have these addresses");
            }
            Vec::new()
        }
        Err(problems) => problems.into_iter().map(|why| Obstacle { why, may_go: true }).collect(),
    }
}

/// That no address of the control plane is another node's. What is in use already is told, and no reason to end. Where this may not know, nothing is said of it but that.
///
/// # Errors
/// Which one is, and whose.
pub(super) async fn are_no_others(
    own: &ControlPlane,
    client: &Client,
    namespace: &str,
    node: &str,
    health: &Health,
) -> anyhow::Result<()> {
    let mut refusals = Refusals::default();
    loop {
        let asked = nodes::anothers(own, client, namespace, node);
        let (why, pause) = match tokio::time::timeout(ANSWER, asked).await {
            Ok(Ok(found)) => {
                health.forget(OTHERS);
                anyhow::ensure!(found.theirs.is_empty(), all(&found.theirs));
                if !found.claimed.is_empty() {
                    let why = found.claimed.join("; ");
                    tracing::warn!("{why}");
                    health.missing(OTHERS, format!("when this began: {why}"));
                }
                return Ok(());
            }
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                let pause = refusals.again();
                if refusals.are_believed() {
                    health.forget(OTHERS);
                    let right = forbidden("list", "nodes", &status.message);
                    tracing::warn!(
                        "whether another node has the control plane's address is not known: {right}"
                    );
                    return Ok(());
                }
                (status.message.clone(), pause)
            }
            Ok(Err(error)) => (chain(&error), AGAIN),
            Err(_) => (format!("no answer within {ANSWER:?}"), AGAIN),
        };
        health.waits(OTHERS, format!("cannot say yet whether another node has the address: {why}"));
        tokio::time::sleep(pause).await;
    }
}

/// Ends where an address is another node's, once that is known: this node has gone on without asking.
pub(super) async fn watch_for_others(are_no_others: impl Future<Output = anyhow::Result<()>>) {
    match are_no_others.await {
        Ok(()) => std::future::pending().await,
        Err(error) => tracing::error!("{error:#}"),
    }
}

/// All of them, as the settings that are not accepted are told.
fn all(problems: &[String]) -> String {
    match problems {
        [only] => only.clone(),
        all => format!("{} problems in all:\n  {}", all.len(), all.join("\n  ")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::advertise::bgp::PeerTold;

    const ADDRESS: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 99, 0, 100));

    fn said(is_healthy: bool, announced: &[IpAddr]) -> Option<Told> {
        let announced = announced.iter().copied().collect();
        let control_plane = Words { is_healthy, addresses: [ADDRESS].into(), announced };
        Some(Told { control_plane, ..Told::default() })
    }

    #[test]
    fn by_bgp_a_node_says_that_it_is_healthy_once_a_router_leads_to_it() {
        let (mut routers, here) = (bgp::Told::default(), BTreeSet::new());
        assert_eq!(word(said(true, &[]), Some(&routers), &here), said(false, &[]));
        assert_eq!(word(said(true, &[]), None, &here), said(true, &[]));
        let knows = Arc::new([ADDRESS].into());
        routers.peers.insert("tor".to_owned(), PeerTold { knows, ..PeerTold::default() });
        assert_eq!(word(said(true, &[]), Some(&routers), &here), said(true, &[]));
        assert_eq!(word(said(false, &[]), Some(&routers), &here), said(false, &[]));
        assert_eq!(word(None, Some(&routers), &here), None);
    }

    #[tokio::test]
    async fn what_a_node_announces_is_in_its_word_and_the_last_word_is_said_when_it_ends() {
        let (_say, heard) = watch::channel(said(true, &[]));
        let (tell, here) = watch::channel(BTreeSet::new());
        let mut supervisor = Supervisor::new();
        let mut told = words(heard, None, here, &mut supervisor);
        assert_eq!(*told.wait_for(Option::is_some).await.unwrap(), said(true, &[]));
        tell.send_replace([ADDRESS].into());
        told.wait_for(|told| *told == said(true, &[ADDRESS])).await.unwrap();
        tell.send_replace(BTreeSet::new());
        drop(tell);
        told.wait_for(|told| *told == said(true, &[])).await.unwrap();
        assert!(told.changed().await.is_err());
    }
}
