//! Owns what is to happen, in the order of true time; what falls together happens in the order it was thought of.

use std::cmp::Ordering;
use std::net::IpAddr;

use berth_membership::{NodeId, Pressure, View};

use crate::api::{Call, Reply};
use crate::faults::Fault;
use crate::machine::Time;

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Start {
        host: usize,
    },
    News {
        host: usize,
        run: u64,
        news: News,
    },
    /// A datagram arrives, for whatever process is there.
    Datagram {
        host: usize,
        datagram: Vec<u8>,
    },
    Wake {
        host: usize,
        run: u64,
    },
    Resume {
        host: usize,
        run: u64,
    },
    /// A request arrives at the API server.
    Call {
        host: usize,
        run: u64,
        number: u64,
        request: Call,
    },
    Relist {
        host: usize,
    },
    Fault(Fault),
    /// The watch of a host shows how late another one's turn is.
    Tier {
        watcher: usize,
        host: usize,
        tier: (u8, bool),
    },
    /// Whoever outlives a process that was killed finds it gone.
    Gone {
        host: usize,
        step: Gone,
        farewells: Vec<(NodeId, Vec<u8>)>,
    },
    /// The weather is fair again.
    Calm,
    Heal,
}

/// What is left to do after a process that is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Gone {
    Mute,
    Tell,
}

/// What a process may find when it looks.
#[derive(Clone, Debug)]
pub(crate) enum News {
    Tick,
    Datagram(Vec<u8>),
    /// The answer to the request of this number.
    Reply(u64, Reply),
    Watched(View),
    /// This view is on the disk.
    Kept(View),
    /// What the list of members says.
    Fixed(View),
    Request(usize),
    Prepared(IpAddr),
    HandOver(usize),
    Leave,
    Press(Pressure),
}

#[derive(Clone, Debug)]
pub(crate) struct Due {
    pub(crate) at: Time,
    pub(crate) order: u64,
    pub(crate) event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    /// The earliest is the greatest, as the heap wants it.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}
