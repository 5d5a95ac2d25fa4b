//! Two hosts and the cable between them; time is a number. What is sent arrives a millisecond later, in order.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use berth_bgp::wire::{Message, decode};
use berth_bgp::{Cause, Event, Link, NextHops, Parameters, Session, State, Step};

use crate::table::Table;

pub(crate) const LATENCY: Duration = Duration::from_millis(1);

#[derive(Debug)]
enum News {
    Connect(Link),
    Octets(usize, Vec<u8>),
    Closed(usize),
}

#[derive(Debug)]
pub(crate) struct Host {
    pub(crate) session: Session,
    pub(crate) next_hops: NextHops,
    pub(crate) events: Vec<Event>,
    /// What it has learnt from the other one.
    pub(crate) table: Table,
    /// Whether it keeps routes when a connection breaks.
    pub(crate) keeps: bool,
    /// It reads nothing.
    pub(crate) stalled: bool,
    /// Messages that it has got, by kind.
    pub(crate) got: BTreeMap<u8, usize>,
}

/// A connection, as its two ends name it; none at an end that has closed.
type Cable = [Option<Link>; 2];

#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) now: Instant,
    pub(crate) hosts: [Host; 2],
    cables: Vec<Cable>,
    queue: BTreeMap<(Instant, u64), (usize, News)>,
    count: u64,
    /// Nothing arrives.
    pub(crate) cut: bool,
}

impl Network {
    pub(crate) fn new(parameters: [Parameters; 2]) -> Self {
        let now = Instant::now();
        let mut seed = 0;
        let hosts = parameters.map(|parameters| {
            seed += 1;
            Host::new(now, parameters, seed)
        });
        Self { now, hosts, cables: vec![], queue: BTreeMap::new(), count: 0, cut: false }
    }

    pub(crate) fn start(&mut self) {
        for host in 0..2 {
            self.act(host, |session, now| session.start(now, None));
        }
    }

