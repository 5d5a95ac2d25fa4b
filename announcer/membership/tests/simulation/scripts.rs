//! Owns schedules that lead straight to where one rule is all that keeps two nodes apart. Chance still draws clocks,
//! delays and the phases of heartbeats, so each is a family of schedules.
//!
//! Node 0 holds the address to begin with, being the only candidate; another may ask for it later.

use crate::faults::{Fault, Plan, Program};
use crate::machine::{MILLI, SECOND, Time};
use crate::network::Weather;
use crate::random::Random;

/// When the first fault of a script happens: everything is served by then, and still.
const QUIET: Time = SECOND;

struct Script {
    plan: Plan,
}

impl Script {
    fn new(hosts: usize) -> Self {
        let mut plan = Plan::calm(hosts, QUIET + 2 * SECOND);
        plan.healed = plan.end;
        let mut script = Self { plan };
        (1..hosts).for_each(|host| script.may(0, host, false));
        script
    }

    /// A fault so many milliseconds after all was quiet.
    fn at(mut self, millis: u64, fault: Fault) -> Self {
        self.plan.faults.push((QUIET + millis * MILLI, fault));
        self
    }

    fn may(&mut self, at: Time, host: usize, may: bool) {
        for address in 0..self.plan.addresses {
            self.plan.faults.push((at, Fault::Candidate { host, address, may }));
        }
    }

    /// From then on the host may have the address.
    fn candidate(mut self, millis: u64, host: usize) -> Self {
        self.may(QUIET + millis * MILLI, host, true);
        self
    }

    /// The hosts hear nothing of each other from one time to another.
    fn apart(mut self, from: u64, to: u64, one: &[usize], other: &[usize]) -> Self {
        for one in one {
            for other in other {
                self = self.deaf(from, to, *one, *other).deaf(from, to, *other, *one);
            }
        }
        self
    }

    /// What one host sends does not reach the other.
    fn deaf(self, from: u64, to: u64, sender: usize, receiver: usize) -> Self {
        let span = (to - from) * MILLI;
        self.at(from, Fault::Cut { from: sender, to: receiver, span })
    }

    fn without_api(self, from: u64, to: u64, hosts: &[usize]) -> Self {
        let cut = |script: Self, host: &usize| {
            script.at(from, Fault::ApiCut { host: *host, span: (to - from) * MILLI })
        };
        hosts.iter().fold(self, cut)
    }

    fn propose(self, millis: u64, host: usize, voters: &[usize]) -> Self {
        self.at(millis, Fault::Propose { host, voters: voters.to_vec() })
    }

    fn take(self, millis: u64, host: usize) -> Self {
        self.candidate(millis, host).at(millis, Fault::Take { host, address: 0 })
    }

    fn done(mut self) -> Plan {
        self.plan.faults.sort_by_key(|(at, _)| *at);
        self.plan
    }
}

/// For ever, as far as a script goes.
const LAST: u64 = 2_000;

/// Node 1 has not heard the holder for so long that it granted node 2 a claim. Then the holder and node 2 lose each
/// other, and before the last promise of node 2 runs out, nodes 0 and 1 go over to a view without node 2.
pub(crate) fn promise_left_behind(_: &mut Random) -> Plan {
    Script::new(3)
        .deaf(0, 790, 0, 1)
        .apart(500, LAST, &[0], &[2])
        .take(770, 2)
        .without_api(770, LAST, &[2])
        .apart(785, LAST, &[1], &[2])
        .propose(787, 0, &[0])
        .done()
}

/// The holder goes over to views of its own, while the other two, who cannot know, give its address away.
pub(crate) fn cut_off(_: &mut Random) -> Plan {
    Script::new(3)
        .apart(0, LAST, &[0], &[1, 2])
        .without_api(0, LAST, &[1, 2])
        .candidate(50, 2)
        .propose(150, 0, &[0, 1])
        .propose(200, 0, &[0])
        .done()
}

/// Of five voters the holder reaches one, which alone makes the next view; what it granted before arrives after.
pub(crate) fn late_grant(_: &mut Random) -> Plan {
    let held_up = Weather { late: 0.5, latest: 90 * MILLI, ..Weather::FAIR };
    Script::new(5)
        .apart(0, LAST, &[0, 1], &[2, 3, 4])
        .without_api(0, LAST, &[2, 3, 4])
        .at(200, Fault::Weather { weather: held_up, span: 140 * MILLI })
        .propose(260, 1, &[1])
        .take(350, 2)
        .done()
}

/// Of three voters the holder, node 3, moves its leases from one to the next, each time to one that restarts and has
/// forgotten that it granted node 4 a claim; and each time the one left behind grants node 4 as well.
pub(crate) fn forgotten_twice(_: &mut Random) -> Plan {
    let mut plan = Plan::calm(5, QUIET + SECOND);
    (plan.voters, plan.healed) = (3, plan.end);
    let mut script = Script { plan };
    [0, 1, 2, 4].into_iter().for_each(|host| script.may(0, host, false));
    script
        .deaf(0, 565, 3, 0)
        .deaf(400, 768, 3, 1)
        .deaf(530, LAST, 3, 2)
        .take(538, 4)
        .at(550, Fault::Kill { host: 0, down: MILLI })
        .at(765, Fault::Kill { host: 1, down: MILLI })
        .apart(766, LAST, &[4], &[0, 1])
        .done()
}

/// The same where a list says who votes: the voters have no API that they could wait for.
pub(crate) fn forgotten_twice_by_a_list(random: &mut Random) -> Plan {
    forgotten_twice(random).by_list()
}

