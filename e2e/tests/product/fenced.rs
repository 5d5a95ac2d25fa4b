//! Owners by fenced membership that crash, freeze, or lose a network. Judged by every frame on the LAN that claims an
//! address, and by the client's connections: one machine at a time, always.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::apiserver_metrics::RequestsOf;
use berth_e2e::control_plane::Part;
use berth_e2e::fault::Leftovers;
use berth_e2e::pauses;
use berth_e2e::probe::Failure;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;

use crate::is_soak;
use crate::scene::{ASK, BY_LEASE, CLIENT, PATIENCE, Scene, TAKEOVER, disputed};
use berth_e2e::world::{Env, World, by_lease, env, eventually};

/// Ten owners in turn lose their power and come back.
async fn crashes(nodes: usize) -> Result<()> {
    let mut scene = Scene::up(nodes, env([])).await?;
    let mut took = Vec::new();
    for _ in 0..10 {
        let owner = scene.owner()?;
        let start = Instant::now();
        scene.world.lab.crash(owner)?;
        let held = scene.replaced("crashed", owner, start).await?;
        took.push(scene.silence(owner, start)?);
        scene.world.lab.reboot(owner, Leftovers::Flush)?;
        scene.world.start_announcer(owner).await?;
        scene.settled().await?;
        scene.bound_only_on(&held).await?;
        scene.one_at_a_time(&scene.wire.so_far(), start)?;
    }
    took.sort();
    println!(
        "{nodes} nodes, 10 crashes: silent for {:.0?} in the median, {:.0?} at most",
        took[5], took[9]
    );
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_three_nodes_the_owner_crashes_and_another_takes_over() -> Result<()> {
    crashes(3).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_nodes_the_owner_crashes_and_another_takes_over() -> Result<()> {
    crashes(5).await
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_the_survivor_asks_the_cluster_and_takes_over() -> Result<()> {
    crashes(2).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_cut_from_the_lan_is_replaced_and_stays_silent_when_it_is_back()
-> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    scene.world.lab.cut(owner, Net::Lan)?;
    let held = scene.replaced("cut from the LAN", owner, start).await?;
    scene.bound_only_on(&held).await?;
    scene.world.lab.heal(owner, Net::Lan)?;
    scene.stays_with(&held, start).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_cut_from_the_api_goes_on() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (held, start) = (scene.held()?, Instant::now());
    let owner = held.owner;
    let probe = scene.probe()?;
    scene.world.lab.cut(owner, Net::Api)?;
    tokio::time::sleep(Duration::from_secs(if is_soak() { 600 } else { 12 })).await;
    scene.world.lab.heal(owner, Net::Api)?;
    tokio::time::sleep(PATIENCE).await;
    let report = probe.finish()?;
    println!("cut from the API: longest gap {:.0?}, {} answers", report.longest_gap, report.ok);
    report
        .answered_within(CLIENT)
        .context("nothing is lost")
        .with_context(|| scene.world.logs())?;
    let broken = report.count(Failure::Reset) + report.count(Failure::Refused);
    ensure!(broken == 0, "{:?}", report.failed);
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    scene.kept_by(&held)?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn without_an_api_server_an_owner_that_crashes_is_replaced() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    scene.world.lab.kill_part(Part::ApiServer)?;
    tokio::time::sleep(PATIENCE).await;
    let (owner, start) = (scene.owner()?, Instant::now());
    scene.world.lab.crash(owner)?;
    let held = scene.replaced("without an API server", owner, start).await?;
    scene.world.lab.start_part(Part::ApiServer)?;
    scene.world.lab.until_api_ready().await?;
    eventually("the new owner in the annotation", 30, || async {
        let successor = scene.world.lab.node(scene.kept_by(&held)?).name();
        Ok((scene.world.host("web").await? == successor).then_some(()))
    })
    .await
    .with_context(|| scene.world.logs())?;
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    scene.down()
}

/// An owner is stopped for twelve seconds and goes on.
async fn frozen(
    freeze: impl AsyncFnOnce(&Scene, usize) -> Result<()>,
    thaw: impl AsyncFnOnce(&Scene, usize) -> Result<()>,
    what: &str,
    environment: Env,
) -> Result<()> {
    let fence = environment.get("berth_fence").cloned().unwrap_or("bpf".to_owned());
    let scene = Scene::up(3, environment).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    let metric = format!("berth_announcer_fence{{kind=\"{fence}\"}} 1\n");
    ensure!(scene.metrics(owner)?.contains(&metric), "no {fence} fence\n{}", scene.world.logs());
    freeze(&scene, owner).await?;
    let held = scene.replaced(what, owner, start).await?;
    tokio::time::sleep(Duration::from_secs(12).saturating_sub(start.elapsed())).await;
    thaw(&scene, owner).await?;
    scene.stays_with(&held, start).await?;
    scene.down()
}

async fn stop(scene: &Scene, owner: usize) -> Result<()> {
    scene.world.announcer(scene.world.lab.node(owner).name())?.freeze()
}

async fn go_on(scene: &Scene, owner: usize) -> Result<()> {
    scene.world.announcer(scene.world.lab.node(owner).name())?.thaw()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_announcer_answers_no_more_and_takes_nothing_back() -> Result<()> {
    frozen(stop, go_on, "announcer stopped", env([])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_node_answers_no_more_and_takes_nothing_back() -> Result<()> {
    let freeze = async |scene: &Scene, owner: usize| scene.world.lab.freeze(owner);
    let thaw = async |scene: &Scene, owner: usize| scene.world.lab.thaw(owner);
    frozen(freeze, thaw, "node frozen", env([])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_weaker_fence_a_stopped_announcer_answers_no_more_either() -> Result<()> {
    frozen(stop, go_on, "announcer stopped, nft-timeout", env([("berth_fence", "nft-timeout")]))
        .await
}

/// The oracle of the tests above sees two answering where there are two.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_fence_a_stopped_announcer_goes_on_answering() -> Result<()> {
    let scene = Scene::up(3, env([("berth_fence", "unfenced")])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    stop(&scene, owner).await?;
    let took = scene.taken(owner, start, 10).await?;
    pauses::within("stopped without a fence: replaced after", took, TAKEOVER, start)?;
    eventually("two that answer", 10, || async {
        let record = scene.wire.so_far();
        let both = |address: &IpAddr| disputed(&record.since(*address, start));
        Ok(scene.addresses.iter().all(both).then_some(()))
    })
    .await?;
    go_on(&scene, owner).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_from_the_lease_node_by_node_moves_once_and_has_one_owner_throughout()
-> Result<()> {
    let mut world = World::up(3, by_lease()).await?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let (wire, asker) = (world.lab.watch()?, world.lab.ask(address, ASK)?);
    let start = Instant::now();
    // The owner last: what is given back on the way goes to nobody who is to be stopped yet.
    let owner = world.index_of(&world.host("web").await?)?;
    for node in (0..3).filter(|node| *node != owner).chain([owner]) {
        let name = world.lab.node(node).name().to_owned();
        world.announcer(&name)?.terminate(Duration::from_secs(10))?;
        world.start_announcer_with(node, env([("berth_election", "membership")])).await?;
    }
    eventually("an owner by membership", 30, || async {
        let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
        let lease = leases.get("plndr-svcs-lock").await?.spec.and_then(|spec| spec.holder_identity);
        let theirs = lease.as_deref() == Some("berth.dev/membership");
        Ok((theirs && world.holders(address)?.len() == 1 && world.curl(address).is_ok())
            .then_some(()))
    })
    .await?;
    tokio::time::sleep(PATIENCE).await;
    asker.finish()?;
    let record = wire.finish()?;
    ensure!(!disputed(&record.since(address, start)), "{:?}", record.spans(address));
    let (moves, pauses) = (record.moves(address, start), pauses::so_far());
    let unexcused = moves.iter().filter(|moved| !moved.is_excused(&pauses)).count();
    ensure!(unexcused <= 1, "{moves:?}");
    for moved in moves {
        pauses::within("from the Lease to the members", moved.silence(), BY_LEASE, moved.last)?;
    }
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_it_asks_of_the_api_at_rest_does_not_grow_with_services() -> Result<()> {
    const REST: Duration = Duration::from_secs(12);
    /// Of all three announcers in this time: 0.3 a second each.
    const ALLOWED: u64 = 10;
    let world = World::up(3, env([])).await?;
    let announcers = RequestsOf::account(&world.client, "berth-announcer").await?;
    for (names, count) in [(0..5, 5), (5..105, 105)] {
        for n in names.clone() {
            world.expose(&format!("s{n}"), json!({})).await?;
        }
        for n in names {
            world.published(&format!("s{n}"), 1).await?;
        }
        tokio::time::sleep(PATIENCE).await;
        let before = announcers.read(&world.client).await?;
        ensure!(before > 0, "they asked for nothing at all");
        tokio::time::sleep(REST).await;
        let spent = announcers.read(&world.client).await? - before;
        println!("3 announcers, {count} Services: {spent} requests in {REST:.0?}");
        ensure!(spent <= ALLOWED, "{spent} requests with {count} Services");
    }
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_announcer_that_is_told_to_go_hands_over_and_leaves_nothing() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    let probe = scene.probe()?;
    eventually("the probe started", 5, || async { Ok((probe.ok_so_far() > 20).then_some(())) })
        .await?;
    let node = scene.world.lab.node(owner);
    let process = scene.world.announcer(node.name())?;
    process.terminate(Duration::from_secs(20))?;
    let ending = eventually("how it ended", 5, || async { Ok(process.ending()) }).await?;
    ensure!(ending == "code 0", "it ended with {ending}: {}", process.log_tail());
    let held = scene.succeeded("told to go", owner, start, CLIENT).await?;
    scene.bound_only_on(&held).await?;
    let filters = node.exec(["tc", "filter", "show", "dev", "eth0", "egress"])?;
    ensure!(!filters.contains("berth"), "left on {}: {filters}", node.name());
    let tables = node.exec(["nft", "list", "tables"])?;
    ensure!(!tables.contains("berth"), "left on {}: {tables}", node.name());
    // A handover takes a millisecond or two: the former owner must not speak after it.
    scene.none_spoke_again(start)?;
    let report = probe.finish()?;
    println!("SIGTERM: longest gap {:.0?}", report.longest_gap);
    report.answered_within(CLIENT).context("handed over").with_context(|| scene.world.logs())?;
    let broken = report.count(Failure::Reset) + report.count(Failure::Refused);
    ensure!(broken == 0, "{:?}", report.failed);
    scene.down()
}
