//! Owns `/metrics`, `/healthz` and `/readyz`, and pages that only this host may read. Answers probes from memory, so that
//! they never wait for the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::FutureExt;
use futures::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::freshness::Freshness;

/// The checks behind `/healthz` and `/readyz`, by name. A name that nobody reported on yet fails.
#[derive(Clone, Debug, Default)]
pub struct Health {
    checks: Arc<Mutex<BTreeMap<&'static str, Check>>>,
}

#[derive(Clone, Debug)]
enum Check {
    /// Ready, or why not.
    Ready(Result<(), String>),
    /// Alive, if it was last reported within this time.
    Alive { last: Instant, within: Duration },
    /// Ready while a watch is fresh. Says nothing about being alive: without the cluster the program has to go on.
    Fresh(Freshness),
}

impl Health {
    /// Health that is ready once each of these was reported [`Health::ready`].
    pub fn new(names: impl IntoIterator<Item = &'static str>) -> Self {
        let health = Self::default();
        for name in names {
            health.unready(name, "not yet");
        }
        health
    }

    /// The check passes.
    pub fn ready(&self, name: &'static str) {
        self.put(name, Check::Ready(Ok(())));
    }

    /// The check fails, and why.
    pub fn unready(&self, name: &'static str, why: impl Into<String>) {
        self.put(name, Check::Ready(Err(why.into())));
    }

    /// Something that must go on is going on: `/healthz` fails when this is not said again `within` the time.
    pub fn alive(&self, name: &'static str, now: Instant, within: Duration) {
        self.put(name, Check::Alive { last: now, within });
    }

    /// Ready only while the watch is fresh.
    pub fn fresh(&self, freshness: &Freshness) {
        self.put(freshness.name(), Check::Fresh(freshness.clone()));
    }

    /// There is nothing to check under this name any more.
    pub fn forget(&self, name: &str) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }

    /// What is not ready, by name.
    pub fn unready_checks(&self, now: Instant) -> Vec<(&'static str, String)> {
        self.failing(|check| match check {
            Check::Ready(ready) => ready.clone().err(),
            Check::Fresh(freshness) => freshness.stale(now),
            Check::Alive { .. } => None,
        })
    }

    /// What has stopped, by name.
    pub fn dead_checks(&self, now: Instant) -> Vec<(&'static str, String)> {
        self.failing(|check| match check {
            Check::Alive { last, within } if now.duration_since(*last) > *within => {
                Some(format!("silent for {:.0?}", now.duration_since(*last)))
            }
            _ => None,
        })
    }

    fn put(&self, name: &'static str, check: Check) {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner).insert(name, check);
    }

    fn failing(&self, why: impl Fn(&Check) -> Option<String>) -> Vec<(&'static str, String)> {
        let checks = self.checks.lock().unwrap_or_else(PoisonError::into_inner);
        checks.iter().filter_map(|(name, check)| Some((*name, why(check)?))).collect()
    }
}

/// Why there is no listener.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct ListenError {
    address: SocketAddr,
    source: std::io::Error,
}

/// What is served.
#[derive(Clone)]
pub struct Pages(Router);

/// Makes the text of a page; nothing if there is none now.
pub type Page = Arc<dyn Fn() -> BoxFuture<'static, Option<String>> + Send + Sync>;

impl Pages {
    /// The probes and the numbers.
    pub fn new(health: Health, registry: Arc<Registry>) -> Self {
        let probes = Router::new()
            .route(
                "/healthz",
                get(|State(health): State<Health>| async move {
                    verdict(health.dead_checks(Instant::now()))
                }),
            )
            .route(
                "/readyz",
                get(|State(health): State<Health>| async move {
                    verdict(health.unready_checks(Instant::now()))
                }),
            )
            .with_state(health);
        Self(Router::new().route("/metrics", get(metrics)).with_state(registry).merge(probes))
    }

    /// And a page of JSON that is there for processes of this host alone.
    #[must_use]
    pub fn with_local(self, path: &str, page: Page) -> Self {
        Self(self.0.route(path, get(local).with_state(page)))
    }
}

/// Listens. Gives the address, whose port is chosen if 0 was asked for, and the task that serves until the token is
/// cancelled.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    pages: Pages,
    stop: CancellationToken,
) -> Result<(SocketAddr, BoxFuture<'static, ()>), ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let service = pages.0.into_make_service_with_connect_info::<SocketAddr>();
    let task = async move {
        let served =
            axum::serve(listener, service).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!("no longer serving {bound}: {error}");
        }
    };
    Ok((bound, task.boxed()))
}

