//! Owns the watches: a fixed number of them, however many Services there are. Passes on what matters of each object and
//! forgets the rest at once.

mod bgp;
mod claims;
mod control_plane;
mod eip;
mod endpoints;
mod feed;

use std::collections::BTreeSet;

use berth_api::election::{Cut, Held, Sight};
use berth_api::lean::Lean;
use berth_api::service::ClassPolicy;
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use berth_runtime::watch::{Served, objects_where_granted};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use kube::Client;
use kube::api::{Api, Resource};
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;

pub use self::feed::{ClusterEvent, Scope};
use self::feed::{LARGE, NODES, PAGE, api, fresh, fresh_if_granted, pass, plain};
use crate::config::Drains;
use crate::source::cluster::{Labels, Name, Service};
use crate::vip::nodes::Peer;

/// Room for changes that are not taken in yet; a watch that is ahead waits.
const QUEUE: usize = 1024;

/// Leases of kubelets change every ten seconds on every node, and are nothing to us.
const LEASES: &str = "metadata.namespace!=kube-node-lease";

/// Which Nodes have an API server, as kubeadm labels them.
pub(crate) const CONTROL_PLANES: &str = "node-role.kubernetes.io/control-plane";

/// Names of the watches, as tasks and as readiness checks.
const SERVICES: &str = "services watch";
/// That of EndpointSlices, for who goes by what it shows.
pub const ENDPOINT_SLICES: &str = "endpointslices watch";
const LEASE: &str = "leases watch";
const RIVALS: &str = "leases of Services watch";
const EMPTIED: &str = "emptied nodes watch";

/// Makes the watches, one task for each. Readiness tells of one that hears nothing.
pub fn start(
    client: &Client,
    scope: Scope,
    health: &Health,
) -> (mpsc::Receiver<ClusterEvent>, Vec<Task>) {
    let (send, receive) = mpsc::channel(QUEUE);
    let mut tasks: Vec<Task> = Vec::new();
    if scope.eips {
        let eips = eip::follow(client.clone(), scope.clone(), health.clone(), send.clone());
        tasks.push(("elastic IPs watch", eips.boxed()));
    }
    match scope.classes.clone() {
        Some(classes) => tasks.extend(watch_services(client, &scope, classes, health, &send)),
        None => {
            // There is room for these two.
            let _ = send.try_send(ClusterEvent::Services(BTreeSet::new()));
            let _ = send.try_send(ClusterEvent::Slices(BTreeSet::new()));
        }
    }

    tasks.extend(claims::tasks(client, &scope, health, &send));
    tasks.extend(bgp::task(client, &scope, health, &send));

    if scope.leases {
        tasks.push((LEASE, watch_leases(fresh(client, health, LEASE), &scope, send.clone())));
    }
    tasks.extend(control_plane::tasks(client, &scope, health, &send));
    if scope.rivals {
        let rivals = fresh_if_granted(client, health, RIVALS);
        tasks.push((RIVALS, watch_rivals(rivals, &scope, send.clone())));
    }

    if scope.nodes {
        let (drains, notes, own) = (scope.drains.clone(), scope.notes.clone(), scope.node.clone());
        let node = move |name: Name, node: core::Node| {
            let peer = Peer::read(&node, |taint| drains.has(taint));
            let notes = notes.as_deref().filter(|_| name.name == own);
            ClusterEvent::Node(name.name, peer.noting(&node, notes))
        };
        let gone = |name: Name, _| ClusterEvent::NodeGone(name.name);
        let listed = |names| ClusterEvent::Nodes(plain(names));
        let nodes = Api::all(fresh(client, health, NODES));
        let which = Config::default();
        let which = if scope.control_planes { which.labels(CONTROL_PLANES) } else { which };
        let nodes = pass(nodes, which, send, node, gone, listed);
        tasks.push((NODES, nodes.boxed()));
    } else {
        let nodes = Api::all(fresh_if_granted(client, health, EMPTIED));
        tasks.push((EMPTIED, watch_emptied(nodes, scope.drains.clone(), send)));
    }
    (receive, tasks)
}

