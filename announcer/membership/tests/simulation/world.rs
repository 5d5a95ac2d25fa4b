//! Owns the run of one schedule: true time, the machines, the processes on them, and what travels between.

use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_membership::{
    Input, Keyring, Moment, Node, NodeId, Output, Parameters, Pressure, Rules, View, Voters, Wish,
};

use crate::api::{Api, Reply, Request, TIMEOUT};
use crate::faults::{Fault, Plan};
use crate::machine::{Clock, Kernel, MILLI, Time};
use crate::network::{Network, Weather};
use crate::oracle::Oracle;
use crate::queue::{Due, Event, News};
use crate::random::Random;

/// What is taken out of the protocol or its driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) rules: Rules,
    /// The kernel gets the deadline itself, not the time left when it was computed.
    pub(crate) absolute_deadline: bool,
    /// A read of the view is not stale; else it shows what was stored before that.
    pub(crate) fresh_read: bool,
    /// The view is stored by compare-and-swap.
    pub(crate) compare_and_swap: bool,
    pub(crate) trace: bool,
}

impl Default for Settings {
    fn default() -> Self {
        let rules = Rules::default();
        Self {
            rules,
            absolute_deadline: true,
            fresh_read: true,
            compare_and_swap: true,
            trace: false,
        }
    }
}

