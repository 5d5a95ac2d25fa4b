//! Which of the nodes that could have an address gets it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::fault::Leftovers;
use berth_e2e::membership::{expired, is_settled};
use berth_e2e::pauses;
use serde_json::{Value, json};

use berth_e2e::world::{World, env, eventually};

use crate::scene::TAKEOVER;

const NODES: usize = 3;

/// A Service like `hello`, with an annotation that names nodes.
fn preferring(name: &str, nodes: &str) -> Value {
    json!({
        "metadata": { "name": name, "annotations": { "berth.dev/preferred-nodes": nodes } },
        "spec": {
            "type": "LoadBalancer",
            "selector": { "app": "hello" },
            "ports": [{ "port": 80, "targetPort": 8080 }],
        },
    })
}

/// Waits until `address` is on `node` and nowhere else; on another alone, where that one lost a lease in a pause of the
/// machine.
async fn is_on(world: &World, address: IpAddr, node: &str, since: Instant) -> Result<()> {
    let what = format!("{address} on {node} alone");
    eventually(&what, 15, || async {
        let holders = world.holders(address)?;
        let is_alone = holders == [node] || holders.len() == 1 && lost(world, node, since)? > 0;
        Ok(is_alone.then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

/// How many leases of a node have run out since `since`, if the machine stood still meanwhile; otherwise none may.
fn lost(world: &World, node: &str, since: Instant) -> Result<u64> {
    let paused = pauses::so_far().excuse(since, Instant::now());
    if paused { expired(world, world.index_of(node)?) } else { Ok(0) }
}

async fn settled(world: &World, nodes: usize) -> Result<()> {
    let all = || async { Ok(is_settled(world, nodes).await?.then_some(())) };
    eventually("all nodes take part", 30, all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn preferred_nodes_get_what_is_new_and_what_was_lost_and_take_nothing_back() -> Result<()> {
    let mut world = World::up(NODES, env([])).await?;
    let start = Instant::now();
    settled(&world, NODES).await?;
    let names: Vec<String> = (0..NODES).map(|i| world.lab.node(i).name().to_owned()).collect();
    for (i, node) in names.iter().enumerate() {
        let by_name = format!("by-name-{i}");
        world.create(preferring(&by_name, node)).await?;
        let by_label = format!("by-label-{i}");
        world.create(preferring(&by_label, &format!("kubernetes.io/hostname={node}"))).await?;
        for name in [by_name, by_label] {
            let address = world.published(&name, 1).await?[0];
            is_on(&world, address, node, start).await?;
            let host = world.host(&name).await?;
            let is_there = host == *node || lost(&world, node, start)? > 0;
            ensure!(is_there, "{name}: {host} by its annotation, not {node}");
        }
    }

    // The second choice is a preferred node too, and the first takes nothing back.
    world.create(preferring("both", &format!("{},{}", names[0], names[1]))).await?;
    let address = world.published("both", 1).await?[0];
    let first = world.host("both").await?;
    let second = names[..2].iter().find(|name| **name != first).expect("there are two");
    ensure!(names[..2].contains(&first), "{first} was not asked for");
    let lost = world.index_of(&first)?;
    let crashed = Instant::now();
    world.lab.crash(lost)?;
    is_on_survivor(&world, address, second).await?;
    // A first packet that came too early is sent again after a second.
    let took = crashed.elapsed();
    pauses::within("taken over after", took, TAKEOVER + Duration::from_secs(1), crashed)?;
    world.lab.reboot(lost, Leftovers::Flush)?;
    world.start_announcer(lost).await?;
    settled(&world, NODES).await?;
    is_on(&world, address, second, start).await?;

    // A preference that nobody can meet is none, and one that cannot be read is told.
    world.create(preferring("nobody", "gone, rack=7, a=b=c")).await?;
    world.published("nobody", 1).await?;
    eventually("an Event", 10, || async {
        let events = berth_e2e::world::kubectl(
            &world.lab,
            &["get", "events", "--field-selector=reason=InvalidPreference", "-o", "wide"],
        )?;
        Ok(events.contains("a=b=c").then_some(()))
    })
    .await?;
    world.lab.down()
}

/// As [`is_on`], while another node is down: what that one holds is not looked at.
async fn is_on_survivor(world: &World, address: IpAddr, node: &str) -> Result<()> {
    let place = world.index_of(node)?;
    eventually(&format!("{address} on {node}"), 15, || async {
        let held = berth_e2e::world::addresses_of(world.lab.node(place))?;
        Ok((held.contains(&address) && world.curl(address).is_ok()).then_some(()))
    })
    .await
    .with_context(|| world.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_spread_over_the_nodes() -> Result<()> {
    let world = World::up(NODES, env([])).await?;
    let start = Instant::now();
    settled(&world, NODES).await?;
    const SERVICES: usize = 60;
    for i in 0..SERVICES {
        world.expose(&format!("web-{i}"), json!({})).await?;
    }
    let mut load: BTreeMap<String, usize> = BTreeMap::new();
    for i in 0..SERVICES {
        world.published(&format!("web-{i}"), 1).await?;
        *load.entry(world.host(&format!("web-{i}")).await?).or_default() += 1;
    }
    println!("{SERVICES} Services: {load:?}");
    // Names are hashed: 20 each on average; by chance none has fewer than 6 of 60 but once in 100,000 times.
    for (node, count) in &load {
        let count = *count as u64 + lost(&world, node, start)?;
        ensure!(count >= 6 && load.len() == NODES, "{load:?}\n{}", world.logs());
    }
    world.lab.down()
}
