//! Watches who holds which address, and whether berth-ccm has claimed all that there was.

use std::fmt::Debug;
use std::time::Duration;

use berth_api::claim::{self, ClaimPolicy};
use berth_api::names::lease;
use berth_runtime::http::Health;
use berth_runtime::refusals::Refusals;
use berth_runtime::supervise::Task;
use berth_runtime::watch::{forbidden, objects};
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::Client;
use kube::api::{Api, ListParams, Resource};
use kube::runtime::watcher::{Config, Event};
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::feed::{ClusterEvent, Scope, fresh, fresh_if_granted, pass, plain};
use crate::source::cluster::Name;

/// Names of the watches, as tasks and as readiness checks.
const CLAIMS: &str = "ipaddresses watch";
const IMPORT: &str = "berth-ccm lease watch";

/// How often it is asked again while the API server does not answer.
const AGAIN: Duration = Duration::from_secs(1);
/// For how long berth-ccm's Lease has to be gone, or another program's: where it was deleted by mistake, it is there again by then.
const UNINSTALLED: Duration = Duration::from_secs(60);

/// The tasks that watch what the policy needs.
pub(super) fn tasks(
    client: &Client,
    scope: &Scope,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> Vec<Task> {
    let ours = || Config::default().labels(&claim::selector());
    let claim = |name: Name, claim: IPAddress| {
        let pool = claim::pool(&claim).map(str::to_owned);
        ClusterEvent::Claim(name.name, claim::holders(&claim), claim::is_imported(&claim), pool)
    };
    let gone = |name: Name, _| ClusterEvent::ClaimGone(name.name);
    let listed = |names| ClusterEvent::Claims(plain(names));
    match scope.claims {
        ClaimPolicy::Ignored => Vec::new(),
        ClaimPolicy::Required => {
            let claims = Api::all(fresh(client, health, CLAIMS));
            vec![(CLAIMS, pass(claims, ours(), send.clone(), claim, gone, listed).boxed())]
        }
        ClaimPolicy::Imported => {
            let leases = fresh_if_granted(client, health, IMPORT);
            let leases = Api::namespaced(leases, &scope.allocator_namespace);
            let (mark, mut marked) = watch::channel(false);
            let import = import(leases, send.clone(), mark);
            let (client, health, send) = (client.clone(), health.clone(), send.clone());
            // A list that begins after the mark was seen has all that the mark speaks of; two watches have no order. Before it
            // nothing is asked, and so nothing is stale.
            let watch = async move {
                if marked.wait_for(|marked| *marked).await.is_err() {
                    // The other task has ended, and is told of.
                    return std::future::pending().await;
                }
                let claims = Api::all(fresh_if_granted(&client, &health, CLAIMS));
                let one = ListParams::default().labels(&claim::selector());
                may_list(&claims, one, send.clone(), || ClusterEvent::ClaimsDenied).await;
                pass(claims, ours(), send, claim, gone, listed).await;
            };
            vec![(CLAIMS, watch.boxed()), (IMPORT, import.boxed())]
        }
    }
}

/// Passes on what berth-ccm's Lease says, or that nothing can be known of it.
async fn import(leases: Api<Lease>, send: mpsc::Sender<ClusterEvent>, mark: watch::Sender<bool>) {
    let only = format!("metadata.name={}", lease::CLOUD_CONTROLLER);
    let one = ListParams::default().fields(&only);
    may_list(&leases, one, send.clone(), || ClusterEvent::ImportListed).await;
    let watch = objects(leases, Config::default().fields(&only));
    follow(watch.boxed(), send, mark).await;
}

/// The same for what a watch of that Lease shows. That the import is complete ends [`UNINSTALLED`] after the Lease has said it last.
async fn follow(
    mut watch: BoxStream<'_, Event<Lease>>,
    send: mpsc::Sender<ClusterEvent>,
    mark: watch::Sender<bool>,
) {
    let (mut told, mut is_listed) = (false, false);
    let mut ends_at: Option<Instant> = None;
    loop {
        let ends = async {
            match ends_at {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = watch.next() => event,
            () = ends => {
                (told, ends_at) = (false, None);
                tracing::warn!(
                    lease = lease::CLOUD_CONTROLLER,
                    "berth-ccm's Lease is gone, or another program's: what Services ask for is served without a claim"
                );
                if send.send(ClusterEvent::Import(false)).await.is_err() {
                    return;
                }
                continue;
            }
        };
        let Some(event) = event else { return };
        let is_end_of_list = matches!(event, Event::InitDone);
        let is_complete = match &event {
            Event::Init => {
                is_listed = false;
                continue;
            }
            Event::InitApply(lease) | Event::Apply(lease) => {
                is_listed = true;
                claim::is_import_complete(lease)
            }
            Event::InitDone => is_listed && told && ends_at.is_none(),
            Event::Delete(_) => false,
        };
        let mut news = Vec::new();
        if is_complete {
            ends_at = None;
            mark.send_if_modified(|marked| !std::mem::replace(marked, true));
            if !std::mem::replace(&mut told, true) {
                news.push(ClusterEvent::Import(true));
            }
        } else if told {
            ends_at.get_or_insert(Instant::now() + UNINSTALLED);
        }
        if is_end_of_list {
            news.push(ClusterEvent::ImportListed);
        }
        for event in news {
            if send.send(event).await.is_err() {
                return;
            }
        }
    }
}

/// Waits until objects may be listed. kube-vip's own roles need not grant it, and an older cluster has no claims.
async fn may_list<K>(
    api: &Api<K>,
    one: ListParams,
    send: mpsc::Sender<ClusterEvent>,
    denied: impl Fn() -> ClusterEvent,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut refusals = Refusals::default();
    loop {
        let pause = match api.list(&one.clone().limit(1)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                let pause = refusals.again();
                if refusals.are_news() {
                    let (resource, message) = (K::plural(&()), &status.message);
                    let why = match status.code {
                        403 => forbidden("list and watch", &resource, message),
                        _ => format!("cannot list {resource}: {message}"),
                    };
                    tracing::warn!(
                        "what a Service asks for is served whether berth-ccm has given it or not: {why}"
                    );
                    if send.send(denied()).await.is_err() {
                        return;
                    }
                }
                pause
            }
            // The watches of what cannot be done without tell of it.
            Err(_) => AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// berth-ccm's Lease with this holder.
    fn lease_of(holder: Value) -> Lease {
        let annotations =
            json!({ "berth.dev/resting": "[]", "berth.dev/resting-by": "berth-ccm-0" });
        let lease = json!({
            "metadata": { "name": lease::CLOUD_CONTROLLER, "annotations": annotations },
            "spec": { "holderIdentity": holder },
        });
        serde_json::from_value(lease).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn the_import_counts_until_the_lease_was_gone_or_a_strangers_for_a_minute() {
        let (show, shown) = futures::channel::mpsc::unbounded();
        let (send, mut told) = mpsc::channel(8);
        let (mark, marked) = watch::channel(false);
        let task = tokio::spawn(follow(shown.boxed(), send, mark));
        let mine = || lease_of(json!("berth-ccm-0"));
        let mut after = async |event: Event<Lease>, wait: Duration| {
            show.unbounded_send(event).unwrap();
            tokio::time::sleep(wait).await;
            let mut heard = Vec::new();
            while let Ok(event) = told.try_recv() {
                heard.push(match event {
                    ClusterEvent::Import(complete) => complete,
                    ClusterEvent::ImportListed => continue,
                    other => panic!("{other:?}"),
                });
            }
            heard
        };
        const NONE: [bool; 0] = [];
        let (soon, later) = (UNINSTALLED / 2, UNINSTALLED * 2);
        assert_eq!(after(Event::Init, soon).await, NONE);
        assert_eq!(after(Event::InitApply(mine()), soon).await, [true]);
        assert!(*marked.borrow());
        assert_eq!(after(Event::InitDone, later).await, NONE);
        assert_eq!(
            after(Event::Apply(lease_of(Value::Null)), later).await,
            NONE,
            "it was given back"
        );
        assert_eq!(after(Event::Delete(mine()), soon).await, NONE);
        assert_eq!(after(Event::Apply(mine()), later).await, NONE, "deleted by mistake");
        assert_eq!(after(Event::Apply(lease_of(json!("stock_5e1c"))), soon).await, NONE);
        assert_eq!(after(Event::Apply(lease_of(json!("stock_5e1c"))), later).await, [false]);
        assert_eq!(after(Event::Apply(mine()), soon).await, [true]);
        // A list anew that has it no more.
        assert_eq!(after(Event::Init, soon).await, NONE);
        assert_eq!(after(Event::InitDone, later).await, [false]);
        drop(show);
        task.await.unwrap();
    }
}