/// A machine and the process on it.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) kernel: Kernel,
    pub(crate) process: Option<Node>,
    /// The number of the process; what is for an earlier one is thrown away.
    run: u64,
    paused_until: Time,
    inbox: VecDeque<News>,
    /// What the process has decided and not yet done, and its clock when it decided.
    doing: VecDeque<Output>,
    decided: Moment,
    wake: Time,
    /// What the driver waits for: the number of the request, and the epoch of a write that is not clear yet.
    asking: Option<(u64, Option<u64>)>,
    may: Vec<bool>,
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) hosts: Vec<Host>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) oracle: Oracle,
    pub(crate) events: u64,
    pub(crate) losses: u64,
    plan: Plan,
    settings: Settings,
    queue: BinaryHeap<Due>,
    order: u64,
    random: Random,
    network: Network,
    api: Api,
    keyring: Keyring,
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64, settings: Settings) -> Self {
        let mut random = Random::new(seed);
        let drift = plan.drift_ppm;
        let hosts: Vec<_> =
            (0..plan.hosts).map(|number| Host::new(number, &plan, drift, &mut random)).collect();
        let first = hosts.iter().take(plan.voters).map(|host| host.id);
        let stored =
            Voters::new(first).ok().and_then(|voters| View::new(1, voters, Vec::new()).ok());
        let mut api = Api::new(plan.hosts, stored);
        (api.compares, api.stale) = (settings.compare_and_swap, !settings.fresh_read);
        let addresses = (0..plan.addresses).map(|at| address(at, plan.v6)).collect();
        let mut world = Self {
            now: 0,
            hosts,
            addresses,
            oracle: Oracle::default(),
            events: 0,
            losses: 0,
            settings,
            queue: BinaryHeap::new(),
            order: 0,
            network: Network::new(plan.hosts),
            api,
            keyring: Keyring::new([&b"a key for the simulation"[..]]).unwrap(),
            random,
            plan,
        };
        for host in 0..world.hosts.len() {
            let at = world.random.below(100 * MILLI);
            world.push(at, Event::Start { host });
            world.push(at, Event::Relist { host });
        }
        for (at, fault) in world.plan.faults.clone() {
            world.push(at, Event::Fault(fault));
        }
        world.push(world.plan.healed, Event::Heal);
        world
    }

    /// Runs to a time, or to the first overlap.
    pub(crate) fn run_to(&mut self, end: Time) {
        while self.oracle.overlaps.is_empty() && self.queue.peek().is_some_and(|due| due.at <= end)
        {
            let Some(due) = self.queue.pop() else { return };
            self.now = due.at;
            self.events += 1;
            assert!(self.events < 3_000_000, "time does not go on");
            self.take(due.event);
        }
        self.now = self.now.max(end);
    }

    /// The machines that answer for an address now.
    pub(crate) fn answering(&self, address: IpAddr) -> Vec<usize> {
        let answers = |host: &Host| host.kernel.answers_until(address, &host.clock) > self.now;
        self.hosts
            .iter()
            .enumerate()
            .filter(|(_, host)| answers(host))
            .map(|(number, _)| number)
            .collect()
    }

    fn push(&mut self, at: Time, event: Event) {
        self.order += 1;
        self.queue.push(Due { at: at.max(self.now), order: self.order, event });
    }

    fn note(&self, what: impl FnOnce() -> String) {
        if self.settings.trace {
            println!("{:>13.6} ms  {}", self.now as f64 / MILLI as f64, what());
        }
    }

    fn take(&mut self, event: Event) {
        match event {
            Event::Start { host } => self.start(host),
            Event::News { host, run, news } => {
                if self.hosts[host].run == run && self.hosts[host].process.is_some() {
                    self.hosts[host].inbox.push_back(news);
                    self.work(host);
                }
            }
            Event::Wake { host, run } => {
                let due = self.hosts[host].run == run && self.hosts[host].wake == self.now;
                if due {
                    self.hosts[host].inbox.push_back(News::Tick);
                    self.work(host);
                }
            }
            Event::Resume { host, run } => {
                if self.hosts[host].run == run {
                    self.work(host);
                }
            }
            Event::Datagram { host, datagram } => {
                if self.hosts[host].process.is_some() {
                    self.hosts[host].inbox.push_back(News::Datagram(datagram));
                    self.work(host);
                }
            }
            Event::Request { host, run, number, request } => {
                self.request(host, run, number, &request)
            }
            Event::Relist { host } => {
                if self.api.reaches(self.now, host)
                    && let Some(view) = self.api.stored.clone()
                {
                    self.tell(host, News::Watched(view));
                }
                self.push(self.now + 2_000 * MILLI, Event::Relist { host });
            }
            Event::Fault(fault) => self.fail(fault),
            Event::Calm => self.network.weather = Weather::FAIR,
            Event::Heal => self.heal(),
        }
    }

    fn start(&mut self, number: usize) {
        if self.hosts[number].process.is_some() {
            return;
        }
        self.note(|| format!("{number} starts"));
        let (seed, keyring) = (self.random.number(), self.keyring.clone());
        let (datagram, burst) = (self.plan.datagram, self.plan.burst);
        let parameters = Parameters { datagram, burst, memory: 3, ..Parameters::default() };
        let host = &mut self.hosts[number];
        let now = host.clock.read(self.now);
        host.run += 1;
        host.process =
            Node::with_rules(host.id, parameters, keyring, seed, now, self.settings.rules).ok();
        assert!(host.process.is_some(), "the parameters fit each other");
        (host.paused_until, host.wake) = (self.now, Time::MAX);
        self.tell(number, News::Tick);
        for address in 0..self.addresses.len() {
            self.tell(number, News::Wish(address));
        }
        self.ask(number, Request::Get, None);
    }

    fn stop(&mut self, number: usize, down: Time) {
        let host = &mut self.hosts[number];
        host.process = None;
        host.run += 1;
        host.inbox.clear();
        host.doing.clear();
        host.asking = None;
        self.push(self.now + down, Event::Start { host: number });
    }

    /// Puts news before the process, now.
    fn tell(&mut self, host: usize, news: News) {
        let run = self.hosts[host].run;
        self.push(self.now, Event::News { host, run, news });
    }

    /// Sends a request to the API server. Its answer comes as news, at the latest as a time-out.
    fn ask(&mut self, host: usize, request: Request, unclear: Option<u64>) {
        let run = self.hosts[host].run;
        let number = self.random.number();
        self.hosts[host].asking = Some((number, unclear));
        let arrives = self.now + self.api.way(self.now, &mut self.random);
        self.push(
            self.now + TIMEOUT,
            Event::News { host, run, news: News::Reply(number, Reply::TimedOut) },
        );
        if self.now >= self.api.cut_until[host] {
            self.push(arrives, Event::Request { host, run, number, request });
        }
    }

    fn request(&mut self, host: usize, run: u64, number: u64, request: &Request) {
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
    fn work(&mut self, number: usize) {
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
            Wish { key: at as u64, candidates, ..Wish::default() }
        };
        let wish = match &news {
            News::Wish(at) => Some(candidates(*at)),
            _ => None,
        };
        let pressure = match &news {
            News::Press(pressure) => Some(pressure.clone()),
            _ => None,
        };
        let address = |at: usize| self.addresses[at];
        let inputs = match &news {
            News::Tick => Vec::new(),
            News::Datagram(datagram) => vec![Input::Datagram(datagram)],
            News::Wish(at) => {
                wish.map(|wish| Input::Wish { address: address(*at), wish }).into_iter().collect()
            }
            News::Prepared(address) => vec![Input::Prepared { address: *address }],
            News::HandOver(at) => vec![Input::HandOver { address: address(*at) }],
            News::Press(_) => Vec::new(),
            News::Leave => vec![Input::Leave],
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
                self.ask(host, Request::Get, unclear);
                Vec::new()
            }
        }
    }

    fn perform(&mut self, number: usize, output: Output) {
        if !matches!(output, Output::Send { .. } | Output::Arm { .. }) {
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
            Output::Send { to, datagram } => {
                assert!(
                    datagram.len() <= self.plan.datagram,
                    "a datagram of {} octets",
                    datagram.len()
                );
                let Some(to) = self.hosts.iter().position(|host| host.id == to) else { return };
                for at in self.network.arrivals(now, number, to, &mut self.random) {
                    self.push(at, Event::Datagram { host: to, datagram: datagram.clone() });
                }
            }
            Output::Prepare { address } => {
                let (run, at) = (host.run, now + self.random.below(self.plan.preparation + 1));
                self.push(at, Event::News { host: number, run, news: News::Prepared(address) });
            }
            Output::ProposeView { from_epoch, view } => {
                self.ask(number, Request::Replace { from_epoch, view }, Some(from_epoch));
            }
            Output::Lost { .. } => self.losses += 1,
            Output::Left => {
                let down = self.random.below(300 * MILLI);
                self.stop(number, down);
            }
            Output::Refused(error) => {
                unreachable!("every datagram of the simulation is authentic: {error}")
            }
            Output::Discard { .. }
            | Output::Announce { .. }
            | Output::Adopted { .. }
            | Output::Activated { .. } => {}
        }
    }

    fn fail(&mut self, fault: Fault) {
        self.note(|| format!("{fault:?}"));
        let now = self.now;
        match fault {
            Fault::Pause { host, span } => {
                let host = &mut self.hosts[host];
                host.paused_until = host.paused_until.max(now + span);
            }
            Fault::Kill { host, down } => self.stop(host, down),
            Fault::Crash { host, down } => {
                self.hosts[host].kernel.mute_all();
                self.stop(host, down);
            }
            Fault::Cut { from, to, span } => self.network.cut(from, to, now + span),
            Fault::Part { members, span } => {
                for from in 0..self.hosts.len() {
                    for to in (0..self.hosts.len()).filter(|to| members[*to] != members[from]) {
                        self.network.cut(from, to, now + span);
                    }
                }
            }
            Fault::Weather { weather, span } => {
                self.network.weather = weather;
                self.push(now + span, Event::Calm);
            }
            Fault::ApiDown { span } => self.api.down_until = now + span,
            Fault::ApiCut { host, span } => self.api.cut_until[host] = now + span,
            Fault::ApiSlow { slowest, span } => {
                (self.api.slowest, self.api.slow_until) = (slowest, now + span)
            }
            Fault::HandOver { host, address } => self.tell(host, News::HandOver(address)),
            Fault::Candidate { host, address, may } => {
                self.hosts[host].may[address] = may;
                self.tell(host, News::Wish(address));
            }
            Fault::Leave { host } => self.tell(host, News::Leave),
            Fault::Propose { host, voters } => {
                if let Ok(voters) = Voters::new(voters.iter().map(|host| self.hosts[*host].id)) {
                    self.tell(host, News::Press(Pressure::Propose(voters)));
                }
            }
            Fault::Take { host, address } => {
                let address = self.addresses[address];
                self.tell(host, News::Press(Pressure::Take { address }));
            }
        }
    }

    fn heal(&mut self) {
        self.note(|| "healed".to_owned());
        self.network.heal();
        self.api.heal();
        for number in 0..self.hosts.len() {
            let (now, addresses) = (self.now, self.addresses.len());
            let host = &mut self.hosts[number];
            host.paused_until = host.paused_until.min(now);
            for address in 0..addresses {
                if !std::mem::replace(&mut self.hosts[number].may[address], true) {
                    self.tell(number, News::Wish(address));
                }
            }
            if self.hosts[number].process.is_none() {
                self.push(now, Event::Start { host: number });
            } else {
                let run = self.hosts[number].run;
                self.push(now, Event::Resume { host: number, run });
            }
        }
    }
}

impl Host {
    fn new(number: usize, plan: &Plan, drift: u64, random: &mut Random) -> Self {
        let ppm = random.between(0, 2 * drift) as i64 - drift as i64;
        Self {
            id: NodeId::of(&format!("node-{number}")),
            clock: Clock { ahead: random.below(1 << 40), ppm },
            kernel: Kernel::new(random.below(10 * MILLI)),
            process: None,
            run: 0,
            paused_until: 0,
            inbox: VecDeque::new(),
            doing: VecDeque::new(),
            decided: Moment::default(),
            wake: Time::MAX,
            asking: None,
            may: vec![true; plan.addresses],
        }
    }
}

fn address(at: usize, v6: bool) -> IpAddr {
    let last = u16::try_from(at + 1).unwrap();
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
    } else {
        let [third, fourth] = last.to_be_bytes();
        Ipv4Addr::new(198, 18, third, fourth).into()
    }
}
