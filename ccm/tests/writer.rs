//! The writer against a scripted API server: what goes over the wire, and what each answer means.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use berth_api::NamespacedName;
use berth_api::service::ClassPolicy;
use berth_ccm::writer::Writer;
use berth_index::binding::{Decided, Stated};
use berth_index::claim::{Basis, Holder};
use berth_index::finalizers::Finalizers;
use berth_index::write::{Change, Outcome, Silence, Verdict, Write};
use berth_ipam::{Owner, OwnerKind, Protocol, Scope, Sharing, TrafficPolicy};
use berth_runtime::lease::Tenure;
use http::{Request, Response};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const JSON: &str = "application/json-patch+json";

type Log = Arc<Mutex<Vec<(String, Value)>>>;

/// Answers each request with the next of the script, and with silence when there is none.
fn scripted(script: impl IntoIterator<Item = (u16, Value)>) -> (Client, Log) {
    let script =
        Arc::new(Mutex::new(script.into_iter().collect::<std::collections::VecDeque<_>>()));
    let log = Log::default();
    let seen = log.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let (script, seen) = (script.clone(), seen.clone());
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect_bytes().await?;
            let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
            let kind = parts.headers.get("content-type").and_then(|kind| kind.to_str().ok());
            let mut line = format!("{} {}", parts.method, parts.uri.path());
            if let Some(kind) = kind.filter(|kind| [STRATEGIC, JSON].contains(kind)) {
                line = format!("{line} {kind}");
            }
            seen.lock().unwrap().push((line, body));
            let answer = script.lock().unwrap().pop_front();
            let Some((code, body)) = answer else { return std::future::pending().await };
            let body = Body::from(serde_json::to_vec(&body)?);
            Ok::<_, tower::BoxError>(Response::builder().status(code).body(body)?)
        }
    });
    (Client::new(service, "default"), log)
}

async fn perform(
    script: impl IntoIterator<Item = (u16, Value)>,
    write: &Write,
) -> (Outcome, Vec<(String, Value)>) {
    let (client, log) = scripted(script);
    let writer = Writer::new(client, ClassPolicy::default(), Tenure::unlimited(), "kube-system");
    let outcome = writer.perform(write).await;
    let log = log.lock().unwrap().clone();
    (outcome, log)
}

fn status(code: u16, reason: &str) -> (u16, Value) {
    (code, json!({ "kind": "Status", "code": code, "reason": reason, "message": reason }))
}

fn key() -> NamespacedName {
    NamespacedName { namespace: "shop".to_owned(), name: "web".to_owned() }
}

fn owner() -> Owner {
    Owner::new(OwnerKind::Service, "shop", "web", "uid-1")
}

fn service() -> Value {
    json!({ "metadata": { "namespace": "shop", "name": "web", "uid": "uid-1", "resourceVersion": "8" },
            "spec": { "type": "LoadBalancer" } })
}

fn claim(uid: &str, manager: &str) -> Value {
    json!({
        "metadata": {
            "name": "2001:db8::1",
            "uid": uid,
            "labels": { "ipaddress.kubernetes.io/managed-by": manager },
            "annotations": { "berth.dev/owner-uid": "uid-9" },
        },
        "spec": { "parentRef": { "resource": "services", "namespace": "shop", "name": "other" } },
    })
}

fn create() -> Write {
    Write::CreateClaim {
        address: "2001:DB8:0::1".parse().unwrap(),
        owner: owner(),
        pool: Some(Scope::Global),
        basis: Basis::Given,
    }
}

fn delete(orphan: bool) -> Write {
    leave(Vec::new(), orphan)
}

fn leave(others: Vec<Holder>, orphan: bool) -> Write {
    Write::LeaveClaim {
        address: "2001:db8::1".parse().unwrap(),
        uid: "c-1".to_owned(),
        version: "6".to_owned(),
        owner: owner(),
        others,
        orphan,
    }
}

