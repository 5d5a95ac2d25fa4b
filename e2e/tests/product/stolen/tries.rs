//! What a stolen token is tried for: requests that change nothing.

use anyhow::{Result, bail};
use berth_e2e::world::{ADDRESSES, HOST};
use http::{Method, Request};
use kube::{Client, Error};
use serde_json::{Value, json};

pub(super) const ANNOUNCER: &str = "berth-announcer";
pub(super) const CCM: &str = "berth-ccm";
/// The announcer's account by a token that is of no pod.
pub(super) const OF_NO_POD: &str = "berth-announcer, of no pod";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
const NODE_LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node0";
const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
const SERVICES: &str = "/api/v1/namespaces/default/services";
const BINDINGS: &str = "/apis/berth.dev/v1alpha1/namespaces/default/eipbindings";
const CLAIMS: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
const POOLS: &str = "/api/v1/namespaces/kube-system/configmaps/kubevip";
/// A Service of another class, which another node announces.
pub(super) const FAR: &str = "far";

/// A request that changes nothing (`dryRun=All`): the API server decides on it as on any other.
pub(super) struct Try {
    pub(super) account: &'static str,
    /// What it is for: the second cell of its row in docs/security.md.
    pub(super) what: &'static str,
    how: How,
    path: String,
    pub(super) body: Value,
}

enum How {
    Read,
    Create,
    /// A merge patch.
    Patch,
    /// What is there, with the body merged in: for who may `update` and not `patch`.
    Replace,
    /// Server-side apply.
    Apply,
    Delete,
}

/// Tries of one account, listed row by row.
struct Tries {
    account: &'static str,
    all: Vec<Try>,
}

impl Tries {
    fn add(&mut self, what: &'static str, how: How, path: impl Into<String>, body: Value) {
        let (account, path) = (self.account, path.into());
        self.all.push(Try { account, what, how, path, body });
    }
}

/// What the API server said.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    Taken,
    /// By roles.
    Forbidden,
    /// By a policy.
    Denied(String),
}

impl Try {
    /// Asks as `thief`; `admin` reads what is to be replaced. Anything but a decision is an error.
    pub(super) async fn ask(&self, thief: &Client, admin: &Client) -> Result<Answer> {
        loop {
            let (method, kind, body) = match self.how {
                How::Read => (Method::GET, "", json!(null)),
                How::Create => (Method::POST, "application/json", self.body.clone()),
                How::Patch => (Method::PATCH, "application/merge-patch+json", self.body.clone()),
                How::Apply => (Method::PATCH, "application/apply-patch+yaml", self.body.clone()),
                How::Delete => (Method::DELETE, "", json!(null)),
                How::Replace => {
                    let there: Value =
                        admin.request(Request::get(&self.path).body(Vec::new())?).await?;
                    (Method::PUT, "application/json", merged(there, &self.body))
                }
            };
            let path = format!("{}?dryRun=All&fieldManager=thief", self.path);
            let path = match self.how {
                How::Apply => format!("{path}&force=true"),
                How::Read => self.path.clone(),
                _ => path,
            };
            let body = if kind.is_empty() { Vec::new() } else { serde_json::to_vec(&body)? };
            let request = Request::builder().method(method).uri(path).header("Content-Type", kind);
            let answer = match thief.request::<Value>(request.body(body)?).await {
                Ok(_) => Answer::Taken,
                Err(Error::Api(status)) if status.code == 403 => Answer::Forbidden,
                Err(Error::Api(status)) if status.message.contains("Policy 'berth-") => {
                    Answer::Denied(status.message.clone())
                }
                // Its owner has renewed it meanwhile.
                Err(Error::Api(status)) if status.code == 409 => continue,
                Err(error) => bail!("{} {}: {error}", self.account, self.what),
            };
            return Ok(answer);
        }
    }
}

/// `object` with `more` merged in, member by member.
pub(super) fn merged(mut object: Value, more: &Value) -> Value {
    if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
        for (key, value) in more {
            let place = object.entry(key).or_insert(json!({}));
            *place = merged(place.take(), value);
        }
        return Value::Object(std::mem::take(object));
    }
    more.clone()
}

/// An Event as the program writes it, but for `more`.
pub(super) fn event(program: &str, more: &Value) -> Value {
    let event = json!({
        "metadata": { "generateName": "stolen-", "namespace": "default" },
        "action": "Assign", "reason": "AddressAssigned", "note": "x", "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": { "kind": "Service", "namespace": "default", "name": "web" },
        "reportingController": format!("berth.dev/{program}"), "reportingInstance": "x",
    });
    merged(event, more)
}

/// A claim as berth-ccm writes it, with these labels.
fn claim(labels: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": { "name": "10.0.64.249", "labels": labels },
        "spec": { "parentRef": { "resource": "services", "namespace": "default", "name": "web" } },
    })
}

