//! Owns the requests: each [`Write`] becomes one, and its answer an [`Outcome`]. Sends nothing without the Lease. Claims may be
//! held here instead ([`Held`]).
//!
//! # Permissions
//!
//! | write | verb | resource |
//! |---|---|---|
//! | [`Write::CreateClaim`] | `create`, and `get` when it exists already | `ipaddresses.networking.k8s.io` |
//! | [`Write::JoinClaim`] | `patch`, and `get` when it has changed | `ipaddresses.networking.k8s.io` |
//! | [`Write::LeaveClaim`] | `delete`, or `patch` when others stay, and `get` when it has changed; `get` of `services` or `eipbindings.berth.dev` when the owner was not seen | `ipaddresses.networking.k8s.io` |
//! | [`Write::PatchService`] | `patch` (else `get` and `update`), and `get` when it has changed and has many finalizers | `services` |
//! | [`Write::PatchStatus`], [`Write::PatchAnnounced`] | `patch` (else `update`, and `get` of `services`) | `services/status` |
//! | [`Write::ListHosts`] | `list` | `leases.coordination.k8s.io` |
//! | [`Write::PatchEip`] | `patch`, and `get` when it has changed | `eipbindings.berth.dev` |
//! | [`Write::ApplyEip`] | `patch` | `eipbindings.berth.dev/status` |
//! | [`Write::Read`] | `get` | `services`, `eipbindings.berth.dev` |

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::NamespacedName;
use berth_api::address;
use berth_api::eip::{self, EipBinding};
use berth_api::host;
use berth_api::lean::Lean;
use berth_api::names::{annotation, condition, finalizer, label};
use berth_api::service::ClassPolicy;
use berth_index::binding::{Binding, Decided, Stated};
use berth_index::claim::{self, Claim, Holder};
use berth_index::claimant::{Claimant, Id};
use berth_index::finalizers::Finalizers;
use berth_index::service::Service;
use berth_index::write::{Change, Outcome, Silence, Verdict, Write};
use berth_ipam::OwnerKind;
use berth_runtime::lease::Tenure;
use berth_runtime::services::{self, Part, Services};
use berth_runtime::watch::chain;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Service as ServiceObject;
use k8s_openapi::api::networking::v1::IPAddress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::serde::de::DeserializeOwned;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Status;
use kube::{Client, Error, Resource};
use serde_json::{Value, json};

use crate::held::Held;

const MANAGER: &str = "berth-ccm";
/// How long to wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How long to wait when the API server is busy and does not say how long.
const BUSY: Duration = Duration::from_secs(1);

/// Sends writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    classes: ClassPolicy,
    tenure: Tenure,
    /// The namespace of the Leases of announcers.
    leases: String,
    patcher: Services,
    held: Held,
}

impl Writer {
    /// A writer that works while `tenure` lasts. Announcers have their Leases in the namespace `leases`.
    pub fn new(client: Client, classes: ClassPolicy, tenure: Tenure, leases: &str) -> Self {
        let patcher = Services::new(client.clone(), Some(MANAGER));
        let held = Held::default();
        Self { client, classes, tenure, leases: leases.to_owned(), patcher, held }
    }

    /// The claims that are held here instead of in the cluster.
    pub fn held(&self) -> &Held {
        &self.held
    }

