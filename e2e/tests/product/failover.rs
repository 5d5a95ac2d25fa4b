//! Owners by Lease that stop, die, or lose the network. Judged by the client's connections, the interfaces of all nodes, and
//! every frame on the LAN that claims the address.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::control_plane::Part;
use berth_e2e::pauses;
use berth_e2e::probe::{Manner, Probe};
use serde_json::json;

use berth_e2e::world::{Env, World, by_lease, env, eventually};

use crate::scene::{ASK, BY_LEASE, CLIENT, disputed};

const EVERY: Duration = Duration::from_millis(10);

/// A world with one dual-stack Service that answers; its addresses and owner.
async fn served(nodes: usize) -> Result<(World, Vec<IpAddr>, String)> {
    served_with(nodes, env([])).await
}

/// The same with these settings besides.
async fn served_with(nodes: usize, more: Env) -> Result<(World, Vec<IpAddr>, String)> {
    let mut environment = by_lease();
    environment.extend(more);
    let world = World::up(nodes, environment).await?;
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let addresses = world.published("web", 2).await?;
    for address in &addresses {
        eventually("an answer", 10, || async { Ok(world.curl(*address).ok()) }).await?;
    }
    let owner = world.host("web").await?;
    Ok((world, addresses, owner))
}

fn probe(world: &World, address: IpAddr) -> Result<Probe> {
    Probe::start(&world.lab.outside(), SocketAddr::new(address, 80), EVERY, Manner::NewConnections)
}

/// An owner that goes gives its Lease up, and the next one looks for it once a second.
const GIVEN_UP: Duration = Duration::from_secs(3);

