//! Watches the one ConfigMap that says whom to tell where addresses are, and how, if it may be looked at.

use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use berth_runtime::watch::{Served, objects_where_granted};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;

use super::feed::{ClusterEvent, Scope, fresh_if_granted};

/// Name of the watch, as a task and as a readiness check.
const BGP: &str = "berth-bgp watch";

/// The ConfigMap.
const NAME: &str = "berth-bgp";

/// The task that watches it, where routers are told anything.
pub(super) fn task(
    client: &Client,
    scope: &Scope,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> Option<Task> {
    let namespace = scope.bgp.as_deref()?;
    let maps: Api<ConfigMap> = Api::namespaced(fresh_if_granted(client, health, BGP), namespace);
    let only = Config::default().fields(&format!("metadata.name={NAME}"));
    let mut watch = Box::pin(objects_where_granted(maps, only));
    let send = send.clone();
    let watching = async move {
        let mut is_there = false;
        while let Some(served) = watch.next().await {
            let data = match served {
                Served::Event(Event::Init) => {
                    is_there = false;
                    continue;
                }
                Served::Event(Event::InitApply(map)) => {
                    is_there = true;
                    map.data
                }
                Served::Event(Event::InitDone) if is_there => continue,
                Served::Event(Event::Apply(map)) => map.data,
                Served::Event(Event::Delete(_) | Event::InitDone) | Served::Absent => None,
            };
            if send.send(ClusterEvent::Bgp(data.unwrap_or_default())).await.is_err() {
                return;
            }
        }
    };
    Some((BGP, watching.boxed()))
}
