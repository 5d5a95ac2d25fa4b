//! Owns what tells that the machine itself stood still, as a virtual one does whose host is busy. No lease is renewed
//! meanwhile, and addresses rightly move.

use std::fmt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::unistd::gettid;

/// How often the witness looks at the clock.
const EVERY: Duration = Duration::from_millis(5);

/// A pause that fails a test by itself: peers of an announcer suspect it after 125 ms.
const LONG: Duration = Duration::from_millis(100);

/// How often a test is done again.
const AGAIN: usize = 2;

/// Two machines answered for one address in the same moment. No pause excuses that.
#[derive(Debug)]
pub struct TwoAnswered(pub String);

impl fmt::Display for TwoAnswered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "two machines answered in the same moment: {}", self.0)
    }
}

impl std::error::Error for TwoAnswered {}

/// Does a test, and does it again where it failed while the machine stood still for 100 ms or longer, twice at most.
///
/// # Errors
/// What the test says, at once where it is [`TwoAnswered`].
pub async fn undisturbed(test: impl AsyncFn() -> Result<()>) -> Result<()> {
    for _ in 0..AGAIN {
        let witness = Witness::begin();
        let result = test().await;
        let pause = witness.longest();
        match result {
            Err(error) if is_excused(&error, pause) => {
                println!("the machine stood still for {pause:.0?}; again, after: {error:#}");
            }
            result => return result,
        }
    }
    test().await
}

fn is_excused(error: &anyhow::Error, pause: Duration) -> bool {
    pause >= LONG && !error.chain().any(|cause| cause.is::<TwoAnswered>())
}

/// A thread that runs as the announcers' own: before ordinary threads, where the control group lets it.
struct Witness {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Duration>,
}

impl Witness {
    fn begin() -> Self {
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

    fn longest(self) -> Duration {
        self.done.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_pause_excuses_all_but_two_that_answer() {
        let moved = anyhow::anyhow!("it moved");
        assert!(is_excused(&moved, LONG));
        assert!(!is_excused(&moved, LONG - EVERY));
        let two = anyhow::Error::from(TwoAnswered("10.0.64.1".to_owned())).context("at the end");
        assert!(!is_excused(&two, LONG));
    }
}