    /// Sends one write and says what became of it. Never fails, never takes longer than ten seconds.
    pub async fn perform(&self, write: &Write) -> Outcome {
        let now = Instant::now();
        let Some(until) = self.tenure.until(now) else { return Outcome::NotLeading };
        let timeout = TIMEOUT.min(until - now);
        match tokio::time::timeout(timeout, self.send(write)).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => failed(error),
            Err(_) => Outcome::Unknown(format!("no answer within {timeout:.1?}")),
        }
    }

    async fn send(&self, write: &Write) -> Result<Outcome, Error> {
        match write {
            Write::CreateClaim { address, owner, pool, basis } => {
                self.create_claim(claim::object(*address, owner, pool.as_ref(), *basis)).await
            }
            Write::JoinClaim { address, uid, version, owner, sharing, others, came, pinned } => {
                let (at, since) = came.unwrap_or((others.len(), Timestamp::now().as_second()));
                let joined = Holder { owner: owner.clone(), sharing: Some(sharing.clone()), since };
                let mut holders = others.clone();
                holders.insert(at.min(others.len()), joined);
                self.change_claim(*address, uid, version, &holders, Some(pinned)).await
            }
            Write::LeaveClaim { address, uid, version, owner, others, orphan } => {
                let found = if *orphan { self.find(&Id::from(owner)).await? } else { None };
                match found.filter(|found| found.uid() == owner.uid) {
                    Some(claimant) => Ok(Outcome::Claimant(Box::new(claimant))),
                    None => self.change_claim(*address, uid, version, others, None).await,
                }
            }
            Write::PatchService { key, uid, version, change } => {
                self.patch_service(key, uid, version, change).await
            }
            Write::PatchStatus { key, uid, version, verdict } => {
                let condition = json!(condition_of(verdict, Timestamp::now()));
                self.patch_status(key, uid, version, &condition).await
            }
            Write::PatchAnnounced { key, uid, version, silence } => {
                let condition = silence.as_ref().map_or(
                    json!({ "type": condition::ANNOUNCED, "$patch": "delete" }),
                    |silence| json!(silent(silence, Timestamp::now())),
                );
                self.patch_status(key, uid, version, &condition).await
            }
            Write::ListHosts => {
                let ours = ListParams::default().labels(label::HOST);
                let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.leases);
                let listed = leases.list(&ours).await?;
                let read =
                    |lease: &Lease| Some((host::node(lease)?.to_owned(), host::renewed(lease)));
                Ok(Outcome::Hosts(listed.items.iter().filter_map(read).collect()))
            }
            Write::PatchEip { key, uid, version, finalizers, with_ours } => {
                let ours = eip::finalizer::RELEASE;
                let patch = finalizer_patch(uid, version, *finalizers, ours, *with_ours);
                let bindings = self.bindings(key);
                let seen = patch_as_seen(&bindings, &key.name, version, patch).await?;
                Ok(read_binding(seen.object()))
            }
            Write::ApplyEip { key, uid, version, decided, .. } => {
                let body = status(key, uid, version, decided, Timestamp::now());
                let applied = self.bindings(key);
                let applied =
                    applied.patch_status(&key.name, &forced(), &Patch::Apply(body)).await?;
                Ok(read_binding(&applied))
            }
            Write::Read { id } => Ok(match self.find(id).await? {
                Some(claimant) => Outcome::Claimant(Box::new(claimant)),
                None => Outcome::Missing,
            }),
        }
    }

    /// Conditions are merged by type: those of others stay.
    async fn patch_status(
        &self,
        key: &NamespacedName,
        uid: &str,
        version: &str,
        condition: &Value,
    ) -> Result<Outcome, Error> {
        let body = json!({
            "metadata": { "uid": uid, "resourceVersion": version },
            "status": { "conditions": [condition] },
        });
        Ok(self.read(&self.patcher.patch(key, Part::Status, &body).await?))
    }

    async fn patch_service(
        &self,
        key: &NamespacedName,
        uid: &str,
        version: &str,
        change: &Change,
    ) -> Result<Outcome, Error> {
        let Change { finalizers, addresses, .. } = change;
        let ours = finalizer::LOAD_BALANCER_CLEANUP;
        let mut body = service_patch(uid, version, change);
        let mut lacks = !addresses.is_empty() && finalizers.ours.is_none();
        if lacks && finalizers.is_crowd() {
            // First, so that no Service has addresses without it.
            let patch = finalizer_patch(uid, version, *finalizers, ours, true);
            match patch_as_seen(&self.services(key), &key.name, version, patch).await {
                Ok(Answer::Changed(other)) => return Ok(self.read(&other)),
                Ok(Answer::Patched(now)) => {
                    body["metadata"]["resourceVersion"] = json!(now.meta().resource_version);
                    lacks = false;
                }
                // What stands in for a patch is no merge.
                Err(Error::Api(status)) if services::is_lacking(&status) => {}
                Err(error) => return Err(error),
            }
        }
        if lacks {
            body["metadata"]["finalizers"] = json!([ours]);
        } else if addresses.is_empty() && finalizers.ours.is_some() {
            body["metadata"]["$deleteFromPrimitiveList/finalizers"] = json!([ours]);
        }
        Ok(self.read(&self.patcher.patch(key, Part::Object, &body).await?))
    }

    async fn create_claim(&self, object: IPAddress) -> Result<Outcome, Error> {
        if let Some(outcome) = self.held.create(&object, Timestamp::now().as_second()) {
            return Ok(outcome);
        }
        let parameters =
            PostParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() };
        match self.claims().create(&parameters, &object).await {
            Ok(made) => Ok(Claim::read(&made).map_or(Outcome::Taken(None), Outcome::Claimed)),
            Err(Error::Api(status)) if status.code == 409 => {
                let name = object.metadata.name.unwrap_or_default();
                match self.claims().get_opt(&name).await? {
                    Some(there) => Ok(Outcome::Taken(Claim::read(&there))),
                    None => Ok(Outcome::Unknown("it existed a moment ago".to_owned())),
                }
            }
            Err(error) => Err(error),
        }
    }

    /// Leaves the address to these holders if its claim is still as it was seen.
    async fn change_claim(
        &self,
        address: IpAddr,
        uid: &str,
        version: &str,
        holders: &[Holder],
        pinned: Option<&BTreeSet<String>>,
    ) -> Result<Outcome, Error> {
        if let Some(outcome) = self.held.change(address, uid, version, holders, pinned) {
            return Ok(outcome);
        }
        let name = address.to_string();
        let result = if holders.is_empty() {
            let preconditions = Preconditions {
                uid: Some(uid.to_owned()),
                resource_version: Some(version.to_owned()),
            };
            let parameters =
                DeleteParams { preconditions: Some(preconditions), ..Default::default() };
            self.claims().delete(&name, &parameters).await.map(|_| Outcome::Released)
        } else {
            let mut annotations = json!({ annotation::HOLDERS: claim::write_holders(holders) });
            if let Some(pinned) = pinned.filter(|pinned| !pinned.is_empty()) {
                annotations[annotation::PINNED] = json!(claim::write_pinned(pinned));
            }
            let body = Patch::Merge(json!({ "metadata": {
                "uid": uid,
                "resourceVersion": version,
                "annotations": annotations,
            } }));
            let patched = self.claims().patch(&name, &parameters(), &body).await;
            patched.map(|claim| Claim::read(&claim).map_or(Outcome::Taken(None), Outcome::Claimed))
        };
        match result {
            Err(Error::Api(status)) if status.code == 404 => Ok(Outcome::Released),
            Err(Error::Api(status)) if status.code == 409 => {
                let there = self.claims().get_opt(&name).await?;
                // Another uid: this claim is gone, and the address has been claimed anew.
                Ok(match there.filter(|there| there.metadata.uid.as_deref() == Some(uid)) {
                    Some(there) => Outcome::Taken(Claim::read(&there)),
                    None => Outcome::Released,
                })
            }
            result => result,
        }
    }

    /// The Service or EipBinding of that name, if there is one.
    async fn find(&self, id: &Id) -> Result<Option<Claimant>, Error> {
        let name = &id.key.name;
        if id.kind == OwnerKind::Service {
            let found = self.services(&id.key).get_opt(name).await?;
            let read = found.and_then(|found| Service::read(&found, &self.classes));
            return Ok(read.map(Claimant::Service));
        }
        let found = self.bindings(&id.key).get_opt(name).await?;
        Ok(found.and_then(|found| Binding::read(&found)).map(Claimant::Eip))
    }

    fn claims(&self) -> Api<IPAddress> {
        Api::all(self.client.clone())
    }

    fn services(&self, key: &NamespacedName) -> Api<Lean<ServiceObject, Finalizers>> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn bindings(&self, key: &NamespacedName) -> Api<Lean<EipBinding, Finalizers>> {
        Api::namespaced(self.client.clone(), &key.namespace)
    }

    fn read(&self, object: &Lean<ServiceObject, Finalizers>) -> Outcome {
        seen(Service::read(object, &self.classes).map(Claimant::Service))
    }
}

