//! Owns for how long this node asks to be granted: the shortest lease that would have lost nothing lately. It becomes longer at
//! once and shorter slowly. Policy only: a grant lasts for what its voter said, whatever was asked.

use std::ops::Range;
use std::time::Duration;

use crate::bounds::{Bounds, LONGEST};
use crate::moment::Moment;
use crate::parameters::Parameters;

/// What happened within the last four minutes is lately: whatever comes back every half minute is not forgotten in between.
const SPAN: Duration = Duration::from_secs(30);
const SPANS: usize = 8;

/// A lease is so many times as long as would have been enough: what comes next may be worse than all before.
const MARGIN: u32 = 2;

/// What comes seldom is not met by twice as much: it makes leases longer for long.
fn and_half(duration: Duration) -> Duration {
    duration.saturating_mul(3) / 2
}

/// What a lease was lost by, that a longer one would have outlasted, is remembered for longer than other things, each time for
/// twice as long, up to this: jobs of each five minutes, hour or day stall a machine when all else about it is forgotten
/// (keepalived#486, #1927).
const LONGEST_REGRET: Duration = Duration::from_secs(25 * 3_600);
const SHORTEST_REGRET: Duration = Duration::from_secs(240);

/// In each second a lease becomes shorter by as much at most, down to this, and from there on by less: of 350 ms in six seconds, and
/// then in 100 to the shortest. A machine that stands still now and then has mostly done so until then, and has lost nothing by it.
const SHORTER_BY: Duration = Duration::from_millis(25);
const DOWN_TO: Duration = Duration::from_millis(200);
const THEN_BY: Duration = Duration::from_millis(1);

/// Who gets so many addresses more within a span has more to do than lately: its heartbeats are in time, and what answers them is
/// not. It has the longest leases then, before one is lost.
const CROWD: usize = 32;

/// For each address that a heartbeat is about it takes longer to make, and to answer.
const EACH: Duration = Duration::from_micros(50);

#[derive(Debug)]
pub(crate) struct Pace {
    parameters: Parameters,
    /// Whether there is a choice: whoever knows version 3 of the wire has it.
    varies: bool,
    /// The longest lease that was needed, with its margin, of each span, the last one first.
    needs: [Duration; SPANS],
    regret: Regret,
    /// The fewest addresses that heartbeats were about in this span.
    fewest: usize,
    span_ends: Moment,
    wanted: Duration,
    /// Until when it was made shorter.
    shortened: Moment,
    #[cfg(feature = "simulation")]
    pressed: Option<Duration>,
}

/// What a lease was lost by.
#[derive(Clone, Copy, Debug)]
struct Regret {
    /// How long it would have had to last.
    after: Duration,
    /// For how long that is remembered, from the last time that something like it came.
    span: Duration,
    until: Moment,
}

impl Pace {
    /// That of a node that starts, and knows nothing yet.
    pub(crate) fn new(parameters: Parameters, varies: bool, now: Moment) -> Self {
        Self {
            parameters,
            varies,
            needs: [Duration::ZERO; SPANS],
            regret: Regret::new(now),
            fewest: 0,
            span_ends: now + SPAN,
            wanted: parameters.lease,
            shortened: now,
            #[cfg(feature = "simulation")]
            pressed: None,
        }
    }

    /// All leases that a majority grants were renewed now; the ones before counted from so long ago.
    pub(crate) fn renewed(&mut self, now: Moment, after: Duration) {
        self.roll(now);
        self.regret.note(now, after, self.wanted..self.parameters.lease);
        self.need(after.saturating_mul(MARGIN));
    }

    /// The same by one voter more than a majority. When one of those that answer sooner is lost, it is this one that leases
    /// rest on (patroni#2375). Who takes longer than a lease lasts is of no use then.
    pub(crate) fn renewed_by_one_more(&mut self, now: Moment, after: Duration) {
        self.roll(now);
        if after < self.parameters.lease {
            self.need(and_half(after));
        }
    }

    /// Heartbeats are about so many addresses now.
    pub(crate) fn concerns(&mut self, about: usize) {
        self.fewest = self.fewest.min(about);
        if about - self.fewest >= CROWD {
            self.fewest = about;
            self.need(self.parameters.lease);
        }
    }

    fn need(&mut self, lease: Duration) {
        self.needs[0] = self.needs[0].max(lease);
        self.wanted = self.wanted.max(self.needed());
    }

