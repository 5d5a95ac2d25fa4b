//! Owns how long an address is not answered for when its owner goes, in virtual time: nothing here depends on how fast
//! this machine is.

use crate::faults::{Fault, Plan};
use crate::machine::{MILLI, SECOND, Time};
use crate::random::Random;
use crate::seconds;
use crate::world::{Settings, World};

/// Everybody has joined, and node 0 has the address, though it thought others better.
const GOES: Time = 2_300 * MILLI;

/// How node 0 goes.
struct Case {
    hosts: usize,
    goes: Vec<Fault>,
    /// What every node asks for; none: what it thinks right.
    lease: Option<Time>,
    /// Whether somebody outlives its process.
    watched: bool,
}

/// From when node 0 goes until another answers that still does after `watched`, in milliseconds, least first.
fn gaps(case: &Case, watched: Time) -> Vec<f64> {
    let gap = |seed| {
        let mut plan = Plan::calm(case.hosts, GOES + watched);
        (plan.healed, plan.watched) = (plan.end, case.watched);
        plan.faults.extend((0..case.hosts).map(|host| (0, Fault::Ask { host, lease: case.lease })));
        for host in 1..case.hosts {
            plan.faults.push((0, Fault::Candidate { host, address: 0, may: false }));
            let may = Fault::Candidate { host, address: 0, may: true };
            plan.faults.push((GOES - 400 * MILLI, may));
        }
        let mut random = Random::new(seed);
        let at = GOES + random.below(50 * MILLI);
        plan.faults.extend(case.goes.iter().map(|fault| (at, fault.clone())));
        let end = plan.end;
        let mut world = World::new(plan, random.number(), Settings::default());
        world.run_to(end);
        let (host, since) = world.oracle.arrivals[&world.addresses[0]];
        assert!(host != 0 && since > at, "seed {seed}: nobody took over");
        (since - at) as f64 / MILLI as f64
    };
    let mut gaps: Vec<_> = (0..7 * seconds()).map(gap).collect();
    gaps.sort_by(f64::total_cmp);
    gaps
}

/// The median, which is shown, and the longest.
fn shown(what: &str, case: &Case, watched: Time) -> (f64, f64) {
    let gaps = gaps(case, watched);
    let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
    let lease = case.lease.map_or("as it is".to_owned(), |lease| (lease / MILLI).to_string());
    let hosts = case.hosts;
    println!(
        "{what}, {hosts} nodes, lease {lease}: median {median:.1} ms, longest {longest:.1} ms"
    );
    (median, longest)
}

const SHORT: Option<Time> = Some(100 * MILLI);
const LONG: Option<Time> = Some(350 * MILLI);

#[test]
fn a_crash_is_over_with_the_last_promise_and_a_handover_at_once() {
    let crash = Fault::Crash { host: 0, down: 10 * SECOND };
    let hand_over = Fault::HandOver { host: 0, address: 0 };
    for (what, fault, lease, limit) in [
        ("crash", &crash, None, 400.0),
        ("crash", &crash, LONG, 400.0),
        ("crash", &crash, SHORT, 150.0),
        ("handover", &hand_over, None, 5.0),
        ("handover", &hand_over, SHORT, 5.0),
    ] {
        for hosts in [2, 3, 5, 9] {
            // Of two, the one that is left asks the API server first.
            let limit = if hosts == 2 && limit > 5.0 { 400.0 } else { limit };
            let case = Case { hosts, goes: vec![fault.clone()], lease, watched: false };
            let (_, longest) = shown(what, &case, 600 * MILLI);
            assert!(longest < limit, "{what} with {hosts} nodes: {longest} ms");
        }
    }
}

#[test]
fn a_node_that_hears_nobody_is_replaced_as_fast_as_one_that_is_not_heard_and_gets_nothing_back() {
    let span = 10 * SECOND;
    for hosts in [3, 5] {
        let peers = 1..hosts;
        let mute: Vec<_> = peers.clone().map(|to| Fault::Cut { from: 0, to, span }).collect();
        let deaf: Vec<_> = peers.map(|from| Fault::Cut { from, to: 0, span }).collect();
        for (lease, limit) in [(None, 450.0), (LONG, 450.0), (SHORT, 200.0)] {
            let of = |goes: &Vec<_>| Case { hosts, goes: goes.clone(), lease, watched: false };
            let mute = shown("not heard", &of(&mute), 5 * SECOND);
            let deaf = shown("hears nobody", &of(&deaf), 5 * SECOND);
            assert!(mute.1 < limit && deaf.1 < limit, "{mute:?} {deaf:?}");
            assert!(deaf.0 < mute.0 + 60.0, "{mute:?} {deaf:?}");
        }
    }
}

#[test]
fn a_process_that_is_killed_costs_less_than_a_lease_where_somebody_outlives_it() {
    let kill = Fault::Kill { host: 0, down: 10 * SECOND };
    for hosts in [3, 5] {
        let goes = vec![kill.clone()];
        let case = Case { hosts, goes, lease: LONG, watched: true };
        let (median, _) = shown("killed and outlived", &case, 600 * MILLI);
        assert!(median < 200.0, "with {hosts} nodes: {median} ms");
    }
}
