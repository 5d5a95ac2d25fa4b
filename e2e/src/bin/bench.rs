//! `make bench`: what Berth costs and how fast it is, beside a bare client that sends the same writes.
//!
//! Prints a Markdown report. Figures of one run are comparable with each other, not with another machine's.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::TryStreamExt;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::task::JoinHandle;

use berth_e2e::apiserver_metrics::Requests;
use berth_e2e::bare_client;
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::process::Process;
use berth_e2e::world::{World, annotated, env, eventually, kubectl, repository};

/// How many Services the allocation benchmark creates.
const SERVICES: usize = 1000;
/// How many writes are under way at once, as berth-ccm's default.
const CONCURRENCY: usize = 32;
/// How long the cluster is watched at rest.
const REST: Duration = Duration::from_secs(60);

#[tokio::main]
async fn main() -> Result<()> {
    println!("# Benchmarks\n");
    println!(
        "{}, {} cores. `make bench` prints this.\n",
        jiff::Zoned::now().strftime("%Y-%m-%d"),
        cores()
    );
    starts().await?;
    allocation().await?;
    rest().await
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(0, usize::from)
}

/// Seconds from nothing to a lab.
async fn starts() -> Result<()> {
    println!("## From nothing to a lab of 3 nodes\n");
    println!("| what | seconds |\n|---|---|");
    let start = Instant::now();
    let lab = Lab::up(Spec::bare(3)).await?;
    println!("| bare nodes Ready | {:.1} |", start.elapsed().as_secs_f64());
    lab.down()?;

    let start = Instant::now();
    let lab = Lab::up(Spec::real(3)).await?;
    println!("| real nodes Ready | {:.1} |", start.elapsed().as_secs_f64());
    kubectl(&lab, &["apply", "-k", &repository().join("manifests").display().to_string()])?;
    for object in ["daemonset/berth-announcer", "statefulset/berth-ccm"] {
        kubectl(&lab, &["--namespace=kube-system", "rollout", "status", object, "--timeout=90s"])?;
    }
    println!("| and the pods of `manifests/` Ready | {:.1} |\n", start.elapsed().as_secs_f64());
    lab.down()
}

/// 1,000 Services from one `kubectl create`, and the same writes by the bare client.
async fn allocation() -> Result<()> {
    println!("## {SERVICES} Services from one `kubectl create`, {CONCURRENCY} writes at once\n");

    // The yardstick, on a cluster of its own in the same state.
    let world = World::without_berth(1, env([])).await?;
    create(&world)?;
    let services = world.services("default").list(&created()).await?.items;
    let bare =
        bare_client::allocate(&world.client, &services, Ipv4Addr::new(10, 20, 0, 1), CONCURRENCY)
            .await?;
    world.lab.down()?;

    // berth-ccm starts and finds the thousand waiting.
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.20.0.0/16" })).await?;
    create(&world)?;
    let all = annotations(&world);
    let start = Instant::now();
    world.start_ccm().await?;
    all.await??;
    let backlog = start.elapsed();
    world.lab.down()?;

    println!("| who | seconds | Services a second |\n|---|---|---|");
    for (who, took) in
        [("bare client", bare), ("berth-ccm, from the start of its process", backlog)]
    {
        println!(
            "| {who} | {:.2} | {:.0} |",
            took.as_secs_f64(),
            SERVICES as f64 / took.as_secs_f64()
        );
    }
    println!("\nRatio: {:.2}.\n", backlog.as_secs_f64() / bare.as_secs_f64());

    // berth-ccm leads already when the first one is created.
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.20.0.0/16" })).await?;
    world.start_ccm().await?;
    world.expose("first", json!({})).await?;
    eventually("berth-ccm leads", 30, || async {
        Ok((!annotated(&world.service("first").await?).is_empty()).then_some(()))
    })
    .await?;
    let all = annotations(&world);
    let before = Requests::read(&world.client).await?;
    let start = Instant::now();
    create(&world)?;
    let kubectl = start.elapsed();
    let created = Instant::now();
    all.await??;
    let behind = created.elapsed();
    // Events follow at their own pace.
    let requests = eventually("an Event for each Service", 60, || async {
        let spent = Requests::read(&world.client).await?.since(&before);
        Ok((spent.count("POST", "events") as usize >= SERVICES).then_some(spent))
    })
    .await?;
    println!(
        "While `kubectl create` runs ({:.1} s): the last annotation {:.0} ms after it returned.\n",
        kubectl.as_secs_f64(),
        behind.as_secs_f64() * 1e3
    );
    println!("Requests of all clients in that time, from the API server's own metrics:\n");
    println!("| verb | resource | count |\n|---|---|---|");
    let interesting = ["services", "ipaddresses", "events", "configmaps"];
    for (verb, resource, count) in
        requests.iter().filter(|(_, resource, _)| interesting.contains(resource))
    {
        println!("| {verb} | {resource} | {count} |");
    }
    println!("\nberth-ccm: {:.1} MiB resident afterwards.\n", mebibytes(world.ccm()?)?);
    let claims = world.claims().await?.len();
    ensure!(claims == SERVICES + 1, "{claims} claims for {SERVICES} Services and one");
    world.lab.down()
}

