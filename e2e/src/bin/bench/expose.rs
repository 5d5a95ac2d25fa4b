//! How long a Service waits, from its creation until its status has an address: allocated, claimed, owned, asked for on
//! the LAN, bound and announced.

use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::membership::is_settled;
use berth_e2e::world::{POOL, World, env, eventually, ingress};
use futures::TryStreamExt;
use kube::ResourceExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

const NODES: usize = 3;
/// How many Services wait, one after the other.
const SERVICES: usize = 90;

pub(super) async fn report() -> Result<()> {
    println!("## From a Service to its address, {SERVICES} one after the other, {NODES} nodes\n");
    let mut world = World::without_berth(NODES, env([])).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_ccm().await?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    world.deploy("default", "hello", 2)?;
    world.expose("hello", json!({})).await?;
    world.published("hello", 1).await?;
    eventually("all nodes take part", 30, || async {
        Ok(is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;

    let services = watcher(world.services("default"), watcher::Config::default());
    let mut shown = pin!(services.default_backoff().applied_objects());
    let mut waits: Vec<Duration> = Vec::new();
    for n in 0..SERVICES {
        let (name, begun) = (format!("s{n}"), Instant::now());
        world.expose(&name, json!({})).await?;
        loop {
            let service = shown.try_next().await?.context("the watch has ended")?;
            if service.name_any() == name && !ingress(&service).is_empty() {
                break;
            }
        }
        waits.push(begun.elapsed());
    }
    waits.sort();
    let at =
        |part: usize| waits[(waits.len() * part / 100).min(waits.len() - 1)].as_secs_f64() * 1e3;
    println!("| median, ms | 10 % | 90 % | longest |\n|---|---|---|---|");
    println!("| {:.1} | {:.1} | {:.1} | {:.1} |\n", at(50), at(10), at(90), at(100));
    world.lab.down()
}
