//! What others saw with other speakers (`e2e/field/bgp.md`): nodes that change under a session, and edits of it while it is up.
//! BIRD tells what it was told, a client beyond it what was lost.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::world::{World, eventually, ingress, kubectl};
use serde_json::json;

use super::stops::wants_announcers;
use super::{POOL, SOON, announced, bound, by_bgp, configure, leads_to, leads_to_within};

/// The router is a peer of the nodes of rack `a`; more is said of it.
fn document(more: &str, policy: &str) -> String {
    format!(
        "peers:\n- {{name: tor, address: {}, asn: 65001, families: [ipv4, ipv6], {more}}}\npolicy: [{policy}]\n",
        router().v4
    )
}

const OF_RACK: &str = "nodes: {matchLabels: {rack: a}}";

/// What the loopback port of a node's announcer says.
fn asked(world: &World, node: usize, path: &str) -> Result<String> {
    world.lab.node(node).exec(["curl", "-s", &format!("http://127.0.0.1:2112{path}")])
}

/// The session with a node, and since when it has been up, as the router has it.
fn session(bird: &Bird, node: &str) -> Result<String> {
    let said = bird.says(&format!("show protocols {}", protocol(node)))?;
    let line = said.lines().find(|line| line.contains("Established"));
    line.map(str::to_owned).with_context(|| said.clone())
}

/// Counts what comes to the router for an address that nobody has.
const COUNT: &str = "table inet strays {
  chain comes {
    type filter hook prerouting priority raw; policy accept;
    ip daddr 10.99.0.49 counter
  }
}";

/// For how long, of these seconds, the router has had no way at all to an address.
fn without_a_way(bird: &Bird, address: IpAddr, seconds: u64) -> Result<Duration> {
    let (began, mut without) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < Duration::from_secs(seconds) {
        let look = Instant::now();
        let known = bird.knows(address)?;
        std::thread::sleep(Duration::from_millis(5));
        if known.is_empty() {
            without += look.elapsed();
        }
    }
    Ok(without)
}

