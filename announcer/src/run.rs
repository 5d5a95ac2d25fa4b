//! Wires the program together and drives its rounds until it is told to leave. Ends at once, with what it has still
//! bound, when a background task ends before that: the kernel then silences each address by itself, and the next process
//! begins by removing it.
//!
//! | file | owns |
//! |---|---|
//! | `control_plane` | how it reaches the API server of its own node, where it has the control plane's address |
//! | `members` | whether members decide or a Lease, and who has the fence then |
//! | `ties` | what ties it to what stands behind it |
//! | `outside` | what others see of it |
//! | `inquiry` | who asks what is known of each address |
//! | `routers` | the sessions with routers, where they are asked for |
//! | `stop` | who says what a stop is |

mod control_plane;
mod inquiry;
mod members;
mod outside;
mod routers;
mod stop;
mod ties;

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use berth_api::host::HostId;
use berth_fence::Fence;
use berth_runtime::http::Health;
use berth_runtime::rights::{self, Right};
use berth_runtime::supervise::{Ended, Supervisor};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::control_plane::Known;
use self::members::{Keeper, Part};
use self::outside::Outside;
use self::stop::Asker;
use self::ties::{Ties, cluster_namespace};
use crate::advertise::bgp;
use crate::config::{Cluster, Config, Election};
use crate::control_plane::names;
use crate::dataplane::{self, Dataplane, eip as nat};
use crate::fencing;
use crate::instance::Instance;
use crate::kernel::{self, ArpAnnounce, Door, Host, KernelChange, Netlink};
use crate::locks::{self, Locks, WhenTaken};
use crate::ownership::membership::Fitness;
use crate::peers::join::{self as member, Backing, Own};
use crate::peers::kept::Kept;
use crate::publish::host;
use crate::publish::labeler::{self, Labeler};
use crate::publish::labels::Labels;
use crate::publish::publisher::Publisher;
use crate::reconcile::drive::{Left, Sources, drive};
use crate::reconcile::{self, Announcer, Outlets};
use crate::source::proxied::{self, Proxied, Question};
use crate::sweep;

/// How long a program that is under way may take to end, and what it keeps to be removed: a pod is given 15 s in all.
const UNGUARDING: Duration = Duration::from_secs(4);
/// How long the thread of the fence may take to end.
const UNFENCING: Duration = Duration::from_secs(10);
/// How long the last words to routers may take.
const FAREWELL: Duration = Duration::from_secs(3);
/// How long it may take until the Node says no more what it answered for.
const UNLABELLING: Duration = Duration::from_secs(2);
/// How long it may take until it says no more that the control plane's address is here.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The task that says so.
const HOST_LEASE: &str = "control plane's host lease";

/// The tasks that keep something in the kernel by running programs.
const KEEPERS: [&str; 4] = ["unserved", "forward", "elastic IPs", dataplane::transit::TASK];

/// Runs until `stop` is cancelled, then hands over, removes everything and returns. The background tasks go to
/// `supervisor`. Those of the `rights` that the account lacks are told.
///
/// # Errors
/// When the kernel, a listener or the configuration of the cluster cannot be used at all, when another announcer of this
/// name runs on the node, or when a background task ends.
pub async fn run(
    mut config: Config,
    rights: Vec<Right>,
    stop: CancellationToken,
    mut supervisor: Supervisor,
) -> anyhow::Result<()> {
    let instance = config.core.instance.clone();
    let (_locks, telling) = locks::take(&instance, WhenTaken::End).await?;
    supervisor.spawn_all([telling]);
    let ground = Ground::clear(&mut config, &instance, &stop, &mut supervisor).await?;
    let Some(ground) = ground else { return Ok(()) };
    let outside = Outside::open(&config, &mut supervisor)?;
    let closed = outside.closed.clone();
    let is_kept = ground.kept.until().is_some();
    let Some(mut started) =
        start(config, rights, instance.clone(), ground, outside, &stop, &mut supervisor).await?
    else {
        // What an earlier life has left stays silent towards neighbours.
        if !is_kept {
            fencing::remove(&instance);
        }
        return Ok(());
    };
    let (superseded, moved) = (started.superseded.clone(), started.moved.clone());
    match serve(&mut started, &stop, &mut supervisor).await {
        Ok(left) => end(started, left, &mut supervisor).await,
        Err(ended) => {
            started.abandon();
            return Err(ended.into());
        }
    }
    closed.cancel();
    anyhow::ensure!(
        !superseded.is_cancelled(),
        "the nodes go by membership from now on: this one has handed over and is to be started again"
    );
    anyhow::ensure!(
        !moved.is_cancelled(),
        "the control plane's name has another address: this one has handed over and is to be started again"
    );
    Ok(())
}

