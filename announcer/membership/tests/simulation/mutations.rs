//! Owns the proof that the rules are needed: each is taken out, and the simulation finds two owners. With all rules in
//! place, no schedule of the same families has two.

use std::time::Duration;

use crate::explore::{Bounds, explore, run};
use crate::faults::Plan;
use crate::random::Random;
use crate::world::Settings;
use crate::{scripts, seconds};

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
            name: concat!(stringify!($rule), ", ", stringify!($family)),
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
    rule!(promise_outlasts_lease, Plan::pressed, 79),
    rule!(promise_is_kept, scripts::asks_for_less, 0),
    rule!(ceiling, scripts::forgotten_by_an_older_program, 0),
    rule!(said_lease, scripts::asks_for_more, 0),
    rule!(unsaid_lease, scripts::asks_who_does_not_say, 0),
    rule!(longest_wait, scripts::forgotten_long_leases, 0),
    rule!(majority, Plan::pressed, 5),
    rule!(lease_from_send, scripts::slow_answers, 3),
    rule!(lapsed_is_lost, Plan::pressed, 48),
    rule!(versions, scripts::long_list, 0),
    rule!(second_majority, scripts::promise_left_behind, 0),
    rule!(grants_of_my_epoch, scripts::late_grant, 0),
    rule!(grants_of_active_view, scripts::cut_off, 0),
    rule!(seal, scripts::cut_off, 0),
    rule!(pending_previous, scripts::cut_off, 0),
    rule!(wait_after_activation, Plan::pressed, 4),
    rule!(two_voter_conditions, scripts::skipped_view, 0),
    rule!(restart_wait, scripts::forgotten_twice, 2),
    rule!(restart_wait, scripts::forgotten_twice_by_a_list, 3),
    rule!(entry_is_no_pass, Plan::pressed, 1195),
    rule!(mute_first, scripts::stalls, 418),
    duty!(absolute_deadline, scripts::stalls, 83),
    duty!(fresh_read, scripts::sealed_and_restarted, 0),
    duty!(compare_and_swap, Plan::pressed, 57),
    duty!(mute_before_farewell, scripts::outlived, 0),
    duty!(kept_before_said, scripts::sealed_and_restarted_without_api, 0),
];

/// How many schedules are tried when the code has changed and a seed leads elsewhere.
const SEARCH: u64 = 5_000;

fn overlaps(mutation: &Mutation, seed: u64, settings: Settings) -> bool {
    !run(seed, settings, mutation.family).overlaps.is_empty()
}

#[test]
fn without_any_one_rule_two_kernels_answer() {
    for mutation in MUTATIONS {
        let mut settings = Settings::default();
        (mutation.take_out)(&mut settings);
        if overlaps(mutation, mutation.seed, settings) {
            continue;
        }
        let bounds = Bounds {
            first: 0,
            schedules: SEARCH,
            time: Duration::from_secs(120),
            until_overlap: true,
        };
        let tally = explore(bounds, settings, mutation.family);
        let seeds: Vec<_> = tally.overlaps.keys().collect();
        println!("{}: seed {} is out of date, these do: {seeds:?}", mutation.name, mutation.seed);
        let tried = tally.schedules;
        assert!(!seeds.is_empty(), "{}: {tried} schedules do without it", mutation.name);
    }
}

#[test]
#[ignore = "prints the table in docs/fenced-ownership.md"]
fn in_so_many_of_three_hundred_schedules_two_kernels_answer_without_a_rule() {
    for mutation in MUTATIONS {
        let mut settings = Settings::default();
        (mutation.take_out)(&mut settings);
        let time = Duration::MAX;
        let bounds = Bounds { first: 0, schedules: 300, time, until_overlap: false };
        let tally = explore(bounds, settings, mutation.family);
        println!("{}: {}", mutation.name, tally.overlaps.len());
    }
}

#[test]
fn with_all_rules_the_same_schedules_have_one_owner() {
    for mutation in MUTATIONS {
        assert!(!overlaps(mutation, mutation.seed, Settings::default()), "{}", mutation.name);
        let schedules = 7 * seconds();
        let bounds = Bounds { first: 0, schedules, time: Duration::MAX, until_overlap: false };
        explore(bounds, Settings::default(), mutation.family).assert_one_owner(mutation.name);
    }
}

#[test]
fn every_rule_is_taken_out_once() {
    let mut settings = Settings::default();
    MUTATIONS.iter().for_each(|mutation| (mutation.take_out)(&mut settings));
    let left = format!("{settings:?}");
    assert!(!left.contains("true"), "{left}");
}
