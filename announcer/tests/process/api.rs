//! An API server of a few lines that listens on loopback: lists, watches, and writes that are compared and swapped.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::sync::broadcast;

/// The longest body of a request.
const LONGEST: usize = 1 << 20;

/// The server.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<Objects>>,
    changes: broadcast::Sender<(Key, Value)>,
    /// What `/readyz` is answered with.
    ready: Arc<AtomicU16>,
    /// Whether nothing else is answered.
    hangs: Arc<AtomicBool>,
}

#[derive(Default)]
struct Objects {
    of: BTreeMap<Key, Value>,
    version: u64,
}

/// What a path names. Without a name it is a collection.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    /// Group, version and plural.
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
}

impl Key {
    fn parse(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = parts.split_at_checked(if parts[0] == "api" { 2 } else { 3 })?;
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (Some(*namespace), rest),
            rest => (None, rest),
        };
        let resource = format!("{}/{}", group.join("/"), rest.first()?);
        let owned = |text: &&str| (*text).to_owned();
        Some(Self {
            resource,
            namespace: namespace.as_ref().map(owned),
            name: rest.get(1).map(owned),
        })
    }

    /// Whether an object is in this collection.
    fn contains(&self, object: &Self) -> bool {
        self.resource == object.resource
            && (self.namespace.is_none() || self.namespace == object.namespace)
    }
}

impl Api {
    /// Starts it in the network namespace of the calling thread.
    pub(crate) async fn start() -> (Self, SocketAddr) {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let address = listener.local_addr().expect("an address");
        let api = Self::new();
        api.listen(listener);
        (api, address)
    }

    /// One that listens nowhere.
    pub(crate) fn new() -> Self {
        let (ready, hangs) = (Arc::new(AtomicU16::new(200)), Arc::default());
        Self { state: Arc::default(), changes: broadcast::channel(256).0, ready, hangs }
    }

    /// Another one with the same objects.
    pub(crate) fn beside(&self) -> Self {
        let (state, changes) = (self.state.clone(), self.changes.clone());
        Self { state, changes, ..Self::new() }
    }

    /// Answers whoever comes there.
    pub(crate) fn listen(&self, listener: std::net::TcpListener) {
        listener.set_nonblocking(true).expect("a socket");
        let listener = tokio::net::TcpListener::from_std(listener).expect("a runtime");
        let router = Router::new().fallback(answer).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
    }