/// The host, free of what an earlier life has left.
struct Ground {
    door: Door,
    kernel: Netlink,
    changes: mpsc::Receiver<KernelChange>,
    fence: Box<dyn Fence>,
    /// Where the addresses are to be.
    interface: Option<String>,
    id: HostId,
    /// What of an earlier life routers may lead here still.
    kept: bgp::Kept,
    /// Held where addresses cannot be tagged.
    alone: Option<Locks>,
}

impl Ground {
    /// Not even the cluster need be there. Nothing if it was stopped before anything was touched.
    async fn clear(
        config: &mut Config,
        instance: &Instance,
        stop: &CancellationToken,
        supervisor: &mut Supervisor,
    ) -> anyhow::Result<Option<Self>> {
        let (door, tasks) = Door::open().context("opening a netlink socket")?;
        supervisor.spawn_all(tasks);
        let mut kernel = door.netlink(instance);
        let routed = config.routed().map(str::to_owned);
        let own = config.control_plane.as_mut();
        let host = control_plane::ground(own, routed.as_deref(), &mut kernel, stop).await?;
        let Some(host) = host else { return Ok(None) };
        let config = &*config;
        let alone = alone(&host, instance, supervisor)?;
        // Before anything is unbound: what an earlier life has left may still be armed.
        let fence = fencing::open(config, &host);
        let (kept, bindings) = routers::kept(config, &host);
        sweep::own(&mut kernel, &host, instance, &bindings).await;
        sweep::others(&door, &host, instance).await;
        let interface = advise(&host, config);
        let mac = interface.as_ref().and_then(|name| host.interfaces.get(name)?.mac);
        let network = kernel::network_id().context("which network of which boot this is")?;
        let (id, changes) = (HostId { network, mac }, door.changes());
        Ok(Some(Self { door, kernel, changes, fence, interface, id, kept, alone }))
    }
}

/// A running announcer.
struct Started {
    door: Door,
    instance: Instance,
    announcer: Announcer<Netlink>,
    /// Taken by whoever drives it.
    sources: Option<Sources>,
    keeper: Keeper,
    arp: Option<ArpAnnounce>,
    asker: Asker,
    /// Cancelled when the Lease by which this process goes may no longer decide.
    superseded: CancellationToken,
    /// The same when a name of the control plane has another address.
    moved: CancellationToken,
    _alone: Option<Locks>,
}

impl Started {
    /// Leaves everything as a crash would: what is bound stays fenced, and the host as that needs it.
    fn abandon(self) {
        std::mem::forget(self.arp);
    }
}

