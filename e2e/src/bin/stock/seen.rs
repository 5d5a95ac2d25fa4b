//! What is seen of addresses meanwhile: by a client of each, and on the wire.

use std::fmt::{self, Display};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::probe::{Manner, Probe, Report};
use berth_e2e::wire::{Asker, Record, Watch};
use berth_e2e::world::eventually;

use crate::halves::Halves;

/// How often a client connects, and how often it asks who has an address.
const PROBE: Duration = Duration::from_millis(20);
const ASK: Duration = Duration::from_millis(5);
/// Who is heard again within this time was there in between.
const QUIET: Duration = Duration::from_millis(100);

/// A client of each address, and who listens on the LAN.
pub(crate) struct Ears {
    addresses: Vec<IpAddr>,
    wire: Watch,
    askers: Vec<Asker>,
    probes: Vec<Probe>,
}

impl Ears {
    /// Returns once the clients are answered.
    pub(crate) async fn open(halves: &Halves, addresses: &[IpAddr]) -> Result<Self> {
        let lab = &halves.world.lab;
        let wire = lab.watch()?;
        let outside = lab.outside();
        let probe = |a: &IpAddr| {
            Probe::start(&outside, SocketAddr::new(*a, 80), PROBE, Manner::NewConnections)
        };
        let ask = |a: &IpAddr| lab.ask(*a, ASK);
        for address in addresses {
            let answered = || async { Ok(halves.world.curl(*address).ok()) };
            eventually("an answer", 40, answered).await.with_context(|| halves.logs())?;
        }
        let (probes, askers): (Vec<_>, Vec<_>) = (
            addresses.iter().map(probe).collect::<Result<_>>()?,
            addresses.iter().map(ask).collect::<Result<_>>()?,
        );
        let answered = || async { Ok(probes.iter().all(|p| p.ok_so_far() > 20).then_some(())) };
        eventually("the clients are answered", 20, answered)
            .await
            .with_context(|| halves.logs())?;
        Ok(Self { addresses: addresses.to_vec(), wire, askers, probes })
    }

    /// For how long two have answered for an address since then, in all.
    pub(crate) fn together(&self, since: Instant) -> Duration {
        together(&self.wire.so_far(), &self.addresses, since)
    }

    /// Waits until somebody speaks for each address again.
    pub(crate) async fn answered(&self, seconds: u64) -> Result<()> {
        let before: Vec<_> = self.probes.iter().map(Probe::ok_so_far).collect();
        eventually("the clients are answered again", seconds, || async {
            let mut each = self.probes.iter().zip(&before);
            Ok(each.all(|(probe, before)| probe.ok_so_far() > before + 20).then_some(()))
        })
        .await
    }

    pub(crate) fn close(self) -> Result<Heard> {
        for asker in self.askers {
            asker.finish()?;
        }
        let reports = self.probes.into_iter().map(Probe::finish).collect::<Result<_>>()?;
        let record = self.wire.finish()?;
        let began = record.0.first().map_or_else(Instant::now, |sighting| sighting.at);
        Ok(Heard { together: together(&record, &self.addresses, began), reports })
    }
}

fn together(record: &Record, addresses: &[IpAddr], since: Instant) -> Duration {
    let of = |address: &IpAddr| {
        let part = Record(record.since(*address, since));
        let spans = part.overlaps(*address, QUIET).into_iter();
        spans.map(|(first, last)| last.duration_since(first)).sum::<Duration>()
    };
    addresses.iter().map(of).max().unwrap_or_default()
}

/// What was seen.
pub(crate) struct Heard {
    /// For how long two answered for the same address.
    pub(crate) together: Duration,
    reports: Vec<Report>,
}

impl Heard {
    /// No client waited for longer, the machine's own pauses aside.
    pub(crate) fn answered_within(&self, limit: Duration) -> Result<()> {
        self.reports.iter().try_for_each(|report| report.answered_within(limit))
    }

    /// No two answered.
    pub(crate) fn one_at_a_time(&self) -> Result<()> {
        ensure!(self.together.is_zero(), "two answered for {:.2?}", self.together);
        Ok(())
    }
}

impl Display for Heard {
    /// The longest gap of each client, and for how long two answered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let gaps = self.reports.iter().map(|r| format!("{:.2} s", r.longest_gap.as_secs_f64()));
        write!(f, "{} | {}", gaps.collect::<Vec<_>>().join(", "), seconds(self.together))
    }
}

/// As in the tables.
pub(crate) fn seconds(long: Duration) -> String {
    if long.is_zero() { "0".to_owned() } else { format!("{:.2} s", long.as_secs_f64()) }
}
