//! Owners cut from their peers in one direction, in halves, from the API, from its storage, and from the time of day.
//! Judged by every frame on the LAN that claims an address: one machine at a time, always.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::control_plane::Part;
use berth_e2e::disk::replace;
use berth_e2e::pauses;
use berth_e2e::probe::Failure;
use serde_json::json;

use berth_e2e::world::{env, eventually};

use crate::is_soak;
use crate::scene::{CLIENT, PATIENCE, Scene, TAKEOVER};

/// Who waits for the API server goes on within this time from its return.
const BACK: Duration = Duration::from_secs(5);

/// An owner that its peers do not hear, or that does not hear them. The client reaches everybody throughout.
async fn deaf_or_mute(scene: &Scene, what: &str, from_owner: bool) -> Result<()> {
    let (owner, start) = (scene.owner()?, Instant::now());
    let lab = &scene.world.lab;
    let name = |node: usize| lab.node(node).name();
    for peer in (0..scene.nodes).filter(|peer| *peer != owner) {
        let (from, to) = if from_owner { (owner, peer) } else { (peer, owner) };
        lab.cut_one_way(name(from), name(to), Net::Lan)?;
    }
    let held = scene.succeeded(what, owner, start, TAKEOVER).await?;
    tokio::time::sleep(PATIENCE).await;
    lab.heal_all()?;
    scene.stays_with(&held, start).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_is_cut_one_way_is_replaced_and_stays_silent() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    deaf_or_mute(&scene, "peers do not hear the owner", true).await?;
    deaf_or_mute(&scene, "the owner does not hear its peers", false).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_five_nodes_only_the_side_with_a_majority_has_the_address() -> Result<()> {
    let scene = Scene::up(5, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    let lab = &scene.world.lab;
    let others: Vec<usize> = (0..5).filter(|node| *node != owner).collect();
    lab.split(&[owner, others[0]], Net::Lan)?;
    let held = scene.succeeded("the owner in the minority", owner, start, TAKEOVER).await?;
    ensure!(held.owner != others[0], "node {} is in the minority, too", held.owner);
    tokio::time::sleep(PATIENCE).await;
    lab.heal_all()?;
    scene.settled().await?;
    let successor = scene.kept_by(&held)?;

    let (again, held) = (Instant::now(), scene.held()?);
    let minority: Vec<usize> = (0..5).filter(|node| *node != successor).take(2).collect();
    lab.split(&minority, Net::Lan)?;
    tokio::time::sleep(PATIENCE).await;
    lab.heal_all()?;
    scene.stays_with(&held, start).await?;
    scene.moved_times(0, again)?;
    scene.down()
}

/// The changes of the voters that a node has seen.
fn epoch(scene: &Scene, node: usize) -> Result<u64> {
    let metrics = scene.metrics(node)?;
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("berth_announcer_membership_epoch "));
    Ok(line.context("no epoch in the metrics")?.parse()?)
}

/// What a node's own firewall does (metallb#782): it speaks to all others and hears none of them. While it is a voter it
/// answers nobody, so that of three voters no other one may be lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_hears_nobody_is_not_made_a_voter_again_and_again() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let owner = scene.owner()?;
    let lab = &scene.world.lab;
    let rules = "add table inet deaf; \
                 add chain inet deaf in { type filter hook input priority -300; policy accept; }; \
                 add rule inet deaf in udp dport 2113 drop";
    lab.node((owner + 1) % 3).exec(["nft", rules])?;
    tokio::time::sleep(PATIENCE).await;
    let before = epoch(&scene, owner)?;
    tokio::time::sleep(PATIENCE * 10).await;
    let changes = epoch(&scene, owner)? - before;
    ensure!(changes <= 8, "the voters changed {changes} times in half a minute");
    // It is one of them for a second and a half at a time, and then there is no majority without the owner.
    let (mut last, mut since) = (epoch(&scene, owner)?, Instant::now());
    while since.elapsed() < PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = epoch(&scene, owner)?;
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    let start = Instant::now();
    lab.crash(owner)?;
    scene.replaced("beside a node that hears nobody the owner crashes", owner, start).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_that_lose_each_other_one_goes_on() -> Result<()> {
    let scene = Scene::up(2, env([])).await?;
    let start = Instant::now();
    let lab = &scene.world.lab;
    lab.cut_pair(lab.node(0).name(), lab.node(1).name(), Net::Lan)?;
    tokio::time::sleep(PATIENCE * 2).await;
    let asked = Instant::now();
    let spoke = scene.spoken_for(asked, 5).await?;
    pauses::within("two nodes, cut from each other: answered for", spoke, TAKEOVER, asked)?;
    let silent = scene.spoken_within(TAKEOVER, start)?;
    println!("two nodes, cut from each other: silent for {silent:.0?} at most");
    let held = scene.held()?;
    lab.heal_all()?;
    scene.stays_with(&held, start).await?;
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_cluster_is_away_nothing_is_lost_and_what_comes_then_is_served() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let start = Instant::now();
    let lab = &scene.world.lab;
    let probe = scene.probe()?;
    lab.kill_part(Part::ApiServer)?;
    lab.kill_part(Part::Etcd)?;
    // It ends by itself after ten seconds, where it is elected by a Lease, as it is outside of a lab. One that goes on
    // would call all nodes lost, and with them all pods, before they can say a word.
    lab.kill_part(Part::ControllerManager)?;
    tokio::time::sleep(Duration::from_secs(if is_soak() { 300 } else { 15 })).await;
    lab.start_part(Part::Etcd)?;
    lab.start_part(Part::ApiServer)?;
    lab.until_api_ready().await?;
    lab.start_part(Part::ControllerManager)?;
    let ready = Instant::now();
    eventually("a Service made", 10, || async {
        Ok(scene.world.expose("later", json!({})).await.ok())
    })
    .await?;
    let later = scene.world.published("later", 1).await?[0];
    let what = "a Service made when the API is back: answered for after that";
    pauses::within(what, ready.elapsed(), BACK, ready).with_context(|| scene.world.logs())?;
    // kube-proxy tries again by itself, up to a minute later where it has tried for long; twice, where the API server
    // that has just started does not know its rights yet. Then it lists anew and writes its rules.
    eventually("an answer", 150, || async { Ok(scene.world.curl(later).ok()) }).await?;
    println!("and its pods reached {:.1?} after that", ready.elapsed());
    let report = probe.finish()?;
    println!(
        "no API, no etcd for {:.0?}: longest gap {:.0?}, {} moves",
        ready - start,
        report.longest_gap,
        scene.moves(start)
    );
    let broken = report.count(Failure::Reset) + report.count(Failure::Refused);
    ensure!(broken == 0, "{:?}", report.failed);
    report.answered_within(CLIENT).with_context(|| scene.world.logs())?;
    scene.moved_times(0, start)?;
    ensure!(scene.world.published("web", 2).await? == scene.addresses, "it lost its addresses");
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_nodes_without_an_api_the_survivor_waits_for_it() -> Result<()> {
    let scene = Scene::up(2, env([])).await?;
    let (owner, start) = (scene.owner()?, Instant::now());
    let lab = &scene.world.lab;
    lab.kill_part(Part::ApiServer)?;
    tokio::time::sleep(PATIENCE).await;
    lab.crash(owner)?;
    tokio::time::sleep(PATIENCE).await;
    let dead = Instant::now();
    tokio::time::sleep(PATIENCE).await;
    for address in &scene.addresses {
        let said = scene.wire.so_far().since(*address, dead);
        ensure!(said.is_empty(), "{address}: nobody may know that the other one is dead: {said:?}");
    }
    lab.start_part(Part::ApiServer)?;
    lab.until_api_ready().await?;
    let ready = Instant::now();
    let taken = dead + scene.taken(owner, dead, 30).await?;
    let took = taken.saturating_duration_since(ready);
    pauses::within("without API and peer: taken over after the API was back", took, BACK, ready)
        .with_context(|| scene.world.logs())?;
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    scene.down()
}

/// libfaketime stands between the programs and the clock: they see the time of day step, as the kernel's would, while the
/// clocks that only go on (CLOCK_MONOTONIC, CLOCK_BOOTTIME) do.
#[tokio::test(flavor = "multi_thread")]
async fn the_time_of_day_may_step_by_an_hour_and_nothing_moves() -> Result<()> {
    let step = std::env::temp_dir().join(format!("berth-step-{}", std::process::id()));
    let set = |offset: &str| replace(&step, format!("{offset}\n"));
    set("+0")?;
    let path = step.display().to_string();
    let library = faketime()?;
    let environment = env([
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_TIMESTAMP_FILE", path.as_str()),
        ("FAKETIME_NO_CACHE", "1"),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
    ]);
    let scene = Scene::up(3, environment).await?;
    let start = Instant::now();
    for (n, offset) in [3600, -3600, 0].into_iter().enumerate() {
        set(&format!("{offset:+}"))?;
        tokio::time::sleep(PATIENCE).await;
        // Something to log, with the time that the programs believe it to be.
        let name = format!("step{n}");
        scene.world.expose(&name, json!({})).await?;
        let address = scene.world.published(&name, 1).await?[0];
        let said = said_of(&scene, address)?;
        println!("a step to {offset:+} s: the owner's clock is {said:+} s off");
        ensure!((said - offset).abs() < 60, "the programs did not see it\n{}", scene.world.logs());
    }
    scene.moved_times(0, start)?;
    std::fs::remove_file(&step)?;
    scene.down()
}

/// How far the clock of the announcer that logged something about `address` last is off, in seconds.
fn said_of(scene: &Scene, address: IpAddr) -> Result<i64> {
    let (text, now) = (address.to_string(), jiff::Timestamp::now());
    let logs: Vec<String> = scene.world.announcers().map(|(_, p)| p.log_text()).collect();
    let lines = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(&text));
    let stamp = |line: &str| line.split_whitespace().find_map(|word| word.parse().ok());
    let mut stamps = lines.filter_map(stamp).map(|at: jiff::Timestamp| at.as_second());
    let latest = stamps.next_back().with_context(|| format!("no line about {address}"))?;
    Ok(latest - now.as_second())
}

/// The library, of Debian's package `faketime`.
fn faketime() -> Result<String> {
    let folders = std::fs::read_dir("/usr/lib")?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut libraries = folders.map(|folder| folder.join("faketime/libfaketime.so.1"));
    let library = libraries.find(|library| library.exists());
    Ok(library.context("no libfaketime: e2e/packages.sh installs it")?.display().to_string())
}
