//! `make bench-control-plane`: three control-plane nodes, each with etcd and an API server of its own. How long a client at the
//! control plane's address is not answered when something happens to the owner's API server, and whether two ever answer, for
//! Berth and for others, one after the other.
//!
//! Prints a Markdown report. Figures of one run are comparable with each other, not with another machine's.

mod faults;
mod stacked;
mod systems;

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::pauses;

use crate::faults::{EVERY, Fault};
use crate::stacked::Stacked;
use crate::systems::System;

#[tokio::main]
async fn main() -> Result<()> {
    // Words that names must contain, e.g. "Berth": what is not asked for is left out.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let times = number("BERTH_BENCH_FAULTS")?.unwrap_or(3);
    println!("# The control plane's address\n");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let today = jiff::Zoned::now().strftime("%Y-%m-%d");
    println!("{today}, {cores} cores. `make bench-control-plane` prints this.\n");
    println!(
        "Longest gap of a client that asks for `/readyz` by a new connection every {EVERY:?}.\n"
    );
    println!(
        "| system | what happens to the owner's API server | times | least | most | moves | silence on the LAN, at most | with two answering | machine stood still, at most |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for system in System::all() {
        let name = system.name();
        if !is_wanted(&name) {
            continue;
        }
        let mut stacked = Stacked::up(system).await.with_context(|| name.clone())?;
        for fault in Fault::ALL {
            let (mut gaps, mut moves, mut both) = (Vec::new(), 0, 0);
            let mut silence = Duration::ZERO;
            let began = Instant::now();
            for _ in 0..times {
                let seen = fault.happen(&mut stacked).await;
                let seen = seen.with_context(|| format!("{name}, {fault}\n{}", stacked.logs()))?;
                eprintln!("{name}, {fault}: {seen:?}");
                gaps.push(seen.gap.as_secs_f64());
                moves += seen.moves;
                silence = silence.max(seen.silence);
                both += usize::from(seen.two);
            }
            gaps.sort_by(f64::total_cmp);
            let still = pauses::so_far().longest(began, Instant::now()).as_secs_f64();
            let (least, most) = (gaps.first().context("none")?, gaps.last().context("none")?);
            println!(
                "| {name} | {fault} | {times} | {least:.2} s | {most:.2} s | {moves} | {:.2} s | {both} | {still:.2} s |",
                silence.as_secs_f64()
            );
        }
        stacked.lab.down()?;
    }
    Ok(())
}

fn number(variable: &str) -> Result<Option<usize>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number > 0);
    let number = number.with_context(|| format!("{variable}={text}: a number from 1 is accepted"));
    number.map(Some)
}
