//! Whether the API server of this node is healthy, by what it answers when it is asked. Pure.
//!
//! It is healthy with its first good answer, so that a node that starts has its turn at once, and unhealthy when so many
//! in a row were bad. Back takes as many good ones in a row, and twice as many for each further time that it has turned in
//! the last ten minutes: one that is up and down is asked for nothing meanwhile (OCPBUGS-1257).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// A server that does not run refuses at once: then it is asked again this soon, and what is down is known in three tenths of
/// a second. One that has taken all the time it has is asked again at once.
const SOON: Duration = Duration::from_millis(100);

/// How long it is remembered that it turned.
const MEMORY: Duration = Duration::from_secs(600);

/// So many times is it doubled at most.
const DOUBLED: u32 = 3;

/// How it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// How often.
    pub period: Duration,
    /// How many bad answers in a row make it unhealthy, and good ones healthy again.
    pub failures: u32,
}

/// What is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    /// It was not heard well yet, nor so badly that it is unhealthy.
    #[default]
    Unknown,
    /// It answers well.
    Healthy,
    /// It did not, and does since a moment ago.
    Recovering,
    /// It does not.
    Unhealthy,
}

/// What is heard of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// What is known.
    pub standing: Standing,
    /// When it was asked what it has answered well, the last time; where a bad answer came before, as often in a row as makes
    /// it healthy: who goes by this takes nothing over for one good answer among bad ones, as of servers that are all slow.
    pub good: Option<Instant>,
}

/// The health of one API server.
#[derive(Clone, Debug)]
pub struct Health {
    rules: Rules,
    standing: Standing,
    good: u32,
    bad: u32,
    /// Whether a bad answer came, and not as many good ones in a row since as make it healthy.
    is_shaken: bool,
    /// When it turned unhealthy lately.
    turned: VecDeque<Instant>,
    due: Instant,
}

impl Health {
    /// Nothing is known, and it is to be asked at once.
    pub fn new(rules: Rules, now: Instant) -> Self {
        let standing = Standing::default();
        Self {
            rules,
            standing,
            good: 0,
            bad: 0,
            is_shaken: false,
            turned: VecDeque::new(),
            due: now,
        }
    }

    /// The same of one that has to show it, as one that was unhealthy has.
    pub fn doubted(rules: Rules, now: Instant) -> Self {
        Self { standing: Standing::Unhealthy, ..Self::new(rules, now) }
    }

    /// When it is to be asked next.
    pub fn due(&self) -> Instant {
        self.due
    }

    /// What is known of it.
    pub fn standing(&self) -> Standing {
        match self.standing {
            Standing::Unhealthy if self.good > 0 => Standing::Recovering,
            standing => standing,
        }
    }

    /// Whether the last answer was good, and none that was bad came shortly before it.
    pub fn is_steady(&self) -> bool {
        self.good > 0 && !self.is_shaken
    }

    /// Takes in an answer, good or not, to what was asked at `asked`.
    pub fn answered(&mut self, is_good: bool, asked: Instant, now: Instant) {
        while self.turned.front().is_some_and(|turned| *turned + MEMORY <= now) {
            self.turned.pop_front();
        }
        match is_good {
            true => (self.good, self.bad) = (self.good.saturating_add(1), 0),
            false => (self.good, self.bad) = (0, self.bad.saturating_add(1)),
        }
        self.is_shaken = !is_good || self.is_shaken && self.good < self.rules.failures;
        let turns = match self.standing {
            Standing::Unknown => is_good || self.bad >= self.rules.failures,
            Standing::Healthy => self.bad >= self.rules.failures,
            Standing::Recovering | Standing::Unhealthy => self.good >= self.needed(),
        };
        if turns {
            self.standing = if is_good { Standing::Healthy } else { Standing::Unhealthy };
            if !is_good {
                self.turned.push_back(now);
            }
        }
        let is_in_doubt = self.bad > 0 && self.standing != Standing::Unhealthy;
        self.due = match is_in_doubt {
            true => (asked + SOON.min(self.rules.period)).max(now),
            false => (asked + self.rules.period).max(now + SOON.min(self.rules.period)),
        };
    }