/// One who was alone at the address before.
fn other() -> Holder {
    let owner = Owner::new(OwnerKind::Service, "shop", "other", "uid-9");
    let sharing = Sharing { ports: [(Protocol::Tcp, 80)].into(), policy: TrafficPolicy::Cluster };
    Holder { owner, sharing: Some(sharing), since: 5 }
}

fn join() -> Write {
    let sharing = Sharing { ports: [(Protocol::Udp, 53)].into(), policy: TrafficPolicy::Local };
    Write::JoinClaim {
        address: "2001:db8::1".parse().unwrap(),
        uid: "c-1".to_owned(),
        version: "6".to_owned(),
        owner: owner(),
        sharing,
        others: vec![other()],
        came: None,
        pinned: BTreeSet::new(),
    }
}

fn patch(addresses: &[&str]) -> Write {
    patch_beside(Finalizers { ours: None, others: 1 }, addresses)
}

fn patch_beside(finalizers: Finalizers, addresses: &[&str]) -> Write {
    let change = Change {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        annotates: true,
        interface: None,
        finalizers,
        is_news: true,
    };
    Write::PatchService { key: key(), uid: "uid-1".to_owned(), version: "7".to_owned(), change }
}

const CLAIMS: &str = "/apis/networking.k8s.io/v1/ipaddresses";
const BINDING: &str = "/apis/berth.dev/v1alpha1/namespaces/shop/eipbindings/web";
const SERVICE: &str = "/api/v1/namespaces/shop/services/web";

#[tokio::test]
async fn a_claim_is_named_by_the_canonical_address_and_tells_its_owner() {
    let (outcome, log) = perform([(201, claim("c-1", "berth"))], &create()).await;
    assert!(matches!(outcome, Outcome::Claimed(claim) if claim.uid == "c-1"));
    let (line, body) = &log[0];
    assert_eq!(line, &format!("POST {CLAIMS}"));
    assert_eq!(body["metadata"]["name"], "2001:db8::1");
    assert_eq!(
        body["metadata"]["labels"],
        json!({ "ipaddress.kubernetes.io/managed-by": "berth" })
    );
    assert_eq!(
        body["metadata"]["annotations"],
        json!({ "berth.dev/owner-uid": "uid-1", "berth.dev/pool": "global" })
    );
    assert_eq!(
        body["spec"]["parentRef"],
        json!({ "group": "", "resource": "services", "namespace": "shop", "name": "web" })
    );
}

#[tokio::test]
async fn a_claim_that_exists_is_read_to_see_whose_it_is() {
    let taken = || status(409, "AlreadyExists");
    let (outcome, log) = perform([taken(), (200, claim("c-9", "berth"))], &create()).await;
    assert!(
        matches!(outcome, Outcome::Taken(Some(claim)) if claim.holders[0].owner.name == "other")
    );
    assert_eq!(log[1].0, format!("GET {CLAIMS}/2001:db8::1"));
    let (outcome, _) =
        perform([taken(), (200, claim("c-9", "ipallocator.k8s.io"))], &create()).await;
    assert_eq!(outcome, Outcome::Taken(None));
    let (outcome, _) = perform([taken(), status(404, "NotFound")], &create()).await;
    assert!(matches!(outcome, Outcome::Unknown(_)), "gone again: worth another try");
}

#[tokio::test]
async fn a_service_is_patched_once_and_only_as_it_was_seen() {
    let (outcome, log) = perform([(200, service())], &patch(&["192.0.2.1", "2001:db8::1"])).await;
    assert!(matches!(outcome, Outcome::Claimant(service) if service.version() == "8"));
    let expected = json!({
        "metadata": {
            "uid": "uid-1",
            "resourceVersion": "7",
            "annotations": { "kube-vip.io/loadbalancerIPs": "192.0.2.1,2001:db8::1" },
            "labels": { "implementation": "kube-vip" },
            "finalizers": ["service.kubernetes.io/load-balancer-cleanup"],
        },
        "spec": { "loadBalancerIP": "192.0.2.1" },
    });
    assert_eq!(log, [(format!("PATCH {SERVICE} {STRATEGIC}"), expected)]);
}