    /// As time goes on.
    pub(crate) fn roll(&mut self, now: Moment) {
        while self.span_ends <= now {
            self.needs.rotate_right(1);
            self.needs[0] = Duration::ZERO;
            self.fewest = usize::MAX;
            // Whoever stood still for long has nothing to tell of that time.
            let behind = now.since(self.span_ends) / u32::try_from(SPANS).unwrap_or(1);
            self.span_ends = self.span_ends + SPAN.max(behind);
        }
        let seconds = now.since(self.shortened).min(Duration::from_secs(1)).as_secs_f64();
        self.shortened = self.shortened.max(now);
        if self.regret.until <= now {
            self.regret.after = Duration::ZERO;
        }
        let quickly = self.wanted.saturating_sub(SHORTER_BY.mul_f64(seconds)).max(DOWN_TO);
        let slowly = self.wanted.saturating_sub(THEN_BY.mul_f64(seconds));
        self.wanted = quickly.min(slowly).max(self.needed());
    }

    fn needed(&self) -> Duration {
        let lately = self.needs.iter().max().copied().unwrap_or_default();
        lately.max(and_half(self.regret.after)).min(LONGEST)
    }

    /// The lease to ask for, in a view of so many voters, by a heartbeat about so many addresses; nothing where there is no
    /// choice. Of two voters both have to grant it, and when one is gone the API server is asked before the other goes on alone:
    /// that takes longer than a short lease. A single one has nobody beside it who could take over sooner.
    pub(crate) fn ask(&self, bounds: Bounds, voters: usize, about: usize) -> Option<Duration> {
        #[cfg(feature = "simulation")]
        if let Some(pressed) = self.pressed.filter(|_| self.varies) {
            return Some(pressed);
        }
        let about = u32::try_from(about).unwrap_or(u32::MAX);
        let floor = self.parameters.shortest.max(bounds.floor()) + EACH.saturating_mul(about);
        let wanted = if voters <= 2 { bounds.ceiling() } else { self.wanted.max(floor) };
        self.varies.then(|| bounds.granted(wanted))
    }

    /// Asks for this from now on, sensible or not.
    #[cfg(feature = "simulation")]
    pub(crate) fn press(&mut self, lease: Option<Duration>) {
        self.pressed = lease;
    }
}

impl Regret {
    fn new(now: Moment) -> Self {
        Self { after: Duration::ZERO, span: SHORTEST_REGRET, until: now }
    }

    /// A lease had to last so long. Between `lost` it did not, and a longer one would have.
    fn note(&mut self, now: Moment, after: Duration, lost: Range<Duration>) {
        if lost.start < after && after < lost.end {
            self.after = self.after.max(after);
            self.span = (self.span * 2).min(LONGEST_REGRET);
            self.until = now + self.span;
        } else if after >= self.after * 3 / 4 {
            self.until = now + self.span;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: Duration = Duration::from_millis(1);

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1_000_000_000) + MILLI * u32::try_from(millis).unwrap()
    }

    fn pace() -> Pace {
        Pace::new(Parameters::default(), true, at(0))
    }

    fn asked(pace: &Pace) -> u128 {
        pace.ask(Bounds::default(), 3, 1).unwrap().as_millis()
    }

    /// Renewals every 25 ms from one time to another, in milliseconds.
    fn quiet(pace: &mut Pace, from: u64, to: u64) {
        for millis in (from..to).step_by(25) {
            pace.renewed(at(millis), MILLI * 26);
        }
    }

    #[test]
    fn it_begins_with_what_everybody_promises_and_becomes_shorter_soon_and_then_slowly() {
        let mut pace = pace();
        assert_eq!(asked(&pace), 350);
        for (from, to, lease) in
            [(0, 3_000, 275), (3_000, 6_000, 200), (6_000, 56_000, 150), (56_000, 120_000, 100)]
        {
            quiet(&mut pace, from, to);
            assert!((lease..=lease + 2).contains(&asked(&pace)), "{to}: {}", asked(&pace));
        }
        quiet(&mut pace, 120_000, 600_000);
        assert_eq!(asked(&pace), 100);
    }

    #[test]
    fn who_was_late_asks_for_twice_as_much_at_once_and_remembers_it_for_minutes() {
        let mut pace = pace();
        quiet(&mut pace, 0, 120_000);
        pace.renewed(at(120_145), MILLI * 145);
        assert_eq!(asked(&pace), 290);
        quiet(&mut pace, 120_200, 330_000);
        assert_eq!(asked(&pace), 290, "it may come again");
        quiet(&mut pace, 330_000, 500_000);
        assert_eq!(asked(&pace), 217, "a lease was lost by it");
        quiet(&mut pace, 500_000, 800_000);
        assert_eq!(asked(&pace), 100);
        pace.renewed(at(800_500), MILLI * 500);
        assert_eq!(asked(&pace), 350, "no more than the view allows");
        let wide = Bounds::new(MILLI * 100, MILLI * 500).unwrap();
        assert_eq!(pace.ask(wide, 3, 1), Some(MILLI * 500));
    }