    /// How many good answers in a row make it healthy again.
    fn needed(&self) -> u32 {
        let further = u32::try_from(self.turned.len().saturating_sub(1)).unwrap_or(DOUBLED);
        self.rules.failures.saturating_mul(1 << further.min(DOUBLED))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { period: Duration::from_secs(1), failures: 3 };

    /// A server that answers as it is told, each time after so long.
    struct Server {
        health: Health,
        start: Instant,
    }

    impl Server {
        fn new() -> Self {
            let start = Instant::now();
            Self { health: Health::new(RULES, start), start }
        }

        /// Asks it when that is due, so many times. What is known then, and when that is.
        fn asked(&mut self, times: u32, is_good: bool, takes: Duration) -> (Standing, Duration) {
            let mut now = self.health.due();
            for _ in 0..times {
                let asked = self.health.due();
                now = asked + takes;
                self.health.answered(is_good, asked, now);
            }
            (self.health.standing(), now - self.start)
        }
    }

    const AT_ONCE: Duration = Duration::ZERO;
    const HANGS: Duration = Duration::from_secs(1);

    #[test]
    fn it_is_healthy_with_its_first_good_answer_and_unknown_before_the_third_bad_one() {
        assert_eq!(Server::new().asked(1, true, AT_ONCE), (Standing::Healthy, AT_ONCE));
        assert_eq!(Server::new().asked(2, false, AT_ONCE).0, Standing::Unknown);
        assert_eq!(Server::new().asked(3, false, AT_ONCE).0, Standing::Unhealthy);
    }

    #[test]
    fn one_that_refuses_is_known_in_a_fifth_of_a_second_and_one_that_hangs_when_it_had_its_time() {
        let mut crashed = Server::new();
        let (_, before) = crashed.asked(5, true, AT_ONCE);
        let (standing, found) = crashed.asked(3, false, AT_ONCE);
        assert_eq!(standing, Standing::Unhealthy);
        assert_eq!(found - before, RULES.period + 2 * SOON, "the first question is a period later");
        let mut hangs = Server::new();
        let (_, before) = hangs.asked(5, true, AT_ONCE);
        let (standing, found) = hangs.asked(3, false, HANGS);
        assert_eq!((standing, found - before), (Standing::Unhealthy, RULES.period + 3 * HANGS));
    }

    #[test]
    fn a_bad_answer_among_good_ones_turns_nothing() {
        let mut server = Server::new();
        server.asked(1, true, AT_ONCE);
        for _ in 0..100 {
            assert_eq!(server.asked(2, false, AT_ONCE).0, Standing::Healthy);
            assert_eq!(server.asked(1, true, AT_ONCE).0, Standing::Healthy);
        }
    }

    #[test]
    fn one_good_answer_among_bad_ones_shows_nothing_and_as_many_in_a_row_as_make_it_healthy_do() {
        let mut server = Server::new();
        server.asked(1, true, AT_ONCE);
        assert!(server.health.is_steady(), "one that starts has its turn at once");
        server.asked(2, false, HANGS);
        server.asked(2, true, AT_ONCE);
        assert!(server.health.standing() == Standing::Healthy && !server.health.is_steady());
        server.asked(1, true, AT_ONCE);
        assert!(server.health.is_steady());
    }

    #[test]
    fn back_takes_as_many_good_answers_in_a_row_and_longer_for_one_that_is_up_and_down() {
        let mut server = Server::new();
        server.asked(1, true, AT_ONCE);
        for needed in [3, 6, 12, 24, 24] {
            server.asked(3, false, AT_ONCE);
            assert_eq!(server.asked(needed - 1, true, AT_ONCE).0, Standing::Recovering, "{needed}");
            assert_eq!(server.asked(1, false, AT_ONCE).0, Standing::Unhealthy);
            assert_eq!(server.asked(needed - 1, true, AT_ONCE).0, Standing::Recovering, "in a row");
            assert_eq!(server.asked(1, true, AT_ONCE).0, Standing::Healthy, "{needed}");
        }
        server.asked(700, true, AT_ONCE);
        server.asked(3, false, AT_ONCE);
        assert_eq!(server.asked(3, true, AT_ONCE).0, Standing::Healthy, "ten minutes later");
    }

    #[test]
    fn whatever_it_answers_it_is_asked_no_more_often_than_ten_times_a_second() {
        for (is_good, takes) in [(true, AT_ONCE), (false, AT_ONCE), (true, 3 * HANGS)] {
            let mut server = Server::new();
            let (_, end) = server.asked(100, is_good, takes);
            assert!(end >= 99 * SOON, "{end:?}");
        }
        let mut down = Server::new();
        down.asked(3, false, AT_ONCE);
        let before = down.health.due();
        down.asked(10, false, AT_ONCE);
        assert_eq!(down.health.due() - before, 10 * RULES.period, "what is known is asked seldom");
    }
}
