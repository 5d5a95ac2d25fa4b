//! Makes this node a member: the key, the sockets, the thread, and the tasks that keep the view.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use super::kept::{self, Kept};
use super::key::{self, KeySource, Keys, Unavailable};
use super::view::{self as stored, Gate, ViewStore};
use super::{Wire, driver, lock};
use crate::config::{self, Cluster as Stands, Config, Election, Fenced, Fixed};
use crate::kernel::port_holder;
use crate::metrics::Metrics;
use crate::ownership::membership::{Command, Fitness, Members, MembershipEvent};
use crate::source::cluster::Name;
use crate::source::view;
use crate::vip::nodes::Peer;
use anyhow::Context;
use berth_api::names::lease;
use berth_fence::{Fence, Kind};
use berth_membership::Keyring;
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::runtime::watcher::Event;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// How long until a port is tried again that somebody has.
const AGAIN: Duration = Duration::from_secs(1);

/// How often a key is looked for that is not there.
const MENDED: Duration = Duration::from_secs(2);

/// The same for somebody who goes by a Lease meanwhile.
const LATE_KEY: Duration = Duration::from_secs(15);

/// Who decides on owners.
pub(crate) enum Joined {
    /// Membership.
    Member(Box<Member>),
    /// Leases, or nobody, with what was opened of the fence.
    Lease(Box<dyn Fence>),
}

/// A running member.
pub(crate) struct Member {
    pub(crate) members: Members,
    pub(crate) told: mpsc::UnboundedReceiver<MembershipEvent>,
    pub(crate) commands: mpsc::UnboundedSender<Command>,
    /// The thread and what it needs.
    pub(crate) tasks: Vec<Task>,
    /// Gives back the Lease that members hold against other announcers: once nothing of this node's answers any more.
    pub(crate) give_back: CancellationToken,
}

