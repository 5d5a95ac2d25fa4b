//! Owns what it costs to update a cluster from version 1 or 2 of the wire to version 3 and to go back, node by node: no more
//! than to restart the same nodes in the same order.

use crate::faults::{Fault, Plan, Program};
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

/// The nodes are restarted in one order, and in another one. With a program `before` this one the first time with this one, which
/// knows a version more, then with that one again.
#[derive(Clone, Copy, Debug)]
struct Way<'a> {
    there: &'a [usize],
    back: &'a [usize],
    end: End,
    before: Option<Program>,
}

impl Way<'_> {
    fn cost(self, seed: u64, trace: bool) -> Cost {
        let Self { there, back, end, before } = self;
        let hosts = there.len();
        let steps: Vec<_> = there
            .iter()
            .map(|host| (*host, false))
            .chain(back.iter().map(|host| (*host, true)))
            .collect();
        let mut plan = Plan::calm(hosts, BEGIN + EACH * steps.len() as Time);
        (plan.healed, plan.addresses) = (plan.end, 3);
        let before = before.unwrap_or(Program::This);
        plan.programs.fill(before);
        for (at, (host, former)) in (0..).map(|step| BEGIN + EACH * step).zip(&steps) {
            let program = if *former { before } else { Program::This };
            plan.faults.push((at, Fault::Program { host: *host, program }));
            plan.faults.push((
                at,
                match end {
                    End::Leave => Fault::Leave { host: *host },
                    End::Kill(down) => Fault::Kill { host: *host, down },
                },
            ));
        }
        let last = plan.end;
        let mut world = World::new(plan, seed, Settings { trace, ..Settings::default() });
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
                let live = world
                    .hosts
                    .iter()
                    .filter_map(|host| Some(host.process.as_ref()?.live().count()));
                assert!(live.eq(vec![hosts; hosts]), "{there:?}, {back:?}: at {}", world.now);
            }
        }
        assert_eq!(world.oracle.overlaps, [], "{there:?}, {back:?}");
        Cost { alarms: world.alarms, ..cost }
    }
}

#[test]
fn an_update_and_the_way_back_cost_no_more_than_restarts_in_each_order() {
    // Who is killed is replaced when the last promise to it is over; of two nodes, neither can do that alone.
    let crash = 450 * MILLI;
    // Of two, what the one that stays has waits for the one that restarts.
    let restart = 600 * MILLI;
    let ways = [
        (2, End::Leave, 20 * MILLI),
        (3, End::Leave, 20 * MILLI),
        (2, End::Kill(MILLI), restart),
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
                        let way = Way { there, back, end, before: None };
                        restarts = restarts.or(way.cost(seed, false));
                    }
                    let before = random.pick(&[Program::Second, Program::First]);
                    let way = Way { there, back, end, before: Some(before) };
                    let cost = way.cost(seed, false);
                    if cost.silence >= limit {
                        println!("{way:?}, seed {seed}: {cost:?}");
                        way.cost(seed, true);
                    }
                    updates = updates.or(cost);
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
