//! Owns the record of when the machine itself stood still, as a virtual one does whose host is busy: no lease is renewed
//! meanwhile, and addresses rightly move. The record excuses what a pause explains, for as long as the pause was and
//! nothing else.

use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// How often a witness looks at the clock.
const EVERY: Duration = Duration::from_millis(5);

/// What is shorter is not worth a line.
const SHORT: Duration = Duration::from_millis(20);

/// A pause that moves addresses by itself: leases are 100 ms and more, and renewed each 25.
pub const LONG: Duration = Duration::from_millis(70);

/// A time in which a processor did nothing, whatever was to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pause {
    /// When a witness should have looked at the clock.
    pub from: Instant,
    /// When it did.
    pub to: Instant,
}

impl Pause {
    /// How long it lasted.
    pub fn length(&self) -> Duration {
        self.to.duration_since(self.from)
    }

    fn touches(&self, from: Instant, to: Instant) -> bool {
        self.from <= to && from <= self.to
    }
}

/// The pauses of the machine up to a moment.
#[derive(Clone, Debug, Default)]
pub struct Pauses(Vec<Pause>);

impl Pauses {
    /// The longest pause of which a part is between `from` and `to`; zero without one.
    pub fn longest(&self, from: Instant, to: Instant) -> Duration {
        let touching = self.0.iter().filter(|pause| pause.touches(from, to));
        touching.map(Pause::length).max().unwrap_or_default()
    }

    /// How many pauses of which a part is between `from` and `to` are long enough to move addresses by themselves.
    pub fn count(&self, from: Instant, to: Instant) -> usize {
        self.0.iter().filter(|pause| pause.touches(from, to) && pause.length() >= LONG).count()
    }

    /// Whether the machine stood still between `from` and `to`, for long enough to move addresses by itself.
    pub fn excuse(&self, from: Instant, to: Instant) -> bool {
        self.longest(from, to) >= LONG
    }
}

impl<const N: usize> From<[(Instant, Instant); N]> for Pauses {
    fn from(pauses: [(Instant, Instant); N]) -> Self {
        Self(pauses.map(|(from, to)| Pause { from, to }).into())
    }
}

/// What the witnesses have written down. One of them is bound to each processor, and runs as the announcers' own threads
/// do: before ordinary ones, where the control group lets it.
#[derive(Debug)]
struct Witnesses(Mutex<Record>);

#[derive(Debug)]
struct Record {
    /// When each of them looked last.
    looked: Vec<Instant>,
    pauses: Vec<Pause>,
}

static WITNESSES: OnceLock<Witnesses> = OnceLock::new();

/// Begins the record, where none is kept yet. It goes on until the process ends.
pub fn watch() {
    let _ = witnesses();
}

/// The record up to now, with a pause that has just ended.
pub fn so_far() -> Pauses {
    let (witnesses, now) = (witnesses(), Instant::now());
    loop {
        {
            let record = witnesses.0.lock().unwrap_or_else(PoisonError::into_inner);
            if record.looked.iter().all(|at| *at >= now) {
                return Pauses(record.pauses.clone());
            }
        }
        std::thread::sleep(EVERY / 5);
    }
}

/// `what` took no longer than `limit` and the longest pause since `from`, when it began.
///
/// # Errors
/// When it took longer, with both.
pub fn within(what: &str, took: Duration, limit: Duration, from: Instant) -> Result<()> {
    let pause = so_far().longest(from, from + took);
    ensure!(took <= limit + pause, "{what}: {took:.0?}, {}", allowed(limit, pause));
    println!("{what}: {took:.0?}, {}", allowed(limit, pause));
    Ok(())
}

fn allowed(limit: Duration, pause: Duration) -> String {
    if pause.is_zero() {
        format!("of {limit:.0?} at most")
    } else {
        format!("of {limit:.0?} and a pause of {pause:.0?} at most")
    }
}

fn witnesses() -> &'static Witnesses {
    WITNESSES.get_or_init(|| {
        let processors = processors();
        let looked = vec![Instant::now(); processors.len()];
        for (number, processor) in processors.into_iter().enumerate() {
            std::thread::spawn(move || witness(number, processor));
        }
        Witnesses(Mutex::new(Record { looked, pauses: Vec::new() }))
    })
}

/// The processors that this process may use; one that is none where nobody says.
fn processors() -> Vec<Option<usize>> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let is_allowed = |processor: &usize| allowed.is_set(*processor).unwrap_or(false);
    let found: Vec<_> = (0..CpuSet::count()).filter(is_allowed).map(Some).collect();
    if found.is_empty() { vec![None] } else { found }
}

fn witness(number: usize, processor: Option<usize>) {
    if let Some(processor) = processor {
        let mut only = CpuSet::new();
        // Where it is refused, it sees the pauses of the processor that it has.
        let _ = only.set(processor).and_then(|()| sched_setaffinity(Pid::from_raw(0), &only));
    }
    // Where it is refused, the announcers go without it, too.
    let thread = gettid().to_string();
    let _ = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).output();
    let witnesses = WITNESSES.wait();
    loop {
        let due = Instant::now() + EVERY;
        std::thread::sleep(EVERY);
        let now = Instant::now();
        let mut record = witnesses.0.lock().unwrap_or_else(PoisonError::into_inner);
        record.looked[number] = now;
        if now.duration_since(due) >= SHORT {
            record.pauses.push(Pause { from: due, to: now });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn pauses(start: Instant, all: &[(u64, u64)]) -> Pauses {
        Pauses(
            all.iter().map(|(a, b)| Pause { from: start + MS(*a), to: start + MS(*b) }).collect(),
        )
    }

    #[test]
    fn a_bound_grows_by_the_longest_pause_in_its_window_and_by_no_other() {
        let start = Instant::now();
        let pauses = pauses(start, &[(100, 400), (1000, 1150), (1500, 1540)]);
        let longest = |from, to| pauses.longest(start + MS(from), start + MS(to));
        assert_eq!(longest(0, 99), Duration::ZERO);
        assert_eq!(longest(0, 100), MS(300));
        assert_eq!(longest(400, 900), MS(300));
        assert_eq!(longest(401, 999), Duration::ZERO);
        assert_eq!(longest(900, 2000), MS(150));
    }

    #[test]
    fn only_a_long_pause_excuses_a_move_and_only_in_its_time() {
        let start = Instant::now();
        let pauses = pauses(start, &[(100, 169), (1000, 1100)]);
        let excuse = |from, to| pauses.excuse(start + MS(from), start + MS(to));
        assert!(!excuse(0, 900));
        assert!(excuse(0, 1000));
        assert!(excuse(1100, 1200));
        assert!(!excuse(1101, 1200));
    }

    #[test]
    fn a_takeover_of_three_seconds_is_none_of_one() {
        let from = Instant::now();
        assert!(within("replaced", MS(900), MS(1000), from).is_ok());
        let late = within("replaced", MS(3000), MS(1000), from).unwrap_err();
        assert!(late.to_string().starts_with("replaced: 3s, of 1s"), "{late}");
    }

    #[test]
    fn what_is_written_down_is_there_when_it_is_asked_for() {
        watch();
        let before = Instant::now();
        let _ = so_far();
        let record = witnesses().0.lock().unwrap();
        assert!(record.looked.iter().all(|looked| *looked >= before));
    }
}
