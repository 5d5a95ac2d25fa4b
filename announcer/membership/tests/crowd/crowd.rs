//! Owns a crowd: nodes that are told of thousands of addresses at once, in virtual time. A node takes one step at a time,
//! and what arrives meanwhile waits.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use berth_membership::envelope::SHORTEST;
use berth_membership::{
    Input, Keyring, Loss, Moment, Node, NodeId, Output, Parameters, Request, View,
};
use nix::time::{ClockId, clock_gettime};

pub(crate) const NODES: usize = 3;
const LATENCY: Duration = Duration::from_micros(200);
/// What binding an address takes the driver.
const BINDING: Duration = Duration::from_millis(1);

enum Event {
    Datagram(Vec<u8>),
    Prepared(IpAddr),
    Stored(View),
    Request(IpAddr),
    Leave,
}

/// Between two things that the driver tells.
const TELLING: Duration = Duration::from_micros(200);

/// What a step costs the node that takes it.
#[derive(Clone, Copy, Debug)]
#[allow(dead_code, reason = "the test and the bench use one each")]
pub(crate) enum Cost {
    /// What it takes this processor.
    Measured,
    /// Always the same.
    Each(Duration),
}

/// Nodes, the network between them, and the clock.
pub(crate) struct Crowd {
    cost: Cost,
    names: Vec<NodeId>,
    nodes: Vec<Node>,
    queue: BinaryHeap<Reverse<(Moment, u64, usize)>>,
    events: BTreeMap<u64, Event>,
    number: u64,
    /// Each node works on one thing at a time.
    busy_until: Vec<Moment>,
    stored: Option<View>,
    /// How long each node has worked.
    pub(crate) work: Vec<Duration>,
    pub(crate) datagrams: u64,
    pub(crate) octets: u64,
    /// By address, the node that announced it last.
    pub(crate) held: BTreeMap<IpAddr, usize>,
    /// How often a lease ran out.
    pub(crate) lost: u64,
    /// How often a node went over to other voters.
    pub(crate) adopted: u64,
    /// Who has left.
    pub(crate) left: BTreeSet<usize>,
}

impl Crowd {
    pub(crate) fn new(cost: Cost) -> Self {
        let keyring =
            Keyring::new("", [&b"thirty-two octets from a Secret!"[..]]).expect("long enough");
        let names: Vec<_> = (0..NODES).map(|n| NodeId::of(&format!("node-{n}"))).collect();
        let node = |(at, name): (usize, &NodeId)| {
            let seed = at as u64 + 1;
            Node::new(*name, Parameters::default(), keyring.clone(), seed, Moment::default())
        };
        let nodes = names.iter().enumerate().map(node).collect::<Result<_, _>>().expect("fit");
        let mut crowd = Self {
            cost,
            nodes,
            names,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            number: 0,
            busy_until: vec![Moment::default(); NODES],
            stored: None,
            work: vec![Duration::ZERO; NODES],
            datagrams: 0,
            octets: 0,
            held: BTreeMap::new(),
            lost: 0,
            adopted: 0,
            left: BTreeSet::new(),
        };
        for at in 0..NODES {
            crowd.step(at, Moment::default(), |node, now| node.poll(now));
        }
        crowd.step(0, Moment::default(), |node, now| node.handle(now, Input::NoView));
        crowd
    }

    fn schedule(&mut self, at: Moment, to: usize, event: Event) {
        self.number += 1;
        self.events.insert(self.number, event);
        self.queue.push(Reverse((at, self.number, to)));
    }

    fn epoch(&self) -> u64 {
        self.stored.as_ref().map_or(0, View::epoch)
    }

