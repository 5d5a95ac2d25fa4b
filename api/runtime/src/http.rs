//! Owns `/metrics`, `/healthz` and `/readyz`, and pages that only this host may read. Answers probes from memory, so that
//! they never wait for the cluster, and whoever asks, however many others do (`connections`).

mod connections;
mod health;

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::{ConnectInfo, State};
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use self::health::Health;

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
    /// The probes.
    pub fn probes(health: Health) -> Self {
        let probes = Router::new()
            .route(
                "/healthz",
                get(|State(health): State<Health>| async move {
                    verdict(&health.dead_checks(Instant::now()), &[])
                }),
            )
            .route(
                "/readyz",
                get(|State(health): State<Health>| async move {
                    verdict(&health.unready_checks(Instant::now()), &health.missing_checks())
                }),
            )
            .with_state(health);
        Self(probes)
    }

    /// And the numbers.
    #[must_use]
    pub fn with_metrics(self, registry: Arc<Registry>) -> Self {
        Self(self.0.route("/metrics", get(metrics).with_state(registry)))
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
    Ok((bound, connections::serve(listener, pages.0, stop).boxed()))
}

/// How long until an address is tried again that cannot be listened on.
const AGAIN: Duration = Duration::from_secs(1);
/// The same, where it is answered on loopback meanwhile: to try is to stop answering for a moment.
const SELDOM: Duration = Duration::from_secs(30);

/// What says under its name that it does not listen, as another process has the port, and whether that is a reason to be
/// unready: not where nobody needs it.
#[derive(Clone, Copy, Debug)]
pub struct Listener {
    /// The name of the check.
    pub check: &'static str,
    /// Whether this is unready without it.
    pub needed: bool,
}

/// Listens and serves until `stop` is cancelled. While that cannot be, readiness says so, which every listener of these
/// pages shows, and it is tried again: nobody dies of it. What is to be asked
/// at every address is asked on loopback meanwhile, if that can be had. Where the host has no IPv6 at all, every address
/// means every IPv4 address, and nobody listens on `::1`.
pub async fn keep(
    Listener { check, needed }: Listener,
    address: SocketAddr,
    pages: Pages,
    health: Health,
    stop: CancellationToken,
) {
    let mut told = String::new();
    while !stop.is_cancelled() {
        let listen = async |address| serve(address, pages.clone(), stop.clone()).await;
        let mut result = listen(address).await;
        if let (true, Err(_)) = (address.ip() == Ipv6Addr::UNSPECIFIED, &result) {
            let v4 = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), address.port());
            result = listen(v4).await.or(result);
        }
        let error = match result {
            Ok((bound, serving)) => {
                health.forget(check);
                tracing::info!(%bound, "serving");
                serving.await;
                continue;
            }
            Err(error) => error,
        };
        let is_taken = error.source.kind() == ErrorKind::AddrInUse;
        if address.ip() == Ipv6Addr::LOCALHOST && !is_taken {
            health.forget(check);
        } else {
            let why = error.to_string();
            if told != why {
                tracing::error!("{why}; it is tried again");
            }
            match needed {
                true => health.unready(check, &why),
                false => health.missing(check, &why),
            }
            told = why;
        }
        let mut meanwhile = Vec::new();
        for own in loopback(address) {
            meanwhile.extend(listen(own).await.ok().map(|(_, serving)| serving));
        }
        let pause = if meanwhile.is_empty() { AGAIN } else { SELDOM };
        let serving = async { tokio::join!(join_all(meanwhile), tokio::time::sleep(pause)) };
        _ = stop.run_until_cancelled(tokio::time::timeout(pause, serving)).await;
    }
}