/// Waits until exactly one node, not `old`, holds all addresses and the client is answered.
async fn moved(world: &World, addresses: &[IpAddr], old: &str, seconds: u64) -> Result<String> {
    eventually("another owner", seconds, || async {
        let mut owner = None;
        for address in addresses {
            let holders = world.holders(*address)?;
            let others: Vec<_> = holders.into_iter().filter(|holder| holder != old).collect();
            if others.len() != 1 || world.curl(*address).is_err() {
                return Ok(None);
            }
            owner = others.into_iter().next();
        }
        Ok(owner)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_owner_hands_over_and_leaves_nothing() -> Result<()> {
    let (world, addresses, owner) = served(3).await?;
    let probes =
        addresses.iter().map(|address| probe(&world, *address)).collect::<Result<Vec<_>>>()?;
    eventually("the probes started", 5, || async {
        Ok(probes.iter().all(|p| p.ok_so_far() > 20).then_some(()))
    })
    .await?;
    let process = world.announcer(&owner)?;
    process.terminate(Duration::from_secs(10))?;
    let ending = eventually("how it ended", 5, || async { Ok(process.ending()) }).await?;
    ensure!(ending == "code 0", "it ended with {ending}");
    let node = world.lab.node(world.index_of(&owner)?);
    for address in &addresses {
        ensure!(!world.holders(*address)?.contains(&owner), "{address} is still on {owner}");
    }
    let tables = node.exec(["nft", "list", "tables"])?;
    ensure!(!tables.contains("berth"), "{owner} still has {tables}");
    moved(&world, &addresses, &owner, 10).await?;
    for (address, probe) in addresses.iter().zip(probes) {
        let report = probe.finish()?;
        println!(
            "SIGTERM: {address} was away for {:.0?} at most, {} answers",
            report.longest_gap, report.ok
        );
        report.answered_within(GIVEN_UP).with_context(|| world.logs())?;
    }
    eventually("the new owner in the annotation", 5, || async {
        Ok((world.host("web").await? != owner).then_some(()))
    })
    .await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_that_comes_back_leaves_nothing_stale() -> Result<()> {
    let (mut world, addresses, owner) = served(3).await?;
    let index = world.index_of(&owner)?;
    world.announcer(&owner)?.kill()?;
    // While nobody looks after this node, its Service goes and another one comes.
    world.delete("web").await?;
    world.expose("other", json!({})).await?;
    let other = world.published("other", 1).await?[0];
    world.start_announcer(index).await?;
    eventually("nothing stale on the interface", 10, || async {
        let mut clean = true;
        for address in &addresses {
            clean &= *address == other || world.holders(*address)?.is_empty();
        }
        Ok((clean && world.holders(other)?.len() == 1).then_some(()))
    })
    .await?;
    eventually("an answer", 10, || async { Ok(world.curl(other).ok()) }).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_owner_keeps_its_addresses_over_a_quick_restart() -> Result<()> {
    let (mut world, addresses, owner) = served(3).await?;
    let index = world.index_of(&owner)?;
    let start = Instant::now();
    world.announcer(&owner)?.kill()?;
    world.start_announcer(index).await?;
    for address in &addresses {
        eventually("one holder that answers", 15, || async {
            Ok((world.holders(*address)?.len() == 1 && world.curl(*address).is_ok()).then_some(()))
        })
        .await?;
    }
    pauses::within("killed and started again: answered after", start.elapsed(), BY_LEASE, start)
        .with_context(|| world.logs())?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_cut_off_is_replaced_and_never_answers_beside_its_successor() -> Result<()> {
    let (world, addresses, owner) = served(3).await?;
    let index = world.index_of(&owner)?;
    let wire = world.lab.watch()?;
    let ask = |address: &IpAddr| world.lab.ask(*address, Duration::from_millis(50));
    let askers = addresses.iter().map(ask).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    world.lab.cut(index, Net::Lan)?;
    world.lab.cut(index, Net::Api)?;
    let successor = moved(&world, &addresses, &owner, 30).await?;
    let what = format!("{owner} cut off: {successor} answers after");
    pauses::within(&what, start.elapsed(), BY_LEASE, start).with_context(|| world.logs())?;
    let handover = Instant::now();
    for address in &addresses {
        ensure!(
            !world.holders(*address)?.contains(&owner),
            "{owner} still has {address} after its Lease ended"
        );
    }
    world.lab.heal(index, Net::Lan)?;
    world.lab.heal(index, Net::Api)?;
    // The old owner is back on the LAN: it must find out before it says anything.
    tokio::time::sleep(Duration::from_secs(8)).await;
    askers.into_iter().try_for_each(|asker| asker.finish())?;
    let record = wire.finish()?;
    for address in &addresses {
        let after = record.since(*address, handover);
        let machines: BTreeSet<_> = after.iter().map(|sighting| sighting.mac).collect();
        ensure!(machines.len() == 1, "after the handover {address} was claimed by {machines:?}");
        ensure!(record.disputes(*address).is_empty(), "{address}: {:?}", record.spans(*address));
        let moves = record.moves(*address, start).len();
        ensure!(moves == 1, "{address}: {:?}", record.spans(*address));
    }
    println!("{} frames looked at", record.0.len());
    world.lab.down()
}

/// Stops the owner's announcer. Its addresses are bound for ever, so that no lifetime in the kernel helps.
fn stop(world: &World, addresses: &[IpAddr], owner: &str) -> Result<()> {
    world.announcer(owner)?.freeze()?;
    let node = world.lab.node(world.index_of(owner)?);
    for address in addresses {
        let length = if address.is_ipv4() { 32 } else { 128 };
        let bound = format!("{address}/{length}");
        let ip = ["ip", "address", "change", &bound, "dev", "eth0"];
        node.exec([&ip[..], &["valid_lft", "forever", "preferred_lft", "0"]].concat())?;
    }
    Ok(())
}

/// A stopped owner is silent before its Lease is over, and takes nothing back when it goes on.
async fn stopped(more: Env) -> Result<()> {
    /// `vip_leaseduration` of this world.
    const LEASE: Duration = Duration::from_secs(5);
    let (world, addresses, owner) = served_with(3, more).await?;
    let wire = world.lab.watch()?;
    let ask = |address: &IpAddr| world.lab.ask(*address, ASK);
    let askers = addresses.iter().map(ask).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    stop(&world, &addresses, &owner)?;
    let successor = moved(&world, &addresses, &owner, 30).await?;
    let what = format!("{owner} stopped: {successor} answers after");
    pauses::within(&what, start.elapsed(), BY_LEASE, start).with_context(|| world.logs())?;
    for address in &addresses {
        ensure!(world.holders(*address)?.contains(&owner), "{owner} has not {address} any more");
    }
    world.announcer(&owner)?.thaw()?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    askers.into_iter().try_for_each(|asker| asker.finish())?;
    let record = wire.finish()?;
    for address in &addresses {
        let told = || format!("{address}: {:?}\n{}", record.spans(*address), world.logs());
        let moves = record.moves(*address, start);
        let [moved] = &moves[..] else { bail!("{} moves of {}", moves.len(), told()) };
        let (last, silence) = (moved.last.duration_since(start), moved.silence());
        println!("{address}: last answer {last:.2?} after the stop, then silent for {silence:.0?}");
        ensure!(last < LEASE, "it answered for {last:.2?}: {}", told());
        ensure!(!disputed(&record.since(*address, start)), "two answered: {}", told());
        ensure!(record.disputes(*address).is_empty(), "it answered again: {}", told());
        ensure!(world.holders(*address)? == [successor.as_str()], "{}", told());
    }
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_owner_by_lease_is_silent_before_another_may_take_it() -> Result<()> {
    stopped(env([])).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_owner_by_a_lease_for_each_service_is_silent_before_another_may_take_it()
-> Result<()> {
    stopped(env([("svc_election", "true")])).await
}

/// The oracle of the tests above sees two answering where there are two.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_fence_a_stopped_owner_by_lease_goes_on_answering() -> Result<()> {
    let (world, addresses, owner) = served_with(3, env([("berth_fence", "unfenced")])).await?;
    let wire = world.lab.watch()?;
    let ask = |address: &IpAddr| world.lab.ask(*address, ASK);
    let _askers = addresses.iter().map(ask).collect::<Result<Vec<_>>>()?;
    let start = Instant::now();
    stop(&world, &addresses, &owner)?;
    eventually("two that answer", 30, || async {
        let record = wire.so_far();
        let both = |address: &IpAddr| disputed(&record.since(*address, start));
        Ok(addresses.iter().all(both).then_some(()))
    })
    .await?;
    world.announcer(&owner)?.thaw()?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_stay_up_while_the_api_server_restarts() -> Result<()> {
    let world = World::up(3, env([])).await?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    let owner = world.host("web").await?;
    let running = probe(&world, address)?;
    eventually("the probe started", 5, || async { Ok((running.ok_so_far() > 20).then_some(())) })
        .await?;
    let start = Instant::now();
    world.lab.restart_part(Part::ApiServer).await?;
    let away = start.elapsed();
    // What is created now is served, so both programs have found their way back.
    world.expose("later", json!({})).await?;
    world.published("later", 1).await?;
    let report = running.finish()?;
    println!(
        "API server away for {away:.1?}: longest gap {:.0?}, {} answers",
        report.longest_gap, report.ok
    );
    // The owner goes on.
    report.answered_within(CLIENT).with_context(|| format!("{:?}", report.failed))?;
    ensure!(world.host("web").await? == owner, "the owner changed");
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_its_own_lease_moves_when_its_owner_dies() -> Result<()> {
    let mut environment = by_lease();
    environment.extend(env([("svc_election", "true")]));
    let world = World::up(3, environment).await?;
    for name in ["one", "two", "three"] {
        world.expose(name, json!({})).await?;
    }
    let owner = {
        world.published("one", 1).await?;
        world.host("one").await?
    };
    let address = world.published("one", 1).await?[0];
    let start = Instant::now();
    world.lab.crash(world.index_of(&owner)?).context("crash the owner")?;
    eventually("another owner", 30, || async {
        Ok((world.host("one").await? != owner && world.curl(address).is_ok()).then_some(()))
    })
    .await?;
    pauses::within("per-Service Lease: served again after", start.elapsed(), BY_LEASE, start)
        .with_context(|| world.logs())?;
    world.lab.down()
}
