//! What the token of an announcer on `node0` is tried for.

use berth_e2e::world::HOST;
use serde_json::{Value, json};

use super::control_plane;
use super::tries::{
    ANNOUNCER, BINDINGS, CLAIMS, FAR, FULL, How, IGNORED, LABELLING, LEASES, LEFT, NODE_LEASE,
    OF_NO_POD, OTHERS, PER_SERVICE, REFUSED, SECRETS, SERVICES, Tries, Try, claim, condition,
    crowded, events, gone, lease, metadata, said, signed_often, status,
};

/// Where it may write Leases with overlays/svc-election.
const ELSEWHERE: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

/// `web` is published by it at `address`, and `view` is the view of membership.
pub(super) fn tries(address: &str, view: &Value) -> Vec<Try> {
    let mut tries = Tries { account: ANNOUNCER, all: Vec::new() };
    leases(&mut tries, view);
    key(&mut tries);
    services(&mut tries, address);
    let what = "a claim";
    tries.add(what, How::Create, CLAIMS, claim("10.0.64.249", &json!({})));
    tries.add(what, How::Delete, format!("{CLAIMS}/{address}"), json!({}));
    bindings(&mut tries);
    events(&mut tries);
    tries.account = OF_NO_POD;
    tries.add("any Lease", How::Replace, named("berth-announcer-node0"), json!({}));
    let status = format!("{SERVICES}/web/status");
    tries.add("any status", How::Patch, status, shown(None, address));
    tries.account = PER_SERVICE;
    per_service(&mut tries);
    tries.account = LABELLING;
    labelling(&mut tries);
    tries.all
}

fn named(name: &str) -> String {
    format!("{LEASES}/{name}")
}

/// A view with this number in place of what is there.
fn numbered(view: &Value, epoch: u64) -> Value {
    let mut view = view.clone();
    let before = view["voters"].clone();
    view["epoch"] = json!(epoch);
    view["previous"] = json!([before]);
    written(&view)
}

