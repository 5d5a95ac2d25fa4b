//! The control plane's address by BGP: three nodes, each with an API server of its own, which is a way to the one that there is.
//! Judged by the router's table, a client beyond it, and what is bound on each node.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::api_proxy::{ApiProxy, Trouble};
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::world::{Env, World, env, eventually};

use super::{bound, by_bgp, leads_to, leads_to_within};
use crate::control_plane::rights_for;

const PORT: u16 = 6443;

/// Of no network of the lab: the client asks its router for them.
const ADDRESSES: &str = "10.99.0.100,fd00:99::64";

/// So often the client connects.
const EVERY: Duration = Duration::from_millis(20);

/// Longer than it takes a node to find out of its API server and of all others.
const PATIENCE: Duration = Duration::from_secs(6);

/// Two thirds are led to others meanwhile.
const AWAY: Duration = Duration::from_millis(500);

/// Seconds within which a node that was ill several times is back: it has to be well for longer each time.
const BACK: u64 = 40;

/// The table of nftables by which a node's API server is away.
const TABLE: &str = "inet away";

/// How an API server is away.
#[derive(Clone, Copy, Debug)]
enum Away {
    /// Its process is gone: the kernel refuses.
    Killed,
    /// It takes nothing (kube-vip#1787).
    Hangs,
    /// It serves, and says that it is not ready.
    Slow,
}