fn lease(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "holderIdentity": "node0" } })
}

/// A condition of a Service, in place of all others.
fn condition(kind: &str) -> Value {
    let condition = json!({
        "type": kind, "status": "True", "reason": "AddressConflict", "message": "x",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({ "status": { "conditions": [condition] } })
}

/// A part of the status of the EipBinding.
fn status(status: &Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
        "metadata": { "name": "vm" }, "status": status,
    })
}

/// What is written into the metadata of a Service that others rule by. An owner that does not exist has it collected as garbage.
fn metadata() -> [Value; 4] {
    let owner = json!({ "apiVersion": "v1", "kind": "Pod", "name": "gone", "uid": "gone" });
    [
        json!({ "annotations": { "kube-vip.io/serviceVLAN": "7" } }),
        json!({ "labels": { "app": "other" } }),
        json!({ "finalizers": ["example.com/stays"] }),
        json!({ "ownerReferences": [owner] }),
    ]
}

fn events(tries: &mut Tries) {
    let (program, big) = (tries.account, "x".repeat(200_000));
    let other = if program == CCM { ANNOUNCER } else { CCM };
    tries.add("an Event of its own", How::Create, EVENTS, event(program, &json!({})));
    let what = "an Event of another program, or one of 200 KB";
    tries.add(what, How::Create, EVENTS, event(other, &json!({})));
    tries.add(
        what,
        How::Patch,
        format!("{EVENTS}/foreign"),
        json!({ "metadata": { "labels": { "x": "y" } } }),
    );
    for more in [
        json!({ "metadata": { "annotations": { "x": big } } }),
        json!({ "regarding": { "fieldPath": big } }),
    ] {
        tries.add(what, How::Create, EVENTS, event(program, &more));
    }
}

/// What the token of an announcer on `node0` is tried for. `web` is published by it at `address`.
pub(super) fn by_announcer(address: &str) -> Vec<Try> {
    let mut tries = Tries { account: ANNOUNCER, all: Vec::new() };
    let named = |name: &str| format!("{LEASES}/{name}");
    let held = |who: &str| json!({ "spec": { "holderIdentity": who } });
    tries.add("its own node's Lease", How::Replace, named("berth-announcer-node0"), json!({}));
    tries.add("the view of membership", How::Replace, named("berth-membership"), json!({}));
    tries.add("another node's Lease", How::Create, LEASES, lease("berth-announcer-node1"));
    let what = "the Lease of another program";
    tries.add(what, How::Replace, named("kube-controller-manager"), held("node0"));
    let what = "`plndr-svcs-lock` for another node";
    tries.add(what, How::Replace, named("plndr-svcs-lock"), held("node1"));
    tries.add("a node's heartbeat in `kube-node-lease`", How::Replace, NODE_LEASE, json!({}));
    let key = format!("{SECRETS}/berth-membership");
    tries.add("to read the key of the heartbeats", How::Read, key.clone(), json!({}));
    let other = json!({ "data": { "key": "c3RvbGVuc3RvbGVuc3RvbGVuc3RvbGVuc3RvbGVuc3Q=" } });
    tries.add("to replace the key of the heartbeats", How::Replace, key, other);
    tries.add("other Secrets", How::Read, SECRETS, json!({}));

    let web_status = format!("{SERVICES}/web/status");
    let shown = |host: Option<&str>, address: &str| {
        json!({
            "metadata": { "annotations": { HOST: host } },
            "status": { "loadBalancer": { "ingress": [{ "ip": address }] } },
        })
    };
    let mut publish = |what, service: &str, host, address: &str| {
        let path = format!("{SERVICES}/{service}/status");
        tries.add(what, How::Patch, path, shown(host, address));
    };
    publish("to publish its own node", "web", Some("node0"), address);
    publish("to publish another node", "web", Some("node1"), address);
    publish("the addresses that another node publishes", FAR, Some("node1"), "192.0.2.2");
    publish(
        "an address that the Service neither has nor asks for",
        "web",
        Some("node0"),
        "192.0.2.1",
    );
    let none = json!({ "status": { "loadBalancer": { "ingress": null } } });
    tries.add("that nobody publishes a Service", How::Patch, web_status.clone(), none);
    for (what, kind) in [
        ("that another host has an address", "berth.dev/AddressConflict"),
        ("conditions of others in a Service", "berth.dev/AddressAllocated"),
    ] {
        tries.add(what, How::Patch, web_status.clone(), condition(kind));
    }
    for metadata in metadata() {
        let what = "other annotations, labels, finalizers and owners of a Service";
        tries.add(what, How::Patch, web_status.clone(), json!({ "metadata": metadata }));
    }
    let what = "`spec` of a Service, or its deletion";
    let patch = json!({ "spec": { "selector": { "app": "other" } } });
    tries.add(what, How::Patch, format!("{SERVICES}/web"), patch);
    tries.add(what, How::Delete, format!("{SERVICES}/web"), json!({}));
    let what = "a claim";
    tries.add(what, How::Create, CLAIMS, claim(&json!({})));
    tries.add(what, How::Delete, format!("{CLAIMS}/{address}"), json!({}));

    let vm = format!("{BINDINGS}/vm");
    let asked = json!({ "spec": { "retain": false } });
    tries.add("`spec` of an EipBinding", How::Patch, vm.clone(), asked);
    let vm = format!("{vm}/status");
    let holds = |node: &str| status(&json!({ "holder": { "node": node, "epoch": 1 } }));
    tries.add("that its own node holds an elastic IP", How::Apply, vm.clone(), holds("node0"));
    tries.add("that another node holds an elastic IP", How::Apply, vm.clone(), holds("node1"));
    let what = "which elastic IPs there are, and where";
    for decided in [json!({ "eips": ["192.0.2.1"] }), json!({ "node": "node0" })] {
        tries.add(what, How::Apply, vm.clone(), status(&decided));
    }
    events(&mut tries);
    tries.account = OF_NO_POD;
    tries.add("any Lease", How::Replace, named("berth-announcer-node0"), json!({}));
    tries.add("any status", How::Patch, web_status, shown(None, address));
    tries.all
}

