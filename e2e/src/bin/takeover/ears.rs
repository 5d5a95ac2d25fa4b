//! Who answers for the address, as the LAN hears it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use berth_e2e::addresses::{Mac, Net, mac, node_host};
use berth_e2e::rivals::Stage;
use berth_e2e::wire::{Asker, Watch};
use berth_e2e::world::eventually;

/// How often the client asks who has the address.
const ASK: Duration = Duration::from_millis(5);
/// Who answers is heard again within this time.
pub(crate) const QUIET: Duration = Duration::from_millis(100);
/// How long one node alone must have answered to be the owner.
pub(crate) const BRIEFLY: Duration = Duration::from_millis(500);
/// How long one node alone must have answered for a fault to be over.
pub(crate) const CALM: Duration = Duration::from_secs(2);
/// How long an owner is stopped.
pub(crate) const PAUSE: Duration = Duration::from_secs(12);
/// How long one is listened to that was stopped.
pub(crate) const AFTER: Duration = Duration::from_secs(6);

/// What one fault showed.
pub(crate) struct Seen {
    /// The longest gap of the client.
    pub(crate) gap: Duration,
    /// For how long two spoke at the same time, which may be one frame between two of another's; `None`: never.
    pub(crate) both: Option<Duration>,
    /// How many frames claimed the address.
    pub(crate) frames: usize,
}

/// Everything that is said about the address while somebody keeps asking.
pub(crate) struct Ears {
    pub(crate) wire: Watch,
    pub(crate) asker: Asker,
}

impl Ears {
    pub(crate) fn open(stage: &Stage) -> Result<Self> {
        let wire = stage.world.lab.watch()?;
        Ok(Self { wire, asker: stage.world.lab.ask(stage.address, ASK)? })
    }

    /// Waits until all nodes take part and one alone has answered for a while; which one.
    pub(crate) async fn calm(&self, stage: &Stage, long: Duration) -> Result<usize> {
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
    pub(crate) async fn taken(&self, stage: &Stage, old: usize, since: Instant) -> Result<()> {
        let other = || async {
            let heard = self.wire.so_far().since(stage.address, since);
            Ok(heard.iter().any(|s| s.mac != mac_of(old)).then_some(()))
        };
        eventually("another owner", 90, other).await.with_context(|| stage.logs())
    }

    pub(crate) fn close(self, stage: &Stage, gap: Duration) -> Result<Seen> {
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

pub(crate) fn mac_of(node: usize) -> Mac {
    mac(Net::Lan, node_host(node))
}

/// Seconds that `percent` of the sorted gaps do not exceed, by nearest rank.
pub(crate) fn rank(gaps: &[Duration], percent: usize) -> f64 {
    let rank = (gaps.len() * percent).div_ceil(100).max(1);
    gaps[rank - 1].as_secs_f64()
}
