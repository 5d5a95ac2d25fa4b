//! Whether an address may be taken into use: three questions, and silence. Pure: what is heard goes in with the time,
//! frames and a deadline come out.
//!
//! It is the probe of RFC 5227 §2.1 and the duplicate address detection of RFC 4862 §5.4, with shorter pauses: theirs,
//! of seconds, are for hosts that are switched on by the hundred at once, behind switches that are still starting.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::frame::{self, Mac, Mark};
use super::hearing::{Heard, Said};
use super::schedule::Frame;
use crate::vip::Link;

/// `PROBE_NUM` (RFC 5227 §1.1).
const PROBES: u8 = 3;

/// Between two probes.
const APART: Duration = Duration::from_millis(40);

/// After the last one, to hear the answer to it.
const LISTEN: Duration = Duration::from_millis(50);

/// How long an address that somebody has is left alone before it is asked for again.
const AGAIN: Duration = Duration::from_secs(5);

/// The same where it may still be a fellow node's.
const SOON: Duration = Duration::from_millis(100);

/// How long whoever has an address is said to be the same host.
const STEADY: Duration = Duration::from_secs(60);

/// Probes sent by one call of [`Probes::poll`]: more would overflow the queue of the interface.
const BATCH: usize = 128;

/// Where to ask for an address, and by which mark fellow nodes know the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// Where, and as whose.
    pub link: Link,
    /// The mark.
    pub mark: Mark,
    /// How long whoever answers may be a fellow node that hands the address over.
    pub patience: Duration,
}

/// What is known of an address that was never in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It is being asked for.
    Asking,
    /// Nobody has it.
    Free,
    /// This host has it.
    Taken(Mac),
}

/// The addresses that are asked for.
#[derive(Debug, Default)]
pub struct Probes {
    entries: BTreeMap<IpAddr, Entry>,
}

#[derive(Debug)]
struct Entry {
    question: Question,
    since: Instant,
    phase: Phase,
    /// Who had it when that was last known. It counts until the next questions have stayed without an answer.
    taken: Option<Mac>,
    /// Since when that is so.
    since_taken: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Asking { sent: u8, due: Instant },
    Resting { until: Instant },
    Free,
}

impl Probes {
    /// Asks for exactly these addresses from now on. What is new, or asked for elsewhere, begins with the first probe.
    pub fn keep(&mut self, wanted: &BTreeMap<IpAddr, Question>, now: Instant) {
        self.entries.retain(|address, entry| {
            let question = wanted.get(address).filter(|new| new.link == entry.question.link);
            entry.question = *question.unwrap_or(&entry.question);
            question.is_some()
        });
        for (address, question) in wanted {
            let begin = || Entry {
                question: *question,
                since: now,
                phase: Phase::Asking { sent: 0, due: now },
                taken: None,
                since_taken: now,
            };
            self.entries.entry(*address).or_insert_with(begin);
        }
    }

    /// What is known of an address; nothing if it is not asked for.
    pub fn standing(&self, address: &IpAddr) -> Option<Standing> {
        let entry = self.entries.get(address)?;
        Some(match (entry.taken, entry.phase) {
            (Some(mac), _) => Standing::Taken(mac),
            (None, Phase::Free) => Standing::Free,
            (None, Phase::Asking { .. } | Phase::Resting { .. }) => Standing::Asking,
        })
    }

    /// Whether an address may be taken into use: nobody has it, or it was in use before and is not asked for.
    pub fn allows(&self, address: &IpAddr) -> bool {
        matches!(self.standing(address), None | Some(Standing::Free))
    }

    /// Who has an address, if somebody has.
    pub fn taken(&self, address: &IpAddr) -> Option<Mac> {
        self.entries.get(address)?.taken
    }

    /// The interface on which an address is asked for.
    pub fn index(&self, address: &IpAddr) -> Option<u32> {
        self.entries.get(address).map(|entry| entry.question.link.index)
    }

    /// Takes in what was heard on an interface, but for what this node said itself. True if it is news that somebody
    /// has an address.
    pub fn hear(&mut self, index: u32, heard: &Heard, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(&heard.address) else { return false };
        let foreign = match heard.said {
            Said::Claim => true,
            // RFC 5227 §2.1.1, RFC 4862 §5.4.3: who asks means to have it. Fellows ask as well, and one of them gets it.
            Said::Probe(mark) => {
                matches!(entry.phase, Phase::Asking { .. }) && mark != Some(entry.question.mark)
            }
        };
        if entry.question.link.index != index || !foreign {
            return false;
        }
        let hasty = entry.taken.is_none() && now < entry.since + entry.question.patience;
        if !matches!(entry.phase, Phase::Resting { .. }) {
            entry.phase = Phase::Resting { until: now + if hasty { SOON } else { AGAIN } };
        }
        if hasty {
            return false;
        }
        // A host that shows another hardware address each time is told of seldom.
        if entry.taken == Some(heard.mac)
            || entry.taken.is_some() && now < entry.since_taken + STEADY
        {
            return false;
        }
        (entry.taken, entry.since_taken) = (Some(heard.mac), now);
        true
    }

