//! Somebody with edit rights in one namespace writes at random what the API takes, and much that it does not. Nothing of
//! anybody else changes its owner, loses a packet or a claim; nor does a node, or the LAN's router.
//!
//! `BERTH_SEED` repeats a run; `BERTH_SOAK=1` makes 10,000 edits.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Mac, Net, mac, node_host, router};
use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::wire::{Record, disputed};
use berth_e2e::world::{World, env, eventually, ingress, kubectl};
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::core::{ApiResource, GroupVersionKind};
use kube::{Client, Config};
use serde_json::{Value, json};

use crate::allocation_under_fire::random;
use crate::claims::{PORT, second_address};
use crate::is_soak;
use crate::scene::{ASK, CLIENT};

const NODES: usize = 2;
const EDITS: usize = 250;
const LONG: usize = 10_000;
/// Objects of each kind that the tenant has at most.
const NAMES: usize = 12;
/// Most addresses that it may hold.
const QUOTA: usize = 8;
const POOL: &str = "10.0.64.1-10.0.64.60,fd00:10::4001-fd00:10::4030";
const EVERY: Duration = Duration::from_millis(20);

/// Who may not be harmed: a Service each, one of the global pool, one of its own.
const OTHERS: [&str; 2] = ["alice", "bob"];

/// A client of the lab's API server for another user than the administrator.
pub(crate) async fn client_as(world: &World, change: impl Fn(&mut AuthInfo)) -> Result<Client> {
    let mut kubeconfig = Kubeconfig::read_from(world.lab.kubeconfig())?;
    for user in &mut kubeconfig.auth_infos {
        change(user.auth_info.as_mut().context("a user without credentials")?);
    }
    let options = KubeConfigOptions::default();
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &options).await?)?)
}

struct Tenant {
    dice: fastrand::Rng,
    client: Client,
    /// Addresses that are somebody's, or nobody's to have.
    targets: Vec<String>,
    /// How many edits the API took, by what it said.
    answers: BTreeMap<String, usize>,
}

