//! `make bench`: what Berth costs and how fast it is, beside a bare client that sends the same writes.
//!
//! Prints a Markdown report, of the sections that are named (`starts`, `allocation`, `stream`, `expose`, `rest`,
//! `scale`), or of all but `scale`.
//! Figures of one run are comparable with each other, not with another machine's.

mod costs;
mod expose;
mod scale;

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::channel::mpsc::UnboundedSender;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use berth_e2e::apiserver_metrics::{Requests, RequestsOf};
use berth_e2e::audit::Audit;
use berth_e2e::bare_client;
use berth_e2e::lab::{Lab, Spec};
use berth_e2e::world::{Env, World, annotated, by_lease, env, eventually, kubectl, repository};

use costs::{SETTLES, SHORTENS, Used, a_second, by_verb, mebibytes, spent_at_rest, used_at_rest};

/// How many Services the allocation benchmark creates.
const SERVICES: usize = 1000;
/// How many writes are under way at once, as berth-ccm's default.
const CONCURRENCY: usize = 32;
/// How many Services are created one by one.
const STREAM: usize = 5000;
/// How many of them at once.
const CREATORS: usize = 16;

#[tokio::main]
async fn main() -> Result<()> {
    println!("# Benchmarks\n");
    println!(
        "{}, {} cores. `make bench` prints this.\n",
        jiff::Zoned::now().strftime("%Y-%m-%d"),
        cores()
    );
    let named: Vec<String> = std::env::args().skip(1).collect();
    let sections = ["starts", "allocation", "stream", "expose", "rest", "scale"];
    let unknown = named.iter().find(|name| !sections.contains(&name.as_str()));
    ensure!(unknown.is_none(), "no section {unknown:?}: {} are accepted", sections.join(", "));
    for section in sections {
        match section {
            // It asks for more processors than the others, and is run when it is named.
            "scale" if named.is_empty() => {}
            _ if !named.is_empty() && !named.iter().any(|name| name == section) => {}
            "starts" => starts().await?,
            "allocation" => allocation().await?,
            "stream" => stream_of_services().await?,
            "expose" => expose::report().await?,
            "rest" => rest().await?,
            _ => scale::report().await?,
        }
    }
    Ok(())
}

/// A world whose berth-ccm leads already.
async fn led() -> Result<World> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.20.0.0/16" })).await?;
    world.start_ccm().await?;
    world.expose("first", json!({})).await?;
    eventually("berth-ccm leads", 30, || async {
        Ok((!annotated(&world.service("first").await?).is_empty()).then_some(()))
    })
    .await?;
    Ok(world)
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
    let bare = bare(&world, stream::iter(services)).await?;
    world.lab.down()?;

    // berth-ccm starts and finds the thousand waiting.
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.20.0.0/16" })).await?;
    create(&world)?;
    let all = annotations(&world).await?;
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

    let world = led().await?;
    let all = annotations(&world).await?;
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

/// 5,000 Services while who gives addresses out is there already: berth-ccm, and the bare client told of each.
async fn stream_of_services() -> Result<()> {
    println!("## {STREAM} Services, {CREATORS} created at once, {CONCURRENCY} writes at once\n");
    println!("| who | creation, s | last address, s | p50 | p99 |\n|---|---|---|---|---|");

    let world = World::without_berth(1, env([])).await?;
    let audit = Audit::start(world.client.clone()).await;
    let (sender, created) = futures::channel::mpsc::unbounded();
    let (creation, written) = tokio::try_join!(post(&world, Some(sender)), bare(&world, created))?;
    all_seen(&audit).await?;
    row("bare client", creation, written, &audit);
    world.lab.down()?;

    let world = led().await?;
    let audit = Audit::start(world.client.clone()).await;
    let before = Requests::read(&world.client).await?;
    let start = Instant::now();
    let creation = post(&world, None).await?;
    all_seen(&audit).await?;
    row("berth-ccm", creation, start.elapsed(), &audit);
    let spent = eventually("an Event for each Service", 120, || async {
        let spent = Requests::read(&world.client).await?.since(&before);
        Ok((spent.count("POST", "events") as usize >= STREAM).then_some(spent))
    })
    .await?;
    println!("\nRequests of berth-ccm for each Service, from the API server's own metrics:\n");
    println!("| verb | resource | a Service |\n|---|---|---|");
    for (verb, resource, clusters) in
        [("POST", "ipaddresses", STREAM), ("PATCH", "services", 0), ("POST", "events", 0)]
    {
        // The API server makes one for each ClusterIP.
        let count = (spent.count(verb, resource) as usize).saturating_sub(clusters);
        println!("| {verb} | {resource} | {:.3} |", count as f64 / STREAM as f64);
    }
    let claims = world.claims().await?.len();
    ensure!(claims == STREAM + 1, "{claims} claims for {STREAM} Services and one");
    ensure!(audit.findings().duplicates.is_empty(), "{:?}", audit.findings().duplicates);
    println!("\nberth-ccm: {:.1} MiB resident afterwards.\n", mebibytes(world.ccm()?)?);
    world.lab.down()
}

