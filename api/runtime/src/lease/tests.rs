use super::*;

use std::collections::VecDeque;

use axum::body::{Body, Bytes};
use berth_api::election::Timing;
use http::{Method, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::sync::mpsc;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";

/// An API server with one Lease. Every request but watches is in `log`.
#[derive(Clone, Default)]
struct Server(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    version: u64,
    lease: Option<Value>,
    log: Vec<String>,
    watchers: Vec<mpsc::UnboundedSender<Value>>,
    faults: VecDeque<u16>,
}

impl Server {
    fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let server = server.clone();
            async move { Ok::<_, tower::BoxError>(server.serve(request).await) }
        });
        Client::new(service, "kube-system")
    }

    async fn serve(&self, request: Request<kube::client::Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let (path, query) =
            (parts.uri.path().to_owned(), parts.uri.query().unwrap_or_default().to_owned());
        assert!(path.starts_with(PATH), "{path}");
        let body = body.collect_bytes().await.unwrap();
        let mut inner = self.0.lock().unwrap();
        if query.contains("watch=true") {
            let (sender, receiver) = mpsc::unbounded_channel();
            inner.watchers.push(sender);
            let lines = futures::stream::unfold(receiver, |mut receiver| async move {
                let event: Value = receiver.recv().await?;
                Some((Ok::<_, std::io::Error>(Bytes::from(format!("{event}\n"))), receiver))
            });
            return Response::new(Body::from_stream(lines));
        }
        inner.log.push(format!("{} {}", parts.method, path.trim_start_matches(PATH)));
        let fault = inner.faults.pop_front().unwrap_or(0);
        if parts.method == Method::GET && path == PATH {
            let items: Vec<_> = inner.lease.iter().cloned().collect();
            return answer(
                200,
                json!({ "metadata": { "resourceVersion": inner.version.to_string() }, "items": items }),
            );
        }
        if fault == 403 || fault == 429 {
            return answer(fault, json!({ "code": fault, "message": "no", "reason": "x" }));
        }
        let reply = inner.apply(&parts.method, serde_json::from_slice(&body).ok());
        if fault == 500 {
            answer(500, json!({ "code": 500, "message": "request timed out" }))
        } else {
            reply
        }
    }

    fn put(&self, holder: Option<&str>) {
        let mut inner = self.0.lock().unwrap();
        let spec =
            json!({ "holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 1 });
        let version = inner.version.to_string();
        let lease = json!({ "metadata": { "name": "lock", "namespace": "kube-system", "resourceVersion": version }, "spec": spec });
        let method = if inner.lease.is_some() { Method::PUT } else { Method::POST };
        inner.apply(&method, Some(lease));
    }

    fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }

    fn holder(&self) -> Value {
        self.0.lock().unwrap().lease.clone().unwrap_or_default()["spec"]["holderIdentity"].clone()
    }

    fn annotation(&self, name: &str) -> Value {
        let lease = self.0.lock().unwrap().lease.clone().unwrap_or_default();
        lease["metadata"]["annotations"][name].clone()
    }
}

impl Inner {
    fn apply(&mut self, method: &Method, object: Option<Value>) -> Response<Body> {
        let conflict =
            || answer(409, json!({ "code": 409, "message": "conflict", "reason": "Conflict" }));
        let Some(mut object) = object.filter(|_| method != Method::GET) else {
            return match &self.lease {
                Some(lease) => answer(200, lease.clone()),
                None => answer(
                    404,
                    json!({ "code": 404, "message": "not found", "reason": "NotFound" }),
                ),
            };
        };
        let kind = match (method, &self.lease) {
            (&Method::POST, None) => "ADDED",
            (&Method::PUT, Some(lease))
                if lease["metadata"]["resourceVersion"]
                    == object["metadata"]["resourceVersion"] =>
            {
                "MODIFIED"
            }
            _ => return conflict(),
        };
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = Some(object.clone());
        self.watchers
            .retain(|watcher| watcher.send(json!({ "type": kind, "object": object })).is_ok());
        answer(200, object)
    }
}