/// Starts everything; nothing if it was stopped before that.
async fn start(
    mut config: Config,
    rights: Vec<Right>,
    instance: Instance,
    ground: Ground,
    outside: Outside,
    stop: &CancellationToken,
    supervisor: &mut Supervisor,
) -> anyhow::Result<Option<Started>> {
    let Ground { door, kernel, changes, fence, interface, id, kept, alone } = ground;
    routers::may_be_told(&config, fence.kind())?;
    let Outside { health, metrics, inquiries, closed: _ } = outside;
    for (check, flaw) in config.flaws_by_check() {
        tracing::error!(check, "does not run: {flaw}");
        health.unready(check, flaw);
    }
    let again = Arc::new(Notify::new());
    let ask = Arc::new(Notify::new());
    let folder = config.election.of_control_plane().and_then(|fenced| fenced.folder.clone());
    let found = folder.map(|folder| Kept::open(&folder)).transpose()?;
    let goes_on = found.as_ref().is_some_and(Kept::goes_on);
    let addresses = config.control_plane.iter().flat_map(|own| own.addresses.clone()).collect();
    let own_part = found.map(|kept| Own { kept, fitness: Fitness::new(addresses, ask.clone()) });
    let (backing, known) = match &config.cluster {
        Cluster::Api(api) => {
            let reaching = control_plane::reach(&config, api, ask, (&health, &metrics), supervisor);
            let (client, known) = reaching.await?;
            (Backing::Api(client), known)
        }
        Cluster::Fixed(fixed) => (Backing::Files(fixed.clone()), Known::nothing()),
    };
    if let Backing::Api(client) = &backing {
        supervisor.spawn("rights", rights::tell(client.clone(), rights, health.clone()));
    }
    let arp = interface.as_deref().and_then(fencing::arp_announce);
    let wants_membership = matches!(config.election, Election::Membership(_));
    let namespace = cluster_namespace(&config);
    let (mut own, mut beside) = match &backing {
        Backing::Api(client) => {
            let of_node =
                || host::Keeper::new(client.clone(), &namespace, &config.core.node, id.clone());
            let of_control_plane = || {
                let (client, node) = (client.clone(), &config.core.node);
                let keeper = host::Keeper::of_control_plane(client, &namespace, node, id.clone());
                keeper.repeating(again.clone())
            };
            (config.serves().then(of_node), config.control_plane.is_some().then(of_control_plane))
        }
        Backing::Files(_) => (None, None),
    };
    let others = match (&config.control_plane, &backing) {
        (Some(own), Backing::Api(client)) => {
            Some((own.clone(), client.clone(), namespace.clone(), config.core.node.clone()))
        }
        _ => None,
    };
    let probes = health.clone();
    let are_no_others = async move {
        match &others {
            Some((own, client, namespace, node)) => {
                control_plane::are_no_others(own, client, namespace, node, &probes).await
            }
            None => Ok(()),
        }
    };
    // Who goes on by what it has kept may be the one that the API servers wait for: it has found both out before.
    let (before, after) = match goes_on {
        true => (None, Some(are_no_others)),
        false => (Some(are_no_others), None),
    };
    let join = async {
        if let Some(are_no_others) = before {
            for keeper in own.iter_mut().chain(&mut beside) {
                keeper.claim_name(&health).await;
            }
            are_no_others.await?;
        }
        member::join(&mut config, &backing, fence, own_part, &metrics, &health).await
    };
    let joined = stop.run_until_cancelled(join);
    let Some(joined) = supervisor.during(joined).await? else { return Ok(None) };
    let Part { keeper, members, backstop, told, fenced } =
        members::part(joined?, &metrics, &health, supervisor)?;
    let superseded = CancellationToken::new();
    let views = members::views(&config);
    if let (Backing::Api(client), false, false) = (&backing, keeper.is_member(), views.is_empty()) {
        let (client, namespace) = (client.clone(), cluster_namespace(&config));
        let (told, stop, health) = (superseded.clone(), stop.clone(), health.clone());
        let giving_way =
            members::give_way(client, namespace, views, wants_membership, told, stop, health);
        supervisor.spawn("membership to come", giving_way);
    }

    let moved = CancellationToken::new();
    if let Some(own) = config.control_plane.clone().filter(|own| own.names().next().is_some()) {
        let following = control_plane::follow(own, health.clone(), moved.clone(), stop.clone());
        supervisor.spawn(names::TASK, following);
    }
    if let Some(are_no_others) = after {
        supervisor.spawn("control plane's address", control_plane::watch_for_others(are_no_others));
    }
    let client = match &backing {
        Backing::Api(client) => Some(client),
        Backing::Files(_) => None,
    };
    let sessions = own.as_ref().map(host::Keeper::sessions_before).unwrap_or_default();
    let before = routers::Before { kept, sessions };
    let (routed, routers) =
        routers::start(&config, client, interface, before, &metrics, &health, supervisor);
    let (here, told_here) = watch::channel(BTreeSet::new());
    if let Some(mut beside) = beside {
        let of_routers = routed.is_some().then(|| routers.clone());
        let told = control_plane::words(known.told, of_routers, told_here, supervisor);
        let probes = health.clone();
        let keeping = async move {
            if goes_on {
                beside.claim_name(&probes).await;
            }
            beside.keep(told).await;
        };
        supervisor.spawn(HOST_LEASE, keeping);
    }
    let (proxied, leads) = ask_proxy(client.is_some(), supervisor);
    let asked = client.filter(|_| routed.is_some()).cloned();
    let asker = Asker::new(asked, &namespace, config.serves());
    let labels = label(&config, &backing, &health, supervisor);
    let (host, told_of_host) = watch::channel(None);
    let ties = Ties::to(backing, &config, &health, own, told_of_host, supervisor);
    let Ties { events, seen, writer, done } = ties;
    let publishes = config.services.as_ref().is_some_and(|services| services.publish);

    let closes = config.services.as_ref().is_some_and(|services| services.closes_host_ports);
    let (dataplane, kept, tasks) =
        Dataplane::new(&door, &instance, &metrics, (closes, routed.is_some()));
    supervisor.spawn_all(tasks);

    let publisher = Publisher::new(writer, events, metrics.clone(), &config.core.node, publishes);
    let outlets = Outlets { metrics, health, host, labels, again, here };
    let now = Instant::now();
    let owners = reconcile::owners(&config, members, now);
    let announcer = Announcer::new(config, owners, kernel, dataplane, publisher, outlets, now);
    let announcer = announcer.with_backstop(backstop).with_routed(routed).with_proxied(proxied);
    let announcer = announcer.with_asks(known.asks);
    let (dataplane, standing, routed) = (kept, known.standing, routers);
    let sources = Some(Sources {
        seen,
        done,
        changes,
        dataplane,
        told,
        fenced,
        standing,
        answers: known.answers,
        routed,
        proxied: leads,
        inquiries,
    });
    let _alone = alone;
    Ok(Some(Started {
        door,
        instance,
        announcer,
        sources,
        keeper,
        arp,
        asker,
        superseded,
        moved,
        _alone,
    }))
}

