//! Owns how long an address is not answered for when its owner goes, in virtual time: nothing here depends on how fast
//! this machine is.

use crate::faults::{Fault, Plan};
use crate::machine::{MILLI, SECOND, Time};
use crate::random::Random;
use crate::seconds;
use crate::world::{Settings, World};

/// Everybody has joined, and node 0 has the address, though it thought others better.
const GOES: Time = 2_300 * MILLI;

/// From when node 0 goes until another answers that still does after `watched`, in milliseconds, least first.
fn gaps(hosts: usize, goes: &[Fault], watched: Time) -> Vec<f64> {
    let gap = |seed| {
        let mut plan = Plan::calm(hosts, GOES + watched);
        plan.healed = plan.end;
        for host in 1..hosts {
            plan.faults.push((0, Fault::Candidate { host, address: 0, may: false }));
            let may = Fault::Candidate { host, address: 0, may: true };
            plan.faults.push((GOES - 400 * MILLI, may));
        }
        let mut random = Random::new(seed);
        let at = GOES + random.below(50 * MILLI);
        plan.faults.extend(goes.iter().map(|fault| (at, fault.clone())));
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

#[test]
fn a_crash_is_over_in_four_tenths_of_a_second_and_a_handover_at_once() {
    let crash = Fault::Crash { host: 0, down: 10 * SECOND };
    let hand_over = Fault::HandOver { host: 0, address: 0 };
    for (what, fault, limit) in [("crash", crash, 400.0), ("handover", hand_over, 5.0)] {
        for hosts in [2, 3, 5, 9] {
            let gaps = gaps(hosts, std::slice::from_ref(&fault), 600 * MILLI);
            let (median, longest) = (gaps[gaps.len() / 2], gaps[gaps.len() - 1]);
            println!("{what}, {hosts} nodes: median {median:.1} ms, longest {longest:.1} ms");
            assert!(longest < limit, "{what} with {hosts} nodes: {longest} ms");
        }
    }
}

#[test]
fn a_node_that_is_cut_one_way_neither_keeps_its_address_nor_gets_it_back() {
    let span = 10 * SECOND;
    for hosts in [3, 5] {
        let peers = 1..hosts;
        let mute: Vec<_> = peers.clone().map(|to| Fault::Cut { from: 0, to, span }).collect();
        let deaf: Vec<_> = peers.map(|from| Fault::Cut { from, to: 0, span }).collect();
        for (what, faults) in [("not heard", mute), ("hears nobody", deaf)] {
            let gaps = gaps(hosts, &faults, 5 * SECOND);
            let longest = gaps[gaps.len() - 1];
            let median = gaps[gaps.len() / 2];
            println!("of {hosts} nodes one {what}: median {median:.1} ms, longest {longest:.1} ms");
            assert!(longest < 1000.0, "of {hosts} nodes one {what}: {longest} ms");
        }
    }
}