/// One `kubectl create` of all Services.
fn create(world: &World) -> Result<()> {
    let services: Vec<_> = (0..SERVICES)
        .map(|n| {
            json!({
                "apiVersion": "v1",
                "kind": "Service",
                "metadata": { "name": format!("s{n}"), "labels": { "bench": "yes" } },
                "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }], "selector": { "app": "none" } },
            })
        })
        .collect();
    let file = world.lab.dir().join("services.json");
    std::fs::write(
        &file,
        json!({ "apiVersion": "v1", "kind": "List", "items": services }).to_string(),
    )?;
    kubectl(&world.lab, &["create", "-f", &file.display().to_string()]).map(drop)
}

fn created() -> ListParams {
    ListParams::default().labels("bench=yes")
}

/// Ends when every created Service has its annotation.
fn annotations(world: &World) -> JoinHandle<Result<()>> {
    let api = world.services("default");
    tokio::spawn(async move {
        let mut done = BTreeSet::new();
        let config = watcher::Config::default().labels("bench=yes");
        let mut events = pin!(watcher(api, config).applied_objects());
        while done.len() < SERVICES {
            let service = events.try_next().await?.context("the watch ended")?;
            if !annotated(&service).is_empty() {
                done.insert(service.name_any());
            }
        }
        Ok(())
    })
}

fn mebibytes(process: &Process) -> Result<f64> {
    Ok(process.resident_bytes()? as f64 / f64::from(1 << 20))
}

/// What 150 Services on three nodes cost while nothing happens.
async fn rest() -> Result<()> {
    println!("## 150 Services on 3 nodes at rest, by membership\n");
    let world = World::up(3, env([])).await?;
    for n in 0..150 {
        world.expose(&format!("s{n}"), json!({})).await?;
    }
    for n in 0..150 {
        world.published(&format!("s{n}"), 1).await?;
    }
    // Leases of nodes are the kubelets'; all others are ours.
    let before = Requests::read(&world.client).await?;
    tokio::time::sleep(REST).await;
    let spent = Requests::read(&world.client).await?.since(&before);
    println!("| verb | resource | a second |\n|---|---|---|");
    for (verb, resource, count) in spent.iter() {
        println!("| {verb} | {resource} | {:.2} |", count as f64 / REST.as_secs_f64());
    }
    println!("\n| program | MiB resident |\n|---|---|");
    for (node, process) in world.announcers() {
        println!("| berth-announcer on {node} | {:.1} |", mebibytes(process)?);
    }
    println!("| berth-ccm | {:.1} |", mebibytes(world.ccm()?)?);
    world.lab.down()
}
