//! Owns what it costs to update a cluster from version 1 of the wire to version 2 and to go back, node by node: no more than
//! to restart the same nodes in the same order.

use crate::faults::{Fault, Plan};
use crate::machine::{MILLI, SECOND, Time};
use crate::random::Random;
use crate::seconds;
use crate::world::{Settings, World};

/// When the first node is updated, and how long until the next one: all vote again by then.
const BEGIN: Time = 3 * SECOND;
const EACH: Time = 4 * SECOND;

/// What a client asks for an address this often.
const ASK: Time = MILLI;

/// How a process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It hands over before.
    Leave,
    /// It is killed, and starts so much later.
    Kill(Time),
}

/// What the client saw, and the hosts.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    /// The longest time for which nobody answered for some address.
    silence: Time,
    /// How often a host was sent what it cannot tell from a forgery.
    alarms: u64,
}

impl Cost {
    fn or(self, other: Self) -> Self {
        let silence = self.silence.max(other.silence);
        Self { silence, alarms: self.alarms.max(other.alarms) }
    }
}

/// All orders of so many nodes.
fn orders(nodes: usize) -> Vec<Vec<usize>> {
    if nodes == 0 {
        return vec![Vec::new()];
    }
    let longer = |shorter: Vec<usize>| {
        (0..nodes).map(move |at| {
            let mut order = shorter.clone();
            order.insert(at, nodes - 1);
            order
        })
    };
    orders(nodes - 1).into_iter().flat_map(longer).collect()
}

/// Restarts the nodes in one order, and in another one. With `versions` the first time with version 2, which they did not
/// know before, then with version 1 again.
fn cost(there: &[usize], back: &[usize], end: End, versions: bool, seed: u64) -> Cost {
    let hosts = there.len();
    let steps: Vec<_> = there
        .iter()
        .map(|host| (*host, false))
        .chain(back.iter().map(|host| (*host, true)))
        .collect();
    let mut plan = Plan::calm(hosts, BEGIN + EACH * steps.len() as Time);
    (plan.healed, plan.addresses) = (plan.end, 3);
    plan.former.fill(versions);
    for (at, (host, former)) in (0..).map(|step| BEGIN + EACH * step).zip(&steps) {
        let former = *former && versions;
        plan.faults.push((at, Fault::Program { host: *host, former }));
        plan.faults.push((
            at,
            match end {
                End::Leave => Fault::Leave { host: *host },
                End::Kill(down) => Fault::Kill { host: *host, down },
            },
        ));
    }
    let last = plan.end;
    let mut world = World::new(plan, seed, Settings::default());
    world.run_to(BEGIN - 1);
    let mut cost = Cost::default();
    let mut answered = vec![world.now; world.addresses.len()];
    while world.now < last {
        world.run_to(world.now + ASK);
        for (address, answered) in world.addresses.iter().zip(&mut answered) {
            cost.silence = cost.silence.max(world.now - *answered);
            if !world.answering(*address).is_empty() {
                *answered = world.now;
            }
        }
        if world.now % EACH == BEGIN % EACH - 1 || world.now >= last {
            let live =
                world.hosts.iter().filter_map(|host| Some(host.process.as_ref()?.live().count()));
            assert!(live.eq(vec![hosts; hosts]), "{there:?}, {back:?}: at {}", world.now);
        }
    }
    assert_eq!(world.oracle.overlaps, [], "{there:?}, {back:?}");
    Cost { alarms: world.alarms, ..cost }
}

#[test]
fn an_update_and_the_way_back_cost_no_more_than_restarts_in_each_order() {
    // Who is killed is replaced when the last promise to it is over; of two nodes, neither can do that alone.
    let crash = 450 * MILLI;
    let ways = [
        (2, End::Leave, 20 * MILLI),
        (3, End::Leave, 20 * MILLI),
        (2, End::Kill(MILLI), crash),
        (3, End::Kill(MILLI), crash),
        (3, End::Kill(300 * MILLI), crash),
        (3, End::Kill(3 * SECOND), crash),
    ];
    let mut random = Random::new(7);
    for (nodes, end, limit) in ways {
        let orders = orders(nodes);
        let (mut restarts, mut updates) = (Cost::default(), Cost::default());
        for there in &orders {
            for back in &orders {
                for _ in 0..seconds().div_ceil(6) {
                    let seed = random.number();
                    if there == back {
                        restarts = restarts.or(cost(there, back, end, false, seed));
                    }
                    updates = updates.or(cost(there, back, end, true, seed));
                }
            }
        }
        println!("{nodes} nodes, {end:?}: restarts {restarts:?}, updates {updates:?}");
        assert!(updates.silence < limit, "{nodes} nodes, {end:?}: {updates:?}");
        // Whoever is away for a moment has been missed by then.
        assert!(
            updates.alarms == 0 || end == End::Kill(MILLI),
            "{nodes} nodes, {end:?}: {updates:?}"
        );
    }
}
