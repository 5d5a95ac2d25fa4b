//! Keeps the Lease by which this node tells of itself ([`berth_api::host`]). It is renewed while this process lives and
//! stays when it ends: the node has its addresses all the same. It belongs to the Node object, and goes with that.
//!
//! It is one host's at a time ([`HostId`]): two that go by one name would be one voter and one holder of Leases to everybody,
//! and both would answer. Before anything else a process makes it its own (`name`), which it cannot while another host renews
//! it; and it ends when another one has done so.
//!
//! # Permissions
//!
//! `get`, `create` and `update` on `leases.coordination.k8s.io` in the namespace of the control plane's Lease, and `list`
//! on `nodes`.

mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::host::{HostId, Told};
use berth_api::names::lease;
use berth_runtime::refusals::Refusals;
use berth_runtime::watch::{chain, forbidden};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, OwnerReference};
use kube::api::{Api, ListParams, PostParams, Resource};
use kube::{Client, Error};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// How often the Lease is renewed.
const RENEW: Duration = Duration::from_secs(20);
/// How soon after a write one follows that tells of other routers: the next life of this process goes by it.
const HASTE: Duration = Duration::from_secs(2);
/// How soon after a change the next one is written.
const CHANGE: Duration = Duration::from_secs(60);
/// How long it says that this process lives.
const DURATION: Duration = Duration::from_secs(60);
/// How long to wait before a write is tried again.
const AGAIN: Duration = Duration::from_secs(5);
/// The same where somebody else has written it.
const SOON: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long an address that is seen no more is still told.
const GOING: Duration = Duration::from_secs(600);
/// What it needs.
const RIGHTS: (&str, &str) =
    ("get, create and update leases.coordination.k8s.io, and to list", "nodes");

/// Keeps the Lease of a node.
pub struct Keeper {
    leases: Api<Lease>,
    nodes: Api<Node>,
    name: String,
    node: String,
    namespace: String,
    id: HostId,
    /// Whether it tells of the node, and goes with its Node object, which has to be there.
    of_node: bool,
    /// Somebody goes by what is told from now on: the same is written once more.
    again: Arc<Notify>,
    /// As it was written last.
    known: Option<Lease>,
    /// What the Lease told, and is not seen any more, with when it is told no longer.
    going: BTreeMap<IpAddr, (u8, Instant)>,
    /// Whether it was not found when it was last written: it may be its namespace that is not there.
    missed: bool,
    /// How often in a row it was refused.
    refusals: Refusals,
    /// What was complained of last.
    complained: Option<String>,
}

/// Why the Lease could not be written.
enum Failure {
    /// The API server refused it, or did not answer.
    Api(Error),
    /// The cluster has no such Node, so that nobody would remove the Lease.
    NoNode,
    /// Another host goes by this name.
    Namesake(HostId),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Api(error)
    }
}

impl Keeper {
    /// Of `node`, which is this host; its Lease is in `namespace`.
    pub fn new(client: Client, namespace: &str, node: &str, id: HostId) -> Self {
        Self {
            leases: Api::namespaced(client.clone(), namespace),
            nodes: Api::all(client),
            name: lease::of_host(node),
            node: node.to_owned(),
            namespace: namespace.to_owned(),
            id,
            of_node: true,
            again: Arc::default(),
            known: None,
            going: BTreeMap::new(),
            missed: false,
            refusals: Refusals::default(),
            complained: None,
        }
    }

    /// Of `node` among those that may have the control plane's address: it tells which host goes by that name, and of its API
    /// server, in a Lease beside the other, and before there is a Node.
    pub fn of_control_plane(client: Client, namespace: &str, node: &str, id: HostId) -> Self {
        let of_node = Self::new(client, namespace, node, id);
        Self { name: lease::of_control_plane(node), of_node: false, ..of_node }
    }

    /// The same, and says what it says once more, soon, whenever it is notified.
    pub fn repeating(self, again: Arc<Notify>) -> Self {
        Self { again, ..self }
    }

    /// The sessions with routers that the Lease tells of, once the name is this host's: those of an earlier life.
    pub fn sessions_before(&self) -> BTreeSet<String> {
        let told = self.known.as_ref().and_then(|lease| Told::read(lease).routers);
        told.map(|routers| routers.sessions).unwrap_or_default()
    }

