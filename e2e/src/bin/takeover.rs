//! `make bench-takeover`: how long an address is silent when the node that answers for it crashes, and whether two ever
//! answer, for Berth and for others in labs of the same kind, one after the other.
//!
//! Prints a Markdown report. Figures of one run are comparable with each other, not with another machine's.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::fault::Leftovers;
use berth_e2e::pauses;
use berth_e2e::probe::Probe;
use berth_e2e::rivals::{Stage, System};
use berth_e2e::wire::{Asker, Record, Watch};
use berth_e2e::world::eventually;

/// How many crashes a lab sees.
const BLOCK: usize = 10;
/// How often the client connects.
const PROBE: Duration = Duration::from_millis(10);
/// How often the client asks who has the address.
const ASK: Duration = Duration::from_millis(5);
/// Who answers is heard again within this time.
const QUIET: Duration = Duration::from_millis(100);
/// How long one node alone must have answered to be the owner.
const BRIEFLY: Duration = Duration::from_millis(500);
/// How long one node alone must have answered for a fault to be over.
const CALM: Duration = Duration::from_secs(2);
/// How long an owner is stopped.
const PAUSE: Duration = Duration::from_secs(12);
/// How long one is listened to that was stopped.
const AFTER: Duration = Duration::from_secs(6);

#[tokio::main]
async fn main() -> Result<()> {
    let crashes = number("BERTH_BENCH_CRASHES", 10)?;
    // Words that names must contain, e.g. "Berth": what is not asked for is left out.
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let mut systems = Vec::new();
    for system in System::all() {
        let name = system.name()?;
        if wanted.is_empty() || wanted.iter().any(|word| name.contains(word)) {
            systems.push((system, name));
        }
    }
    println!("# Takeover\n");
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    println!(
        "{}, {cores} cores. `make bench-takeover` prints this.\n",
        jiff::Zoned::now().strftime("%Y-%m-%d")
    );
    println!(
        "## The owner's node crashes: longest gap of a client that connects every {PROBE:?}\n"
    );
    println!("In blocks of {BLOCK} in a lab of their own, of each system in turn.\n");
    println!(
        "| system | nodes | crashes | p50 | p99 | max | with two answering | at most for | with a further move | frames looked at | machine stood still, at most | in blocks without a pause: crashes | p50 | p99 | max |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|");
    let mut measured: Vec<Measured> =
        systems.into_iter().map(|(system, name)| Measured::new(system, name, crashes)).collect();
    while measured.iter().any(|one| one.left > 0) {
        for one in measured.iter_mut().filter(|one| one.left > 0) {
            one.block().await.with_context(|| one.name.clone())?;
        }
    }
    measured.iter().for_each(Measured::print);
    faults(&wanted, number("BERTH_BENCH_FAULTS", 0)?).await?;
    println!("\n## All processes of the owner's node are stopped for {PAUSE:?}\n");
    println!(
        "| system | nodes | longest gap of the client | two answered for | frames looked at |"
    );
    println!("|---|---|---|---|---|");
    for Measured { name, system, pause, .. } in measured {
        let pause = pause.context("no pause")?;
        let (gap, both) = (pause.gap.as_secs_f64(), pause.both.unwrap_or_default().as_secs_f64());
        println!("| {name} | {} | {gap:.2} s | {both:.2} s | {} |", system.nodes(), pause.frames);
    }
    Ok(())
}

fn number(variable: &str, otherwise: usize) -> Result<usize> {
    let Ok(text) = std::env::var(variable) else { return Ok(otherwise) };
    let number = text.parse().ok().filter(|number| *number > 0);
    number.with_context(|| format!("{variable}={text}: a number from 1 is accepted"))
}

/// What happens to an owner whose node goes on.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// Its process is killed; the kernel goes on.
    Killed,
    /// It has no carrier on the LAN.
    Unplugged,
    /// It hears none of the others.
    Deaf,
    /// None of the others hears it.
    Mute,
    /// All its processes are stopped for a while.
    Stopped,
}

