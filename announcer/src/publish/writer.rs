//! Owns the writes to the cluster. Each runs by itself and reports back, so that a slow API server delays no decision.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::claim;
use berth_api::eip::EipBinding;
use berth_api::election::{Action, Reply};
use berth_runtime::lease::{self, Deletion};
use berth_runtime::services::{Part, Services};
use berth_runtime::supervise::Errands;
use berth_runtime::watch::{chain, forbidden};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::networking::v1::IPAddress;
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Error};
use tokio::sync::mpsc;
use tokio::time::error::Elapsed;

use super::eip::Apply;
use super::status::Update;
use crate::ownership::leases::Request;
use crate::source::cluster::{Eip, Name};
use crate::source::view::Absence;

/// Status writes under way at the same time; more wait for their turn.
const AT_ONCE: usize = 32;

/// Places of them that are kept for what takes an address of others out.
const KEPT: usize = 8;

/// A status write that has not been answered for so long may be tried again: its version protects it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How a write ended.
#[derive(Debug)]
pub enum WriteEvent {
    /// A request of an election.
    Elected {
        /// The Lease.
        name: Name,
        /// What came back.
        reply: Reply,
        /// Whether it was to make a holder of this node.
        acquires: bool,
    },
    /// A Lease was not acquired: membership decides, or may.
    Withheld(Name, String),
    /// A Lease was deleted or not.
    Deleted(Name, Deletion),
    /// A status was written, or not.
    Status(Update, WriteOutcome<Service>),
    /// The status of an `EipBinding` was written, or not.
    Applied(Apply, WriteOutcome<Eip>),
    /// The API server was asked for a sign of life, and gave one or not.
    Heard(bool),
}

/// How a status write ended.
#[derive(Debug)]
pub enum WriteOutcome<T> {
    /// The object is now like this.
    Written(Box<T>),
    /// It has changed meanwhile, or is gone: the watch will tell.
    Overtaken,
    /// The API server does not take it, and will not take it again.
    Refused(String),
    /// It failed.
    Failed(String),
}

/// The ways to a cluster.
#[derive(Clone)]
struct Ways {
    client: Client,
    leases: lease::Leases,
    views: Absence,
    services: Services,
}

impl Ways {
    /// Sends what makes a holder. Only where there was no view after the last state of the Lease was seen: a view is created
    /// only by who holds the Lease, so one that comes later has changed it.
    async fn acquire(&self, name: Name, action: Action) -> WriteEvent {
        match self.views.check().await {
            Ok(()) => self.elect(name, action, true).await,
            Err(why) => WriteEvent::Withheld(name, why),
        }
    }

    async fn elect(&self, name: Name, action: Action, acquires: bool) -> WriteEvent {
        let reply = self.leases.send(&name.namespace, &name.name, action).await;
        WriteEvent::Elected { name, reply, acquires }
    }
}

/// Sends writes and tells how they ended.
pub struct Writer {
    /// Where they go; without a cluster nothing is written.
    cluster: Option<Ways>,
    errands: Errands,
    done: mpsc::UnboundedSender<WriteEvent>,
    writing: BTreeSet<Name>,
    applying: BTreeSet<Name>,
    asking: bool,
}