    /// Keeps the Lease, with what `told` says. Returns when another host goes by this name: this process is to end, then.
    pub async fn keep(mut self, mut told: watch::Receiver<Option<Told>>) {
        let mut changed_at: Option<Instant> = None;
        let mut written: Option<Told> = None;
        loop {
            let wanted = match told.wait_for(Option::is_some).await {
                Ok(told) => told.clone().unwrap_or_default(),
                Err(_) => return,
            };
            let rests = changed_at.is_some_and(|at| at + self.rest() > Instant::now());
            let telling = match &written {
                Some(written) if rests => Told { routers: wanted.routers, ..written.clone() },
                _ => wanted,
            };
            let failed = match tokio::time::timeout(TIMEOUT, self.write(&telling)).await {
                Ok(Ok(())) => None,
                Ok(Err(Failure::Namesake(other))) => {
                    tracing::error!(node = self.node, lease = self.name, %other, "another host goes by this name");
                    return;
                }
                Ok(Err(error)) => Some(self.failed(error)),
                Err(_) => {
                    self.complain(Some(format!("no answer within {TIMEOUT:?}")));
                    Some(AGAIN)
                }
            };
            if let Some(pause) = failed {
                tokio::time::sleep(pause).await;
                continue;
            }
            self.complain(None);
            self.missed = false;
            self.refusals.end();
            let now = Instant::now();
            let routers = telling.routers.clone();
            let is_same = |written: &Told| {
                *written == Told { routers: written.routers.clone(), ..telling.clone() }
            };
            if !written.as_ref().is_some_and(is_same) {
                changed_at = Some(now);
            }
            written = Some(telling);
            let renewal = now + RENEW;
            let may_change = changed_at.map_or(now, |at| at + self.rest()).min(renewal);
            let mut is_asked = false;
            loop {
                let due = match &*told.borrow_and_update() {
                    same if *same == written && is_asked => (now + SOON).min(renewal),
                    same if *same == written => renewal,
                    Some(news) if news.routers != routers => (now + HASTE).min(renewal),
                    _ => may_change,
                };
                tokio::select! {
                    () = tokio::time::sleep_until(due) => break,
                    () = self.again.notified() => is_asked = true,
                    changed = told.changed() => if changed.is_err() {
                        // This process ends; its last word is written in its turn.
                        if *told.borrow() == written {
                            return;
                        }
                        tokio::time::sleep_until(due).await;
                        break;
                    },
                }
            }
        }
    }

    /// How soon after a change the next one is written: others go by what is told of an API server.
    fn rest(&self) -> Duration {
        if self.of_node { CHANGE } else { SOON }
    }

    /// Renews the Lease, with what is told. What was read and not written by this process has to be this host's.
    async fn write(&mut self, told: &Told) -> Result<(), Failure> {
        let known = match self.known.take() {
            Some(known) => Some(known),
            None => self.leases.get_opt(&self.name).await?,
        };
        if let Some(other) = known.as_ref().and_then(|lease| self.namesake(lease)) {
            return Err(Failure::Namesake(other));
        }
        self.renew(known, told).await
    }

