//! Requests with a stolen token that change nothing, and what they say.

use anyhow::{Result, bail};
use http::{Method, Request};
use kube::{Client, Error};
use serde_json::{Value, json};

pub(super) const ANNOUNCER: &str = "berth-announcer";
pub(super) const CCM: &str = "berth-ccm";
/// That of announcers of the control plane's own address.
pub(super) const CONTROL_PLANE: &str = "berth-control-plane";
/// The announcer's account by a token that is of no pod.
pub(super) const OF_NO_POD: &str = "berth-announcer, of no pod";
pub(super) const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
pub(super) const NODE_LEASE: &str =
    "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases/node0";
pub(super) const SECRETS: &str = "/api/v1/namespaces/kube-system/secrets";
pub(super) const SERVICES: &str = "/api/v1/namespaces/default/services";
pub(super) const BINDINGS: &str = "/apis/berth.dev/v1alpha1/namespaces/default/eipbindings";
pub(super) const CLAIMS: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
pub(super) const POOLS: &str = "/api/v1/namespaces/kube-system/configmaps/kubevip";
/// A Service of another class, which another node announces.
pub(super) const FAR: &str = "far";
/// One that another node announces, of which it was said that it is left to another program.
pub(super) const LEFT: &str = "left";
/// One that another node announced, and that asks to be ignored.
pub(super) const IGNORED: &str = "ignored";
/// One that berth-ccm has refused the address that it asks for.
pub(super) const REFUSED: &str = "refused";
/// One that its author has filled with annotations.
pub(super) const FULL: &str = "full";
/// The same, signed as berth-ccm signs.
pub(super) const FULL_AS_CCM: &str = "full-as-ccm";
/// An EipBinding that is another node's to hold.
pub(super) const OTHERS: &str = "others";
/// The announcer's account with the rights of overlays/svc-election.
pub(super) const PER_SERVICE: &str = "berth-announcer, with `overlays/svc-election`";

/// The same with those of overlays/node-labels.
pub(super) const LABELLING: &str = "berth-announcer, with `overlays/node-labels`";
/// The accounts that have an overlay's rights, and where those stand.
pub(super) const OVERLAID: [(&str, &str); 2] =
    [(PER_SERVICE, "svc-election"), (LABELLING, "node-labels")];

/// A request that changes nothing (`dryRun=All`): the API server decides on it as on any other.
pub(super) struct Try {
    pub(super) account: &'static str,
    /// What it is for: the second cell of its row in docs/security.md.
    pub(super) what: &'static str,
    how: How,
    path: String,
    pub(super) body: Value,
}

pub(super) enum How {
    Read,
    Create,
    /// A merge patch.
    Patch,
    /// What is there, if anything is, with the body merged in: for who may `update` and not `patch`.
    Replace,
    /// Server-side apply, as the program signs it.
    Apply,
    /// The same, signed by a name of the thief's choice.
    Sign,
    Delete,
}

/// Tries of one account, listed row by row.
pub(super) struct Tries {
    pub(super) account: &'static str,
    pub(super) all: Vec<Try>,
}

