//! Stands between a program and the API server, and does to its requests what networks and busy servers do. Answers are
//! the real API server's own; only their delay, their loss and their repetition are made here.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Response, StatusCode, header};
use axum::{BoxError, Router};
use futures::future::Either;
use futures::stream::{self, Stream, StreamExt};
use kube::{Client, Config};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::lab::Lab;
use crate::place::Place;

/// The largest request that is taken, in bytes: as the API server.
const LARGEST: usize = 3 << 20;
/// How many events back an old one is repeated from.
const OLD: usize = 5;

/// A proxy inside the network namespace of the control plane, or of a node. It ends when it is dropped.
pub struct ApiProxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    server: JoinHandle<()>,
}

/// A request that came through, and how it was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// When it was answered.
    pub at: Instant,
    /// `GET`, `POST`, `PATCH`, ...
    pub method: String,
    /// The path without the query.
    pub path: String,
    /// Whether it is a watch.
    pub is_watch: bool,
    /// The HTTP status of the answer.
    pub code: u16,
}

impl Seen {
    /// Whether it changes a Service or a claim. Leases and Events come by the clock.
    pub fn is_write(&self) -> bool {
        let is_ours = self.path.contains("/services/") || self.path.contains("/ipaddresses");
        self.method != "GET" && is_ours
    }
}

/// What is done to requests from now on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trouble {
    /// How long each request waits before it is passed on.
    pub latency: Duration,
    /// Of so many requests one is answered 429; none if zero.
    pub busy_one_in: usize,
    /// Every request is answered 503.
    pub is_cut: bool,
    /// Each event of a watch comes twice, with an old one behind it.
    pub repeats: bool,
    /// `/readyz` is answered 500.
    pub is_unready: bool,
    /// A write is performed and never answered, and no other request is from then on.
    pub mute_after_write: bool,
}

/// How open watches end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Expired,
}

struct Shared {
    upstream: Client,
    trouble: Mutex<Trouble>,
    seen: Mutex<Vec<Seen>>,
    /// Watches that are asked for are answered 410 until their resource is listed again.
    gone: Mutex<Vec<String>>,
    ends: watch::Sender<(u64, End)>,
    muted: watch::Sender<bool>,
}

