//! What to do when another host says that it has an address which this node answers for: say once that it is ours, and
//! keep it. Pure: what is heard goes in with the time, and what to do comes out.
//!
//! RFC 5227 §2.4 (c), for a host that needs its address to stay: it answers, and never again within
//! [`DEFEND_INTERVAL`], so that two hosts that both do so do not go on for ever.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::frame::Mac;

/// `DEFEND_INTERVAL` (RFC 5227 §1.1).
pub const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// How long a claim is held back before it is judged. A fellow node that has taken an address over says so too, and
/// then this node is told in a moment that it has it no longer.
const PAUSE: Duration = Duration::from_millis(50);

/// Another host says that it has an address of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attack {
    /// The address.
    pub address: IpAddr,
    /// The other host.
    pub mac: Mac,
    /// Whether to answer: it was not done a moment ago.
    pub answer: bool,
}

/// The addresses that others have claimed.
#[derive(Debug, Default)]
pub struct Defence {
    entries: BTreeMap<IpAddr, Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    /// A claim that is not judged yet: whose, and when it will be.
    open: Option<(Mac, Instant)>,
    defended: Option<Instant>,
}

impl Defence {
    /// Takes in that another host has claimed an address that this node answers for.
    pub fn hear(&mut self, address: IpAddr, mac: Mac, now: Instant) {
        let entry = self.entries.entry(address).or_insert(Entry { open: None, defended: None });
        entry.open.get_or_insert((mac, now + PAUSE));
    }

    /// The claims to judge now, of addresses that are still `held`.
    pub fn poll(&mut self, held: impl Fn(&IpAddr) -> bool, now: Instant) -> Vec<Attack> {
        let mut attacks = Vec::new();
        for (address, entry) in &mut self.entries {
            let Some((mac, _)) = entry.open.filter(|(_, due)| *due <= now) else { continue };
            entry.open = None;
            if held(address) {
                let recent = |defended: Instant| now < defended + DEFEND_INTERVAL;
                let answer = !entry.defended.is_some_and(recent);
                if answer {
                    entry.defended = Some(now);
                }
                attacks.push(Attack { address: *address, mac, answer });
            }
        }
        self.entries.retain(|address, entry| {
            entry.open.is_some() || (held(address) && entry.defended.is_some())
        });
        attacks
    }

    /// When [`Defence::poll`] has something to judge next.
    pub fn deadline(&self) -> Option<Instant> {
        self.entries.values().filter_map(|entry| entry.open.map(|(_, due)| due)).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Mac = [2, 0, 0, 0, 0, 9];

    fn address() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    #[test]
    fn an_address_is_defended_once_in_ten_seconds_however_often_it_is_claimed() {
        let (mut defence, begin) = (Defence::default(), Instant::now());
        let (mut answers, mut seen) = (Vec::new(), 0);
        // Another host that claims it a hundred times a second, for half a minute.
        for tick in 0..3_000 {
            let now = begin + Duration::from_millis(tick * 10);
            defence.hear(address(), OTHER, now);
            for attack in defence.poll(|_| true, now) {
                seen += 1;
                if attack.answer {
                    answers.push((now - begin).as_millis());
                }
            }
        }
        assert_eq!(answers, [50, 10_070, 20_090]);
        assert_eq!(seen, 500, "and every claim that is judged is told");
    }

    #[test]
    fn who_has_handed_the_address_over_meanwhile_defends_nothing() {
        let (mut defence, now) = (Defence::default(), Instant::now());
        defence.hear(address(), OTHER, now);
        assert_eq!(defence.poll(|_| true, now), [], "not before it had the time to be told");
        let due = defence.deadline().unwrap();
        assert_eq!(defence.poll(|_| false, due), []);
        assert_eq!(defence.deadline(), None);
    }

    #[test]
    fn an_address_that_comes_back_may_be_defended_at_once() {
        let (mut defence, now) = (Defence::default(), Instant::now());
        defence.hear(address(), OTHER, now);
        assert!(defence.poll(|_| true, now + PAUSE)[0].answer);
        defence.poll(|_| false, now + PAUSE);
        defence.hear(address(), OTHER, now + PAUSE);
        assert!(defence.poll(|_| true, now + PAUSE * 2)[0].answer);
    }
}
