//! Owns what a machine is apart from our process: a clock that drifts and a kernel that answers by itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_membership::Moment;

/// True time in nanoseconds since the start of the simulation.
pub(crate) type Time = u64;

pub(crate) const MILLI: Time = 1_000_000;
pub(crate) const SECOND: Time = 1_000 * MILLI;

/// A boot-time clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) ahead: u64,
    pub(crate) ppm: i64,
}

impl Clock {
    pub(crate) fn read(&self, time: Time) -> Moment {
        let rate = i128::from(1_000_000 + self.ppm);
        Moment::from_nanos(self.ahead + u64::try_from(i128::from(time) * rate / 1_000_000).unwrap())
    }

    /// The first time at which the clock shows the moment or a later one.
    pub(crate) fn time_of(&self, moment: Moment) -> Time {
        let rate = i128::from(1_000_000 + self.ppm);
        let shown = i128::from(moment.nanos().saturating_sub(self.ahead)) * 1_000_000;
        u64::try_from(shown / rate).unwrap() + 1
    }
}

/// The kernel's fence: each address answers until its deadline, and at most `lateness` beyond.
#[derive(Clone, Debug)]
pub(crate) struct Kernel {
    pub(crate) lateness: Time,
    deadlines: BTreeMap<IpAddr, Moment>,
}

impl Kernel {
    pub(crate) fn new(lateness: Time) -> Self {
        Self { lateness, deadlines: BTreeMap::new() }
    }

    pub(crate) fn arm(&mut self, address: IpAddr, deadline: Moment) {
        self.deadlines.insert(address, deadline);
    }

    pub(crate) fn mute(&mut self, address: IpAddr) {
        self.deadlines.remove(&address);
    }

    pub(crate) fn mute_all(&mut self) {
        self.deadlines.clear();
    }

    /// Until when it answers for an address.
    pub(crate) fn answers_until(&self, address: IpAddr, clock: &Clock) -> Time {
        self.deadlines.get(&address).map_or(0, |deadline| clock.time_of(*deadline) + self.lateness)
    }
}