struct Scene {
    world: World,
    bird: Bird,
    servers: Vec<ApiProxy>,
    nodes: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Scene {
    /// None of the API servers is ready yet.
    async fn up() -> Result<Self> {
        let mut world = World::without_berth(3, env([])).await?;
        world.police()?;
        rights_for(&world, &["--address", ADDRESSES, "--bgp"])?;
        let bird = Bird::start(&world.lab, 65000, "graceful restart on; error wait time 1, 2;")?;
        let mut servers = Vec::new();
        for node in 0..3 {
            let at = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
            servers.push(ApiProxy::start_in(&world.lab, &world.lab.node(node).place()?, at).await?);
            servers[node].make(slow());
        }
        for node in 0..3 {
            start(&mut world, node).await?;
        }
        let nodes = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        let addresses = ADDRESSES.split(',').map(str::parse).collect::<Result<_, _>>()?;
        Ok(Self { world, bird, servers, nodes, addresses })
    }

    /// The names of all nodes but one.
    fn but(&self, not: Option<usize>) -> Vec<&str> {
        let all = self.nodes.iter().enumerate();
        all.filter(|(index, _)| Some(*index) != not).map(|(_, name)| name.as_str()).collect()
    }

    async fn is_led_to(&self, nodes: &[&str]) -> Result<()> {
        let led = leads_to_within(BACK, &self.bird, &self.addresses, nodes).await;
        led.with_context(|| self.world.logs())
    }

    /// The router leads to all of them all the time.
    async fn stays_at_all(&self, long: Duration) -> Result<()> {
        let all: BTreeSet<String> = self.nodes.iter().map(|node| protocol(node)).collect();
        let begun = Instant::now();
        while begun.elapsed() < long {
            for address in &self.addresses {
                let known = self.bird.knows(*address)?;
                ensure!(known == all, "{address}: {known:?}\n{}", self.world.logs());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// All API servers are, as their nodes see it: before that one withdraws for another that is.
    async fn are_healthy(&self) -> Result<()> {
        for node in 0..self.nodes.len() {
            says(&self.world, node, BACK, |said| said.starts_with("ok")).await?;
        }
        Ok(())
    }

    /// Whether it is bound there, where routers lead it.
    async fn is_bound(&self, node: usize, is_so: bool) -> Result<()> {
        let found = eventually("what is bound", 5, || async {
            let bound = bound(&self.world, node, &self.addresses)?;
            ensure!(bound.iter().all(|own| own.ends_with(" on lo")), "{bound:?}");
            Ok((bound.len() == if is_so { 2 } else { 0 }).then_some(()))
        });
        found.await.with_context(|| self.world.logs())
    }

    fn client(&self) -> Result<Probe> {
        let target = SocketAddr::new(self.addresses[0], PORT);
        Probe::start(&self.world.lab.outside(), target, EVERY, Manner::NewConnections)
    }

    /// Has the API server of a node be away, or be back.
    fn make(&self, node: usize, away: Option<Away>) -> Result<()> {
        let place = self.world.lab.node(node).place()?;
        place.exec_with_input(["nft", "-f", "-"], rules(away))?;
        let is_slow = matches!(away, Some(Away::Slow));
        self.servers[node].make(if is_slow { slow() } else { Trouble::default() });
        Ok(())
    }

    /// One of them is away, and back.
    async fn goes_and_comes(&self, node: usize, away: Away) -> Result<()> {
        let client = self.client()?;
        let begun = Instant::now();
        self.make(node, Some(away))?;
        self.is_led_to(&self.but(Some(node))).await?;
        let led = begun.elapsed();
        self.is_bound(node, false).await?;
        let report = client.finish()?;
        println!(
            "{away:?}: led elsewhere after {led:.1?}, {} of {} failed, away for {:.0?} at most",
            report.failed.len(),
            report.failed.len() + report.ok,
            report.longest_gap
        );
        report.answered_within(AWAY).with_context(|| self.world.logs())?;
        let client = self.client()?;
        self.make(node, None)?;
        self.is_led_to(&self.but(None)).await?;
        client.finish()?.answered_within(AWAY)
    }
}

fn slow() -> Trouble {
    Trouble { is_unready: true, ..Trouble::default() }
}

/// What a node does with what comes for its API server.
fn rules(away: Option<Away>) -> String {
    let verdict = match away {
        Some(Away::Killed) => "reject with tcp reset",
        Some(Away::Hangs) => "drop",
        Some(Away::Slow) | None => "accept",
    };
    let chain = "type filter hook input priority -200";
    format!(
        "table {TABLE}\ndelete table {TABLE}\ntable {TABLE} {{\n  chain input {{\n    {chain}\n    tcp dport {PORT} {verdict}\n  }}\n}}\n"
    )
}

fn settings() -> Env {
    let mut settings = by_bgp(&format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4));
    settings.extend(env([
        ("svc_enable", "false"),
        ("cp_enable", "true"),
        ("address", ADDRESSES),
        ("kubernetes_addr", "http://127.0.0.1:6443"),
        ("control_plane_health_check_failure_threshold", "2"),
    ]));
    settings
}

/// Waits until a node says of itself what is asked for.
async fn says(world: &World, node: usize, seconds: u64, is_it: fn(&str) -> bool) -> Result<()> {
    let url = "http://127.0.0.1:2112/readyz";
    let told = eventually("what a node says", seconds, || async {
        let said = world.lab.node(node).exec(["curl", "-s", url]).unwrap_or_default();
        Ok(is_it(&said).then_some(()))
    });
    told.await.with_context(|| world.logs())
}

async fn start(world: &mut World, node: usize) -> Result<()> {
    let config = world.kubeconfig_of_pod("berth-control-plane", node).await?;
    let mut settings = settings();
    settings.insert("KUBECONFIG".to_owned(), config.display().to_string());
    world.start_announcer_with(node, settings).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn routers_lead_to_each_api_server_that_is_ready_and_to_all_where_none_is() -> Result<()> {
    let mut scene = Scene::up().await?;
    // Nodes that join have nothing, and are led to by nobody.
    for node in 0..3 {
        says(&scene.world, node, 20, |said| said.contains("/readyz: 500")).await?;
        scene.is_bound(node, false).await?;
    }
    leads_to(&scene.bird, &scene.addresses, &[]).await?;
    for node in 0..3 {
        scene.make(node, None)?;
        scene.is_bound(node, true).await?;
        let ready: Vec<&str> = scene.nodes[..=node].iter().map(String::as_str).collect();
        scene.is_led_to(&ready).await?;
    }

    for (node, away) in [Away::Killed, Away::Hangs, Away::Slow].into_iter().enumerate() {
        scene.goes_and_comes(node, away).await.with_context(|| format!("{away:?}"))?;
    }

    // All at once: nobody withdraws.
    for away in [Away::Slow, Away::Hangs] {
        let client = scene.client()?;
        (0..3).try_for_each(|node| scene.make(node, Some(away)))?;
        scene.stays_at_all(PATIENCE).await.with_context(|| format!("all: {away:?}"))?;
        let report = client.finish()?;
        if matches!(away, Away::Slow) {
            println!(
                "all slow: {} failed, away for {:.0?}",
                report.failed.len(),
                report.longest_gap
            );
            report.answered_within(AWAY).with_context(|| scene.world.logs())?;
            // To the one that is ready again, and then to all.
            scene.make(1, None)?;
            scene.is_led_to(&[&scene.nodes[1]]).await?;
            scene.is_bound(0, false).await?;
        }
        (0..3).try_for_each(|node| scene.make(node, None))?;
        scene.are_healthy().await?;
        scene.is_led_to(&scene.but(None)).await?;
    }

    // One that crashes and comes again loses no way; one that is stopped leaves nothing, since nobody says whether it comes again.
    let crashing = scene.nodes[0].clone();
    scene.world.announcer(&crashing)?.kill()?;
    scene.stays_at_all(Duration::from_secs(1)).await.context("it is killed")?;
    start(&mut scene.world, 0).await?;
    scene.stays_at_all(PATIENCE).await.context("it comes again")?;
    let client = scene.client()?;
    scene.world.announcer(&crashing)?.terminate(Duration::from_secs(10))?;
    scene.is_led_to(&scene.but(Some(0))).await?;
    scene.is_bound(0, false).await?;
    let report = client.finish()?;
    println!("SIGTERM: {} failed, away for {:.0?}", report.failed.len(), report.longest_gap);
    report.answered_within(AWAY)?;
    ensure!(scene.bird.log().contains("there is no DaemonSet"), "{}", scene.bird.log());
    start(&mut scene.world, 0).await?;
    scene.is_led_to(&scene.but(None)).await?;
    scene.world.lab.down()
}
