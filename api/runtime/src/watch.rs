//! Owns the recovery of watches. A watch never ends, and the same trouble is told once, not at each attempt.

use std::fmt::Debug;
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt};
use kube::api::{Api, Resource};
use kube::runtime::watcher::{self, Config, Event};
use serde::de::DeserializeOwned;

use crate::refusals::Refusals;

/// Pauses between attempts: short, because a cluster that comes back must be served within seconds.
const PAUSES: [Duration; 4] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
];

/// After so many attempts in a row that nobody answered a watch lists anew.
const AWAY: usize = 2;

/// How often what may be listed and not watched is listed.
const POLL: Duration = Duration::from_secs(2);

/// How often a resource is looked for that the cluster does not have.
pub const LOOK: Duration = Duration::from_secs(5);
/// How many times in a row there has to be no such resource: of several API servers one may hear of it later.
const ABSENT: u32 = 2;

/// Watches objects for ever. After each [`Event::Init`] the full list follows, up to [`Event::InitDone`]; what is
/// not in it is gone.
pub fn objects<K>(api: Api<K>, config: Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    served(Watch::new(api, config, Need::Always)).filter_map(|served| {
        futures::future::ready(match served {
            Served::Event(event) => Some(event),
            Served::Absent => None,
        })
    })
}

/// What the watch of a resource shows that the cluster may not have.
#[derive(Clone, Debug)]
pub enum Served<K> {
    /// As of [`objects`].
    Event(Event<K>),
    /// The cluster has no such resource, and what was shown before is gone; or it may not be listed and never was.
    Absent,
}

/// Watches objects of a resource that this program can do without: one that may be installed later, or removed, or to which
/// there is no right, as in roles that were made for another program. The list itself is what finds out, while there is none
/// once in [`LOOK`]: it needs no permission beyond those of the watch, and unlike a look at the CustomResourceDefinition it
/// tells whether the resource is served. A missing right is told, and looked for ever more rarely, up to once a minute.
pub fn objects_where_granted<K>(api: Api<K>, config: Config) -> impl Stream<Item = Served<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    served(Watch::new(api, config, Need::WhereGranted))
}

fn served<K>(watch: Watch<K>) -> impl Stream<Item = Served<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    futures::stream::unfold(watch, |mut watch| async move {
        let served = watch.next().await?;
        Some((served, watch))
    })
}

/// What a watch can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    /// It waits until the resource is there and may be listed.
    Always,
    /// The cluster may be without the resource, and there may be no right to it.
    WhereGranted,
}

struct Watch<K: 'static> {
    resource: String,
    need: Need,
    /// How often in a row there was no such resource.
    missed: u32,
    /// How often in a row there was no right to it, which is told once.
    denied: Refusals,
    /// Whether it was listed in full.
    listed: bool,
    /// Whether it may not be watched, which is told once.
    polls: bool,
    /// How long to wait before the next attempt.
    pause: Option<Duration>,
    start: Box<dyn Fn() -> BoxStream<'static, watcher::Result<Event<K>>> + Send>,
    stream: BoxStream<'static, watcher::Result<Event<K>>>,
    failures: usize,
    told: String,
}