/// projectcalico/node#169: who has no peer is ready. FRR#17152, #15919: the address that IPv6 leads to comes later, and another
/// one takes its place. cilium#25408, #25827: an edit of a peer. metallb#2811: a prefix that stands for addresses of one node.
/// calico#11607: what is in it and nobody's.
#[tokio::test(flavor = "multi_thread")]
async fn sessions_follow_their_node_and_an_edit_of_one_costs_nobody_a_route() -> Result<()> {
    let mut world = World::up(2, by_bgp("")).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    let late = IpAddr::from(world.lab.node(0).addresses().lan.v6);
    world.lab.node(0).exec(["ip", "-6", "address", "flush", "dev", "eth0", "scope", "global"])?;
    // As keepalived has a VIP of its own on one node: with a subnet, deprecated, another node's some day (keepalived#1483).
    let lan = world.lab.node(1).addresses().lan;
    let foreign = format!("{}/64", Ipv6Addr::from_bits(lan.v6.to_bits() - 6));
    let words = ["ip", "address", "add", &foreign, "dev", "eth0", "nodad", "preferred_lft", "0"];
    world.lab.node(1).exec(words)?;
    configure(&world, &document(OF_RACK, "")).await?;
    let names: Vec<String> = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).collect();
    let bird = Bird::start(&world.lab, 65000, "graceful restart on;")?;
    for node in &all[..2] {
        kubectl(&world.lab, &["label", "node", node, "rack=a"])?;
    }
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let addresses = world.published("web", 2).await.with_context(|| bird.log() + &world.logs())?;
    leads_to(&bird, &addresses[..1], &all[..2]).await?;
    leads_to(&bird, &addresses[1..], &all[1..2]).await?;
    // All of it is looked at, whatever is wrong with one.
    let mut wrong: Vec<String> = Vec::new();

    let hop = bird.paths(addresses[1])?[&protocol(all[1])];
    if hop != lan.v6 {
        wrong.push(format!("IPv6 leads to {hop}, which is deprecated, and not to {}", lan.v6));
    }
    world.lab.node(1).exec(["ip", "address", "delete", &foreign, "dev", "eth0"])?;

    // The third has no peer.
    world.start_announcer(2).await?;
    let ready = || async { Ok(asked(&world, 2, "/readyz")?.starts_with("ok").then_some(())) };
    if eventually("a node without peers that is ready", 15, ready).await.is_err() {
        wrong.push(format!("a node without peers: {}", asked(&world, 2, "/readyz")?));
    }

    // The pods are there, and `Local` leads to nobody else: nobody is told that it is announced, but why it is not.
    world.patch("web", json!({ "spec": { "externalTrafficPolicy": "Local" } })).await?;
    leads_to(&bird, &addresses, &[]).await?;
    let is_told = || async {
        let told = announced(&world.service("web").await?);
        Ok(told.filter(|(status, _, _)| status == "False"))
    };
    match eventually("why it is not announced", 15, is_told).await {
        Ok((_, reason, message)) => println!("{reason}: {message}"),
        Err(_) => wrong.push(format!(
            "`Local`, and its node has no peer: {:?}, shown {:?}",
            announced(&world.service("web").await?),
            ingress(&world.service("web").await?)
        )),
    }
    world.patch("web", json!({ "spec": { "externalTrafficPolicy": "Cluster" } })).await?;
    leads_to(&bird, &addresses[..1], &all[..2]).await?;

    // The address of IPv6 comes once the session is up.
    let prefixed = format!("{late}/64");
    world.lab.node(0).exec(["ip", "address", "add", &prefixed, "dev", "eth0", "nodad"])?;
    if let Err(error) = leads_to(&bird, &addresses[1..], &all[..2]).await {
        wrong.push(format!("an address that comes later: {error:#}"));
    }
    // Another one takes its place.
    let own = world.lab.node(1).addresses().lan.v6;
    let other = Ipv6Addr::from_bits(own.to_bits() + 0x100);
    for (verb, address) in [("add", other), ("delete", own)] {
        let prefixed = format!("{address}/64");
        let words = ["ip", "address", verb, &prefixed, "dev", "eth0"];
        world.lab.node(1).exec(words)?;
    }
    let name = protocol(all[1]);
    let renumbered = eventually("the new next hop", SOON, || async {
        let hop = bird.paths(addresses[1])?.get(&name).copied();
        Ok((hop == Some(other.into())).then_some(()))
    });
    if renumbered.await.is_err() {
        wrong.push(format!("an address that is another one now: {:?}", bird.paths(addresses[1])?));
    }

    // Edits: of what the session does not go by, and of what it does. No route is ever missing.
    let client = world.lab.outside();
    let selected = "nodes: {matchExpressions: [{key: rack, operator: In, values: [a, b]}]}";
    for (more, ends) in [
        (selected.to_owned(), false),
        (format!("connectRetry: 7, {selected}"), false),
        (format!("holdTime: 12, connectRetry: 7, {selected}"), true),
    ] {
        let before = session(&bird, all[0])?;
        let probe = Probe::start(
            &client,
            SocketAddr::new(addresses[0], 80),
            Duration::from_millis(20),
            Manner::NewConnections,
        )?;
        configure(&world, &document(&more, "")).await?;
        let without = without_a_way(&bird, addresses[0], 5)?;
        let seen = probe.finish()?;
        if !without.is_zero() || !seen.failed.is_empty() {
            let failed = seen.failed.len();
            wrong.push(format!("{more}: no way for {without:?}, {failed} lost of {}", seen.ok));
        }
        // BIRD may wait for a minute.
        leads_to_within(90, &bird, &addresses[..1], &all[..2]).await?;
        let after = session(&bird, all[0])?;
        if !ends && after != before {
            wrong.push(format!("{more}: the session has ended: {before}, {after}"));
        }
    }

    // No peer was taken away, and a router that keeps routes is told nothing that has it forget them.
    if bird.log().contains("Peer de-configured") {
        wrong.push("the router was told that it is no peer any more".to_owned());
    }

    // A prefix that stands for its addresses: what is nobody's is not sent back and forth.
    configure(&world, &document(OF_RACK, "{aggregate: {ipv4: 24}}")).await?;
    let prefix = "show route 10.99.0.0/24";
    eventually("the prefix from both", 90, || async {
        let mut is_kept = bird.says(prefix)?.matches("unicast").count() == 2;
        for node in 0..2 {
            let set = ["nft", "list", "set", "inet", "berth.transit", "wide4"];
            is_kept &= world.lab.node(node).exec(set)?.contains("10.99.0.0/24");
        }
        Ok(is_kept.then_some(()))
    })
    .await?;
    world.lab.router().exec_with_input(["nft", "-f", "-"], COUNT)?;
    client.output(["ping", "-n", "-c", "1", "-W", "2", "-t", "30", "10.99.0.49"])?;
    let said = world.lab.router().exec(["nft", "list", "table", "inet", "strays"])?;
    let packets = said.split_once("packets ").and_then(|(_, rest)| rest.split(' ').next());
    let packets: u32 = packets.and_then(|packets| packets.parse().ok()).context(said.clone())?;
    if packets > 1 {
        wrong.push(format!("one packet for nobody has come to the router {packets} times"));
    }
    ensure!(wrong.is_empty(), "{}\n{}", wrong.join("\n\n"), bird.log());
    Ok(())
}

/// metallb#2677, cilium#31470: a node is emptied, cordoned and shut down, as `kubectl drain` and what updates nodes do. Its kubelet
/// says that it goes; its DaemonSet would have a pod there.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_whose_kubelet_shuts_it_down_is_drained() -> Result<()> {
    let peers = format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4);
    let world = World::up(2, by_bgp(&peers)).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    wants_announcers(&world)?;
    let bird = Bird::start(&world.lab, 65000, "graceful restart on;")?;
    world.expose("web", json!({})).await?;
    let addresses = world.published("web", 1).await.with_context(|| bird.log())?;
    let names: Vec<String> = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
    let known = || async { Ok((bird.knows(addresses[0])?.len() == 2).then_some(())) };
    eventually("two ways", SOON, known).await?;

    // As kubelet does (pkg/kubelet/nodestatus, `ReadyCondition`).
    let ready = json!({
        "type": "Ready", "status": "False", "reason": "KubeletNotReady", "message": "node is shutting down",
    });
    let patch = json!({ "status": { "conditions": [ready] } }).to_string();
    let words =
        ["patch", "node", &names[0], "--subresource=status", "--type=strategic", "-p", &patch];
    kubectl(&world.lab, &words)?;
    kubectl(&world.lab, &["cordon", &names[0]])?;
    world.announcer(&names[0])?.terminate(Duration::from_secs(15))?;
    let known = bird.knows(addresses[0])?;
    let left = bound(&world, 0, &addresses)?;
    ensure!(
        known == [protocol(&names[1])].into() && left.is_empty(),
        "{known:?}, left on the node: {left:?}\n{}",
        world.announcer(&names[0])?.log_tail()
    );
    Ok(())
}
