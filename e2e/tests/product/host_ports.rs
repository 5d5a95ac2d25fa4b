//! What answers behind an address of a Service where `enable_service_security` is on, beside a real kube-proxy.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::get::get;
use berth_e2e::node::ProxyMode;
use berth_e2e::place::Place;
use berth_e2e::world::{World, curl_port, env, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::{Value, json};

const NODE_PORT: u16 = 30_080;
const HOST_PORT: u16 = 8090;
const WITHOUT_ENDPOINTS: &str = "kube-vip.io/allow-reconcile-without-endpoints";
/// Of a Service that calls the addresses of another one its external IPs.
const STRANGERS: u16 = 8443;

/// Whether anything answers there. What is dropped takes two seconds.
fn answers(from: &Place, host: IpAddr, port: u16) -> bool {
    get(from, SocketAddr::new(host, port), "/", Duration::from_secs(2)).is_ok()
}

/// Asks for all of these at the same time: what is dropped takes its two seconds once.
fn at_once<T: Sync>(all: &[T], ask: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let ask = &ask;
        let all: Vec<_> = all.iter().map(|one| scope.spawn(move || ask(one))).collect();
        let mut all = all.into_iter();
        all.try_for_each(|one| one.join().unwrap_or_else(|_| bail!("who asks panicked")))
    })
}

/// The rule of the CNI plugin `portmap` for a pod of `node`: whatever is local.
fn host_port(node: &Place, pod: &str) -> Result<()> {
    let (port, to) = (HOST_PORT.to_string(), format!("{pod}:8080"));
    for chain in ["PREROUTING", "OUTPUT"] {
        let local = ["-m", "addrtype", "--dst-type", "LOCAL", "-p", "tcp", "--dport", &port];
        let rule = ["iptables", "-w", "-t", "nat", "-A", chain];
        let target = ["-j", "DNAT", "--to-destination", &to];
        node.exec(rule.into_iter().chain(local).chain(target))?;
    }
    // The pod is on another node here, which would answer by itself.
    let masquerade = ["-p", "tcp", "-d", pod, "--dport", "8080", "-j", "MASQUERADE"];
    let rule = ["iptables", "-w", "-t", "nat", "-A", "POSTROUTING"];
    node.exec(rule.into_iter().chain(masquerade)).map(drop)
}

/// Services of a tenant that have the numbers of another's NodePort and of a `hostPort`, and that kube-proxy does not take
/// for their addresses, or not for who asks here. Each has what it is, and what then answers at port 80, which it has too.
fn fallen_through() -> [(&'static str, Value, bool); 4] {
    let note =
        |value: Value| json!({ "annotations": { WITHOUT_ENDPOINTS: "true" }, "labels": value });
    let selector = |app: &str| json!({ "selector": { "app": app } });
    let proxy = json!({ "service.kubernetes.io/service-proxy-name": "another" });
    let ranges = json!({ "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/64"] });
    let names = json!({ "ports": [
        { "name": "http", "port": 80, "targetPort": 8080 },
        { "name": "node", "port": NODE_PORT, "targetPort": "nobody-has" },
        { "name": "host", "port": HOST_PORT, "targetPort": "nobody-has" },
    ] });
    [
        ("empty", json!({ "metadata": note(json!({})), "spec": selector("nobody") }), false),
        ("proxied", json!({ "metadata": note(proxy), "spec": selector("hello") }), false),
        ("ranged", json!({ "spec": ranges }), false),
        ("named", json!({ "spec": names }), true),
    ]
}

