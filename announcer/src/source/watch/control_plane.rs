//! Watches the Lease of the control plane's address, and what the nodes that may have it say of their API servers.

use std::collections::BTreeSet;

use berth_api::election::Sight;
use berth_api::host::{ControlPlane, renewed};
use berth_api::names::{label, lease};
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use berth_runtime::watch::objects;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;

use super::feed::{ClusterEvent, Scope, fresh, pass};
use crate::source::cluster::Name;

/// Its name, as a task and as a readiness check.
const LEASE: &str = "control plane's lease watch";
/// That of the other one.
const WORDS: &str = "API servers watch";

/// The tasks, if there is such a Lease. Where routers are told of the address it decides on nothing.
pub(super) fn tasks(
    client: &Client,
    scope: &Scope,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> Vec<Task> {
    let Some(lease) = scope.control_plane.clone() else { return Vec::new() };
    let words = Api::namespaced(fresh(client, health, WORDS), &lease.namespace);
    let words =
        pass(words, Config::default().labels(label::CONTROL_PLANE), send.clone(), said, gone, all);
    let mut tasks = vec![(WORDS, words.boxed())];
    if scope.bgp.is_none() {
        let leases = Api::namespaced(fresh(client, health, LEASE), &lease.namespace);
        tasks.push((LEASE, follow(leases, lease, send.clone()).boxed()));
    }
    tasks
}

/// What the Lease of a control-plane node says.
fn said(name: Name, lease: Lease) -> ClusterEvent {
    let said = ControlPlane::read(&lease).map(|(_, said)| (said, renewed(&lease)));
    ClusterEvent::ApiServer(node(&name), said)
}

fn gone(name: Name, _: Lease) -> ClusterEvent {
    ClusterEvent::ApiServer(node(&name), None)
}

fn all(names: BTreeSet<Name>) -> ClusterEvent {
    ClusterEvent::ApiServers(names.iter().map(node).collect())
}

fn node(name: &Name) -> String {
    name.name.strip_prefix(&*lease::of_control_plane("")).unwrap_or_default().to_owned()
}

/// Passes on what the watch shows, and that there is no such Lease, until nobody listens.
async fn follow(leases: Api<Lease>, lease: Name, send: mpsc::Sender<ClusterEvent>) {
    let only = Config::default().fields(&format!("metadata.name={}", lease.name));
    let mut watch = Box::pin(objects(leases, only));
    let mut is_listed = false;
    while let Some(event) = watch.next().await {
        let sight = match event {
            Event::Init => {
                is_listed = false;
                continue;
            }
            Event::InitDone if is_listed => continue,
            Event::InitDone => Sight::Absent,
            Event::InitApply(lease) => {
                is_listed = true;
                Sight::Present(Box::new(lease))
            }
            Event::Apply(lease) => Sight::Present(Box::new(lease)),
            Event::Delete(lease) => Sight::Deleted(Box::new(lease)),
        };
        if send.send(ClusterEvent::LeaseOfControlPlane(lease.clone(), sight)).await.is_err() {
            return;
        }
    }
}
