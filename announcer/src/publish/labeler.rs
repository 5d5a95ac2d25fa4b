//! Keeps the labels of Nodes that say which addresses this one answers for ([`super::labels`]): level-triggered, so that what an
//! earlier life has left, or somebody has taken off, is put right.
//!
//! # Permissions
//!
//! `list` and `patch` on `nodes`.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_runtime::http::Health;
use berth_runtime::refusals::Refusals;
use berth_runtime::watch::{chain, forbidden};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Error};
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::labels::{Change, Labelled, Labels, changes};

/// The name of the task, and of the check that passes and says what is missing.
pub const TASK: &str = "node labels";

/// The least time between two looks.
const SOON: Duration = Duration::from_secs(1);
/// The least time between two at all Nodes, which there may be thousands of: addresses may come and go as tenants like.
const ALL: Duration = Duration::from_secs(10);
/// How many of them are asked for at once.
const PAGE: u32 = 250;
/// How often the Node is looked at where nothing changes.
const LOOK: Duration = Duration::from_secs(300);
/// How long until what failed is tried again.
const AGAIN: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(10);

/// Keeps them.
pub struct Labeler {
    nodes: Api<Node>,
    node: String,
    health: Health,
    /// The addresses of which no other Node says any more that it has them.
    taken: BTreeSet<IpAddr>,
    refusals: Refusals,
    /// When all Nodes may be looked at again.
    all_at: Instant,
    /// What was complained of last.
    complained: Option<String>,
}

impl Labeler {
    /// Of `node`, which is this one.
    pub fn new(client: Client, node: &str, health: Health) -> Self {
        let (taken, refusals, complained) = Default::default();
        let (nodes, node, all_at) = (Api::all(client), node.to_owned(), Instant::now());
        Self { nodes, node, health, taken, all_at, refusals, complained }
    }

    /// Keeps what is wanted, until nobody says so any more: then there is nothing.
    pub async fn keep(mut self, mut wanted: watch::Receiver<Option<Labels>>) {
        loop {
            let Ok(labels) = wanted.wait_for(Option::is_some).await.map(|known| known.clone())
            else {
                break;
            };
            let pause = self.see_to(&labels.unwrap_or_default()).await;
            tokio::time::sleep(SOON).await;
            if let Ok(Err(_)) = tokio::time::timeout(pause, wanted.changed()).await {
                break;
            }
        }
        self.see_to(&Labels::default()).await;
    }

    /// Makes it so. Gives how long to wait where nothing changes.
    async fn see_to(&mut self, labels: &Labels) -> Duration {
        // Only what was gained may stand on another Node: else this one is enough to look at.
        self.taken.retain(|address| labels.live.contains(address));
        let (gains, now) = (!labels.live.is_subset(&self.taken), Instant::now());
        let is_due = gains && now >= self.all_at;
        if is_due {
            self.all_at = now + ALL;
        }
        let written = tokio::time::timeout(TIMEOUT, self.write(labels, is_due)).await;
        let is_refused = |error: &Error| matches!(error, Error::Api(status) if status.code == 403);
        if !matches!(&written, Ok(Err(error)) if is_refused(error)) {
            self.refusals.end();
        }
        let (pause, trouble) = match written {
            Ok(Ok(true)) if gains && !is_due => (self.all_at.duration_since(now), None),
            Ok(Ok(true)) => {
                self.taken.clone_from(&labels.live);
                (LOOK, None)
            }
            Ok(Ok(false)) => {
                (AGAIN, Some(format!("there is no Node {} (vip_nodename)", self.node)))
            }
            Ok(Err(Error::Api(status))) if matches!(status.code, 404 | 409) => (SOON, None),
            Ok(Err(Error::Api(status))) if status.code == 403 => {
                let why = forbidden("list and patch", "nodes", &status.message);
                (self.refusals.again(), Some(why))
            }
            Ok(Err(error)) => (AGAIN, Some(chain(&error))),
            Err(_) => (AGAIN, Some(format!("no answer within {TIMEOUT:?}"))),
        };
        if !self.refusals.are_doubted() {
            self.complain(trouble);
        }
        pause
    }

