//! Owns the LAN: it loses, delays, overtakes, repeats and cuts, each direction by itself.

use crate::machine::{MILLI, Time};
use crate::random::Random;

/// How the LAN treats a datagram.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) loss: f64,
    pub(crate) repeat: f64,
    /// How often a datagram is held up, and for how long at most.
    pub(crate) late: f64,
    pub(crate) latest: Time,
}

impl Weather {
    pub(crate) const FAIR: Self = Self { loss: 0.0, repeat: 0.0, late: 0.0, latest: 0 };
}

#[derive(Clone, Debug)]
pub(crate) struct Network {
    hosts: usize,
    pub(crate) weather: Weather,
    /// Until when each direction is cut.
    cut: Vec<Time>,
    /// How much later each direction carries everything.
    late: Vec<Time>,
}

impl Network {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            hosts,
            weather: Weather::FAIR,
            cut: vec![0; hosts * hosts],
            late: vec![0; hosts * hosts],
        }
    }

    pub(crate) fn cut(&mut self, from: usize, to: usize, until: Time) {
        let cut = &mut self.cut[from * self.hosts + to];
        *cut = until.max(*cut);
    }

    pub(crate) fn slow(&mut self, from: usize, to: usize, late: Time) {
        self.late[from * self.hosts + to] = late;
    }

    pub(crate) fn heal(&mut self) {
        self.cut.fill(0);
        self.late.fill(0);
        self.weather = Weather::FAIR;
    }

    /// When copies of a datagram arrive.
    pub(crate) fn arrivals(
        &self,
        now: Time,
        from: usize,
        to: usize,
        random: &mut Random,
    ) -> Vec<Time> {
        if self.cut[from * self.hosts + to] > now || random.chance(self.weather.loss) {
            return Vec::new();
        }
        let copies = if random.chance(self.weather.repeat) { 2 } else { 1 };
        let arrival = |_| {
            let wire = random.between(MILLI / 20, MILLI / 3);
            let held_up = if random.chance(self.weather.late) {
                random.magnitude(0, self.weather.latest)
            } else {
                0
            };
            now + wire + self.late[from * self.hosts + to] + held_up
        };
        (0..copies).map(arrival).collect()
    }
}
