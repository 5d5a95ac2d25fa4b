//! Owns the process on each machine: it does for the real state machine what the announcer does, and stalls anywhere.

use std::time::Duration;

use berth_membership::{
    DatagramError, Input, Moment, Node, NodeId, Output, Parameters, Pressure, Request, envelope,
};

use super::World;
use super::host::Host;
use crate::api::{Call, Reply, TIMEOUT};
use crate::faults::Program;
use crate::machine::{MILLI, Time};
use crate::queue::{Event, Gone, News};

impl World {
    pub(super) fn start(&mut self, number: usize) {
        if self.hosts[number].process.is_some() {
            return;
        }
        self.note(|| format!("{number} starts"));
        let seed = self.random.number();
        let program = self.hosts[number].next_program;
        let keyring = self.keyrings[program as usize].clone();
        let (datagram, burst) = (self.plan.datagram, self.plan.burst);
        let parameters = Parameters { datagram, burst, memory: 3, ..Parameters::default() };
        let host = &mut self.hosts[number];
        let now = host.clock.read(self.now);
        host.run += 1;
        host.program = program;
        let node = Node::with_rules(host.id, parameters, keyring, seed, now, self.settings.rules);
        let keeps = self.plan.kept;
        host.process = node.ok().map(|node| if keeps { node.keeping() } else { node });
        assert!(host.process.is_some(), "the parameters fit each other");
        (host.paused_until, host.wake) = (self.now, Time::MAX);
        self.tell(number, News::Tick);
        if let Some(lease) = self.hosts[number].asks {
            self.tell(number, News::Press(Pressure::Ask(Some(Duration::from_nanos(lease)))));
        }
        for address in 0..self.addresses.len() {
            self.tell(number, News::Request(address));
        }
        if let Some(view) = self.hosts[number].disk.clone() {
            self.tell(number, News::Kept(view));
        }
        match self.api.stored.clone().filter(|_| self.plan.listed) {
            Some(view) => self.tell(number, News::Fixed(view)),
            None => self.ask(number, Call::Get, None),
        }
    }

    /// The process is killed. Whoever outlives it finds that some time later, if there is anybody.
    pub(super) fn kill(&mut self, number: usize, down: Time) {
        let process = self.hosts[number].process.as_ref().filter(|_| self.plan.watched);
        let Some(farewells) = process.map(Node::farewells) else {
            return self.stop(number, down);
        };
        let (first, second) = match self.settings.mute_before_farewell {
            true => (Gone::Mute, Gone::Tell),
            false => (Gone::Tell, Gone::Mute),
        };
        let found = self.random.magnitude(0, 20 * MILLI);
        let then = found + self.random.magnitude(0, 300 * MILLI);
        // It is the parent of the process: nobody starts another one before it has done its work.
        self.stop(number, down.max(then + 1));
        for (after, step) in [(found, first), (then, second)] {
            let farewells = farewells.clone();
            self.push(self.now + after, Event::Gone { host: number, step, farewells });
        }
    }

    /// What outlives a process does.
    pub(super) fn outlive(&mut self, number: usize, step: Gone, farewells: Vec<(NodeId, Vec<u8>)>) {
        self.note(|| format!("{number} is gone: {step:?}"));
        match step {
            Gone::Mute => self.hosts[number].kernel.mute_all(),
            Gone::Tell => {
                farewells.into_iter().for_each(|(to, datagram)| self.send(number, to, datagram))
            }
        }
    }

    fn send(&mut self, from: usize, to: NodeId, datagram: Vec<u8>) {
        let octets = datagram.len();
        assert!(octets <= self.plan.datagram, "a datagram of {octets} octets");
        let Some(to) = self.hosts.iter().position(|host| host.id == to) else { return };
        for at in self.network.arrivals(self.now, from, to, &mut self.random) {
            self.push(at, Event::Datagram { host: to, datagram: datagram.clone() });
        }
    }

    pub(super) fn stop(&mut self, number: usize, down: Time) {
        let host = &mut self.hosts[number];
        host.process = None;
        host.run += 1;
        host.inbox.clear();
        host.doing.clear();
        host.asking = None;
        self.push(self.now + down, Event::Start { host: number });
    }

    /// Puts news before the process, now.
    pub(super) fn tell(&mut self, host: usize, news: News) {
        let run = self.hosts[host].run;
        self.push(self.now, Event::News { host, run, news });
    }