/// Each of them so many times, for Berth on three nodes, if anybody asks for it.
async fn faults(wanted: &[String], count: usize) -> Result<()> {
    let system = System::Berth { nodes: 3 };
    let name = system.name()?;
    let is_wanted = wanted.is_empty() || wanted.iter().any(|word| name.contains(word));
    if count == 0 || !is_wanted {
        return Ok(());
    }
    println!("\n## Something happens to the owner, of three nodes: silence on the LAN\n");
    println!("| fault | times | p50 | max | with two answering | machine stood still, at most |");
    println!("|---|---|---|---|---|---|");
    let mut stage = system.up().await?;
    let all = [Fault::Killed, Fault::Unplugged, Fault::Deaf, Fault::Mute, Fault::Stopped];
    for fault in all {
        let (mut gaps, mut overlapped) = (Vec::new(), 0);
        let began = Instant::now();
        for turn in 1..=count {
            let (gap, both) = happens(&mut stage, fault).await.with_context(|| stage.logs())?;
            eprintln!("{fault:?} {turn}: {gap:.2?}, two answering: {both}");
            gaps.push(gap);
            overlapped += usize::from(both);
        }
        gaps.sort();
        let still = pauses::so_far().longest(began, Instant::now()).as_secs_f64();
        let (p50, max) = (rank(&gaps, 50), rank(&gaps, 100));
        println!("| {fault:?} | {count} | {p50:.3} s | {max:.3} s | {overlapped} | {still:.2} s |");
    }
    stage.world.lab.down()
}

/// From the last word of the owner after something happened to it to the first of another node, and whether two spoke at the same
/// time.
async fn happens(stage: &mut Stage, fault: Fault) -> Result<(Duration, bool)> {
    let ears = Ears::open(stage)?;
    let owner = ears.calm(stage, BRIEFLY).await?;
    let start = Instant::now();
    let lab = &stage.world.lab;
    let name = |node: usize| lab.node(node).name().to_owned();
    let peers: Vec<usize> = (0..3).filter(|node| *node != owner).collect();
    match fault {
        Fault::Killed => stage.world.announcer(&name(owner))?.kill()?,
        Fault::Unplugged => lab.unplug(owner, Net::Lan)?,
        Fault::Deaf => {
            peers
                .iter()
                .try_for_each(|peer| lab.cut_one_way(&name(*peer), &name(owner), Net::Lan))?;
        }
        Fault::Mute => {
            peers
                .iter()
                .try_for_each(|peer| lab.cut_one_way(&name(owner), &name(*peer), Net::Lan))?;
        }
        Fault::Stopped => lab.freeze(owner)?,
    }
    ears.taken(stage, owner, start).await?;
    let lab = &stage.world.lab;
    match fault {
        Fault::Killed => stage.start(owner).await?,
        Fault::Unplugged => lab.plug(owner, Net::Lan)?,
        Fault::Deaf | Fault::Mute => lab.heal_all()?,
        Fault::Stopped => {
            tokio::time::sleep(PAUSE).await;
            lab.thaw(owner)?;
            tokio::time::sleep(AFTER).await;
        }
    }
    let heard = Record(ears.wire.so_far().since(stage.address, start));
    let spans = heard.spans(stage.address);
    let before = spans.iter().filter(|span| span.mac == mac_of(owner)).map(|span| span.last);
    let first = spans.iter().find(|span| span.mac != mac_of(owner)).map(|span| span.first);
    let first = first.context("nobody took over")?;
    let last = before.filter(|last| *last <= first).max().unwrap_or(start);
    ears.calm(stage, CALM).await?;
    let seen = ears.close(stage, first.duration_since(last))?;
    Ok((seen.gap, seen.both.is_some()))
}

