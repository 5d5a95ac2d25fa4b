//! An API server of a few lines: it keeps Leases and the status of Services, and notes what it is asked and what the
//! network looked like at that moment.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::{Method, Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::namespace::addresses;

/// How long anything is waited for: an emulated guest on a busy machine stands still for many seconds.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// Method and path.
    pub(crate) what: String,
    /// Its body.
    pub(crate) body: Value,
    /// The addresses of Services on `eth0` when it came.
    pub(crate) bound: Vec<String>,
}

/// The server.
#[derive(Clone)]
pub(crate) struct Cluster {
    state: Arc<Mutex<State>>,
    /// How many requests have come.
    count: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Value>,
    version: u64,
    asked: Vec<Asked>,
    silent: bool,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        Self { state: Arc::default(), count: watch::channel(0).0 }
    }

    pub(crate) fn client(&self) -> Client {
        let cluster = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let cluster = cluster.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await?;
                let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                match cluster.answer(&parts.method, parts.uri.path(), body) {
                    Some((code, answer)) => {
                        let body = Body::from(serde_json::to_vec(&answer)?);
                        Ok::<_, tower::BoxError>(Response::builder().status(code).body(body)?)
                    }
                    None => std::future::pending().await,
                }
            }
        });
        Client::new(service, "default")
    }

    /// Keeps an object under a path; gives its version.
    pub(crate) fn put(&self, path: &str, mut object: Value) -> Value {
        let mut state = self.state.lock().unwrap();
        state.version += 1;
        object["metadata"]["resourceVersion"] = json!(state.version.to_string());
        state.objects.insert(path.to_owned(), object.clone());
        object
    }

    /// From now on no request is answered.
    pub(crate) fn fall_silent(&self) {
        self.state.lock().unwrap().silent = true;
    }

    /// Every request so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.state.lock().unwrap().asked.clone()
    }

    /// Waits for a request that passes.
    pub(crate) async fn asks(&self, passes: impl Fn(&Asked) -> bool) -> Asked {
        let mut count = self.count.subscribe();
        let wait = async {
            loop {
                if let Some(asked) = self.asked().into_iter().find(|asked| passes(asked)) {
                    return asked;
                }
                count.changed().await.expect("the server goes on");
            }
        };
        let asked = tokio::time::timeout(PATIENCE, wait).await;
        asked.unwrap_or_else(|_| panic!("not asked for; asked was {:#?}", self.asked()))
    }

    fn answer(&self, method: &Method, path: &str, body: Value) -> Option<(u16, Value)> {
        let bound = addresses("eth0").into_iter().filter(|shown| shown["deprecated"] == true);
        let bound = bound.filter_map(|shown| shown["local"].as_str().map(str::to_owned)).collect();
        let mut state = self.state.lock().unwrap();
        state.asked.push(Asked { what: format!("{method} {path}"), body: body.clone(), bound });
        self.count.send_modify(|count| *count += 1);
        if state.silent {
            return None;
        }
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        let key = match path.strip_suffix("/status") {
            Some(object) => object.to_owned(),
            None if *method == Method::POST => format!("{path}/{name}"),
            None => path.to_owned(),
        };
        state.version += 1;
        let version = json!(state.version.to_string());
        let known = state.objects.get(&key).cloned();
        let mut object = match (method.as_str(), known) {
            ("POST", Some(_)) => return Some((409, failure(409))),
            ("POST", None) => body,
            (_, None) => return Some((404, failure(404))),
            ("GET", Some(known)) => return Some((200, known)),
            ("DELETE", Some(known)) => {
                state.objects.remove(&key);
                return Some((200, known));
            }
            (_, Some(known)) => {
                let swaps_on = &body["metadata"]["resourceVersion"];
                if *swaps_on != known["metadata"]["resourceVersion"] {
                    return Some((409, failure(409)));
                }
                if method == Method::PATCH { merged(known, body) } else { body }
            }
        };
        object["metadata"]["resourceVersion"] = version;
        state.objects.insert(key, object.clone());
        Some((200, object))
    }
}

fn failure(code: u16) -> Value {
    let reason = if code == 404 { "NotFound" } else { "no" };
    json!({ "kind": "Status", "status": "Failure", "code": code, "message": "no", "reason": reason })
}

/// RFC 7386.
fn merged(mut target: Value, patch: Value) -> Value {
    let Value::Object(patch) = patch else { return patch };
    if !target.is_object() {
        target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().unwrap().remove(&key);
        } else {
            let before = target.get(&key).cloned().unwrap_or(Value::Null);
            target[key] = merged(before, value);
        }
    }
    target
}