    /// Takes in that a probe for this address did not leave: its silence means nothing.
    pub fn lost(&mut self, address: IpAddr, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&address) {
            entry.phase = Phase::Asking { sent: 0, due: now + APART };
        }
    }

    /// The probes that are due now. What was heard until `now` has to be told before. Call it again until it gives
    /// nothing: it gives them in batches.
    pub fn poll(&mut self, now: Instant) -> Vec<(IpAddr, Frame)> {
        let mut frames = Vec::new();
        for (address, entry) in &mut self.entries {
            if frames.len() == BATCH {
                break;
            }
            let sent = match entry.phase {
                Phase::Asking { sent, due } if due <= now => sent,
                Phase::Resting { until } if until <= now => 0,
                _ => continue,
            };
            if sent == PROBES {
                (entry.phase, entry.taken) = (Phase::Free, None);
                continue;
            }
            let sent = sent + 1;
            let pause = if sent == PROBES { LISTEN } else { APART };
            // Counted from now: a program that was stopped still gives everybody the time to answer.
            entry.phase = Phase::Asking { sent, due: now + pause };
            let Question { link, mark, .. } = entry.question;
            let bytes = frame::probe(*address, link.mac, mark);
            frames.push((*address, Frame { index: link.index, bytes }));
        }
        frames
    }

    /// When [`Probes::poll`] has something to do next.
    pub fn deadline(&self) -> Option<Instant> {
        let due = |entry: &Entry| match entry.phase {
            Phase::Asking { due, .. } => Some(due),
            Phase::Resting { until } => Some(until),
            Phase::Free => None,
        };
        self.entries.values().filter_map(due).min()
    }

    /// Where which addresses are asked for.
    pub fn places(&self) -> BTreeSet<(u32, IpAddr)> {
        let place = |(address, entry): (&IpAddr, &Entry)| (entry.question.link.index, *address);
        self.entries.iter().map(place).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { index: 2, mac: [2, 0, 0, 0, 0, 1] };
    const QUESTION: Question = Question { link: LINK, mark: *b"ours..", patience: Duration::ZERO };
    const OTHER: Mac = [2, 0, 0, 0, 0, 9];

    fn address() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn asking(now: Instant) -> Probes {
        let mut probes = Probes::default();
        probes.keep(&[(address(), QUESTION)].into(), now);
        probes
    }

    fn said(said: Said) -> Heard {
        Heard { address: address(), mac: OTHER, said }
    }

    /// Runs on a virtual clock until nothing is due before `length` is over; gives the milliseconds of the probes.
    fn run(probes: &mut Probes, begin: Instant, length: Duration) -> Vec<u128> {
        let mut times = Vec::new();
        while let Some(at) = probes.deadline().filter(|at| *at <= begin + length) {
            let sent = probes.poll(at).len();
            times.extend(std::iter::repeat_n((at - begin).as_millis(), sent));
        }
        times
    }

    #[test]
    fn an_address_is_free_after_three_probes_without_an_answer() {
        let now = Instant::now();
        let mut probes = asking(now);
        assert!(!probes.allows(&address()));
        assert_eq!(run(&mut probes, now, Duration::from_millis(129)), [0, 40, 80]);
        assert_eq!(probes.standing(&address()), Some(Standing::Asking));
        assert_eq!(run(&mut probes, now, Duration::from_secs(60)), [0; 0]);
        assert_eq!(probes.standing(&address()), Some(Standing::Free));
        assert!(probes.allows(&address()) && probes.deadline().is_none());
    }

    #[test]
    fn an_address_that_was_in_use_is_not_asked_for() {
        let probes = asking(Instant::now());
        assert!(probes.allows(&"192.0.2.2".parse().unwrap()));
    }

    #[test]
    fn one_claim_at_any_time_takes_the_address() {
        for after in [0, 1, 40, 81, 129, 200] {
            let now = Instant::now();
            let mut probes = asking(now);
            run(&mut probes, now, Duration::from_millis(after));
            let at = now + Duration::from_millis(after);
            assert!(probes.hear(2, &said(Said::Claim), at), "{after}");
            assert!(!probes.hear(2, &said(Said::Claim), at), "the same again is no news");
            assert_eq!(probes.standing(&address()), Some(Standing::Taken(OTHER)));
            assert_eq!(probes.poll(at), [], "no word until it rests no more");
        }
    }

    #[test]
    fn a_host_that_shows_another_hardware_address_each_time_is_news_once_a_minute() {
        let begin = Instant::now();
        let mut probes = asking(begin);
        let hear = |n: u32| {
            let [a, b, c, d] = n.to_be_bytes();
            let heard = Heard { mac: [2, 0, a, b, c, d], ..said(Said::Claim) };
            probes.hear(2, &heard, begin + Duration::from_millis(n.into()))
        };
        assert_eq!((0..120_000).step_by(10).map(hear).filter(|news| *news).count(), 2);
    }

    #[test]
    fn a_taken_address_is_asked_for_slowly_and_taken_when_its_host_is_silent() {
        let now = Instant::now();
        let mut probes = asking(now);
        probes.poll(now);
        probes.hear(2, &said(Said::Claim), now);
        let mut later = now;
        for _ in 0..3 {
            later += AGAIN;
            assert_eq!(probes.deadline(), Some(later));
            assert_eq!(probes.poll(later).len(), 1);
            assert!(!probes.hear(2, &said(Said::Claim), later), "it has it still");
        }
        later += AGAIN;
        assert_eq!(run(&mut probes, later, Duration::from_millis(100)), [0, 40, 80]);
        assert_eq!(probes.taken(&address()), Some(OTHER), "until nobody has answered any of them");
        run(&mut probes, later, Duration::from_millis(130));
        assert_eq!(probes.standing(&address()), Some(Standing::Free));
    }

    #[test]
    fn a_foreign_probe_at_the_same_time_takes_the_address_and_a_fellows_does_not() {
        for (mark, taken) in
            [(Some(QUESTION.mark), None), (Some(*b"theirs"), Some(OTHER)), (None, Some(OTHER))]
        {
            let now = Instant::now();
            let mut probes = asking(now);
            probes.poll(now);
            probes.hear(2, &said(Said::Probe(mark)), now);
            assert_eq!(probes.taken(&address()), taken);
        }
        let now = Instant::now();
        let mut probes = asking(now);
        run(&mut probes, now, Duration::from_secs(1));
        probes.hear(2, &said(Said::Probe(None)), now);
        assert_eq!(probes.taken(&address()), None, "whoever asks later will hear that it is ours");
    }

    #[test]
    fn a_fellow_that_hands_the_address_over_is_given_the_time_to_fall_silent() {
        let patience = Duration::from_secs(1);
        let question = Question { patience, ..QUESTION };
        for (silent_after, taken) in [(500, None), (1_500, Some(OTHER))] {
            let now = Instant::now();
            let mut probes = Probes::default();
            probes.keep(&[(address(), question)].into(), now);
            while let Some(at) = probes.deadline().filter(|at| *at < now + patience * 2) {
                if !probes.poll(at).is_empty() && at < now + Duration::from_millis(silent_after) {
                    probes.hear(2, &said(Said::Claim), at);
                }
            }
            assert_eq!(probes.taken(&address()), taken);
            assert_eq!(probes.allows(&address()), taken.is_none());
        }
    }

    #[test]
    fn what_is_heard_on_another_interface_is_about_another_lan() {
        let now = Instant::now();
        let mut probes = asking(now);
        assert!(!probes.hear(3, &said(Said::Claim), now));
        assert_eq!(probes.taken(&address()), None);
    }

    #[test]
    fn probes_that_did_not_leave_do_not_count() {
        let now = Instant::now();
        let mut probes = asking(now);
        run(&mut probes, now, Duration::from_millis(80));
        let later = now + Duration::from_millis(80);
        probes.lost(address(), later);
        assert_eq!(run(&mut probes, later, Duration::from_millis(500)), [40, 80, 120]);
    }

    #[test]
    fn a_program_that_was_stopped_gives_everybody_the_time_to_answer() {
        let now = Instant::now();
        let mut probes = asking(now);
        probes.poll(now);
        let later = now + Duration::from_secs(10);
        assert_eq!(probes.poll(later).len(), 1);
        assert_eq!(run(&mut probes, later, Duration::from_millis(89)), [40]);
        assert_eq!(probes.standing(&address()), Some(Standing::Asking));
    }

    #[test]
    fn another_link_is_asked_from_the_beginning() {
        let now = Instant::now();
        let mut probes = asking(now);
        run(&mut probes, now, Duration::from_secs(1));
        let moved = Question { link: Link { index: 3, ..LINK }, ..QUESTION };
        probes.keep(&[(address(), moved)].into(), now);
        assert_eq!(probes.standing(&address()), Some(Standing::Asking));
        probes.keep(&BTreeMap::new(), now);
        assert_eq!(probes.standing(&address()), None);
    }
}