    /// Sends a request to the API server. Its answer comes as news, at the latest as a time-out.
    pub(super) fn ask(&mut self, host: usize, request: Call, unclear: Option<u64>) {
        let run = self.hosts[host].run;
        let number = self.random.number();
        self.hosts[host].asking = Some((number, unclear));
        let arrives = self.now + self.api.way(self.now, &mut self.random);
        self.push(
            self.now + TIMEOUT,
            Event::News { host, run, news: News::Reply(number, Reply::TimedOut) },
        );
        if self.now >= self.api.cut_until[host] {
            self.push(arrives, Event::Call { host, run, number, request });
        }
    }

    pub(super) fn request(&mut self, host: usize, run: u64, number: u64, request: &Call) {
        if self.now < self.api.down_until {
            return;
        }
        let before = self.api.stored.clone();
        let reply = self.api.perform(request);
        if self.api.stored != before {
            let stored = self.api.stored.clone();
            self.note(|| format!("API stores {stored:?}"));
            for watcher in 0..self.hosts.len() {
                let at = self.now + self.api.way(self.now, &mut self.random);
                if let Some(view) = stored.clone().filter(|_| self.api.reaches(self.now, watcher)) {
                    let run = self.hosts[watcher].run;
                    self.push(at, Event::News { host: watcher, run, news: News::Watched(view) });
                }
            }
        }
        if self.api.reaches(self.now, host) {
            let at = self.now + self.api.way(self.now, &mut self.random);
            self.push(at, Event::News { host, run, news: News::Reply(number, reply) });
        }
    }

    /// Lets the process do what it can at this moment.
    pub(super) fn work(&mut self, number: usize) {
        loop {
            let host = &mut self.hosts[number];
            if host.process.is_none() {
                return;
            }
            if host.paused_until > self.now {
                let (at, run) = (host.paused_until, host.run);
                self.push(at, Event::Resume { host: number, run });
                return;
            }
            if let Some(output) = self.hosts[number].doing.pop_front() {
                self.perform(number, output);
                self.stall(number);
                continue;
            }
            let Some(news) = self.hosts[number].inbox.pop_front() else { break };
            self.decide(number, news);
            self.stall(number);
        }
        let host = &mut self.hosts[number];
        let Some(node) = &host.process else { return };
        let deadline = node.deadline();
        if deadline < Moment::NEVER {
            let at = host.clock.time_of(deadline).max(self.now + 1);
            if host.wake != at {
                host.wake = at;
                let run = host.run;
                self.push(at, Event::Wake { host: number, run });
            }
        }
    }

    /// The process may be stopped between any two steps.
    fn stall(&mut self, number: usize) {
        if self.random.chance(self.plan.stall) && self.now < self.plan.healed {
            let stall = self.random.magnitude(0, self.plan.longest_stall);
            self.hosts[number].paused_until = self.now + stall;
        }
    }

    /// Shows news to the node.
    fn decide(&mut self, number: usize, news: News) {
        let candidates = |at: usize| {
            let may = |host: &&Host| host.id != self.hosts[number].id || self.hosts[number].may[at];
            let candidates = self.hosts.iter().filter(may).map(|host| host.id).collect();
            let told = &self.hosts[number].tiers;
            let tiers = self.hosts.iter().zip(told).map(|(host, (tier, _))| (host.id, *tier));
            let (tiers, moves) = (tiers.filter(|(_, tier)| *tier > 0).collect(), told[number].1);
            Request { key: at as u64, candidates, tiers, moves, ..Request::default() }
        };
        let request = match &news {
            News::Request(at) => Some(candidates(*at)),
            _ => None,
        };
        let pressure = match &news {
            News::Press(pressure) => Some(pressure.clone()),
            _ => None,
        };
        let address = |at: usize| self.addresses[at];
        let inputs = match &news {
            News::Tick => Vec::new(),
            // The kernel keeps from a program what it does not know, from version 2 on.
            News::Datagram(datagram) if self.is_strange(number, datagram) => Vec::new(),
            News::Datagram(datagram) => vec![Input::Datagram(datagram)],
            News::Request(at) => request
                .map(|request| Input::Request { address: address(*at), request })
                .into_iter()
                .collect(),
            News::Prepared(address) => vec![Input::Prepared { address: *address }],
            News::HandOver(at) => vec![Input::HandOver { address: address(*at) }],
            News::Press(_) => Vec::new(),
            News::Leave => vec![Input::Leave],
            News::Fixed(view) => vec![Input::Fixed(view.clone())],
            News::Kept(view) => {
                let host = &mut self.hosts[number];
                if self.settings.kept_before_said || host.disk.is_none() {
                    host.keep(view);
                }
                vec![Input::Kept(view.clone())]
            }
            // A watch begins after the read at start.
            News::Watched(view) => {
                let joined =
                    self.hosts[number].process.as_ref().is_some_and(|node| node.view().is_some());
                if joined { vec![Input::View(view.clone())] } else { Vec::new() }
            }
            News::Reply(request, reply) => self.replied(number, *request, reply),
        };
        let host = &mut self.hosts[number];
        let now = host.clock.read(self.now);
        let Some(node) = &mut host.process else { return };
        match pressure {
            Some(pressure) => host.doing.extend(node.press(now, pressure)),
            None if inputs.is_empty() => host.doing.extend(node.poll(now)),
            None => {}
        }
        for input in inputs {
            host.doing.extend(node.handle(now, input));
        }
        host.decided = now;
    }

