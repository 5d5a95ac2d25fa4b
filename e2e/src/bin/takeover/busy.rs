//! A host that takes all processors away from time to time: which leases are lost by it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::rivals::System;
use berth_e2e::{busy_host, membership, pauses};

use crate::ears::{BRIEFLY, Ears, QUIET};

/// It is so for as long before anything is counted: a node learns how late its machine is.
const BEFORE: Duration = Duration::from_secs(240);
/// How often leases that ran out are counted.
const LOOK: Duration = Duration::from_secs(2);
/// What is a lease's at most.
const LEASE: Duration = Duration::from_millis(350);
/// A fixed lease of 350 ms outlasts a shorter pause: it is renewed each 50 ms, and the answer takes its time.
const OUTLASTED: Duration = Duration::from_millis(290);

/// For so many minutes. The processors are taken away until the program ends.
pub(crate) async fn measure(system: System, minutes: usize) -> Result<()> {
    println!("\n## All processors are taken away for 120 to 220 ms each {:?}\n", busy_host::EVERY);
    println!(
        "| minutes | pauses | the longest | leases lost | of which a fixed one of {LEASE:?} would have been kept | two answering | asked for in the end |"
    );
    println!("|---|---|---|---|---|---|---|");
    let stage = system.up().await?;
    stage.settled().await?;
    pauses::watch();
    busy_host::be_busy()?;
    tokio::time::sleep(BEFORE).await;
    let ears = Ears::open(&stage)?;
    ears.calm(&stage, BRIEFLY).await?;
    let lost = || -> Result<u64> {
        (0..system.nodes()).map(|node| membership::expired(&stage.world, node)).sum()
    };
    let (began, mut before) = (Instant::now(), lost()?);
    let (mut all, mut needless, mut looked) = (0, 0, began);
    let long = Duration::from_secs(60) * u32::try_from(minutes)?;
    while began.elapsed() < long {
        tokio::time::sleep(LOOK).await;
        let (now, count) = (Instant::now(), lost()?);
        let more = count - before;
        let since = looked.checked_sub(LEASE).unwrap_or(looked);
        let still = pauses::so_far().longest(since, now);
        if more > 0 {
            eprintln!("after {:.1?}: {more} lost, paused for {still:?}", began.elapsed());
        }
        all += more;
        needless += if still < OUTLASTED { more } else { 0 };
        (before, looked) = (count, now);
    }
    let asked = (0..system.nodes()).map(|node| membership::lease(&stage.world, node));
    let asked: Vec<String> = asked.collect::<Result<_>>()?;
    let record = ears.wire.finish()?;
    ears.asker.finish()?;
    let (pauses, ended) = (pauses::so_far(), Instant::now());
    let overlaps = record.overlaps(stage.address, QUIET).len();
    println!(
        "| {minutes} | {} | {:.2} s | {all} | {needless} | {overlaps} | {} s |",
        pauses.count(began, ended),
        pauses.longest(began, ended).as_secs_f64(),
        asked.join(", "),
    );
    stage.world.lab.down().context("the lab")?;
    ensure!(needless == 0 && overlaps == 0, "leases were lost that a fixed one would have kept");
    Ok(())
}
