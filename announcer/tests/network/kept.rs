//! One part of the data plane, run as the announcer runs it.

use std::time::Duration;

use berth_announcer::dataplane::{Dataplane, Event};
use berth_announcer::instance::Instance;
use berth_announcer::metrics::Metrics;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::namespace::door;

/// Takes the wishes for all parts, and keeps one of them.
pub(crate) struct Kept {
    pub(crate) dataplane: Dataplane,
    events: mpsc::Receiver<Event>,
    task: JoinHandle<()>,
}

impl Kept {
    /// Keeps the part of this name.
    pub(crate) fn start(part: &str) -> Self {
        Self::of(&Instance::services(), part)
    }

    /// Keeps it for this instance.
    pub(crate) fn of(instance: &Instance, part: &str) -> Self {
        Self::with(instance, part, false)
    }

    /// The same; with `closes` no port of the host answers behind what is guarded.
    pub(crate) fn with(instance: &Instance, part: &str, closes: bool) -> Self {
        let metrics = Metrics::default();
        let (dataplane, events, tasks) =
            Dataplane::new(&door(), instance, &metrics, (closes, false));
        let found = tasks.into_iter().find(|(name, _)| *name == part);
        let (_, task) = found.unwrap_or_else(|| panic!("no part {part}"));
        Self { dataplane, events, task: tokio::spawn(task) }
    }

    /// What it tells next.
    pub(crate) async fn next(&mut self) -> Event {
        let next = tokio::time::timeout(Duration::from_secs(30), self.events.recv()).await;
        next.expect("it tells something").expect("it goes on")
    }

    /// Waits until it tells this.
    pub(crate) async fn tells(&mut self, event: &Event) {
        let wait = async { while self.next().await != *event {} };
        let told = tokio::time::timeout(Duration::from_secs(30), wait).await;
        assert!(told.is_ok(), "never told of {event:?}");
    }

    /// Wants nothing any more, and waits until it has ended.
    pub(crate) async fn stop(self) {
        drop(self.dataplane);
        self.task.await.expect("it ends with who wanted it");
    }
}
