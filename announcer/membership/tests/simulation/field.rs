//! What users of other lease systems met (`e2e/field/leases.md`), done to a whole cluster in virtual time: an owner that lives
//! loses nothing that leases of 350 ms would have kept, but the first time that something is late.

use crate::faults::{Fault, Plan, Program};
use crate::machine::{MILLI, SECOND, Time};
use crate::network::Weather;
use crate::world::{Settings, World};

/// Leases have become as short as they do.
const SHORT: Time = 110 * SECOND;

/// A client asks this often.
const ASK: Time = 2 * MILLI;

/// For how long nobody answered, each time, and the lease that the owner asks for in the end, in milliseconds.
fn silences(mut plan: Plan, from: Time) -> (Vec<Time>, u128) {
    plan.healed = plan.end;
    let end = plan.end;
    let mut world = World::new(plan, 7, Settings::default());
    world.run_to(from);
    let (mut silences, mut answered) = (Vec::new(), true);
    while world.now < end {
        world.run_to(world.now + ASK);
        assert_eq!(world.oracle.overlaps, []);
        let answers = !world.answering(world.addresses[0]).is_empty();
        if !answers {
            if answered {
                silences.push(0);
            }
            *silences.last_mut().unwrap() += ASK / MILLI;
        }
        answered = answers;
    }
    let (owner, _) = world.oracle.arrivals[&world.addresses[0]];
    let lease = world.hosts[owner].process.as_ref().unwrap().lease();
    (silences, lease.as_millis())
}

/// Node 0 has the address, and the way to the last node and back takes so long each.
fn beside_a_slow_voter(hosts: usize, late: Time, end: Time) -> Plan {
    let mut plan = Plan::calm(hosts, end);
    for host in 1..hosts {
        plan.faults.push((0, Fault::Candidate { host, address: 0, may: false }));
    }
    let slow = hosts - 1;
    for other in 0..slow {
        let ways = [(slow, other), (other, slow)].map(|(from, to)| Fault::Slow { from, to, late });
        plan.faults.extend(ways.map(|fault| (10 * SECOND, fault)));
    }
    plan
}

/// patroni#2375, redpanda#2048, consul#1674: one that follows restarts, and the leader steps down.
#[test]
fn where_one_voter_is_slow_and_another_one_is_lost_the_owner_keeps_what_it_has() {
    for goes in [
        Fault::Kill { host: 1, down: 50 * MILLI },
        Fault::Crash { host: 1, down: 20 * SECOND },
        Fault::Leave { host: 1 },
    ] {
        let mut plan = beside_a_slow_voter(3, 60 * MILLI, SHORT + 3 * SECOND);
        plan.faults.push((SHORT, goes.clone()));
        let (silences, _) = silences(plan, SHORT);
        assert_eq!(silences, [], "{goes:?}");
    }
}

/// etcd#13346, memberlist's Lifeguard: one slow node makes all of them slow.
#[test]
fn a_slow_voter_makes_no_lease_longer_than_it_has_to_be() {
    for (hosts, late, least, most) in [(3, 60, 180, 270), (3, 200, 100, 101), (5, 60, 100, 101)] {
        let plan = beside_a_slow_voter(hosts, late * MILLI, 10 * SECOND + SHORT);
        let (silences, lease) = silences(plan, SHORT);
        assert_eq!(silences, [], "{hosts} nodes, {late} ms");
        assert!((least..=most).contains(&lease), "{hosts} nodes, {late} ms: {lease}");
    }
}

/// keepalived#1705, corosync#473: a network that loses.
#[test]
fn of_ten_datagrams_one_is_lost_and_nothing_else_is() {
    for (hosts, from) in [(2, 5), (3, SHORT / SECOND), (5, 5)] {
        let from = from * SECOND;
        let mut plan = Plan::calm(hosts, from + 30 * SECOND);
        let weather = Weather { loss: 0.1, ..Weather::FAIR };
        plan.faults.push((from, Fault::Weather { weather, span: 30 * SECOND }));
        assert_eq!(silences(plan, from).0, [], "{hosts} nodes");
    }
}

/// libraft#16: repeated heartbeats keep a dead leader alive; overtaken ones.
#[test]
fn datagrams_that_come_twice_and_out_of_order_cost_nothing_and_keep_nobody_alive() {
    let mut plan = Plan::calm(3, SHORT + 20 * SECOND);
    let weather = Weather { loss: 0.0, repeat: 0.2, late: 0.3, latest: 200 * MILLI };
    plan.faults.push((SHORT, Fault::Weather { weather, span: 20 * SECOND }));
    assert_eq!(silences(plan.clone(), SHORT).0, []);
    let crashes = (0..3).map(|host| Fault::Crash { host, down: SECOND });
    plan.faults.extend((SHORT / SECOND + 5..).step_by(5).map(|at| at * SECOND).zip(crashes));
    let (silences, _) = silences(plan, SHORT);
    assert!((1..=3).contains(&silences.len()), "one of them was the owner: {silences:?}");
    assert!(silences.iter().all(|long| *long < 450), "{silences:?}");
}

/// etcd#868, NuRaft#355: a processor's share of a fifth, as by `cpu.max`: 20 ms of each 100.
#[test]
fn a_process_that_is_throttled_costs_one_lease_at_most() {
    for throttled in [1, 3] {
        let mut plan = Plan::calm(3, SHORT + 20 * SECOND);
        for at in (SHORT..plan.end).step_by(100_000_000) {
            let pause = |host: usize| {
                (at + 17 * MILLI * host as Time, Fault::Pause { host, span: 80 * MILLI })
            };
            plan.faults.extend((0..throttled).map(pause));
        }
        let (silences, _) = silences(plan, SHORT);
        assert!(silences.len() <= 1 && silences.iter().all(|long| *long < 450), "{silences:?}");
    }
}

/// keepalived#1206, consul#4046: versions that differ, on a network that loses.
#[test]
fn nodes_of_two_versions_on_a_network_that_loses_keep_what_they_have() {
    for former in [Program::First, Program::Second] {
        for many in [1, 2] {
            let mut plan = Plan::calm(3, 35 * SECOND);
            plan.programs[..many].fill(former);
            let weather = Weather { loss: 0.1, repeat: 0.1, late: 0.1, latest: 20 * MILLI };
            plan.faults.push((5 * SECOND, Fault::Weather { weather, span: 30 * SECOND }));
            assert_eq!(silences(plan, 5 * SECOND).0, [], "{many} of {former:?}");
        }
    }
}