/// Others are told what they would be told if there were no such page.
async fn local(
    State(page): State<Page>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
) -> impl IntoResponse {
    // An IPv4 peer of a listener on `::` has a mapped address.
    let text = match peer.ip().to_canonical().is_loopback() {
        true => page().await,
        false => {
            return (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "text/plain")], String::new());
        }
    };
    match text {
        Some(text) => (StatusCode::OK, [(header::CONTENT_TYPE, "application/json")], text),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::CONTENT_TYPE, "text/plain")],
            "no answer\n".to_owned(),
        ),
    }
}

fn verdict(failing: Vec<(&'static str, String)>) -> (StatusCode, String) {
    if failing.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    let lines = failing.iter().map(|(name, why)| format!("{name}: {why}\n"));
    (StatusCode::SERVICE_UNAVAILABLE, lines.collect())
}

async fn metrics(State(registry): State<Arc<Registry>>) -> impl IntoResponse {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &registry) {
        Ok(()) => {
            let openmetrics = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, [(header::CONTENT_TYPE, openmetrics)], text)
        }
        Err(error) => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            error.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(address: SocketAddr, path: &str) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn probes_name_what_is_missing() {
        let health = Health::new(["services", "lease"]);
        let stop = CancellationToken::new();
        let registry = Arc::new(Registry::default());
        let any = "127.0.0.1:0".parse().unwrap();
        let pages = Pages::new(health.clone(), registry);
        let (address, task) = serve(any, pages.clone(), stop.clone()).await.unwrap();
        tokio::spawn(task);
        let answer = ask(address, "/readyz").await;
        assert!(
            answer.starts_with("HTTP/1.1 503") && answer.contains("lease: not yet"),
            "{answer}"
        );
        health.ready("services");
        health.ready("lease");
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/healthz").await.starts_with("HTTP/1.1 200"));
        assert!(ask(address, "/metrics").await.contains("# EOF"));
        let error = serve(address, pages, stop).await.err().unwrap();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }

    #[tokio::test]
    async fn a_local_page_is_there_for_this_host_alone() {
        let page: Page = Arc::new(|| async { Some("{\"a\":1}".to_owned()) }.boxed());
        let pages = Pages::new(Health::default(), Arc::default()).with_local("/debug/x", page);
        let any = "[::]:0".parse().unwrap();
        let (bound, task) = serve(any, pages, CancellationToken::new()).await.unwrap();
        tokio::spawn(task);
        for host in ["127.0.0.1", "::1"] {
            let address = SocketAddr::new(host.parse().unwrap(), bound.port());
            assert!(ask(address, "/debug/x").await.ends_with("{\"a\":1}"), "{host}");
        }
    }

    #[tokio::test]
    async fn a_local_page_is_not_there_for_others() {
        let page: Page = Arc::new(|| async { Some("secret".to_owned()) }.boxed());
        for (peer, status) in [
            ("192.0.2.1:9", StatusCode::NOT_FOUND),
            ("[::ffff:192.0.2.1]:9", StatusCode::NOT_FOUND),
            ("[2001:db8::1]:9", StatusCode::NOT_FOUND),
            ("[::ffff:127.0.0.1]:9", StatusCode::OK),
        ] {
            let connection = ConnectInfo(peer.parse().unwrap());
            let answer = local(State(page.clone()), connection).await.into_response();
            assert_eq!(answer.status(), status, "{peer}");
        }
    }

    #[test]
    fn a_watch_that_is_not_fresh_makes_unready_and_not_dead() {
        let (health, start) = (Health::default(), Instant::now());
        health.fresh(&Freshness::new("services watch", start));
        assert!(health.unready_checks(start).is_empty());
        let late = start + Duration::from_secs(3600);
        assert_eq!(health.unready_checks(late)[0].0, "services watch");
        assert!(health.dead_checks(late).is_empty());
        health.forget("services watch");
        assert!(health.unready_checks(late).is_empty());
    }

    #[test]
    fn what_falls_silent_is_dead() {
        let health = Health::default();
        let start = Instant::now();
        health.alive("loop", start, Duration::from_secs(30));
        assert!(health.dead_checks(start + Duration::from_secs(30)).is_empty());
        assert_eq!(health.dead_checks(start + Duration::from_secs(31))[0].0, "loop");
    }
}
