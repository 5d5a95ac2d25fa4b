//! What a stop of an announcer is, by its DaemonSet, and what a router that keeps routes makes of each: the table "What ends how"
//! of docs/bgp.md. BIRD tells what it was told, a client beyond it what was lost, `ip` and `nft` what is left.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::control_plane::Part;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::world::{World, eventually, kubectl};
use serde_json::{Value, json};

use crate::is_soak;

use super::{HOLD_TIME, POOL, SOON, bound, by_bgp, is_unbound, leads_to, leads_to_within};

/// A pod is given 15 s by `manifests/`.
const GRACE: Duration = Duration::from_secs(15);

/// So often each client connects.
const EVERY: Duration = Duration::from_millis(10);

/// How long the next process is not there, as where a kubelet starts it.
const AWAY: Duration = Duration::from_millis(500);

const KILLS: usize = 20;

/// Linux spreads connections anew over the nodes that are left: one that is under way may go on at another one, which does not
/// know it. A router that keeps connections where they are loses none.
const UNDER_WAY: usize = 2;

const DAEMON_SET: &str = "daemonset/berth-announcer";

/// Three nodes whose router keeps routes, and a Service with an address of each family that it leads to all of them.
struct Scene {
    world: World,
    bird: Bird,
    nodes: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Scene {
    async fn new() -> Result<Self> {
        let environment = by_bgp(&format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4));
        let mut world = World::up(2, environment).await?;
        world.pools(json!({ "range-global": POOL })).await?;
        world.start_announcer(2).await?;
        wants_announcers(&world)?;
        // After an error, as an expired hold time, it would wait for a minute.
        let said = "graceful restart on; error wait time 1, 2;";
        let bird = Bird::start(&world.lab, 65000, said)?;
        // By ports as well: else a client is led to one node alone.
        for family in ["ipv4", "ipv6"] {
            let policy = format!("net.{family}.fib_multipath_hash_policy=1");
            world.lab.router().exec(["sysctl", "-qw", &policy])?;
        }
        world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
        let addresses = world.published("web", 2).await.with_context(|| bird.log())?;
        let nodes = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        let scene = Self { world, bird, nodes, addresses };
        scene.leads_to_all().await?;
        for address in &scene.addresses {
            eventually("an answer", 10, || async { Ok(scene.world.curl(*address).ok()) }).await?;
        }
        Ok(scene)
    }

    async fn leads_to_all(&self) -> Result<()> {
        let all: Vec<&str> = self.nodes.iter().map(String::as_str).collect();
        leads_to(&self.bird, &self.addresses, &all).await
    }

    /// Clients beyond the router, one for each address.
    fn clients(&self) -> Result<Vec<Probe>> {
        let client = self.world.lab.outside();
        let of = |address: &IpAddr| {
            Probe::start(&client, SocketAddr::new(*address, 80), EVERY, Manner::NewConnections)
        };
        self.addresses.iter().map(of).collect()
    }

    /// What a node says of whether it is ready.
    fn readiness(&self, node: usize) -> Result<String> {
        let url = "http://127.0.0.1:2112/readyz";
        self.world.lab.node(node).exec(["curl", "-s", url])
    }

    async fn is_ready(&self, node: usize) -> Result<()> {
        let is_ok = || async { Ok(self.readiness(node)?.starts_with("ok").then_some(())) };
        let found = eventually("a node that is ready", 20, is_ok).await;
        found.with_context(|| format!("{:?}\n{}", self.readiness(node), self.world.logs()))
    }

    /// Everything stands as if the announcer of the node lived: addresses, the guard, and the router's ways.
    fn is_kept(&self, node: usize) -> Result<()> {
        let bound = bound(&self.world, node, &self.addresses)?;
        ensure!(bound.len() == 2 && bound.iter().all(|own| own.ends_with(" on lo")), "{bound:?}");
        ensure!(self.tables(node)?.contains(&"inet berth".to_owned()), "the guard is gone");
        for address in &self.addresses {
            let known = self.bird.knows(*address)?;
            ensure!(known.contains(&protocol(&self.nodes[node])), "{known:?}: {}", self.bird.log());
        }
        Ok(())
    }

    /// The tables of nftables that are ours. As JSON nft 1.0.6 does not live to tell of one that has an owner.
    fn tables(&self, node: usize) -> Result<Vec<String>> {
        let said = self.world.lab.node(node).exec(["nft", "list", "tables"])?;
        let words = said.lines().filter_map(|line| line.trim().strip_prefix("table "));
        let names =
            words.map(|words| words.split_whitespace().take(2).collect::<Vec<_>>().join(" "));
        Ok(names.filter(|name| name.contains("berth")).collect())
    }

