//! Owns what is known of when a watch last heard from the API server. Costs no request: it listens to those that the
//! watch makes anyway, and to the bookmarks by which a server tells about once a minute that nothing has happened.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{Request, Response, StatusCode};
use futures::TryStreamExt;
use kube::Client;
use kube::client::Body;

/// A watch whose requests have failed for so long is not fresh. Longer than an API server takes to restart.
pub const FAILING: Duration = Duration::from_secs(60);
/// A watch that has heard nothing for so long is not fresh, whatever has become of its requests: the server itself ends
/// a watch after less than 295 seconds, which is kube's own limit.
pub const SILENT: Duration = Duration::from_secs(330);

/// When one watch last heard from the API server.
#[derive(Clone, Debug)]
pub struct Freshness {
    name: &'static str,
    optional: bool,
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    heard: Instant,
    /// Why nothing was heard since.
    trouble: Option<String>,
}

impl Freshness {
    /// The freshness of the watch of this name, which begins `now`.
    pub fn new(name: &'static str, now: Instant) -> Self {
        let state = Arc::new(Mutex::new(State { heard: now, trouble: None }));
        Self { name, optional: false, state }
    }

    /// The same for what a role need not grant: that it is forbidden is an answer.
    pub fn optional(self) -> Self {
        Self { optional: true, ..self }
    }

    /// The name of the watch.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The client for the watch and for what belongs to it: what comes by it is heard.
    pub fn client(&self, client: &Client) -> Client {
        let namespace = client.default_namespace().to_owned();
        let (client, freshness) = (client.clone(), self.clone());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (client, freshness) = (client.clone(), freshness.clone());
            async move {
                let answer = client.send(request).await;
                if let Err(error) = &answer {
                    freshness.failed(crate::watch::chain(error));
                }
                answer.map(|answer| freshness.answered(answer, Instant::now()))
            }
        });
        Client::new(service, namespace)
    }

    /// Why the watch is not fresh, and since when.
    pub fn stale(&self, now: Instant) -> Option<String> {
        let state = self.lock();
        let silence = now.saturating_duration_since(state.heard);
        let why = match &state.trouble {
            Some(trouble) if silence > FAILING => format!(": {trouble}"),
            _ if silence > SILENT => String::new(),
            _ => return None,
        };
        Some(format!("nothing heard from the API server for {}s{why}", silence.as_secs()))
    }

    /// That there is no such object, or another version of it, is an answer; a refusal is none.
    fn answered(&self, answer: Response<Body>, now: Instant) -> Response<axum::body::Body> {
        let answers = [StatusCode::NOT_FOUND, StatusCode::CONFLICT, StatusCode::GONE];
        let status = answer.status();
        let forbidden = self.optional && status == StatusCode::FORBIDDEN;
        if !status.is_success() && !answers.contains(&status) && !forbidden {
            self.failed(status.to_string());
            return answer.map(axum::body::Body::new);
        }
        self.heard(now);
        let (heard, cut) = (self.clone(), self.clone());
        answer.map(|body| {
            let frames = axum::body::Body::new(body).into_data_stream();
            let frames = frames
                .inspect_ok(move |_| heard.heard(Instant::now()))
                .inspect_err(move |error| cut.failed(crate::watch::chain(error)));
            axum::body::Body::from_stream(frames)
        })
    }

    fn heard(&self, now: Instant) {
        *self.lock() = State { heard: now, trouble: None };
    }

    fn failed(&self, why: String) {
        self.lock().trouble = Some(why);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Service;
    use kube::api::{Api, ListParams, WatchParams};
    use serde_json::json;
    use std::sync::atomic::{AtomicU16, Ordering};

    #[test]
    fn a_watch_is_stale_when_it_fails_for_a_while_or_is_silent_for_long() {
        let start = Instant::now();
        let fresh = Freshness::new("services watch", start);
        let after = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(fresh.stale(after(330)), None, "a quiet cluster");
        assert!(fresh.stale(after(331)).is_some());
        fresh.heard(after(400));
        fresh.failed("connection refused".to_owned());
        assert_eq!(fresh.stale(after(460)), None, "a server that restarts");
        let stale = fresh.stale(after(465)).unwrap();
        assert_eq!(stale, "nothing heard from the API server for 65s: connection refused");
        fresh.heard(after(466));
        assert_eq!(fresh.stale(after(466)), None);
    }

    #[tokio::test]
    async fn lists_and_what_a_watch_brings_are_heard_and_refusals_are_not() {
        let code = Arc::new(AtomicU16::new(200));
        let (answer, frames) = (code.clone(), Arc::new(Mutex::new(None)));
        let streams = frames.clone();
        let server = tower::service_fn(move |request: Request<Body>| {
            let code = answer.load(Ordering::Relaxed);
            let body = if request.uri().query().is_some_and(|query| query.contains("watch=true")) {
                let (send, receive) = tokio::sync::mpsc::unbounded_channel::<String>();
                *streams.lock().unwrap() = Some(send);
                let frames = futures::stream::unfold(receive, |mut receive| async move {
                    let frame = receive.recv().await?;
                    Some((Ok::<_, std::io::Error>(frame), receive))
                });
                axum::body::Body::from_stream(frames)
            } else {
                let list = json!({ "metadata": { "resourceVersion": "7" }, "items": [] });
                axum::body::Body::from(list.to_string())
            };
            let answer = Response::builder().status(code).body(body);
            async move { answer.map_err(tower::BoxError::from) }
        });
        let start = Instant::now();
        let late = start + SILENT * 2;
        let fresh = Freshness::new("services watch", start);
        let back = || {
            fresh.lock().heard = start;
            fresh.lock().trouble = None;
        };
        let services: Api<Service> = Api::all(fresh.client(&Client::new(server, "default")));
        services.list(&ListParams::default()).await.unwrap();
        assert!(fresh.lock().heard > start);

        back();
        let watch = services.watch(&WatchParams::default(), "7").await.unwrap();
        let mut watch = std::pin::pin!(watch);
        assert!(fresh.lock().heard > start, "it was begun");
        back();
        let bookmark = json!({ "type": "BOOKMARK", "object": {
            "kind": "Service", "apiVersion": "v1", "metadata": { "resourceVersion": "8" } } });
        frames.lock().unwrap().take().unwrap().send(format!("{bookmark}\n")).unwrap();
        watch.try_next().await.unwrap();
        assert!(fresh.lock().heard > start, "a bookmark");

        back();
        code.store(403, Ordering::Relaxed);
        services.list(&ListParams::default()).await.unwrap_err();
        assert_eq!(fresh.lock().heard, start);
        assert!(fresh.stale(late).unwrap().ends_with("403 Forbidden"), "{:?}", fresh.stale(late));
        let optional = fresh.clone().optional();
        optional.answered(Response::builder().status(403).body(Body::empty()).unwrap(), late);
        assert!(fresh.stale(late).is_none(), "what a role need not grant");
        back();
        code.store(404, Ordering::Relaxed);
        services.list(&ListParams::default()).await.unwrap_err();
        assert!(fresh.lock().heard > start, "there is no such resource, says a server");
    }
}
