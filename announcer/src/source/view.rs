//! Reads the view of membership: an annotation of one Lease. While there is one, nobody of ours goes by another Lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use berth_api::names::lease::VIEW;
use berth_runtime::watch::{chain, forbidden, objects};
use futures::Stream;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};
use kube::{Client, Error};
use tokio::sync::Mutex;

/// The annotation that holds the view.
pub const ANNOTATION: &str = "berth.dev/view";

/// A request that is not answered by then may still be carried out.
pub const TIMEOUT: Duration = Duration::from_secs(1);

/// Pauses after a request that failed.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
];

/// Whether an object has a view, readable or not.
pub fn has_view(lease: &Lease) -> bool {
    lease.metadata.annotations.as_ref().is_some_and(|notes| notes.contains_key(ANNOTATION))
}

/// Everything that is seen of the object of this name.
pub fn watch(api: Api<Lease>, name: &str) -> impl Stream<Item = Event<Lease>> + Send + use<> {
    objects(api, Config::default().fields(&format!("metadata.name={name}")))
}

/// Asks for the object until there is an answer.
pub struct Reader {
    api: Api<Lease>,
    name: &'static str,
    failures: usize,
}

impl Reader {
    /// Of the object of this name in this namespace.
    pub fn new(client: Client, namespace: &str, name: &'static str) -> Self {
        Self { api: Api::namespaced(client, namespace), name, failures: 0 }
    }

    /// Its name.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it is.
    pub fn api(&self) -> &Api<Lease> {
        &self.api
    }

    /// The object as it is now, never an older state: a GET without a version is answered from etcd's quorum.
    pub async fn read(&mut self) -> Option<Lease> {
        loop {
            match tokio::time::timeout(TIMEOUT, self.api.get_opt(self.name)).await {
                Ok(Ok(found)) => return found,
                Ok(Err(error)) => self.pause("read", &chain(&error)).await,
                Err(_) => self.pause("read", "no answer").await,
            }
        }
    }

    /// Whether there is a view, or may be: waits as long as the cluster does not answer.
    pub async fn finds(&mut self) -> bool {
        self.read().await.as_ref().is_some_and(has_view)
    }

    /// Waits after a failure, longer each time, and tells of the first.
    pub async fn pause(&mut self, verb: &str, error: &str) {
        match self.failures {
            0 => tracing::warn!(error, "cannot {verb} the view"),
            _ => tracing::debug!(error, "cannot {verb} the view"),
        }
        tokio::time::sleep(PAUSES[self.failures.min(PAUSES.len() - 1)]).await;
        self.failures += 1;
    }

    /// The cluster does what it is asked for.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// Whether there is an object with what `is_view` takes for a view.
///
/// # Errors
/// What the cluster says instead, or that it does not answer in time.
async fn ask(
    api: &Api<Lease>,
    name: &str,
    within: Duration,
    is_view: impl Fn(&Lease) -> bool,
) -> Result<bool, String> {
    match tokio::time::timeout(within, api.get_opt(name)).await {
        Ok(Ok(found)) => Ok(found.as_ref().is_some_and(is_view)),
        Ok(Err(Error::Api(status))) if status.code == 403 => {
            Err(forbidden("get", "leases.coordination.k8s.io", &status.message))
        }
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {within:?}")),
    }
}

/// Whether there is a view of this name for sure: an object with what `is_view` takes for one.
pub async fn is_known(
    client: &Client,
    namespace: &str,
    name: &str,
    is_view: impl Fn(&Lease) -> bool,
) -> bool {
    ask(&Api::namespaced(client.clone(), namespace), name, TIMEOUT, is_view).await == Ok(true)
}

/// Says whether there was no view at some moment after it was asked. Those who ask at the same time share an answer: a
/// node may be about to acquire a Lease for each of many Services.
#[derive(Clone)]
pub struct Absence {
    namespace: String,
    api: Api<Lease>,
    within: Duration,
    /// The number of the last request that was begun, and what it found.
    begun: Arc<AtomicU64>,
    last: Arc<Mutex<Result<(), String>>>,
}

impl Absence {
    /// Of the view in this namespace. An answer is waited for so long.
    pub fn new(client: Client, namespace: &str, within: Duration) -> Self {
        let (api, last) = (Api::namespaced(client, namespace), Arc::new(Mutex::new(Ok(()))));
        Self { namespace: namespace.to_owned(), api, within, begun: Arc::default(), last }
    }

    /// That there is surely no view.
    ///
    /// # Errors
    /// That there is one, or why that is not known.
    pub async fn check(&self) -> Result<(), String> {
        let before = self.begun.load(Ordering::Acquire);
        let mut last = self.last.lock().await;
        // Begun while this one waited its turn, so after it was asked.
        if self.begun.load(Ordering::Acquire) == before {
            self.begun.fetch_add(1, Ordering::AcqRel);
            let Self { namespace, within, .. } = self;
            *last = match ask(&self.api, VIEW, *within, has_view).await {
                Ok(false) => Ok(()),
                Ok(true) => Err(format!("Lease {namespace}/{VIEW}: the nodes go by membership")),
                Err(why) => Err(format!(
                    "whether the nodes go by membership is not known (Lease {namespace}/{VIEW}), so no Lease is acquired: {why}"
                )),
            };
        }
        last.clone()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A client of an API server that says there is no such object, or that there is a view, and counts what it is asked.
    fn server(view: bool) -> (Client, Arc<AtomicU64>) {
        let count = Arc::new(AtomicU64::new(0));
        let counted = count.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                tokio::time::sleep(Duration::from_millis(100)).await;
                let (code, body) = match view {
                    true => (200, json!({ "metadata": { "annotations": { ANNOTATION: "{}" } } })),
                    false => (404, json!({ "reason": "NotFound", "code": 404 })),
                };
                let body = kube::client::Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
            }
        });
        (Client::new(service, "default"), count)
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_at_the_same_time_shares_an_answer_that_was_asked_for_later() {
        for view in [false, true] {
            let (client, count) = server(view);
            let absence = Absence::new(client, "kube-system", TIMEOUT);
            let all = (0..200).map(|_| absence.check());
            let sure = futures::future::join_all(all).await;
            assert!(sure.iter().all(|sure| sure.is_err() == view), "{sure:?}");
            // The first one's was under way when the others asked.
            assert!(count.load(Ordering::Relaxed) <= 2, "{count:?}");
            _ = absence.check().await;
            assert!(count.load(Ordering::Relaxed) <= 3, "an answer is not kept: {count:?}");
        }
    }
}
