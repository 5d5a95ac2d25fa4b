//! Owns what goes wrong and when. Each schedule leaves most kinds of faults out and does the others often, so that
//! rare combinations come up (swarm testing).

use crate::machine::{MILLI, SECOND, Time};
use crate::network::Weather;
use crate::random::Random;

#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The process does nothing for a while; the kernel goes on.
    Pause {
        host: usize,
        span: Time,
    },
    /// The process dies; the kernel goes on.
    Kill {
        host: usize,
        down: Time,
    },
    /// The machine dies.
    Crash {
        host: usize,
        down: Time,
    },
    /// One direction carries nothing.
    Cut {
        from: usize,
        to: usize,
        span: Time,
    },
    /// Members hear only members, the others only others.
    Part {
        members: Vec<bool>,
        span: Time,
    },
    /// One direction holds everything up for so long more.
    Slow {
        from: usize,
        to: usize,
        late: Time,
    },
    Weather {
        weather: Weather,
        span: Time,
    },
    ApiDown {
        span: Time,
    },
    ApiCut {
        host: usize,
        span: Time,
    },
    ApiSlow {
        slowest: Time,
        span: Time,
    },
    HandOver {
        host: usize,
        address: usize,
    },
    /// The host's watch says that it may, or may not, have the address.
    Candidate {
        host: usize,
        address: usize,
        may: bool,
    },
    /// How late the host's turn is from now on, and whether it gives what it has to others. Each host hears of it at
    /// another time.
    Tier {
        host: usize,
        tier: u8,
        moves: bool,
    },
    Leave {
        host: usize,
    },
    /// From its next start on the host runs this program.
    Program {
        host: usize,
        program: Program,
    },
    /// From now on the host asks for so long a lease, whatever happens; or none in particular.
    Ask {
        host: usize,
        lease: Option<Time>,
    },
    /// The host, if it is a voter, proposes these hosts, sensible or not.
    Propose {
        host: usize,
        voters: Vec<usize>,
    },
    /// The host asks for the address, though nobody should.
    Take {
        host: usize,
        address: usize,
    },
}

/// What a host runs, by the newest version of the wire that it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Program {
    This,
    Second,
    First,
}

/// One schedule.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) hosts: usize,
    pub(crate) addresses: usize,
    /// Whether addresses are of IPv6, so that fewer fit a datagram.
    pub(crate) v6: bool,
    /// Hosts that are voters from the start; none: the cluster has to begin.
    pub(crate) voters: usize,
    /// What each host begins with.
    pub(crate) programs: Vec<Program>,
    /// The longest lease that the first view allows.
    pub(crate) ceiling: Time,
    /// Whether somebody outlives a process that is killed, mutes the kernel and tells the voters.
    pub(crate) watched: bool,
    /// Hosts that cannot have any address, which only they know.
    pub(crate) unable: Vec<bool>,
    /// Those are the voters for ever, by a list that every host has, and there is no API.
    pub(crate) listed: bool,
    /// Whether each host keeps views on its disk, and begins with what it finds there.
    pub(crate) kept: bool,
    pub(crate) faults: Vec<(Time, Fault)>,
    /// All is well from here on.
    pub(crate) healed: Time,
    pub(crate) end: Time,
    /// How often the process stalls between two outputs, and for how long at most.
    pub(crate) stall: f64,
    pub(crate) longest_stall: Time,
    /// How long a host takes to prepare an address.
    pub(crate) preparation: Time,
    pub(crate) drift_ppm: u64,
    pub(crate) datagram: usize,
    /// How many datagrams a heartbeat may fill.
    pub(crate) burst: usize,
}

/// How long after healing every address must be served.
pub(crate) const RECOVERY: Time = 6_500 * MILLI;

/// What a cluster of so many nodes would vote with.
pub(crate) fn voters_of(hosts: usize) -> usize {
    match hosts {
        0..=2 => hosts,
        3 | 4 => 3,
        _ => 5,
    }
}

impl Plan {
    /// A schedule with nothing going wrong.
    pub(crate) fn calm(hosts: usize, end: Time) -> Self {
        Self {
            hosts,
            addresses: 1,
            v6: false,
            voters: voters_of(hosts),
            programs: vec![Program::This; hosts],
            ceiling: 350 * MILLI,
            watched: false,
            unable: vec![false; hosts],
            listed: false,
            kept: false,
            faults: Vec::new(),
            healed: 0,
            end,
            stall: 0.0,
            longest_stall: 0,
            preparation: 0,
            drift_ppm: 500,
            datagram: 1_400,
            burst: 32,
        }
    }

    /// The schedule of a seed.
    pub(crate) fn random(random: &mut Random) -> Self {
        let hosts = random.pick(&[1, 2, 2, 3, 3, 3, 3, 5, 5, 9]);
        Self::of(random, hosts, &[])
    }

