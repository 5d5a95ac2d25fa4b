//! Addresses that move on purpose, and links that flap. Judged by clients that connect every 10 ms, by clients that hold
//! one connection, and by every frame on the LAN that claims an address.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::pauses;
use berth_e2e::probe::{Failure, Manner, Probe, Report};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, Patch, PatchParams};
use serde_json::{Value, json};

use berth_e2e::world::{Env, env};

use crate::scene::{CLIENT, PATIENCE, Scene, TAKEOVER};

/// A node's link goes down and comes back, 20 times a minute.
const HALF_A_FLAP: Duration = Duration::from_millis(1500);

/// An address that nobody had any more is answered for within this time from when somebody may: no majority is there to
/// ask, and each link is new.
const ANEW: Duration = Duration::from_secs(3);

/// What empties a node where `berth_drain_taints` lists it.
const TAINT: &str = "berth.example/upkeep";

/// At most one move in this time.
const STEADY: Duration = Duration::from_secs(10);

/// As `manifests/` have it.
fn closed() -> Env {
    env([("enable_service_security", "true")])
}

fn reports(probes: Vec<Probe>) -> Result<Vec<Report>> {
    probes.into_iter().map(Probe::finish).collect()
}

fn longest(reports: &[Report]) -> Duration {
    reports.iter().map(|report| report.longest_gap).max().unwrap_or_default()
}

fn failures(reports: &[Report], failure: Failure) -> usize {
    reports.iter().map(|report| report.count(failure)).sum()
}

/// No client was reset or refused, or waited for longer than a lost packet takes.
fn none_is_reset(what: &str, reports: &[Report], scene: &Scene) -> Result<()> {
    let late = [Failure::Timeout, Failure::Unanswered, Failure::Other];
    let late: usize = late.map(|failure| failures(reports, failure)).iter().sum();
    let answers: usize = reports.iter().map(|report| report.ok).sum();
    println!("{what}: longest gap {:.0?}, {answers} answers, {late} late", longest(reports));
    let broken = failures(reports, Failure::Reset) + failures(reports, Failure::Refused);
    let told: Vec<_> = reports.iter().map(|report| &report.failed).collect();
    ensure!(broken == 0, "{what}: {broken} connections broken: {told:?}\n{}", scene.world.logs());
    let within = reports.iter().try_for_each(|report| report.answered_within(CLIENT));
    within.with_context(|| format!("{what}\n{}", scene.world.logs()))
}

/// The same for clients that hold a connection, which went on.
fn none_is_broken(what: &str, reports: &[Report], scene: &Scene) -> Result<()> {
    none_is_reset(what, reports, scene)?;
    let late: Vec<_> = reports.iter().flat_map(|report| &report.failed).collect();
    ensure!(late.is_empty(), "{what}: given up: {late:?}\n{}", scene.world.logs());
    let went_on = reports.iter().all(|report| report.answers.len() == 1);
    ensure!(went_on, "another pod answered on the same connection: {reports:?}");
    Ok(())
}