/// As announcers write it, member by member in this order.
fn written(view: &Value) -> Value {
    let leases = view.get("leases").map(|leases| format!(r#","leases":{leases}"#));
    let text = format!(
        r#"{{"epoch":{},"voters":{},"previous":{}{}}}"#,
        view["epoch"],
        view["voters"],
        view["previous"],
        leases.unwrap_or_default()
    );
    json!({ "metadata": { "annotations": { "berth.dev/view": text } } })
}

fn leases(tries: &mut Tries, view: &Value) {
    let held = |who: &str| json!({ "spec": { "holderIdentity": who } });
    tries.add("its own node's Lease", How::Replace, named("berth-announcer-node0"), json!({}));
    let membership = named("berth-membership");
    let epoch = view["epoch"].as_u64().unwrap_or_default();
    let what = "the next view of membership, with whatever voters";
    tries.add(what, How::Replace, membership.clone(), numbered(view, epoch + 1));
    let what = "a view that does not follow the one before, or none";
    let mut alone = view.clone();
    (alone["epoch"], alone["previous"]) = (json!(epoch + 1), json!([]));
    for other in [
        numbered(view, epoch + 2),
        numbered(view, u64::MAX),
        numbered(view, epoch),
        written(&alone),
        json!({ "metadata": { "annotations": { "berth.dev/view": "" } } }),
        json!({ "metadata": { "annotations": null } }),
    ] {
        tries.add(what, How::Replace, membership.clone(), other);
    }
    let mut longer = view.clone();
    longer["leases"] = json!([350, 500]);
    let what = "a view with other leases than the one before";
    tries.add(what, How::Replace, membership.clone(), numbered(&longer, epoch + 1));
    tries.add("another node's Lease", How::Create, LEASES, lease("berth-announcer-node1"));
    let what = "the Lease of another program";
    tries.add(what, How::Replace, named("kube-controller-manager"), held("node0"));
    // An update makes what there is not.
    tries.add(what, How::Replace, named("other"), lease("other"));
    let what = "`plndr-svcs-lock` for its own node, whoever has it";
    tries.add(what, How::Replace, named("plndr-svcs-lock"), held("node0"));
    let what = "`plndr-svcs-lock` for another node";
    tries.add(what, How::Replace, named("plndr-svcs-lock"), held("node1"));
    let what = "other labels, finalizers and owners of Leases";
    for (name, metadata) in [
        ("berth-announcer-node0", json!({ "labels": { "app": "other" } })),
        ("berth-announcer-node0", json!({ "finalizers": ["example.com/stays"] })),
        ("plndr-svcs-lock", json!({ "ownerReferences": gone() })),
        ("berth-membership", json!({ "ownerReferences": gone() })),
        ("berth-membership", json!({ "finalizers": null })),
    ] {
        tries.add(what, How::Replace, named(name), json!({ "metadata": metadata }));
    }
    tries.add("a node's heartbeat in `kube-node-lease`", How::Replace, NODE_LEASE, json!({}));
    control_plane::of_services(tries);
}

/// What changes a Secret that holds a key.
pub(super) fn other_keys() -> [Value; 2] {
    let other = json!({ "data": { "key": "c3RvbGVuc3RvbGVuc3RvbGVuc3RvbGVuc3RvbGVuc3Q=" } });
    [other, json!({ "immutable": true })]
}

fn key(tries: &mut Tries) {
    let key = format!("{SECRETS}/berth-membership");
    tries.add("to read the key of the heartbeats", How::Read, key.clone(), json!({}));
    for change in other_keys() {
        tries.add("to replace the key of the heartbeats", How::Replace, key.clone(), change);
    }
    tries.add("other Secrets", How::Read, SECRETS, json!({}));
}

fn shown(host: Option<&str>, address: &str) -> Value {
    json!({
        "metadata": { "annotations": { HOST: host } },
        "status": { "loadBalancer": { "ingress": [{ "ip": address }] } },
    })
}

fn services(tries: &mut Tries, address: &str) {
    let web = format!("{SERVICES}/web/status");
    let mut publish = |what, service: &str, host, address: &str| {
        let path = format!("{SERVICES}/{service}/status");
        tries.add(what, How::Patch, path, shown(host, address));
    };
    publish("to publish its own node", "web", Some("node0"), address);
    publish("to publish its own node", FULL, Some("node0"), "192.0.2.4");
    publish("to publish another node", "web", Some("node1"), address);
    publish("the addresses that another node publishes", FAR, Some("node1"), "192.0.2.2");
    let what = "an address that the Service neither has nor asks for";
    publish(what, "web", Some("node0"), "192.0.2.1");
    publish("an address that the Service was refused", REFUSED, Some("node0"), "192.0.2.3");
    let what = "a host name, an address as a proxy's, or more than two";
    for ingress in [
        json!([{ "hostname": "example.com" }]),
        json!([{ "ip": address, "ipMode": "Proxy" }]),
        json!([{ "ip": address }, { "ip": address }, { "ip": address }]),
    ] {
        let status = json!({ "status": { "loadBalancer": { "ingress": ingress } } });
        tries.add(what, How::Patch, web.clone(), status);
    }
    let fewer = json!({ "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.1" }] } } });
    let what = "that another node publishes fewer addresses";
    tries.add(what, How::Patch, format!("{SERVICES}/{FAR}/status"), fewer);
    let none = json!({ "status": { "loadBalancer": { "ingress": null } } });
    tries.add("that nobody publishes a Service", How::Patch, web.clone(), none);
    for (what, kind) in [
        ("that another host has an address", "berth.dev/AddressConflict"),
        ("conditions of others in a Service", "berth.dev/AddressAllocated"),
    ] {
        tries.add(what, How::Patch, web.clone(), condition(kind));
    }
    let announced = |status: &str, reason: &str| {
        let mut said = condition("berth.dev/Announced");
        said["status"]["conditions"][0]["status"] = json!(status);
        said["status"]["conditions"][0]["reason"] = json!(reason);
        said
    };
    for (what, service, said) in [
        ("whether its own node announces a Service", "web", announced("False", "NoEndpoint")),
        ("whether its own node announces a Service", "web", announced("True", "Announced")),
        ("whether another node announces a Service", FAR, announced("False", "NoEndpoint")),
        ("whether another node announces a Service", FAR, announced("True", "Announced")),
        ("that no announcer lives", "web", announced("False", "NoAnnouncer")),
    ] {
        tries.add(what, How::Patch, format!("{SERVICES}/{service}/status"), said);
    }
    let nothing = json!({ "status": { "conditions": null } });
    let what = "whether another node announces a Service";
    tries.add(what, How::Patch, format!("{SERVICES}/{FAR}/status"), nothing.clone());
    let what = "to take back what is said of a Service that is ignored, or left to another program";
    for service in [LEFT, IGNORED] {
        tries.add(what, How::Patch, format!("{SERVICES}/{service}/status"), nothing.clone());
    }
    let mut taken = announced("False", "NoEndpoint");
    taken["metadata"] = json!({ "annotations": { HOST: null } });
    let what = "that nobody announces what another node announces";
    tries.add(what, How::Patch, format!("{SERVICES}/{FAR}/status"), taken);
    let what = "30 KB of why a Service is not announced";
    for field in ["message", "reason", "status"] {
        let mut long = announced("False", "NoEndpoint");
        long["status"]["conditions"][0][field] = json!("x".repeat(30_000));
        tries.add(what, How::Patch, web.clone(), long);
    }
    let what = "30 KB of what another host has";
    let mut long = condition("berth.dev/AddressConflict");
    long["status"]["conditions"][0]["message"] = json!("x".repeat(30_000));
    let annotated = json!({ "berth.dev/conflict": "x".repeat(30_000) });
    let mut often = condition("berth.dev/AddressConflict");
    often["status"]["conditions"] = vec![often["status"]["conditions"][0].clone(); 200].into();
    for long in [long, often, json!({ "metadata": { "annotations": annotated } })] {
        tries.add(what, How::Patch, web.clone(), long);
    }
    for metadata in metadata() {
        let what = "other annotations, labels, finalizers and owners of a Service";
        tries.add(what, How::Patch, web.clone(), json!({ "metadata": metadata }));
    }
    let what = "metadata without end";
    let name = json!({ "metadata": { "generateName": "x".repeat(200) } });
    tries.add(what, How::Patch, web.clone(), name);
    let signed = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": { "name": "web", "annotations": { HOST: "node0" } },
    });
    tries.add(what, How::Sign, web, signed);
    for crowd in [crowded("coordination.k8s.io/v1"), signed_often("coordination.k8s.io/v1")] {
        tries.add(what, How::Replace, named("berth-announcer-node0"), crowd);
    }
    let what = "`spec` of a Service, or its deletion";
    let patch = json!({ "spec": { "selector": { "app": "other" } } });
    tries.add(what, How::Patch, format!("{SERVICES}/web"), patch);
    tries.add(what, How::Delete, format!("{SERVICES}/web"), json!({}));
}