fn read_binding(object: &Lean<EipBinding, Finalizers>) -> Outcome {
    seen(Binding::read(object).map(Claimant::Eip))
}

fn seen(claimant: Option<Claimant>) -> Outcome {
    match claimant {
        Some(claimant) => Outcome::Claimant(Box::new(claimant)),
        None => Outcome::Unknown("the answer has no name".to_owned()),
    }
}

fn parameters() -> PatchParams {
    PatchParams { field_manager: Some(MANAGER.to_owned()), ..Default::default() }
}

/// For server-side apply: these fields are ours, whoever else has written them.
fn forced() -> PatchParams {
    PatchParams { force: true, ..parameters() }
}

/// What is applied to the status of an EipBinding: all the fields that are ours, so that one which is left out goes.
/// With uid and version in it the API server refuses it if the object has changed since, as it does a merge patch.
fn status(
    key: &NamespacedName,
    uid: &str,
    version: &str,
    decided: &Decided,
    now: Timestamp,
) -> Value {
    let Decided { eips, node, target, vmi_ips, epoch, generation, conditions } = decided;
    let conditions: Vec<Condition> =
        conditions.iter().map(|stated| eip_condition_of(stated, now, *generation)).collect();
    let mut status = json!({
        "eips": eips,
        "vmiIPs": vmi_ips,
        "observedGeneration": generation,
        "conditions": conditions,
    });
    if let Some(node) = node {
        status["node"] = json!(node);
    }
    if let Some(target) = target {
        status["target"] = json!(target);
    }
    if let Some(epoch) = epoch {
        status["epoch"] = json!(epoch);
    }
    json!({
        "apiVersion": EipBinding::api_version(&()),
        "kind": EipBinding::kind(&()),
        "metadata": {
            "namespace": key.namespace,
            "name": key.name,
            "uid": uid,
            "resourceVersion": version,
        },
        "status": status,
    })
}