/// A voter that sealed the first view restarts, out of touch with whoever is in the second one.
pub(crate) fn sealed_and_restarted(_: &mut Random) -> Plan {
    Script::new(3)
        .apart(0, LAST, &[0], &[2])
        .apart(0, 100, &[1], &[2])
        .without_api(0, LAST, &[2])
        .propose(20, 0, &[0])
        .apart(100, LAST, &[0], &[1])
        .at(100, Fault::Kill { host: 1, down: MILLI })
        .without_api(140, LAST, &[1])
        .candidate(150, 2)
        .done()
}

/// The same where each begins with what it finds on its disk.
pub(crate) fn sealed_and_restarted_without_api(_: &mut Random) -> Plan {
    let plan = Script::new(3)
        .apart(0, LAST, &[0], &[2])
        .apart(0, 300, &[1], &[2])
        .without_api(0, LAST, &[2])
        .propose(20, 0, &[0])
        .apart(300, LAST, &[0], &[1])
        .without_api(290, LAST, &[1])
        .at(300, Fault::Kill { host: 1, down: MILLI })
        .candidate(350, 2)
        .done();
    Plan { kept: true, ..plan }
}

/// A voter skips the view in which the others sealed the first one, and is the only one of the next.
pub(crate) fn skipped_view(_: &mut Random) -> Plan {
    Script::new(3)
        .apart(0, LAST, &[2], &[0, 1])
        .without_api(0, 640, &[2])
        .candidate(0, 2)
        .propose(600, 1, &[1, 2])
        .propose(640, 1, &[2])
        .done()
}

/// Answers to the holder take their time, and then nobody hears it.
pub(crate) fn slow_answers(_: &mut Random) -> Plan {
    let slow = Weather { late: 0.5, latest: 300 * MILLI, ..Weather::FAIR };
    Script::new(3)
        .at(200, Fault::Weather { weather: slow, span: 100 * MILLI })
        .deaf(300, LAST, 0, 1)
        .deaf(300, LAST, 0, 2)
        .take(620, 1)
        .done()
}

/// A list that does not fit a heartbeat, of addresses that another node has.
pub(crate) fn long_list(_: &mut Random) -> Plan {
    let mut script = Script { plan: Plan::calm(3, QUIET + SECOND) };
    script.plan.addresses = 20;
    (script.plan.v6, script.plan.datagram, script.plan.burst) = (true, 512, 1);
    script.plan.healed = script.plan.end;
    script.may(0, 1, false);
    script.may(0, 2, false);
    script.may(QUIET, 2, true);
    (0..20).fold(script, |script, address| script.at(1, Fault::Take { host: 2, address })).done()
}

impl Script {
    /// From then on the host asks for a lease of so many milliseconds, whatever happens.
    fn ask(self, millis: u64, host: usize, lease: u64) -> Self {
        self.at(millis, Fault::Ask { host, lease: Some(lease * MILLI) })
    }

    /// Nobody hears the holder any more, and the last of three hosts asks for what it has, again and again.
    fn unheard(self, from: u64) -> Self {
        let script = self.deaf(from, LAST, 0, 1).deaf(from, LAST, 0, 2).candidate(from + 20, 2);
        (2..40).fold(script, |script, turn| {
            script.at(from + 15 * turn, Fault::Take { host: 2, address: 0 })
        })
    }
}

/// The holder asks for more than its view allows, of voters that say so.
pub(crate) fn asks_for_more(_: &mut Random) -> Plan {
    Script::new(3).ask(0, 0, 500).unheard(300).done()
}

/// The same of voters that know no other lease than the one that every version promises.
pub(crate) fn asks_who_does_not_say(_: &mut Random) -> Plan {
    let mut script = Script::new(3);
    script.plan.programs[1..].fill(Program::Second);
    script.ask(0, 0, 500).unheard(300).done()
}

/// The holder asks for less when it has been promised more.
pub(crate) fn asks_for_less(_: &mut Random) -> Plan {
    Script::new(3).ask(0, 0, 350).ask(285, 0, 100).unheard(330).done()
}

/// Both voters beside the holder forget what they promised, in a view that allows long leases.
pub(crate) fn forgotten_long_leases(_: &mut Random) -> Plan {
    let mut script = Script::new(3);
    script.plan.ceiling = 500 * MILLI;
    forgotten(script)
}

/// The same in one that does not, where an older program takes the place of theirs.
pub(crate) fn forgotten_by_an_older_program(_: &mut Random) -> Plan {
    let program = |host| Fault::Program { host, program: Program::Second };
    forgotten(Script::new(3).at(0, program(1)).at(0, program(2)))
}

fn forgotten(script: Script) -> Plan {
    let kill = |host| Fault::Kill { host, down: MILLI };
    script.ask(0, 0, 500).at(300, kill(1)).at(300, kill(2)).unheard(299).done()
}

/// The holder is killed, and somebody outlives it.
pub(crate) fn outlived(random: &mut Random) -> Plan {
    let mut script = Script::new(3);
    script.plan.watched = true;
    let kill = Fault::Kill { host: 0, down: 800 * MILLI };
    script.at(300 + random.below(50), kill).candidate(200, 1).candidate(200, 2).done()
}

/// The process stalls anywhere, also between deciding and doing, while the address is moved to and fro.
pub(crate) fn stalls(_: &mut Random) -> Plan {
    let mut script = Script { plan: Plan::calm(3, QUIET + 6 * SECOND) };
    (script.plan.stall, script.plan.longest_stall) = (0.02, 1_000 * MILLI);
    script.plan.healed = script.plan.end;
    for turn in 0..30 {
        let hand_over = |host| Fault::HandOver { host, address: 0 };
        script = (0..3).fold(script, |script, host| script.at(turn * 200, hand_over(host)));
    }
    script.done()
}
