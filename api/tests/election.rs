//! Candidates that compete for one Lease on a virtual clock, over an API that delays, loses and applies what it said
//! it had not, with processes that stop and go on: never two holders at one moment.
#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use berth_api::election::{Action, Answer, Election, Seen, Timing};
use proptest::prelude::*;

const TIMING: Timing = Timing {
    duration: Duration::from_millis(5000),
    renew_deadline: Duration::from_millis(3000),
    retry: Duration::from_millis(1000),
};

/// The Lease as the API server has it.
#[derive(Clone, Default)]
struct Server {
    lease: Option<Seen>,
    version: u64,
}

impl Server {
    fn apply(&mut self, who: &str, action: &Action) -> Answer {
        let current = self.lease.as_ref().map(|seen| seen.version.clone());
        let (swap_on, transitions, holder) = match action {
            Action::Create => (None, 0, Some(who.to_owned())),
            Action::Replace { version, transitions, .. } => {
                (Some(version.clone()), *transitions, Some(who.to_owned()))
            }
            Action::Release { version, transitions } => (Some(version.clone()), *transitions, None),
            _ => unreachable!("not a write"),
        };
        if swap_on != current {
            return Answer::Conflict;
        }
        self.version += 1;
        let seen = Seen {
            version: self.version.to_string(),
            holder,
            duration: Some(TIMING.duration),
            transitions,
        };
        self.lease = Some(seen.clone());
        Answer::Applied(seen)
    }
}

/// What reaches a candidate later.
enum Mail {
    Answer(Answer),
    Watch(Option<Seen>),
    ReadFailed,
}

struct Candidate {
    name: String,
    election: Election,
    mail: VecDeque<(u64, Mail)>,
    /// A write that is on its way to the server.
    outgoing: Option<(u64, Action, Fate)>,
    stopped_until: u64,
    reading: bool,
}

#[derive(Clone, Copy, Debug)]
enum Fate {
    Answered,
    LostBefore,
    LostAfter,
}

#[derive(Clone, Debug)]
struct Chance {
    delay: u64,
    fate: u8,
    stop: u64,
    lag: u64,
}

fn chance() -> impl Strategy<Value = Chance> {
    (0_u64..1500, 0_u8..8, prop_oneof![9 => Just(0_u64), 1 => 0_u64..9000], 0_u64..800)
        .prop_map(|(delay, fate, stop, lag)| Chance { delay, fate, stop, lag })
}

/// Runs three candidates for a minute. Gives at how many of the 1,200 moments somebody held the Lease.
fn run(chances: &[Chance], leaves: Option<(usize, u64)>) -> Result<u32, TestCaseError> {
    let start = Instant::now();
    let at = |ms: u64| start + Duration::from_millis(ms);
    let mut chances = chances.iter().cycle();
    let mut server = Server::default();
    let mut candidates: Vec<_> = ["a", "b", "c"]
        .map(|name| Candidate {
            name: name.into(),
            election: Election::new(name, TIMING),
            mail: [(0, Mail::Watch(None))].into(),
            outgoing: None,
            stopped_until: 0,
            reading: false,
        })
        .into();
    let mut held = 0_u32;

    for ms in (0..60_000).step_by(50) {
        let before = server.version;
        for candidate in &mut candidates {
            if let Some((_, action, fate)) = candidate.outgoing.take_if(|(due, ..)| *due <= ms) {
                let answer = match fate {
                    Fate::LostBefore => Answer::Unknown,
                    Fate::LostAfter => {
                        server.apply(&candidate.name, &action);
                        Answer::Unknown
                    }
                    Fate::Answered => server.apply(&candidate.name, &action),
                };
                candidate.mail.push_back((ms + chances.next().unwrap().lag, Mail::Answer(answer)));
            }
        }
        if server.version != before {
            for candidate in &mut candidates {
                candidate.mail.push_back((
                    ms + chances.next().unwrap().lag,
                    Mail::Watch(server.lease.clone()),
                ));
            }
        }
        for (index, candidate) in candidates.iter_mut().enumerate() {
            if ms < candidate.stopped_until {
                continue;
            }
            if leaves.is_some_and(|(who, when)| who == index && when <= ms && ms < when + 50) {
                candidate.election.leave();
            }
            while let Some(position) = candidate.mail.iter().position(|(due, _)| *due <= ms) {
                match candidate.mail.remove(position).unwrap().1 {
                    Mail::Answer(answer) => candidate.election.answered(&answer, at(ms)),
                    Mail::Watch(seen) => {
                        candidate.reading = false;
                        candidate.election.observe(seen, at(ms))
                    }
                    Mail::ReadFailed => {
                        candidate.reading = false;
                        candidate.election.unread(at(ms))
                    }
                }
            }
            let action = candidate.election.decide(at(ms));
            let luck = chances.next().unwrap();
            match action {
                Action::Wait(_) | Action::Idle => {}
                Action::Read if candidate.reading => {}
                Action::Read => {
                    candidate.reading = true;
                    let mail = if luck.fate == 0 {
                        Mail::ReadFailed
                    } else {
                        Mail::Watch(server.lease.clone())
                    };
                    candidate.mail.push_back((ms + luck.lag, mail));
                }
                write => {
                    let fate = match luck.fate {
                        0 => Fate::LostBefore,
                        1 => Fate::LostAfter,
                        _ => Fate::Answered,
                    };
                    candidate.election.sent(&write, at(ms));
                    candidate.outgoing = Some((ms + luck.delay, write, fate));
                }
            }
            candidate.stopped_until = ms + luck.stop;
        }
        // A stopped process does not look at the clock, but a fence on the deadline it handed out would.
        let holders: Vec<_> = candidates
            .iter()
            .filter(|candidate| candidate.election.holds_until(at(ms)).is_some())
            .map(|candidate| candidate.name.clone())
            .collect();
        prop_assert!(holders.len() <= 1, "at {ms} ms: {holders:?}");
        held += u32::from(holders.len() == 1);
    }
    Ok(held)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn no_two_candidates_hold_the_lease_at_one_moment(
        chances in prop::collection::vec(chance(), 64),
        leaves in prop::option::of((0_usize..3, 0_u64..60_000)),
    ) {
        run(&chances, leaves)?;
    }
}

#[test]
fn the_lease_is_held_all_the_time_while_nothing_fails() {
    let held = run(&[Chance { delay: 50, fate: 7, stop: 0, lag: 50 }], None).unwrap();
    assert!(held > 1190, "held at {held} of 1200 moments");
}

#[test]
fn the_lease_passes_on_at_once_when_its_holder_leaves() {
    let held = run(&[Chance { delay: 50, fate: 7, stop: 0, lag: 50 }], Some((0, 30_000))).unwrap();
    assert!(held > 1180, "held at {held} of 1200 moments");
}
