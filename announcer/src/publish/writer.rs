//! Owns the writes to the cluster. Each runs by itself and reports back, so that a slow API server delays no decision.

use std::collections::BTreeSet;
use std::time::Duration;

use berth_api::eip::EipBinding;
use berth_api::election::Reply;
use berth_runtime::lease::{self, Deletion};
use berth_runtime::watch::{chain, forbidden};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, Error};
use tokio::sync::mpsc;

use crate::ownership::leases::Request;
use crate::publish::status::Update;
use crate::source::cluster::{Eip, Name};
use crate::source::eip::Apply;

/// Status writes under way at the same time; more wait for their turn.
const AT_ONCE: usize = 32;

/// A status write that has not been answered for so long may be tried again: its version protects it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a write ended.
#[derive(Debug)]
pub enum Done {
    /// A request of an election.
    Elected(Name, Reply),
    /// A Lease was deleted or not.
    Deleted(Name, Deletion),
    /// A status was written, or not.
    Status(Update, Outcome<Service>),
    /// The status of an `EipBinding` was written, or not.
    Applied(Apply, Outcome<Eip>),
    /// The API server was asked for a sign of life, and gave one or not.
    Heard(bool),
}

/// How a status write ended.
#[derive(Debug)]
pub enum Outcome<T> {
    /// The object is now like this.
    Written(Box<T>),
    /// It has changed meanwhile, or is gone: the watch will tell.
    Overtaken,
    /// It failed.
    Failed(String),
}

/// Sends writes and tells how they ended.
pub struct Writer {
    client: Client,
    leases: lease::Leases,
    done: mpsc::UnboundedSender<Done>,
    writing: BTreeSet<Name>,
    applying: BTreeSet<Name>,
    asking: bool,
}

impl Writer {
    /// Gives up requests for Leases after `timeout`.
    pub fn new(client: Client, timeout: Duration) -> (Self, mpsc::UnboundedReceiver<Done>) {
        let (done, receive) = mpsc::unbounded_channel();
        let leases = lease::Leases::new(client.clone(), timeout);
        let (writing, applying) = (BTreeSet::new(), BTreeSet::new());
        (Self { client, leases, done, writing, applying, asking: false }, receive)
    }

    /// Sends a request about a Lease.
    pub fn send(&self, name: Name, request: Request) {
        let (leases, done) = (self.leases.clone(), self.done.clone());
        tokio::spawn(async move {
            let answer = match request {
                Request::Elect(action) => {
                    let reply = leases.send(&name.namespace, &name.name, action).await;
                    Done::Elected(name, reply)
                }
                Request::Delete(lease) => Done::Deleted(name, leases.delete(&lease).await),
            };
            // Nobody listens at the end of the program.
            let _ = done.send(answer);
        });
    }

    /// Whether there is room for a status write for this Service.
    pub fn is_free(&self, name: &Name) -> bool {
        self.writing.len() < AT_ONCE && !self.writing.contains(name)
    }

    /// Writes a status.
    pub fn write(&mut self, update: Update) {
        self.writing.insert(update.name.clone());
        let (client, done) = (self.client.clone(), self.done.clone());
        tokio::spawn(async move {
            let outcome = write(client, &update).await;
            let _ = done.send(Done::Status(update, outcome));
        });
    }

    /// Whether there is room for a write to the status of this `EipBinding`.
    pub fn is_free_for(&self, name: &Name) -> bool {
        self.applying.len() < AT_ONCE && !self.applying.contains(name)
    }

    /// Applies what this node says of an `EipBinding`, signed by `manager`.
    pub fn apply(&mut self, what: Apply, manager: &str) {
        self.applying.insert(what.name.clone());
        let (client, done, manager) = (self.client.clone(), self.done.clone(), manager.to_owned());
        tokio::spawn(async move {
            let outcome = apply(client, &what, &manager).await;
            let _ = done.send(Done::Applied(what, outcome));
        });
    }

    /// Takes note that a write to an `EipBinding` has ended.
    pub fn applied(&mut self, name: &Name) {
        self.applying.remove(name);
    }

    /// Asks the API server for a sign of life, unless it is being asked.
    pub fn ask(&mut self) {
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        let (client, done) = (self.client.clone(), self.done.clone());
        tokio::spawn(async move {
            let asked = tokio::time::timeout(TIMEOUT, client.apiserver_version()).await;
            let _ = done.send(Done::Heard(matches!(asked, Ok(Ok(_)))));
        });
    }

    /// Takes note that the API server was asked.
    pub fn answered(&mut self) {
        self.asking = false;
    }

    /// Takes note that a status write has ended.
    pub fn ended(&mut self, name: &Name) {
        self.writing.remove(name);
    }
}

#[allow(clippy::disallowed_methods, reason = "the time of a condition is for people")]
async fn write(client: Client, update: &Update) -> Outcome<Service> {
    let api: Api<Service> = Api::namespaced(client, &update.name.namespace);
    let patch = Patch::Merge(update.patch(Timestamp::now()));
    let parameters = PatchParams::default();
    let request = api.patch_status(&update.name.name, &parameters, &patch);
    outcome(request, "services/status").await
}

/// Everything that this node says of a binding, as its part of the status (server-side apply).
async fn apply(client: Client, apply: &Apply, manager: &str) -> Outcome<Eip> {
    let api: Api<EipBinding> = Api::namespaced(client, &apply.name.namespace);
    let object = apply.object();
    let (parameters, patch) = (PatchParams::apply(manager).force(), Patch::Apply(&object));
    let request = api.patch_status(&apply.name.name, &parameters, &patch);
    match outcome(request, "eipbindings/status").await {
        Outcome::Written(object) => Outcome::Written(Box::new(Eip::read(&object, manager))),
        Outcome::Overtaken => Outcome::Overtaken,
        Outcome::Failed(error) => Outcome::Failed(error),
    }
}

async fn outcome<T>(request: impl Future<Output = kube::Result<T>>, resource: &str) -> Outcome<T> {
    match tokio::time::timeout(TIMEOUT, request).await {
        Ok(Ok(object)) => Outcome::Written(Box::new(object)),
        Ok(Err(Error::Api(status))) => match status.code {
            404 | 409 => Outcome::Overtaken,
            403 => Outcome::Failed(forbidden("patch", resource, &status.message)),
            code => Outcome::Failed(format!("{} ({code})", status.message)),
        },
        Ok(Err(error)) => Outcome::Failed(chain(&error)),
        Err(_) => Outcome::Failed(format!("no answer within {TIMEOUT:?}")),
    }
}
