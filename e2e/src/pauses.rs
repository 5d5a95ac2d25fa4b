//! Owns what tells that the machine itself stood still, as a virtual one does whose host is busy. No lease is renewed
//! meanwhile, and addresses rightly move.

use std::fmt;
use std::io::Write;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::unistd::gettid;

/// How often the witness looks at the clock.
const EVERY: Duration = Duration::from_millis(5);

/// A pause that moves addresses by itself: peers of an announcer suspect it after 125 ms.
const LONG: Duration = Duration::from_millis(100);

/// How often a test is done again.
const AGAIN: usize = 2;

/// An address moved without a reason that the test gave, or nobody answered for it for a moment. A machine that stands
/// still is such a reason; it is none for anything else that a test may find.
#[derive(Debug)]
pub struct Unsteady(pub String);

impl fmt::Display for Unsteady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unsteady {}

/// Does a test, and does it again where it ended with [`Unsteady`] and the machine stood still for 100 ms or longer,
/// twice at most.
///
/// # Errors
/// What the test says, at once where that is anything else.
pub async fn undisturbed(test: impl AsyncFn() -> Result<()>) -> Result<()> {
    for _ in 0..AGAIN {
        let witness = Witness::begin();
        let result = test().await;
        let pause = witness.longest();
        match result {
            Err(error) if is_excused(&error, pause) => {
                // Also where the output of tests that pass is not shown.
                let mut told = std::io::stderr().lock();
                writeln!(told, "the machine stood still for {pause:.0?}; again, after: {error:#}")?;
            }
            result => return result,
        }
    }
    test().await
}

fn is_excused(error: &anyhow::Error, pause: Duration) -> bool {
    pause >= LONG && error.downcast_ref::<Unsteady>().is_some()
}

/// A thread that runs as the announcers' own: before ordinary threads, where the control group lets it.
#[derive(Debug)]
pub struct Witness {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Witness {
    /// Looks at the clock from now on.
    pub fn begin() -> Self {
        let done = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            // Where it is refused, the announcers go without it, too.
            let thread = gettid().to_string();
            let _ = Command::new("chrt").args(["--fifo", "--pid", "1", &thread]).output();
            let mut longest = Duration::ZERO;
            while !until.load(Ordering::Relaxed) {
                let due = Instant::now() + EVERY;
                std::thread::sleep(EVERY);
                longest = longest.max(due.elapsed());
            }
            longest
        });
        Self { done, thread }
    }

    /// Stops, and tells for how long at most the machine stood still.
    pub fn longest(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pause_excuses_an_unsteady_address_and_nothing_else() {
        let moved = anyhow::Error::from(Unsteady("it moved".to_owned())).context("at the end");
        assert!(is_excused(&moved, LONG));
        assert!(!is_excused(&moved, LONG - EVERY));
        let late = anyhow::anyhow!("not within 10 s").context(Unsteady("elsewhere".to_owned()));
        assert!(is_excused(&late.context("at the end"), LONG));
        assert!(!is_excused(&anyhow::anyhow!("two answered"), LONG));
    }
}