impl Tenant {
    /// With the rights of a ServiceAccount of `mallory` that is bound to `edit`, and may write EipBindings and Leases there.
    async fn of(world: &World, targets: Vec<String>) -> Result<Self> {
        let rights = "apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: more, namespace: mallory}\n\
            rules:\n- {apiGroups: [berth.dev], resources: [eipbindings], verbs: ['*']}\n\
            - {apiGroups: [coordination.k8s.io], resources: [leases], verbs: ['*']}\n\
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
        let client = client_as(world, |info| info.impersonate = Some(user.to_owned())).await?;
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
                let names = [
                    "kubevip-x0",
                    "kubevip-x1",
                    "plndr-svcs-lock",
                    "berth-membership",
                    "berth-announcer-node0",
                ];
                let spec = json!({
                    "holderIdentity": self.one_of(&["node0", "stock", "berth.dev/membership", ""]),
                    "leaseDurationSeconds": self.one_of(&[1, 15, i32::MAX]),
                });
                let mut metadata = metadata;
                metadata["name"] = json!(self.one_of(&names));
                (
                    of("coordination.k8s.io", "v1", "Lease"),
                    json!({ "metadata": metadata, "spec": spec }),
                )
            }
            _ => {
                let mut metadata = metadata;
                let labels = json!({ "kubernetes.io/service-name": format!("x{number}") });
                metadata["labels"] = labels;
                let ready = json!({ "ready": true });
                let endpoint = json!({ "addresses": ["10.244.0.9"], "conditions": ready, "nodeName": "node0" });
                let slice =
                    json!({ "metadata": metadata, "addressType": "IPv4", "endpoints": [endpoint] });
                (of("discovery.k8s.io", "v1", "EndpointSlice"), slice)
            }
        }
    }

    /// Writes something, whatever becomes of it.
    async fn edit(&mut self) -> Result<()> {
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
            _ => api.delete(&name, &DeleteParams::default()).await.map(drop),
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

/// What is somebody else's, and has to stay as it is.
#[derive(Debug, PartialEq, Eq)]
struct Theirs {
    /// By address, who holds the claim on it.
    claims: BTreeMap<String, String>,
    /// By Service, what its status shows.
    shown: BTreeMap<String, Vec<IpAddr>>,
}

async fn theirs(world: &World) -> Result<Theirs> {
    let mut claims = BTreeMap::new();
    for (address, claim) in world.claims().await? {
        let parent = claim.spec.context("a claim without a spec")?.parent_ref;
        let holder = format!("{}/{}", parent.namespace.unwrap_or_default(), parent.name);
        if !holder.starts_with("mallory/") {
            claims.insert(address, holder);
        }
    }
    let mut shown = BTreeMap::new();
    for namespace in OTHERS {
        for service in world.services(namespace).list(&ListParams::default()).await?.items {
            let name = service.metadata.name.clone().unwrap_or_default();
            shown.insert(format!("{namespace}/{name}"), ingress(&service));
        }
    }
    Ok(Theirs { claims, shown })
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_tenant_writes_at_random_changes_nothing_of_anybody_else() -> Result<()> {
    let mut world = World::without_berth(NODES + 1, env([("berth_claims", "required")])).await?;
    let second = second_address(&world)?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    let pools = json!({
        "range-global": POOL, "range-alice": "10.0.65.1-10.0.65.9", "quota-mallory": QUOTA.to_string(),
    });
    world.pools(pools).await?;
    world.start_ccm().await?;
    kubectl(&world.lab, &["create", "namespace", "mallory"])?;
    let mut addresses = Vec::new();
    for namespace in OTHERS {
        kubectl(&world.lab, &["create", "namespace", namespace])?;
        world.deploy(namespace, "hello", 1)?;
        let service = json!({
            "metadata": { "name": "web", "namespace": namespace },
            "spec": {
                "type": "LoadBalancer", "selector": { "app": "hello" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
            },
        });
        world.create(service).await?;
        let shown = || async {
            let service = world.services(namespace).get("web").await?;
            let shown = ingress(&service).first().copied();
            Ok(shown.filter(|address| world.curl(*address).is_ok()))
        };
        addresses
            .push(eventually("it is answered", 20, shown).await.with_context(|| world.logs())?);
    }
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;
    let gateway = IpAddr::V4(router().v4);
    let before = theirs(&world).await?;
    ensure!(before.claims.len() == OTHERS.len(), "{before:?}");

    let (wire, start) = (world.lab.watch()?, Instant::now());
    let outside = world.lab.outside();
    let mut probes = vec![(
        second,
        Probe::start(&outside, (second, PORT).into(), EVERY, Manner::NewConnections)?,
    )];
    for address in &addresses {
        let probe = Probe::start(&outside, (*address, 80).into(), EVERY, Manner::NewConnections)?;
        probes.push((*address, probe));
    }
    let asked = [second, gateway].into_iter().chain(addresses.iter().copied());
    let askers = asked.map(|address| world.lab.ask(address, ASK)).collect::<Result<Vec<_>>>()?;

    let nodes = (0..=NODES).map(|node| format!("10.0.0.{}", node_host(node)));
    let targets = [second, gateway].into_iter().chain(addresses.iter().copied());
    let targets: Vec<String> = targets.map(|address| address.to_string()).chain(nodes).collect();
    let mut tenant = Tenant::of(&world, targets).await?;
    for number in 0..if is_soak() { LONG } else { EDITS } {
        tenant.edit().await?;
        if number % 250 == 249 {
            let now = theirs(&world).await?;
            ensure!(
                now == before,
                "after {number} edits {now:?}, not {before:?}\n{}",
                world.logs()
            );
        }
    }
    println!("{:?} in {:.0?}", tenant.answers, start.elapsed());
    ensure!(tenant.answers.get("taken").is_some_and(|taken| *taken > 20), "{:?}", tenant.answers);
    // What is still under way shows within a few seconds.
    tokio::time::sleep(Duration::from_secs(5)).await;

    let now = theirs(&world).await?;
    ensure!(now == before, "{now:?}, not {before:?}\n{}", world.logs());
    let claims = world.claims().await?.len();
    ensure!(claims <= before.claims.len() + QUOTA, "{claims} claims\n{}", world.logs());
    ensure!(world.holders(second)? == ["node1"], "{}", world.logs());
    for (address, probe) in probes {
        let report = probe.finish()?;
        let told = || format!("{address}: {report:?}\n{}", world.logs());
        report.answered_within(CLIENT).with_context(told)?;
    }
    askers.into_iter().try_for_each(|asker| asker.finish().map(drop))?;
    let record = wire.finish()?;
    judge(&world, &record, &addresses, start)?;
    let macs: Vec<Mac> = (0..=NODES).map(|node| mac(Net::Lan, node_host(node))).collect();
    let spoke = record.0.iter().any(|s| s.address == gateway && macs.contains(&s.mac));
    ensure!(!spoke, "a node answers for the router\n{}", world.logs());
    let others = record.0.iter().any(|s| s.address == second && s.mac != macs[1]);
    ensure!(!others, "another answers for the address of node1\n{}", world.logs());

    // It is rid of everything: nothing is left of it.
    kubectl(&world.lab, &["delete", "services,eipbindings", "--all", "-n", "mallory"])?;
    eventually("no claim of it is left", 60, || async {
        Ok((world.claims().await?.len() == before.claims.len()).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    world.lab.down()
}

/// Nobody took an address, and no two answered for one.
fn judge(world: &World, record: &Record, addresses: &[IpAddr], since: Instant) -> Result<()> {
    let pauses = pauses::so_far();
    for address in addresses {
        let moves = record.moves(*address, since);
        let unexcused: Vec<_> = moves.iter().filter(|moved| !moved.is_excused(&pauses)).collect();
        ensure!(unexcused.is_empty(), "{address}: {unexcused:?}\n{}", world.logs());
        let said = record.since(*address, since);
        ensure!(!said.is_empty() && !disputed(&said), "{address}\n{}", world.logs());
    }
    Ok(())
}