impl Writer {
    /// Gives up requests for Leases after `timeout`. Acquires none while there is a view of membership in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        timeout: Duration,
        errands: Errands,
    ) -> (Self, mpsc::UnboundedReceiver<WriteEvent>) {
        let (done, receive) = mpsc::unbounded_channel();
        let leases = lease::Leases::new(client.clone(), timeout);
        let views = Absence::new(client.clone(), namespace, timeout);
        let services = Services::new(client.clone(), None);
        let ways = Ways { client, leases, views, services };
        (Self::of(Some(ways), errands, done), receive)
    }

    /// Writes nothing: there is no cluster.
    pub fn nowhere(errands: Errands) -> (Self, mpsc::UnboundedReceiver<WriteEvent>) {
        let (done, receive) = mpsc::unbounded_channel();
        (Self::of(None, errands, done), receive)
    }

    fn of(
        cluster: Option<Ways>,
        errands: Errands,
        done: mpsc::UnboundedSender<WriteEvent>,
    ) -> Self {
        let (writing, applying) = (BTreeSet::new(), BTreeSet::new());
        Self { cluster, errands, done, writing, applying, asking: false }
    }

    /// Sends a request about a Lease.
    pub fn send(&self, name: Name, request: Request) {
        let Some(ways) = self.cluster.clone() else { return };
        let done = self.done.clone();
        self.errands.spawn("Lease request", async move {
            let answer = match request {
                Request::Elect(action) => ways.elect(name, action, false).await,
                Request::Acquire(action) => ways.acquire(name, action).await,
                Request::Delete(lease) => {
                    WriteEvent::Deleted(name, ways.leases.delete(&lease).await)
                }
            };
            // Nobody listens at the end of the program.
            let _ = done.send(answer);
        });
    }

    /// Whether there is room for this status write. Those of one namespace do not take all: a write of an object that its author
    /// has filled takes seconds. What takes an address of others out has places that nothing else has.
    pub fn is_free(&self, update: &Update) -> bool {
        let Update { name, takes_out, .. } = update;
        let most = if *takes_out { AT_ONCE } else { AT_ONCE - KEPT };
        self.writing.len() < most
            && (*takes_out || has_place(&self.writing, name))
            && !self.writing.contains(name)
    }

    /// Writes a status.
    pub fn write(&mut self, update: Update) {
        let Some(ways) = self.cluster.clone() else { return };
        self.writing.insert(update.name.clone());
        let done = self.done.clone();
        self.errands.spawn("Service status write", async move {
            let outcome = write(ways, &update).await;
            let _ = done.send(WriteEvent::Status(update, outcome));
        });
    }

    /// Whether there is room for a write to the status of this `EipBinding`.
    pub fn is_free_for(&self, name: &Name) -> bool {
        self.applying.len() < AT_ONCE
            && has_place(&self.applying, name)
            && !self.applying.contains(name)
    }

    /// Applies what this node says of an `EipBinding`, signed by `manager`.
    pub fn apply(&mut self, what: Apply, manager: &str) {
        let Some(Ways { client, .. }) = self.cluster.clone() else { return };
        self.applying.insert(what.name.clone());
        let (done, manager) = (self.done.clone(), manager.to_owned());
        self.errands.spawn("EipBinding status write", async move {
            let outcome = apply(client, &what, &manager).await;
            let _ = done.send(WriteEvent::Applied(what, outcome));
        });
    }

    /// Takes note that a write to an `EipBinding` has ended.
    pub fn applied(&mut self, name: &Name) {
        self.applying.remove(name);
    }

    /// Asks the API server for a sign of life, unless it is being asked.
    pub fn ask(&mut self) {
        let Some(Ways { client, .. }) = self.cluster.clone() else { return };
        if std::mem::replace(&mut self.asking, true) {
            return;
        }
        let done = self.done.clone();
        self.errands.spawn("sign of life", async move {
            let asked = tokio::time::timeout(TIMEOUT, client.apiserver_version()).await;
            let _ = done.send(WriteEvent::Heard(matches!(asked, Ok(Ok(_)))));
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

/// Whether the namespace of this object has less than half of the places.
fn has_place(under_way: &BTreeSet<Name>, name: &Name) -> bool {
    let of_namespace = under_way.range(Name::new(name.namespace.as_str(), "")..);
    of_namespace.take_while(|own| own.namespace == name.namespace).count() < AT_ONCE / 2
}

#[allow(clippy::disallowed_methods, reason = "the time of a condition is for people")]
async fn write(ways: Ways, update: &Update) -> WriteOutcome<Service> {
    let Ways { client, services, .. } = ways;
    for address in &update.unclaimed {
        match is_claimed(&client, *address, &update.uid).await {
            Ok(false) => {}
            Ok(true) => return WriteOutcome::Overtaken,
            Err(error) => return WriteOutcome::Failed(error),
        }
    }
    let patch = update.patch(Timestamp::now());
    let request = services.patch(&update.name, Part::Status, &patch);
    let answer = tokio::time::timeout(TIMEOUT, request).await;
    outcome(answer, ("patch (or get services, and update)", "services/status"))
}

/// Whether a claim gives the address to the object of this uid. A list without a version is answered from etcd's quorum.
async fn is_claimed(client: &Client, address: IpAddr, uid: &str) -> Result<bool, String> {
    let claims: Api<IPAddress> = Api::all(client.clone());
    let named = ListParams::default()
        .fields(&format!("metadata.name={address}"))
        .labels(&claim::selector());
    match tokio::time::timeout(TIMEOUT, claims.list(&named)).await {
        Ok(Ok(found)) => Ok(found.iter().flat_map(claim::holders).any(|holder| holder.uid == uid)),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("no answer within {TIMEOUT:?}")),
    }
}

/// Everything that this node says of a binding, as its part of the status (server-side apply).
async fn apply(client: Client, apply: &Apply, manager: &str) -> WriteOutcome<Eip> {
    let api: Api<EipBinding> = Api::namespaced(client, &apply.name.namespace);
    let object = apply.object();
    let (parameters, patch) = (PatchParams::apply(manager).force(), Patch::Apply(&object));
    let request = api.patch_status(&apply.name.name, &parameters, &patch);
    let answer = tokio::time::timeout(TIMEOUT, request).await;
    match outcome(answer, ("patch", "eipbindings/status")) {
        WriteOutcome::Written(object) => {
            WriteOutcome::Written(Box::new(Eip::read(&object, manager)))
        }
        WriteOutcome::Overtaken => WriteOutcome::Overtaken,
        WriteOutcome::Refused(why) => WriteOutcome::Refused(why),
        WriteOutcome::Failed(error) => WriteOutcome::Failed(error),
    }
}

/// How a write ended, for which these verbs on this resource are needed.
fn outcome<T>(
    answer: Result<kube::Result<T>, Elapsed>,
    (verbs, resource): (&str, &str),
) -> WriteOutcome<T> {
    match answer {
        Ok(Ok(object)) => WriteOutcome::Written(Box::new(object)),
        Ok(Err(Error::Api(status))) => match status.code {
            404 | 409 => WriteOutcome::Overtaken,
            403 => WriteOutcome::Refused(forbidden(verbs, resource, &status.message)),
            code @ 400..500 if code != 429 => {
                WriteOutcome::Refused(format!("{} ({code})", status.message))
            }
            code => WriteOutcome::Failed(format!("{} ({code})", status.message)),
        },
        Ok(Err(error)) => WriteOutcome::Failed(chain(&error)),
        Err(_) => WriteOutcome::Failed(format!("no answer within {TIMEOUT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn no_namespace_takes_all_places_and_some_are_kept_for_what_takes_out() {
        let errands = berth_runtime::supervise::Supervisor::new().errands();
        let (mut writer, _done) = Writer::nowhere(errands);
        let update = |namespace: &str, number: usize, takes_out| Update {
            takes_out,
            ..Update::of(Name::new(namespace, format!("{number:02}")), "uid", "1")
        };
        let mut fill = |namespace, takes_out| {
            let all = (0..AT_ONCE * 2).map(|number| update(namespace, number, takes_out));
            let fits = |update: &Update| {
                let is_free = writer.is_free(update);
                is_free.then(|| writer.writing.insert(update.name.clone())).is_some()
            };
            all.filter(fits).count()
        };
        let (half, rest) = (AT_ONCE / 2, AT_ONCE / 2 - KEPT);
        let taken = [fill("a", false), fill("b", false), fill("c", false), fill("d", true)];
        assert_eq!(taken, [half, rest, 0, KEPT]);
    }

    /// The methods of requests for three writes, one after the other, by which `grants` judges them; with how each ended.
    async fn written(grants: fn(usize, &http::Method) -> bool) -> Vec<(bool, Vec<String>)> {
        let asked = std::sync::Arc::new(std::sync::Mutex::new((0, Vec::new())));
        let count = asked.clone();
        let server = tower::service_fn(move |request: http::Request<kube::client::Body>| {
            let (mut asked, method) = (count.lock().unwrap(), request.method().clone());
            let verb = method.as_str().to_lowercase();
            let granted = grants(asked.0, &method);
            asked.1.push(verb.clone());
            let message = format!("User \"u\" cannot {verb} resource \"services/status\"");
            let refused =
                json!({ "code": 403, "message": message, "reason": "", "status": "Failure" });
            let found = json!({ "metadata": { "uid": "uid", "resourceVersion": "1" } });
            let body = if granted { found } else { refused }.to_string().into_bytes();
            let answer = http::Response::builder().status(if granted { 200 } else { 403 });
            std::future::ready(Ok::<_, tower::BoxError>(
                answer.body(kube::client::Body::from(body)).unwrap(),
            ))
        });
        let client = Client::new(server, "d");
        let ways = Ways {
            leases: lease::Leases::new(client.clone(), TIMEOUT),
            views: Absence::new(client.clone(), "d", TIMEOUT),
            services: Services::new(client.clone(), None),
            client,
        };
        let update = Update::of(Name::new("d", "web"), "uid", "1");
        let mut all = Vec::new();
        for _ in 0..3 {
            let outcome = write(ways.clone(), &update).await;
            let mut asked = asked.lock().unwrap();
            asked.0 += 1;
            let methods = std::mem::take(&mut asked.1);
            all.push((matches!(outcome, WriteOutcome::Written(_)), methods));
        }
        all
    }

    fn ends(expected: [(bool, &[&str]); 3]) -> Vec<(bool, Vec<String>)> {
        let owned = |all: &[&str]| all.iter().map(|&one| one.to_owned()).collect();
        expected.map(|(written, methods)| (written, owned(methods))).into()
    }

    #[tokio::test]
    async fn who_is_refused_everything_for_a_moment_patches_after_it() {
        let begins = written(|write, _| write > 0).await;
        let patched = (true, &["patch"][..]);
        assert_eq!(begins, ends([(false, &["patch", "get"]), patched, patched]));
    }

    #[tokio::test]
    async fn a_role_without_patch_is_learned_from_what_stands_in_for_it() {
        let replaces = written(|_, method| method != http::Method::PATCH).await;
        let replaced = (true, &["get", "put"][..]);
        assert_eq!(replaces, ends([(true, &["patch", "get", "put"]), replaced, replaced]));
    }

    #[test]
    fn what_the_api_server_will_never_take_is_refused_and_anything_else_may_be_tried_again() {
        let judge = |code: u16| {
            let status = kube::core::Status { code, ..Default::default() };
            let answer: kube::Result<()> = Err(Error::Api(Box::new(status)));
            match outcome(Ok(answer), ("patch", "services/status")) {
                WriteOutcome::Written(_) => "written",
                WriteOutcome::Overtaken => "overtaken",
                WriteOutcome::Refused(_) => "refused",
                WriteOutcome::Failed(_) => "failed",
            }
        };
        for code in [400, 403, 413, 422] {
            assert_eq!(judge(code), "refused", "{code}");
        }
        for (code, word) in
            [(404, "overtaken"), (409, "overtaken"), (429, "failed"), (500, "failed")]
        {
            assert_eq!(judge(code), word, "{code}");
        }
    }
}