    /// The other host that wrote the Lease last, if it was one.
    fn namesake(&self, lease: &Lease) -> Option<HostId> {
        HostId::read(lease).filter(|written| !written.is_same_host(&self.id))
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "whoever reads a Lease counts from when it changes"
    )]
    async fn renew(&mut self, known: Option<Lease>, told: &Told) -> Result<(), Failure> {
        let is_new = known.is_none();
        let mut lease = known.unwrap_or_default();
        if is_new || self.is_orphan(&lease) {
            lease.metadata.owner_references = match self.owner().await {
                Ok(owner) => Some(vec![owner]),
                Err(Failure::NoNode) if !self.of_node => None,
                Err(failure) => return Err(failure),
            };
        }
        match self.of_node {
            true => self.with_what_goes(&Told::read(&lease), told).write(&mut lease),
            false => told.control_plane.write(&mut lease),
        }
        self.id.write(&mut lease);
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        spec.holder_identity = Some(self.node.clone());
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.acquire_time.get_or_insert_with(|| now.clone());
        spec.renew_time = Some(now);
        let parameters = PostParams::default();
        let written = if is_new {
            lease.metadata = ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(self.namespace.clone()),
                ..lease.metadata
            };
            self.leases.create(&parameters, &lease).await?
        } else {
            self.leases.replace(&self.name, &parameters, &lease).await?
        };
        self.known = Some(written);
        Ok(())
    }

    /// An interface that is down loses addresses, and a node that starts has not all of them yet: whoever waits for one
    /// would have it at once, and keep it.
    fn with_what_goes(&mut self, before: &Told, told: &Told) -> Told {
        let now = Instant::now();
        for (address, length) in &before.addresses {
            self.going.entry(*address).or_insert((*length, now + GOING));
        }
        self.going
            .retain(|address, (_, until)| *until > now && !told.addresses.contains_key(address));
        let mut all = told.clone();
        all.addresses.extend(self.going.iter().map(|(address, (length, _))| (*address, *length)));
        all
    }

    fn is_orphan(&self, lease: &Lease) -> bool {
        lease.metadata.owner_references.as_ref().is_none_or(Vec::is_empty)
    }

    /// The Node object, with which the Lease goes.
    async fn owner(&self) -> Result<OwnerReference, Failure> {
        let only = ListParams::default().fields(&format!("metadata.name={}", self.node));
        let nodes = self.nodes.list(&only).await?;
        nodes.items.first().and_then(|node| node.owner_ref(&())).ok_or(Failure::NoNode)
    }

    /// Takes in that a write failed. What is there is looked at again. Gives how long to wait.
    fn failed(&mut self, failure: Failure) -> Duration {
        if !matches!(&failure, Failure::Api(Error::Api(status)) if status.code == 403) {
            self.refusals.end();
        }
        let error = match failure {
            Failure::Api(error) => error,
            Failure::NoNode => {
                self.complain(Some(format!("there is no Node {} (vip_nodename)", self.node)));
                return AGAIN;
            }
            Failure::Namesake(_) => return SOON,
        };
        match &error {
            // Another process of this node, or a person, wrote it meanwhile, or it went with a former Node.
            Error::Api(status) if status.code == 409 => SOON,
            Error::Api(status)
                if status.code == 404 && !std::mem::replace(&mut self.missed, true) =>
            {
                SOON
            }
            Error::Api(status) if status.code == 403 => {
                let pause = self.refusals.again();
                if self.refusals.are_believed() {
                    self.complain(Some(forbidden(RIGHTS.0, RIGHTS.1, &status.message)));
                }
                pause
            }
            error => {
                self.complain(Some(chain(error)));
                AGAIN
            }
        }
    }

    /// Tells the same trouble once, and its end.
    fn complain(&mut self, trouble: Option<String>) {
        if trouble == self.complained {
            return;
        }
        match &trouble {
            Some(text) if self.of_node => tracing::warn!(
                lease = self.name,
                "cannot tell which addresses are this node's own, so that they could be given out: {text}"
            ),
            Some(text) => tracing::warn!(
                lease = self.name,
                "cannot tell the other nodes whether this node's API server is healthy: {text}"
            ),
            None if !self.of_node => tracing::info!(lease = self.name, "it is told again"),
            None => tracing::info!(lease = self.name, "the node's own addresses are told again"),
        }
        self.complained = trouble;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use berth_api::host::Routers;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;

    /// When a request came, its method and what it sent.
    type Request = (Instant, String, Value);

    /// The requests that get an answer `code`, after that of each Node and of the Lease that is not there yet.
    fn api(code: u16) -> (Client, Arc<Mutex<Vec<Request>>>) {
        let seen: Arc<Mutex<Vec<Request>>> = Arc::default();
        let requests = seen.clone();
        let service = tower::service_fn(move |request: http::Request<Body>| {
            let requests = requests.clone();
            async move {
                let (parts, body) = request.into_parts();
                let sent = body.collect_bytes().await?;
                let sent: Value = serde_json::from_slice(&sent).unwrap_or_default();
                requests.lock().unwrap().push((
                    Instant::now(),
                    parts.method.to_string(),
                    sent.clone(),
                ));
                let node = json!({ "metadata": { "name": "a", "uid": "1" } });
                let (code, body) = match (parts.method.as_str(), parts.uri.path()) {
                    (_, "/api/v1/nodes") => (200, json!({ "metadata": {}, "items": [node] })),
                    ("GET", _) => {
                        (404, json!({ "code": 404, "reason": "NotFound", "status": "Failure" }))
                    }
                    _ if code == 200 => (200, sent),
                    _ => (code, json!({ "code": code })),
                };
                let body = Body::from(serde_json::to_vec(&body)?);
                Ok::<_, tower::BoxError>(http::Response::builder().status(code).body(body)?)
            }
        });
        (Client::new(service, "default"), seen)
    }

    fn keeper(client: Client) -> Keeper {
        let id = HostId { network: "boot/1".to_owned(), mac: None };
        Keeper::new(client, "kube-system", "a", id)
    }

    fn of(last: u8) -> Told {
        let address = IpAddr::from([192, 0, 2, last]);
        Told { addresses: [(address, 24)].into(), ..Told::default() }
    }

    /// An hour in which the node's address changes once a second.
    async fn an_hour_of_changes(code: u16) -> Vec<Request> {
        let (client, seen) = api(code);
        let (tell, told) = watch::channel(None);
        let keeping = keeper(client).keep(told);
        let changing = async {
            for second in 0..3600u32 {
                tell.send_replace(Some(of((second % 200) as u8)));
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        tokio::select! {
            () = keeping => panic!("it ended"),
            () = changing => {}
        }
        seen.lock().unwrap().clone()
    }

    #[tokio::test(start_paused = true)]
    async fn it_is_renewed_every_20_s_and_a_change_is_written_once_a_minute() {
        let seen = an_hour_of_changes(200).await;
        let writes: Vec<_> = seen.iter().filter(|(_, method, _)| method != "GET").collect();
        assert!((170..=185).contains(&writes.len()), "{}", writes.len());
        let gaps = writes.windows(2).map(|two| two[1].0 - two[0].0);
        assert!(gaps.max().unwrap() <= RENEW + Duration::from_secs(1));
        let lease: Lease = serde_json::from_value(writes[0].2.clone()).unwrap();
        assert_eq!(lease.metadata.owner_references.unwrap()[0].name, "a");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_refused_or_fails_is_tried_again_after_a_pause_whatever_changes() {
        for (code, most) in [(500, 2200), (403, 210), (409, 11_000)] {
            let seen = an_hour_of_changes(code).await;
            assert!(seen.len() <= most && seen.len() > 50, "{code}: {}", seen.len());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_that_goes_is_told_for_ten_minutes() {
        let (client, seen) = api(200);
        let (tell, told) = watch::channel(Some(of(1)));
        let keeping = keeper(client).keep(told);
        let going = async {
            tokio::time::sleep(Duration::from_secs(70)).await;
            tell.send_replace(Some(of(2)));
            tokio::time::sleep(Duration::from_secs(700)).await;
        };
        tokio::select! {
            () = keeping => panic!("it ended"),
            () = going => {}
        }
        let told_at = |seconds: u64| {
            let seen = seen.lock().unwrap();
            let start = seen[0].0;
            let written = seen.iter().filter(|(_, method, _)| method != "GET");
            let last = written.take_while(|(at, ..)| *at - start <= Duration::from_secs(seconds));
            let lease: Lease = serde_json::from_value(last.last().unwrap().2.clone()).unwrap();
            Told::read(&lease).addresses.into_keys().map(|own| own.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(told_at(60), ["192.0.2.1"]);
        assert_eq!(told_at(600), ["192.0.2.1", "192.0.2.2"]);
        assert_eq!(told_at(760), ["192.0.2.2"]);
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_says_the_same_again_within_a_second_and_no_more_often_whoever_asks() {
        let (client, seen) = api(200);
        let (_tell, told) = watch::channel(Some(Told::default()));
        let id = HostId { network: "boot/1".to_owned(), mac: None };
        let again = Arc::new(Notify::new());
        let keeper = Keeper::of_control_plane(client, "kube-system", "a", id);
        let keeping = keeper.repeating(again.clone()).keep(told);
        let asking = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            again.notify_one();
            tokio::time::sleep(SOON).await;
            for _ in 0..100 {
                again.notify_one();
                tokio::time::sleep(SOON / 10).await;
            }
        };
        tokio::select! {
            () = keeping => panic!("it ended"),
            () = asking => {}
        }
        let seen = seen.lock().unwrap();
        let writes: Vec<_> = seen.iter().filter(|(_, method, _)| method != "GET").collect();
        let start = writes[0].0;
        assert_eq!(writes[1].0 - start, Duration::from_secs(5), "at once, where it has rested");
        assert!((10..=13).contains(&writes.len()), "{}", writes.len());
        let gaps = writes.windows(2).map(|two| two[1].0 - two[0].0);
        assert!(gaps.min().unwrap() >= SOON);
    }

    #[tokio::test(start_paused = true)]
    async fn sessions_are_told_at_once_and_do_not_hurry_what_rests() {
        let (client, seen) = api(200);
        let (tell, told) = watch::channel(Some(of(1)));
        let keeping = keeper(client).keep(told);
        let changing = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let sessions = ["router".to_owned()].into();
            let routers =
                Some(Routers { sessions, keeps: Duration::from_secs(150), ..Routers::default() });
            tell.send_replace(Some(Told { routers, ..of(2) }));
            tokio::time::sleep(HASTE).await;
        };
        tokio::select! {
            () = keeping => panic!("it ended"),
            () = changing => {}
        }
        let seen = seen.lock().unwrap();
        let lease: Lease = serde_json::from_value(seen.last().unwrap().2.clone()).unwrap();
        let read = Told::read(&lease);
        assert_eq!(read.routers.unwrap().sessions, ["router".to_owned()].into());
        assert_eq!(read.addresses, of(1).addresses, "an address is told once a minute");
    }
}
