//! Who shares an address and takes the port of another there comes back ever more rarely, by whichever Service. Judged by whose
//! pod answers a client.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use berth_e2e::membership;
use berth_e2e::world::{World, eventually, ingress};
use kube::api::DeleteParams;

use crate::shown::{
    Client, GAP, NODES, PROXY, expose, get, gone, moves, patch, ports, shares, shown, told, up,
};

/// For so long Services are made one after the other: three, after pauses of ten and twenty seconds, and not the fourth.
const ROTATES: Duration = Duration::from_secs(60);

/// Who makes one Service after the other, each of which takes the port of alice as soon as it is published, waits ever longer
/// for the next, on another node too: those that it may make draw what they draw, and the others nothing.
#[tokio::test(flavor = "multi_thread")]
async fn who_makes_one_sharer_after_the_other_comes_to_share_the_address_ever_more_rarely()
-> Result<()> {
    let world = up(&[]).await?;
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;
    let address = shares(&world).await?;
    tokio::time::sleep(PROXY * 2).await;
    let (client, start) = (Client::of(world.lab.outside(), address), Instant::now());
    let mut edits = Vec::new();
    let judged = rotates(&world, address, start, &mut edits).await;
    let (answers, took) = (client.answers()?, start.elapsed());
    let others: Vec<_> = answers.iter().filter(|(_, body)| body.contains("evil")).collect();
    let since = |at: &Instant| edits.iter().rev().find(|edit| *edit <= at).map(|edit| *at - *edit);
    let drawn = others.iter().filter_map(|(at, _)| since(at)).max().unwrap_or_default();
    println!(
        "{} sharers in {took:.0?}: of {} answers {} were theirs, the last {drawn:.1?} after an edit",
        edits.len(),
        answers.len(),
        others.len()
    );
    judged?;
    ensure!(drawn <= GAP * 2, "{drawn:?}\n{}", world.logs());
    // Each draws a part of what comes within so long, and there were as many as pauses let in.
    let share = others.len() as f64 / answers.len() as f64;
    let most = edits.len() as f64 * GAP.as_secs_f64() / took.as_secs_f64();
    ensure!(share <= most, "{share:.3}, not {most:.3}\n{}", world.logs());
    world.lab.down()
}

/// Makes sharers for as long as the test goes on, and says when each has taken the port.
async fn rotates(
    world: &World,
    address: IpAddr,
    start: Instant,
    edits: &mut Vec<Instant>,
) -> Result<()> {
    for number in 0.. {
        let name = format!("x{number}");
        let own = ("mallory", name.as_str());
        expose(world, own, 1000 + number, Some(address)).await?;
        while !ingress(&get(world, own).await?).contains(&address) {
            if start.elapsed() >= ROTATES {
                let allowed = [1, 2, 3];
                ensure!(allowed.contains(&edits.len()), "{}\n{}", edits.len(), world.logs());
                return told(world, own, "AddressInUse", "mallory/x").await;
            }
            tokio::time::sleep(PROXY / 50).await;
        }
        let pause = Duration::from_secs(10) * (1 << number) / 2;
        let waited = edits.last().map(Instant::elapsed);
        let is_soon = waited.is_some_and(|waited| waited < pause);
        ensure!(!is_soon, "{number} after {waited:.1?}\n{}", world.logs());
        edits.push(Instant::now());
        patch(world, own, ports(80)).await?;
        gone(world, own, address, 10).await?;
        world.services(own.0).delete(own.1, &DeleteParams::default()).await?;
        match number {
            // Nobody else waits for that.
            0 => {
                expose(world, ("alice", "more"), 443, Some(address)).await?;
                let shown = shown(world, ("alice", "more")).await?;
                ensure!(shown == address && edits[0].elapsed() < pause * 2, "{}", world.logs());
            }
            // Who has the address next goes on.
            1 => moves(world, address).await?,
            _ => {}
        }
    }
    Ok(())
}