/// Which nodes are cordoned or emptied, if that may be looked at. Without it a Lease is held by whoever is there, as before.
fn watch_emptied(
    nodes: Api<core::Node>,
    drains: Drains,
    send: mpsc::Sender<ClusterEvent>,
) -> BoxFuture<'static, ()> {
    let mut watch = Box::pin(objects_where_granted(nodes, Config::default().page_size(PAGE)));
    async move {
        let (mut coming, mut told) = (BTreeSet::new(), false);
        while let Some(served) = watch.next().await {
            let node = |node: &core::Node| {
                let name = Name::of(node.meta()).name;
                ClusterEvent::Node(name, Peer::read(node, |taint| drains.has(taint)))
            };
            let seen = match served {
                Served::Event(Event::Init) => {
                    coming.clear();
                    continue;
                }
                Served::Event(Event::InitApply(seen)) => {
                    coming.insert(Name::of(seen.meta()).name);
                    node(&seen)
                }
                Served::Event(Event::Apply(seen)) => node(&seen),
                Served::Event(Event::Delete(gone)) => {
                    ClusterEvent::NodeGone(Name::of(gone.meta()).name)
                }
                Served::Event(Event::InitDone) => ClusterEvent::Nodes(std::mem::take(&mut coming)),
                Served::Absent => {
                    if !std::mem::replace(&mut told, true) {
                        tracing::info!("Nodes may not be watched: who is cordoned or emptied goes by Lease as all others do");
                    }
                    continue;
                }
            };
            if send.send(seen).await.is_err() {
                return;
            }
        }
    }
    .boxed()
}

/// The Leases of one election, or all.
fn watch_leases(
    client: Client,
    scope: &Scope,
    send: mpsc::Sender<ClusterEvent>,
) -> BoxFuture<'static, ()> {
    let lease = |name, lease: Lean<Lease, Cut>| {
        ClusterEvent::Lease(name, Sight::Present(Box::new(lease.object)))
    };
    let gone = |name, lease: Lean<Lease, Cut>| {
        ClusterEvent::Lease(name, Sight::Deleted(Box::new(lease.object)))
    };
    let (leases, config) = match &scope.lease {
        Some(Name { namespace, name }) => {
            let only = Config::default().fields(&format!("metadata.name={name}"));
            (Api::namespaced(client, namespace), only)
        }
        None => (api(&client, scope.namespace.as_deref()), Config::default().fields(LEASES)),
    };
    pass(leases, config.page_size(LARGE), send, lease, gone, ClusterEvent::Leases).boxed()
}

/// Who holds the Leases of single Services, if they may be listed. Not those in the allocator's namespace, where all nodes
/// renew their own.
fn watch_rivals(
    client: Client,
    scope: &Scope,
    send: mpsc::Sender<ClusterEvent>,
) -> BoxFuture<'static, ()> {
    let api = api::<Lean<Lease>>(&client, scope.namespace.as_deref());
    let fields = format!("{LEASES},metadata.namespace!={}", scope.allocator_namespace);
    let mut watch =
        Box::pin(objects_where_granted(api, Config::default().fields(&fields).page_size(LARGE)));
    async move {
        let mut coming = BTreeSet::new();
        while let Some(served) = watch.next().await {
            let seen = match served {
                Served::Event(Event::InitApply(lease)) => {
                    let name = Name::of(lease.meta());
                    coming.insert(name.clone());
                    ClusterEvent::Rival(name, Held::of(&lease.object))
                }
                Served::Event(Event::Apply(lease)) => {
                    ClusterEvent::Rival(Name::of(lease.meta()), Held::of(&lease.object))
                }
                Served::Event(Event::Delete(lease)) => {
                    ClusterEvent::Rival(Name::of(lease.meta()), Held::Gone)
                }
                Served::Event(Event::InitDone) | Served::Absent => {
                    ClusterEvent::Rivals(std::mem::take(&mut coming))
                }
                Served::Event(Event::Init) => {
                    coming.clear();
                    continue;
                }
            };
            if send.send(seen).await.is_err() {
                return;
            }
        }
    }
    .boxed()
}

fn watch_services(
    client: &Client,
    scope: &Scope,
    classes: ClassPolicy,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> [Task; 2] {
    let (namespace, is_routed) = (scope.namespace.as_deref(), scope.bgp.is_some());
    let services = api::<Lean<core::Service, Labels>>(&fresh(client, health, SERVICES), namespace);
    let service = move |name, Lean { object, taken }: Lean<core::Service, Labels>| {
        // Nobody else goes by them.
        let labels = if is_routed { taken } else { Labels::default() };
        let service = Service { labels, ..Service::read(&object, &classes) };
        ClusterEvent::Service(name, Box::new(service))
    };
    let gone = |name, _| ClusterEvent::ServiceGone(name);
    let services = pass(
        services,
        Config::default().page_size(LARGE),
        send.clone(),
        service,
        gone,
        ClusterEvent::Services,
    );

    let slices = fresh_if_granted(client, health, ENDPOINT_SLICES);
    let slices = endpoints::follow(
        api::<endpoints::AsSlice>(&slices, namespace),
        api::<endpoints::AsOlder>(&slices, namespace),
        send.clone(),
    );
    [(SERVICES, services.boxed()), (ENDPOINT_SLICES, slices.boxed())]
}
