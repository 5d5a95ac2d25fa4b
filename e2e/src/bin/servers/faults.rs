//! What happens to the owner's API server, or to all.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::addresses::Net;
use berth_e2e::control_plane::API_PORT;
use berth_e2e::probe::Probe;
use berth_e2e::process::Process;
use berth_e2e::wire::{Move, Watch};
use berth_e2e::world::eventually;

use crate::stacked::{NODES, Stacked};
use crate::systems::ADDRESS;

/// How often the client asks.
pub(crate) const EVERY: Duration = Duration::from_millis(20);
/// How often it asks who has the address.
const ASK: Duration = Duration::from_millis(5);
/// Who answers is heard again within this time.
const QUIET: Duration = Duration::from_millis(100);
/// How long the client has to have been answered by one node before, and is listened to afterwards.
const CALM: Duration = Duration::from_secs(4);
/// How long servers are slow.
const SLOW: Duration = Duration::from_secs(30);
/// A slow one does nothing for so long, longer than any check waits, and then something.
const STANDS: Duration = Duration::from_millis(3500);
const GOES: Duration = Duration::from_millis(200);
/// After which nobody is expected to take over any more, in seconds.
const LATE: u64 = 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Killed,
    Stopped,
    Dropped,
    CutOff,
    Slow,
    AllSlow,
    Died,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Killed => "it is killed",
            Self::Stopped => "it is stopped (SIGSTOP)",
            Self::Dropped => "its port is dropped",
            Self::CutOff => "its node is cut off",
            Self::Slow => "it is slow",
            Self::AllSlow => "all are slow for 30 s",
            Self::Died => "its node loses power",
        })
    }
}

/// What one fault showed.
#[derive(Debug)]
pub(crate) struct Seen {
    pub(crate) gap: Duration,
    /// The longest time between the last word of one node and the first of the next.
    pub(crate) silence: Duration,
    pub(crate) moves: usize,
    pub(crate) two: bool,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::Killed,
        Self::Stopped,
        Self::Dropped,
        Self::CutOff,
        Self::Slow,
        Self::AllSlow,
        Self::Died,
    ];

    pub(crate) async fn happen(self, stacked: &mut Stacked) -> Result<Seen> {
        for node in 0..NODES {
            stacked.ready(node).await?;
        }
        stacked.settled().await?;
        let wire = stacked.lab.watch()?;
        let asker = stacked.lab.ask(ADDRESS, ASK)?;
        let ca = stacked.lab.dir().join("pki/ca.crt");
        let probe = Probe::start_readyz(
            &stacked.lab.outside(),
            SocketAddr::new(ADDRESS, API_PORT),
            EVERY,
            &ca,
        )?;
        calm(stacked, &probe, &wire).await?;
        probe.finish()?;
        let owner = stacked.owner(&wire)?;

        let probe = Probe::start_readyz(
            &stacked.lab.outside(),
            SocketAddr::new(ADDRESS, API_PORT),
            EVERY,
            &ca,
        )?;
        let since = Instant::now();
        let slow = self.begin(stacked, owner)?;
        if self == Self::AllSlow {
            tokio::time::sleep(SLOW).await;
        } else {
            let taken = || async { Ok((stacked.owner(&wire)? != owner).then_some(())) };
            // Who never gives it away is measured as well: until the fault ends.
            _ = eventually("another has it", LATE, taken).await;
            tokio::time::sleep(CALM).await;
        }
        // Moves after the end of the fault are those of the next calm.
        let moves = wire.so_far().moves(ADDRESS, since);
        let silence = moves.iter().map(Move::silence).max().unwrap_or_default();
        let gap = probe.finish()?.longest_gap;
        slow.into_iter().for_each(Slowness::end);
        self.end(stacked, owner)?;
        // Who comes back may speak as well.
        tokio::time::sleep(CALM).await;
        asker.finish()?;
        let overlaps = wire.finish()?.overlaps(ADDRESS, QUIET);
        let two = overlaps.iter().any(|(_, last)| *last >= since);
        Ok(Seen { gap, silence, moves: moves.len(), two })
    }

    fn begin(self, stacked: &Stacked, owner: usize) -> Result<Vec<Slowness>> {
        let server = stacked.server(owner);
        match self {
            Self::Killed => server.kill()?,
            Self::Stopped => server.freeze()?,
            Self::Dropped => stacked.drop_port(owner, true)?,
            Self::CutOff => {
                [Net::Lan, Net::Api].iter().try_for_each(|net| stacked.lab.cut(owner, *net))?
            }
            Self::Died => stacked.lab.crash(owner)?,
            Self::Slow => return Ok(vec![Slowness::of(server)]),
            Self::AllSlow => {
                return Ok((0..NODES).map(|node| Slowness::of(stacked.server(node))).collect());
            }
        }
        Ok(Vec::new())
    }

    fn end(self, stacked: &mut Stacked, owner: usize) -> Result<()> {
        match self {
            Self::Killed => stacked.start_server(owner),
            Self::Stopped => stacked.server(owner).thaw(),
            Self::Dropped => stacked.drop_port(owner, false),
            Self::CutOff => stacked.lab.heal_all(),
            Self::Died => stacked.reboot(owner),
            Self::Slow | Self::AllSlow => Ok(()),
        }
    }
}

/// Waits until the client was answered, and one node alone spoke, for a while.
async fn calm(stacked: &Stacked, probe: &Probe, wire: &Watch) -> Result<()> {
    let start = Instant::now();
    let is_calm = || async {
        let Some(since) = Instant::now().checked_sub(CALM).filter(|since| *since >= start) else {
            return Ok(None);
        };
        let heard = wire.so_far().since(ADDRESS, since);
        let alone = heard.first().is_some_and(|first| heard.iter().all(|s| s.mac == first.mac));
        let answered = probe.last_answer().is_some_and(|last| last.elapsed() < QUIET);
        Ok((alone && answered).then_some(()))
    };
    eventually("one alone answers", LATE, is_calm).await.with_context(|| stacked.logs())
}

/// A process that stands still most of the time.
struct Slowness {
    process: Process,
    ends: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Slowness {
    fn of(process: &Process) -> Self {
        let (ends, its) = (Arc::new(AtomicBool::new(false)), process.clone());
        let ended = ends.clone();
        let thread = std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                _ = its.freeze();
                std::thread::sleep(STANDS);
                _ = its.thaw();
                std::thread::sleep(GOES);
            }
        });
        Self { process: process.clone(), ends, thread }
    }

    fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        _ = self.thread.join();
        _ = self.process.thaw();
    }
}
