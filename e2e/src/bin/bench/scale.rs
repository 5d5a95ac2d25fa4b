//! What 2,000 addresses cost three nodes by membership: at rest, at the start, and when a node crashes.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::addresses::{Net, mac, node_host};
use berth_e2e::apiserver_metrics::RequestsOf;
use berth_e2e::membership::is_settled;
use berth_e2e::wire::Watch;
use berth_e2e::world::{World, env, eventually, ingress, kubectl};
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::costs::{SETTLES, a_second, by_verb, mebibytes, spent_at_rest};

const NODES: usize = 3;
const FEW: usize = 10;
const MANY: usize = 2_000;

/// How long the start of all, or the successor of one, may take.
const LIMIT: u64 = 120;

/// Room for all of them, on the lab's LAN.
const POOL: &str = "10.0.64.1-10.0.95.254";

pub(super) async fn report() -> Result<()> {
    println!("## {MANY} Services on {NODES} nodes, by membership\n");
    let mut world = World::up(NODES, env([])).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    let counted = RequestsOf::account(&world.client, "berth-announcer").await?;
    let mut rows = Vec::new();
    let mut had = 0;
    for count in [FEW, MANY] {
        create(&world, had..count)?;
        had = count;
        published(&world, count).await?;
        tokio::time::sleep(SETTLES).await;
        let (all, [announcers]) = spent_at_rest(&world, [counted]).await?;
        println!("{count} Services at rest, all clients:\n");
        by_verb(&all);
        println!();
        if announcers > 0 {
            eprintln!("{}", world.logs());
        }
        rows.push((count, a_second(all.total()), a_second(announcers), resident(&world)?));
    }
    let names: Vec<String> = world.announcers().map(|(node, _)| node.to_owned()).collect();
    for name in &names {
        world.announcer(name)?.terminate(Duration::from_secs(30))?;
    }
    println!(
        "| Services | requests a second at rest, all clients | of each announcer | largest announcer, MiB resident |"
    );
    println!("|---|---|---|---|");
    for (count, all, announcers, resident) in &rows {
        let each = announcers / NODES as f64;
        println!("| {count} | {all:.2} | {each:.2} | {resident:.1} |");
    }
    println!();

    let addresses = published(&world, MANY).await?;
    let wire = world.lab.watch()?;
    let start = Instant::now();
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    let spoken = until(&wire, &addresses, start, None).await?;
    println!("| event | first address, s | half of them, s | all, s |\n|---|---|---|---|");
    row(&format!("{NODES} announcers start, {MANY} addresses"), &spoken);

    settled(&world).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let mut owners = owners(&wire);
    owners.retain(|address, _| addresses.contains(address));
    let of_first: BTreeSet<IpAddr> =
        owners.iter().filter(|(_, node)| **node == 0).map(|(address, _)| *address).collect();
    let start = Instant::now();
    world.lab.crash(0)?;
    let spoken = until(&wire, &of_first, start, Some(0)).await?;
    row(&format!("a node with {} of them crashes", of_first.len()), &spoken);
    println!("\nLargest announcer afterwards: {:.1} MiB resident.\n", resident(&world)?);
    wire.finish()?;
    world.lab.down()
}

/// One `kubectl create` of Services, all with the same pods.
fn create(world: &World, numbers: std::ops::Range<usize>) -> Result<()> {
    let service = |n: usize| -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": { "name": format!("s{n}") },
            "spec": {
                "type": "LoadBalancer",
                "selector": { "app": "hello" },
                "ports": [{ "port": 80, "targetPort": 8080 }],
                "allocateLoadBalancerNodePorts": false,
            },
        })
    };
    let items: Vec<Value> = numbers.map(service).collect();
    let file = world.lab.dir().join("scale.json");
    std::fs::write(
        &file,
        json!({ "apiVersion": "v1", "kind": "List", "items": items }).to_string(),
    )?;
    kubectl(&world.lab, &["create", "-f", &file.display().to_string()]).map(drop)
}

/// Waits until so many Services have an address in their status.
async fn published(world: &World, count: usize) -> Result<BTreeSet<IpAddr>> {
    let start = Instant::now();
    loop {
        let services = world.services("default").list(&ListParams::default()).await?;
        let addresses: BTreeSet<IpAddr> = services.iter().flat_map(ingress).collect();
        if addresses.len() >= count {
            return Ok(addresses);
        }
        let late = start.elapsed() > Duration::from_secs(300);
        anyhow::ensure!(!late, "{} of {count} published", addresses.len());
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn resident(world: &World) -> Result<f64> {
    let alive = world.announcers().filter(|(_, process)| process.is_alive());
    let each = alive.map(|(_, process)| mebibytes(process)).collect::<Result<Vec<_>>>()?;
    each.into_iter().reduce(f64::max).context("no announcer runs")
}

/// Waits until somebody but `not` has spoken for each address since `since`, and gives when, in order.
async fn until(
    wire: &Watch,
    addresses: &BTreeSet<IpAddr>,
    since: Instant,
    not: Option<usize>,
) -> Result<Vec<Duration>> {
    let not = not.map(|node| mac(Net::Lan, node_host(node)));
    let limit = Duration::from_secs(LIMIT);
    loop {
        let mut firsts: BTreeMap<IpAddr, Duration> = BTreeMap::new();
        for seen in wire.so_far().0 {
            if seen.at >= since && Some(seen.mac) != not && addresses.contains(&seen.address) {
                firsts.entry(seen.address).or_insert(seen.at - since);
            }
        }
        if firsts.len() == addresses.len() {
            let mut times: Vec<Duration> = firsts.into_values().collect();
            times.sort();
            return Ok(times);
        }
        anyhow::ensure!(since.elapsed() < limit, "{} of {}", firsts.len(), addresses.len());
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Who spoke for each address last.
fn owners(wire: &Watch) -> BTreeMap<IpAddr, usize> {
    let node = |of| (0..NODES).find(|node| mac(Net::Lan, node_host(*node)) == of);
    let seen = wire.so_far().0.into_iter();
    seen.filter_map(|seen| Some((seen.address, node(seen.mac)?))).collect()
}

async fn settled(world: &World) -> Result<()> {
    let all = || async { Ok(is_settled(world, NODES).await?.then_some(())) };
    eventually("all nodes take part", LIMIT, all).await
}

fn row(event: &str, times: &[Duration]) {
    let at = |of: Option<&Duration>| of.map_or(0.0, Duration::as_secs_f64);
    println!(
        "| {event} | {:.2} | {:.2} | {:.2} |",
        at(times.first()),
        at(times.get(times.len() / 2)),
        at(times.last())
    );
}
