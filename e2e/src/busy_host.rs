//! A busy host of a virtual machine: from time to time no processor does anything for a moment.

use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::{Pid, gettid};

/// From one pause to the next.
pub const EVERY: Duration = Duration::from_secs(30);
/// How long one lasts, in milliseconds.
const LENGTH: std::ops::RangeInclusive<u64> = 120..=220;

/// Takes every processor away from all others, at once, again and again until the process ends.
///
/// # Errors
/// If a thread cannot be bound to its processor, or may not come first there.
pub fn be_busy() -> Result<()> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).context("which processors there are")?;
    let mut processors = Vec::new();
    for processor in 0..CpuSet::count() {
        if allowed.is_set(processor)? {
            processors.push(processor);
        }
    }
    let together = Arc::new(Barrier::new(processors.len()));
    let length = Arc::new(AtomicU64::new(0));
    let (ready, all_ready) = std::sync::mpsc::channel();
    for (number, processor) in processors.iter().copied().enumerate() {
        let (together, length, ready) = (together.clone(), length.clone(), ready.clone());
        thread::spawn(move || {
            let _ = ready.send(come_first(processor));
            loop {
                thread::sleep(EVERY);
                if number == 0 {
                    length.store(fastrand::u64(LENGTH), Ordering::SeqCst);
                }
                together.wait();
                let until = Instant::now() + Duration::from_millis(length.load(Ordering::SeqCst));
                while Instant::now() < until {
                    std::hint::spin_loop();
                }
            }
        });
    }
    all_ready.into_iter().take(processors.len()).collect()
}

/// The calling thread runs on this processor, and before the announcers and what looks for pauses.
fn come_first(processor: usize) -> Result<()> {
    let mut only = CpuSet::new();
    only.set(processor)?;
    sched_setaffinity(Pid::from_raw(0), &only)?;
    let thread = gettid().to_string();
    let set = Command::new("chrt").args(["--fifo", "--pid", "50", &thread]).output()?;
    let why = String::from_utf8_lossy(&set.stderr);
    ensure!(set.status.success(), "chrt --fifo: {}", why.trim());
    Ok(())
}
