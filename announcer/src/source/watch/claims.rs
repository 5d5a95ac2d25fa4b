//! Watches who holds which address, and whether berth-ccm has claimed all that there was.

use std::fmt::Debug;
use std::time::Duration;

use berth_api::claim::{self, ClaimPolicy};
use berth_api::names::{annotation, lease};
use berth_runtime::http::Health;
use berth_runtime::supervise::Task;
use berth_runtime::watch::forbidden;
use futures::FutureExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::Client;
use kube::api::{Api, ListParams, Resource};
use kube::runtime::watcher::Config;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, watch};

use super::feed::{ClusterEvent, Scope, fresh, fresh_if_granted, pass, plain};
use crate::source::cluster::Name;

/// Names of the watches, as tasks and as readiness checks.
const CLAIMS: &str = "ipaddresses watch";
const IMPORT: &str = "berth-ccm lease watch";

/// How often what may not be read is asked for again.
const DENIED: Duration = Duration::from_secs(60);
/// The same while the API server does not answer.
const AGAIN: Duration = Duration::from_secs(1);

/// The tasks that watch what the policy needs.
pub(super) fn tasks(
    client: &Client,
    scope: &Scope,
    health: &Health,
    send: &mpsc::Sender<ClusterEvent>,
) -> Vec<Task> {
    let ours = || Config::default().labels(&claim::selector());
    let claim = |name: Name, claim: IPAddress| {
        ClusterEvent::Claim(name.name, claim::holders(&claim), claim::is_imported(&claim))
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
                    return;
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
    let applied = |_, lease: Lease| {
        let annotations = lease.metadata.annotations.unwrap_or_default();
        let is_marked = annotations.contains_key(annotation::RESTING);
        mark.send_if_modified(|marked| is_marked && !std::mem::replace(marked, true));
        ClusterEvent::Import(is_marked)
    };
    let gone = |_, _| ClusterEvent::Import(false);
    let listed = |_| ClusterEvent::ImportListed;
    pass(leases, Config::default().fields(&only), send, applied, gone, listed).await;
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
    let mut told = false;
    loop {
        let pause = match api.list(&one.clone().limit(1)).await {
            Ok(_) => return,
            Err(kube::Error::Api(status)) if matches!(status.code, 403 | 404) => {
                if !std::mem::replace(&mut told, true) {
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
                DENIED
            }
            // The watches of what cannot be done without tell of it.
            Err(_) => AGAIN,
        };
        tokio::time::sleep(pause).await;
    }
}
