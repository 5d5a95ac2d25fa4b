//! Follows whether there are `EipBinding`s at all: watches them, and what tells of the cluster's own networks, from when
//! their definition is installed until it is gone. Where it is not, one quiet watch of one name is all there is.

use std::collections::BTreeSet;

use berth_api::eip::EipBinding;
use berth_runtime::watch::objects;
use futures::StreamExt;
use ipnetwork::IpNetwork;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{Scope, Seen, api, pass};
use crate::source::cluster::{Eip, Name, manager};
use crate::vip::nodes::Peer;

/// The name of the definition.
const DEFINITION: &str = "eipbindings.berth.dev";

/// Follows them until nobody listens.
pub(super) async fn follow(client: Client, scope: Scope, send: mpsc::Sender<Seen>) {
    let only = Config::default().fields(&format!("metadata.name={DEFINITION}"));
    let definitions = Api::<CustomResourceDefinition>::all(client.clone());
    let mut watch = Box::pin(objects(definitions, only));
    let (mut running, mut coming): (Option<JoinSet<()>>, _) = (None, false);
    while let Some(event) = watch.next().await {
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
            running = Some(start(&client, &scope, &send));
        } else if !there {
            // Their watches end here; with the definition went every object.
            running = None;
            if send.send(Seen::Eips(BTreeSet::new())).await.is_err() {
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

fn start(client: &Client, scope: &Scope, send: &mpsc::Sender<Seen>) -> JoinSet<()> {
    let mut watches = JoinSet::new();
    let bindings = api::<EipBinding>(client, scope.namespace.as_deref());
    let manager = manager(&scope.node);
    let eip = move |name, eip: EipBinding| Seen::Eip(name, Box::new(Eip::read(&eip, &manager)));
    let gone = |name, _| Seen::EipGone(name);
    watches.spawn(pass(bindings, Config::default(), send.clone(), eip, gone, Seen::Eips));
    if scope.networks {
        let cidr = |name: Name, cidr: ServiceCIDR| Seen::ServiceNet(name.name, networks(&cidr));
        let gone = |name: Name, _| Seen::ServiceNet(name.name, Vec::new());
        let cidrs = Api::all(client.clone());
        let listed = |names| Seen::ServiceNets(super::plain(names));
        watches.spawn(pass(cidrs, Config::default(), send.clone(), cidr, gone, listed));
    }
    if scope.networks && !scope.nodes {
        let node = |name: Name, node: core::Node| Seen::Node(name.name, Peer::read(&node));
        let gone = |name: Name, _| Seen::NodeGone(name.name);
        let listed = |names| Seen::Nodes(super::plain(names));
        let nodes = Api::all(client.clone());
        watches.spawn(pass(nodes, Config::default(), send.clone(), node, gone, listed));
    }
    watches
}

/// `spec.cidrs` (networking.k8s.io/v1 ServiceCIDR).
fn networks(cidr: &ServiceCIDR) -> Vec<IpNetwork> {
    let cidrs = cidr.spec.iter().flat_map(|spec| spec.cidrs.iter().flatten());
    cidrs.filter_map(|network| network.parse().ok()).collect()
}