impl Tries {
    pub(super) fn add(
        &mut self,
        what: &'static str,
        how: How,
        path: impl Into<String>,
        body: Value,
    ) {
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
    /// The beginning of its body.
    pub(super) fn short(&self) -> String {
        self.body.to_string().chars().take(300).collect()
    }

    /// Asks as `thief`; `admin` reads what is to be replaced. Anything but a decision is an error.
    pub(super) async fn ask(&self, thief: &Client, admin: &Client) -> Result<Answer> {
        loop {
            let (method, kind, body) = match self.how {
                How::Read => (Method::GET, "", json!(null)),
                How::Create => (Method::POST, "application/json", self.body.clone()),
                How::Patch => (Method::PATCH, "application/merge-patch+json", self.body.clone()),
                How::Apply | How::Sign => {
                    (Method::PATCH, "application/apply-patch+yaml", self.body.clone())
                }
                How::Delete => (Method::DELETE, "", json!(null)),
                How::Replace => {
                    let there = admin.request(Request::get(&self.path).body(Vec::new())?).await;
                    let there: Value = match there {
                        Err(Error::Api(status)) if status.code == 404 => json!({}),
                        there => there?,
                    };
                    (Method::PUT, "application/json", merged(there, &self.body))
                }
            };
            let manager = match self.how {
                How::Apply if self.account == CCM => CCM,
                How::Apply => "berth-announcer-node0",
                How::Sign => "thief",
                _ => "unknown",
            };
            let path = format!("{}?dryRun=All&fieldManager={manager}", self.path);
            let path = match self.how {
                How::Apply | How::Sign => format!("{path}&force=true"),
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
        "metadata": { "name": "stolen", "namespace": "default" },
        "action": "Assign", "reason": "AddressAssigned", "note": "x", "type": "Normal",
        "eventTime": "2026-01-01T00:00:00.000000Z",
        "regarding": { "kind": "Service", "namespace": "default", "name": "web" },
        "reportingController": format!("berth.dev/{program}"), "reportingInstance": "x",
    });
    merged(event, more)
}

/// A claim as berth-ccm writes it, of this address and with these labels.
pub(super) fn claim(address: &str, labels: &Value) -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IPAddress",
        "metadata": { "name": address, "labels": labels },
        "spec": { "parentRef": { "resource": "services", "namespace": "default", "name": "web" } },
    })
}

pub(super) fn lease(name: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "holderIdentity": "node0" } })
}

/// An owner that does not exist: what it owns is collected as garbage.
pub(super) fn gone() -> Value {
    json!([{ "apiVersion": "v1", "kind": "Pod", "name": "gone", "uid": "gone" }])
}

/// `managedFields` of 200 KB, of nobody.
pub(super) fn crowded(version: &str) -> Value {
    let fields =
        json!({ "f:metadata": { "f:annotations": { format!("f:{}", "x".repeat(200_000)): {} } } });
    json!({ "metadata": { "managedFields": [{
        "manager": "unknown", "operation": "Update", "apiVersion": version,
        "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields,
    }] } })
}

/// `managedFields` of twenty entries, none of which is long.
pub(super) fn signed_often(version: &str) -> Value {
    let entry = |n: usize| {
        let field = format!("f:{}", "x".repeat(4_000));
        json!({
            "manager": "unknown", "operation": "Apply", "apiVersion": version, "subresource": format!("x{n}"),
            "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1",
            "fieldsV1": { "f:metadata": { "f:annotations": { field: {} } } },
        })
    };
    json!({ "metadata": { "managedFields": (0..20).map(entry).collect::<Vec<_>>() } })
}

/// A condition of a Service, in place of all others.
pub(super) fn condition(kind: &str) -> Value {
    let condition = json!({
        "type": kind, "status": "True", "reason": "AddressConflict", "message": "x",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    json!({ "status": { "conditions": [condition] } })
}

/// A part of the status of an EipBinding.
pub(super) fn status(name: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
        "metadata": { "name": name }, "status": status,
    })
}

/// The conditions that an announcer writes, for this reason.
pub(super) fn said(reason: &str) -> Value {
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "reason": reason, "message": "x",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    json!(["Bound", "Announced"].map(condition))
}

/// What is written into the metadata of a Service that others rule by. An owner that does not exist has it collected as garbage.
pub(super) fn metadata() -> [Value; 4] {
    [
        json!({ "annotations": { "kube-vip.io/serviceVLAN": "7" } }),
        json!({ "labels": { "app": "other" } }),
        json!({ "finalizers": ["example.com/stays"] }),
        json!({ "ownerReferences": gone() }),
    ]
}

pub(super) fn events(tries: &mut Tries) {
    let big = "x".repeat(200_000);
    let programs = [ANNOUNCER, CCM];
    let [program, other] = if tries.account == CCM { [CCM, ANNOUNCER] } else { programs };
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
        crowded("events.k8s.io/v1"),
    ] {
        tries.add(what, How::Create, EVENTS, event(program, &more));
    }
}