impl<K> Watch<K>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    fn new(api: Api<K>, config: Config, need: Need) -> Self {
        let start = move || watcher::watcher(api.clone(), config.clone()).boxed();
        let (stream, start) = (start(), Box::new(start));
        let (resource, told) = (resource::<K>(), String::new());
        Self {
            resource,
            need,
            missed: 0,
            denied: Refusals::default(),
            listed: false,
            polls: false,
            pause: None,
            stream,
            start,
            failures: 0,
            told,
        }
    }

    async fn next(&mut self) -> Option<Served<K>> {
        if let Some(pause) = self.pause.take() {
            tokio::time::sleep(pause).await;
        }
        loop {
            match self.stream.next().await? {
                // Comes before the list is tried, so it is no sign of recovery.
                Ok(Event::Init) => return Some(Served::Event(Event::Init)),
                Ok(event) => {
                    self.listed |= matches!(event, Event::InitDone);
                    self.recovered();
                    return Some(Served::Event(event));
                }
                Err(watcher::Error::WatchStartFailed(kube::Error::Api(status)))
                    if status.code == 403 =>
                {
                    if !std::mem::replace(&mut self.polls, true) {
                        tracing::warn!(
                            resource = self.resource,
                            "{}; until then it is listed every {POLL:?}",
                            forbidden("watch", &self.resource, &status.message)
                        );
                    }
                    self.stream = (self.start)();
                    tokio::time::sleep(POLL).await;
                }
                Err(error) if self.need == Need::WhereGranted && answered(&error, 403) => {
                    self.stream = (self.start)();
                    let pause = self.denied.again();
                    if self.denied.are_news() {
                        tracing::warn!(
                            resource = self.resource,
                            "{}",
                            explain(&self.resource, &error)
                        );
                        // What was listed once goes on to count: the right was taken away, not what it was for.
                        if !self.listed {
                            self.pause = Some(pause);
                            return Some(Served::Absent);
                        }
                    }
                    tokio::time::sleep(pause).await;
                }
                Err(error) if self.need == Need::WhereGranted && answered(&error, 404) => {
                    self.stream = (self.start)();
                    self.missed = self.missed.saturating_add(1);
                    if self.missed == ABSENT {
                        tracing::info!(
                            resource = self.resource,
                            "the cluster has no such resource; looking again every {LOOK:?}"
                        );
                        self.pause = Some(LOOK);
                        return Some(Served::Absent);
                    }
                    tokio::time::sleep(if self.missed < ABSENT { PAUSES[2] } else { LOOK }).await;
                }
                Err(error) => {
                    self.tell(&error);
                    // Away for a while, it may have been restored from a backup since: a watch from what it has not reached yet
                    // hears nothing, without an error (kubernetes#107457).
                    let was_away = is_unreachable(&error) && self.failures == AWAY;
                    if is_gone(&error) || was_away {
                        self.stream = (self.start)();
                    }
                    tokio::time::sleep(PAUSES[self.failures.min(PAUSES.len() - 1)]).await;
                    self.failures += 1;
                }
            }
        }
    }

    fn recovered(&mut self) {
        if !self.told.is_empty() || self.missed >= ABSENT || self.denied.are_believed() {
            tracing::info!(resource = self.resource, "watching again");
        }
        self.told.clear();
        self.failures = 0;
        self.missed = 0;
        self.denied.end();
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

/// Whether a list or watch was answered with this code: 404 where the cluster has no such resource, 403 where there is no
/// right to it. An API server that does not know yet which resources there are answers 503.
fn answered(error: &watcher::Error, code: u16) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == code,
        _ => false,
    }
}

/// Whether a watch cannot go on from where it was. kube lists anew when a running watch says so, but asks for ever
/// when the watch is refused with it.
fn is_gone(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410)
}

/// Whether the API server did not answer at all.
fn is_unreachable(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::WatchStartFailed(error) if !matches!(error, kube::Error::Api(_)))
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

