//! Whether somebody else writes the status that this node writes. What is undone is written again, ever more slowly, and
//! told: two programs that correct each other would otherwise do so for ever. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::status::{Publication, Update};
use crate::source::cluster::Name;

/// What was undone once is written again at once: somebody edited it by hand. Then it waits, doubling up to the longest.
const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);

/// Undone so often, somebody else writes it on purpose.
const CONTESTED: u32 = 3;

/// After so long without a loss it begins anew.
const FORGIVEN: Duration = Duration::from_secs(900);

/// What is due is due after this.
const MOMENT: Duration = Duration::from_millis(1);

/// What becomes of the statuses that this node wrote.
#[derive(Debug, Default)]
pub struct Contests {
    of: BTreeMap<Name, Contest>,
}

#[derive(Debug)]
struct Contest {
    wrote: Publication,
    /// Whether what was written last is no longer there.
    undone: bool,
    count: u32,
    last: Instant,
    due: Instant,
    told: bool,
}

/// What [`Contests::undone`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// How many statuses were undone that were not known to be.
    pub undone: u64,
    /// Services whose status somebody else writes, each told once.
    pub contested: Vec<Name>,
}

impl Contests {
    /// Takes in that a write was acknowledged.
    pub fn wrote(&mut self, update: &Update, now: Instant) {
        let Some(wrote) = update.publication.clone() else { return };
        match self.of.get_mut(&update.name) {
            Some(contest) => (contest.wrote, contest.undone) = (wrote, false),
            None => {
                let (last, due) = (now, now);
                let contest = Contest { wrote, undone: false, count: 0, last, due, told: false };
                self.of.insert(update.name.clone(), contest);
            }
        }
    }

    /// Takes in what would have to be written at `now`. What equals the last write was undone.
    pub fn undone(&mut self, updates: &[Update], now: Instant) -> Found {
        let mut found = Found::default();
        for update in updates {
            let Some(contest) = self.of.get_mut(&update.name) else { continue };
            let same = update.publication.as_ref() == Some(&contest.wrote);
            // What takes an address of others out is soon written again, however often the author had other things undone.
            let longest = if update.takes_out { FIRST } else { LONGEST };
            if contest.undone && same {
                contest.due = contest.due.min(contest.last + longest);
            }
            if contest.undone || !same {
                continue;
            }
            if now.saturating_duration_since(contest.last) > FORGIVEN {
                (contest.count, contest.told) = (0, false);
            }
            let pause = match contest.count {
                0 => Duration::ZERO,
                before => FIRST.saturating_mul(1 << (before - 1).min(16)).min(longest),
            };
            (contest.undone, contest.count) = (true, contest.count.saturating_add(1));
            (contest.last, contest.due) = (now, now + pause);
            found.undone += 1;
            if contest.count >= CONTESTED && !std::mem::replace(&mut contest.told, true) {
                found.contested.push(update.name.clone());
            }
        }
        found
    }

    /// The Services whose status was told to be somebody else's as well and has stood long enough, each told once.
    pub fn settled(&mut self, now: Instant) -> Vec<Name> {
        let settled =
            self.of.iter_mut().filter(|(_, contest)| contest.peace().is_some_and(|at| at < now));
        let forgiven = settled.map(|(name, contest)| {
            (contest.count, contest.told) = (0, false);
            name.clone()
        });
        forgiven.collect()
    }

    /// Whether an update may be written: what was undone waits, and nothing else.
    pub fn may_write(&self, update: &Update, now: Instant) -> bool {
        let waits = |contest: &Contest| {
            contest.undone
                && now < contest.due
                && update.publication.as_ref() == Some(&contest.wrote)
        };
        update.publication.is_none() || !self.of.get(&update.name).is_some_and(waits)
    }

    /// Forgets every Service that this node does not decide on: its next owner writes something else.
    pub fn retain<'a>(&mut self, decided: impl Iterator<Item = &'a Name>) {
        let decided: BTreeSet<&Name> = decided.collect();
        self.of.retain(|name, _| decided.contains(name));
    }

    /// The next moment after `now` at which something may be written again.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let waiting = self.of.values().filter(|contest| contest.undone);
        let due = waiting.map(|contest| contest.due);
        let peace = self.of.values().filter_map(Contest::peace).map(|at| at + MOMENT);
        due.chain(peace).filter(|due| *due > now).min()
    }
}

