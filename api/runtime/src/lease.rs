//! Drives [`berth_api::election`] over the API: sends what it asks for and tells it what came back.
//!
//! [`contend`] is for one Lease and watches it, so that a follower sends nothing at rest. Who contends for many Leases
//! runs one watch over all of them, keeps the elections, and sends with [`Leases`].

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_api::election::{Action, Election, Reply, Sight, is_cut, stamp, whole};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::runtime::watcher::{Config, Event};
use kube::{Client, Error};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::watch::{chain, forbidden, objects};

const RESOURCE: &str = "leases.coordination.k8s.io";

/// Whether this process may act, for everybody in it who acts.
#[derive(Clone, Debug)]
pub struct Tenure {
    until: watch::Receiver<Option<Instant>>,
}

impl Tenure {
    /// A tenure without end, for a program that runs without election.
    pub fn unlimited() -> Self {
        // As far away as a monotonic clock is sure to reach.
        let (_, until) =
            watch::channel(Some(Instant::now() + Duration::from_secs(60 * 60 * 24 * 365 * 30)));
        Self { until }
    }

    /// A tenure that is granted through the returned sender.
    pub fn granted() -> (watch::Sender<Option<Instant>>, Self) {
        let (sender, until) = watch::channel(None);
        (sender, Self { until })
    }

    /// Until when to act, if now. To be asked right before each act.
    pub fn until(&self, now: Instant) -> Option<Instant> {
        self.until.borrow().filter(|until| *until > now)
    }

    /// Waits for a change. Without an election, for ever.
    pub async fn changed(&mut self) {
        if self.until.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

/// One annotation of a Lease, by which its holder leaves word to whoever holds it next. It is written when the Lease
/// is, which costs no request of its own; what was said in the last moments before a crash is lost. A second one names the
/// holder that wrote or keeps it, since other programs that hold the Lease leave annotations as they are.
#[derive(Clone, Debug)]
pub struct Word {
    annotation: &'static str,
    by: &'static str,
    said: Arc<Mutex<Said>>,
    found: Arc<Mutex<Option<String>>>,
}

/// What a Lease is written with.
#[derive(Clone, Debug, Default)]
enum Said {
    /// What it has.
    #[default]
    Kept,
    Text(String),
    Nothing,
}

impl Word {
    /// Says nothing: what is there stays.
    pub fn new(annotation: &'static str, by: &'static str) -> Self {
        Self { annotation, by, said: Arc::default(), found: Arc::default() }
    }

    /// From now on the Lease is written with this text, or with what it has if `None`.
    pub fn say(&self, text: Option<String>) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) =
            text.map_or(Said::Kept, Said::Text);
    }

    /// From now on the Lease is written without it.
    pub fn take_back(&self) {
        *self.said.lock().unwrap_or_else(PoisonError::into_inner) = Said::Nothing;
    }

    /// What the Lease had when this process last wrote it.
    pub fn heard(&self) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write(&self, action: &mut Action) {
        let said = self.said.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (Action::Create(lease) | Action::Replace(lease)) = action else { return };
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        let annotations = lease.metadata.annotations.get_or_insert_default();
        match said {
            Said::Kept => {}
            Said::Text(text) => _ = annotations.insert(self.annotation.to_owned(), text),
            Said::Nothing => annotations.retain(|key, _| key != self.annotation && key != self.by),
        }
        if let (true, Some(holder)) = (annotations.contains_key(self.annotation), holder) {
            annotations.insert(self.by.to_owned(), holder);
        }
    }

    fn read(&self, reply: &Reply) {
        if let Reply::Written(lease) = reply {
            let annotations = lease.metadata.annotations.as_ref();
            let text = annotations.and_then(|all| all.get(self.annotation)).cloned();
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = text;
        }
    }
}