/// Creates Services one by one, [`CREATORS`] at once, and hands each on. Returns how long it took.
async fn post(world: &World, told: Option<UnboundedSender<Service>>) -> Result<Duration> {
    let start = Instant::now();
    let create = stream::iter(0..STREAM).map(|n| world.create(service(n)));
    create
        .buffer_unordered(CREATORS)
        .try_for_each(|made| {
            // Whoever is told counts them itself.
            if let Some(told) = &told {
                let _ = told.unbounded_send(made);
            }
            std::future::ready(Ok(()))
        })
        .await?;
    Ok(start.elapsed())
}

async fn bare(world: &World, services: impl Stream<Item = Service>) -> Result<Duration> {
    let first = Ipv4Addr::new(10, 20, 0, 1);
    bare_client::allocate(&world.client, services, first, CONCURRENCY).await
}

async fn all_seen(audit: &Audit) -> Result<()> {
    let served = || async { Ok((audit.served() >= STREAM).then_some(())) };
    eventually("every Service served", 300, served).await
}

fn row(who: &str, creation: Duration, last: Duration, audit: &Audit) {
    let findings = audit.findings();
    println!(
        "| {who} | {:.1} | {:.1} | {:.0?} | {:.0?} |",
        creation.as_secs_f64(),
        last.as_secs_f64(),
        findings.quantile(0.5),
        findings.quantile(0.99)
    );
}

/// A Service that no pod serves, without a node port: there are only 2,768 of those.
fn service(n: usize) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": format!("s{n}"), "labels": { "bench": "yes" } },
        "spec": {
            "type": "LoadBalancer",
            "ports": [{ "port": 80 }],
            "selector": { "app": "none" },
            "allocateLoadBalancerNodePorts": false,
        },
    })
}

/// One `kubectl create` of all Services.
fn create(world: &World) -> Result<()> {
    let services: Vec<_> = (0..SERVICES).map(service).collect();
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

/// A task that ends when every created Service has its annotation; none has it yet. From here on it asks the API server
/// for one WATCH and nothing else.
async fn annotations(world: &World) -> Result<JoinHandle<Result<()>>> {
    let config = watcher::Config::default().labels("bench=yes");
    let mut events = watcher(world.services("default"), config).boxed();
    let mut listed = false;
    while !listed {
        let event = events.try_next().await?.context("the watch ended")?;
        listed = matches!(event, watcher::Event::InitDone);
    }
    Ok(tokio::spawn(async move {
        let mut done = BTreeSet::new();
        let mut events = pin!(events.applied_objects());
        while done.len() < SERVICES {
            let service = events.try_next().await?.context("the watch ended")?;
            if !annotated(&service).is_empty() {
                done.insert(service.name_any());
            }
        }
        Ok(())
    }))
}

/// What 150 Services on three nodes cost while nothing happens, by membership and where one Lease decides.
async fn rest() -> Result<()> {
    at_rest("by membership", env([]), SHORTENS).await?;
    at_rest("by one Lease", by_lease(), SETTLES).await
}

async fn at_rest(how: &str, environment: Env, settles: Duration) -> Result<()> {
    println!("## 150 Services on 3 nodes at rest, {how}\n");
    let world = World::up(3, environment).await?;
    for n in 0..150 {
        world.expose(&format!("s{n}"), json!({})).await?;
    }
    let counted = [
        RequestsOf::account(&world.client, "berth-announcer").await?,
        RequestsOf::account(&world.client, "berth-ccm").await?,
    ];
    for n in 0..150 {
        world.published(&format!("s{n}"), 1).await?;
    }
    tokio::time::sleep(settles).await;
    let before = Used::by_each(&world)?;
    let (spent, [announcers, ccm]) = spent_at_rest(&world, counted).await?;
    let after = Used::by_each(&world)?;
    by_verb(&spent);
    used_at_rest(&world, &before, &after)?;
    println!("\n| requests of | a second |\n|---|---|");
    println!("| all clients | {:.2} |", a_second(spent.total()));
    println!("| each announcer | {:.2} |", a_second(announcers) / 3.0);
    println!("| berth-ccm | {:.2} |", a_second(ccm));
    println!("\n| program | MiB resident |\n|---|---|");
    for (node, process) in world.announcers() {
        println!("| berth-announcer on {node} | {:.1} |", mebibytes(process)?);
    }
    println!("| berth-ccm | {:.1} |\n", mebibytes(world.ccm()?)?);
    world.lab.down()
}
