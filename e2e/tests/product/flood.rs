//! Whoever reaches the port of the heartbeats sends what it likes: no lease is lost by it, and no dead owner is kept by what
//! was recorded.

use std::fs::File;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::flood::{Flood, Load, recorded};
use berth_e2e::world::{World, env, eventually};
use sha2::{Digest, Sha256};

use crate::is_soak;
use crate::scene::{PATIENCE, Scene};

/// `berth_peer_port`, unless it is set.
const PORT: u16 = 2113;

const NODES: usize = 3;

/// Most octets of what passes for a heartbeat, and of what nobody sends.
const LARGEST: usize = 1400;
const HUGE: usize = 60_000;

/// Different datagrams of a flood, which are sent again and again.
const DIFFERENT: usize = 300;

/// For so long whoever is dead would be kept alive.
const DEAD: Duration = Duration::from_secs(3);

/// The network namespaces of two pods.
fn pods(world: &World) -> Result<Vec<File>> {
    let node = world.lab.nodes().last().context("no node")?;
    let names = node.exec(["ls", "/run/pods"])?;
    let root = format!("/proc/{}/root/run/pods", node.place()?.keeper.id.pid);
    let nets = names.lines().filter(|name| name.ends_with(".net")).take(2);
    let open = |name: &str| Ok(File::open(format!("{root}/{name}"))?);
    let nets: Vec<File> = nets.map(open).collect::<Result<_>>()?;
    ensure!(nets.len() == 2, "two pods are needed: {names}");
    Ok(nets)
}

fn target(world: &World, node: usize) -> SocketAddr {
    (world.lab.node(node).addresses().lan.v4, PORT).into()
}

/// What passes for a datagram of membership until its tag is looked at, for each node in turn; every eighth is noise.
fn forged(world: &World, length: impl Fn() -> usize) -> Vec<(SocketAddr, Vec<u8>)> {
    let forge = |number: usize| {
        let node = number % NODES;
        let mut octets: Vec<u8> =
            std::iter::repeat_with(|| fastrand::u8(..)).take(length()).collect();
        if !number.is_multiple_of(8) && octets.len() >= 20 {
            let id = Sha256::digest(world.lab.node(node).name().as_bytes());
            octets[..4].copy_from_slice(&[b'B', b'M', fastrand::u8(1..=3), fastrand::u8(1..=3)]);
            octets[12..20].copy_from_slice(&id[..8]);
        }
        (target(world, node), octets)
    };
    (0..DIFFERENT).map(forge).collect()
}

/// What the kernel of a node has taken in for UDP, and what it has dropped for the sockets of the port.
fn counted(world: &World, node: usize) -> Result<(u64, u64)> {
    let node = world.lab.node(node);
    let snmp = node.exec(["cat", "/proc/net/snmp"])?;
    let taken = snmp.lines().filter_map(|line| line.strip_prefix("Udp: ")).nth(1);
    let taken = taken.and_then(|line| line.split(' ').next()).context("no counters of UDP")?;
    let port = format!(":{PORT:04X}");
    let mut dropped = 0;
    for file in ["/proc/net/udp", "/proc/net/udp6"] {
        for line in node.exec(["cat", file])?.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.get(1).is_some_and(|local| local.ends_with(&port)) {
                dropped += words.last().context("no drops")?.parse::<u64>()?;
            }
        }
    }
    Ok((taken.parse()?, dropped))
}

