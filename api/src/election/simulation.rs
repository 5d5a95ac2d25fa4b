//! Candidates, an API server and a bad network on one virtual clock.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const TICK: u64 = 20;
const FAULTS_END: u64 = 90_000;
const END: u64 = 180_000;

/// Any generator will do, as long as a failing seed gives the same run again.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.roll(100) < chance
    }
}

#[derive(Default)]
struct Server {
    version: u64,
    lease: Option<Lease>,
    log: Vec<Sight>,
}

impl Server {
    fn serve(&mut self, request: Request) -> Reply {
        match request {
            Request::Read => Reply::Found(self.lease.clone().map(Box::new)),
            Request::Write(lease) if lease.metadata.resource_version.is_none() => {
                if self.lease.is_some() { Reply::Conflict } else { self.store(*lease) }
            }
            Request::Write(lease) => match &self.lease {
                None => Reply::Missing,
                Some(stored) if version(stored) != version(&lease) => Reply::Conflict,
                Some(_) => self.store(*lease),
            },
        }
    }

    fn store(&mut self, mut lease: Lease) -> Reply {
        self.version += 1;
        lease.metadata.resource_version = Some(self.version.to_string());
        self.lease = Some(lease.clone());
        self.log.push(Sight::Present(Box::new(lease.clone())));
        Reply::Written(Box::new(lease))
    }
}

#[derive(Clone)]
enum Request {
    Read,
    Write(Box<Lease>),
}

struct Candidate {
    election: Election,
    lives: u64,
    /// How its clock runs, in parts per thousand of true time.
    rate: u64,
    paused_until: u64,
    outbox: Vec<(u64, Request, Option<u64>)>,
    inbox: Vec<(u64, Reply)>,
    seen: Option<usize>,
    watch_at: u64,
    /// Until when the kernel answers, by its clock. It does so without the process.
    lapses: Option<Instant>,
}

struct World {
    dice: Dice,
    start: Instant,
    time: u64,
    timing: Timing,
    /// So many of the candidates are of one group.
    group: usize,
    server: Server,
    candidates: Vec<Candidate>,
    most: usize,
    most_kernels: usize,
    held: u64,
}

impl World {
    fn new(seed: u64, candidates: usize, group: usize, timing: Timing) -> Self {
        let mut dice = Dice(seed | 1);
        let mut world = Self {
            start: Instant::now(),
            time: 0,
            timing,
            group,
            server: Server::default(),
            candidates: Vec::new(),
            most: 0,
            most_kernels: 0,
            held: 0,
            dice: Dice(seed.rotate_left(17) | 1),
        };
        for _ in 0..candidates {
            let (election, rate) = (world.enter(world.candidates.len(), 0), 990 + dice.roll(21));
            world.candidates.push(Candidate {
                election,
                rate,
                lives: 0,
                paused_until: 0,
                outbox: Vec::new(),
                inbox: Vec::new(),
                seen: None,
                watch_at: 0,
                lapses: None,
            });
        }
        world
    }

    /// Each life has a name of its own, but for those of the group.
    fn enter(&self, index: usize, life: u64) -> Election {
        let mut template = Lease::default();
        template.metadata.name = Some("lock".to_owned());
        if index < self.group {
            let patience = self.timing.retry() * 3 / 2 + Duration::from_millis(150) * index as u32;
            return Election::of_group(template, "group", self.timing, patience);
        }
        Election::new(template, format!("{index}-{life}"), self.timing)
    }

    fn is_stormy(&self) -> bool {
        self.time < FAULTS_END
    }

    fn local(&self, index: usize) -> Instant {
        self.start + Duration::from_millis(self.time * self.candidates[index].rate / 1000)
    }

    fn run(&mut self) {
        while self.time < END {
            self.deliver();
            for index in 0..self.candidates.len() {
                if self.is_stormy() {
                    self.trouble(index);
                }
                if self.candidates[index].paused_until <= self.time {
                    self.step(index);
                }
            }
            self.judge();
            self.time += TICK;
        }
    }

    /// Requests reach the server, whether or not their sender still lives or waits.
    fn deliver(&mut self) {
        for candidate in &mut self.candidates {
            let (due, rest) = std::mem::take(&mut candidate.outbox)
                .into_iter()
                .partition(|(at, ..)| *at <= self.time);
            candidate.outbox = rest;
            let due: Vec<(u64, Request, Option<u64>)> = due;
            for (_, request, reply_at) in due {
                let reply = self.server.serve(request);
                candidate.inbox.extend(reply_at.map(|at| (at, reply)));
            }
        }
    }

    fn trouble(&mut self, index: usize) {
        let pause = self.dice.roll(1500) == 0;
        let crash = self.dice.roll(2500) == 0;
        if pause {
            self.candidates[index].paused_until = self.time + self.dice.roll(30_000);
        }
        if crash {
            self.begin(index);
        } else if index >= self.group && self.dice.roll(2500) == 0 {
            // Of a group one that is stopped does not see that another has given the Lease back.
            self.candidates[index].election.release();
        }
        // Somebody labels the Lease.
        if self.dice.roll(4000) == 0
            && let Some(lease) = self.server.lease.clone()
        {
            self.server.store(lease);
        }
    }

