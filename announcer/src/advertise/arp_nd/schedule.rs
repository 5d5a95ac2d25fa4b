//! When each address is announced: at once, in a burst, then for ever at long intervals. Pure: the clock is an argument.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::frame;
use crate::vip::Link;

/// Pauses between the first announcements: at 0, 50, 200, 500 ms, 1, 2 and 5 s. The first may be lost by a switch that
/// is still learning; the later ones mend it. `None` ends the burst.
const BURST: [Duration; 6] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(300),
    Duration::from_millis(500),
    Duration::from_millis(1000),
    Duration::from_millis(3000),
];

/// The announcements of the burst that go with a question to each router, at 0, 500 ms and 2 s: one that ignores what
/// nobody asked for learns where an address is from who asks in its name.
const INTRODUCED: [usize; 3] = [0, 3, 5];

/// Addresses announced by one call of [`Schedule::poll`]: more would overflow the queue of the interface.
const BATCH: usize = 128;

/// One frame, and where it goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Index of the interface.
    pub index: u32,
    /// The whole frame, from the Ethernet header on.
    pub bytes: Vec<u8>,
}

/// What is announced, and when next.
#[derive(Debug)]
pub struct Schedule {
    refresh: Duration,
    entries: BTreeMap<IpAddr, Entry>,
    routers: BTreeMap<u32, BTreeSet<IpAddr>>,
}

#[derive(Debug)]
struct Entry {
    link: Link,
    sent: usize,
    due: Instant,
}

impl Schedule {
    /// Announces nothing yet; after its burst an address is announced each `refresh`.
    pub fn new(refresh: Duration) -> Self {
        Self { refresh, entries: BTreeMap::new(), routers: BTreeMap::new() }
    }

    /// Announces exactly `held` from now on. What is new, or has moved to another link, begins with a burst.
    pub fn keep(&mut self, held: &BTreeMap<IpAddr, Link>, now: Instant) {
        self.entries.retain(|address, entry| held.get(address) == Some(&entry.link));
        for (address, link) in held {
            let begin = || Entry { link: *link, sent: 0, due: now };
            self.entries.entry(*address).or_insert_with(begin);
        }
    }

    /// These are the routers, by interface. A router that is new is asked, in the name of each address on its LAN, with
    /// a burst of it.
    pub fn route(&mut self, routers: &BTreeMap<u32, BTreeSet<IpAddr>>, now: Instant) {
        for (index, known) in routers {
            let before = self.routers.get(index);
            if known.iter().all(|router| before.is_some_and(|before| before.contains(router))) {
                continue;
            }
            let on_lan = self.entries.values_mut().filter(|entry| entry.link.index == *index);
            on_lan.for_each(|entry| (entry.sent, entry.due) = (0, now));
        }
        self.routers.clone_from(routers);
    }

    /// Whether `address` has been announced since it was taken.
    pub fn is_announced(&self, address: IpAddr) -> bool {
        self.entries.get(&address).is_some_and(|entry| entry.sent > 0)
    }

    /// The frames that are due now, or nothing. Call it again until it gives nothing: it gives them in batches.
    pub fn poll(&mut self, now: Instant) -> Option<Vec<Frame>> {
        let due = self.entries.iter_mut().filter(|(_, entry)| entry.due <= now).take(BATCH);
        let mut frames = Vec::new();
        for (address, entry) in due {
            let pause = BURST.get(entry.sent).copied().unwrap_or(self.refresh);
            let introduced = INTRODUCED.contains(&entry.sent);
            entry.sent += 1;
            // Counted from now and not from when it was due: a program that was stopped does not catch up in a flood.
            entry.due = now + pause;
            let Link { index, mac } = entry.link;
            let frame = |bytes| Frame { index, bytes };
            frames.extend(frame::announce(*address, mac).into_iter().map(frame));
            let routers = self.routers.get(&index).into_iter().flatten().filter(|_| introduced);
            let asked = routers.filter_map(|router| frame::introduce(*address, mac, *router));
            frames.extend(asked.map(frame));
        }
        (!frames.is_empty()).then_some(frames)
    }

    /// When [`Schedule::poll`] has something to give next.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries.values().map(|entry| entry.due).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { index: 2, mac: [2, 0, 0, 0, 0, 1] };
    const MINUTE: Duration = Duration::from_secs(60);