#[tokio::test]
async fn that_nobody_announces_a_service_is_said_beside_what_others_say_and_taken_back() {
    let write = |silence| Write::PatchAnnounced {
        key: key(),
        uid: "uid-1".to_owned(),
        version: "7".to_owned(),
        silence,
    };
    let (reason, message) = ("NoAnnouncer", "x".to_owned());
    let says = write(Some(Silence { reason, message, is_news: true }));
    let (_, log) = perform([(200, service())], &says).await;
    let (line, body) = &log[0];
    assert_eq!(line, &format!("PATCH {SERVICE}/status {STRATEGIC}"));
    assert_eq!(body["metadata"], json!({ "uid": "uid-1", "resourceVersion": "7" }));
    let condition = &body["status"]["conditions"][0];
    assert_eq!(
        [&condition["type"], &condition["status"], &condition["reason"], &condition["message"]],
        ["berth.dev/Announced", "False", "NoAnnouncer", "x"]
    );
    let (_, log) = perform([(200, service())], &write(None)).await;
    let gone = json!({ "conditions": [{ "type": "berth.dev/Announced", "$patch": "delete" }] });
    assert_eq!(log[0].1["status"], gone);
}

#[tokio::test]
async fn the_leases_of_announcers_are_listed_where_they_are() {
    let lease = |node: &str, owner: &str| {
        json!({
            "metadata": {
                "name": format!("berth-announcer-{node}"),
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": owner, "uid": "u" }],
            },
            "spec": { "renewTime": "2026-01-01T00:00:00.000001Z" },
        })
    };
    let list = json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "LeaseList", "metadata": {},
        "items": [lease("a", "a"), lease("b", "other")],
    });
    let (outcome, log) = perform([(200, list)], &Write::ListHosts).await;
    let Outcome::Hosts(hosts) = outcome else { panic!("{outcome:?}") };
    assert_eq!(hosts, [("a".to_owned(), "2026-01-01T00:00:00.000001Z".to_owned())]);
    let path = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases";
    assert!(log[0].0.starts_with(&format!("GET {path}")), "{}", log[0].0);
}

#[tokio::test]
async fn the_finalizer_of_a_service_leaves_those_of_others() {
    let put = |finalizers, addresses: &[&str]| {
        let write = patch_beside(finalizers, addresses);
        async move { perform([(200, service())], &write).await.1.remove(0) }
    };
    let ours = json!(["service.kubernetes.io/load-balancer-cleanup"]);
    let marked = Finalizers { ours: Some(3), others: 121_000 };
    let (line, body) = put(marked, &["192.0.2.1"]).await;
    assert!(line.ends_with(STRATEGIC), "{line}");
    assert!(!body.to_string().contains("finalizers"), "it is there: {body}");
    let (line, body) = put(marked, &[]).await;
    assert!(line.ends_with(STRATEGIC), "{line}");
    assert_eq!(body["metadata"]["$deleteFromPrimitiveList/finalizers"], ours);
    assert_eq!(body["metadata"]["finalizers"], Value::Null);
    let (_, body) = put(Finalizers { ours: None, others: 9 }, &[]).await;
    assert!(!body.to_string().contains("finalizers"), "it is not there: {body}");
}