/// The error with what caused it, without the name that kube has for what did not come as far as a server.
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
    text.replace("ServiceError: ", "")
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
    async fn a_resource_is_watched_from_when_it_is_installed_until_it_is_removed() {
        // What each list answers: no such resource twice, then there is, until its watch is refused, and again.
        let script = [404, 404, 404, 200, 404, 404, 200];
        let lists = std::sync::Arc::new(std::sync::Mutex::new(script.into_iter()));
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let code = if is_watch { Some(404) } else { lists.lock().unwrap().next() };
            async move {
                let Some(code) = code else { return std::future::pending().await };
                let body = match code {
                    200 => json!({ "metadata": { "resourceVersion": "7" }, "items": [] }),
                    _ => json!({ "code": 404, "message": "404 page not found" }),
                };
                let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body).unwrap())
            }
        });
        let client = kube::Client::new(service, "default");
        let served = objects_where_granted(Api::<Service>::all(client), Config::default());
        let shown = served.filter_map(|served| async move {
            match served {
                Served::Absent => Some("absent"),
                Served::Event(Event::InitDone) => Some("listed"),
                Served::Event(_) => None,
            }
        });
        let start = tokio::time::Instant::now();
        let shown: Vec<_> = shown.take(4).collect().await;
        assert_eq!(shown, ["absent", "listed", "absent", "listed"]);
        assert!(start.elapsed() < 5 * LOOK, "{:?}", start.elapsed());
    }

    /// What is shown within ten minutes of a resource to which there is no right, where lists are answered so and watches are
    /// refused; and how many requests that were.
    async fn shown_of_the_forbidden(lists: &'static [u16]) -> (Vec<&'static str>, usize) {
        let asked = std::sync::Arc::new(std::sync::Mutex::new((lists.iter(), 0)));
        let counted = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let mut asked = asked.lock().unwrap();
            asked.1 += 1;
            let code = if is_watch { 403 } else { asked.0.next().copied().unwrap_or(403) };
            async move {
                let body = match code {
                    200 => json!({ "metadata": { "resourceVersion": "7" }, "items": [] }),
                    code => json!({ "code": code, "message": "forbidden" }),
                };
                let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body).unwrap())
            }
        });
        let client = kube::Client::new(service, "default");
        let served = objects_where_granted(Api::<Service>::all(client), Config::default());
        let shown = std::sync::Mutex::new(Vec::new());
        let all = served.for_each(|served| {
            let word = match served {
                Served::Absent => Some("absent"),
                Served::Event(Event::InitDone) => Some("listed"),
                Served::Event(_) => None,
            };
            shown.lock().unwrap().extend(word);
            std::future::ready(())
        });
        let _ = tokio::time::timeout(Duration::from_secs(600), all).await;
        let requests = counted.lock().unwrap().1;
        (shown.into_inner().unwrap(), requests)
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_not_be_listed_is_done_without_and_what_was_listed_stays() {
        let (shown, requests) = shown_of_the_forbidden(&[]).await;
        assert_eq!(shown, ["absent"]);
        assert!(requests < 20, "{requests}");
        let (shown, _) = shown_of_the_forbidden(&[403, 200]).await;
        assert_eq!(shown, ["listed"], "an API server that has just begun");
        let (shown, _) = shown_of_the_forbidden(&[403, 403, 403, 403, 200]).await;
        assert_eq!(shown, ["absent", "listed"], "granted later");
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_be_listed_and_not_watched_is_listed_again_and_again() {
        static LISTS: [u16; 400] = [200; 400];
        let (shown, requests) = shown_of_the_forbidden(&LISTS).await;
        assert!((250..=400).contains(&shown.len()), "{}", shown.len());
        assert!(requests <= 2 * shown.len() + 2, "{requests}");
    }

    /// The requests of an hour at rest, where there are no objects or, if `is_absent`, no such kind of them.
    async fn requests<S: Stream>(watch: impl FnOnce(Api<Service>) -> S, is_absent: bool) -> usize {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let query = request.uri().query().unwrap_or_default().to_owned();
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            async move {
                let timeout =
                    query.split('&').find_map(|pair| pair.strip_prefix("timeoutSeconds="));
                let (code, body) = match query.contains("watch=true") {
                    _ if is_absent => (404, json!({ "code": 404, "message": "not found" })),
                    false => (200, json!({ "metadata": { "resourceVersion": "7" }, "items": [] })),
                    true => {
                        let seconds = timeout.expect("a watch that ends").parse().unwrap();
                        tokio::time::sleep(Duration::from_secs(seconds)).await;
                        (200, json!(null))
                    }
                };
                let body = if body.is_null() { Vec::new() } else { serde_json::to_vec(&body)? };
                let response = http::Response::builder().status(code);
                Ok::<_, tower::BoxError>(response.body(kube::client::Body::from(body))?)
            }
        });
        let all = watch(Api::all(kube::Client::new(service, "default")));
        let all = all.for_each(|_| std::future::ready(()));
        let _ = tokio::time::timeout(Duration::from_secs(3600), all).await;
        asked.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Why a program of each node follows a definition instead (docs/decisions/0016).
    #[tokio::test(start_paused = true)]
    async fn to_look_for_a_resource_that_is_not_there_costs_more_than_to_watch_one_name() {
        let looked = requests(|api| objects_where_granted(api, Config::default()), true).await;
        let watched = requests(|api| objects(api, Config::default()), false).await;
        println!("an hour at rest: {looked} requests by looking, {watched} by a watch");
        assert!(looked > 40 * watched, "{looked}, {watched}");
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

    /// How often is listed where the API server is not there for so many attempts at the watch.
    async fn lists_after(unanswered: usize) -> usize {
        let asked = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
        let counted = asked.clone();
        let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
            let mut asked = asked.lock().unwrap();
            *(if is_watch { &mut asked.1 } else { &mut asked.0 }) += 1;
            let is_away = asked.1 <= unanswered;
            async move {
                match (is_watch, is_away) {
                    (false, _) => {}
                    (true, true) => return Err(tower::BoxError::from("connection refused")),
                    (true, false) => return std::future::pending().await,
                }
                let body = json!({ "metadata": { "resourceVersion": "7" }, "items": [] });
                let body = kube::client::Body::from(serde_json::to_vec(&body).unwrap());
                Ok::<_, tower::BoxError>(http::Response::new(body))
            }
        });
        let client = kube::Client::new(service, "default");
        let events = objects(Api::<Service>::all(client), Config::default());
        let all = events.for_each(|_| std::future::ready(()));
        let _ = tokio::time::timeout(Duration::from_secs(60), all).await;
        let (lists, watches) = *counted.lock().unwrap();
        assert_eq!(watches, unanswered + 1);
        lists
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_after_the_api_server_was_away_is_listed_anew() {
        assert_eq!(lists_after(0).await, 1);
        assert_eq!(lists_after(AWAY).await, 1, "a connection that was lost is no absence");
        assert_eq!(lists_after(AWAY + 1).await, 2);
        assert_eq!(lists_after(AWAY + 3).await, 2, "once for each absence");
    }
}