    /// Does something at a host, and what follows from it.
    pub(crate) fn act<T>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Session, Instant) -> T,
    ) -> T {
        let done = act(&mut self.hosts[host].session, self.now);
        self.follow(host);
        done
    }

    /// The process at a host is gone and another one is there, which knows nothing of it; the system closes its
    /// connections.
    pub(crate) fn replace(&mut self, host: usize, session: Session) {
        for cable in 0..self.cables.len() {
            if self.cables[cable][host].take().is_some() {
                self.send(1 - host, News::Closed(cable));
            }
        }
        self.hosts[host].session = session;
    }

    /// The host loses power: nobody closes anything.
    pub(crate) fn crash(&mut self, host: usize, session: Session) {
        self.cables.iter_mut().for_each(|cable| cable[host] = None);
        self.hosts[host].session = session;
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until this holds; panics where it does not come to hold in time.
    pub(crate) fn until(&mut self, longest: Duration, holds: impl Fn(&Self) -> bool) -> Duration {
        let (begin, end) = (self.now, self.now + longest);
        while !holds(self) {
            assert!(self.step(end), "not within {longest:?}: {:#?}", self.states());
        }
        self.now - begin
    }

    /// The other one asks a host for all routes of a family again.
    pub(crate) fn refresh(&mut self, host: usize, v6: bool) {
        let family = if v6 { 2 } else { 1 };
        let message = [&[0xff; 16][..], &[0, 23, 5, 0, family, 0, 1]].concat();
        for cable in 0..self.cables.len() {
            if let Some(link) = self.cables[cable][host]
                && self.hosts[host].is_up()
            {
                self.act(host, |session, now| session.received(now, link, &message));
            }
        }
    }

    /// A host has other addresses than before.
    pub(crate) fn renumber(&mut self, host: usize, next_hops: NextHops) {
        self.hosts[host].next_hops = next_hops;
        for cable in 0..self.cables.len() {
            if let Some(link) = self.cables[cable][host] {
                self.act(host, |session, _| session.set_next_hops(link, next_hops));
            }
        }
    }

    pub(crate) fn stall(&mut self, host: usize, stalled: bool) {
        self.hosts[host].stalled = stalled;
        self.follow(1 - host);
    }

    pub(crate) fn states(&self) -> [State; 2] {
        self.hosts.each_ref().map(|host| host.session.status().state)
    }

    pub(crate) fn both_up(&self) -> bool {
        self.states() == [State::Established; 2]
    }

    pub(crate) fn up(&mut self) {
        self.start();
        self.until(Duration::from_secs(10), Self::both_up);
        self.run(Duration::from_secs(1));
    }

    pub(crate) fn downs(&self, host: usize) -> Vec<&Cause> {
        let events = self.hosts[host].events.iter();
        let downs = events.filter_map(|event| match event {
            Event::Down(cause) => Some(cause),
            _ => None,
        });
        downs.collect()
    }

    fn step(&mut self, end: Instant) -> bool {
        let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
        let deadlines = self.hosts.iter().filter_map(|host| host.session.deadline());
        let Some(next) = deadlines.chain(arrival).min().filter(|next| *next <= end) else {
            return false;
        };
        self.now = self.now.max(next);
        if arrival == Some(next) {
            let ((_, _), (host, news)) = self.queue.pop_first().unwrap();
            self.arrive(host, news);
        } else {
            for host in 0..2 {
                self.act(host, Session::poll);
            }
        }
        true
    }

    fn send(&mut self, host: usize, news: News) {
        self.send_after(LATENCY, host, news);
    }

    fn send_after(&mut self, span: Duration, host: usize, news: News) {
        self.count += 1;
        self.queue.insert((self.now + span, self.count), (host, news));
    }

    fn arrive(&mut self, host: usize, news: News) {
        let now = self.now;
        match news {
            // TCP asks again.
            News::Connect(_) if self.cut => self.send_after(Duration::from_secs(1), host, news),
            News::Connect(link) => {
                let next_hops = self.hosts[host].next_hops;
                let accepted = self.act(host, |session, now| session.accepted(now, next_hops));
                let caller = 1 - host;
                let Some(accepted) = accepted else {
                    let refused = Cause::Connect("connection refused".to_owned());
                    return self.act(caller, |session, now| session.failed(now, link, refused));
                };
                let mut cable = [None; 2];
                (cable[host], cable[caller]) = (Some(accepted), Some(link));
                self.cables.push(cable);
                let next_hops = self.hosts[caller].next_hops;
                self.act(caller, |session, now| session.connected(now, link, next_hops));
                self.follow(host);
            }
            News::Octets(cable, octets) => {
                let Some(link) = self.cables[cable][host].filter(|_| !self.cut) else { return };
                self.hosts[host].read(&octets);
                self.act(host, |session, now| session.received(now, link, &octets));
            }
            News::Closed(cable) => {
                let Some(link) = self.cables[cable][host].filter(|_| !self.cut) else { return };
                self.cables[cable][host] = None;
                let keeps = self.hosts[host].keeps;
                if self.hosts[host].is_up() {
                    self.hosts[host].table.lost(keeps);
                }
                self.act(host, |session, _| session.closed(now, link, "closed"));
            }
        }
    }

    /// Does what a session asks for, and sends what it has to say.
    fn follow(&mut self, host: usize) {
        while let Some(step) = self.hosts[host].session.next_step() {
            match step {
                Step::Connect(link) => self.send(1 - host, News::Connect(link)),
                Step::Close { link, last } => self.close(host, link, last),
                Step::Tell(event) => self.hosts[host].events.push(event),
            }
        }
        for cable in 0..self.cables.len() {
            let Some(link) = self.cables[cable][host] else { continue };
            if self.hosts[1 - host].stalled {
                self.hosts[host].session.output(self.now, link);
                continue;
            }
            loop {
                let octets = self.hosts[host].session.output(self.now, link).to_vec();
                if octets.is_empty() {
                    break;
                }
                self.hosts[host].session.written(self.now, link, octets.len());
                self.send(1 - host, News::Octets(cable, octets));
            }
        }
    }

    fn close(&mut self, host: usize, link: Link, last: Vec<u8>) {
        let Some(cable) = self.cables.iter().position(|cable| cable[host] == Some(link)) else {
            return;
        };
        self.cables[cable][host] = None;
        if !last.is_empty() {
            self.send(1 - host, News::Octets(cable, last));
        }
        self.send(1 - host, News::Closed(cable));
    }
}

impl Host {
    fn new(now: Instant, parameters: Parameters, seed: u64) -> Self {
        let next_hops = NextHops {
            v4: Some(parameters.router_id),
            v6: Some(format!("2001:db8::{seed}").parse().unwrap()),
            link_local: None,
        };
        Self {
            session: Session::new(now, parameters, seed),
            next_hops,
            events: vec![],
            table: Table::default(),
            keeps: true,
            stalled: false,
            got: BTreeMap::new(),
        }
    }

    fn is_up(&self) -> bool {
        self.session.status().state == State::Established
    }

    /// As a router does: a NOTIFICATION of this kind or another decides on what it has learnt.
    fn read(&mut self, octets: &[u8]) {
        let mut rest = octets;
        while let Ok(Some((message, length))) = decode(rest) {
            *self.got.entry(rest[18]).or_default() += 1;
            if let Message::Notification(notification) = &message
                && self.is_up()
            {
                let agreed = self.session.status().agreed.unwrap();
                let keeps = self.keeps && agreed.peer_restart.is_some() && !notification.is_hard();
                self.table.lost(keeps);
                return;
            }
            rest = &rest[length..];
        }
        self.table.read(octets);
    }
}

/// With everything that there is.
pub(crate) fn parameters(asn: u32, last: u8) -> Parameters {
    let graceful_restart =
        Some(berth_bgp::Restart { notification: true, ..berth_bgp::Restart::default() });
    let id = Ipv4Addr::new(192, 0, 2, last);
    Parameters { graceful_restart, ..Parameters::new(asn, berth_bgp::RemoteAs::External, id) }
}