#[tokio::test]
async fn the_finalizer_is_put_on_a_crowd_of_them_by_itself_and_first() {
    let write = patch_beside(Finalizers { ours: None, others: 121_000 }, &["192.0.2.1"]);
    let (outcome, log) = perform([(200, service()), (200, service())], &write).await;
    assert!(matches!(outcome, Outcome::Claimant(_)));
    let ours = "service.kubernetes.io/load-balancer-cleanup";
    let steps = json!([
        { "op": "replace", "path": "/metadata/uid", "value": "uid-1" },
        { "op": "replace", "path": "/metadata/resourceVersion", "value": "7" },
        { "op": "add", "path": "/metadata/finalizers/-", "value": ours },
    ]);
    assert_eq!(log[0], (format!("PATCH {SERVICE} {JSON}"), steps));
    assert_eq!(log[1].0, format!("PATCH {SERVICE} {STRATEGIC}"));
    let metadata = &log[1].1["metadata"];
    assert_eq!(
        (&metadata["resourceVersion"], &metadata["finalizers"]),
        (&json!("8"), &Value::Null)
    );
    // Somebody has changed it meanwhile: then nothing else is written.
    let (outcome, log) = perform([status(422, "Invalid"), (200, service())], &write).await;
    assert!(matches!(outcome, Outcome::Claimant(service) if service.version() == "8"));
    assert_eq!((log.len(), &log[1].0), (2, &format!("GET {SERVICE}")));
    let (outcome, log) = perform([status(409, "Conflict")], &write).await;
    assert_eq!((outcome, log.len()), (Outcome::Conflict, 1));
}

#[tokio::test]
async fn where_a_role_lets_a_service_be_replaced_alone_it_is_replaced_as_it_was_seen() {
    let refused = || {
        let message = "User \"u\" cannot patch resource \"services\" in API group \"\"";
        (403, json!({ "kind": "Status", "code": 403, "reason": "Forbidden", "message": message }))
    };
    let seen = |version: &str| {
        let mut seen = service();
        seen["apiVersion"] = json!("v1");
        seen["kind"] = json!("Service");
        seen["metadata"]["resourceVersion"] = json!(version);
        seen["spec"]["new"] = json!("stays");
        (200, seen)
    };
    for others in [1, 65] {
        let write = patch_beside(Finalizers { ours: None, others }, &["192.0.2.1"]);
        let refusals = if others > 1 { 2 } else { 1 };
        let script = (0..refusals).map(|_| refused()).chain([seen("7"), (200, service())]);
        let (outcome, log) = perform(script, &write).await;
        assert!(matches!(outcome, Outcome::Claimant(service) if service.version() == "8"));
        let lines: Vec<&str> = log[refusals..].iter().map(|(line, _)| line.as_str()).collect();
        assert_eq!(lines, [format!("GET {SERVICE}"), format!("PUT {SERVICE}")]);
        let written = &log[refusals + 1].1;
        let ours = json!(["service.kubernetes.io/load-balancer-cleanup"]);
        assert_eq!(
            (&written["metadata"]["finalizers"], &written["spec"]["new"]),
            (&ours, &json!("stays"))
        );
        assert_eq!(written["metadata"]["resourceVersion"], "7");
    }
    let (outcome, log) = perform([refused(), seen("8")], &patch(&["192.0.2.1"])).await;
    assert_eq!((outcome, log.len()), (Outcome::Conflict, 2), "it was another by then");
}

#[tokio::test]
async fn claims_that_are_held_here_cost_no_request() {
    let (client, log) = scripted([]);
    let writer = Writer::new(client, ClassPolicy::default(), Tenure::unlimited(), "kube-system");
    writer.held().begin();
    let Outcome::Claimed(claim) = writer.perform(&create()).await else { panic!("not claimed") };
    assert_eq!(claim.holders[0].owner, owner());
    assert!(matches!(writer.clone().perform(&create()).await, Outcome::Taken(Some(_))));
    assert_eq!(log.lock().unwrap().len(), 0);
}

