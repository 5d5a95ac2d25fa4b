//! Routers, and strangers, that send what they like; and pods and tenants that speak to a router in the place of their node.

use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{client, router};
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::place::Place;
use berth_e2e::world::{World, eventually, kubectl};
use serde_json::json;

use super::{POOL, by_bgp, configure};

const PEER: &str = include_str!("hostile/peer.py");

/// Of the port that the loud router has beside BIRD.
const LOUD: &str = "1179";

/// How long each sends what it likes.
const SECONDS: &str = "4";

const MEGABYTES: u64 = 24 << 20;

fn hostile(place: &Place, arguments: &[&str]) -> Result<String> {
    place.exec([&["python3", "-c", PEER][..], arguments].concat())
}

/// What a node says of sessions that it has lost.
fn lost(world: &World, node: usize) -> Result<String> {
    let said = world.lab.node(node).exec(["curl", "-s", "http://127.0.0.1:2112/metrics"])?;
    let lines = said.lines().filter(|line| line.contains("bgp_sessions_lost_total{"));
    let lines = lines.filter(|line| !line.ends_with(" 0"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

async fn is_up(bird: &Bird, node: &str) -> Result<()> {
    eventually("that the session is up", 20, || async {
        Ok(bird
            .says("show protocols")?
            .lines()
            .any(|line| line.starts_with(&protocol(node)) && line.contains("Established"))
            .then_some(()))
    })
    .await
}

/// A router knows a node by its address, which the node's CNI and kube-proxy give to what they send on for others.
#[tokio::test(flavor = "multi_thread")]
async fn nobody_speaks_to_a_router_in_the_place_of_a_node() -> Result<()> {
    let world = World::up(1, by_bgp(&format!("{}:65001", router().v4))).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    let bird = Bird::start(&world.lab, 65000, "")?;
    let (node, name) = (world.lab.node(0).place()?, world.lab.node(0).name().to_owned());
    let own = world.lab.node(0).addresses().lan.v4.to_string();
    is_up(&bird, &name).await?;

    // A Service that leads to the router itself.
    let spec = json!({ "type": "LoadBalancer", "ports": [{ "name": "p", "port": 80, "targetPort": 179 }] });
    world.create(json!({ "metadata": { "name": "router" }, "spec": spec })).await?;
    let slice = format!(
        "{{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, addressType: IPv4, \
         metadata: {{name: router-1, labels: {{kubernetes.io/service-name: router}}}}, \
         ports: [{{name: p, port: 179, protocol: TCP}}], \
         endpoints: [{{addresses: [\"{}\"], conditions: {{ready: true}}}}]}}",
        router().v4
    );
    let file = world.lab.dir().join("slice.yaml");
    std::fs::write(&file, slice)?;
    kubectl(&world.lab, &["apply", "-f", &file.display().to_string()])?;
    let address = world.published("router", 1).await?[0].to_string();
    let is_unharmed = |who: &str, said: &str| -> Result<()> {
        let routes = bird.says("show route 0.0.0.0/0")?;
        ensure!(!routes.contains("unicast"), "{who} ({said}): {routes}");
        let lost = lost(&world, 0)?;
        ensure!(lost.is_empty(), "{who} ({said}): {lost}");
        Ok(())
    };
    let outside = world.lab.outside();
    let said = hostile(&outside, &["blind", &address, "80", "65000", &own])?;
    is_unharmed("by a Service, from beyond the router", &said)?;

    // What a node sends on for its pods has its own address, with most CNIs; the client stands for one.
    let (theirs, peer) = (client().v4.to_string(), router().v4.to_string());
    node.exec([
        "sysctl",
        "-qw",
        "net.ipv4.conf.all.send_redirects=0",
        "net.ipv4.conf.eth0.send_redirects=0",
    ])?;
    let masquerade = format!(
        "table ip cni {{ chain post {{ type nat hook postrouting priority 100; ip saddr {theirs} masquerade; }}; }}"
    );
    node.exec_with_input(["nft", "-f", "-"], masquerade)?;
    outside.exec(["ip", "route", "add", &peer, "via", &own])?;
    let said = hostile(&outside, &["blind", &peer, "179", "65000", &own])?;
    is_unharmed("as a pod", &said)?;
    is_up(&bird, &name).await?;
    drop(bird);
    world.lab.down()
}

/// Millions of routes, a wish for all routes again without end, and strangers at the port for peers that connect.
#[tokio::test(flavor = "multi_thread")]
async fn what_routers_and_strangers_send_costs_nothing() -> Result<()> {
    let world = World::up(1, by_bgp(&format!("{}:65001", router().v4))).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    let bird = Bird::start(&world.lab, 65000, "")?;
    let (name, own) = (world.lab.node(0).name().to_owned(), world.lab.node(0).addresses().lan);
    is_up(&bird, &name).await?;
    // Beside BIRD: at the router's other address.
    let loud = router().v6.to_string();
    world.lab.router().exec(["ip", "address", "add", "198.51.100.1/32", "dev", "lo"])?;
    let document = format!(
        "listen: {{port: 1790, addresses: [\"{}/128\"]}}\n\
         peers:\n\
         - {{name: loud, address: 198.51.100.1, port: {LOUD}, asn: 65001, multihop: 3, connectRetry: 5}}\n\
         - {{name: opens, address: \"{loud}\", asn: 65001, connect: passive}}\n",
        own.v6
    );
    configure(&world, &document).await?;
    world.expose("web", json!({})).await?;
    let address: IpAddr = world.published("web", 1).await.with_context(|| world.logs())?[0];
    let process = world.announcer(&name)?;
    let before = process.resident_bytes()?;
    for mode in ["routes", "refreshes"] {
        let said = hostile(&world.lab.router(), &["router", mode, "198.51.100.1", LOUD, SECONDS])?;
        ensure!(mode == "refreshes" || said.contains("routes "), "it was spoken to: {said}");
        let grown = process.resident_bytes()?.saturating_sub(before);
        ensure!(grown < MEGABYTES, "{mode}: {grown} octets");
    }
    for place in [world.lab.outside(), world.lab.router()] {
        let let_in = hostile(&place, &["strangers", &own.v6.to_string(), "1790", "2"])?;
        ensure!(let_in.trim().parse::<u32>()? > 100, "somebody tried: {let_in}");
        let grown = process.resident_bytes()?.saturating_sub(before);
        ensure!(grown < MEGABYTES, "{}: {grown} octets", place.name);
    }
    let bound = format!("bgp_sessions_lost_total{{peer=\"{}\"", router().v4);
    ensure!(!lost(&world, 0)?.contains(&bound), "the other session goes on: {}", lost(&world, 0)?);
    ensure!(bird.knows(address)?.len() == 1 && world.curl(address).is_ok());
    drop(bird);
    world.lab.down()
}
