//! Which of the nodes that could have an address gets it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::{Context, Result, ensure};
use berth_e2e::fault::Leftovers;
use berth_e2e::membership::is_settled;
use berth_e2e::pauses::{Unsteady, undisturbed};
use serde_json::{Value, json};

use berth_e2e::world::{World, env, eventually};

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

/// Waits until `address` is on `node` and nowhere else.
async fn is_on(world: &World, address: IpAddr, node: &str) -> Result<()> {
    eventually(&format!("{address} on {node} alone"), 15, || async {
        Ok((world.holders(address)? == [node]).then_some(()))
    })
    .await
    .with_context(|| Unsteady(format!("{address} is elsewhere")))
}

async fn settled(world: &World, nodes: usize) -> Result<()> {
    let all = || async { Ok(is_settled(world, nodes).await?.then_some(())) };
    eventually("all nodes take part", 30, all).await
}

#[tokio::test(flavor = "multi_thread")]
async fn preferred_nodes_get_what_is_new_and_what_was_lost_and_take_nothing_back() -> Result<()> {
    undisturbed(async || {
        let mut world = World::up(NODES, env([])).await?;
        settled(&world, NODES).await?;
        let names: Vec<String> = (0..NODES).map(|i| world.lab.node(i).name().to_owned()).collect();
        for (i, node) in names.iter().enumerate() {
            let by_name = format!("by-name-{i}");
            world.create(preferring(&by_name, node)).await?;
            let by_label = format!("by-label-{i}");
            world.create(preferring(&by_label, &format!("kubernetes.io/hostname={node}"))).await?;
            for name in [by_name, by_label] {
                let address = world.published(&name, 1).await?[0];
                is_on(&world, address, node).await?;
                ensure!(world.host(&name).await? == *node, "{name}: not {node} by its annotation");
            }
        }

        // The second choice is a preferred node too, and the first takes nothing back.
        world.create(preferring("both", &format!("{},{}", names[0], names[1]))).await?;
        let address = world.published("both", 1).await?[0];
        let first = world.host("both").await?;
        let second = names[..2].iter().find(|name| **name != first).expect("there are two");
        ensure!(names[..2].contains(&first), "{first} was not asked for");
        let lost = world.index_of(&first)?;
        world.lab.crash(lost)?;
        is_on_survivor(&world, address, second).await?;
        world.lab.reboot(lost, Leftovers::Flush)?;
        world.start_announcer(lost).await?;
        settled(&world, NODES).await?;
        is_on(&world, address, second).await?;

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
    })
    .await
}

/// As [`is_on`], while another node is down: what that one holds is not looked at.
async fn is_on_survivor(world: &World, address: IpAddr, node: &str) -> Result<()> {
    let place = world.index_of(node)?;
    eventually(&format!("{address} on {node}"), 15, || async {
        let held = berth_e2e::world::addresses_of(world.lab.node(place))?;
        Ok((held.contains(&address) && world.curl(address).is_ok()).then_some(()))
    })
    .await
    .with_context(|| Unsteady(format!("{address} is elsewhere")))
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_are_spread_over_the_nodes() -> Result<()> {
    undisturbed(async || {
        let world = World::up(NODES, env([])).await?;
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
        let spread = load.len() == NODES && load.values().all(|n| *n >= 6);
        ensure!(spread, Unsteady(format!("{load:?}")));
        world.lab.down()
    })
    .await
}