    /// False if there is no such Node. One that cannot be written keeps no other from it, and this one comes first.
    async fn write(&self, labels: &Labels, at_all: bool) -> kube::Result<bool> {
        let own = ListParams::default().fields(&format!("metadata.name={}", self.node));
        let nodes = self.list(if at_all { ListParams::default() } else { own }).await?;
        let mut changes = changes(&nodes, &self.node, labels);
        changes.sort_by_key(|change| change.node != self.node);
        let mut refused = None;
        for Change { node, version, labels } in changes {
            let patch = Patch::Merge(
                json!({ "metadata": { "resourceVersion": version, "labels": labels } }),
            );
            match self.nodes.patch_metadata(&node, &PatchParams::default(), &patch).await {
                Ok(_) => {}
                Err(Error::Api(status)) => _ = refused.get_or_insert(status),
                Err(error) => return Err(error),
            }
        }
        match refused {
            Some(status) => Err(Error::Api(status)),
            None => Ok(nodes.iter().any(|node| node.name == self.node)),
        }
    }

    async fn list(&self, those: ListParams) -> kube::Result<Vec<Labelled>> {
        let (mut those, mut nodes) = (those.limit(PAGE), Vec::new());
        loop {
            let page = self.nodes.list_metadata(&those).await?;
            let rest = page.metadata.continue_.clone().filter(|rest| !rest.is_empty());
            nodes.extend(page.into_iter().map(|node| Labelled::read(node.metadata)));
            match rest {
                Some(rest) => those = those.continue_token(&rest),
                None => return Ok(nodes),
            }
        }
    }