fn eip_condition_of(stated: &Stated, now: Timestamp, generation: i64) -> Condition {
    Condition {
        type_: stated.kind.to_owned(),
        status: if stated.holds { "True" } else { "False" }.to_owned(),
        reason: stated.reason.to_string(),
        message: stated.message.clone(),
        last_transition_time: Time(stated.since.unwrap_or(now)),
        observed_generation: Some(generation),
    }
}

/// Puts the finalizer on or takes it off, and leaves those of others as they are (RFC 6902). With uid and version in it
/// the API server refuses it if the object has changed since.
pub(crate) fn finalizer_patch(
    uid: &str,
    version: &str,
    seen: Finalizers,
    ours: &str,
    with_ours: bool,
) -> Value {
    let mut steps = vec![
        json!({ "op": "replace", "path": "/metadata/uid", "value": uid }),
        json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": version }),
    ];
    match (with_ours, seen.ours) {
        (true, None) if seen.is_empty() => {
            steps.push(json!({ "op": "add", "path": "/metadata/finalizers", "value": [ours] }));
        }
        (true, None) => {
            steps.push(json!({ "op": "add", "path": "/metadata/finalizers/-", "value": ours }));
        }
        (false, Some(index)) => {
            let path = format!("/metadata/finalizers/{index}");
            steps.push(json!({ "op": "test", "path": path, "value": ours }));
            steps.push(json!({ "op": "remove", "path": path }));
        }
        (true, Some(_)) | (false, None) => {}
    }
    Value::Array(steps)
}

/// What became of a JSON patch.
enum Answer<K> {
    /// The object is now like this.
    Patched(K),
    /// It was changed before, and is like this.
    Changed(K),
}

impl<K> Answer<K> {
    fn object(&self) -> &K {
        match self {
            Self::Patched(object) | Self::Changed(object) => object,
        }
    }
}

/// Sends a JSON patch. Where a step does not fit the API server answers 422 and not 409, though it be for a change.
async fn patch_as_seen<K>(
    api: &Api<K>,
    name: &str,
    version: &str,
    steps: Value,
) -> Result<Answer<K>, Error>
where
    K: Resource + Clone + DeserializeOwned + Debug,
{
    let patch = Patch::<()>::Json(serde_json::from_value(steps).map_err(Error::SerdeError)?);
    match api.patch(name, &parameters(), &patch).await {
        Err(Error::Api(status)) if status.code == 422 => {
            let found = api.get(name).await?;
            match found.meta().resource_version.as_deref() {
                Some(now) if now != version => Ok(Answer::Changed(found)),
                _ => Err(Error::Api(status)),
            }
        }
        answer => answer.map(Answer::Patched),
    }
}

/// The strategic merge patch but for finalizers: `null` removes. With uid and version in it the API server refuses it if
/// the Service has changed since.
fn service_patch(uid: &str, version: &str, change: &Change) -> Value {
    let served = !change.addresses.is_empty();
    let text = served.then(|| address::format(change.addresses.iter().copied()));
    let mut annotations = json!({});
    if change.annotates {
        annotations[annotation::LOADBALANCER_IPS] = json!(text);
    }
    if let Some(interface) = &change.interface {
        annotations[annotation::SERVICE_INTERFACE] = json!(interface);
    }
    json!({
        "metadata": {
            "uid": uid,
            "resourceVersion": version,
            "annotations": annotations,
            "labels": { label::IMPLEMENTATION: served.then_some(label::IMPLEMENTATION_VALUE) },
        },
        "spec": { "loadBalancerIP": change.addresses.first() },
    })
}

fn condition_of(verdict: &Verdict, now: Timestamp) -> Condition {
    Condition {
        type_: condition::ADDRESS_ALLOCATED.to_owned(),
        status: if verdict.allocated { "True" } else { "False" }.to_owned(),
        reason: verdict.reason.to_owned(),
        message: verdict.message.clone(),
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

fn silent(silence: &Silence, now: Timestamp) -> Condition {
    Condition {
        type_: condition::ANNOUNCED.to_owned(),
        status: "False".to_owned(),
        reason: silence.reason.to_owned(),
        message: silence.message.clone(),
        last_transition_time: Time(now),
        observed_generation: None,
    }
}

fn failed(error: Error) -> Outcome {
    match error {
        Error::Api(status) => refused(&status),
        error => Outcome::Unknown(chain(&error)),
    }
}

fn refused(status: &Status) -> Outcome {
    let asked = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
    match status.code {
        404 => Outcome::Missing,
        409 => Outcome::Conflict,
        429 if asked > 0 => Outcome::Throttled(Duration::from_secs(asked.into())),
        429 => Outcome::Throttled(BUSY),
        // It may have been written before the server failed ("etcdserver: request timed out").
        500.. => Outcome::Unknown(status.message.clone()),
        code => Outcome::Refused(format!("{} ({code})", status.message)),
    }
}
