//! Owns the run of one schedule: true time, the machines, the processes on them, and what travels between.

mod driver;
mod host;

use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Duration;

use berth_membership::{Bounds, Keyring, Pressure, Rules, SHORTEST, View, Voters};

use crate::api::Api;
use crate::faults::{Fault, Plan};
use crate::machine::{MILLI, Time};
use crate::network::{Network, Weather};
use crate::oracle::Oracle;
use crate::queue::{Due, Event, News};
use crate::random::Random;
use host::{Host, address};

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
    /// Whoever outlives a process mutes the kernel before it tells anybody.
    pub(crate) mute_before_farewell: bool,
    /// A view is on the disk before the node hears so; else only the first one ever gets there.
    pub(crate) kept_before_said: bool,
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
            mute_before_farewell: true,
            kept_before_said: true,
            trace: false,
        }
    }
}

/// How late a watch may be.
const LATEST_NEWS: Time = 500 * MILLI;

const KEY: &[u8] = b"a key for the simulation";

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) hosts: Vec<Host>,
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) oracle: Oracle,
    pub(crate) events: u64,
    plan: Plan,
    settings: Settings,
    queue: BinaryHeap<Due>,
    order: u64,
    random: Random,
    network: Network,
    api: Api,
    /// Of each program.
    keyrings: [Keyring; 3],
    /// How often a host was sent what it cannot tell from a forgery.
    pub(crate) alarms: u64,
}

impl World {
    pub(crate) fn new(plan: Plan, seed: u64, settings: Settings) -> Self {
        let mut random = Random::new(seed);
        let drift = plan.drift_ppm;
        let hosts: Vec<_> =
            (0..plan.hosts).map(|number| Host::new(number, &plan, drift, &mut random)).collect();
        let first = hosts.iter().take(plan.voters).map(|host| host.id);
        let bounds = Bounds::new(SHORTEST, Duration::from_nanos(plan.ceiling)).unwrap();
        let stored =
            Voters::new(first).ok().and_then(|voters| View::new(1, voters, Vec::new()).ok());
        let stored = stored.map(|view| view.within(bounds));
        let keyring = Keyring::new("one", [KEY]).unwrap();
        let mut api = Api::new(plan.hosts, stored);
        (api.compares, api.stale) = (settings.compare_and_swap, !settings.fresh_read);
        let addresses = (0..plan.addresses).map(|at| address(at, plan.v6)).collect();
        let mut world = Self {
            now: 0,
            hosts,
            addresses,
            oracle: Oracle::default(),
            events: 0,
            settings,
            queue: BinaryHeap::new(),
            order: 0,
            network: Network::new(plan.hosts),
            api,
            keyrings: [keyring.clone(), keyring.without_third(), Keyring::former([KEY]).unwrap()],
            alarms: 0,
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

    /// Whether a host whose process runs may have an address.
    pub(crate) fn could_answer(&self, address: usize) -> bool {
        self.hosts.iter().any(|host| host.process.is_some() && host.may[address])
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
            Event::Call { host, run, number, request } => self.request(host, run, number, &request),
            Event::Relist { host } => {
                if self.api.reaches(self.now, host)
                    && let Some(view) = self.api.stored.clone()
                {
                    self.tell(host, News::Watched(view));
                }
                self.push(self.now + 2_000 * MILLI, Event::Relist { host });
            }
            Event::Fault(fault) => self.fail(fault),
            Event::Tier { watcher, host, tier } => {
                self.hosts[watcher].tiers[host] = tier;
                for address in 0..self.addresses.len() {
                    self.tell(watcher, News::Request(address));
                }
            }
            Event::Gone { host, step, farewells } => self.outlive(host, step, farewells),
            Event::Calm => self.network.weather = Weather::FAIR,
            Event::Heal => self.heal(),
        }
    }

    pub(crate) fn fail(&mut self, fault: Fault) {
        self.note(|| format!("{fault:?}"));
        let now = self.now;
        match fault {
            Fault::Pause { host, span } => {
                let host = &mut self.hosts[host];
                host.paused_until = host.paused_until.max(now + span);
            }
            Fault::Kill { host, down } => self.kill(host, down),
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
            Fault::Slow { from, to, late } => self.network.slow(from, to, late),
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
                self.hosts[host].may[address] = may && self.hosts[host].able;
                self.tell(host, News::Request(address));
            }
            Fault::Tier { host, tier, moves } => {
                for watcher in 0..self.hosts.len() {
                    let at = now + self.random.magnitude(MILLI, LATEST_NEWS);
                    self.push(at, Event::Tier { watcher, host, tier: (tier, moves) });
                }
            }
            Fault::Leave { host } => self.tell(host, News::Leave),
            Fault::Program { host, program } => self.hosts[host].next_program = program,
            Fault::Ask { host, lease } => {
                self.hosts[host].asks = lease;
                let lease = lease.map(Duration::from_nanos);
                self.tell(host, News::Press(Pressure::Ask(lease)));
            }
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
                let able = self.hosts[number].able;
                if std::mem::replace(&mut self.hosts[number].may[address], able) != able {
                    self.tell(number, News::Request(address));
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