/// Asks kube-proxy of this node where it leads, where there is a cluster.
fn ask_proxy(
    is_asked: bool,
    supervisor: &mut Supervisor,
) -> (Option<Proxied>, watch::Receiver<BTreeSet<Question>>) {
    let (proxied, task) = Proxied::new(proxied::PATIENCE);
    let answers = proxied.answers();
    if !is_asked {
        return (None, answers);
    }
    supervisor.spawn(proxied::TASK, task);
    (Some(proxied), answers)
}

/// Labels Nodes, where that is asked for, with what it is told.
fn label(
    config: &Config,
    backing: &Backing,
    health: &Health,
    supervisor: &mut Supervisor,
) -> Option<watch::Sender<Option<Labels>>> {
    let Backing::Api(client) = backing else { return None };
    config.services.as_ref()?.labels?;
    let (tell, told) = watch::channel(None);
    let labeler = Labeler::new(client.clone(), &config.core.node, health.clone());
    supervisor.spawn(labeler::TASK, labeler.keep(told));
    Some(tell)
}

/// Drives the announcer until it has left, or may not wait for that any longer.
async fn serve(
    started: &mut Started,
    stop: &CancellationToken,
    supervisor: &mut Supervisor,
) -> Result<Left, Ended> {
    let Some(sources) = started.sources.take() else { return Ok(Left::Bare) };
    let asked = std::mem::take(&mut started.asker).at(stop.clone());
    let mut driving = pin!(drive(&mut started.announcer, sources, asked));
    loop {
        match supervisor.during(&mut driving).await {
            Ok(left) => return Ok(left),
            // What can be handed over still is.
            Err(ended) if stop.is_cancelled() => tracing::error!("while leaving: {ended}"),
            Err(ended) => return Err(ended),
        }
    }
}