    /// A schedule that has the kinds of faults in `always` among its own.
    pub(crate) fn of(random: &mut Random, hosts: usize, always: &[u64]) -> Self {
        let healed = random.between(1_500, 5_000) * MILLI;
        let mut plan = Self::calm(hosts, healed + RECOVERY);
        plan.healed = healed;
        plan.addresses = random.pick(&[1, 1, 2, 3, 8]);
        plan.v6 = random.chance(0.3);
        plan.voters = match random.below(8) {
            0 => 0,
            1 => 1,
            2 => random.between(1, plan.voters as u64) as usize,
            _ => plan.voters,
        };
        plan.drift_ppm = random.pick(&[0, 500, 990]);
        plan.datagram = random.pick(&[512, 1_400]);
        plan.burst = random.pick(&[1, 2, 32]);
        plan.preparation = random.pick(&[0, 5 * MILLI, 40 * MILLI]);
        if random.chance(0.4) {
            plan.stall = random.pick(&[0.0005, 0.003, 0.02]);
            plan.longest_stall = random.pick(&[30, 400, 1_500]) * MILLI;
        }
        let wanted = random.between(1, 4) as usize;
        let mut kinds = always.to_vec();
        kinds.extend((0..wanted).map(|_| random.below(KINDS)));
        let count = random.between(2, 4 + 2 * hosts as u64);
        for _ in 0..count {
            let at = 500 * MILLI + random.below(healed - 500 * MILLI);
            let kind = random.pick(&kinds);
            plan.add(at, kind, random);
        }
        if random.chance(0.3) {
            plan.press(random);
        }
        plan.vary(random);
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// A short schedule in which everybody asks for everything all the time and views follow each other: policy does
    /// its worst, so that only the rules are left.
    pub(crate) fn pressed(random: &mut Random) -> Self {
        let hosts = random.pick(&[2, 3, 3, 4, 5]);
        let mut plan = Self::of(random, hosts, &[]);
        plan.addresses = random.pick(&[1, 1, 2]);
        plan.end = plan.healed;
        plan.faults.retain(|(_, fault)| !fault.names_address_from(plan.addresses));
        plan.press(random);
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The schedule of a seed for a cluster whose members are those of a list.
    pub(crate) fn listed(random: &mut Random) -> Self {
        let hosts = random.pick(&[1, 2, 3, 3, 3, 4, 5, 5, 9]);
        Self::of(random, hosts, &[]).by_list()
    }

    /// The same where policy does its worst.
    pub(crate) fn listed_pressed(random: &mut Random) -> Self {
        Self::pressed(random).by_list()
    }

    /// The schedule of a seed for a cluster whose nodes keep views on their disks.
    pub(crate) fn kept(random: &mut Random) -> Self {
        let plan = Self::random(random);
        Self { kept: true, ..plan }
    }

    /// The same where policy does its worst, and all start anew without an API server now and then.
    pub(crate) fn kept_pressed(random: &mut Random) -> Self {
        let mut plan = Self::pressed(random);
        plan.kept = true;
        for _ in 0..random.below(3) {
            let at = 500 * MILLI + random.below(plan.healed - 500 * MILLI);
            let span = random.magnitude(40 * MILLI, 3 * SECOND);
            plan.faults.push((at, Fault::ApiDown { span }));
            for host in 0..plan.hosts {
                let down = random.magnitude(MILLI, SECOND);
                if random.chance(0.8) {
                    plan.faults.push((at, Fault::Crash { host, down }));
                }
            }
        }
        plan.faults.sort_by_key(|(at, _)| *at);
        plan
    }

    /// The schedule of a seed for a cluster that is updated meanwhile, and back, in any order.
    pub(crate) fn mixed(random: &mut Random) -> Self {
        let mut plan = Self::random(random);
        plan.mix(random);
        if random.chance(0.2) { plan.by_list() } else { plan }
    }

    /// The same where policy does its worst.
    pub(crate) fn mixed_pressed(random: &mut Random) -> Self {
        let mut plan = Self::pressed(random);
        plan.mix(random);
        plan
    }

    /// The schedule of a seed for a cluster whose nodes are cordoned and emptied meanwhile, in any order, and some of which
    /// can have no address.
    pub(crate) fn emptied(random: &mut Random) -> Self {
        let mut plan = Self::random(random);
        plan.empty(random);
        plan
    }

    /// Tiers at random times, which stay as the last of them are, and all hosts but one unable at most.
    pub(crate) fn empty(&mut self, random: &mut Random) {
        for _ in 0..random.between(1, 3 * self.hosts as u64) {
            let at = random.below(self.healed);
            let host = random.below(self.hosts as u64) as usize;
            let (tier, moves) = random.pick(&[(0, false), (1, false), (2, true), (3, true)]);
            self.faults.push((at, Fault::Tier { host, tier, moves }));
        }
        let able = random.below(self.hosts as u64) as usize;
        for host in (0..self.hosts).filter(|host| *host != able) {
            self.unable[host] = random.chance(0.2);
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// Leases of any length at any time, and processes that are missed at once.
    fn vary(&mut self, random: &mut Random) {
        self.ceiling = random.pick(&[350, 350, 500]) * MILLI;
        self.watched = random.chance(0.5);
        let asked = |random: &mut Random| random.pick(&[100, 100, 150, 250, 350, 500]) * MILLI;
        if random.chance(0.3) {
            return;
        }
        for host in 0..self.hosts {
            let lease = random.chance(0.8).then(|| asked(random));
            self.faults.push((0, Fault::Ask { host, lease }));
        }
        for _ in 0..random.below(3 * self.hosts as u64) {
            let (at, host) = (random.below(self.healed), random.below(self.hosts as u64) as usize);
            let lease = random.chance(0.8).then(|| asked(random));
            self.faults.push((at, Fault::Ask { host, lease }));
        }
    }

    /// Programs of all versions. Those before this one keep no promise of more than 350 ms over a restart.
    fn mix(&mut self, random: &mut Random) {
        use Program::{First, Second, This};
        let programs: &[Program] =
            random.pick(&[&[This, Second][..], &[This, First], &[This, Second, First]]);
        self.ceiling = 350 * MILLI;
        self.programs.fill_with(|| random.pick(programs));
        for _ in 0..random.between(1, 3 * self.hosts as u64) {
            let at = 300 * MILLI + random.below(self.healed - 300 * MILLI);
            let (host, program) = (random.below(self.hosts as u64) as usize, random.pick(programs));
            let down = random.magnitude(MILLI, 2 * SECOND);
            let restarts =
                if random.chance(0.5) { Fault::Leave { host } } else { Fault::Kill { host, down } };
            self.faults.extend([(at, Fault::Program { host, program }), (at, restarts)]);
        }
        self.faults.sort_by_key(|(at, _)| *at);
    }

    /// The same with a list in place of the API.
    pub(crate) fn by_list(mut self) -> Self {
        (self.voters, self.listed) = (self.voters.max(1), true);
        self
    }

    fn press(&mut self, random: &mut Random) {
        let (asked, changed) =
            (random.pick(&[30, 100]) * MILLI, random.pick(&[100, 400, 1_500]) * MILLI);
        for (every, kind) in [(asked / self.hosts as u64, 16), (changed, 15)] {
            let mut at = 400 * MILLI;
            while at < self.healed {
                self.add(at, kind, random);
                at += random.between(1, 2 * every);
            }
        }
    }

    fn add(&mut self, at: Time, kind: u64, random: &mut Random) {
        let hosts = self.hosts as u64;
        let mut host = || random.below(hosts) as usize;
        let (host, other) = (host(), host());
        let span = random.magnitude(40 * MILLI, 3 * SECOND);
        let down = random.magnitude(MILLI, 2 * SECOND);
        let address = random.below(self.addresses as u64) as usize;
        let mut and = |fault| self.faults.push((at, fault));
        match kind {
            0 => and(Fault::Pause { host, span }),
            1 => and(Fault::Kill { host, down }),
            2 => and(Fault::Crash { host, down }),
            3 => and(Fault::Cut { from: host, to: other, span }),
            4 => {
                // One that hears nobody, or that nobody hears.
                let deaf = random.chance(0.5);
                for peer in (0..self.hosts).filter(|peer| *peer != host) {
                    let (from, to) = if deaf { (peer, host) } else { (host, peer) };
                    and(Fault::Cut { from, to, span });
                }
            }
            5 => {
                and(Fault::Part { members: (0..hosts).map(|_| random.chance(0.5)).collect(), span })
            }
            6 => {
                let weather = Weather {
                    loss: random.pick(&[0.0, 0.05, 0.2, 0.5]),
                    repeat: random.pick(&[0.0, 0.1]),
                    late: random.pick(&[0.0, 0.05, 0.3]),
                    latest: random.pick(&[20, 200, 1_500]) * MILLI,
                };
                and(Fault::Weather { weather, span });
            }
            7 => and(Fault::ApiDown { span }),
            8 => and(Fault::ApiCut { host, span }),
            9 => and(Fault::ApiSlow { slowest: random.pick(&[100, 800, 3_000]) * MILLI, span }),
            10 => and(Fault::HandOver { host, address }),
            11 => {
                and(Fault::Candidate { host, address, may: false });
                self.faults.push((at + span, Fault::Candidate { host, address, may: true }));
            }
            12 => and(Fault::Leave { host }),
            // Two that stop together.
            13 => {
                and(Fault::Kill { host, down });
                and(Fault::Kill { host: other, down: down / 2 });
            }
            14 => {
                and(Fault::Crash { host, down });
                and(Fault::Pause { host: other, span });
            }
            15 => {
                let voters: Vec<_> =
                    (0..self.hosts).filter(|_| random.chance(0.5)).take(5).collect();
                and(Fault::Propose { host, voters });
            }
            16 => and(Fault::Take { host, address }),
            // One side has neither the other nor the API.
            _ => {
                let members: Vec<_> = (0..hosts).map(|_| random.chance(0.5)).collect();
                for host in (0..self.hosts).filter(|host| members[*host]) {
                    and(Fault::ApiCut { host, span });
                }
                and(Fault::Part { members, span });
            }
        }
    }
}

impl Fault {
    fn names_address_from(&self, first: usize) -> bool {
        match self {
            Self::HandOver { address, .. }
            | Self::Candidate { address, .. }
            | Self::Take { address, .. } => *address >= first,
            _ => false,
        }
    }
}

/// How many kinds of faults there are.
const KINDS: u64 = 18;