fn bindings(tries: &mut Tries) {
    let asked = json!({ "spec": { "retain": false } });
    tries.add("`spec` of an EipBinding", How::Patch, format!("{BINDINGS}/vm"), asked);
    let mut say = |what, how, name: &str, said: Value| {
        tries.add(what, how, format!("{BINDINGS}/{name}/status"), status(name, &said));
    };
    let holds = |node: &str| json!({ "holder": { "node": node, "epoch": 1 } });
    let told = json!({ "conditions": said("Stolen") });
    let conflict = json!({ "conflicts": [{ "eip": "192.0.2.1", "mac": "02:00:00:00:00:0a" }] });
    let what = "that its own node holds an elastic IP that it is to hold, or why not";
    for said in [holds("node0"), told.clone(), conflict.clone()] {
        say(what, How::Apply, "vm", said);
    }
    say("that another node holds an elastic IP", How::Apply, "vm", holds("node1"));
    let what = "how far another node is with an elastic IP";
    for said in [holds("node0"), told, conflict] {
        say(what, How::Apply, OTHERS, said);
    }
    say(what, How::Patch, OTHERS, json!({ "conditions": null }));
    let what = "which elastic IPs there are, and where";
    for decided in [json!({ "eips": ["192.0.2.1"] }), json!({ "node": "node1" })] {
        say(what, How::Apply, "vm", decided);
    }
}

