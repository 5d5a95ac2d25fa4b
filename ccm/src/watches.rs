//! Owns the watches: the ConfigMap, Services, claims and Nodes. What comes in is cut down to what is kept before it
//! is handed on.
//!
//! # Permissions
//!
//! `list` and `watch` on `services`, `nodes` and `ipaddresses.networking.k8s.io` everywhere, and on the ConfigMap in
//! its namespace.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::names::label;
use berth_api::service::ClassPolicy;
use berth_runtime::watch::objects;
use futures::stream::{BoxStream, StreamExt, select_all};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service as ServiceObject};
use k8s_openapi::api::networking::v1::IPAddress;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use std::time::Duration;

use crate::claim::Claim;
use crate::index::{Index, Source};
use crate::service::{Key, Service};

/// Something that a watch shows.
#[derive(Clone, Debug)]
pub enum Change {
    /// A source is listed again: what does not come is gone.
    Listing(Source),
    /// The list of a source is complete.
    Listed(Source),
    /// A Service is like this.
    Service(Box<Service>),
    /// A Service is gone.
    ServiceGone(Key, String),
    /// A claim is like this.
    Claim(Box<Claim>),
    /// A claim is gone.
    ClaimGone(IpAddr, String),
    /// The pool ConfigMap is like this.
    Pools(String, BTreeMap<String, String>),
    /// The pool ConfigMap is gone.
    PoolsGone,
    /// A Node has these addresses; none when it is gone.
    Node(String, Vec<IpAddr>),
}

/// Objects in one page of a list: small, for memory that a large page takes once is not given back.
const PAGE: u32 = 100;

/// Watches everything, for ever.
pub fn all(client: &Client, pools: &Key, classes: ClassPolicy) -> BoxStream<'static, Change> {
    let named = Config::default().fields(&format!("metadata.name={}", pools.name));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &pools.namespace);
    let maps = objects(maps, named).map(|event| config_map(event, Source::Pools));

    let services =
        objects(Api::<ServiceObject>::all(client.clone()), Config::default().page_size(PAGE));
    let services = services.map(move |event| service(event, &classes));

    let ours =
        Config::default().labels(&format!("{}={}", label::IP_ADDRESS_MANAGED_BY, label::BERTH));
    let ours = ours.page_size(PAGE);
    let claims = objects(Api::<IPAddress>::all(client.clone()), ours).map(claim);

    let nodes =
        objects(Api::<Node>::all(client.clone()), Config::default().page_size(PAGE)).map(node);
    let streams = [maps.boxed(), services.boxed(), claims.boxed(), nodes.boxed()];
    select_all(streams).filter_map(std::future::ready).boxed()
}

fn config_map(event: Event<ConfigMap>, source: Source) -> Option<Change> {
    let read = |map: ConfigMap| {
        Change::Pools(map.metadata.uid.unwrap_or_default(), map.data.unwrap_or_default())
    };
    match event {
        Event::Init => Some(Change::Listing(source)),
        Event::InitDone => Some(Change::Listed(source)),
        Event::Apply(map) | Event::InitApply(map) => Some(read(map)),
        Event::Delete(_) => Some(Change::PoolsGone),
    }
}

fn service(event: Event<ServiceObject>, classes: &ClassPolicy) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(Source::Services)),
        Event::InitDone => Some(Change::Listed(Source::Services)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Service(Box::new(Service::read(&object, classes)?)))
        }
        Event::Delete(object) => {
            let gone = Service::read(&object, classes)?;
            Some(Change::ServiceGone(gone.key, gone.uid))
        }
    }
}

fn claim(event: Event<IPAddress>) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(Source::Claims)),
        Event::InitDone => Some(Change::Listed(Source::Claims)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Claim(Box::new(Claim::read(&object)?)))
        }
        Event::Delete(object) => {
            let gone = Claim::read(&object)?;
            Some(Change::ClaimGone(gone.address, gone.uid))
        }
    }
}

fn node(event: Event<Node>) -> Option<Change> {
    let name = |node: &Node| node.metadata.name.clone();
    match event {
        Event::Init => Some(Change::Listing(Source::Nodes)),
        Event::InitDone => Some(Change::Listed(Source::Nodes)),
        Event::Apply(node) | Event::InitApply(node) => {
            let listed = node.status.as_ref().and_then(|status| status.addresses.as_ref());
            let ips = listed.into_iter().flatten().filter(|listed| listed.type_.ends_with("IP"));
            let addresses = ips.filter_map(|listed| listed.address.parse().ok()).collect();
            Some(Change::Node(name(&node)?, addresses))
        }
        Event::Delete(node) => Some(Change::Node(name(&node)?, Vec::new())),
    }
}

/// Applies changes to the index, and works out what a list that starts again does not have any more.
#[derive(Debug, Default)]
pub struct Intake {
    services: Option<BTreeSet<Key>>,
    claims: Option<BTreeMap<IpAddr, String>>,
    nodes: Option<BTreeSet<String>>,
    known_nodes: BTreeSet<String>,
    pools: Option<bool>,
}

impl Intake {
    /// Takes in one change.
    pub fn take(&mut self, change: Change, index: &mut Index, now: Duration) {
        match change {
            Change::Listing(source) => self.start(source, index),
            Change::Listed(source) => {
                self.finish(source, index, now);
                index.listed(source, now);
            }
            Change::Service(service) => {
                if let Some(missing) = &mut self.services {
                    missing.remove(&service.key);
                }
                index.apply_service(*service, now);
            }
            Change::ServiceGone(key, uid) => index.remove_service(&key, Some(&uid), now),
            Change::Claim(claim) => {
                if let Some(missing) = &mut self.claims {
                    missing.remove(&claim.address);
                }
                index.apply_claim(*claim, now);
            }
            Change::ClaimGone(address, uid) => index.remove_claim(address, &uid, now),
            Change::Pools(uid, data) => {
                self.pools = self.pools.map(|_| true);
                index.apply_pools(uid, &data);
            }
            Change::PoolsGone => index.remove_pools(),
            Change::Node(name, addresses) => {
                if let Some(missing) = &mut self.nodes {
                    missing.remove(&name);
                }
                index.apply_node(&name, addresses);
                self.known_nodes.insert(name);
            }
        }
    }

    fn start(&mut self, source: Source, index: &Index) {
        match source {
            Source::Services => self.services = Some(index.known_services()),
            Source::Claims => self.claims = Some(index.known_claims()),
            Source::Nodes => self.nodes = Some(self.known_nodes.clone()),
            Source::Pools => self.pools = Some(false),
        }
    }

    fn finish(&mut self, source: Source, index: &mut Index, now: Duration) {
        match source {
            Source::Services => {
                let gone = self.services.take().unwrap_or_default();
                gone.iter().for_each(|key| index.remove_service(key, None, now));
            }
            Source::Claims => {
                let gone = self.claims.take().unwrap_or_default();
                gone.iter().for_each(|(address, uid)| index.remove_claim(*address, uid, now));
            }
            Source::Nodes => {
                for name in self.nodes.take().unwrap_or_default() {
                    index.apply_node(&name, []);
                    self.known_nodes.remove(&name);
                }
            }
            Source::Pools => {
                if self.pools.take() == Some(false) {
                    index.remove_pools();
                }
            }
        }
    }
}