/// What the token of berth-ccm is tried for.
pub(super) fn by_ccm(address: &str, web: &Value) -> Vec<Try> {
    let mut tries = Tries { account: CCM, all: Vec::new() };
    let service = format!("{SERVICES}/web");
    let given = json!({
        "metadata": { "annotations": { ADDRESSES: "192.0.2.1" } },
        "spec": { "loadBalancerIP": "192.0.2.1" },
    });
    tries.add("to give a Service any address", How::Patch, service.clone(), given);
    for spec in [
        json!({ "type": "NodePort" }),
        json!({ "type": "ExternalName", "externalName": "example.com" }),
        json!({ "ports": [{ "port": 22 }] }),
        json!({ "selector": { "app": "other" } }),
        json!({ "externalIPs": ["192.0.2.1"] }),
        json!({ "externalTrafficPolicy": "Local" }),
        json!({ "loadBalancerSourceRanges": ["192.0.2.0/24"] }),
    ] {
        let what = "what a Service leads to";
        tries.add(what, How::Patch, service.clone(), json!({ "spec": spec }));
    }
    for metadata in metadata() {
        let what = "other annotations, labels, finalizers and owners of a Service";
        let patch = json!({ "metadata": metadata });
        tries.add(what, How::Patch, service.clone(), patch.clone());
        tries.add(what, How::Patch, format!("{service}/status"), patch);
    }
    let what = "conditions of others in a Service";
    let conflict = condition("berth.dev/AddressConflict");
    tries.add(what, How::Patch, format!("{service}/status"), conflict);
    let what = "to publish a Service";
    let shown = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": address }] } } });
    tries.add(what, How::Patch, format!("{SERVICES}/{FAR}/status"), shown);
    let what = "the deletion of a Service";
    tries.add(what, How::Delete, service, json!({}));

    let ours = json!({ "ipaddress.kubernetes.io/managed-by": "berth" });
    tries.add("a claim of its own", How::Create, CLAIMS, claim(&ours));
    tries.add("a claim of its own", How::Delete, format!("{CLAIMS}/{address}"), json!({}));
    let what = "a claim of another, as of a cluster IP";
    tries.add(what, How::Create, CLAIMS, claim(&json!({})));
    let cluster = web["spec"]["clusterIP"].as_str().unwrap_or_default();
    tries.add(what, How::Delete, format!("{CLAIMS}/{cluster}"), json!({}));

    let vm = format!("{BINDINGS}/vm");
    let asked = json!({ "spec": { "retain": false } });
    tries.add("`spec` of an EipBinding", How::Patch, vm.clone(), asked);
    let decided = status(&json!({ "eips": ["192.0.2.1"] }));
    tries.add("any elastic IP anywhere", How::Apply, format!("{vm}/status"), decided);
    let own = format!("{LEASES}/kube-vip-cloud-controller");
    tries.add("its own Lease", How::Replace, own, json!({}));
    tries.add("a Lease of another name", How::Create, LEASES, lease("other"));
    let what = "a node's heartbeat in `kube-node-lease`";
    tries.add(what, How::Replace, NODE_LEASE, json!({}));
    tries.add("the ConfigMap of pools", How::Patch, POOLS, json!({ "data": { "x": "y" } }));
    tries.add("Secrets", How::Read, SECRETS, json!({}));
    events(&mut tries);
    tries.all
}