/// What is left on loopback of every address.
fn loopback(address: SocketAddr) -> impl Iterator<Item = SocketAddr> {
    let all = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
    let own = all.into_iter().filter(move |_| address.ip().is_unspecified());
    own.map(move |own| SocketAddr::new(own, address.port()))
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

type Said = (&'static str, String);

fn verdict(failing: &[Said], missing: &[Said]) -> (StatusCode, String) {
    let (code, first) = match failing.is_empty() {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, ""),
    };
    let lines = failing.iter().chain(missing).map(|(name, why)| format!("{name}: {why}\n"));
    (code, first.to_owned() + &lines.collect::<String>())
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
    use crate::freshness::Freshness;

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
        let pages = Pages::probes(health.clone()).with_metrics(registry);
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

    #[test]
    fn who_waits_is_unready_for_what_it_said_last() {
        let health = Health::default();
        for why in ["no key", "no key", "no view"] {
            for say in [Health::waits, Health::expects] {
                say(&health, "membership", why.to_owned());
                assert_eq!(health.unready_checks(Instant::now()), [("membership", why.to_owned())]);
            }
        }
    }

    #[tokio::test]
    async fn a_port_that_is_taken_is_told_and_waited_for() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (health, stop) = (Health::default(), CancellationToken::new());
        let pages = || Pages::probes(health.clone());
        let listener = Listener { check: "metrics", needed: true };
        let keep = keep(listener, address, pages(), health.clone(), stop.clone());
        let keeping = tokio::spawn(keep);
        let unready = || health.unready_checks(Instant::now());
        while unready().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(unready()[0].1.contains(&address.to_string()), "{:?}", unready());
        assert!(!keeping.is_finished());
        drop(taken);
        while !unready().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(ask(address, "/readyz").await.starts_with("HTTP/1.1 200"));
        stop.cancel();
        keeping.await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_needs_is_told_as_missing_and_readiness_passes() {
        let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = taken.local_addr().unwrap();
        let (health, stop) = (Health::default(), CancellationToken::new());
        let pages = Pages::probes(health.clone());
        let any = "127.0.0.1:0".parse().unwrap();
        let (probes, task) = serve(any, pages.clone(), stop.clone()).await.unwrap();
        tokio::spawn(task);
        let listener = Listener { check: "metrics", needed: false };
        tokio::spawn(keep(listener, address, pages, health.clone(), stop.clone()));
        while health.missing_checks().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let answer = ask(probes, "/readyz").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("ok\nmetrics: cannot listen on {address}")), "{answer}");
        drop(taken);
        while !health.missing_checks().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        stop.cancel();
    }

    #[tokio::test]
    async fn where_somebody_has_the_port_at_one_address_loopback_answers_and_says_so() {
        let taken = TcpListener::bind("127.0.0.2:0").await.unwrap();
        let port = taken.local_addr().unwrap().port();
        let (health, stop) = (Health::default(), CancellationToken::new());
        let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let pages = Pages::probes(health.clone());
        let listener = Listener { check: "metrics", needed: true };
        let keeping = tokio::spawn(keep(listener, all, pages, health.clone(), stop.clone()));
        while health.unready_checks(Instant::now()).is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        let answer = ask(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), port), "/readyz").await;
        assert!(answer.contains(&format!("metrics: cannot listen on [::]:{port}")), "{answer}");
        stop.cancel();
        keeping.await.unwrap();
    }

    /// As on a host without IPv6, where `[::]` cannot be had: on one with it, somebody else has a part of that.
    #[tokio::test]
    async fn where_all_of_ipv6_cannot_be_had_every_address_of_ipv4_answers_and_nothing_is_missing()
    {
        let port = {
            let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
            free.local_addr().unwrap().port()
        };
        let _taken = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).await;
        let (health, stop) = (Health::default(), CancellationToken::new());
        let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
        let listener = Listener { check: "metrics", needed: true };
        let pages = Pages::probes(health.clone());
        let keeping = tokio::spawn(keep(listener, all, pages, health.clone(), stop.clone()));
        for last in [1, 2] {
            let own = SocketAddr::from(([127, 0, 0, last], port));
            while tokio::net::TcpStream::connect(own).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let answer = ask(own, "/readyz").await;
            assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n"), "{answer}");
        }
        stop.cancel();
        keeping.await.unwrap();
    }

    #[tokio::test]
    async fn numbers_are_there_only_where_they_are_asked_for() {
        let any = "127.0.0.1:0".parse().unwrap();
        let (pages, stop) = (Pages::probes(Health::default()), CancellationToken::new());
        let (bound, task) = serve(any, pages, stop).await.unwrap();
        tokio::spawn(task);
        assert!(ask(bound, "/metrics").await.starts_with("HTTP/1.1 404"));
        assert!(ask(bound, "/healthz").await.starts_with("HTTP/1.1 200"));
    }

    #[tokio::test]
    async fn whoever_asks_is_answered_beside_any_number_that_do_not_end_their_question() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let any = "127.0.0.1:0".parse().unwrap();
        let pages = Pages::probes(Health::default());
        let (bound, task) = serve(any, pages, CancellationToken::new()).await.unwrap();
        tokio::spawn(task);
        let begun = Instant::now();
        let mut crowd = Vec::new();
        for _ in 0..4 * connections::MOST {
            let mut stream = tokio::net::TcpStream::connect(bound).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nA: ").await.unwrap();
            crowd.push(stream);
        }
        assert!(ask(bound, "/readyz").await.starts_with("HTTP/1.1 200"));
        let mut rest = Vec::new();
        for mut stream in crowd {
            let _ = stream.read_to_end(&mut rest).await;
        }
        assert!(begun.elapsed() < connections::HEAD * 3, "none of them lasts");

        let mut stream = tokio::net::TcpStream::connect(bound).await.unwrap();
        let head = format!("GET /readyz HTTP/1.1\r\nA: {}", "x".repeat(2 * connections::HEAD_SIZE));
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }

    #[tokio::test]
    async fn a_local_page_is_there_for_this_host_alone() {
        let page: Page = Arc::new(|| async { Some("{\"a\":1}".to_owned()) }.boxed());
        let pages = Pages::probes(Health::default()).with_local("/debug/x", page);
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