/// A way to tell of a node that it should have no traffic: what to patch, what takes it back, and whether that moves what it
/// has. To be cordoned does not (kubernetes#90823).
fn ways() -> [(&'static str, Value, Value, bool); 4] {
    let label = "node.kubernetes.io/exclude-from-external-load-balancers";
    let note = "berth.dev/drain";
    let cordon = |on: bool| json!({ "spec": { "unschedulable": on } });
    let labelled = |value: Value| json!({ "metadata": { "labels": { label: value } } });
    let noted = |value: Value| json!({ "metadata": { "annotations": { note: value } } });
    let tainted = |taints: Value| json!({ "spec": { "taints": taints } });
    let taint = json!([{ "key": TAINT, "effect": "NoSchedule" }]);
    [
        ("cordoned", cordon(true), cordon(false), false),
        ("labelled", labelled(json!("")), labelled(Value::Null), true),
        ("annotated", noted(json!("true")), noted(Value::Null), true),
        ("tainted", tainted(taint), tainted(Value::Null), true),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emptied_node_hands_over_no_client_is_reset_and_nothing_moves_back() -> Result<()> {
    let environment = env([("enable_service_security", "true"), ("berth_drain_taints", TAINT)]);
    let scene = Scene::up(3, environment).await?;
    let nodes: Api<Node> = Api::all(scene.world.client.clone());
    for (way, empty, fill, moves) in ways() {
        let owner = scene.owner()?;
        let name = scene.world.lab.node(owner).name().to_owned();
        let callers = scene.clients(Manner::NewConnections).await?;
        let talkers = scene.clients(Manner::OneConnection).await?;
        let start = Instant::now();
        let held = scene.held()?;
        nodes.patch(&name, &PatchParams::default(), &Patch::Merge(empty)).await?;
        let held = match moves {
            true => scene.succeeded(way, owner, start, CLIENT).await?,
            false => held,
        };
        tokio::time::sleep(PATIENCE).await;
        let (callers, talkers) = (reports(callers)?, reports(talkers)?);
        scene.none_spoke_again(start)?;
        scene.moved_times(usize::from(moves), start)?;
        none_is_reset(&format!("{way}, a new connection each 10 ms"), &callers, &scene)?;
        none_is_broken(&format!("{way}, one connection"), &talkers, &scene)?;

        let back = Instant::now();
        nodes.patch(&name, &PatchParams::default(), &Patch::Merge(fill)).await?;
        tokio::time::sleep(PATIENCE).await;
        scene.bound_only_on(&held).await?;
        scene.moved_times(0, back)?;
    }
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn announcers_replaced_node_by_node_reset_no_client_and_leave_nothing() -> Result<()> {
    let mut scene = Scene::up(3, closed()).await?;
    let start = Instant::now();
    let callers = scene.clients(Manner::NewConnections).await?;
    // The owner first: what it hands over moves once more with its next one, if that is replaced later.
    let owner = scene.owner()?;
    for node in [owner].into_iter().chain((0..3).filter(|node| *node != owner)) {
        let each = Instant::now();
        let name = scene.world.lab.node(node).name().to_owned();
        // Each move leads back one step, to the owner before: a connection survives one of them (docs/failover.md).
        let talkers = scene.clients(Manner::OneConnection).await?;
        scene.world.announcer(&name)?.terminate(Duration::from_secs(20))?;
        let place = scene.world.lab.node(node).place()?;
        let tables = place.exec(["nft", "list", "tables"])?;
        ensure!(!tables.contains("berth"), "left on {name}: {tables}");
        let filters = place.exec(["tc", "filter", "show", "dev", "eth0", "egress"])?;
        ensure!(!filters.contains("berth"), "left on {name}: {filters}");
        scene.world.start_announcer(node).await?;
        scene.settled().await?;
        scene.moved_at_most(1, each)?;
        scene.none_spoke_again(each)?;
        let talkers = reports(talkers)?;
        none_is_broken(&format!("{name} replaced, one connection"), &talkers, &scene)?;
    }
    let callers = reports(callers)?;
    println!("{} moves while three announcers were replaced", scene.moves(start));
    none_is_reset("replaced in turn, a new connection each 10 ms", &callers, &scene)?;
    scene.bound_only_on(&scene.held()?).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_goes_down_is_replaced_and_takes_nothing_back() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    scene.world.lab.unplug(owner, Net::Lan)?;
    let held = scene.replaced("link down", owner, start).await?;
    scene.world.lab.plug(owner, Net::Lan)?;
    scene.stays_with(&held, start).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_that_flaps_moves_its_addresses_once_in_ten_seconds_at_most() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    while start.elapsed() < STEADY * 2 {
        scene.world.lab.unplug(owner, Net::Lan)?;
        tokio::time::sleep(HALF_A_FLAP).await;
        scene.world.lab.plug(owner, Net::Lan)?;
        tokio::time::sleep(HALF_A_FLAP).await;
    }
    scene.settled().await?;
    tokio::time::sleep(PATIENCE).await;
    let flapped = start.elapsed();
    let silent = scene.spoken_within(TAKEOVER, start)?;
    let moves = scene.moves(start);
    println!("a link that flaps for {flapped:.0?}: {moves} moves, silent for {silent:.0?} at most");
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    scene.moved_at_most((flapped.as_secs() / STEADY.as_secs()) as usize, start)?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn all_links_that_flap_at_once_cost_no_wait_for_steadiness() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let start = Instant::now();
    for link in 0..scene.nodes {
        scene.world.lab.unplug(link, Net::Lan)?;
    }
    tokio::time::sleep(HALF_A_FLAP).await;
    for link in 0..scene.nodes {
        scene.world.lab.plug(link, Net::Lan)?;
    }
    let back = Instant::now();
    let took = scene.spoken_for(back, 10).await?;
    pauses::within("all links down: answered for after they were back", took, ANEW, back)
        .with_context(|| scene.world.logs())?;
    scene.settled().await?;
    tokio::time::sleep(PATIENCE).await;
    // What came apart is brought together again by a handover.
    scene.never_together(start)?;
    scene.down()
}