/// Seconds that `percent` of the sorted gaps do not exceed, by nearest rank.
fn rank(gaps: &[Duration], percent: usize) -> f64 {
    let rank = (gaps.len() * percent).div_ceil(100).max(1);
    gaps[rank - 1].as_secs_f64()
}

/// What a system showed so far.
struct Measured {
    system: System,
    name: String,
    /// How many crashes are to come.
    left: usize,
    crashes: Vec<Crash>,
    /// What happened when the owner was stopped, after all of them.
    pause: Option<Seen>,
}

/// What one crash showed.
struct Crash {
    seen: Seen,
    /// Whether the address moved on from the node that had taken it over.
    moved_on: bool,
    /// The longest that the machine stood still in its block.
    still: Duration,
}

/// What one fault showed.
struct Seen {
    /// The longest gap of the client.
    gap: Duration,
    /// For how long two spoke at the same time, which may be one frame between two of another's; `None`: never.
    both: Option<Duration>,
    /// How many frames claimed the address.
    frames: usize,
}

impl Measured {
    fn new(system: System, name: String, crashes: usize) -> Self {
        // What takes seconds each time differs less by it.
        let left = if system.is_fast() { crashes } else { crashes.div_ceil(5) };
        Self { system, name, left, crashes: Vec::new(), pause: None }
    }

    /// Some crashes in a lab of their own.
    async fn block(&mut self) -> Result<()> {
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
    fn print(&self) {
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

/// Everything that is said about the address while somebody keeps asking.
struct Ears {
    wire: Watch,
    asker: Asker,
}

impl Ears {
    fn open(stage: &Stage) -> Result<Self> {
        let wire = stage.world.lab.watch()?;
        Ok(Self { wire, asker: stage.world.lab.ask(stage.address, ASK)? })
    }

    /// Waits until all nodes take part and one alone has answered for a while; which one.
    async fn calm(&self, stage: &Stage, long: Duration) -> Result<usize> {
        stage.settled().await?;
        let start = Instant::now();
        let alone = || async {
            let Some(since) = Instant::now().checked_sub(long).filter(|since| *since >= start)
            else {
                return Ok(None);
            };
            let heard = self.wire.so_far().since(stage.address, since);
            let Some(first) = heard.first() else { return Ok(None) };
            Ok(heard.iter().all(|s| s.mac == first.mac).then_some(first.mac))
        };
        let mac = eventually("one alone answers", 60, alone).await.with_context(|| stage.logs())?;
        let mut nodes = 0..stage.world.lab.nodes().len();
        nodes.find(|node| mac_of(*node) == mac).with_context(|| format!("{mac:x?} is no node's"))
    }

    /// Waits until another than `old` has spoken.
    async fn taken(&self, stage: &Stage, old: usize, since: Instant) -> Result<()> {
        let other = || async {
            let heard = self.wire.so_far().since(stage.address, since);
            Ok(heard.iter().any(|s| s.mac != mac_of(old)).then_some(()))
        };
        eventually("another owner", 90, other).await.with_context(|| stage.logs())
    }

    fn close(self, stage: &Stage, gap: Duration) -> Result<Seen> {
        self.asker.finish()?;
        let record = self.wire.finish()?;
        let overlaps = record.overlaps(stage.address, QUIET);
        let both = overlaps.iter().map(|(first, last)| last.duration_since(*first));
        let both = (!overlaps.is_empty()).then(|| both.sum());
        if !record.disputes(stage.address).is_empty() {
            // Who it was, when, and what each says of it.
            let began = record.0.first().map(|sighting| sighting.at);
            for span in record.spans(stage.address).iter().take(20) {
                let at = |at: Instant| began.map(|began| at.duration_since(began));
                let (first, last) = (at(span.first), at(span.last));
                eprintln!("  {:x?}: {} frames, {first:?} to {last:?}", span.mac, span.frames);
            }
            eprintln!("{}", stage.logs());
        }
        Ok(Seen { gap, both, frames: record.0.len() })
    }
}

fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}
