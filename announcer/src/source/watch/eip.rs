//! Follows whether there are `EipBinding`s at all: watches them, and what tells of the cluster's own networks, from when
//! their definition is installed until it is gone. Where it is not, one quiet watch of one name is all there is.

use std::collections::BTreeSet;

use berth_api::eip::{EipBinding, manager};
use berth_api::lean::Lean;
use berth_runtime::http::Health;
use berth_runtime::watch::objects;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;

use super::feed::{self, ClusterEvent, LARGE, NODES, Scope, api, fresh, fresh_if_granted, pass};
use crate::source::cluster::{Eip, Name};
use crate::vip::nodes::Peer;

/// The name of the definition.
const DEFINITION: &str = "eipbindings.berth.dev";

/// Names of the watches, as readiness checks.
const DEFINITIONS: &str = "customresourcedefinitions watch";
const BINDINGS: &str = "eipbindings watch";
const CIDRS: &str = "servicecidrs watch";

/// Watches that end together, when this is dropped.
type Watches = FuturesUnordered<BoxFuture<'static, ()>>;

/// Follows them until nobody listens.
pub(super) async fn follow(
    client: Client,
    scope: Scope,
    health: Health,
    send: mpsc::Sender<ClusterEvent>,
) {
    let only = Config::default().fields(&format!("metadata.name={DEFINITION}"));
    let definitions = fresh_if_granted(&client, &health, DEFINITIONS);
    let definitions = Api::<CustomResourceDefinition>::all(definitions);
    let mut watch = Box::pin(objects(definitions, only));
    let (mut running, mut coming): (Option<Watches>, _) = (None, false);
    loop {
        let event = tokio::select! {
            Some(event) = watch.next() => event,
            () = ended(&mut running) => return,
            else => return,
        };
        let there = match event {
            Event::Init => {
                coming = false;
                continue;
            }
            Event::InitApply(definition) => {
                coming = is_established(&definition);
                continue;
            }
            Event::InitDone => coming,
            Event::Apply(definition) => is_established(&definition),
            Event::Delete(_) => false,
        };
        if there && running.is_none() {
            tracing::info!("watching EipBindings");
            running = Some(start(&client, &scope, &health, &send));
        } else if !there {
            // Their watches end here; with the definition went every object.
            running = None;
            let networks = [BINDINGS, CIDRS].into_iter();
            let nodes = [NODES].into_iter().filter(|_| scope.networks && !scope.nodes);
            networks.chain(nodes).for_each(|watch| health.forget(watch));
            if send.send(ClusterEvent::Eips(BTreeSet::new())).await.is_err() {
                return;
            }
        }
    }
}

/// Whether objects of this kind can be listed (`apiextensions/v1 CustomResourceDefinitionCondition`).
fn is_established(definition: &CustomResourceDefinition) -> bool {
    let status = definition.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    definition.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|shown| shown.type_ == "Established" && shown.status == "True")
}

/// Waits until one of them ends.
async fn ended(watches: &mut Option<Watches>) {
    match watches {
        Some(watches) => drop(watches.next().await),
        None => std::future::pending().await,
    }
}

fn start(
    client: &Client,
    scope: &Scope,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> Watches {
    let watches = Watches::new();
    let default = Config::default;
    let bindings =
        api::<Lean<EipBinding>>(&fresh(client, health, BINDINGS), scope.namespace.as_deref());
    let manager = manager(&scope.node);
    let eip = move |name, eip: Lean<EipBinding>| {
        ClusterEvent::Eip(name, Box::new(Eip::read(&eip.object, &manager)))
    };
    let gone = |name, _| ClusterEvent::EipGone(name);
    watches.push(
        pass(bindings, default().page_size(LARGE), send.clone(), eip, gone, ClusterEvent::Eips)
            .boxed(),
    );
    if scope.networks {
        let cidr =
            |name: Name, cidr: ServiceCIDR| ClusterEvent::ServiceNet(name.name, networks(&cidr));
        let gone = |name: Name, _| ClusterEvent::ServiceNet(name.name, Vec::new());
        let cidrs = Api::all(fresh(client, health, CIDRS));
        let listed = |names| ClusterEvent::ServiceNets(feed::plain(names));
        watches.push(pass(cidrs, default(), send.clone(), cidr, gone, listed).boxed());
    }
    if scope.networks && !scope.nodes {
        let drains = scope.drains.clone();
        let node = move |name: Name, node: core::Node| {
            ClusterEvent::Node(name.name, Peer::read(&node, |taint| drains.has(taint)))
        };
        let gone = |name: Name, _| ClusterEvent::NodeGone(name.name);
        let listed = |names| ClusterEvent::Nodes(feed::plain(names));
        let nodes = Api::all(fresh(client, health, NODES));
        watches.push(pass(nodes, default(), send.clone(), node, gone, listed).boxed());
    }
    watches
}

/// `spec.cidrs` (networking.k8s.io/v1 ServiceCIDR).
fn networks(cidr: &ServiceCIDR) -> Vec<IpNetwork> {
    let cidrs = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|network| network.parse().ok()).collect()
}
