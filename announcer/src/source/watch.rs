//! Owns the watches: a fixed number of them, however many Services there are. Passes on what matters of each object and
//! forgets the rest at once.

mod claims;
mod eip;
mod feed;

use std::collections::BTreeSet;

use berth_api::election::Sight;
use berth_api::service::ClassPolicy;
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use berth_runtime::watch::{Served, objects_where_granted};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;

pub use self::feed::{ClusterEvent, Scope};
use self::feed::{NODES, api, fresh, pass, plain};
use crate::source::cluster::{Name, Ready, Service};
use crate::vip::nodes::Peer;

/// Room for changes that are not taken in yet; a watch that is ahead waits.
const QUEUE: usize = 1024;

/// Slices that are for kube-proxy too: not of headless Services, nor of those that another proxy serves.
const SLICES: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// Leases of kubelets change every ten seconds on every node, and are nothing to us.
const LEASES: &str = "metadata.namespace!=kube-node-lease";

/// Names of the watches, as tasks and as readiness checks.
const SERVICES: &str = "services watch";
const ENDPOINT_SLICES: &str = "endpointslices watch";
const LEASE: &str = "leases watch";

/// Makes the watches, one task for each. Readiness tells of one that hears nothing.
pub fn start(
    client: &Client,
    scope: Scope,
    health: &Health,
) -> (mpsc::Receiver<ClusterEvent>, Vec<Task>) {
    let (send, receive) = mpsc::channel(QUEUE);
    let namespace = scope.namespace.as_deref();
    let mut tasks: Vec<Task> = Vec::new();
    if scope.eips {
        let eips = eip::follow(client.clone(), scope.clone(), health.clone(), send.clone());
        tasks.push(("elastic IPs watch", eips.boxed()));
    }
    match scope.classes.clone() {
        Some(classes) => tasks.extend(watch_services(client, namespace, classes, health, &send)),
        None => {
            // There is room for these two.
            let _ = send.try_send(ClusterEvent::Services(BTreeSet::new()));
            let _ = send.try_send(ClusterEvent::Slices(BTreeSet::new()));
        }
    }

    tasks.extend(claims::tasks(client, &scope, health, &send));

    tasks.push((LEASE, watch_leases(fresh(client, health, LEASE), &scope, send.clone())));

    if scope.nodes {
        let node = |name: Name, node: core::Node| ClusterEvent::Node(name.name, Peer::read(&node));
        let gone = |name: Name, _| ClusterEvent::NodeGone(name.name);
        let listed = |names| ClusterEvent::Nodes(plain(names));
        let nodes = Api::all(fresh(client, health, NODES));
        let nodes = pass(nodes, Config::default(), send, node, gone, listed);
        tasks.push((NODES, nodes.boxed()));
    }
    (receive, tasks)
}

/// The Leases of one election, or all; where members watch for other elections, theirs with those of single Services, if
/// they may be listed.
fn watch_leases(
    client: Client,
    scope: &Scope,
    send: mpsc::Sender<ClusterEvent>,
) -> BoxFuture<'static, ()> {
    let lease = |name, lease| ClusterEvent::Lease(name, Sight::Present(Box::new(lease)));
    let gone = |name, lease| ClusterEvent::Lease(name, Sight::Deleted(Box::new(lease)));
    let all = api::<Lease>(&client, scope.namespace.as_deref());
    let every = Config::default().fields(LEASES);
    match &scope.lease {
        None => pass(all, every, send, lease, gone, ClusterEvent::Leases).boxed(),
        Some(Name { namespace, name }) => {
            let one = Api::namespaced(client, namespace);
            let only = Config::default().fields(&format!("metadata.name={name}"));
            let standing = pass(one, only, send.clone(), lease, gone, ClusterEvent::Leases);
            match scope.rivals {
                true => {
                    let others = watch_rivals(all, every, scope.lease.clone(), send);
                    futures::future::join(standing, others).map(drop).boxed()
                }
                false => standing.boxed(),
            }
        }
    }
}

/// The Leases of single Services.
async fn watch_rivals(
    api: Api<Lease>,
    config: Config,
    standing: Option<Name>,
    send: mpsc::Sender<ClusterEvent>,
) {
    let mut watch = Box::pin(objects_where_granted(api, config));
    while let Some(served) = watch.next().await {
        let seen = match served {
            Served::Event(Event::InitApply(lease) | Event::Apply(lease)) => {
                ClusterEvent::Lease(Name::of(&lease.metadata), Sight::Present(Box::new(lease)))
            }
            Served::Event(Event::Delete(lease)) => {
                ClusterEvent::Lease(Name::of(&lease.metadata), Sight::Deleted(Box::new(lease)))
            }
            Served::Event(Event::InitDone) | Served::Absent => ClusterEvent::Rivals,
            Served::Event(Event::Init) => continue,
        };
        let is_standing = |name: &Name| Some(name) == standing.as_ref();
        if matches!(&seen, ClusterEvent::Lease(name, _) if is_standing(name)) {
            continue;
        }
        if send.send(seen).await.is_err() {
            return;
        }
    }
}

fn watch_services(
    client: &Client,
    namespace: Option<&str>,
    classes: ClassPolicy,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> [Task; 2] {
    let services = api::<core::Service>(&fresh(client, health, SERVICES), namespace);
    let service = move |name, service: core::Service| {
        ClusterEvent::Service(name, Box::new(Service::read(&service, &classes)))
    };
    let gone = |name, _| ClusterEvent::ServiceGone(name);
    let services =
        pass(services, Config::default(), send.clone(), service, gone, ClusterEvent::Services);

    let slices = api::<EndpointSlice>(&fresh(client, health, ENDPOINT_SLICES), namespace);
    let slice = |name, slice: EndpointSlice| ClusterEvent::Slice(name, Ready::read(&slice));
    let gone = |name, _| ClusterEvent::SliceGone(name);
    let config = Config::default().labels(SLICES);
    let slices = pass(slices, config, send.clone(), slice, gone, ClusterEvent::Slices);
    [(SERVICES, services.boxed()), (ENDPOINT_SLICES, slices.boxed())]
}
