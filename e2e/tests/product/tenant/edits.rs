//! A tenant that writes at random what the API takes, and much that it does not.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;
use berth_e2e::world::{World, kubectl};
use k8s_openapi::api::core::v1::Service;
use kube::Client;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use serde_json::{Value, json};

use super::client_as;
use crate::allocation_under_fire::random;

/// Objects of each kind that it has at most.
const NAMES: usize = 12;

/// Between what it does to all of its Services: its haste is not what is tried.
const APART: Duration = Duration::from_millis(100);

/// What it holds objects by that it has deleted.
const KEEP: &str = "mallory.example/keep";

/// Somebody with edit rights in the namespace `mallory`.
pub(super) struct Tenant {
    dice: fastrand::Rng,
    client: Client,
    /// Addresses that are somebody's, or nobody's to have.
    targets: Vec<String>,
    /// How many edits the API took, by what it said.
    pub(super) answers: BTreeMap<String, usize>,
}

impl Tenant {
    /// With the rights of a ServiceAccount of `mallory` that is bound to `edit`, and may write Leases and EndpointSlices there.
    pub(super) async fn of(world: &World, targets: Vec<String>) -> Result<Self> {
        let rights = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: more, namespace: mallory}\n\
            rules:\n- {apiGroups: [coordination.k8s.io], resources: [leases], verbs: ['*']}\n\
            - {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: ['*']}\n";
        let file = world.lab.dir().join("rights.yaml");
        std::fs::write(&file, rights)?;
        let run = |arguments: &str| {
            kubectl(&world.lab, &arguments.split_whitespace().collect::<Vec<_>>()).map(drop)
        };
        run("create serviceaccount mallory -n mallory")?;
        run(&format!("apply -f {}", file.display()))?;
        let binding = "-n mallory --serviceaccount mallory:mallory";
        run(&format!("create rolebinding edits --clusterrole edit {binding}"))?;
        run(&format!("create rolebinding more --role more {binding}"))?;
        let user = "system:serviceaccount:mallory:mallory";
        let client = client_as(&world.lab, |info| info.impersonate = Some(user.to_owned())).await?;
        Ok(Self { dice: random(), client, targets, answers: BTreeMap::new() })
    }

    fn one_of<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.dice.usize(..of.len())].clone()
    }

    /// An address, or what looks like one, or nothing like it; or many of that.
    fn text(&mut self) -> String {
        if self.dice.u8(..10) > 0 {
            return self.entry();
        }
        let count = self.dice.usize(2..40);
        let list = (0..count).map(|_| self.entry()).collect::<Vec<_>>().join(",");
        list.chars().take(60_000).collect()
    }

    fn entry(&mut self) -> String {
        match self.dice.u8(..9) {
            0..5 => {
                let targets = self.targets.clone();
                self.one_of(&targets)
            }
            5 => format!("10.0.64.{}", self.dice.u8(..80)),
            6 => "x".repeat(self.dice.usize(1..60_000)),
            7 => {
                let odd = [
                    "0.0.0.0",
                    "255.255.255.255",
                    "224.0.0.1",
                    "127.0.0.1",
                    "169.254.1.1",
                    "::",
                    "::1",
                    "ff02::1",
                    "fe80::1",
                    "::ffff:10.0.64.1",
                    "010.0.64.1",
                    "10.0.64.1/32",
                    "dhcp",
                    "true",
                    "false",
                    "\u{202e}1.46.0.01",
                    "{\"a\":1}",
                    "-1",
                    "4294967296",
                ];
                self.one_of(&odd).to_owned()
            }
            _ => (0..self.dice.usize(..30)).map(|_| self.dice.char(' '..'~')).collect(),
        }
    }

    fn annotations(&mut self) -> Value {
        let names = [
            "kube-vip.io/loadbalancerIPs",
            "kube-vip.io/vipHost",
            "kube-vip.io/serviceInterface",
            "kube-vip.io/serviceVLAN",
            "kube-vip.io/leaseName",
            "kube-vip.io/loadbalancerHostname",
            "kube-vip.io/ignore",
            "kube-vip.io/egress",
            "kube-vip.io/requestedIP",
            "berth.dev/conflict",
            "berth.dev/preferred-nodes",
            "berth.dev/drain",
            "berth.dev/allow-reconcile-without-endpoints",
            "berth.dev/imported",
            "berth.dev/holders",
            "metallb.io/loadBalancerIPs",
        ];
        let mut all = serde_json::Map::new();
        for _ in 0..self.dice.usize(..4) {
            let name = self.one_of(&names);
            let value = match self.dice.u8(..8) {
                0 => Value::Null,
                1 => json!(self.one_of(&["node0", "node1", "node2", "eth0", "lo", "1", "4094"])),
                _ => json!(self.text()),
            };
            all.insert(name.to_owned(), value);
        }
        Value::Object(all)
    }

    fn labels(&mut self) -> Value {
        let names = [
            "implementation",
            "ipam-address",
            "app.kubernetes.io/managed-by",
            "berth.dev/host",
            "ipaddress.kubernetes.io/managed-by",
            "service.kubernetes.io/service-proxy-name",
        ];
        let values = ["kube-vip", "berth", "y", "", "10.0.64.1"];
        let mut all = serde_json::Map::new();
        for _ in 0..self.dice.usize(..3) {
            let value = self.one_of(&values);
            all.insert(self.one_of(&names).to_owned(), json!(value));
        }
        Value::Object(all)
    }

    fn spec(&mut self) -> Value {
        let mut spec = json!({ "type": "LoadBalancer" });
        let ports = [80, 8080, 22, 443, 2112, 6443, 10250, 65535];
        let count = self.dice.usize(1..4);
        let port =
            |port: i32| json!({ "name": format!("p{port}"), "port": port, "targetPort": 8080 });
        spec["ports"] = (0..count).map(|_| port(self.one_of(&ports))).collect();
        if self.dice.bool() {
            spec["loadBalancerIP"] = json!(self.text());
        }
        if self.dice.bool() {
            spec["selector"] = json!({ "app": self.one_of(&["hello", "nothing"]) });
        }
        let optional = [
            ("externalTrafficPolicy", &["Local", "Cluster"][..]),
            ("ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"][..]),
            ("type", &["ClusterIP", "NodePort", "LoadBalancer"][..]),
        ];
        for (field, values) in optional {
            if self.dice.u8(..4) == 0 {
                spec[field] = json!(self.one_of(values));
            }
        }
        let classes = ["kube-vip.io/kube-vip-class", "example.org/other", "berth.dev/berth"];
        if self.dice.u8(..4) == 0 {
            spec["loadBalancerClass"] = json!(self.one_of(&classes));
        }
        // Not `externalIPs`: what those draw kube-proxy takes, whoever has the address (CVE-2020-8554).
        spec
    }

    fn object(&mut self) -> (ApiResource, Value) {
        let of = |group: &str, version: &str, kind: &str| {
            ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
        };
        let number = self.dice.usize(..NAMES);
        let metadata = json!({
            "name": format!("x{number}"), "namespace": "mallory",
            "annotations": self.annotations(), "labels": self.labels(),
        });
        let mut metadata = metadata;
        match self.dice.u8(..6) {
            0 => metadata["finalizers"] = json!([KEEP]),
            1 => metadata["finalizers"] = json!([]),
            _ => {}
        }
        match self.dice.u8(..10) {
            0..6 => (of("", "v1", "Service"), json!({ "metadata": metadata, "spec": self.spec() })),
            6..8 => {
                let mut spec = json!({ "vmi": self.one_of(&["vm", "other", "x0"]) });
                if self.dice.bool() {
                    spec["eip"] = json!(self.text());
                }
                if self.dice.bool() {
                    spec["families"] = json!([self.one_of(&["IPv4", "IPv6"])]);
                }
                (
                    of("berth.dev", "v1alpha1", "EipBinding"),
                    json!({ "metadata": metadata, "spec": spec }),
                )
            }
            8 => {
                let names = ["plndr-svcs-lock", "berth-membership", "berth-announcer-node0"];
                let now = k8s_openapi::jiff::Timestamp::now();
                let spec = json!({
                    "holderIdentity": self.one_of(&["node0", "stock", "berth.dev/membership", ""]),
                    "leaseDurationSeconds": self.one_of(&[1, 15, i32::MAX]),
                    "renewTime": format!("{now:.6}"),
                });
                metadata["name"] = match self.dice.u8(..3) {
                    0 => json!(self.one_of(&names)),
                    _ => json!(format!("kubevip-x{number}")),
                };
                (
                    of("coordination.k8s.io", "v1", "Lease"),
                    json!({ "metadata": metadata, "spec": spec }),
                )
            }
            _ => {
                let labels = json!({ "kubernetes.io/service-name": format!("x{number}") });
                metadata["labels"] = labels;
                let ready = json!({ "ready": true });
                let endpoint = json!({ "addresses": ["10.244.0.9"], "conditions": ready, "nodeName": "node0" });
                let ports = json!([{ "port": 8080, "protocol": "TCP" }]);
                let slice = json!({
                    "metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": [endpoint],
                });
                (of("discovery.k8s.io", "v1", "EndpointSlice"), slice)
            }
        }
    }

    /// Deletes its Services and keeps what they show, and asks for as many anew.
    pub(super) async fn keep_all(&self) -> Result<()> {
        let services: Api<Service> = Api::namespaced(self.client.clone(), "mallory");
        for service in services.list(&ListParams::default()).await?.items {
            let name = service.metadata.name.unwrap_or_default();
            services.patch(&name, &PatchParams::default(), &kept()).await.ok();
            services.delete(&name, &DeleteParams::default()).await.ok();
            tokio::time::sleep(APART).await;
        }
        for number in 0..NAMES {
            let spec = json!({
                "type": "LoadBalancer", "selector": { "app": "hello" }, "ports": [{ "port": 80 }],
            });
            let metadata = json!({ "name": format!("y{number}"), "namespace": "mallory" });
            let object = serde_json::from_value(json!({ "metadata": metadata, "spec": spec }))?;
            services.create(&PostParams::default(), &object).await?;
            tokio::time::sleep(APART).await;
        }
        Ok(())
    }

    /// Writes something, whatever becomes of it.
    pub(super) async fn edit(&mut self) -> Result<()> {
        let (kind, object) = self.object();
        let api: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), "mallory", &kind);
        let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        let done = match self.dice.u8(..10) {
            0..4 => {
                let mut object = object;
                // An annotation that is taken away can only be patched.
                if let Some(all) = object["metadata"]["annotations"].as_object_mut() {
                    all.retain(|_, value| !value.is_null());
                }
                object["apiVersion"] = json!(kind.api_version);
                object["kind"] = json!(kind.kind);
                let object: DynamicObject = serde_json::from_value(object)?;
                api.create(&PostParams::default(), &object).await.map(drop)
            }
            4..8 => {
                api.patch(&name, &PatchParams::default(), &Patch::Merge(object)).await.map(drop)
            }
            8 => {
                let status =
                    json!({ "status": { "loadBalancer": { "ingress": [{ "ip": self.text() }] } } });
                let patch = Patch::Merge(status);
                api.patch_status(&name, &PatchParams::default(), &patch).await.map(drop)
            }
            _ => {
                if self.dice.bool() {
                    api.patch(&name, &PatchParams::default(), &kept()).await.ok();
                }
                api.delete(&name, &DeleteParams::default()).await.map(drop)
            }
        };
        let answer = match done {
            Ok(()) => "taken".to_owned(),
            Err(kube::Error::Api(status)) => status.code.to_string(),
            Err(error) => return Err(error.into()),
        };
        *self.answers.entry(answer).or_default() += 1;
        Ok(())
    }
}

/// Holds an object by a finalizer and takes away what an announcer wrote into it, in the moment before it is deleted.
fn kept() -> Patch<Value> {
    let host = json!({ "kube-vip.io/vipHost": null });
    Patch::Merge(json!({ "metadata": { "annotations": host, "finalizers": [KEEP] } }))
}