#[tokio::test]
async fn a_release_removes_what_was_written() {
    let marked = Finalizers { ours: Some(0), others: 1 };
    let (_, log) = perform([(200, service())], &patch_beside(marked, &[])).await;
    let body = &log[0].1;
    assert_eq!(body["metadata"]["annotations"], json!({ "kube-vip.io/loadbalancerIPs": null }));
    assert_eq!(body["metadata"]["labels"], json!({ "implementation": null }));
    assert_eq!(body["spec"], json!({ "loadBalancerIP": null }));
}

#[tokio::test]
async fn a_verdict_keeps_the_conditions_of_others() {
    let write = Write::PatchStatus {
        key: key(),
        uid: "uid-1".to_owned(),
        version: "7".to_owned(),
        verdict: Verdict {
            allocated: false,
            reason: "NoPool",
            message: "there is no pool".to_owned(),
        },
    };
    let (_, log) = perform([(200, service())], &write).await;
    assert_eq!(log[0].0, format!("PATCH {SERVICE}/status {STRATEGIC}"));
    let conditions = log[0].1["status"]["conditions"].as_array().unwrap();
    assert_eq!(conditions.len(), 1, "merged by type");
    assert_eq!(
        (&conditions[0]["status"], &conditions[0]["reason"]),
        (&json!("False"), &json!("NoPool"))
    );
}

#[tokio::test]
async fn only_the_claim_that_is_meant_is_deleted() {
    let (outcome, log) = perform([(200, json!({}))], &delete(false)).await;
    assert_eq!(outcome, Outcome::Released);
    assert_eq!(log[0].0, format!("DELETE {CLAIMS}/2001:db8::1"));
    assert_eq!(log[0].1["preconditions"], json!({ "uid": "c-1", "resourceVersion": "6" }));
    assert_eq!(perform([status(404, "NotFound")], &delete(false)).await.0, Outcome::Released);
    let changed = || status(409, "Conflict");
    for other in [status(404, "NotFound"), (200, claim("c-2", "berth"))] {
        assert_eq!(perform([changed(), other], &delete(false)).await.0, Outcome::Released);
    }
    let (outcome, _) = perform([changed(), (200, claim("c-1", "berth"))], &delete(false)).await;
    assert!(matches!(outcome, Outcome::Taken(Some(_))), "somebody has joined: it is not deleted");
}

#[tokio::test]
async fn who_joins_an_address_changes_its_claim_only_as_it_was_seen() {
    let (outcome, log) = perform([(200, claim("c-1", "berth"))], &join()).await;
    assert!(matches!(outcome, Outcome::Claimed(_)));
    assert_eq!(log[0].0, format!("PATCH {CLAIMS}/2001:db8::1"));
    let metadata = &log[0].1["metadata"];
    assert_eq!((&metadata["uid"], &metadata["resourceVersion"]), (&json!("c-1"), &json!("6")));
    let text = metadata["annotations"]["berth.dev/holders"].as_str().unwrap();
    let mut holders: serde_json::Value = serde_json::from_str(text).unwrap();
    assert!(holders[1]["since"].take().as_i64().unwrap() > 1_700_000_000);
    assert_eq!(
        holders,
        json!([
            { "namespace": "shop", "name": "other", "uid": "uid-9", "since": 5, "ports": ["TCP/80"] },
            { "namespace": "shop", "name": "web", "uid": "uid-1", "since": null, "policy": "Local", "ports": ["UDP/53"] },
        ])
    );
    let mut again = join();
    let Write::JoinClaim { came, .. } = &mut again else { panic!() };
    *came = Some((0, 3));
    let (_, log) = perform([(200, claim("c-1", "berth"))], &again).await;
    let text = log[0].1["metadata"]["annotations"]["berth.dev/holders"].as_str().unwrap();
    let holders: serde_json::Value = serde_json::from_str(text).unwrap();
    let since = |at: usize| (holders[at]["name"].as_str(), holders[at]["since"].as_i64());
    let both = [since(0), since(1)];
    assert_eq!(
        both,
        [(Some("web"), Some(3)), (Some("other"), Some(5))],
        "it stays before the other"
    );
    let changed = [status(409, "Conflict"), (200, claim("c-1", "berth"))];
    assert!(matches!(perform(changed, &join()).await.0, Outcome::Taken(Some(_))));
    assert_eq!(perform([status(404, "NotFound")], &join()).await.0, Outcome::Released);
}