/// The metadata of a Lease to contend for.
pub fn template(namespace: &str, name: &str) -> Lease {
    let (name, namespace) = (Some(name.to_owned()), Some(namespace.to_owned()));
    Lease { metadata: ObjectMeta { name, namespace, ..Default::default() }, spec: None }
}

/// Contends in `election` until `leave` is cancelled, then gives the Lease back and returns. Cancel `leave` only when
/// nothing acts any more.
pub async fn contend(
    client: Client,
    mut election: Election,
    tenure: watch::Sender<Option<Instant>>,
    word: Option<Word>,
    leave: CancellationToken,
) {
    let (namespace, name) = election.lease();
    let (namespace, name) = (namespace.to_owned(), name.to_owned());
    let leases = Leases::new(client.clone(), election.timing().request_timeout());
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let mut watch =
        objects(api, Config::default().fields(&format!("metadata.name={name}"))).boxed();
    let mut seen = Seen::default();
    let mut reply: Option<BoxFuture<'_, Reply>> = None;
    let mut leaving = false;
    loop {
        let now = Instant::now();
        let action = election.poll(now);
        publish(&tenure, &election, now, &name);
        let wake = match action {
            Action::Wait(until) => until,
            Action::Done => return,
            mut request => {
                word.iter().for_each(|word| word.write(&mut request));
                reply = Some(leases.send(&namespace, &name, request).boxed());
                None
            }
        };
        let wake = [wake, election.holds_until(now)].into_iter().flatten().min();
        tokio::select! {
            Some(event) = watch.next() => {
                if let Some(sight) = seen.sight(event) {
                    election.observe(sight, Instant::now());
                }
            }
            answer = answered(&mut reply) => {
                reply = None;
                word.iter().for_each(|word| word.read(&answer));
                election.replied(answer, Instant::now());
            }
            () = sleep_until(wake) => {}
            () = leave.cancelled(), if !leaving => {
                leaving = true;
                election.release();
            }
        }
    }
}

fn publish(tenure: &watch::Sender<Option<Instant>>, election: &Election, now: Instant, name: &str) {
    let until = election.holds_until(now);
    tenure.send_if_modified(|current| {
        // Of a group it is told by whoever knows the group.
        if current.is_some() != until.is_some() && !election.is_of_group() {
            match until {
                Some(_) => tracing::info!(
                    lease = name,
                    identity = election.identity(),
                    "holding the Lease"
                ),
                None => tracing::info!(
                    lease = name,
                    holder = election.holder(),
                    "not holding the Lease any more"
                ),
            }
        }
        std::mem::replace(current, until) != until
    });
}

async fn answered(reply: &mut Option<BoxFuture<'_, Reply>>) -> Reply {
    match reply {
        Some(reply) => reply.await,
        None => std::future::pending().await,
    }
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake.into()).await,
        None => std::future::pending().await,
    }
}

/// Turns what [`objects`] shows of the one Lease into sights.
#[derive(Debug, Default)]
struct Seen {
    /// Whether the list that is coming in has it.
    listed: bool,
}

impl Seen {
    fn sight(&mut self, event: Event<Lease>) -> Option<Sight> {
        match event {
            Event::Init => {
                self.listed = false;
                None
            }
            Event::InitApply(lease) => {
                self.listed = true;
                Some(Sight::Present(Box::new(lease)))
            }
            Event::InitDone => (!self.listed).then_some(Sight::Absent),
            Event::Apply(lease) => Some(Sight::Present(Box::new(lease))),
            Event::Delete(lease) => Some(Sight::Deleted(Box::new(lease))),
        }
    }
}

/// Sends what elections ask for. Clones share what was already told about trouble.
#[derive(Clone)]
pub struct Leases {
    client: Client,
    timeout: Duration,
    told: Arc<Mutex<String>>,
}

/// What became of a delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deletion {
    /// It is gone, by this or somebody else's hand.
    Gone,
    /// It has changed since it was seen; nothing was deleted.
    Changed,
    /// Nobody knows; worth another try.
    Failed(String),
}