    #[test]
    fn processors_taken_away_every_half_minute_cost_no_lease_after_the_first_time() {
        for (first, worst) in [(120, 220), (130, 220), (220, 120)] {
            let mut pace = pace();
            for turn in 0..60 {
                let begin = turn * 30_000;
                let gap = if turn % 3 == 1 { worst } else { first } + 26;
                let lease = asked(&pace);
                assert!(turn == 0 || lease > u128::from(gap), "{turn}: {lease} {gap}");
                pace.renewed(at(begin + gap), MILLI * u32::try_from(gap).unwrap());
                quiet(&mut pace, begin + gap, begin + 30_000);
            }
        }
    }

    #[test]
    fn what_comes_back_when_all_else_is_forgotten_costs_a_few_leases_and_no_more() {
        for (minutes, most) in [(5, 1), (10, 2), (15, 2), (30, 3), (60, 4)] {
            let (mut pace, mut lost) = (pace(), 0);
            quiet(&mut pace, 0, 300_000);
            for turn in 5..5 + 24 {
                let begin = turn * minutes * 60_000;
                let lease = asked(&pace);
                lost += usize::from(lease <= 145);
                pace.renewed(at(begin + 145), MILLI * 145);
                // What is quiet needs no telling for hours.
                for second in 1..minutes * 60 {
                    pace.renewed(at(begin + second * 1_000), MILLI * 26);
                }
            }
            assert!((1..=most).contains(&lost), "each {minutes} minutes: {lost}");
        }
    }

    #[test]
    fn what_no_lease_would_have_outlasted_is_not_remembered_for_long() {
        let mut pace = pace();
        quiet(&mut pace, 0, 120_000);
        pace.renewed(at(121_000), MILLI * 1_000);
        assert_eq!(asked(&pace), 350);
        quiet(&mut pace, 121_000, 500_000);
        assert_eq!(asked(&pace), 100);
    }

    #[test]
    fn a_voter_that_answers_late_makes_leases_as_long_as_it_takes_and_none_that_is_of_no_use() {
        for (late, lease) in [(106, 159), (200, 300), (340, 350), (351, 100), (5_000, 100)] {
            let (mut pace, mut now) = (pace(), 0);
            while now < 600_000 {
                quiet(&mut pace, now, now + late);
                now += late;
                pace.renewed_by_one_more(at(now), MILLI * u32::try_from(late).unwrap());
            }
            assert_eq!(asked(&pace), lease, "{late}");
        }
    }

    #[test]
    fn who_gets_many_addresses_at_once_has_long_leases_before_one_is_lost() {
        let mut pace = pace();
        quiet(&mut pace, 0, 120_000);
        for about in (0..200).rev().chain(0..CROWD) {
            pace.concerns(about);
        }
        assert_eq!(asked(&pace), 100);
        pace.concerns(CROWD);
        assert_eq!(asked(&pace), 350);
        for second in 120..600 {
            quiet(&mut pace, second * 1_000, (second + 1) * 1_000);
            pace.concerns(CROWD);
        }
        assert_eq!(asked(&pace), 100, "they are many, and no more come");
    }

    #[test]
    fn a_process_that_stood_still_asks_for_no_less_by_it() {
        let mut pace = pace();
        quiet(&mut pace, 0, 1_000);
        let before = asked(&pace);
        pace.roll(at(60_000));
        assert!(asked(&pace) + 26 >= before);
        pace.roll(at(100 * 86_400_000 / 50));
    }

    #[test]
    fn much_to_tell_few_voters_and_a_weak_fence_take_longer_leases() {
        let mut pace = pace();
        quiet(&mut pace, 0, 120_000);
        let ask = |pace: &Pace, voters, about| pace.ask(Bounds::default(), voters, about);
        assert_eq!([1, 2].map(|voters| ask(&pace, voters, 1)), [Some(MILLI * 350); 2]);
        assert_eq!(ask(&pace, 3, 2_000), Some(MILLI * 200));
        assert_eq!(ask(&pace, 3, usize::MAX), Some(MILLI * 350));
        let weak = Parameters { shortest: MILLI * 350, ..Parameters::default() };
        let mut pace = Pace::new(weak, true, at(0));
        quiet(&mut pace, 0, 20_000);
        assert_eq!(ask(&pace, 3, 1), Some(MILLI * 350));
        assert_eq!(Pace::new(weak, false, at(0)).ask(Bounds::default(), 3, 1), None);
    }
}
