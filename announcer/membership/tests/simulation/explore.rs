//! Owns how schedules are explored: on all processors, from consecutive seeds, for a time or a number.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::faults::Plan;
use crate::oracle::Overlap;
use crate::random::Random;
use crate::world::{Settings, World};

/// What one schedule came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    pub(crate) overlaps: Vec<Overlap>,
    pub(crate) unserved: Vec<IpAddr>,
    pub(crate) events: u64,
    pub(crate) moves: u64,
}

/// What many came to.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally {
    pub(crate) schedules: u64,
    pub(crate) events: u64,
    pub(crate) moves: u64,
    pub(crate) overlaps: BTreeMap<u64, Overlap>,
    pub(crate) unserved: BTreeMap<u64, Vec<IpAddr>>,
}

/// How far to explore.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) first: u64,
    pub(crate) schedules: u64,
    pub(crate) time: Duration,
    /// Stop at the first overlap.
    pub(crate) until_overlap: bool,
}

/// Runs the schedule of a seed.
pub(crate) fn run(seed: u64, settings: Settings, plan: impl Fn(&mut Random) -> Plan) -> Verdict {
    let mut random = Random::new(seed);
    let plan = plan(&mut random);
    let (end, recovers) = (plan.end, plan.end > plan.healed);
    if settings.trace {
        println!("seed {seed}: {plan:#?}");
    }
    let mut world = World::new(plan, random.number(), settings);
    world.run_to(end);
    let served = |address: &&IpAddr| world.answering(**address).is_empty();
    let unserved = if recovers && world.oracle.overlaps.is_empty() {
        world.addresses.iter().filter(served).copied().collect()
    } else {
        Vec::new()
    };
    Verdict {
        overlaps: world.oracle.overlaps,
        unserved,
        events: world.events,
        moves: world.oracle.moves,
    }
}

/// Runs schedule after schedule.
pub(crate) fn explore(
    bounds: Bounds,
    settings: Settings,
    plan: impl Fn(&mut Random) -> Plan + Sync,
) -> Tally {
    let (next, stop) = (AtomicU64::new(bounds.first), AtomicBool::new(false));
    let tally = Mutex::new(Tally::default());
    let begun = Instant::now();
    let worker = || {
        while !stop.load(Ordering::Relaxed) && begun.elapsed() < bounds.time {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= bounds.first.saturating_add(bounds.schedules) {
                return;
            }
            let verdict = run(seed, settings, &plan);
            let mut tally = tally.lock().unwrap();
            tally.schedules += 1;
            tally.events += verdict.events;
            tally.moves += verdict.moves;
            if let Some(overlap) = verdict.overlaps.into_iter().next() {
                tally.overlaps.insert(seed, overlap);
                stop.fetch_or(bounds.until_overlap, Ordering::Relaxed);
            }
            if !verdict.unserved.is_empty() {
                tally.unserved.insert(seed, verdict.unserved);
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| (0..threads).for_each(|_| _ = scope.spawn(worker)));
    tally.into_inner().unwrap()
}

impl Tally {
    /// Fails with the seeds to replay, if two nodes ever answered.
    pub(crate) fn assert_one_owner(&self, family: &str) {
        let (count, of) = (self.overlaps.len(), self.schedules);
        let seeds: Vec<_> = self.overlaps.iter().take(5).collect();
        assert!(count == 0, "{family}: {count} of {of} schedules with two owners: {seeds:?}");
    }

    /// Fails with the seeds to replay, if an address was not answered for at the end.
    pub(crate) fn assert_served(&self, family: &str) {
        let (count, of) = (self.unserved.len(), self.schedules);
        let seeds: Vec<_> = self.unserved.iter().take(5).collect();
        assert!(
            count == 0,
            "{family}: {count} of {of} schedules with addresses unserved: {seeds:?}"
        );
    }
}