    fn is_strange(&self, number: usize, datagram: &[u8]) -> bool {
        self.hosts[number].program == Program::Second && datagram[envelope::VERSION_AT] > 2
    }

    /// What the driver makes of an answer: it reads until every write is clear.
    fn replied(&mut self, host: usize, number: u64, reply: &Reply) -> Vec<Input<'static>> {
        let Some((_, unclear)) = self.hosts[host].asking.take_if(|(asked, _)| *asked == number)
        else {
            return Vec::new();
        };
        let settled = unclear.map(|from_epoch| Input::NotStored { from_epoch });
        match reply {
            Reply::Is(None) => settled.into_iter().chain([Input::NoView]).collect(),
            Reply::Is(Some(view)) => {
                [Input::View(view.clone())].into_iter().chain(settled).collect()
            }
            Reply::Stored(view) => vec![Input::View(view.clone())],
            Reply::Conflict | Reply::TimedOut => {
                self.ask(host, Call::Get, unclear);
                Vec::new()
            }
        }
    }

    fn perform(&mut self, number: usize, output: Output) {
        if !matches!(output, Output::Send { .. } | Output::Arm { .. } | Output::Heard { .. }) {
            self.note(|| format!("{number} {output:?}"));
        }
        let now = self.now;
        let host = &mut self.hosts[number];
        match output {
            Output::MuteAll => host.kernel.mute_all(),
            Output::Mute { address } => host.kernel.mute(address),
            Output::Arm { address, deadline } => {
                let late = host.clock.read(now).since(host.decided);
                let deadline =
                    if self.settings.absolute_deadline { deadline } else { deadline + late };
                host.kernel.arm(address, deadline);
                let machines: Vec<_> =
                    self.hosts.iter().map(|host| (&host.kernel, &host.clock)).collect();
                self.oracle.armed(now, number, address, &machines);
            }
            Output::Send { to, datagram } => self.send(number, to, datagram),
            Output::Prepare { address, .. } => {
                let (run, at) = (host.run, now + self.random.below(self.plan.preparation + 1));
                self.push(at, Event::News { host: number, run, news: News::Prepared(address) });
            }
            Output::ProposeView { from_epoch, view } => {
                assert!(!self.plan.listed, "proposed beside a list: {view:?}");
                self.ask(number, Call::Replace { from_epoch, view }, Some(from_epoch));
            }
            Output::Keep(view) => {
                // It may get there, and nobody hears of it.
                if self.settings.kept_before_said && self.random.chance(0.5) {
                    host.keep(&view);
                }
                let (run, at) = (host.run, now + self.random.magnitude(0, 100 * MILLI));
                self.push(at, Event::News { host: number, run, news: News::Kept(view) });
            }
            Output::Left => {
                let down = self.random.below(300 * MILLI);
                self.stop(number, down);
            }
            // By version 1, and overtaken or sent to another run.
            Output::Refused(DatagramError::Superseded(_) | DatagramError::Unasked(_)) => {}
            // Who knows version 1 only was sent the other one before it was known to have gone back to it.
            Output::Refused(DatagramError::Forged) if host.program == Program::First => {
                self.alarms += 1
            }
            Output::Refused(error) => {
                unreachable!("every datagram of the simulation is authentic: {error}")
            }
            Output::Lost { .. }
            | Output::Discard { .. }
            | Output::Granted { .. }
            | Output::Announce { .. }
            | Output::Adopted { .. }
            | Output::Heard { .. }
            | Output::Former { .. }
            | Output::Deaf { .. }
            | Output::Activated { .. } => {}
        }
    }
}
