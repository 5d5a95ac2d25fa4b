//! Neighbours on the LAN are told of some addresses, and routers of the rest, by one announcer: each judged by whom it is for.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::{Net, mac, node_host, router};
use berth_e2e::bird::Bird;
use berth_e2e::get::get;
use berth_e2e::wire::{Asker, Watch};
use berth_e2e::world::{HOST, POOL as LAN, World, eventually, ingress, kubectl};
use kube::ResourceExt;
use serde_json::json;

use super::{POOL, SOON, UNANSWERED, bound, by_bgp, configure, leads_to, stops};
use crate::scene::{ASK, never_together};

/// What the ConfigMap leaves to neighbours: a pool, and what has a label.
const ON_LAN: &str = "layer2: [{pools: [lan]}, {services: {matchLabels: {way: lan}}}]";

/// A pod is given 15 s by `manifests/`.
const GRACE: Duration = Duration::from_secs(15);

struct Scene {
    world: World,
    bird: Bird,
    names: Vec<String>,
    wire: Watch,
}

impl Scene {
    async fn up() -> Result<Self> {
        let mut environment = by_bgp(&format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4));
        environment.insert("vip_arp".to_owned(), "true".to_owned());
        let mut world = World::up(2, environment).await?;
        world.pools(json!({ "range-global": POOL, "range-lan": LAN })).await?;
        world.start_announcer(2).await?;
        stops::wants_announcers(&world)?;
        configure(&world, ON_LAN).await?;
        kubectl(&world.lab, &["create", "namespace", "lan"])?;
        world.deploy("lan", "hello", 1)?;
        let bird = Bird::start(&world.lab, 65000, "graceful restart on; error wait time 1, 2;")?;
        let names = world.lab.nodes().iter().map(|node| node.name().to_owned()).collect();
        let wire = world.lab.watch()?;
        Ok(Self { world, bird, names, wire })
    }

    fn all(&self) -> Vec<&str> {
        self.names.iter().map(String::as_str).collect()
    }

    /// Where an address is bound, of all nodes.
    fn places(&self, address: IpAddr) -> Result<Vec<(usize, String)>> {
        let mut places = Vec::new();
        for node in 0..self.names.len() {
            let all = bound(&self.world, node, &[address])?.into_iter();
            places.extend(all.map(|own| (node, own)));
        }
        Ok(places)
    }

    /// The one node that has an address, on its LAN, where no router is told of it.
    async fn is_on_lan(&self, address: IpAddr) -> Result<usize> {
        let found = eventually("one owner on the LAN", SOON, || async {
            let places = self.places(address)?;
            let [(node, place)] = &places[..] else { return Ok(None) };
            let is_so = place.ends_with(" on eth0") && self.bird.knows(address)?.is_empty();
            Ok((is_so && self.world.curl(address).is_ok()).then_some(*node))
        });
        found.await.with_context(|| {
            format!(
                "{:?} {:?}\n{}",
                self.places(address),
                self.bird.paths(address),
                self.world.logs()
            )
        })
    }

    /// Each node has an address on `lo`, the router leads to all of them, and no neighbour hears anything of it.
    async fn is_routed(&self, address: IpAddr) -> Result<()> {
        leads_to(&self.bird, &[address], &self.all()).await?;
        let found = eventually("it on lo of each node alone", SOON, || async {
            let places = self.places(address)?;
            let nodes: BTreeSet<usize> = places.iter().map(|(node, _)| *node).collect();
            let is_so = places.iter().all(|(_, place)| place.ends_with(" on lo"));
            Ok((is_so && nodes.len() == self.names.len()).then_some(()))
        });
        found
            .await
            .with_context(|| format!("{:?}\n{}", self.places(address), self.world.logs()))?;
        let since = Instant::now();
        eventually("an answer through the router", SOON, || async {
            Ok(self.world.curl(address).ok())
        })
        .await?;
        let said = self.wire.heard(address, since);
        ensure!(said.is_empty(), "{address}: {said:?}");
        Ok(())
    }

    /// A tenant's Service whose endpoint is the router: kube-proxy would have its client speak there with a node's address.
    async fn nobody_speaks_to_a_router_as_a_node(&self) -> Result<()> {
        let world = &self.world;
        let service = json!({
            "metadata": { "name": "to-the-router" },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80, "targetPort": 179 }] },
        });
        world.create(service).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": "to-the-router", "labels": { "kubernetes.io/service-name": "to-the-router" },
            },
            "ports": [{ "port": 179 }],
            "endpoints": [{ "addresses": [router().v4], "conditions": { "ready": true } }],
        });
        let file = world.lab.dir().join("to-the-router.json");
        std::fs::write(&file, slice.to_string())?;
        kubectl(&world.lab, &["create", "-f", &file.display().to_string()])?;
        let address = world.published("to-the-router", 1).await?[0];
        leads_to(&self.bird, &[address], &self.all()).await?;
        // It is dropped, and not refused before kube-proxy leads there.
        eventually("that a node has dropped it", 20, || async {
            let place = SocketAddr::new(address, 80);
            let opened = get(&world.lab.outside(), place, "/", UNANSWERED);
            ensure!(opened.is_err(), "the router has answered: {opened:?}");
            Ok((self.dropped("leaves")? > 0).then_some(()))
        })
        .await?;
        world.delete("to-the-router").await
    }

    /// A prefix stands for its addresses, and one of them is nobody's.
    async fn what_is_nobodys_goes_no_round(&self) -> Result<()> {
        const PINGS: u64 = 5;
        configure(&self.world, &format!("{ON_LAN}\npolicy: [{{aggregate: {{ipv4: 24}}}}]")).await?;
        eventually("the prefix, and that it is kept from going round", SOON, || async {
            let said = self.bird.says("show route 10.99.0.0/24 all")?;
            let mut is_kept = said.contains("10.99.0.0/24");
            for node in self.world.lab.nodes() {
                let set = ["nft", "list", "set", "inet", "berth.transit", "wide4"];
                is_kept &= node.exec(set)?.contains("10.99.0.0/24");
            }
            Ok(is_kept.then_some(()))
        })
        .await?;
        let count = PINGS.to_string();
        let client = self.world.lab.outside();
        let _ = client.exec(["ping", "-c", &count, "-i", "0.2", "-W", "1", "10.99.0.77"]);
        let dropped = self.dropped("passes")?;
        ensure!(dropped == PINGS, "{dropped} dropped of {PINGS}, each once");
        Ok(())
    }

    /// How many packets a chain has dropped, of what is not to pass, on all nodes.
    fn dropped(&self, chain: &str) -> Result<u64> {
        let mut dropped = 0;
        for node in self.world.lab.nodes() {
            let said = node.exec(["nft", "list", "chain", "inet", "berth.transit", chain])?;
            let words: Vec<&str> = said.split_whitespace().collect();
            let counts = words.windows(2).filter(|pair| pair[0] == "packets");
            dropped += counts.filter_map(|pair| pair[1].parse::<u64>().ok()).sum::<u64>();
        }
        Ok(dropped)
    }

    /// The node whose hardware address was heard last.
    fn last_heard(&self, address: IpAddr) -> Option<usize> {
        let record = self.wire.so_far();
        let last = record.0.iter().rev().find(|sighting| sighting.address == address)?.mac;
        (0..self.names.len()).find(|node| mac(Net::Lan, node_host(*node)) == last)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn neighbours_are_told_of_some_addresses_and_routers_of_the_rest() -> Result<()> {
    let mut scene = Scene::up().await?;
    let world = &scene.world;
    world.expose("web", json!({})).await?;
    let service = json!({
        "metadata": { "name": "web", "namespace": "lan" },
        "spec": {
            "type": "LoadBalancer", "selector": { "app": "hello" },
            "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    });
    world.create(service).await?;
    let routed = world.published("web", 1).await?[0];
    let on_lan = eventually("the address on the LAN", 30, || async {
        let service = world.services("lan").get("web").await?;
        Ok(ingress(&service).first().copied())
    });
    let on_lan = on_lan.await.with_context(|| world.logs())?;
    scene.is_routed(routed).await?;
    let owner = scene.is_on_lan(on_lan).await?;
    let since = Instant::now();
    let asker = Asker::start(&scene.world.lab.outside(), on_lan, ASK)?;

    // Its author is told that what it asks of routers does not count.
    let path = ["-n", "lan", "annotate", "service", "web", "berth.dev/bgp-peers=tor"];
    kubectl(&scene.world.lab, &path)?;
    eventually("that no router is told", 10, || async {
        let told = ["-n", "lan", "get", "events", "-o", "jsonpath={.items[*].reason}"];
        let told = kubectl(&scene.world.lab, &told)?;
        Ok(told.contains("BgpOnLan").then_some(()))
    })
    .await?;

    // A restart: what neighbours are told of is handed over, and routers lead on.
    let name = scene.names[owner].clone();
    let lead = scene.bird.knows(routed)?;
    scene.world.announcer(&name)?.terminate(GRACE)?;
    let places = scene.places(on_lan)?;
    ensure!(places.iter().all(|(node, _)| *node != owner), "handed over: {places:?}");
    ensure!(bound(&scene.world, owner, &[routed])?.len() == 1, "it stays where routers lead");
    ensure!(scene.bird.knows(routed)? == lead, "{}", scene.bird.log());
    let next = scene.is_on_lan(on_lan).await?;
    ensure!(next != owner && scene.last_heard(on_lan) == Some(next));
    scene.world.start_announcer(owner).await?;
    scene.is_routed(routed).await?;

    // A crash of the one that has it now.
    let fault = Instant::now();
    let name = scene.names[next].clone();
    scene.world.announcer(&name)?.kill()?;
    eventually("another owner", SOON, || async {
        Ok(scene.last_heard(on_lan).filter(|node| *node != next))
    })
    .await
    .with_context(|| format!("{:?} after the crash", fault.elapsed()))?;
    ensure!(scene.bird.knows(routed)? == lead, "{}", scene.bird.log());
    scene.world.start_announcer(next).await?;
    scene.is_routed(routed).await?;
    scene.is_on_lan(on_lan).await?;
    never_together(&scene.world, &scene.wire.so_far(), on_lan, since)?;
    drop(asker);

    // The ConfigMap has it go the other way, and back.
    configure(&scene.world, "layer2: []").await?;
    scene.is_routed(on_lan).await?;
    configure(&scene.world, ON_LAN).await?;
    let owner_now = scene.is_on_lan(on_lan).await?;
    eventually("who has it, and its address, on the Service", 10, || async {
        let service = scene.world.services("lan").get("web").await?;
        let host = service.annotations().get(HOST).cloned();
        let is_told = host.as_ref() == Some(&scene.names[owner_now]);
        Ok((is_told && ingress(&service) == [on_lan]).then_some(()))
    })
    .await?;
    let metrics = |node: usize| {
        scene.world.lab.node(node).exec(["curl", "-s", "http://127.0.0.1:2112/metrics"])
    };
    let untouched = (0..scene.names.len()).find(|node| *node != owner && *node != next);
    let untouched = metrics(untouched.context("a node that nobody has touched")?)?;
    let mut lost = untouched.lines().filter(|line| line.contains("bgp_sessions_lost_total{"));
    ensure!(lost.all(|line| line.ends_with(" 0")), "no session has ended: {untouched}");
    scene.nobody_speaks_to_a_router_as_a_node().await?;
    scene.what_is_nobodys_goes_no_round().await
}
