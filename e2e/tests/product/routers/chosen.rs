//! Peers of some nodes by their labels, over IPv6, to nodes of which one has IPv4 alone; addresses on an interface.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::lan_router::LanRouter;
use berth_e2e::place::sibling_program;
use berth_e2e::world::{World, curl_port, eventually, kubectl};
use lab_routers::Frr;
use serde_json::{Value, json};

use super::leads_to;
use crate::bgp::{POOL, by_bgp};

/// Where somebody listens at every address of a node.
const HOST_PORT: u16 = 8080;

/// The router has one address for all nodes, and is another peer of the nodes of each rack.
fn racks() -> String {
    let address = router().v4;
    let peer = |rack: &str| {
        format!(
            "- {{name: tor-{rack}, address: {address}, asn: 65001, families: [ipv4, ipv6], \
             nextHop: interface, sourceInterface: eth0, nodes: {{matchLabels: {{rack: {rack}}}}}}}\n"
        )
    };
    format!("peers:\n{}{}", peer("a"), peer("b"))
}

fn label(world: &World, node: usize, rack: &str) -> Result<()> {
    let name = world.lab.node(node).name();
    kubectl(&world.lab, &["label", "node", name, rack, "--overwrite"]).map(drop)
}

/// The interfaces of a node that have an address.
fn has(world: &World, node: usize, address: IpAddr) -> Result<Vec<String>> {
    let said = world.lab.node(node).exec([
        "ip",
        "-json",
        "address",
        "show",
        "to",
        &address.to_string(),
    ])?;
    let links: Vec<Value> = serde_json::from_str(&said)?;
    Ok(links.iter().filter_map(|link| Some(link["ifname"].as_str()?.to_owned())).collect())
}

/// metallb#181, #1683: a peer that a label chooses again is told everything, and one address is two peers.
/// kube-vip#1682: a node without IPv6 announces IPv4. kube-vip#1744: `bgp_attach_ip_to_interface` has an effect.
/// kube-vip#1442: what listens at every address of a host does not answer at one that BGP leads here.
#[tokio::test(flavor = "multi_thread")]
async fn nodes_speak_to_whom_their_labels_choose_and_tell_what_they_can() -> Result<()> {
    let mut environment = by_bgp("");
    for (name, value) in [
        ("bgp_attach_ip_to_interface", "true"),
        ("vip_interface", "eth0"),
        ("enable_service_security", "true"),
    ] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    let world = World::up(2, environment).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.lab.node(1).exec(["ip", "-6", "address", "flush", "dev", "eth0", "scope", "global"])?;
    let document = format!("--from-literal=config.yaml={}", racks());
    kubectl(&world.lab, &["-n", "kube-system", "create", "configmap", "berth-bgp", &document])?;
    let lan = LanRouter::start(&world.lab, &Frr, 65000, |_| {})?;
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;

    label(&world, 0, "rack=a")?;
    let addresses = world.published("web", 2).await.with_context(|| lan.log() + &world.logs())?;
    leads_to(&world, &lan, &addresses, &[0]).await?;
    label(&world, 1, "rack=b")?;
    leads_to(&world, &lan, &addresses[..1], &[0, 1]).await?;
    leads_to(&world, &lan, &addresses[1..], &[0]).await?;
    label(&world, 0, "rack-")?;
    leads_to(&world, &lan, &addresses[..1], &[1]).await?;
    leads_to(&world, &lan, &addresses[1..], &[]).await?;
    label(&world, 0, "rack=a")?;
    leads_to(&world, &lan, &addresses[..1], &[0, 1]).await?;
    leads_to(&world, &lan, &addresses[1..], &[0]).await?;

    for node in 0..2 {
        let on = has(&world, node, addresses[0])?;
        ensure!(on == ["eth0"], "on node {node}: {on:?}");
    }
    let on = has(&world, 0, addresses[1])?;
    ensure!(on == ["lo"], "{on:?}");
    let client = world.lab.outside();
    eventually("an answer", 10, || async { Ok(world.curl(addresses[0]).ok()) }).await?;
    let echo = sibling_program("echo", "BERTH_ECHO")?.display().to_string();
    for node in &world.lab.nodes()[..2] {
        node.place()?.start("echo", [&echo])?;
        let own = IpAddr::from(node.addresses().lan.v4);
        eventually("an answer of the host", 10, || async {
            Ok(curl_port(&client, own, HOST_PORT).ok())
        })
        .await?;
    }
    let answer = curl_port(&client, addresses[0], HOST_PORT);
    ensure!(answer.is_err(), "{answer:?}");
    Ok(())
}
