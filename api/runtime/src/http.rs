//! Owns `/metrics`, `/healthz` and `/readyz`. Answers from memory, so that a probe never waits for the cluster.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

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

    /// What is not ready, by name.
    pub fn unready_checks(&self) -> Vec<(&'static str, String)> {
        self.failing(|check| match check {
            Check::Ready(ready) => ready.clone().err(),
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

/// Listens, then serves in the background until the token is cancelled. Gives the address, whose port is chosen if 0
/// was asked for.
///
/// # Errors
/// When the address cannot be listened on.
pub async fn serve(
    address: SocketAddr,
    health: Health,
    registry: Arc<Registry>,
    stop: CancellationToken,
) -> Result<SocketAddr, ListenError> {
    let failed = |source| ListenError { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let router = router(health, registry);
    tokio::spawn(async move {
        let served =
            axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await;
        if let Err(error) = served {
            tracing::error!("no longer serving {bound}: {error}");
        }
    });
    Ok(bound)
}

fn router(health: Health, registry: Arc<Registry>) -> Router {
    let probes = Router::new()
        .route(
            "/healthz",
            get(|State(health): State<Health>| async move {
                verdict(health.dead_checks(Instant::now()))
            }),
        )
        .route(
            "/readyz",
            get(|State(health): State<Health>| async move { verdict(health.unready_checks()) }),
        )
        .with_state(health);
    Router::new().route("/metrics", get(metrics)).with_state(registry).merge(probes)
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
        let address = serve(any, health.clone(), registry, stop.clone()).await.unwrap();
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
        let error = serve(address, health, Arc::default(), stop).await.unwrap_err();
        assert!(error.to_string().contains(&address.to_string()), "{error}");
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
