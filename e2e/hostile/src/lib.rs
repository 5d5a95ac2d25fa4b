//! What others may send, for the tests of whatever reads it: valid samples that are mutated, and noise. Whatever comes,
//! reading it must neither panic nor take long nor take memory that is not in proportion.
//!
//! A test takes some tenths of a second, and a minute with `BERTH_SOAK=1`. Each case has a seed of its own; a failure
//! prints it, and with `BERTH_SEED=<seed>` the test begins with that case.
//!
//! The program of the test has to count what is allocated:
//!
//! ```
//! #[global_allocator]
//! static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;
//! ```
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod memory;
mod mutate;
mod objects;
mod proportion;
mod work;

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use self::work::worked;

pub use memory::{Counting, kept};
pub use proportion::{in_proportion, in_square};

/// How long a test goes on, and how long with `BERTH_SOAK=1`.
const SHORT: Duration = Duration::from_millis(250);
const LONG: Duration = Duration::from_secs(60);

/// Cases that are tried however slow the machine is.
const FEWEST: u64 = 100;

/// What one case may take of a processor, in a build for tests.
const WORK: Duration = Duration::from_secs(1);

/// A case that is not over after this is told of: it hangs.
const STUCK: Duration = Duration::from_secs(60);

/// Octets that reading may take at any time: so many, and so many for each octet that is read. A JSON array of short texts
/// is some twenty times as large when it is decoded as a value.
const MEMORY: usize = 1 << 20;
const TIMES: usize = 100;

/// Octets of a failed case that are shown.
const SHOWN: usize = 4096;

/// Reads `samples` with mutations, and noise.
pub fn octets(samples: &[Vec<u8>], mut read: impl FnMut(&[u8])) {
    assert!(!samples.is_empty(), "no samples");
    run(|random| mutate::octets(random, samples), |case| read(case));
}

/// Reads objects as an API server shows them, as JSON, with mutations of their values and then of their text.
pub fn objects(samples: &[Value], mut read: impl FnMut(&[u8])) {
    assert!(!samples.is_empty(), "no samples");
    let make = |random: &mut Rng| {
        let text = objects::mutated(random, samples).to_string().into_bytes();
        if random.u8(..) < 32 { mutate::octets(random, &[text]) } else { text }
    };
    run(make, |case| read(case));
}

fn run(mut make: impl FnMut(&mut Rng) -> Vec<u8>, mut read: impl FnMut(&[u8])) {
    assert!(
        memory::is_counted(),
        "the program of this test has no berth_hostile::Counting as its #[global_allocator]"
    );
    let span =
        if std::env::var_os("BERTH_SOAK").is_some_and(|set| set == "1") { LONG } else { SHORT };
    let first = first_seed();
    let (begun, seed) = (Instant::now(), AtomicU64::new(first));
    let (ends, ended) = std::sync::mpsc::channel::<()>();
    std::thread::scope(|scope| {
        let watched = &seed;
        scope.spawn(move || watch(watched, &ended));
        // Dropped at the end of the cases, or when one fails: whoever watches goes.
        let _ends = ends;
        let mut count = 0;
        while count < FEWEST || begun.elapsed() < span {
            let now = first.wrapping_add(count);
            seed.store(now, Ordering::Relaxed);
            case(now, &make(&mut Rng::with_seed(now)), &mut read);
            count += 1;
        }
        println!("{count} cases from BERTH_SEED={first}");
    });
}

fn first_seed() -> u64 {
    match std::env::var("BERTH_SEED") {
        Ok(text) => text
            .parse()
            .unwrap_or_else(|_| panic!("BERTH_SEED={text}: a number of 64 bits is accepted")),
        Err(_) => fastrand::u64(..),
    }
}

