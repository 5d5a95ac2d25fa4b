//! Elastic IPs on the nodes: what comes to one reaches the machine, what the machine sends comes from it, also while it
//! migrates and while somebody flushes the rules. Judged by what both ends see, by frames on the LAN, and by
//! `iptables-save`, `ipset` and `ip -j`.

mod conflict;
mod scene;
mod streams;

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::OUTSIDE;
use berth_e2e::world::{by_lease, env, eventually};

use scene::Scene;
use streams::{Listener, connect, exchange};

/// Two machines on one node and one on another, each reached at its elastic IPs, and each called by the others.
#[tokio::test(flavor = "multi_thread")]
async fn a_machine_is_reached_at_its_elastic_ip_and_appears_as_it_everywhere_outside() -> Result<()>
{
    let mut scene = Scene::up(3, env([])).await?;
    scene.world.deploy("default", "hello", 1)?;
    for (name, node) in [("one", 0), ("two", 0), ("three", 1)] {
        scene.machine(name, node).await?;
    }
    for name in ["one", "three"] {
        scene.is_held(name).await?;
    }
    let lab = &scene.world.lab;
    for (family, third_party) in OUTSIDE.into_iter().enumerate() {
        let eip = |name: &str| scene.machines[name].eips[family];
        let place = |name: &str| scene.machines[name].guest.place();
        for name in ["one", "two", "three"] {
            // From the client, who is seen as it is.
            let listener = Listener::open(place(name), 8000)?;
            let mut stream = connect(&lab.outside(), SocketAddr::new(eip(name), 8000))?;
            let (mut served, peer) = listener.accept()?;
            ensure!(peer.ip() == stream.local_addr()?.ip(), "{name} sees {peer}");
            exchange(&mut stream, &mut served)?;

            // To a third party beyond the router, and to a neighbour on the LAN.
            for (who, address) in [(lab.router(), third_party), (lab.outside(), client(family))] {
                let listener = Listener::open(&who, 8001)?;
                let mut stream = connect(place(name), SocketAddr::new(address, 8001))?;
                let (mut served, peer) = listener.accept()?;
                ensure!(peer.ip() == eip(name), "{} sees {name} as {peer}", who.name);
                exchange(&mut stream, &mut served)?;
            }
        }
        // To its own elastic IP, to that of another machine on its node, and of one on another node.
        for (from, to) in [("one", "one"), ("one", "two"), ("one", "three"), ("three", "one")] {
            let listener = Listener::open(place(to), 8002)?;
            let target = SocketAddr::new(eip(to), 8002);
            let mut stream =
                connect(place(from), target).with_context(|| format!("{from} calls {to}"))?;
            let (mut served, peer) = listener.accept()?;
            ensure!(peer.ip() == eip(from), "{to} sees {from} as {peer}");
            exchange(&mut stream, &mut served)?;
        }
        // To each other under their own addresses, as pods do.
        let listener = Listener::open(place("three"), 8003)?;
        let own = scene.machines["three"].guest.addresses()[family];
        let mut stream = connect(place("one"), SocketAddr::new(own, 8003))?;
        let (mut served, peer) = listener.accept()?;
        ensure!(peer.ip() == scene.machines["one"].guest.addresses()[family], "{peer}");
        exchange(&mut stream, &mut served)?;
    }
    scene.pods_and_services_see_it_untranslated("one").await?;
    scene.rules_are_those_of_the_contract(0, &["one", "two"])?;
    scene.down()
}

