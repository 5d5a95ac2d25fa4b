//! Owns the watches: a fixed number of them, however many Services there are. Passes on what matters of each object and
//! forgets the rest at once.

mod eip;

use std::collections::BTreeSet;
use std::fmt::Debug;

use berth_api::election::Sight;
use berth_api::service::ClassPolicy;
use berth_runtime::watch::objects;
use futures::StreamExt;
use ipnetwork::IpNetwork;
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::Client;
use kube::api::{Api, Resource};
use kube::runtime::watcher::{Config, Event};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::source::cluster::{Eip, Name, Ready, Service};
use crate::vip::nodes::Peer;

/// Room for changes that are not taken in yet; a watch that is ahead waits.
const QUEUE: usize = 1024;

/// Slices that are for kube-proxy too: not of headless Services, nor of those that another proxy serves.
const SLICES: &str = "!service.kubernetes.io/headless,!service.kubernetes.io/service-proxy-name";

/// Leases of kubelets change every ten seconds on every node, and are nothing to us.
const LEASES: &str = "metadata.namespace!=kube-node-lease";

/// Something was seen in the cluster.
#[derive(Debug)]
pub enum Seen {
    /// A Service is like this.
    Service(Name, Box<Service>),
    /// A Service is gone.
    ServiceGone(Name),
    /// These are all the Services there are.
    Services(BTreeSet<Name>),
    /// An EndpointSlice is like this; nothing if it belongs to no Service.
    Slice(Name, Option<(Name, Ready)>),
    /// An EndpointSlice is gone.
    SliceGone(Name),
    /// These are all the EndpointSlices there are.
    Slices(BTreeSet<Name>),
    /// A Lease is like this.
    Lease(Name, Sight),
    /// These are all the Leases there are.
    Leases(BTreeSet<Name>),
    /// A node is like this.
    Node(String, Peer),
    /// A node is gone.
    NodeGone(String),
    /// These are all the nodes there are.
    Nodes(BTreeSet<String>),
    /// An `EipBinding` is like this.
    Eip(Name, Box<Eip>),
    /// An `EipBinding` is gone.
    EipGone(Name),
    /// These are all the `EipBinding`s there are; none where there is no such kind of object.
    Eips(BTreeSet<Name>),
    /// An object names these networks of Services; none if it is gone.
    ServiceNet(String, Vec<IpNetwork>),
    /// These are all such objects there are.
    ServiceNets(BTreeSet<String>),
}

/// What to watch.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The only namespace whose Services matter.
    pub namespace: Option<String>,
    /// The only Lease that matters.
    pub lease: Option<Name>,
    /// Which Services are ours.
    pub classes: ClassPolicy,
    /// Whether nodes matter.
    pub nodes: bool,
    /// This node.
    pub node: String,
    /// Whether the networks of pods and Services matter, where there are elastic IPs.
    pub networks: bool,
}

/// Starts the watches.
pub fn start(client: &Client, scope: Scope) -> mpsc::Receiver<Seen> {
    let (send, receive) = mpsc::channel(QUEUE);
    let namespace = scope.namespace.as_deref();
    tokio::spawn(eip::follow(client.clone(), scope.clone(), send.clone()));
    let services = api::<core::Service>(client, namespace);
    let classes = scope.classes.clone();
    let service = move |name, service: core::Service| {
        Seen::Service(name, Box::new(Service::read(&service, &classes)))
    };
    let gone = |name, _| Seen::ServiceGone(name);
    tokio::spawn(pass(services, Config::default(), send.clone(), service, gone, Seen::Services));

    let slices = api::<EndpointSlice>(client, namespace);
    let slice = |name, slice: EndpointSlice| Seen::Slice(name, Ready::read(&slice));
    let gone = |name, _| Seen::SliceGone(name);
    let config = Config::default().labels(SLICES);
    tokio::spawn(pass(slices, config, send.clone(), slice, gone, Seen::Slices));

    let (leases, config) = match &scope.lease {
        Some(Name { namespace, name }) => {
            let only = Config::default().fields(&format!("metadata.name={name}"));
            (Api::namespaced(client.clone(), namespace), only)
        }
        None => (api::<Lease>(client, namespace), Config::default().fields(LEASES)),
    };
    let lease = |name, lease| Seen::Lease(name, Sight::Present(Box::new(lease)));
    let gone = |name, lease| Seen::Lease(name, Sight::Deleted(Box::new(lease)));
    tokio::spawn(pass(leases, config, send.clone(), lease, gone, Seen::Leases));

    if scope.nodes {
        let node = |name: Name, node: core::Node| Seen::Node(name.name, Peer::read(&node));
        let gone = |name: Name, _| Seen::NodeGone(name.name);
        let listed = |names| Seen::Nodes(plain(names));
        let nodes = Api::all(client.clone());
        tokio::spawn(pass(nodes, Config::default(), send, node, gone, listed));
    }
    receive
}

/// The names of objects that are in no namespace.
fn plain(names: BTreeSet<Name>) -> BTreeSet<String> {
    names.into_iter().map(|name| name.name).collect()
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Passes on what one watch shows until nobody listens.
async fn pass<K>(
    api: Api<K>,
    config: Config,
    send: mpsc::Sender<Seen>,
    applied: impl Fn(Name, K) -> Seen + Send,
    deleted: impl Fn(Name, K) -> Seen + Send,
    listed: impl Fn(BTreeSet<Name>) -> Seen + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut coming = BTreeSet::new();
    let mut watch = Box::pin(objects(api, config));
    while let Some(event) = watch.next().await {
        let seen = match event {
            Event::Init => {
                coming.clear();
                continue;
            }
            Event::InitApply(object) => {
                let name = Name::of(object.meta());
                coming.insert(name.clone());
                applied(name, object)
            }
            Event::InitDone => listed(std::mem::take(&mut coming)),
            Event::Apply(object) => applied(Name::of(object.meta()), object),
            Event::Delete(object) => deleted(Name::of(object.meta()), object),
        };
        if send.send(seen).await.is_err() {
            return;
        }
    }
}
