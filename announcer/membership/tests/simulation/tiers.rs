//! Owns that nobody is silent for being cordoned or emptied: whoever can reach an address has it while nobody better does.

use crate::faults::{Fault, Plan};
use crate::machine::{MILLI, SECOND, Time};
use crate::random::Random;
use crate::seconds;
use crate::world::{Settings, World};

/// All have joined by then.
const BEGIN: Time = 3 * SECOND;

/// Between two nodes that go: the one before is back by then, and may vote.
const EACH: Time = 5 * SECOND;

/// Nobody waits longer for an address. Four better nodes may be there that cannot have it, which only they know: each is
/// waited for, and then what they had asked for in the meantime is over.
const SILENT: Time = 1_500 * MILLI;

/// What a client asks for an address this often.
const ASK: Time = 5 * MILLI;

/// Nodes go one at a time, most of them owners, while some are cordoned, emptied or cannot have the address.
fn plan(random: &mut Random) -> Plan {
    let hosts = random.pick(&[3, 3, 4, 5]);
    let turns = 3;
    let end = BEGIN + EACH * turns;
    let mut plan = Plan::calm(hosts, end);
    (plan.healed, plan.addresses) = (end, random.pick(&[1, 3]));
    plan.empty(random);
    plan
}

/// The longest time for which nobody answered for an address although somebody who lives could.
fn silence(seed: u64, trace: bool) -> Time {
    let mut random = Random::new(seed);
    let plan = plan(&mut random);
    let end = plan.end;
    let settings = Settings { trace, ..Settings::default() };
    let mut world = World::new(plan, random.number(), settings);
    world.run_to(BEGIN - 1);
    let (mut longest, mut next) = (0, BEGIN);
    let mut answered = vec![world.now; world.addresses.len()];
    while world.now < end {
        if world.now >= next {
            next += EACH;
            let owner = world.answering(world.addresses[0]).first().copied();
            let any = random.below(world.hosts.len() as u64) as usize;
            let host = owner.filter(|_| random.chance(0.8)).unwrap_or(any);
            let down = random.between(500, 1_500) * MILLI;
            world.fail(match random.below(3) {
                0 => Fault::Leave { host },
                1 => Fault::Kill { host, down },
                _ => Fault::Crash { host, down },
            });
        }
        world.run_to(world.now + ASK);
        for (at, answered) in answered.iter_mut().enumerate() {
            if !world.answering(world.addresses[at]).is_empty() || !world.could_answer(at) {
                *answered = world.now;
            }
            longest = longest.max(world.now - *answered);
        }
    }
    assert_eq!(world.oracle.overlaps, [], "seed {seed}");
    longest
}

#[test]
fn an_address_is_never_silent_while_one_living_candidate_can_reach_it() {
    if let Ok(seed) = std::env::var("BERTH_SIMULATION_SEED") {
        println!("{} ms", silence(seed.parse().unwrap(), true) / MILLI);
        return;
    }
    let schedules = 25 * seconds();
    let silences: Vec<_> =
        (0..schedules).map(|seed| (silence(seed, false) / MILLI, seed)).collect();
    let (longest, seed) = silences.iter().max().unwrap();
    println!("{schedules} schedules: at most {longest} ms, with seed {seed}");
    let late: Vec<_> = silences.iter().filter(|(silent, _)| *silent > SILENT / MILLI).collect();
    assert!(late.is_empty(), "{late:?}");
}

/// Who answers at the end, how often it moved and for how long at most nobody answered, where the tiers of all hosts are
/// these, some cannot have the address, and `first` has it when all have heard of the tiers of the others.
fn ends_with(tiers: &[(u8, bool)], unable: &[usize], first: usize) -> (Vec<usize>, u64, Time) {
    let mut plan = Plan::calm(tiers.len(), BEGIN + 10 * SECOND);
    plan.healed = plan.end;
    unable.iter().for_each(|host| plan.unable[*host] = true);
    for host in (0..tiers.len()).filter(|host| *host != first) {
        plan.faults.push((0, Fault::Candidate { host, address: 0, may: false }));
        plan.faults.push((BEGIN - SECOND, Fault::Candidate { host, address: 0, may: true }));
    }
    for (host, (tier, moves)) in tiers.iter().enumerate() {
        let at = if host == first { BEGIN } else { BEGIN - 500 * MILLI };
        plan.faults.push((at, Fault::Tier { host, tier: *tier, moves: *moves }));
    }
    plan.faults.sort_by_key(|(at, _)| *at);
    let end = plan.end;
    let mut world = World::new(plan, 1, Settings::default());
    world.run_to(BEGIN);
    assert_eq!(world.answering(world.addresses[0]), [first]);
    let (mut silent, mut answered) = (0, world.now);
    while world.now < end {
        world.run_to(world.now + MILLI);
        if !world.answering(world.addresses[0]).is_empty() {
            answered = world.now;
        }
        silent = silent.max(world.now - answered);
    }
    (world.answering(world.addresses[0]), world.oracle.moves, silent)
}

#[test]
fn who_is_emptied_hands_over_to_who_is_not_and_keeps_what_nobody_takes() {
    let (stays, cordoned, emptied) = ((0, false), (1, false), (2, true));
    let quick = 20 * MILLI;
    let (at, moves, silent) = ends_with(&[emptied, stays, stays], &[], 0);
    assert!(at != [0] && moves == 1 && silent < quick, "{at:?}, {moves}, {silent}");
    let (at, moves, silent) = ends_with(&[emptied, cordoned, emptied], &[], 0);
    assert!(at == [1] && moves == 1 && silent < quick, "{at:?}, {moves}, {silent}");
    let kept = (vec![0], 0);
    for (tiers, unable) in [
        ([cordoned, stays, stays], &[][..]),
        ([emptied, emptied, emptied], &[]),
        ([emptied, stays, stays], &[1, 2]),
    ] {
        let (at, moves, silent) = ends_with(&tiers, unable, 0);
        assert!(
            (at.clone(), moves) == kept && silent < quick,
            "{tiers:?}: {at:?}, {moves}, {silent}"
        );
    }
    let (at, moves, silent) = ends_with(&[emptied, stays, stays], &[1], 0);
    assert!(at == [2] && moves == 1 && silent < quick, "{at:?}, {moves}, {silent}: the next one");
}
