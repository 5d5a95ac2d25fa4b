//! Owns the writes under way, and that what goes wrong with them is told once.

use std::time::{Duration, Instant};

use berth_index::write::{Outcome, Write};
use berth_runtime::watch::forbidden;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};

use crate::held::Held;
use crate::writer::Writer;

/// The writes under way.
pub(crate) struct Writes {
    writer: Writer,
    slots: usize,
    under_way: FuturesUnordered<BoxFuture<'static, (Write, Outcome)>>,
    trouble: Trouble,
}

impl Writes {
    /// None yet, and at most `slots` at a time.
    pub(crate) fn new(writer: Writer, slots: usize) -> Self {
        Self { writer, slots, under_way: FuturesUnordered::new(), trouble: Trouble::default() }
    }

    /// Where claims are held if not in the cluster.
    pub(crate) fn held(&self) -> &Held {
        self.writer.held()
    }

    /// How many are under way.
    pub(crate) fn count(&self) -> usize {
        self.under_way.len()
    }

    /// What came of the next one that is answered; none while there is none.
    pub(crate) async fn next(&mut self) -> Option<(Write, Outcome)> {
        self.under_way.next().await
    }

    /// Tells what goes wrong.
    pub(crate) fn note(&mut self, write: &Write, outcome: &Outcome) {
        self.trouble.note(write, outcome);
    }

    /// How many more may be started.
    pub(crate) fn free(&self) -> usize {
        self.slots.saturating_sub(self.under_way.len())
    }

    /// What came of a write, if one has been answered.
    pub(crate) fn answered(&mut self) -> Option<(Write, Outcome)> {
        self.under_way.next().now_or_never().flatten()
    }

    pub(crate) fn start(&self, write: Write) {
        let writer = self.writer.clone();
        let sent = async move {
            let outcome = writer.perform(&write).await;
            (write, outcome)
        };
        self.under_way.push(sent.boxed());
    }
}

/// Says once what goes wrong with one kind of write, not for each object.
#[derive(Default)]
struct Trouble {
    told: std::collections::BTreeMap<(&'static str, &'static str), Instant>,
}

impl Trouble {
    const AGAIN: Duration = Duration::from_secs(60);

    fn note(&mut self, write: &Write, outcome: &Outcome) {
        let kind = write.kind();
        let why = match outcome {
            Outcome::Refused(why) if why.ends_with("(403)") => forbidden(kind.0, kind.1, why),
            Outcome::Refused(why) => format!("refused: {why}"),
            Outcome::Unknown(why) => why.clone(),
            Outcome::Throttled(pause) => {
                format!("the API server is busy; trying again after {pause:.1?}")
            }
            _ => return tracing::debug!("{write}: {}", outcome.name()),
        };
        let last = self.told.get(&kind).copied();
        if last.is_some_and(|last| last.elapsed() < Self::AGAIN) {
            return tracing::debug!("{write}: {why}");
        }
        self.told.insert(kind, Instant::now());
        match outcome {
            Outcome::Refused(_) => tracing::error!("{write}: {why}"),
            _ => tracing::warn!("{write}: {why}"),
        }
    }
}