/// Ends what was started, the fence after the addresses and the tables last.
async fn end(started: Started, left: Left, supervisor: &mut Supervisor) {
    if left == Left::Kept {
        return pause(started, supervisor).await;
    }
    let left = left == Left::Bare;
    if !left {
        tracing::warn!("leaving before everything could be handed over");
    }
    let Started { door, instance, announcer, keeper, arp, _alone, .. } = started;
    // What is still bound stays fenced. A Lease that could not be given back is no reason.
    let unfence = left || !keeper.is_member() && announcer.is_bare();
    for task in supervisor.finish(&[keeper.end(unfence, unfence)], UNFENCING).await {
        tracing::warn!(task, "does not end");
    }
    if left && keeper.is_member() {
        members::give_back(supervisor).await;
    }
    drop(arp);
    // The tables go last: nothing that they are about is bound any more, or nobody is led to it.
    let guards = !left && announcer.is_routed_here() && !announcer.is_bare();
    drop(announcer);
    if !supervisor.finish(&[HOST_LEASE], LAST_WORD).await.is_empty() {
        tracing::debug!("what this node said last of the control plane's address stays");
    }
    if !supervisor.finish(&[bgp::TASK], FAREWELL).await.is_empty() {
        tracing::warn!("a router does not hear that this node goes");
    }
    for task in supervisor.finish(&[labeler::TASK], UNLABELLING).await {
        tracing::warn!(task, "its Node keeps labels of addresses that it has no more");
    }
    for task in supervisor.finish(&KEEPERS, UNGUARDING).await {
        tracing::warn!(task, "nft or iptables does not end");
    }
    if guards {
        tracing::warn!(
            "addresses stay bound until the kernel drops them, and their guard until the next start"
        );
        return;
    }
    let sweep = tokio::time::timeout(UNGUARDING, nat::sweep(&door, &instance));
    match tokio::join!(dataplane::remove(&instance), sweep).1 {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "rules of elastic IPs are left"),
        Err(_) => tracing::warn!("iptables does not end: rules of elastic IPs are left"),
    }
}

/// Ends for the next process to go on: sessions end without a word, and what routers lead here stays as a crash would leave it.
async fn pause(started: Started, supervisor: &mut Supervisor) {
    let Started { announcer, keeper, arp, _alone, .. } = started;
    std::mem::forget(arp);
    let handed = announcer.has_left();
    drop(announcer);
    let thread = keeper.end(false, handed);
    let all = [&[bgp::TASK, thread][..], &KEEPERS].concat();
    for task in supervisor.finish(&all, UNGUARDING).await {
        tracing::warn!(task, "does not end");
    }
    if handed && keeper.is_member() {
        members::give_back(supervisor).await;
    }
}

/// Keeps other instances away where the kernel does not tell their addresses from ours.
fn alone(
    host: &Host,
    instance: &Instance,
    supervisor: &mut Supervisor,
) -> anyhow::Result<Option<Locks>> {
    if !host.untagged {
        return Ok(None);
    }
    let taken = locks::take_untagged(instance).context(
        "this kernel keeps no tags of addresses (Linux 5.18 does), and one announcer can run on it",
    );
    let (locks, telling) = taken?;
    supervisor.spawn_all([telling]);
    Ok(Some(locks))
}

/// Tells what of the host gets in the way. Gives the interface of the addresses.
fn advise(host: &Host, config: &Config) -> Option<String> {
    let interface = config.core.interface.as_deref().or(host.default_route());
    for advice in kernel::advice(host, interface.unwrap_or("all"), kernel::sysctl::read) {
        tracing::warn!("{advice}");
    }
    if let Some(asked) = &config.arp_nd.subnet {
        tracing::warn!(
            "{asked} is not done: an address is bound as /32 or /128, since one with a subnet is how a node itself is reached; \
             where an interface has no subnet, give it an address of the node"
        );
    }
    interface.map(str::to_owned)
}