fn answer(code: u16, body: Value) -> Response<Body> {
    let mut response = Response::new(Body::from(serde_json::to_vec(&body).unwrap()));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    response
}

fn quick() -> Timing {
    Timing::new(Duration::from_secs(1), Duration::from_millis(600), Duration::from_millis(100))
        .unwrap()
}

struct Contest {
    server: Server,
    tenure: Tenure,
    leave: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

fn start(server: &Server, identity: &str) -> Contest {
    start_with(server, identity, None)
}

fn start_with(server: &Server, identity: &str, word: Option<Word>) -> Contest {
    let (sender, tenure) = Tenure::granted();
    let leave = CancellationToken::new();
    let election = Election::new(template("kube-system", "lock"), identity, quick());
    let task = contend(server.client(), election, sender, word, leave.clone());
    Contest { server: server.clone(), tenure, leave, task: tokio::spawn(task) }
}

impl Contest {
    async fn holds(&mut self, wanted: bool) {
        let change = async {
            while self.tenure.until(Instant::now()).is_some() != wanted {
                self.tenure.changed().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), change).await.expect("no change of tenure");
    }

    async fn requests(&self, count: usize) -> Vec<String> {
        let enough = async {
            while self.server.log().len() < count {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), enough).await.expect("too few requests");
        self.server.log()
    }
}

#[tokio::test]
async fn a_holder_renews_without_reading_and_gives_the_lease_back() {
    let server = Server::default();
    let mut contest = start(&server, "a");
    contest.holds(true).await;
    let log = contest.requests(6).await;
    assert_eq!(log[..2], ["GET ", "POST "]);
    assert!(log[2..].iter().all(|line| line == "PUT /lock"), "{log:?}");
    assert_eq!(server.holder(), "a");
    contest.leave.cancel();
    contest.task.await.unwrap();
    assert_eq!(server.holder(), Value::Null);
}

#[tokio::test]
async fn a_holder_leaves_word_to_the_next_one() {
    let server = Server::default();
    let word = || Word::new("berth.dev/word", "berth.dev/word-by");
    let (first, second) = (word(), word());
    assert_eq!(server.annotation("berth.dev/word-by"), Value::Null);
    first.say(Some("seven".to_owned()));
    let mut contest = start_with(&server, "a", Some(first.clone()));
    contest.holds(true).await;
    assert_eq!(first.heard().as_deref(), Some("seven"));
    assert_eq!(server.annotation("berth.dev/word-by"), "a");
    first.say(Some("eight".to_owned()));
    contest.leave.cancel();
    contest.task.await.unwrap();
    let mut contest = start_with(&server, "b", Some(second.clone()));
    contest.holds(true).await;
    assert_eq!(second.heard().as_deref(), Some("eight"), "the last word, and before b acts");
    assert_eq!(server.annotation("berth.dev/word-by"), "b", "who keeps it signs it");
    second.take_back();
    contest.leave.cancel();
    contest.task.await.unwrap();
    let left = ["berth.dev/word", "berth.dev/word-by"].map(|name| server.annotation(name));
    assert_eq!(left, [Value::Null, Value::Null]);
}

#[tokio::test]
async fn a_follower_sends_nothing_until_the_lease_is_released() {
    let server = Server::default();
    server.put(Some("b"));
    let mut contest = start(&server, "a");
    contest.requests(1).await;
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        server.put(Some("b"));
    }
    assert_eq!(server.log(), ["GET "]);
    assert!(contest.tenure.until(Instant::now()).is_none());
    server.put(None);
    contest.holds(true).await;
    assert_eq!(server.log()[1], "PUT /lock");
}