#[tokio::test]
async fn who_leaves_a_shared_address_leaves_it_to_the_others() {
    let (outcome, log) =
        perform([(200, claim("c-1", "berth"))], &leave(vec![other()], false)).await;
    assert!(matches!(outcome, Outcome::Claimed(_)));
    let annotation = &log[0].1["metadata"]["annotations"]["berth.dev/holders"];
    assert!(annotation.as_str().unwrap().contains("other"));
    assert!(!annotation.as_str().unwrap().contains("web"));
}

#[tokio::test]
async fn an_orphan_is_deleted_only_after_a_look_at_its_owner() {
    let (outcome, log) = perform([(200, service())], &delete(true)).await;
    assert!(matches!(outcome, Outcome::Claimant(_)));
    assert_eq!(log.len(), 1, "it lives: {log:?}");
    let (outcome, log) = perform([status(404, "NotFound"), (200, json!({}))], &delete(true)).await;
    assert_eq!((outcome, log.len()), (Outcome::Released, 2));
    let mut anew = service();
    anew["metadata"]["uid"] = json!("uid-2");
    let (outcome, _) = perform([(200, anew), (200, json!({}))], &delete(true)).await;
    assert_eq!(outcome, Outcome::Released, "one of the same name is not the owner");
}

fn binding() -> Value {
    json!({ "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding", "spec": { "vmi": "vm" },
            "metadata": { "namespace": "shop", "name": "web", "uid": "uid-1", "resourceVersion": "8" } })
}

#[tokio::test]
async fn a_status_is_applied_with_all_that_is_ours_and_nothing_else() {
    let stated = |kind, holds, since: Option<&str>| Stated {
        kind,
        holds,
        reason: "Why".into(),
        message: "words".to_owned(),
        since: since.map(|since| since.parse().unwrap()),
    };
    let since = "2026-01-01T00:00:00Z";
    let decided = Decided {
        eips: vec!["192.0.2.1".parse().unwrap()],
        node: None,
        target: None,
        vmi_ips: Vec::new(),
        epoch: Some(3),
        generation: 2,
        conditions: [stated("Allocated", true, Some(since)), stated("Ready", false, None)],
    };
    let (uid, version) = ("uid-1".to_owned(), "7".to_owned());
    let write = Write::ApplyEip { key: key(), uid, version, decided, news: Vec::new() };
    let (outcome, log) = perform([(200, binding())], &write).await;
    assert!(matches!(outcome, Outcome::Claimant(binding) if binding.version() == "8"));
    let (line, body) = &log[0];
    assert_eq!(line, &format!("PATCH {BINDING}/status"));
    let mut said = body["status"].clone();
    let conditions = said["conditions"].take();
    assert_eq!(
        (&body["metadata"], said),
        (
            &json!({ "namespace": "shop", "name": "web", "uid": "uid-1", "resourceVersion": "7" }),
            json!({ "eips": ["192.0.2.1"], "vmiIPs": [], "epoch": 3, "observedGeneration": 2, "conditions": null }),
        ),
        "a node that is left out is taken away"
    );
    assert_eq!(conditions[0]["lastTransitionTime"], since);
    assert_eq!(
        (&conditions[1]["type"], &conditions[1]["status"]),
        (&json!("Ready"), &json!("False"))
    );
    assert_eq!(perform([status(409, "Conflict")], &write).await.0, Outcome::Conflict);
}