    /// Runs one step of a node and counts the time that it took as time in which the node was busy.
    fn step(&mut self, at: usize, now: Moment, act: impl FnOnce(&mut Node, Moment) -> Vec<Output>) {
        let now = now.max(self.busy_until[at]);
        let start = worked();
        let outputs = act(&mut self.nodes[at], now);
        let took = match self.cost {
            Cost::Measured => worked().saturating_sub(start),
            Cost::Each(cost) => cost,
        };
        self.work[at] += took;
        let now = now + took;
        self.busy_until[at] = now;
        for output in outputs {
            match output {
                Output::Send { to, datagram } => {
                    let sizes = SHORTEST..=Parameters::default().datagram;
                    assert!(sizes.contains(&datagram.len()), "{} octets", datagram.len());
                    self.datagrams += 1;
                    self.octets += datagram.len() as u64;
                    let to = self.names.iter().position(|name| *name == to).expect("known");
                    self.schedule(now + LATENCY, to, Event::Datagram(datagram));
                }
                Output::Prepare { address, .. } => {
                    self.schedule(now + BINDING, at, Event::Prepared(address))
                }
                Output::ProposeView { from_epoch, view } if self.epoch() == from_epoch => {
                    self.stored = Some(view.clone());
                    for to in 0..NODES {
                        self.schedule(now + BINDING, to, Event::Stored(view.clone()));
                    }
                }
                Output::Announce { address, .. } => _ = self.held.insert(address, at),
                Output::Lost { address, cause } => {
                    self.lost += u64::from(cause == Loss::Expired);
                    if self.held.get(&address) == Some(&at) {
                        self.held.remove(&address);
                    }
                }
                Output::Left => _ = self.left.insert(at),
                Output::Adopted { .. } => self.adopted += 1,
                _ => {}
            }
        }
    }

    /// Runs until then.
    pub(crate) fn run(&mut self, until: Moment, done: impl Fn(&Self) -> bool) -> Moment {
        let mut now = Moment::default();
        while !done(self) {
            let event = self
                .queue
                .peek()
                .map(|Reverse((at, _, to))| ((*at).max(self.busy_until[*to]), *to));
            let due =
                (0..NODES).map(|at| (self.nodes[at].deadline().max(self.busy_until[at]), at)).min();
            let (due, at) = due.expect("there are nodes");
            match event {
                Some((when, _)) if when <= due => {
                    now = when;
                    if now > until {
                        return until;
                    }
                    let Some(Reverse((_, number, to))) = self.queue.pop() else { return until };
                    match self.events.remove(&number).expect("scheduled") {
                        Event::Datagram(datagram) => self.step(to, now, |node, now| {
                            node.handle(now, Input::Datagram(&datagram))
                        }),
                        Event::Prepared(address) => self.step(to, now, |node, now| {
                            node.handle(now, Input::Prepared { address })
                        }),
                        Event::Stored(view) => {
                            self.step(to, now, |node, now| node.handle(now, Input::View(view)))
                        }
                        Event::Leave => {
                            self.step(to, now, |node, now| node.handle(now, Input::Leave))
                        }
                        Event::Request(address) => {
                            let request = Request {
                                key: Request::key_of(&address.to_string()),
                                candidates: self.names.clone(),
                                ..Request::default()
                            };
                            self.step(to, now, |node, now| {
                                node.handle(now, Input::Request { address, request })
                            });
                        }
                    }
                }
                _ if due > until => return until,
                _ => {
                    now = due;
                    self.step(at, due, |node, now| node.poll(now));
                }
            }
        }
        now
    }

    /// All nodes are told of so many addresses, one after the other: a driver hears its peers in between.
    pub(crate) fn request(&mut self, now: Moment, count: u32) {
        for n in 0..count {
            let address = Ipv4Addr::from(0x0a00_4001 + n).into();
            for to in 0..NODES {
                self.schedule(now + TELLING * n, to, Event::Request(address));
            }
        }
    }

    /// A node is to stop.
    pub(crate) fn leave(&mut self, now: Moment, node: usize) {
        self.schedule(now, node, Event::Leave);
    }

    /// Counts from here.
    pub(crate) fn reset(&mut self) {
        self.work.fill(Duration::ZERO);
        (self.datagrams, self.octets, self.lost, self.adopted) = (0, 0, 0, 0);
    }
}

/// How long this thread has worked.
fn worked() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has it").into()
}
