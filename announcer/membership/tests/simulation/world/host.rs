//! Owns what a machine and the process on it consist of.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_membership::{Moment, Node, NodeId, Output, View};

use crate::faults::{Plan, Program};
use crate::machine::{Clock, Kernel, MILLI, Time};
use crate::queue::News;
use crate::random::Random;

/// A machine and the process on it.
pub(crate) struct Host {
    pub(crate) id: NodeId,
    pub(crate) clock: Clock,
    pub(crate) kernel: Kernel,
    pub(crate) process: Option<Node>,
    /// What it runs, and what it will run.
    pub(super) program: Program,
    pub(super) next_program: Program,
    /// The lease that it asks for, whatever happens.
    pub(super) asks: Option<Time>,
    /// The newest view that is on its disk.
    pub(super) disk: Option<View>,
    /// The number of the process; what is for an earlier one is thrown away.
    pub(super) run: u64,
    pub(super) paused_until: Time,
    pub(super) inbox: VecDeque<News>,
    /// What the process has decided and not yet done, and its clock when it decided.
    pub(super) doing: VecDeque<Output>,
    pub(super) decided: Moment,
    pub(super) wake: Time,
    /// What the driver waits for: the number of the request, and the epoch of a write that is not clear yet.
    pub(super) asking: Option<(u64, Option<u64>)>,
    pub(super) may: Vec<bool>,
    /// Whether it can have any address.
    pub(super) able: bool,
    /// By host, how late its turn is and whether it gives what it has to others, as far as this one has heard.
    pub(super) tiers: Vec<(u8, bool)>,
}

impl Host {
    pub(super) fn new(number: usize, plan: &Plan, drift: u64, random: &mut Random) -> Self {
        let ppm = random.between(0, 2 * drift) as i64 - drift as i64;
        Self {
            id: NodeId::of(&format!("node-{number}")),
            clock: Clock { ahead: random.below(1 << 40), ppm },
            kernel: Kernel::new(random.below(10 * MILLI)),
            process: None,
            program: plan.programs[number],
            next_program: plan.programs[number],
            asks: None,
            disk: None,
            run: 0,
            paused_until: 0,
            inbox: VecDeque::new(),
            doing: VecDeque::new(),
            decided: Moment::default(),
            wake: Time::MAX,
            asking: None,
            may: vec![!plan.unable[number]; plan.addresses],
            able: !plan.unable[number],
            tiers: vec![(0, false); plan.hosts],
        }
    }
}

impl Host {
    /// Puts a view on the disk.
    pub(super) fn keep(&mut self, view: &View) {
        if self.disk.as_ref().is_none_or(|kept| kept.epoch() < view.epoch()) {
            self.disk = Some(view.clone());
        }
    }
}

pub(super) fn address(at: usize, v6: bool) -> IpAddr {
    let last = u16::try_from(at + 1).unwrap();
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last).into()
    } else {
        let [third, fourth] = last.to_be_bytes();
        Ipv4Addr::new(198, 18, third, fourth).into()
    }
}
