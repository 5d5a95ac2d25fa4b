//! What a watch passes on, and passing it on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::time::Instant;

use berth_api::claim::{ClaimPolicy, Holder};
use berth_api::election::{Held, Sight};
use berth_api::host::ControlPlane;
use berth_api::service::ClassPolicy;
use berth_runtime::freshness::Freshness;
use berth_runtime::http::Health;
use berth_runtime::watch::objects;
use futures::StreamExt;
use ipnetwork::IpNetwork;
use k8s_openapi::NamespaceResourceScope;
use kube::Client;
use kube::api::{Api, Resource};
use kube::runtime::watcher::{Config, Event};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use crate::config::Drains;
use crate::source::cluster::{self, Eip, Name, Service};
use crate::vip::nodes::Peer;

/// Something was seen in the cluster.
#[derive(Debug)]
pub enum ClusterEvent {
    /// A Service is like this.
    Service(Name, Box<Service>),
    /// A Service is gone.
    ServiceGone(Name),
    /// These are all the Services there are.
    Services(BTreeSet<Name>),
    /// An EndpointSlice is like this; nothing if it belongs to no Service.
    Slice(Name, Option<(Name, cluster::Slice)>),
    /// An EndpointSlice is gone.
    SliceGone(Name),
    /// These are all the EndpointSlices there are.
    Slices(BTreeSet<Name>),
    /// Whether EndpointSlices may not be listed, so that Endpoints stand for them.
    SlicesDenied(bool),
    /// A Lease is like this.
    Lease(Name, Sight),
    /// The Lease of the control plane's address, which is watched by itself, is like this.
    LeaseOfControlPlane(Name, Sight),
    /// A control-plane node says this of itself, and when it wrote that; nothing any more.
    ApiServer(String, Option<(ControlPlane, String)>),
    /// These are all that say so.
    ApiServers(BTreeSet<String>),
    /// These are all the Leases there are.
    Leases(BTreeSet<Name>),
    /// Who holds a Lease of another election.
    Rival(Name, Held),
    /// These are all the Leases of other elections, as far as they may be seen.
    Rivals(BTreeSet<Name>),
    /// A node is like this.
    Node(String, Peer),
    /// A node is gone.
    NodeGone(String),
    /// These are all the nodes there are.
    Nodes(BTreeSet<String>),
    /// What the ConfigMap `berth-bgp` says; nothing where there is none, or it may not be looked at.
    Bgp(BTreeMap<String, String>),
    /// An `EipBinding` is like this.
    Eip(Name, Box<Eip>),
    /// An `EipBinding` is gone.
    EipGone(Name),
    /// These are all the `EipBinding`s there are; none where there is no such kind of object.
    Eips(BTreeSet<Name>),
    /// These hold the address that is this name, the first of them first; some since before there were claims or not; and the
    /// pool that it is of.
    Claim(String, Vec<Holder>, bool, Option<String>),
    /// Nobody holds the address any more.
    ClaimGone(String),
    /// These are all the addresses that somebody holds.
    Claims(BTreeSet<String>),
    /// Nobody says who holds which address.
    ClaimsDenied,
    /// berth-ccm's Lease says whether it has claimed all that there was.
    Import(bool),
    /// Its Lease was shown, if there is one and it may be read.
    ImportListed,
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
    /// Whether Leases decide on Services, or members hold one against those who go by it.
    pub leases: bool,
    /// The only one of these that matters.
    pub lease: Option<Name>,
    /// The Lease of the control plane's address, if that matters.
    pub control_plane: Option<Name>,
    /// Whether those by which others decide on single Services matter too.
    pub rivals: bool,
    /// Which Services are ours; none where no Service is served.
    pub classes: Option<ClassPolicy>,
    /// Whether elastic IPs are served.
    pub eips: bool,
    /// Whether nothing goes without the Nodes.
    pub nodes: bool,
    /// Whether those matter alone that have an API server.
    pub control_planes: bool,
    /// The taints with which a node is emptied.
    pub drains: Drains,
    /// The namespace of the ConfigMap `berth-bgp`, where routers are told.
    pub bgp: Option<String>,
    /// The prefix of annotations of nodes that name routers.
    pub notes: Option<String>,
    /// When claims do.
    pub claims: ClaimPolicy,
    /// The namespace of berth-ccm's Lease.
    pub allocator_namespace: String,
    /// This node.
    pub node: String,
    /// Whether the networks of pods and Services matter, where there are elastic IPs.
    pub networks: bool,
}

/// Objects in one page of a list, which is in memory as a whole.
pub(super) const PAGE: u32 = 32;
/// The same for what a user can make a megabyte and a half large.
pub(super) const LARGE: u32 = 8;

/// The name of the watch of Nodes, as a task and as a readiness check.
pub(super) const NODES: &str = "nodes watch";

/// The client for a watch, which is ready while it hears from the API server.
pub(super) fn fresh(client: &Client, health: &Health, watch: &'static str) -> Client {
    heard(client, health, Freshness::new(watch, Instant::now()))
}

/// The same for what kube-vip's roles do not grant: where it is forbidden, readiness does not fail.
pub(super) fn fresh_if_granted(client: &Client, health: &Health, watch: &'static str) -> Client {
    heard(client, health, Freshness::new(watch, Instant::now()).optional())
}

fn heard(client: &Client, health: &Health, freshness: Freshness) -> Client {
    health.fresh(&freshness);
    freshness.client(client)
}

/// The names of objects that are in no namespace.
pub(super) fn plain(names: BTreeSet<Name>) -> BTreeSet<String> {
    names.into_iter().map(|name| name.name).collect()
}

pub(super) fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Passes on what one watch shows until nobody listens.
pub(super) async fn pass<K>(
    api: Api<K>,
    config: Config,
    send: mpsc::Sender<ClusterEvent>,
    applied: impl Fn(Name, K) -> ClusterEvent + Send,
    deleted: impl Fn(Name, K) -> ClusterEvent + Send,
    listed: impl Fn(BTreeSet<Name>) -> ClusterEvent + Send,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut coming = BTreeSet::new();
    let page = config.page_size.unwrap_or(PAGE).min(PAGE);
    let mut watch = Box::pin(objects(api, config.page_size(page)));
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service as Object;

    use super::*;

    /// What is asked first.
    async fn asked(config: Config) -> Option<String> {
        let (asked, mut queries) = mpsc::unbounded_channel();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let _ = asked.send(request.uri().query().unwrap_or_default().to_owned());
            std::future::pending::<Result<http::Response<kube::client::Body>, tower::BoxError>>()
        });
        let api: Api<Object> = Api::all(Client::new(service, "default"));
        let applied = |name, _| ClusterEvent::ServiceGone(name);
        let (send, _seen) = mpsc::channel(1);
        let watch = pass(api, config, send, applied, applied, ClusterEvent::Services);
        tokio::select! {
            () = watch => None,
            query = queries.recv() => query,
        }
    }

    #[tokio::test]
    async fn a_list_comes_in_pages_that_fit_into_memory_however_large_their_objects_are() {
        let query = asked(Config::default()).await;
        assert!(query.as_deref().is_some_and(|query| query.ends_with("limit=32")), "{query:?}");
        let query = asked(Config::default().page_size(LARGE)).await;
        assert!(query.as_deref().is_some_and(|query| query.ends_with("limit=8")), "{query:?}");
    }
}
