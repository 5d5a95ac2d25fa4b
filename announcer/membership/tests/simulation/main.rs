//! Simulates clusters of the real state machines under faults, and judges from outside whether two kernels ever answer
//! for one address, and whether every address is answered for again once all is well.
//!
//! | variable | |
//! |---|---|
//! | `BERTH_SIMULATION_SECONDS` | how long each family of schedules is explored (6) |
//! | `BERTH_SIMULATION_FIRST` | the first seed (0) |
//! | `BERTH_SIMULATION_SEED` | replays one schedule of each family, with a trace |
#![allow(clippy::unwrap_used)]

mod api;
mod explore;
mod faults;
mod field;
mod machine;
mod mutations;
mod network;
mod oracle;
mod queue;
mod random;
mod scripts;
mod takeover;
mod tiers;
mod updates;
mod world;

use std::time::Duration;

use explore::{Bounds, Tally, explore};
use faults::Plan;
use random::Random;
use world::Settings;

fn number(variable: &str, otherwise: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text}: must be a number")),
        Err(_) => otherwise,
    }
}

/// How long each family is explored.
fn seconds() -> u64 {
    number("BERTH_SIMULATION_SECONDS", 6)
}

/// Explores a family, or replays one schedule of it.
fn explored(family: &str, plan: impl Fn(&mut Random) -> Plan + Sync) {
    let replayed = std::env::var_os("BERTH_SIMULATION_SEED").is_some();
    let bounds = if replayed {
        let first = number("BERTH_SIMULATION_SEED", 0);
        Bounds { first, schedules: 1, time: Duration::MAX, until_overlap: false }
    } else {
        Bounds {
            first: number("BERTH_SIMULATION_FIRST", 0),
            schedules: u64::MAX,
            time: Duration::from_secs(seconds()),
            until_overlap: false,
        }
    };
    let settings = Settings { trace: replayed, ..Settings::default() };
    let tally = explore(bounds, settings, plan);
    let Tally { schedules, events, moves, .. } = tally;
    println!("{family}: {schedules} schedules, {events} events, {moves} moves");
    tally.assert_one_owner(family);
    tally.assert_served(family);
}

#[test]
fn no_two_kernels_answer_and_every_address_is_served_again() {
    explored("random", Plan::random);
}

#[test]
fn no_two_kernels_answer_while_nodes_are_emptied_and_every_address_is_served_again() {
    explored("emptied", Plan::emptied);
}

#[test]
fn no_two_kernels_answer_where_views_are_kept_and_every_address_is_served_again() {
    explored("kept", Plan::kept);
}

#[test]
fn no_two_kernels_answer_where_views_are_kept_whatever_nodes_ask_for() {
    explored("kept, pressed", Plan::kept_pressed);
}

#[test]
fn no_two_kernels_answer_while_nodes_are_updated_and_every_address_is_served_again() {
    explored("mixed", Plan::mixed);
}

#[test]
fn no_two_kernels_answer_while_nodes_are_updated_whatever_they_ask_for() {
    explored("mixed, pressed", Plan::mixed_pressed);
}

#[test]
fn no_two_kernels_answer_by_a_list_of_members_and_every_address_is_served_again() {
    explored("listed", Plan::listed);
}

#[test]
fn no_two_kernels_answer_by_a_list_of_members_whatever_nodes_ask_for() {
    explored("listed, pressed", Plan::listed_pressed);
}

#[test]
fn no_two_kernels_answer_whatever_nodes_ask_for() {
    explored("pressed", Plan::pressed);
}
