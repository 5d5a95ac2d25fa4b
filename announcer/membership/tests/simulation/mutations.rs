//! Owns the proof that the rules are needed: each is taken out, and the simulation finds two owners. With all rules in
//! place, no schedule of the same families has two.

use std::time::Duration;

use crate::explore::{Bounds, explore, run};
use crate::faults::Plan;
use crate::random::Random;
use crate::scripts;
use crate::world::Settings;

/// A rule, and where it is needed.
struct Mutation {
    name: &'static str,
    take_out: fn(&mut Settings),
    /// A family of schedules, and the seed of one that has two owners without the rule.
    family: fn(&mut Random) -> Plan,
    seed: u64,
}

macro_rules! rule {
    ($rule:ident, $family:path, $seed:expr) => {
        Mutation {
            name: stringify!($rule),
            take_out: |settings| settings.rules.$rule = false,
            family: $family,
            seed: $seed,
        }
    };
}

/// What the driver has to keep to.
macro_rules! duty {
    ($duty:ident, $family:path, $seed:expr) => {
        Mutation {
            name: stringify!($duty),
            take_out: |settings| settings.$duty = false,
            family: $family,
            seed: $seed,
        }
    };
}

const MUTATIONS: &[Mutation] = &[
    rule!(promises_exclude, Plan::pressed, 0),
    rule!(promise_outlasts_lease, Plan::pressed, 3),
    rule!(majority, Plan::pressed, 3),
    rule!(lease_from_send, scripts::slow_answers, 0),
    rule!(lapsed_is_lost, Plan::pressed, 17),
    rule!(versions, scripts::long_list, 0),
    rule!(second_majority, scripts::promise_left_behind, 0),
    rule!(grants_of_my_epoch, scripts::late_grant, 0),
    rule!(grants_of_active_view, scripts::cut_off, 0),
    rule!(seal, scripts::cut_off, 0),
    rule!(pending_previous, scripts::cut_off, 0),
    rule!(wait_after_activation, Plan::pressed, 0),
    rule!(two_voter_conditions, scripts::skipped_view, 0),
    rule!(restart_wait, scripts::forgotten_twice, 0),
    rule!(entry_is_no_pass, Plan::pressed, 122),
    rule!(mute_first, scripts::stalls, 0),
    duty!(absolute_deadline, scripts::stalls, 0),
    duty!(fresh_read, scripts::sealed_and_restarted, 0),
    duty!(compare_and_swap, Plan::pressed, 46),
];

#[test]
fn rates() {
    let only = std::env::var("ONLY").unwrap_or_default();
    for m in MUTATIONS.iter().filter(|m| m.name.contains(&only)) {
        let scripted = m.name != "x";
        let n = if scripted { 300 } else { 0 };
        let b =
            Bounds { first: 0, schedules: n, time: Duration::from_secs(40), until_overlap: false };
        let mut s = Settings::default();
        let clean = explore(b, s, m.family);
        (m.take_out)(&mut s);
        let tally = explore(b, s, m.family);
        println!(
            "{:24} {:5} of {}, first {:?}; with all rules {}",
            m.name,
            tally.overlaps.len(),
            tally.schedules,
            tally.overlaps.iter().next().map(|(s, o)| (s, o.millis())),
            clean.overlaps.len()
        );
    }
    if let Ok(seed) = std::env::var("BERTH_SIMULATION_SEED") {
        let m = MUTATIONS.iter().find(|m| m.name == only).unwrap();
        let mut s = Settings { trace: true, ..Settings::default() };
        (m.take_out)(&mut s);
        println!("{:?}", run(seed.parse().unwrap(), s, m.family));
    }
}
