//! What answers behind an address of a Service where `enable_service_security` is on, beside a real kube-proxy.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use berth_e2e::node::ProxyMode;
use berth_e2e::place::Place;
use berth_e2e::world::{World, curl_port, env, eventually};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use serde_json::json;

const NODE_PORT: u16 = 30_080;
const HOST_PORT: u16 = 8090;
/// Of a Service that calls the addresses of another one its external IPs.
const STRANGERS: u16 = 8443;

/// Whether anything answers there. What is dropped takes two seconds.
fn answers(from: &Place, host: IpAddr, port: u16) -> bool {
    let url = format!("http://{}/", std::net::SocketAddr::new(host, port));
    from.exec(["curl", "--silent", "--fail", "--max-time", "2", &url]).is_ok()
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

async fn what_answers(proxy: ProxyMode) -> Result<()> {
    let world = World::up_with(proxy, 1, env([("enable_service_security", "true")])).await?;
    let both = json!({ "ipFamilyPolicy": "RequireDualStack" });
    world.expose("web", both.clone()).await?;
    let addresses = world.published("web", 2).await?;
    let ports = |port: u16| json!({ "port": port, "targetPort": 8080 });
    let mut inner = ports(80);
    inner["nodePort"] = json!(NODE_PORT);
    let selector = json!({ "app": "hello" });
    let other = |name: &str, kind: &str, ports: serde_json::Value| {
        json!({
            "metadata": { "name": name },
            "spec": {
                "type": kind, "selector": selector, "ports": [ports],
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
    let pods = pods.list(&ListParams::default().labels("app=hello")).await?;
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
    for address in addresses {
        curl_port(&outside, address, 80).with_context(logs)?;
        for port in [NODE_PORT, HOST_PORT, STRANGERS] {
            ensure!(!answers(&outside, address, port), "{address} answers at {port}");
            ensure!(answers(&outside, address, 80), "{address} is served");
        }
        outside.exec(["ping", "-c", "1", "-W", "5", &address.to_string()])?;
        // The node itself, whose source is the address then.
        curl_port(&node, address, 80).context("asked by the node that answers")?;
        curl_port(&elsewhere, address, 80).context("asked by another node")?;
    }
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