async fn what_answers(proxy: ProxyMode) -> Result<()> {
    let world = World::up_with(proxy, 1, env([("enable_service_security", "true")])).await?;
    let both = json!({ "ipFamilyPolicy": "RequireDualStack" });
    world.expose("web", both.clone()).await?;
    let addresses = world.published("web", 2).await?;
    let ports = |port: u16| json!({ "port": port, "targetPort": 8080 });
    let mut inner = ports(80);
    inner["nodePort"] = json!(NODE_PORT);
    // What is somebody else's leads to pods of his own.
    world.deploy("default", "others", 1)?;
    let (selector, theirs) = (json!({ "app": "hello" }), json!({ "app": "others" }));
    let other = |name: &str, kind: &str, ports: serde_json::Value| {
        json!({
            "metadata": { "name": name },
            "spec": {
                "type": kind, "selector": theirs, "ports": [ports],
                "ipFamilyPolicy": "RequireDualStack",
            },
        })
    };
    world.create(other("inner", "NodePort", inner)).await?;
    let mut stranger = other("stranger", "ClusterIP", ports(STRANGERS));
    stranger["spec"]["externalIPs"] = json!(addresses);
    world.create(stranger).await?;

    let (outside, node) = (world.lab.outside(), world.lab.node(0).place()?);
    let lan = world.lab.node(0).addresses().lan;
    let own: [IpAddr; 2] = [lan.v4.into(), lan.v6.into()];
    let logs = || world.logs();
    let elsewhere = world.lab.node(1).place()?;
    let pods: Api<Pod> = Api::namespaced(world.client.clone(), "default");
    let pods = pods.list(&ListParams::default().labels("app=others")).await?;
    let pod = pods.into_iter().find_map(|pod| pod.status?.pod_ip).context("an address of a pod")?;
    host_port(&node, &pod)?;

    // By the time that the last Service works, kube-proxy has programmed all. Elsewhere it rewrites what only asks for an
    // address before that leaves the node: the guard of the node that has the address sees nothing of it.
    for (from, to, port) in [
        (&outside, own[0], NODE_PORT),
        (&outside, own[1], NODE_PORT),
        (&elsewhere, addresses[0], STRANGERS),
        (&elsewhere, addresses[1], STRANGERS),
    ] {
        let asked = async || Ok(answers(from, to, port).then_some(()));
        eventually(&format!("{to}, port {port}"), 20, asked).await.with_context(logs)?;
    }
    ensure!(answers(&outside, own[0], HOST_PORT), "a hostPort at the node's own address");
    let mut fallen = Vec::new();
    for (name, change, is_served) in fallen_through() {
        let numbered = [80, NODE_PORT, HOST_PORT]
            .map(|port| json!({ "name": format!("p{port}"), "port": port, "targetPort": 8080 }));
        let mut service = other(name, "LoadBalancer", json!({}));
        service["spec"]["selector"] = selector.clone();
        service["spec"]["ports"] = json!(numbered);
        for part in ["metadata", "spec"] {
            for (key, value) in change[part].as_object().into_iter().flatten() {
                service[part][key] = value.clone();
            }
        }
        world.create(service).await?;
        let addresses = world.published(name, 2).await?;
        fallen.extend(addresses.into_iter().map(|address| (name, address, is_served)));
    }
    let asked = at_once(&fallen, |&(name, address, is_served)| {
        let start = Instant::now();
        while answers(&outside, address, 80) != is_served {
            ensure!(start.elapsed() < Duration::from_secs(20), "{name}: {address}, {is_served}");
        }
        // As long as kube-proxy may take to go on.
        for port in [NODE_PORT, HOST_PORT, NODE_PORT] {
            ensure!(!answers(&outside, address, port), "{name}: {address} answers at {port}");
        }
        ensure!(answers(&outside, address, 80) == is_served, "{name}: {address}");
        Ok(())
    });
    asked.with_context(logs)?;
    // One with the number of another's NodePort is served as any.
    let named = json!([{ "port": NODE_PORT, "targetPort": 8080 }]);
    let mut spec = both;
    spec["ports"] = named;
    world.expose("alike", spec).await?;
    for address in world.published("alike", 2).await? {
        let asked = async || Ok(answers(&outside, address, NODE_PORT).then_some(()));
        eventually("what has the number of a NodePort", 20, asked).await.with_context(logs)?;
    }
    let asked = at_once(&addresses, |&address| {
        curl_port(&outside, address, 80)?;
        for port in [NODE_PORT, HOST_PORT, STRANGERS] {
            ensure!(!answers(&outside, address, port), "{address} answers at {port}");
            ensure!(answers(&outside, address, 80), "{address} is served");
        }
        outside.exec(["ping", "-c", "1", "-W", "5", &address.to_string()])?;
        // The node itself, whose source is the address then.
        curl_port(&node, address, 80).context("asked by the node that answers")?;
        curl_port(&elsewhere, address, 80).context("asked by another node").map(drop)
    });
    asked.with_context(logs)?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_address_answers_what_its_services_serve_and_nothing_that_iptables_rewrites()
-> Result<()> {
    what_answers(ProxyMode::Iptables).await
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_address_answers_what_its_services_serve_and_nothing_that_nftables_rewrites()
-> Result<()> {
    what_answers(ProxyMode::Nftables).await
}