/// Binds the port of the peers, as soon as nobody else has it. Until then this node serves nothing and readiness says why:
/// whoever decides without hearing the others may decide against them.
async fn wire(port: u16, node: &str, health: &Health) -> anyhow::Result<Wire> {
    let mut waited = false;
    loop {
        match Wire::bind(port, node) {
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                let holder = tokio::task::spawn_blocking(move || port_holder(port)).await;
                let by = holder.ok().flatten().map(|holder| format!(" by {holder}"));
                let why = format!(
                    "berth_peer_port={port}: the UDP port is in use{}; nothing is served until it is free",
                    by.unwrap_or_default()
                );
                health.waits("membership", why);
                waited = true;
                tokio::time::sleep(AGAIN).await;
            }
            bound => {
                if waited {
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
            Backing::Api(client) => Ok(Self::api(client, fenced)),
            Backing::Files(fixed) => Self::files(fixed),
        }
    }

    fn api(client: &Client, fenced: &Fenced) -> Self {
        let (client, namespace, name) = (client.clone(), fenced.namespace.clone(), fenced.name());
        Self {
            keys: KeySource::Secret { client: client.clone(), namespace: namespace.clone(), name },
            views: ViewStore::Lease { client, namespace, name },
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
    health.unready("membership", "not yet");
    loop {
        let error = match ports.keys.obtain().await {
            Ok(keyring) => return Ok(Some(keyring)),
            Err(error) => error,
        };
        if !fenced.falls_back {
            return Err(error).context("berth_election=membership");
        }
        let why = match (ports.views.exists().await, &error) {
            (true, _) => "Lease berth-membership says that the nodes go by membership",
            (false, Unavailable::Refused { .. }) => {
                tracing::warn!(%error, lease = fenced.lease, "no key, so one Lease for all Services decides");
                health.ready("membership");
                return Ok(None);
            }
            (false, _) => "the Secret is there, so it is to hold a key",
        };
        let why = format!("{error}; nothing is served until that is mended, for {why}");
        health.waits("membership", why);
        tokio::time::sleep(MENDED).await;
    }
}

/// Waits while there is a view: beside it nobody of ours goes by a Lease, whatever the settings say. Where the cluster does
/// not answer nothing is waited for here, since nothing is acquired either.
async fn stand_back(client: &Client, namespace: &str, view: &str, health: &Health) {
    // What nobody can read keeps nobody from the control plane's address: members hold the Lease of that besides.
    let is_view = |lease: &Lease| match view {
        lease::VIEW_OF_CONTROL_PLANE => matches!(stored::has(lease), Some(Ok(_))),
        _ => view::has_view(lease),
    };
    // Nobody has the control plane's address, by which kubectl goes, meanwhile.
    let by = match view {
        lease::VIEW_OF_CONTROL_PLANE => {
            ", by the API server of this node: --server https://127.0.0.1:6443 --tls-server-name kubernetes"
        }
        _ => "",
    };
    while view::is_known(client, namespace, view, is_view).await {
        let why = format!(
            "Lease {namespace}/{view} says that the nodes go by membership, so nothing is served by a Lease. If no node does \
             any more: kubectl --namespace {namespace} patch lease {view} --type=merge --patch \
             '{{\"metadata\":{{\"finalizers\":null}}}}' && kubectl --namespace {namespace} delete lease {view}{by}",
        );
        health.waits("leases", why);
        tokio::time::sleep(MENDED).await;
    }
}

/// Waits until this process may write a Lease for each Service, of all namespaces or of one. Where the API server does not say
/// nothing is waited for: what it refuses is told later.
async fn leases_granted(client: &Client, only: Option<&str>, health: &Health) {
    let mut waited = false;
    while let Some(verb) = lacks(client, only).await {
        let why = format!(
            "svc_election=true needs to {verb} leases.coordination.k8s.io in {}, and may not; nothing is served until it may: \
                 kubectl apply -k overlays/svc-election, or apply its rbac.yaml",
            only.map_or("all namespaces".to_owned(), |name| format!("namespace {name}"))
        );
        health.waits("leases", why);
        waited = true;
        tokio::time::sleep(MENDED).await;
    }
    if waited {
        health.unready("leases", "not yet");
    }
}

/// What this process may not do with Leases, of what it needs for one per Service; deleting them is not needed.
async fn lacks(client: &Client, only: Option<&str>) -> Option<&'static str> {
    for verb in ["create", "update"] {
        let attributes = ResourceAttributes {
            group: Some("coordination.k8s.io".to_owned()),
            resource: Some("leases".to_owned()),
            verb: Some(verb.to_owned()),
            namespace: only.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec = SelfSubjectAccessReviewSpec {
            resource_attributes: Some(attributes),
            ..SelfSubjectAccessReviewSpec::default()
        };
        let review = SelfSubjectAccessReview { spec, ..SelfSubjectAccessReview::default() };
        let (reviews, parameters) = (Api::all(client.clone()), PostParams::default());
        let answer = reviews.create(&parameters, &review);
        let answer = tokio::time::timeout(MENDED, answer).await.ok()?.ok()?;
        if !answer.status?.allowed {
            return Some(verb);
        }
    }
    None
}

/// Waits until there is a key: whoever goes by a Lease for want of one then may do so no longer.
pub(crate) async fn key_appears(client: &Client, namespace: &str) {
    loop {
        tokio::time::sleep(LATE_KEY).await;
        if key::may_be_had(client, namespace).await {
            return;
        }
    }
}

/// Waits until there is a view of this name that can be read: that alone ends what a Lease has decided. What cannot is told, for whoever
/// writes that Lease could silence all nodes by one word.
pub(crate) async fn view_appears(
    client: &Client,
    namespace: &str,
    name: &'static str,
    health: &Health,
) {
    let mut watch = Box::pin(view::watch(Api::namespaced(client.clone(), namespace), name));
    while let Some(event) = watch.next().await {
        let lease = match event {
            Event::InitApply(lease) | Event::Apply(lease) => lease,
            Event::Delete(_) => {
                health.forget(name);
                continue;
            }
            Event::Init | Event::InitDone => continue,
        };
        match stored::has(&lease) {
            Some(Ok(_)) => return,
            Some(Err(error)) => {
                let why = format!(
                    "{}, so the Lease goes on deciding: {error}",
                    stored::holds_none(&lease)
                );
                tracing::warn!("{why}");
                health.missing(name, why);
            }
            None => health.forget(name),
        }
    }
}

/// What a member that may have the control plane's address begins with.
pub(crate) struct Own {
    /// What an earlier run has kept.
    pub(crate) kept: Kept,
    /// By what it may have it.
    pub(crate) fitness: Fitness,
}

/// The keys of the control plane's members: those that were kept, else those of the Secret, which then are. Nothing is served before
/// there are any.
async fn own_keys(
    kept: &mut Kept,
    client: &Client,
    fenced: &Fenced,
    health: &Health,
) -> anyhow::Result<Keyring> {
    health.unready("membership", "not yet");
    loop {
        if let Some(keys) = &kept.keys {
            return keys.ring().context("what was kept");
        }
        match key::make(client, &fenced.namespace, fenced.name()).await {
            Ok(keys) => kept.know(keys).with_context(|| kept.folder().display().to_string())?,
            Err(error) => {
                let why = format!("{error}; nothing is served until that is mended");
                health.waits("membership", why);
                tokio::time::sleep(MENDED).await;
            }
        }
    }
}

/// Tells where the cluster has other keys than those that were kept: another cluster was made on this node, or somebody has changed
/// them.
async fn compare(client: Client, fenced: Fenced, kept: Kept, health: Health) {
    const CHECK: &str = "membership key";
    let Fenced { namespace, .. } = &fenced;
    let (name, folder) = (fenced.name(), kept.folder().display());
    let same = |found: &Keys| kept.keys.as_ref() == Some(found);
    let mut told = String::new();
    loop {
        match key::look(&client, namespace, name).await {
            Some(found) if same(&found) => health.ready(CHECK),
            found => {
                let what = match found {
                    Some(_) => "holds another key than",
                    None => "is not there, and this node has what it held in",
                };
                let why = format!(
                    "Secret {namespace}/{name} {what} {folder}: this node goes on with what it has, and hears no node that has the other. \
                     Where the cluster is another one than before, or the key was changed: stop the announcers of all control-plane nodes, \
                     remove what is in that folder on each, then start them"
                );
                if told != why {
                    tracing::error!("{why}");
                    told.clone_from(&why);
                }
                health.unready(CHECK, why);
            }
        }
        tokio::time::sleep(LATE_KEY).await;
    }
}

/// Starts what membership needs, if it is to decide; where that is on the control plane's address with what is its `own`. Where nobody
/// asked for it by name and there is no key, the configuration falls back to the Lease.
pub(crate) async fn join(
    config: &mut Config,
    backing: &Backing,
    mut fence: Box<dyn Fence>,
    own: Option<Own>,
    metrics: &Metrics,
    health: &Health,
) -> anyhow::Result<Joined> {
    if config.election == Election::Everyone {
        return Ok(Joined::Lease(fence));
    }
    let Election::Membership(fenced) = config.election.clone() else {
        if let (Backing::Api(client), Stands::Api(api)) = (backing, &config.cluster) {
            if config.election == Election::PerService {
                let services = config.services.as_ref();
                let only = services.and_then(|services| services.namespace.as_deref());
                leases_granted(client, only, health).await;
            }
            if config.election != Election::Nothing {
                stand_back(client, &api.namespace, lease::VIEW, health).await;
            }
            if config.control_plane.is_some() {
                stand_back(client, &api.namespace, lease::VIEW_OF_CONTROL_PLANE, health).await;
            }
        }
        return Ok(Joined::Lease(fence));
    };
    let ports = Ports::of(backing, &fenced)?;
    let (mut kept, fitness) = own.map(|own| (own.kept, own.fitness)).unzip();
    let keyring = match (&mut kept, backing) {
        (Some(kept), Backing::Api(client)) => Some(own_keys(kept, client, &fenced, health).await?),
        _ => obtain(&ports, &fenced, health).await?,
    };
    let Some(keyring) = keyring else {
        config.election =
            Election::Global { namespace: fenced.namespace.clone(), name: fenced.lease.clone() };
        fence.set_life(crate::fencing::by_lease(config.leases.timing));
        return Ok(Joined::Lease(fence));
    };
    let fenced_kind = fence.kind() != Kind::Unfenced;
    for check in ["membership", "nodes"] {
        health.unready(check, "not yet");
    }
    let wire = wire(fenced.port, &config.core.node, health).await?;
    let (commands, commanded) = mpsc::unbounded_channel();
    let (tell, told) = mpsc::unbounded_channel();
    let (propose, proposals) = mpsc::unbounded_channel();
    let (keep, kept_on) = kept.is_some().then(mpsc::unbounded_channel).unzip();
    let seed = u64::from_ne_bytes(key::random().context("reading /dev/urandom")?);
    let parts = driver::Parts {
        node: config.core.node.clone(),
        keyring,
        seed,
        wire,
        fence,
        told: tell,
        proposals: propose,
        keep,
        metrics: metrics.clone(),
        health: health.clone(),
    };
    let thread = driver::start(parts, commanded)?;
    let (lease, give_back) =
        (Name::new(&fenced.namespace, &fenced.lease), CancellationToken::new());
    let leave = give_back.clone();
    let held = match backing {
        Backing::Api(client) => lock::keep(client.clone(), &lease, &config.core.node, leave),
        Backing::Files(_) => lock::none(leave),
    };
    let labelled = kept.is_some().then(|| config.core.node.clone());
    let gate = Gate { tenure: held.tenure, lease: lease.clone(), health: health.clone(), labelled };
    let lease = matches!(backing, Backing::Api(_)).then_some(lease);
    let now = Instant::now();
    let mut members = Members::new(&config.core.node, lease, fenced_kind, commands.clone(), now);
    if let Some(fitness) = fitness {
        members = members.of_control_plane(fitness);
    }
    let mut tasks = vec![(driver::THREAD, thread), (lock::TASK, held.task)];
    if let (Some(kept), Some(told), Backing::Api(client)) = (kept, kept_on, backing) {
        if let Some(view) = &kept.view {
            tracing::info!(epoch = view.epoch(), "this node goes on in the view that it has kept");
            // Before anything else: whoever starts here stands in nothing older than an earlier run did.
            let _ = commands.send(Command::Kept(view.clone()));
            kept.peers().for_each(|(name, peer)| members.peer(name, Some(peer)));
            members.peers(&kept.peers().map(|(name, _)| name).collect());
            members.resume();
            health.ready("nodes");
        }
        let comparing = compare(client.clone(), fenced.clone(), kept.clone(), health.clone());
        tasks.push(("membership key", comparing.boxed()));
        tasks.push((kept::TASK, kept.keep(told, commands.clone(), health.clone()).boxed()));
    }
    if let PeerSource::List(list) = ports.peers {
        for member in &list {
            let peer = Peer { addresses: member.addresses.clone(), ..Peer::default() };
            members.peer(member.name.clone(), Some(peer));
        }
        members.peers(&list.into_iter().map(|member| member.name).collect());
        health.ready("nodes");
    }
    // The view is read after the protocol has begun, as that asks.
    let view = ports.views.fresh(health).keep(proposals, commands.clone(), gate);
    tasks.push(("membership view", view.boxed()));
    tracing::info!(port = fenced.port, "this node is a member");
    Ok(Joined::Member(Box::new(Member { members, told, commands, tasks, give_back })))
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
        let waiting = tokio::spawn(async move { wire(port, "node-a", &heard).await.map(drop) });
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
