//! Owns the recovery of watches. A watch never ends, and the same trouble is told once, not at each attempt.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt};
use kube::api::{Api, Resource};
use kube::runtime::watcher::{self, Config, Event};
use serde::de::DeserializeOwned;

/// Pauses between attempts: short, because a cluster that comes back must be served within seconds.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// Watches objects for ever. After each [`Event::Init`] the full list follows, up to [`Event::InitDone`]; what is
/// not in it is gone.
pub fn objects<K>(api: Api<K>, config: Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let start = move || watcher::watcher(api.clone(), config.clone()).boxed();
    let watch = Watch {
        resource: resource::<K>(),
        stream: start(),
        start: Box::new(start),
        failures: 0,
        told: String::new(),
    };
    futures::stream::unfold(watch, |mut watch| async move {
        let event = watch.next().await?;
        Some((event, watch))
    })
}

struct Watch<K: 'static> {
    resource: String,
    start: Box<dyn Fn() -> BoxStream<'static, watcher::Result<Event<K>>> + Send>,
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
    failures: usize,
    told: String,
}

impl<K> Watch<K> {
    async fn next(&mut self) -> Option<Event<K>> {
        loop {
            match self.stream.next().await? {
                // Comes before the list is tried, so it is no sign of recovery.
                Ok(Event::Init) => return Some(Event::Init),
                Ok(event) => {
                    self.recovered();
                    return Some(event);
                }
                Err(error) => {
                    self.tell(&error);
                    if is_gone(&error) {
                        self.stream = (self.start)();
                    }
                    tokio::time::sleep(PAUSES[self.failures.min(PAUSES.len() - 1)]).await;
                    self.failures += 1;
                }
            }
        }
    }

    fn recovered(&mut self) {
        if !self.told.is_empty() {
            tracing::info!(resource = self.resource, "watching again");
        }
        self.told.clear();
        self.failures = 0;
    }

    fn tell(&mut self, error: &watcher::Error) {
        let text = explain(&self.resource, error);
        // A watch that the server closed comes back at once; that is no news.
        if text == self.told
            || self.failures == 0 && matches!(error, watcher::Error::WatchFailed(_))
        {
            tracing::debug!(resource = self.resource, "{text}");
            return;
        }
        tracing::error!(resource = self.resource, "{text}");
        self.told = text;
    }
}

/// Whether a watch cannot go on from where it was. kube lists anew when a running watch says so, but asks for ever
/// when the watch is refused with it.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

fn explain(resource: &str, error: &watcher::Error) -> String {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    };
    match status {
        Some(status) if status.code == 403 => {
            forbidden("list and watch", resource, &status.message)
        }
        Some(status) => format!("cannot watch {resource}: {} ({})", status.message, status.code),
        None => format!("cannot watch {resource}: {}", chain(error)),
    }
}

/// Says which permission is missing and how to grant it.
pub fn forbidden(verbs: &str, resource: &str, message: &str) -> String {
    format!(
        "no permission to {verbs} {resource}: {message}; grant the verbs to this program's ServiceAccount by a Role \
         or ClusterRole, as manifests/ does"
    )
}

/// The error with what caused it; kube's own text often stops at "ServiceError".
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

fn resource<K: Resource<DynamicType = ()>>() -> String {
    let group = K::group(&());
    let plural = K::plural(&());
    if group.is_empty() { plural.into_owned() } else { format!("{plural}.{group}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use k8s_openapi::api::discovery::v1::EndpointSlice;
    use serde_json::json;

    #[test]
    fn a_missing_permission_names_verbs_and_resource_and_what_to_do() {
        let status = kube::core::Status::failure(
            "services is forbidden: User \"x\" cannot list",
            "Forbidden",
        );
        let error =
            watcher::Error::InitialListFailed(kube::Error::Api(status.with_code(403).boxed()));
        let text = explain(&resource::<Service>(), &error);
        for word in ["list and watch services", "User \"x\"", "grant", "ClusterRole"] {
            assert!(text.contains(word), "{text}");
        }
        assert_eq!(resource::<EndpointSlice>(), "endpointslices.discovery.k8s.io");
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_is_refused_with_410_lists_anew() {
        let service = tower::service_fn(|request: http::Request<kube::client::Body>| async move {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let (code, body) = match is_watch {
                true => (410, json!({ "code": 410, "message": "too old resource version" })),
                false => (200, json!({ "metadata": { "resourceVersion": "7" }, "items": [] })),
            };
            let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
            Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body).unwrap())
        });
        let client = kube::Client::new(service, "default");
        let events = objects(Api::<Service>::all(client), Config::default());
        let seen: Vec<_> = events.take(4).collect().await;
        let starts = seen.iter().filter(|event| matches!(event, Event::Init)).count();
        assert_eq!(starts, 2, "{seen:?}");
    }
}