    /// Tells the same trouble once, and its end.
    fn complain(&mut self, trouble: Option<String>) {
        match &trouble {
            Some(why) => self.health.missing(TASK, why),
            None => self.health.forget(TASK),
        }
        if trouble == self.complained {
            return;
        }
        match &trouble {
            Some(why) => {
                tracing::warn!(
                    "not every Node is labelled with the addresses that it answers for: {why}"
                )
            }
            None => {
                tracing::info!("Nodes are labelled again with the addresses that they answer for")
            }
        }
        self.complained = trouble;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kube::client::Body;
    use serde_json::Value;

    use super::*;

    type Seen = Arc<Mutex<Vec<(String, Value)>>>;

    /// An API server with this node, which refuses so many patches, and what it was asked for.
    fn api(refusals: usize) -> (Client, Seen) {
        let (seen, labels) = (Seen::default(), Arc::new(Mutex::new(json!({}))));
        let asked = seen.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let (asked, labels) = (asked.clone(), labels.clone());
            async move {
                let (parts, body) = request.into_parts();
                let sent = body.collect_bytes().await?;
                let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
                let query = parts.uri.query().unwrap_or_default();
                let what = if query.contains("fieldSelector") { "own" } else { "all" };
                let what = if parts.method == "PATCH" { "patch" } else { what };
                let mut asked = asked.lock().unwrap();
                asked.push((what.to_owned(), sent.clone()));
                let is_refused =
                    asked.iter().filter(|(what, _)| what == "patch").count() <= refusals;
                let mut had = labels.lock().unwrap();
                let taken = sent["metadata"]["labels"].as_object().filter(|_| !is_refused);
                for (key, value) in taken.into_iter().flatten() {
                    had[key] = value.clone();
                }
                had.as_object_mut().unwrap().retain(|_, value| !value.is_null());
                let metadata = json!({ "name": "a", "resourceVersion": "7", "labels": *had });
                let (code, body) = match what {
                    "patch" if is_refused => (403, json!({ "code": 403, "message": "no" })),
                    "patch" => (200, json!({ "metadata": metadata })),
                    _ => (200, json!({ "metadata": {}, "items": [{ "metadata": metadata }] })),
                };
                let body = Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
            }
        });
        (Client::new(service, "default"), seen)
    }

    fn labels(address: &str) -> Option<Labels> {
        let all = [("kube-vip.io/has-ip".to_owned(), address.to_owned())].into();
        Some(Labels { all, live: [address.parse().unwrap()].into() })
    }

    /// What was asked for, and how much readiness said to be missing before the end.
    async fn after(
        refusals: usize,
        tells: &[Option<Labels>],
        rest: Duration,
    ) -> (Vec<String>, usize) {
        let ((client, seen), health) = (api(refusals), Health::default());
        let (tell, told) = watch::channel(None);
        let keeping = tokio::spawn(Labeler::new(client, "a", health.clone()).keep(told));
        for labels in tells {
            tell.send_replace(labels.clone());
            tokio::time::sleep(rest).await;
        }
        let missing = health.missing_checks().len();
        drop(tell);
        keeping.await.unwrap();
        let asked = seen.lock().unwrap().iter().map(|(what, _)| what.clone()).collect();
        (asked, missing)
    }

    #[tokio::test(start_paused = true)]
    async fn other_nodes_are_looked_at_where_an_address_is_gained_and_the_labels_go_with_the_announcer()
     {
        let quarter = Duration::from_secs(900);
        let (asked, missing) = after(0, &[labels("192.0.2.1")], quarter).await;
        assert_eq!(asked, ["all", "patch", "own", "own", "own", "patch"]);
        assert_eq!(missing, 0);
        let moves = [labels("192.0.2.1"), labels("192.0.2.2"), Some(Labels::default())];
        let (asked, _) = after(0, &moves, Duration::from_secs(10)).await;
        assert_eq!(asked, ["all", "patch", "all", "patch", "own", "patch", "own"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_right_that_is_missing_is_shown_by_readiness_and_seldom_tried() {
        let (asked, missing) =
            after(usize::MAX, &[labels("192.0.2.1")], Duration::from_secs(3600)).await;
        assert!((100..140).contains(&asked.len()), "{}", asked.len());
        assert_eq!(missing, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_api_server_refuses_that_has_just_begun_is_asked_for_again_at_once_and_not_told()
     {
        let (asked, missing) = after(2, &[labels("192.0.2.1")], Duration::from_secs(10)).await;
        assert_eq!(asked[..6], ["all", "patch", "own", "patch", "own", "patch"], "{asked:?}");
        assert_eq!(missing, 0);
        let (_, missing) = after(2, &[labels("192.0.2.1")], Duration::from_millis(2500)).await;
        assert_eq!(missing, 0, "while it refuses");
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_an_address_come_and_go_has_all_nodes_looked_at_no_more_than_every_ten_seconds()
    {
        let moves: Vec<_> = (0..60).map(|n| labels(&format!("192.0.2.{}", n % 2))).collect();
        let (asked, _) = after(0, &moves, Duration::from_secs(2)).await;
        let of = |what: &str| asked.iter().filter(|asked| *asked == what).count();
        assert!(of("all") <= 13, "{asked:?}");
        assert!(of("patch") >= 60, "its own Node follows: {asked:?}");
        assert!(of("all") + of("own") <= 75, "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_node_that_cannot_be_written_keeps_no_other_from_it() {
        let patched = Arc::new(Mutex::new(Vec::new()));
        let seen = patched.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let path = request.uri().path().to_owned();
            if request.method() == "PATCH" {
                seen.lock().unwrap().push(path.clone());
            }
            let node = |name: &str| json!({ "metadata": { "name": name, "resourceVersion": "7", "labels": { "kube-vip.io/has-ip": "192.0.2.1" } } });
            let (code, body) = match (request.method().as_str(), path.ends_with("/0")) {
                ("PATCH", true) => (422, json!({ "code": 422, "message": "no" })),
                ("PATCH", false) => (200, node("a")),
                _ => (200, json!({ "metadata": {}, "items": [node("0"), node("a"), node("z")] })),
            };
            let body = Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body).unwrap();
            std::future::ready(Ok::<_, tower::BoxError>(answer))
        });
        let client = Client::new(service, "default");
        let mut labeler = Labeler::new(client, "a", Health::default());
        let both = ["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()];
        let all = [("kube-vip.io/has-ip".to_owned(), "192.0.2.2".to_owned())].into();
        labeler.see_to(&Labels { all, live: both.into() }).await;
        let patched: Vec<_> = patched
            .lock()
            .unwrap()
            .iter()
            .map(|path| path.rsplit('/').next().unwrap().to_owned())
            .collect();
        assert_eq!(patched, ["a", "0", "z"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_hundred_changes_in_a_second_are_one_write() {
        let changes: Vec<_> = (1..=100).map(|n| labels(&format!("192.0.2.{n}"))).collect();
        let (asked, _) = after(0, &changes, Duration::from_millis(10)).await;
        assert!(asked.len() <= 6, "{asked:?}");
    }
}
