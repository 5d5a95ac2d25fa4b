//! The node that answers for an address crashes, again and again.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::fault::Leftovers;
use berth_e2e::pauses;
use berth_e2e::probe::Probe;
use berth_e2e::rivals::{Stage, System};
use berth_e2e::wire::Record;
use berth_e2e::world::eventually;

use crate::ears::{AFTER, BRIEFLY, CALM, Ears, PAUSE, Seen, mac_of, rank};

/// How many crashes a lab sees.
pub(crate) const BLOCK: usize = 10;
/// How often the client connects.
pub(crate) const PROBE: Duration = Duration::from_millis(10);

/// What a system showed so far.
pub(crate) struct Measured {
    pub(crate) system: System,
    pub(crate) name: String,
    /// How many crashes are to come.
    pub(crate) left: usize,
    crashes: Vec<Crash>,
    /// What happened when the owner was stopped, after all of them.
    pub(crate) pause: Option<Seen>,
}

/// What one crash showed.
struct Crash {
    seen: Seen,
    /// Whether the address moved on from the node that had taken it over.
    moved_on: bool,
    /// The longest that the machine stood still in its block.
    still: Duration,
}

impl Measured {
    pub(crate) fn new(system: System, name: String, crashes: usize) -> Self {
        // What takes seconds each time differs less by it.
        let left = if system.is_fast() { crashes } else { crashes.div_ceil(5) };
        Self { system, name, left, crashes: Vec::new(), pause: None }
    }

    /// Some crashes in a lab of their own.
    pub(crate) async fn block(&mut self) -> Result<()> {
        let mut stage = self.system.up().await?;
        eventually("an answer", 60, || async { Ok(stage.world.curl(stage.address).ok()) })
            .await
            .with_context(|| stage.logs())?;
        pauses::watch();
        let (began, first) = (Instant::now(), self.crashes.len());
        for _ in 0..self.left.min(BLOCK) {
            let (seen, moved_on) = crash(&mut stage).await?;
            let (name, number) = (&self.name, self.crashes.len() + 1);
            let Seen { gap, both, .. } = &seen;
            eprintln!(
                "{name}: crash {number}: {gap:.2?}, two answering: {both:.2?}, moved on: {moved_on}"
            );
            self.crashes.push(Crash { seen, moved_on, still: Duration::ZERO });
            self.left -= 1;
        }
        let still = pauses::so_far().longest(began, Instant::now());
        self.crashes[first..].iter_mut().for_each(|crash| crash.still = still);
        if self.left == 0 {
            self.pause = Some(pause(&stage).await?);
        }
        stage.world.lab.down()
    }

    /// Its row of the table.
    pub(crate) fn print(&self) {
        let all = || self.crashes.iter();
        let both = || all().filter_map(|crash| crash.seen.both);
        let still = all().map(|crash| crash.still).max().unwrap_or_default();
        let quiet = all().filter(|crash| crash.still < pauses::LONG);
        println!(
            "| {} | {} | {} | {} | {:.2} s | {} | {} | {:.2} s | {} |",
            self.name,
            self.system.nodes(),
            ranks(all()),
            both().count(),
            both().max().unwrap_or_default().as_secs_f64(),
            all().filter(|crash| crash.moved_on).count(),
            all().map(|crash| crash.seen.frames).sum::<usize>(),
            still.as_secs_f64(),
            ranks(quiet),
        );
    }
}

/// How many they are, and the columns of their gaps.
fn ranks<'a>(crashes: impl Iterator<Item = &'a Crash>) -> String {
    let mut gaps: Vec<Duration> = crashes.map(|crash| crash.seen.gap).collect();
    gaps.sort();
    let columns = [50, 99, 100].map(|percent| match gaps.is_empty() {
        true => "-".to_owned(),
        false => format!("{:.3} s", rank(&gaps, percent)),
    });
    format!("{} | {}", gaps.len(), columns.join(" | "))
}

/// The owner's node crashes, another takes over, the node comes back. The gap is the takeover's. Also whether the
/// address moved on before the node was back.
async fn crash(stage: &mut Stage) -> Result<(Seen, bool)> {
    let ears = Ears::open(stage)?;
    let owner = ears.calm(stage, BRIEFLY).await?;
    let probe = probe(stage).await?;
    let start = Instant::now();
    stage.world.lab.crash(owner)?;
    ears.taken(stage, owner, start).await?;
    answers(&probe, 50, 30).await.with_context(|| stage.logs())?;
    let gap = probe.finish()?.longest_gap;
    // Until here the one that took over had no reason to give the address away.
    let since = Record(ears.wire.so_far().since(stage.address, start));
    let spans = since.spans(stage.address);
    let moved_on = spans.iter().filter(|span| span.mac != mac_of(owner)).count() > 1;
    stage.world.lab.reboot(owner, Leftovers::Flush)?;
    stage.start(owner).await?;
    ears.calm(stage, CALM).await?;
    Ok((ears.close(stage, gap)?, moved_on))
}

/// All processes of the owner's node stop for a while.
async fn pause(stage: &Stage) -> Result<Seen> {
    let ears = Ears::open(stage)?;
    let owner = ears.calm(stage, BRIEFLY).await?;
    let probe = probe(stage).await?;
    stage.world.lab.freeze(owner)?;
    tokio::time::sleep(PAUSE).await;
    stage.world.lab.thaw(owner)?;
    tokio::time::sleep(AFTER).await;
    ears.calm(stage, CALM).await?;
    let gap = probe.finish()?.longest_gap;
    ears.close(stage, gap)
}

/// A client whose first connections were answered.
async fn probe(stage: &Stage) -> Result<Probe> {
    let probe = stage.world.lab.probe(&format!("{}:80", stage.address), PROBE)?;
    answers(&probe, 20, 10).await.with_context(|| stage.logs())?;
    Ok(probe)
}

/// Waits for `more` answers.
async fn answers(probe: &Probe, more: usize, seconds: u64) -> Result<()> {
    let enough = probe.ok_so_far() + more;
    let answered = || async { Ok((probe.ok_so_far() >= enough).then_some(())) };
    eventually("the client is answered", seconds, answered).await
}
