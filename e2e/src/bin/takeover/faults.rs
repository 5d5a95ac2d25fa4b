//! Something happens to the owner while its node goes on.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::addresses::Net;
use berth_e2e::pauses;
use berth_e2e::rivals::{Stage, System};
use berth_e2e::wire::Record;

use crate::ears::{AFTER, BRIEFLY, CALM, Ears, PAUSE, mac_of, rank};

/// After so long a node whose link was gone counts like any other: until then it lets others go first.
const STEADY: Duration = Duration::from_secs(11);

/// What happens to an owner whose node goes on.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its process is killed; the kernel goes on.
    Killed,
    /// It has no carrier on the LAN.
    Unplugged,
    /// It hears none of the others.
    Deaf,
    /// None of the others hears it.
    Mute,
    /// All its processes are stopped for a while.
    Stopped,
}

/// Each of them so many times, on three nodes.
pub(crate) async fn measure(system: System, count: usize) -> Result<()> {
    println!("\n## Something happens to the owner, of three nodes: silence on the LAN\n");
    println!("| fault | times | p50 | max | with two answering | machine stood still, at most |");
    println!("|---|---|---|---|---|---|");
    let mut stage = system.up().await?;
    let all = [Fault::Killed, Fault::Unplugged, Fault::Deaf, Fault::Mute, Fault::Stopped];
    for fault in all {
        let (mut gaps, mut overlapped) = (Vec::new(), 0);
        let began = Instant::now();
        for turn in 1..=count {
            let (gap, both) = happens(&mut stage, fault).await.with_context(|| stage.logs())?;
            eprintln!("{fault:?} {turn}: {gap:.2?}, two answering: {both}");
            gaps.push(gap);
            overlapped += usize::from(both);
        }
        gaps.sort();
        let still = pauses::so_far().longest(began, Instant::now()).as_secs_f64();
        let (p50, max) = (rank(&gaps, 50), rank(&gaps, 100));
        println!("| {fault:?} | {count} | {p50:.3} s | {max:.3} s | {overlapped} | {still:.2} s |");
    }
    stage.world.lab.down()
}

/// From the last word of the owner after something happened to it to the first of another node, and whether two spoke at the same
/// time.
async fn happens(stage: &mut Stage, fault: Fault) -> Result<(Duration, bool)> {
    let ears = Ears::open(stage)?;
    let owner = ears.calm(stage, BRIEFLY).await?;
    let start = Instant::now();
    let lab = &stage.world.lab;
    let name = |node: usize| lab.node(node).name().to_owned();
    let peers: Vec<usize> = (0..3).filter(|node| *node != owner).collect();
    match fault {
        Fault::Killed => stage.world.announcer(&name(owner))?.kill()?,
        Fault::Unplugged => lab.unplug(owner, Net::Lan)?,
        Fault::Deaf => {
            peers
                .iter()
                .try_for_each(|peer| lab.cut_one_way(&name(*peer), &name(owner), Net::Lan))?;
        }
        Fault::Mute => {
            peers
                .iter()
                .try_for_each(|peer| lab.cut_one_way(&name(owner), &name(*peer), Net::Lan))?;
        }
        Fault::Stopped => lab.freeze(owner)?,
    }
    ears.taken(stage, owner, start).await?;
    let lab = &stage.world.lab;
    match fault {
        Fault::Killed => stage.start(owner).await?,
        Fault::Unplugged => {
            lab.plug(owner, Net::Lan)?;
            tokio::time::sleep(STEADY).await;
        }
        Fault::Deaf | Fault::Mute => lab.heal_all()?,
        Fault::Stopped => {
            tokio::time::sleep(PAUSE).await;
            lab.thaw(owner)?;
            tokio::time::sleep(AFTER).await;
        }
    }
    let heard = Record(ears.wire.so_far().since(stage.address, start));
    let spans = heard.spans(stage.address);
    let before = spans.iter().filter(|span| span.mac == mac_of(owner)).map(|span| span.last);
    let first = spans.iter().find(|span| span.mac != mac_of(owner)).map(|span| span.first);
    let first = first.context("nobody took over")?;
    let last = before.filter(|last| *last <= first).max().unwrap_or(start);
    ears.calm(stage, CALM).await?;
    let seen = ears.close(stage, first.duration_since(last))?;
    Ok((seen.gap, seen.both.is_some()))
}