    fn begin(&mut self, index: usize) {
        let life = self.candidates[index].lives + 1;
        let election = self.enter(index, life);
        let candidate = &mut self.candidates[index];
        candidate.election = election;
        candidate.lives = life;
        candidate.inbox.clear();
        candidate.seen = None;
    }

    fn step(&mut self, index: usize) {
        let now = self.local(index);
        self.watch(index, now);
        let candidate = &mut self.candidates[index];
        let (due, rest) =
            std::mem::take(&mut candidate.inbox).into_iter().partition(|(at, _)| *at <= self.time);
        candidate.inbox = rest;
        let due: Vec<(u64, Reply)> = due;
        for (_, reply) in due {
            candidate.election.replied(reply, now);
        }
        match self.candidates[index].election.poll(now) {
            Action::Create(lease) | Action::Replace(lease) => {
                self.send(index, Request::Write(lease))
            }
            Action::Read => self.send(index, Request::Read),
            Action::Wait(_) => {}
            // It has left; its next life begins.
            Action::Done => self.begin(index),
        }
        let candidate = &mut self.candidates[index];
        candidate.lapses = candidate.election.lapses_at(now);
    }

    fn watch(&mut self, index: usize, now: Instant) {
        if self.candidates[index].watch_at > self.time {
            return;
        }
        let delay = if self.is_stormy() && self.dice.percent(2) {
            self.dice.roll(8000)
        } else {
            self.dice.roll(60)
        };
        // A watch that starts again shows an older state once more.
        let back = if self.is_stormy() && self.dice.percent(1) { 2 } else { 0 };
        let candidate = &mut self.candidates[index];
        candidate.watch_at = self.time + delay;
        match candidate.seen {
            None => {
                candidate.seen = Some(self.server.log.len());
                let sight = self
                    .server
                    .lease
                    .clone()
                    .map_or(Sight::Absent, |lease| Sight::Present(Box::new(lease)));
                candidate.election.observe(sight, now);
            }
            Some(seen) => {
                for sight in &self.server.log[seen.saturating_sub(back)..] {
                    candidate.election.observe(sight.clone(), now);
                }
                candidate.seen = Some(self.server.log.len());
            }
        }
    }

    fn send(&mut self, index: usize, request: Request) {
        let timeout = self.time + u64::try_from(self.timing.request_timeout().as_millis()).unwrap();
        let there = self.time + 1 + self.dice.roll(40);
        let back = there + 1 + self.dice.roll(40);
        let fate = if self.is_stormy() { self.dice.roll(20) } else { 19 };
        let candidate = &mut self.candidates[index];
        match fate {
            0 => candidate.inbox.push((there, Reply::Rejected)),
            // Lost on the way there, lost on the way back, late: the sender cannot tell which.
            1 => candidate.inbox.push((timeout, Reply::Unknown)),
            2 => {
                candidate.outbox.push((there, request, None));
                candidate.inbox.push((timeout, Reply::Unknown));
            }
            3 => {
                candidate.outbox.push((timeout + self.dice.roll(20_000), request, None));
                candidate.inbox.push((timeout, Reply::Unknown));
            }
            4 => candidate.outbox.push((there, request, Some(timeout.max(back) - 1))),
            _ => candidate.outbox.push((there, request, Some(back))),
        }
    }

    /// Who holds, by identity.
    fn holders(&self) -> BTreeSet<&str> {
        let elections = self.candidates.iter().map(|candidate| &candidate.election).enumerate();
        let holding = elections
            .filter(|(index, election)| election.holds_until(self.local(*index)).is_some());
        holding.map(|(_, election)| election.identity()).collect()
    }

    fn judge(&mut self) {
        let holders = self.holders().len();
        self.most = self.most.max(holders);
        self.held += u64::from(holders == 1);
        let answers = |index: &usize| {
            let lapses = self.candidates[*index].lapses;
            lapses.is_some_and(|at| self.local(*index) < at + Timing::LATENESS)
        };
        let kernels = (0..self.candidates.len()).filter(answers).count();
        self.most_kernels = self.most_kernels.max(kernels);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_two_hold_and_after_the_storm_one_does(
        seed in any::<u64>(),
        candidates in 1..4usize,
        group in 0..4usize,
        fast in any::<bool>(),
    ) {
        let seconds = Duration::from_secs;
        let timing = if fast { Timing::new(seconds(5), seconds(3), seconds(1)).unwrap() } else { Timing::DEFAULT };
        let mut world = World::new(seed, candidates, group, timing);
        world.run();
        prop_assert!(world.most < 2, "{} held at once", world.most);
        prop_assert_eq!(world.holders().len(), 1, "nobody holds after the storm");
        prop_assert!(world.held * TICK > (END - FAULTS_END) / 2, "held for {} ms only", world.held * TICK);
    }

    #[test]
    fn never_two_kernels_answer(seed in any::<u64>(), candidates in 2..4usize) {
        let seconds = Duration::from_secs;
        let mut world = World::new(seed, candidates, 0, Timing::new(seconds(5), seconds(3), seconds(1)).unwrap());
        for candidate in &mut world.candidates {
            candidate.rate = 999 + world.dice.roll(3);
        }
        world.run();
        prop_assert!(world.most_kernels < 2, "{} kernels answered at once", world.most_kernels);
    }
}