fn per_service(tries: &mut Tries) {
    let owned = |name: &str, kind: &str| {
        let mut lease = lease(name);
        lease["metadata"]["ownerReferences"] = gone();
        lease["metadata"]["ownerReferences"][0]["kind"] = json!(kind);
        lease
    };
    let what = "the Lease of a Service, under any name that is free";
    tries.add(what, How::Create, ELSEWHERE, lease("kubevip-web"));
    tries.add(what, How::Create, ELSEWHERE, owned("web", "Service"));
    let what = "the Lease of another program, anywhere";
    tries.add(what, How::Replace, format!("{ELSEWHERE}/other"), json!({}));
    tries.add(what, How::Replace, format!("{ELSEWHERE}/other"), owned("other", "Service"));
    tries.add(what, How::Delete, format!("{ELSEWHERE}/other"), json!({}));
    tries.add(what, How::Create, ELSEWHERE, owned("web", "Pod"));
    tries.add(what, How::Delete, named("kube-controller-manager"), json!({}));
    tries.add(what, How::Replace, NODE_LEASE, json!({}));
    tries.add(
        "to delete the view of membership",
        How::Delete,
        named("berth-membership"),
        json!({}),
    );
}

fn labelling(tries: &mut Tries) {
    let node = |name: &str| format!("/api/v1/nodes/{name}");
    let labels = |labels: Value| json!({ "metadata": { "labels": labels } });
    let own = |value: Value| {
        ["kube-vip.io/has-ip", "service-provided.kube-vip.io/web.default"]
            .map(|key| labels(json!({ key: value })))
    };
    for (what, name, value) in [
        ("which addresses its own Node answers for", "node0", json!("10.0.64.1")),
        ("which addresses its own Node answers for", "node0", Value::Null),
        ("that another Node answers for nothing", "node1", Value::Null),
        ("that another Node answers for an address", "node1", json!("10.0.64.1")),
    ] {
        own(value).into_iter().for_each(|patch| tries.add(what, How::Patch, node(name), patch));
    }
    let what = "other labels, annotations, finalizers, owners and taints of any Node, or labels and metadata without end";
    let taints = json!([{ "key": "example.com/out", "effect": "NoExecute" }]);
    let many = |count: usize| {
        let key = |number| format!("service-provided.kube-vip.io/s{number}.default");
        let all = (0..count).map(|number| (key(number), json!("10.0.64.1")));
        labels(all.collect::<serde_json::Map<_, _>>().into())
    };
    for patch in [
        labels(json!({ "node-role.kubernetes.io/control-plane": "" })),
        labels(json!({ "kube-vip.io/has-ip.example.com": "10.0.64.1" })),
        labels(json!({ "kubernetes.io/hostname": null })),
        labels(json!({ "kubernetes.io/hostname": null, "example.com/other": "" })),
        labels(json!({ "kubernetes.io/hostname": "node7" })),
        json!({ "metadata": { "annotations": { "berth.dev/drain": "true" } } }),
        json!({ "metadata": { "finalizers": ["example.com/stays"] } }),
        json!({ "metadata": { "ownerReferences": gone() } }),
        json!({ "spec": { "unschedulable": true } }),
        json!({ "spec": { "taints": taints } }),
        many(600),
        many(3000),
        crowded("v1"),
        signed_often("v1"),
    ] {
        tries.add(what, How::Patch, node("node0"), patch.clone());
        tries.add(what, How::Patch, node("node1"), patch);
    }
    let what = "conditions of a Node, and its deletion";
    let ready = json!({ "status": { "conditions": [{ "type": "Ready", "status": "False" }] } });
    tries.add(what, How::Patch, format!("{}/status", node("node1")), ready);
    tries.add(what, How::Delete, node("node1"), Value::Null);
}