#[tokio::test]
async fn the_finalizer_of_a_binding_is_put_on_as_it_was_seen() {
    let write = |finalizers, with_ours| Write::PatchEip {
        key: key(),
        uid: "uid-1".to_owned(),
        version: "7".to_owned(),
        finalizers,
        with_ours,
    };
    let as_seen = [
        json!({ "op": "replace", "path": "/metadata/uid", "value": "uid-1" }),
        json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": "7" }),
    ];
    let at = |index: &str| format!("/metadata/finalizers{index}");
    for (finalizers, with_ours, steps) in [
        (
            Finalizers::default(),
            true,
            vec![json!({ "op": "add", "path": at(""), "value": ["berth.dev/eip"] })],
        ),
        (
            Finalizers { ours: None, others: 2 },
            true,
            vec![json!({ "op": "add", "path": at("/-"), "value": "berth.dev/eip" })],
        ),
        (
            Finalizers { ours: Some(1), others: 2 },
            false,
            vec![
                json!({ "op": "test", "path": at("/1"), "value": "berth.dev/eip" }),
                json!({ "op": "remove", "path": at("/1") }),
            ],
        ),
    ] {
        let (_, log) = perform([(200, binding())], &write(finalizers, with_ours)).await;
        let steps: Vec<_> = as_seen.iter().cloned().chain(steps).collect();
        assert_eq!(log, [(format!("PATCH {BINDING} {JSON}"), json!(steps))]);
    }
    let off = write(Finalizers { ours: Some(1), others: 2 }, false);
    let (outcome, _) = perform([status(422, "Invalid"), (200, binding())], &off).await;
    assert!(matches!(outcome, Outcome::Claimant(binding) if binding.version() == "8"));
    let mut same = binding();
    same["metadata"]["resourceVersion"] = json!("7");
    let (outcome, _) = perform([status(422, "Invalid"), (200, same)], &off).await;
    assert_eq!(outcome, Outcome::Refused("Invalid (422)".to_owned()), "not for a change");
}

#[tokio::test]
async fn every_refusal_is_told_for_what_it_is() {
    let mut busy = status(429, "TooManyRequests");
    busy.1["details"] = json!({ "retryAfterSeconds": 7 });
    let bare = (429, json!("Too many requests, please try again later."));
    for (answer, expected) in [
        (status(409, "Conflict"), Outcome::Conflict),
        (status(404, "NotFound"), Outcome::Missing),
        (busy, Outcome::Throttled(Duration::from_secs(7))),
        (bare, Outcome::Throttled(Duration::from_secs(1))),
        (
            status(500, "etcdserver: request timed out"),
            Outcome::Unknown("etcdserver: request timed out".to_owned()),
        ),
        (status(422, "Invalid"), Outcome::Refused("Invalid (422)".to_owned())),
        (status(403, "Forbidden"), Outcome::Refused("Forbidden (403)".to_owned())),
    ] {
        assert_eq!(perform([answer], &patch(&["192.0.2.1"])).await.0, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn silence_means_that_nobody_knows() {
    let (outcome, log) = perform([], &patch(&["192.0.2.1"])).await;
    assert!(matches!(outcome, Outcome::Unknown(_)));
    assert_eq!(log.len(), 1);
}

#[tokio::test]
async fn nothing_is_sent_without_the_lease_or_after_its_end() {
    let (client, log) = scripted([(200, service())]);
    let (grant, tenure) = Tenure::granted();
    let writer = Writer::new(client, ClassPolicy::default(), tenure, "kube-system");
    assert_eq!(writer.perform(&patch(&["192.0.2.1"])).await, Outcome::NotLeading);
    grant.send_replace(Some(Instant::now()));
    assert_eq!(writer.perform(&patch(&["192.0.2.1"])).await, Outcome::NotLeading);
    assert!(log.lock().unwrap().is_empty());
    grant.send_replace(Some(Instant::now() + Duration::from_secs(5)));
    assert!(matches!(writer.perform(&patch(&["192.0.2.1"])).await, Outcome::Claimant(_)));
}