    fn held(addresses: &[&str]) -> BTreeMap<IpAddr, Link> {
        addresses.iter().map(|address| (address.parse().unwrap(), LINK)).collect()
    }

    /// Runs a schedule on a virtual clock; gives the milliseconds at which it sent.
    fn run(schedule: &mut Schedule, begin: Instant, length: Duration) -> Vec<u128> {
        let mut times = Vec::new();
        while let Some(at) = schedule.deadline().filter(|at| *at <= begin + length) {
            while schedule.poll(at).is_some() {
                times.push(at.duration_since(begin).as_millis());
            }
        }
        times
    }

    #[test]
    fn an_address_is_announced_at_once_in_a_burst_and_then_each_minute() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE);
        assert_eq!(schedule.deadline(), None);
        schedule.keep(&held(&["192.0.2.1"]), now);
        let times = run(&mut schedule, now, Duration::from_secs(130));
        assert_eq!(times, [0, 50, 200, 500, 1000, 2000, 5000, 65_000, 125_000]);
    }

    #[test]
    fn keeping_an_address_does_not_begin_again_and_letting_go_ends_it() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE);
        schedule.keep(&held(&["192.0.2.1"]), now);
        schedule.poll(now);
        schedule.keep(&held(&["192.0.2.1", "2001:db8::1"]), now);
        let frames = schedule.poll(now).unwrap();
        assert_eq!(frames.len(), 1, "only the new address is due");
        schedule.keep(&held(&[]), now);
        assert_eq!(schedule.deadline(), None);
        assert_eq!(schedule.poll(now + MINUTE), None);
    }

    #[test]
    fn a_new_hardware_address_is_announced_at_once() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE);
        schedule.keep(&held(&["192.0.2.1"]), now);
        schedule.poll(now);
        let moved = Link { mac: [2, 0, 0, 0, 0, 2], ..LINK };
        schedule.keep(&held(&["192.0.2.1"]).into_keys().map(|a| (a, moved)).collect(), now);
        assert_eq!(schedule.deadline(), Some(now));
    }

    #[test]
    fn a_program_that_was_stopped_does_not_catch_up_in_a_flood() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE);
        schedule.keep(&held(&["192.0.2.1"]), now);
        schedule.poll(now);
        let later = now + MINUTE * 10;
        assert!(schedule.poll(later).is_some());
        assert_eq!(schedule.poll(later), None);
    }

    #[test]
    fn many_addresses_come_in_batches_and_none_is_left_out() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE);
        let many: Vec<String> = (0..300).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
        schedule.keep(&held(&many.iter().map(String::as_str).collect::<Vec<_>>()), now);
        let mut frames = 0;
        while let Some(batch) = schedule.poll(now) {
            assert!(batch.len() <= BATCH * 2);
            frames += batch.len();
        }
        assert_eq!(frames, 600);
    }

    #[test]
    fn routers_are_asked_in_the_name_of_the_address_three_times_and_a_new_one_too() {
        let now = Instant::now();
        let mut schedule = Schedule::new(MINUTE);
        let router = |text: &str| BTreeMap::from([(2, BTreeSet::from([text.parse().unwrap()]))]);
        schedule.route(&router("192.0.2.254"), now);
        schedule.keep(&held(&["192.0.2.1", "2001:db8::1"]), now);
        let asked = |schedule: &mut Schedule, begin: Instant| {
            let mut times = Vec::new();
            while let Some(at) = schedule.deadline().filter(|at| *at <= begin + MINUTE) {
                // An announcement of both is three frames.
                let extra = schedule.poll(at).unwrap().len().saturating_sub(3);
                times.extend(std::iter::repeat_n((at - begin).as_millis(), extra));
            }
            times
        };
        assert_eq!(asked(&mut schedule, now), [0, 500, 2000], "of its own family only");
        let later = now + MINUTE * 2;
        schedule.route(&router("192.0.2.254"), later);
        assert!(asked(&mut schedule, later).is_empty(), "it is known");
        let last = now + MINUTE * 4;
        schedule.route(&router("192.0.2.253"), last);
        assert_eq!(asked(&mut schedule, last), [0, 500, 2000]);
    }
}