    /// Nothing of the announcer is on the node.
    async fn is_bare(&self, node: usize) -> Result<()> {
        let bound = bound(&self.world, node, &self.addresses)?;
        let tables = self.tables(node)?;
        ensure!(bound.is_empty() && tables.is_empty(), "{bound:?} {tables:?}");
        Ok(())
    }

    /// The session with the node is one that began anew with all that was forwarded meanwhile.
    async fn went_on(&self, node: usize) -> Result<()> {
        let name = protocol(&self.nodes[node]);
        let said = || self.bird.says(&format!("show protocols all {name}"));
        let went_on = |said: &str| {
            said.contains("Established")
                && said.contains("Restart recovery")
                && said.contains("AF preserved: ipv4 ipv6")
        };
        let found = eventually("a session that went on", 10, || async {
            Ok(went_on(&said()?).then_some(()))
        });
        found.await.with_context(|| said().unwrap_or_default())
    }

    /// The same restarts and crashes towards a router that keeps nothing, to compare with.
    async fn without_graceful_restart(&mut self) -> Result<()> {
        self.bird.exchange("graceful restart on", "graceful restart off")?;
        self.leads_to_all().await?;
        for (what, times) in [("restarts", self.nodes.len()), ("crashes", KILLS)] {
            let clients = self.clients()?;
            for turn in 0..times {
                let node = turn % self.nodes.len();
                match what {
                    "restarts" => self.stop(node)?,
                    _ => self.world.announcer(&self.nodes[node])?.kill()?,
                }
                tokio::time::sleep(AWAY).await;
                self.world.start_announcer(node).await?;
                self.is_ready(node).await?;
                self.leads_to_all().await?;
            }
            let (mut lost, mut answered) = (0, 0);
            for client in clients {
                let seen = client.finish()?;
                lost += seen.failed.len();
                answered += seen.ok;
            }
            println!("without graceful restart, {times} {what}: {lost} lost, {answered} answered");
        }
        self.bird.exchange("graceful restart off", "graceful restart on")?;
        self.leads_to_all().await
    }

    fn stop(&self, node: usize) -> Result<()> {
        self.world.announcer(&self.nodes[node])?.terminate(GRACE)
    }
}

/// A DaemonSet of the announcer's name that wants one on each node. What runs here was started by the test.
pub(super) fn wants_announcers(world: &World) -> Result<()> {
    let labels = json!({ "app.kubernetes.io/name": "berth-announcer" });
    let container = json!({ "name": "berth-announcer", "image": "localhost/berth/none:1" });
    let set = json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": { "name": "berth-announcer", "namespace": "kube-system" },
        "spec": {
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [container] } },
        },
    });
    let file = world.lab.dir().join("announcers.json");
    std::fs::write(&file, set.to_string())?;
    kubectl(&world.lab, &["create", "-f", &file.display().to_string()]).map(drop)
}