impl Leases {
    /// A sender whose requests are given up after `timeout` ([`Timing::request_timeout`](berth_api::election::Timing::request_timeout)).
    pub fn new(client: Client, timeout: Duration) -> Self {
        Self { client, timeout, told: Arc::default() }
    }

    /// Sends one request for the Lease of that name. `action` is one that asks for a [`Reply`].
    pub async fn send(&self, namespace: &str, name: &str, action: Action) -> Reply {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), namespace);
        let post = PostParams::default();
        let request = async {
            match action {
                Action::Create(mut lease) => {
                    stamp(&mut lease, Timestamp::now());
                    api.create(&post, &lease).await.map(|lease| Reply::Written(Box::new(lease)))
                }
                Action::Replace(mut lease) => {
                    if is_cut(&lease) {
                        let found = api.get(name).await?;
                        let Some(now) = whole(*lease, found) else { return Ok(Reply::Conflict) };
                        *lease = now;
                    }
                    stamp(&mut lease, Timestamp::now());
                    let written = api.replace(name, &post, &lease).await;
                    written.map(|lease| Reply::Written(Box::new(lease)))
                }
                Action::Read => {
                    api.get_opt(name).await.map(|lease| Reply::Found(lease.map(Box::new)))
                }
                Action::Wait(_) | Action::Done => Ok(Reply::Rejected),
            }
        };
        match tokio::time::timeout(self.timeout, request).await {
            Ok(Ok(reply)) => {
                self.tell(String::new());
                reply
            }
            Ok(Err(error)) => self.refused(namespace, name, &error),
            Err(_) => {
                self.tell(format!("Lease {namespace}/{name}: no answer within {:?}", self.timeout));
                Reply::Unknown
            }
        }
    }

    fn refused(&self, namespace: &str, name: &str, error: &Error) -> Reply {
        let Error::Api(status) = error else {
            self.tell(format!("Lease {namespace}/{name}: {}", chain(error)));
            return Reply::Unknown;
        };
        match status.code {
            409 => return Reply::Conflict,
            404 => return Reply::Missing,
            403 => self.tell(forbidden(
                "get, list, watch, create and update",
                RESOURCE,
                &status.message,
            )),
            code => self.tell(format!("Lease {namespace}/{name}: {} ({code})", status.message)),
        }
        // A server that failed may have written first ("etcdserver: request timed out").
        if status.code >= 500 { Reply::Unknown } else { Reply::Rejected }
    }

    /// Deletes the Lease if it is still as it was seen.
    pub async fn delete(&self, seen: &Lease) -> Deletion {
        let ObjectMeta { namespace, name, uid, resource_version, .. } = seen.metadata.clone();
        let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
        let api: Api<Lease> = Api::namespaced(self.client.clone(), &namespace);
        let preconditions = Some(Preconditions { uid, resource_version });
        let parameters = DeleteParams { preconditions, ..Default::default() };
        let failed = |what: String| Deletion::Failed(format!("Lease {namespace}/{name}: {what}"));
        match tokio::time::timeout(self.timeout, api.delete(&name, &parameters)).await {
            Ok(Ok(_)) => Deletion::Gone,
            Ok(Err(Error::Api(status))) => match status.code {
                404 => Deletion::Gone,
                409 => Deletion::Changed,
                403 => Deletion::Failed(forbidden("delete", RESOURCE, &status.message)),
                code => failed(format!("{} ({code})", status.message)),
            },
            Ok(Err(error)) => failed(chain(&error)),
            Err(_) => failed(format!("no answer within {:?}", self.timeout)),
        }
    }

    /// Says a trouble once, until it is over or another one comes.
    fn tell(&self, text: String) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != text {
            match text.is_empty() {
                true => tracing::info!("Leases can be written again"),
                false => tracing::error!("{text}"),
            }
            *told = text;
        }
    }
}

#[cfg(test)]
mod tests;