#[tokio::test]
async fn an_error_after_the_write_costs_a_read_and_not_the_lease() {
    let server = Server::default();
    let mut contest = start(&server, "a");
    contest.holds(true).await;
    server.0.lock().unwrap().faults.push_back(500);
    let count = server.log().len();
    contest.requests(count + 6).await;
    contest.holds(true).await;
    assert_eq!(server.holder(), "a");
}

#[tokio::test]
async fn who_cannot_renew_stops_by_itself() {
    let server = Server::default();
    let mut contest = start(&server, "a");
    contest.holds(true).await;
    server.0.lock().unwrap().faults.extend([403; 100]);
    contest.holds(false).await;
    assert_eq!(server.holder(), "a", "nobody took it: it stopped on its own account");
}

#[tokio::test]
async fn a_lease_that_has_changed_is_not_deleted() {
    let service = tower::service_fn(|request: Request<kube::client::Body>| async move {
        assert_eq!(request.method(), Method::DELETE);
        let body = request.into_body().collect_bytes().await.unwrap();
        let options: Value = serde_json::from_slice(&body).unwrap();
        let stale = options["preconditions"] == json!({ "uid": "u", "resourceVersion": "7" });
        Ok::<_, tower::BoxError>(answer(
            if stale { 409 } else { 500 },
            json!({ "code": 409, "message": "stale" }),
        ))
    });
    let leases = Leases::new(Client::new(service, "default"), Duration::from_secs(1));
    let mut seen = template("shop", "kubevip-web");
    seen.metadata.uid = Some("u".to_owned());
    seen.metadata.resource_version = Some("7".to_owned());
    assert_eq!(leases.delete(&seen).await, Deletion::Changed);
}

#[tokio::test]
async fn a_lease_that_was_cut_is_written_back_whole_if_it_is_as_it_was_seen() {
    let finalizers: Vec<_> = (0..1000).map(|n| format!("a/{n:04}")).collect();
    let lease = json!({
        "metadata": {
            "namespace": "kube-system",
            "name": "web",
            "uid": "u",
            "resourceVersion": "7",
            "finalizers": finalizers,
            "labels": { "team": "shop" },
        },
        "spec": { "holderIdentity": "a" },
    });
    let mut seen: Lease = serde_json::from_value(lease.clone()).unwrap();
    berth_api::election::cut(&mut seen);
    assert!(seen.metadata.finalizers.is_none());
    seen.spec.as_mut().unwrap().holder_identity = Some("b".to_owned());
    for (version, expected) in [("7", 2), ("8", 1)] {
        let log = Arc::new(Mutex::new(Vec::new()));
        let (asked, mut stored) = (log.clone(), lease.clone());
        stored["metadata"]["resourceVersion"] = json!(version);
        let service = tower::service_fn(move |request: Request<kube::client::Body>| {
            let (asked, stored) = (asked.clone(), stored.clone());
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect_bytes().await.unwrap();
                let put: Value = serde_json::from_slice(&body).unwrap_or_default();
                asked.lock().unwrap().push((parts.method.clone(), put.clone()));
                let body = if parts.method == Method::PUT { put } else { stored };
                Ok::<_, tower::BoxError>(answer(200, body))
            }
        });
        let leases = Leases::new(Client::new(service, "kube-system"), Duration::from_secs(5));
        let replace = Action::Replace(Box::new(seen.clone()));
        let reply = leases.send("kube-system", "web", replace).await;
        let log = log.lock().unwrap();
        assert_eq!(log.len(), expected, "{log:?}");
        let Some((method, put)) = log.get(1) else {
            assert_eq!(reply, Reply::Conflict);
            continue;
        };
        assert_eq!(method, Method::PUT);
        let (metadata, holder) = (&put["metadata"], &put["spec"]["holderIdentity"]);
        assert_eq!(metadata["finalizers"], lease["metadata"]["finalizers"]);
        assert_eq!(
            (&metadata["labels"], &metadata["resourceVersion"], holder),
            (&json!({ "team": "shop" }), &json!("7"), &json!("b"))
        );
    }
}
