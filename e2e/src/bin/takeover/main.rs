//! `make bench-takeover`: how long an address is silent when the node that answers for it crashes, and whether two ever
//! answer, for Berth and for others in labs of the same kind, one after the other.
//!
//! Prints a Markdown report. Figures of one run are comparable with each other, not with another machine's.

mod busy;
mod crashes;
mod ears;
mod faults;

use anyhow::{Context, Result};
use berth_e2e::rivals::System;

use crate::crashes::{BLOCK, Measured, PROBE};
use crate::ears::PAUSE;

#[tokio::main]
async fn main() -> Result<()> {
    let crashes = number("BERTH_BENCH_CRASHES")?.unwrap_or(10);
    // Words that names must contain, e.g. "Berth": what is not asked for is left out.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    let mut systems = Vec::new();
    for system in System::all() {
        let name = system.name()?;
        if is_wanted(&name) {
            systems.push((system, name));
        }
    }
    println!("# Takeover\n");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{}, {cores} cores. `make bench-takeover` prints this.\n",
        jiff::Zoned::now().strftime("%Y-%m-%d")
    );
    println!(
        "## The owner's node crashes: longest gap of a client that connects every {PROBE:?}\n"
    );
    println!("In blocks of {BLOCK} in a lab of their own, of each system in turn.\n");
    println!(
        "| system | nodes | crashes | p50 | p99 | max | with two answering | at most for | with a further move | frames looked at | machine stood still, at most | in blocks without a pause: crashes | p50 | p99 | max |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut measured: Vec<Measured> =
        systems.into_iter().map(|(system, name)| Measured::new(system, name, crashes)).collect();
    while measured.iter().any(|one| one.left > 0) {
        for one in measured.iter_mut().filter(|one| one.left > 0) {
            one.block().await.with_context(|| one.name.clone())?;
        }
    }
    measured.iter().for_each(Measured::print);
    let berth = System::Berth { nodes: 3 };
    let is_wanted = is_wanted(&berth.name()?);
    if let Some(count) = number("BERTH_BENCH_FAULTS")?.filter(|_| is_wanted) {
        faults::measure(berth, count).await?;
    }
    println!("\n## All processes of the owner's node are stopped for {PAUSE:?}\n");
    println!(
        "| system | nodes | longest gap of the client | two answered for | frames looked at |"
    );
    println!("|---|---|---|---|---|");
    for Measured { name, system, pause, .. } in measured {
        let pause = pause.context("no pause")?;
        let (gap, both) = (pause.gap.as_secs_f64(), pause.both.unwrap_or_default().as_secs_f64());
        println!("| {name} | {} | {gap:.2} s | {both:.2} s | {} |", system.nodes(), pause.frames);
    }
    // The processors are taken away from now on.
    match number("BERTH_BENCH_BUSY")?.filter(|_| is_wanted) {
        Some(minutes) => busy::measure(berth, minutes).await,
        None => Ok(()),
    }
}

fn number(variable: &str) -> Result<Option<usize>> {
    let Ok(text) = std::env::var(variable) else { return Ok(None) };
    let number = text.parse().ok().filter(|number| *number > 0);
    let number = number.with_context(|| format!("{variable}={text}: a number from 1 is accepted"));
    number.map(Some)
}