fn client(family: usize) -> IpAddr {
    berth_e2e::addresses::client().both()[family]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_binding_leaves_nothing_behind() -> Result<()> {
    let mut scene = Scene::up(2, env([])).await?;
    let before = scene.traces(0)?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    let eip = scene.machines["one"].eips[0];
    let listener = Listener::open(scene.machines["one"].guest.place(), 8000)?;
    let mut stream = connect(&scene.world.lab.outside(), SocketAddr::new(eip, 8000))?;
    let (mut served, _) = listener.accept()?;
    exchange(&mut stream, &mut served)?;
    scene.eips.delete("one").await?;
    eventually("nothing is left", 10, || async {
        let tracked =
            scene.world.lab.node(0).exec(["conntrack", "-L", "--orig-dst", &eip.to_string()])?;
        let gone = tracked.is_empty() && scene.world.holders(eip)?.is_empty();
        Ok((gone && scene.traces(0)? == before).then_some(()))
    })
    .await
    .with_context(|| format!("{:?}\n{}", scene.traces(0), scene.logs()))?;
    scene.down()
}

/// Fault 15.
#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_flushed_under_traffic_comes_back_within_two_seconds() -> Result<()> {
    let mut scene = Scene::up(2, env([])).await?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    let whole = scene.traces(0)?;
    let traffic = scene.streams("one")?;
    let mut traffic = Some(traffic);
    let losses: [&[&str]; 6] = [
        &["iptables-nft -t nat -F KUBE-EIP-PREROUTING"],
        &["iptables-nft -t nat -F PREROUTING", "iptables-nft -t nat -F POSTROUTING"],
        &["ipset flush kube-eip-vmi"],
        &["ip rule del pref 1001"],
        &["ip route flush table 190"],
        &["nft flush ruleset"],
    ];
    for loss in losses {
        if loss == ["nft flush ruleset"]
            && let Some(traffic) = traffic.take()
        {
            // Without any translation, also kube-proxy's, the node may reset what it has no socket for.
            let report = traffic.finish()?;
            println!("two streams the while: {report}");
            ensure!(report.resets == 0, "{report}");
        }
        let before = scene.foreign(0)?;
        for command in loss {
            scene.world.lab.node(0).exec(command.split(' '))?;
        }
        let start = Instant::now();
        let took = eventually(&format!("repaired after {loss:?}"), 20, || async {
            Ok(scene.traces(0)?.is_superset(&whole).then(|| start.elapsed()))
        })
        .await
        .with_context(|| scene.logs())?;
        println!("{loss:?}: repaired after {took:.0?}");
        if loss.iter().all(|command| {
            command.contains("KUBE-EIP") || !command.contains("nat") && !command.contains("nft")
        }) {
            ensure!(scene.foreign(0)? == before, "{loss:?}: others' rules have changed");
        }
    }
    let again = scene.streams("one")?.finish()?;
    ensure!(again.alive, "{again}");
    scene.down()
}

/// Fault 18: a machine migrates with a stream open in each direction.
#[tokio::test(flavor = "multi_thread")]
async fn streams_survive_migrations_in_both_directions() -> Result<()> {
    let rounds = if std::env::var_os("BERTH_SOAK").is_some_and(|v| v == "1") { 100 } else { 5 };
    let mut scene = Scene::up(3, env([])).await?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    let eips = scene.machines["one"].eips;
    let wire = scene.world.lab.watch()?;
    let mut gaps = Vec::new();
    for round in 0..rounds {
        let traffic = scene.streams("one")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        scene.migrate("one", (round + 1) % 2).await.with_context(|| scene.logs())?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        let report = traffic.finish()?;
        println!("migration {}: {report}", round + 1);
        ensure!(report.resets == 0 && report.alive, "migration {}: {report}", round + 1);
        gaps.push(report.longest_gap);
    }
    gaps.sort();
    println!(
        "{rounds} migrations: longest gap median {:.0?}, longest {:.0?}, no reset",
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1]
    );
    let record = wire.finish()?;
    for eip in eips {
        let said: Vec<_> = record.0.iter().filter(|s| s.address == eip).cloned().collect();
        ensure!(!crate::scene::disputed(&said), "{eip}: {:?}", record.spans(eip));
    }
    scene.down()
}

/// A target that gets ready for nothing changes nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_failed_migration_moves_nothing() -> Result<()> {
    let mut scene = Scene::up(3, env([])).await?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    let (before, target) = (scene.traces(0)?, scene.traces(1)?);
    let traffic = scene.streams("one")?;
    let lab = &scene.world.lab;
    let machine = scene.machines.get_mut("one").context("no machine")?;
    let cable = machine.guest.plug(lab, lab.node(1).name())?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    machine.guest.unplug(&cable)?;
    let report = traffic.finish()?;
    ensure!(report.resets == 0 && report.alive, "{report}");
    ensure!(scene.traces(0)? == before && scene.traces(1)? == target);
    scene.is_held("one").await?;
    scene.down()
}

/// With Leases nothing in the kernel holds a deadline, but a node still waits for the one before.
#[tokio::test(flavor = "multi_thread")]
async fn by_leases_a_machine_is_served_and_migrates_as_well() -> Result<()> {
    let mut scene = Scene::up(3, by_lease()).await?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    for target in [1, 0] {
        let traffic = scene.streams("one")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        scene.migrate("one", target).await.with_context(|| scene.logs())?;
        let report = traffic.finish()?;
        println!("by Leases: {report}");
        ensure!(report.resets == 0 && report.alive, "{report}");
    }
    scene.down()
}