/// Ends the process when one case does not end.
fn watch(seed: &AtomicU64, ended: &std::sync::mpsc::Receiver<()>) {
    use std::sync::mpsc::RecvTimeoutError::Timeout;
    let mut last = None;
    while ended.recv_timeout(STUCK) == Err(Timeout) {
        let now = seed.load(Ordering::Relaxed);
        if last.replace(now) == Some(now) {
            eprintln!("BERTH_SEED={now}: reading does not end");
            std::process::abort();
        }
    }
}

/// Reads one case; panics where that panics, takes too long or too much.
fn case(seed: u64, case: &[u8], read: &mut impl FnMut(&[u8])) {
    let begun = worked();
    let (read, most) = memory::peak(|| catch_unwind(AssertUnwindSafe(|| read(case))));
    let (took, limit) = (worked().saturating_sub(begun), MEMORY + TIMES * case.len());
    if read.is_ok() && took <= WORK && most <= limit {
        return;
    }
    eprintln!("BERTH_SEED={seed}: {} octets, {}", case.len(), show(case));
    if let Err(panic) = read {
        resume_unwind(panic);
    }
    assert!(took <= WORK, "reading takes {took:?} of a processor: {WORK:?} at most");
    panic!("reading takes {most} octets of memory: {limit} at most");
}

fn show(case: &[u8]) -> String {
    let head = &case[..case.len().min(SHOWN)];
    match std::str::from_utf8(head) {
        Ok(text) => format!("{text:?}"),
        Err(_) => head.iter().map(|octet| format!("{octet:02x}")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::json;

    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting;

    fn fails(read: impl FnMut(&[u8])) -> String {
        let failed = catch_unwind(AssertUnwindSafe(|| octets(&[b"a sample".to_vec()], read)));
        let panic = failed.expect_err("it is found");
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
            .unwrap_or_default()
    }

    #[test]
    fn what_panics_or_takes_too_long_or_too_much_is_found() {
        let fragile = |octets: &[u8]| assert!(octets.len() > 5, "too short");
        assert_eq!(fails(fragile), "too short");
        let greedy =
            |octets: &[u8]| drop(vec![0; usize::from(octets.first() == Some(&0xff)) << 30]);
        assert!(fails(greedy).contains("octets of memory"));
        let slow = |octets: &[u8]| {
            let begun = worked();
            while octets.len() > 50 && worked().saturating_sub(begun) <= WORK {}
        };
        assert!(fails(slow).contains("of a processor"));
    }

    #[test]
    fn work_that_grows_faster_than_its_count_is_found() {
        let steps = |count: usize| (0..count).for_each(|step| _ = std::hint::black_box(step));
        in_proportion(3000, |count| steps(count * 3000));
        let squares = || in_proportion(3000, |count| steps(count * count));
        assert!(catch_unwind(AssertUnwindSafe(squares)).is_err());
    }

    #[test]
    fn a_seed_makes_the_same_case_and_another_seed_another_one() {
        let samples = [b"one of them".to_vec(), (0..=255).collect()];
        let made = |seed| mutate::octets(&mut Rng::with_seed(seed), &samples);
        assert!((0..100).all(|seed| made(seed) == made(seed)));
        assert!((0..100).map(made).collect::<BTreeSet<_>>().len() > 95);
        let object = [json!({ "status": { "ips": ["192.0.2.1"], "epoch": 7 } })];
        let made = |seed| objects::mutated(&mut Rng::with_seed(seed), &object).to_string();
        assert!((0..100).map(made).collect::<BTreeSet<_>>().len() > 80);
    }

    #[test]
    fn objects_stay_objects_mostly_and_change_everywhere() {
        let sample = json!({ "kind": "A", "status": { "ips": ["192.0.2.1"], "epoch": 7 } });
        let (mut whole, mut all) = (0, 0);
        objects(&[sample], |text| {
            all += 1;
            whole += usize::from(serde_json::from_slice::<Value>(text).is_ok());
        });
        assert!(whole * 3 > all * 2, "{whole} of {all}");
    }
}