    /// From now on answers nothing but whether it is ready, or does again.
    pub(crate) fn hangs(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::Relaxed);
    }

    /// Hangs as long as it is to.
    async fn wait(&self) {
        while self.hangs.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// From now on says that it is ready, or not.
    pub(crate) fn is_ready(&self, is_ready: bool) {
        self.ready.store(if is_ready { 200 } else { 500 }, Ordering::Relaxed);
    }

    /// From now on hangs altogether.
    pub(crate) fn hangs_altogether(&self) {
        self.ready.store(0, Ordering::Relaxed);
        self.hangs(true);
    }

    /// What is kept under a path.
    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        let key = Key::parse(path).expect("a path of an object");
        self.state.lock().unwrap().of.get(&key).cloned()
    }

    /// Keeps an object under a path.
    pub(crate) fn put(&self, path: &str, object: Value) {
        let key = Key::parse(path).expect("a path of an object");
        self.store(&mut self.state.lock().unwrap(), key, object);
    }

    fn store(&self, objects: &mut Objects, key: Key, mut object: Value) -> Value {
        objects.version += 1;
        object["metadata"]["resourceVersion"] = json!(objects.version.to_string());
        object["metadata"]["name"] = json!(key.name);
        if let Some(namespace) = &key.namespace {
            object["metadata"]["namespace"] = json!(namespace);
        }
        let kind = if objects.of.contains_key(&key) { "MODIFIED" } else { "ADDED" };
        objects.of.insert(key.clone(), object.clone());
        // Nobody may be watching.
        let _ = self.changes.send((key, json!({ "type": kind, "object": object })));
        object
    }

    fn list(&self, of: &Key, query: &str) -> Response {
        let objects = self.state.lock().unwrap();
        let items: Vec<&Value> = objects
            .of
            .iter()
            .filter(|(key, _)| of.contains(key) && selects(query, key))
            .map(|(_, object)| object)
            .collect();
        let version = objects.version.to_string();
        found(&json!({ "metadata": { "resourceVersion": version }, "items": items }))
    }

    fn watch(&self, of: Key, query: String) -> Response {
        let (changes, api) = (self.changes.subscribe(), self.clone());
        let frames = futures::stream::unfold(changes, move |mut changes| {
            let (of, query, api) = (of.clone(), query.clone(), api.clone());
            async move {
                loop {
                    let (key, event) = changes.recv().await.ok()?;
                    api.wait().await;
                    if of.contains(&key) && selects(&query, &key) {
                        return Some((Ok::<_, std::io::Error>(format!("{event}\n")), changes));
                    }
                }
            }
        });
        Body::from_stream(frames).into_response()
    }

    fn write(&self, method: &Method, mut key: Key, body: Value) -> Response {
        let mut objects = self.state.lock().unwrap();
        if *method == Method::POST {
            key.name = body["metadata"]["name"].as_str().map(str::to_owned);
        }
        let object = match (method.as_str(), objects.of.get(&key)) {
            ("POST", Some(_)) => return failure(StatusCode::CONFLICT),
            ("POST", None) => body,
            (_, None) => return failure(StatusCode::NOT_FOUND),
            ("DELETE", Some(_)) => return found(&objects.of.remove(&key).unwrap_or_default()),
            (_, Some(known)) => {
                let version = &body["metadata"]["resourceVersion"];
                if !version.is_null() && *version != known["metadata"]["resourceVersion"] {
                    return failure(StatusCode::CONFLICT);
                }
                if method == Method::PATCH { merged(known.clone(), body) } else { body }
            }
        };
        found(&self.store(&mut objects, key, object))
    }
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    if parts.uri.path() == "/readyz" {
        let code = StatusCode::from_u16(api.ready.load(Ordering::Relaxed));
        // Without a code for it that hangs too.
        let Ok(code) = code else { return std::future::pending().await };
        return (code, "[-]etcd failed: reason withheld").into_response();
    }
    api.wait().await;
    let Some(key) = Key::parse(parts.uri.path()) else { return failure(StatusCode::NOT_FOUND) };
    let query = parts.uri.query().unwrap_or_default().to_owned();
    if parts.method != Method::GET {
        let body = to_bytes(body, LONGEST).await.unwrap_or_default();
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        if key.resource.ends_with("/selfsubjectaccessreviews") {
            return found(&json!({ "spec": body["spec"], "status": { "allowed": true } }));
        }
        return api.write(&parts.method, key, body);
    }
    match &key.name {
        None if query.contains("watch=true") => api.watch(key, query),
        None => api.list(&key, &query),
        Some(_) => match api.state.lock().unwrap().of.get(&key) {
            Some(object) => found(object),
            None => failure(StatusCode::NOT_FOUND),
        },
    }
}

/// Of field selectors there are only those of one name.
fn selects(query: &str, key: &Key) -> bool {
    match query.split_once("metadata.name%3D") {
        Some((_, name)) => name.split('&').next() == key.name.as_deref(),
        None => true,
    }
}

fn found(object: &Value) -> Response {
    object.to_string().into_response()
}

fn failure(code: StatusCode) -> Response {
    let reason = if code == StatusCode::NOT_FOUND { "NotFound" } else { "Conflict" };
    let code_number = code.as_u16();
    let status = json!({
        "kind": "Status", "status": "Failure", "code": code_number, "message": "no",
        "reason": reason,
    });
    (code, status.to_string()).into_response()
}

/// RFC 7386.
fn merged(mut target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    if !target.is_object() {
        target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|object| object.remove(&key));
        } else {
            let before = target.get(&key).cloned().unwrap_or(Value::Null);
            target[key] = merged(before, value);
        }
    }
    target
}