impl ApiProxy {
    /// Starts one in front of the API server of `lab`.
    pub async fn start(lab: &Lab) -> Result<Self> {
        Self::start_in(lab, &lab.control_plane(), (Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts one in a place and at an address there. Whoever asks it for `/` is answered by itself.
    pub async fn start_in(lab: &Lab, place: &Place, at: SocketAddr) -> Result<Self> {
        let listen = || std::net::TcpListener::bind(at);
        let listener = place.in_network(listen)?.context("listen for the proxy")?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;

        let admin = kube::config::Kubeconfig::read_from(lab.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(admin, &Default::default()).await?;
        // Whoever asks shows their own token.
        config.auth_info = Default::default();
        config.default_retry = false;
        config.read_timeout = None;
        let shared = Arc::new(Shared {
            upstream: Client::try_from(config)?,
            trouble: Mutex::default(),
            seen: Mutex::default(),
            gone: Mutex::default(),
            ends: watch::Sender::new((0, End::Closed)),
            muted: watch::Sender::new(false),
        });
        let router = Router::new().fallback(answer).with_state(shared.clone());
        let listener = tokio::net::TcpListener::from_std(listener)?;
        let server = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the proxy ended: {error}");
            }
        });
        Ok(Self { shared, address, server })
    }

    /// Its URL for processes of the control plane.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// From now on this is done to requests.
    pub fn make(&self, trouble: Trouble) {
        *lock(&self.shared.trouble) = trouble;
        self.shared.muted.send_replace(false);
    }

    /// Closes every open watch, as a server that is restarted.
    pub fn close_watches(&self) {
        self.end(End::Closed);
    }

    /// Ends every open watch with `410 Gone`, as a server that has forgotten where the watch was.
    pub fn expire_watches(&self) {
        self.end(End::Expired);
    }

    /// Answers watches with the HTTP status 410, of every resource that is being watched, until it is listed anew.
    pub fn forget(&self) {
        let seen = lock(&self.shared.seen);
        let watched = seen.iter().filter(|seen| seen.is_watch).map(|seen| seen.path.clone());
        *lock(&self.shared.gone) = watched.collect();
    }

    /// Ends with the write that [`Trouble::mute_after_write`] left without an answer.
    pub async fn muted(&self) {
        let mut muted = self.shared.muted.subscribe();
        // The sender lives as long as the proxy.
        let _ = muted.wait_for(|muted| *muted).await;
    }

    /// Every request so far, in the order of the answers.
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    fn end(&self, how: End) {
        self.shared.ends.send_modify(|(count, end)| (*count, *end) = (*count + 1, how));
    }
}

impl Drop for ApiProxy {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response<Body> {
    let method = request.method().to_string();
    let path = request.uri().path().to_owned();
    let query = request.uri().query().unwrap_or_default();
    let is_watch = query.split('&').any(|part| part == "watch=true" || part == "watch=1");
    let mut seen = Seen { at: Instant::now(), method, path, is_watch, code: 0 };
    let trouble = *lock(&shared.trouble);
    tokio::time::sleep(trouble.latency).await;
    let response = match refusal(&shared, &trouble, &seen) {
        Some(refusal) => refusal,
        None => pass_on(&shared, request, is_watch).await,
    };
    (seen.at, seen.code) = (Instant::now(), response.status().as_u16());
    if seen.method == "GET" && !is_watch && response.status().is_success() {
        lock(&shared.gone).retain(|gone| *gone != seen.path);
    }
    let is_write = seen.is_write();
    lock(&shared.seen).push(seen);
    // Asked again, for the write may have been under way when silence was ordered.
    let mute = lock(&shared.trouble).mute_after_write;
    if mute && (is_write || *shared.muted.borrow()) {
        shared.muted.send_replace(true);
        std::future::pending::<()>().await;
    }
    response
}

fn refusal(shared: &Shared, trouble: &Trouble, seen: &Seen) -> Option<Response<Body>> {
    if trouble.is_cut {
        return Some(status(503, "ServiceUnavailable", "the proxy is cut off"));
    }
    match seen.path.as_str() {
        "/" => return Some(Response::new(Body::from("the proxy"))),
        "/readyz" if trouble.is_unready => {
            return Some(status(500, "InternalError", "not ready, says the proxy"));
        }
        _ => {}
    }
    let count = lock(&shared.seen).len();
    if trouble.busy_one_in > 0 && count.is_multiple_of(trouble.busy_one_in) {
        return Some(status(429, "TooManyRequests", "the proxy is busy"));
    }
    let gone = seen.is_watch && lock(&shared.gone).contains(&seen.path);
    gone.then(|| status(410, "Expired", "too old resource version"))
}

async fn pass_on(shared: &Shared, request: Request, is_watch: bool) -> Response<Body> {
    match forward(shared, request).await {
        Ok(response) if is_watch => {
            let (parts, body) = response.into_parts();
            let repeats = lock(&shared.trouble).repeats;
            Response::from_parts(parts, watched(body, repeats, shared.ends.subscribe()))
        }
        Ok(response) => response,
        Err(error) => status(502, "BadGateway", &error.to_string()),
    }
}

async fn forward(shared: &Shared, request: Request) -> Result<Response<Body>, BoxError> {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, LARGEST).await?;
    drop_hop_by_hop(&mut parts.headers);
    let local = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = local.parse()?;
    let request = Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let (mut parts, body) = shared.upstream.send(request).await?.into_parts();
    drop_hop_by_hop(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// What belongs to one connection and not to the message (RFC 9110 §7.6.1), and what is worked out anew.
fn drop_hop_by_hop(headers: &mut HeaderMap) {
    for name in
        [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH]
    {
        headers.remove(name);
    }
}

/// The events of a watch, a line each, until it is ended.
fn watched(body: Body, repeats: bool, mut ends: watch::Receiver<(u64, End)>) -> Body {
    let (start, _) = *ends.borrow_and_update();
    let last = ends.clone();
    let ended = async move {
        // An error means that the proxy is gone, and the watch with it.
        let _ = ends.changed().await;
    };
    let events = body.into_data_stream().map(|part| part.map_err(BoxError::from));
    let events = match repeats {
        true => Either::Left(repeated(events)),
        false => Either::Right(events),
    };
    let events = events.take_until(Box::pin(ended));
    let expired = stream::once(async move {
        let (count, end) = *last.borrow();
        let object = status_object(410, "Expired", "too old resource version");
        let line = format!("{{\"type\":\"ERROR\",\"object\":{object}}}\n");
        (count > start && end == End::Expired).then(|| Ok(Bytes::from(line)))
    });
    let expired = expired.filter_map(std::future::ready);
    Body::from_stream(events.chain(expired))
}

/// Each line twice, and behind them one that is some events old.
fn repeated(
    parts: impl Stream<Item = Result<Bytes, BoxError>>,
) -> impl Stream<Item = Result<Bytes, BoxError>> {
    let state = (Vec::new(), VecDeque::<Vec<u8>>::new());
    parts
        .scan(state, |(unfinished, history), part| {
            let out = part.map(|part| {
                unfinished.extend_from_slice(&part);
                let mut out = Vec::new();
                while let Some(end) = unfinished.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = unfinished.drain(..=end).collect();
                    history.push_back(line.clone());
                    if history.len() > OLD {
                        history.pop_front();
                    }
                    let old = history.front().unwrap_or(&line);
                    out.extend([line.as_slice(), line.as_slice(), old].concat());
                }
                Bytes::from(out)
            });
            std::future::ready(Some(out))
        })
        .filter(|part| std::future::ready(!matches!(part, Ok(part) if part.is_empty())))
}

fn status(code: u16, reason: &str, message: &str) -> Response<Body> {
    let mut response = Response::new(Body::from(status_object(code, reason, message)));
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn status_object(code: u16, reason: &str, message: &str) -> String {
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": message, "reason": reason, "code": code,
    })
    .to_string()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
