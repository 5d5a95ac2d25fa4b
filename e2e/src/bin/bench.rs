//! `make bench`: what Berth costs and how fast it is, beside a bare client that sends the same writes.
//!
//! Prints a Markdown report. Figures of one run are comparable with each other, not with another machine's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::apiserver_metrics::Requests;
use berth_e2e::bare_client;
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::world::{World, annotated, env, eventually, kubectl, repository};
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};
use serde_json::json;

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
    println!("| who | when | seconds | Services a second |\n|---|---|---|---|");
    let row = |who: &str, when: &str, took: Duration| {
        let rate = SERVICES as f64 / took.as_secs_f64();
        println!("| {who} | {when} | {:.2} | {rate:.0} |", took.as_secs_f64());
    };

    // The yardstick, on a cluster of its own in the same state.
    let world = World::without_berth(1, env([])).await?;
    create_services(&world)?;
    let services = world.services("default").list(&labelled()).await?.items;
    let first = Ipv4Addr::new(10, 20, 0, 1);
    let bare = bare_client::allocate(&world.client, &services, first, CONCURRENCY).await?;
    row("bare client", "all Services were there", bare);
    world.lab.down()?;

    // berth-ccm finds the same thousand waiting.
    let mut world = World::without_berth(1, env([])).await?;
    create_services(&world)?;
    world.start_ccm().await?;
    let starting = world.client.clone();
    eventually("berth-ccm started", 20, || async {
        Ok(first_annotated(&starting).await?.then_some(()))
    })
    .await?;
    world.ccm()?.kill()?;
    world.pools(json!({})).await?;
    world.lab.down()?;

    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({})).await?;
    world.start_ccm().await?;
    create_services(&world)?;
    // Everything waits for a pool: the edit that makes one starts the clock.
    let waiting = watch_annotations(&world).await?;
    let before = Requests::read(&world.client).await?;
    let start = Instant::now();
    world.pools(json!({ "cidr-global": "10.20.0.0/16" })).await?;
    waiting.await??;
    let backlog = start.elapsed();
    let spent = Requests::read(&world.client).await?.since(&before);
    row("berth-ccm", "all Services were there", backlog);
    println!("\nRatio to the bare client: {:.2}.\n", backlog.as_secs_f64() / bare.as_secs_f64());
    report_requests(&spent);
    println!("berth-ccm: {} MiB resident afterwards.\n", world.ccm()?.resident_bytes()? >> 20);
    world.lab.down()?;

    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.20.0.0/16" })).await?;
    world.start_ccm().await?;
    eventually("berth-ccm leading", 20, || async { Ok(leads(&world).await?.then_some(())) })
        .await?;
    let waiting = watch_annotations(&world).await?;
    let before = Requests::read(&world.client).await?;
    create_services(&world)?;
    let created = Instant::now();
    waiting.await??;
    let behind = created.elapsed();
    let spent = Requests::read(&world.client).await?.since(&before);
    println!(
        "While `kubectl create` runs: last annotation {:.0} ms after it returned.\n",
        behind.as_secs_f64() * 1e3
    );
    report_requests(&spent);
    let claims = world.claims().await?.len();
    ensure!(claims == SERVICES, "{claims} claims for {SERVICES} Services");
    world.lab.down()
}

/// What 150 Services on three nodes cost while nothing happens.
async fn rest() -> Result<()> {
    println!("## 150 Services on 3 nodes at rest, `svc_election=false`\n");
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
        println!(
            "| berth-announcer on {node} | {:.1} |",
            process.resident_bytes()? as f64 / 1048576.0
        );
    }
    println!("| berth-ccm | {:.1} |", world.ccm()?.resident_bytes()? as f64 / 1048576.0);
    world.lab.down()
}
