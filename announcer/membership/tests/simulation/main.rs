//! Simulates clusters of the real state machines under faults, and judges from outside whether two kernels ever answer
//! for one address, and whether every address is answered for again once all is well.
//!
//! `BERTH_SIMULATION_SECONDS` is how long random schedules are explored (10), `BERTH_SIMULATION_FIRST` the first seed
//! (0), `BERTH_SIMULATION_SEED` replays one schedule with a trace.
#![allow(clippy::unwrap_used)]

mod api;
mod explore;
mod faults;
mod machine;
mod mutations;
mod network;
mod oracle;
mod queue;
mod random;
mod scripts;
mod world;

use std::time::Duration;

use explore::{Bounds, explore, run};
use faults::Plan;
use world::Settings;

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: must be a number")),
        Err(_) => otherwise,
    }
}

#[test]
fn no_two_kernels_answer_and_every_address_is_served_again() {
    if std::env::var_os("BERTH_SIMULATION_SEED").is_some() {
        let seed = number("BERTH_SIMULATION_SEED", 0);
        let settings = Settings { trace: true, ..Settings::default() };
        let verdict = run(seed, settings, Plan::random);
        println!("{verdict:#?}");
        assert!(verdict.overlaps.is_empty() && verdict.unserved.is_empty(), "seed {seed}");
        return;
    }
    let bounds = Bounds {
        first: number("BERTH_SIMULATION_FIRST", 0),
        schedules: u64::MAX,
        time: Duration::from_secs(number("BERTH_SIMULATION_SECONDS", 10)),
        until_overlap: false,
    };
    let tally = explore(bounds, Settings::default(), Plan::random);
    println!("{} schedules, {} events, {} moves", tally.schedules, tally.events, tally.moves);
    tally.assert_clean();
}