/// Two pods send to all nodes, and no lease is lost by it, but where the machine stood still.
async fn flooded(scene: &Scene, what: &str, load: Load, length: impl Fn() -> usize) -> Result<u64> {
    let (held, world, begun) = (scene.held()?, &scene.world, Instant::now());
    let floods = pods(world)?.into_iter();
    let start = |net| Flood::datagrams(net, forged(world, &length), load);
    let floods: Vec<Flood> = floods.map(start).collect::<Result<_>>()?;
    let sent =
        tokio::task::spawn_blocking(|| floods.into_iter().map(Flood::finish).sum::<Result<u64>>());
    let sent = sent.await??;
    let seconds = begun.elapsed().as_secs_f64();
    println!("{what}: {sent} datagrams, {:.0} a second", sent as f64 / seconds);
    if let Some(rate) = load.rate {
        let asked = f64::from(rate) * 2.0 * load.span.as_secs_f64();
        ensure!(sent as f64 > asked / 2.0, "{what}: {sent} datagrams of {asked} were sent");
    }
    scene.kept_by(&held)?;
    scene.one_at_a_time(&scene.wire.so_far(), begun)?;
    Ok(sent)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_pods_send_to_the_members_costs_no_lease_and_what_was_recorded_keeps_no_dead_owner()
-> Result<()> {
    let scene = Scene::up(NODES, env([])).await?;
    let (world, lab) = (&scene.world, &scene.world.lab);
    let recorder =
        lab.capture("heartbeats", &format!("udp port {PORT} and src net 10.0.0.0/16"))?;
    // Of the two together.
    let (rate, huge, span) = if is_soak() {
        (Some(25_000), None, Duration::from_secs(30))
    } else {
        (Some(10_000), Some(250), Duration::from_secs(2))
    };
    let before = (0..NODES).map(|node| counted(world, node)).collect::<Result<Vec<_>>>()?;
    flooded(&scene, "up to 1,400 octets", Load { rate, span }, || fastrand::usize(..=LARGEST))
        .await?;
    let large = flooded(&scene, "60 KB", Load { rate: huge, span }, || HUGE).await?;
    for (node, before) in before.iter().enumerate() {
        let (_, dropped) = counted(world, node)?;
        let metrics = scene.metrics(node)?;
        let told = metrics.lines().find_map(|line| {
            line.strip_prefix("berth_announcer_datagrams_of_strangers_total ")?.parse::<u64>().ok()
        });
        println!(
            "node {node}: {} dropped by the kernel, {told:?} of strangers",
            dropped - before.1
        );
        ensure!(dropped > before.1, "the kernel of node {node} has dropped nothing");
        ensure!(told.is_some_and(|told| told > 1000), "node {node}: {told:?} of strangers");
    }
    ensure!(large > 100, "{large} of 60 KB");
    let sockets = lab.node(0).exec(["ss", "--udp", "--all", "--numeric", "--memory"])?;
    ensure!(sockets.contains("rb8388608"), "the port has little room: {sockets}");

    // The owner dies while all that was recorded is sent again, from where it came, and from the pods.
    let path = recorder.path().to_owned();
    recorder.finish()?;
    let recorded = recorded(&path)?;
    let owner = scene.owner()?;
    let voters: Vec<usize> = (0..NODES).filter(|node| *node != owner).collect();
    let of_owner = recorded.iter().filter(|datagram| datagram.from == target(world, owner)).count();
    ensure!(of_owner > 100, "{of_owner} of {} datagrams are of the owner", recorded.len());
    let load = Load { rate: Some(10_000), span: DEAD + PATIENCE };
    let frames = recorded.iter().map(|datagram| datagram.frame()).collect::<Result<Vec<_>>>()?;
    let again: Vec<_> =
        recorded.into_iter().map(|datagram| (datagram.to, datagram.payload)).collect();
    let before = voters.iter().map(|node| counted(world, *node)).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    let mut floods = vec![Flood::frames(lab, frames, load)?];
    for net in pods(world)? {
        floods.push(Flood::datagrams(net, again.clone(), Load { rate: Some(2_000), ..load })?);
    }
    lab.crash(owner)?;
    let held = scene.replaced("crashed, while it was replayed", owner, start).await?;
    let two = format!("berth_announcer_membership_live_nodes {}\n", NODES - 1);
    let is_dead = async || -> Result<bool> {
        let shown = voters.iter().map(|node| scene.metrics(*node)).collect::<Result<Vec<_>>>()?;
        Ok(shown.iter().all(|metrics| metrics.contains(&two)))
    };
    eventually("nobody sees it alive", 2, async || Ok(is_dead().await?.then_some(()))).await?;
    while start.elapsed() < DEAD {
        ensure!(is_dead().await?, "a replay keeps it alive\n{}", world.logs());
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    scene.kept_by(&held)?;
    scene.one_at_a_time(&scene.wire.so_far(), start)?;
    for (node, before) in voters.iter().zip(before) {
        let (taken, _) = counted(world, *node)?;
        ensure!(taken > before.0 + 5_000, "node {node} was shown {} datagrams", taken - before.0);
    }
    drop(floods);
    scene.down()
}