impl Contest {
    /// After what has been told it is over, if nothing is undone.
    fn peace(&self) -> Option<Instant> {
        (self.told && !self.undone).then(|| self.last + FORGIVEN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(host: &str) -> Update {
        Update {
            publication: Some(Publication { vip_host: Some(host.to_owned()), ingress: Vec::new() }),
            ..Update::of(Name::new("d", "web"), "uid", "1")
        }
    }

    #[test]
    fn what_somebody_undoes_again_and_again_is_written_ever_more_slowly_and_told_once() {
        let mut now = Instant::now();
        let (mut contests, mine) = (Contests::default(), update("a"));
        let (mut pauses, mut told) = (Vec::new(), 0);
        for _ in 0..12 {
            assert!(contests.may_write(&mine, now));
            contests.wrote(&mine, now);
            let found = contests.undone(std::slice::from_ref(&mine), now);
            told += found.contested.len();
            assert_eq!(found.undone, 1);
            assert_eq!(
                contests.undone(std::slice::from_ref(&mine), now),
                Found::default(),
                "the same loss counts once"
            );
            let due = contests.deadline(now).unwrap_or(now);
            assert_eq!(contests.may_write(&mine, now), due == now);
            pauses.push(due.duration_since(now).as_secs());
            now = due;
        }
        assert_eq!(pauses, [0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(told, 1);
    }

    #[test]
    fn a_write_of_something_else_is_no_contest_and_never_waits() {
        let now = Instant::now();
        let mut contests = Contests::default();
        contests.wrote(&update("a"), now);
        let other = update("b");
        assert_eq!(contests.undone(std::slice::from_ref(&other), now), Found::default());
        assert!(contests.may_write(&other, now));
        // Whoever edits the Service may take away what was written, and so be waited for.
        for _ in 0..12 {
            contests.wrote(&update("a"), now);
            contests.undone(&[update("a")], now);
        }
        assert!(!contests.may_write(&update("a"), now) && contests.may_write(&other, now));
    }

    #[test]
    fn what_takes_an_address_of_others_out_waits_for_a_second_at_most() {
        let now = Instant::now();
        let (mut contests, silent) = (Contests::default(), update("a"));
        for _ in 0..12 {
            contests.wrote(&silent, now);
            contests.undone(std::slice::from_ref(&silent), now);
        }
        let out = Update { takes_out: true, ..silent.clone() };
        assert!(!contests.may_write(&silent, now + FIRST * 200));
        // The status shows, written by another node, what is to be out of it.
        contests.undone(std::slice::from_ref(&out), now);
        assert_eq!(contests.deadline(now), Some(now + FIRST));
        assert!(contests.may_write(&out, now + FIRST));
        contests.wrote(&out, now + FIRST);
        contests.undone(std::slice::from_ref(&out), now + FIRST);
        assert!(contests.may_write(&out, now + FIRST * 2));
    }

    #[test]
    fn the_end_of_a_contest_is_told_once_when_nothing_was_undone_for_long() {
        let now = Instant::now();
        let (mut contests, mine) = (Contests::default(), update("a"));
        for _ in 0..5 {
            contests.wrote(&mine, now);
            contests.undone(std::slice::from_ref(&mine), now);
        }
        let (soon, late) = (now + FORGIVEN, now + FORGIVEN * 2);
        assert_eq!(contests.settled(late).len(), 0, "what is undone is not over");
        contests.wrote(&mine, now);
        assert_eq!(contests.settled(soon).len(), 0);
        let due = contests.deadline(soon).unwrap();
        assert_eq!(contests.settled(due), std::slice::from_ref(&mine.name));
        assert_eq!((contests.settled(late).len(), contests.deadline(late)), (0, None));
    }

    #[test]
    fn who_decides_no_longer_forgets_and_a_long_peace_is_forgiven() {
        let now = Instant::now();
        let (mut contests, mine) = (Contests::default(), update("a"));
        let lose = |contests: &mut Contests, at: Instant| {
            contests.wrote(&mine, at);
            contests.undone(std::slice::from_ref(&mine), at).contested.len()
        };
        assert_eq!((0..5).map(|_| lose(&mut contests, now)).sum::<usize>(), 1);
        let later = now + FORGIVEN * 2;
        assert_eq!((0..5).map(|_| lose(&mut contests, later)).sum::<usize>(), 1, "told anew");
        contests.retain(std::iter::empty());
        assert_eq!(contests.deadline(later), None);
        assert!(contests.may_write(&mine, later));
    }
}