/// No more of what each client began was lost than this. Gives how much was answered.
fn lost_at_most(most: usize, clients: Vec<Probe>, when: &str) -> Result<usize> {
    let mut answered = 0;
    for client in clients {
        let seen = client.finish()?;
        let lost = seen.failed.len();
        ensure!(lost <= most, "{when}: {lost} lost of {}: {seen:?}", seen.ok);
        answered += seen.ok;
    }
    Ok(answered)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_while_announcers_are_restarted_in_turn_and_killed() -> Result<()> {
    let mut scene = Scene::new().await?;
    // What the next life goes by is in the Lease of the node.
    let lease = format!("lease/berth-announcer-{}", scene.nodes[2]);
    let path = "jsonpath={.metadata.annotations.berth\\.dev/bgp-sessions}";
    eventually("that the session is told", 10, || async {
        let said = kubectl(&scene.world.lab, &["-n", "kube-system", "get", &lease, "-o", path])?;
        Ok((said == router().v4.to_string()).then_some(()))
    })
    .await?;

    let clients = scene.clients()?;
    for node in 0..scene.nodes.len() {
        scene.stop(node)?;
        tokio::time::sleep(AWAY).await;
        scene.is_kept(node).context("after a stop that is a restart")?;
        scene.world.start_announcer(node).await?;
        scene.is_ready(node).await?;
        scene.went_on(node).await?;
        scene.is_kept(node)?;
    }
    let answered = lost_at_most(0, clients, "restarts")?;
    ensure!(!scene.bird.log().contains("Received: Cease"), "{}", scene.bird.log());

    let clients = scene.clients()?;
    for kill in 0..KILLS {
        let node = kill % scene.nodes.len();
        scene.world.announcer(&scene.nodes[node])?.kill()?;
        tokio::time::sleep(AWAY).await;
        scene.is_kept(node).context("after a crash")?;
        scene.world.start_announcer(node).await?;
        scene.is_ready(node).await?;
        scene.went_on(node).await?;
    }
    let more = lost_at_most(0, clients, "crashes")?;
    println!("{answered} connections through restarts, {more} through crashes, none lost");
    if is_soak() {
        scene.without_graceful_restart().await?;
    }

    // One that says nothing any more is gone when its hold time is over, and comes back.
    let names = scene.nodes.clone();
    let others: Vec<&str> = names[..2].iter().map(String::as_str).collect();
    scene.world.announcer(&names[2])?.freeze()?;
    leads_to_within(HOLD_TIME + SOON, &scene.bird, &scene.addresses, &others).await?;
    scene.world.announcer(&names[2])?.thaw()?;
    scene.leads_to_all().await?;

    // What is wanted no more when the next one comes goes by then, here and in the router.
    scene.world.announcer(&scene.nodes[0])?.kill()?;
    scene.world.delete("web").await?;
    scene.world.start_announcer(0).await?;
    leads_to(&scene.bird, &scene.addresses, &[]).await?;
    is_unbound(&scene.world, &scene.addresses).await?;
    // It rests for as long as a router may lead to a node that was killed, on top of the usual delay.
    let path = "jsonpath={.metadata.annotations.berth\\.dev/resting}";
    let lease = ["-n", "kube-system", "get", "lease/kube-vip-cloud-controller", "-o", path];
    eventually("that both rest for the restart time", SOON, || async {
        let rests: Vec<Value> = serde_json::from_str(&kubectl(&scene.world.lab, &lease)?)?;
        let longer =
            rests.iter().filter(|rest| rest["more"].as_u64().is_some_and(|more| more > 60));
        Ok((longer.count() == 2).then_some(()))
    })
    .await
    .with_context(|| format!("{:?}", kubectl(&scene.world.lab, &lease)))?;

    // Who cannot go on with a router that it had is not ready: a rolling update waits.
    let name = protocol(&scene.nodes[1]);
    scene.stop(1)?;
    scene.bird.says(&format!("disable {name}"))?;
    scene.world.start_announcer(1).await?;
    eventually("why it is not ready", 10, || async {
        Ok(scene.readiness(1)?.contains("bgp/restart: ").then_some(()))
    })
    .await
    .with_context(|| scene.readiness(1).unwrap_or_default())?;
    scene.bird.says(&format!("enable {name}"))?;
    scene.is_ready(1).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_withdraws_before_it_ends_and_an_uninstall_leaves_nothing() -> Result<()> {
    let mut scene = Scene::new().await?;
    let names = scene.nodes.clone();
    let nodes: Vec<&str> = names.iter().map(String::as_str).collect();

    // A node that is emptied: marked, then withdrawn, then ended.
    let clients = scene.clients()?;
    kubectl(&scene.world.lab, &["annotate", "node", nodes[0], "berth.dev/drain=true"])?;
    let began = Instant::now();
    let route = format!("show route {}/32 protocol {} all", scene.addresses[0], protocol(nodes[0]));
    while !scene.bird.says(&route)?.contains("(65535,0)") {
        ensure!(began.elapsed() < GRACE, "it is not marked: {}", scene.bird.says(&route)?);
    }
    leads_to(&scene.bird, &scene.addresses, &nodes[1..]).await?;
    scene.stop(0)?;
    scene.is_bare(0).await?;
    ensure!(scene.bird.log().contains("the node is being emptied"), "{}", scene.bird.log());
    lost_at_most(UNDER_WAY, clients, "a drain")?;

    // Nobody says whether another one comes: as a drain.
    let api = scene.world.lab.part(Part::ApiServer)?;
    api.freeze()?;
    let stopped = scene.stop(1);
    api.thaw()?;
    stopped?;
    scene.is_bare(1).await?;
    ensure!(scene.bird.log().contains("no answer about DaemonSet"), "{}", scene.bird.log());
    leads_to(&scene.bird, &scene.addresses, &nodes[2..]).await?;
    scene.world.start_announcer(1).await?;
    leads_to(&scene.bird, &scene.addresses, &nodes[1..]).await?;

    // It is uninstalled.
    kubectl(&scene.world.lab, &["-n", "kube-system", "delete", DAEMON_SET])?;
    for node in 1..scene.nodes.len() {
        scene.stop(node)?;
        scene.is_bare(node).await?;
    }
    ensure!(scene.bird.log().contains("there is no DaemonSet"), "{}", scene.bird.log());
    let none = eventually("no way to anywhere", 10, || async {
        let known = scene.bird.knows(scene.addresses[0])?;
        Ok(known.is_empty().then_some(()))
    });
    none.await
}
