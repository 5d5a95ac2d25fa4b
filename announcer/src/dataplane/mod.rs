//! What the kernel does with the packets of our addresses: one module for each thing that is kept there.
//!
//! | module | keeps |
//! |---|---|
//! | `unserved` | the guard that drops what kube-proxy does not serve yet |
//! | `forward` | where packets of connections go that began at an address's previous owner |
//! | `eip` | the translation of elastic IPs |
//! | `transit` | what passes through this node and is not to, where routers lead addresses here |
//!
//! Each is a [`Reconciler`]: the rounds of the announcer say what is wanted, and hear by one channel what holds.

pub mod eip;
pub mod forward;
pub mod transit;
pub mod unserved;

use std::time::Duration;

use tokio::sync::mpsc;

use self::eip::{Nat, Translation};
use self::transit::{Passage, Transit};
use crate::instance::Instance;
use crate::kernel::reconciler::reconciler;
use crate::kernel::{Door, Guard, Guarded, Reconciler, Task};
use crate::metrics::Metrics;
use crate::vip::Forwards;

/// Everything that is kept for the packets of our addresses.
#[derive(Debug)]
pub struct Dataplane {
    /// What is to be guarded.
    pub unserved: Reconciler<Guarded>,
    /// Where packets of connections go that began at a previous owner.
    pub forward: Reconciler<Forwards>,
    /// The elastic IPs to translate; nothing until the cluster is known.
    pub eip: Reconciler<Option<Nat>>,
    /// What is not to pass, where routers lead addresses here.
    pub transit: Option<Reconciler<Transit>>,
}

/// What one of them tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What is known of the guard.
    Unserved(Guard),
    /// The kernel was asked for these.
    Forward(Forwards),
    /// What becomes of what is to be translated.
    Eip(Translation),
    /// Whether what is not to pass is kept from it.
    Transit(Passage),
}

impl From<Guard> for Event {
    fn from(guard: Guard) -> Self {
        Self::Unserved(guard)
    }
}

impl From<Forwards> for Event {
    fn from(forwards: Forwards) -> Self {
        Self::Forward(forwards)
    }
}

impl From<Passage> for Event {
    fn from(passage: Passage) -> Self {
        Self::Transit(passage)
    }
}

impl From<Translation> for Event {
    fn from(translation: Translation) -> Self {
        Self::Eip(translation)
    }
}

/// What tasks have told and nobody has taken in yet: after that they wait.
const BACKLOG: usize = 64;

impl Dataplane {
    /// What is kept for `instance`, what it tells, and the tasks that keep it; with `closes` no port of the host answers
    /// behind an address of a Service, and where routers lead addresses here (`routed`) nobody passes for this node. Each task ends when its reconciler is dropped, and leaves what is in the kernel
    /// ([`remove`]).
    pub fn new(
        door: &Door,
        instance: &Instance,
        metrics: &Metrics,
        (closes, routed): (bool, bool),
    ) -> (Self, mpsc::Receiver<Event>, Vec<Task>) {
        let (tell, events) = mpsc::channel(BACKLOG);
        let layout = unserved::Layout { table: instance.table(), closes };
        let (unserved, guarding) = reconciler(unserved::Table::new(door, layout), tell.clone());
        let (forward, forwarding) =
            reconciler(forward::Tables::new(instance.table()), tell.clone());
        let (eip, translating) =
            reconciler(eip::Translator::new(door, instance, metrics.clone()), tell.clone());
        let mut tasks =
            vec![("unserved", guarding), ("forward", forwarding), ("elastic IPs", translating)];
        let transit = routed.then(|| {
            let table = transit::Table::new(door, &instance.table());
            let (transit, task) = reconciler(table, tell);
            tasks.push((transit::TASK, task));
            transit
        });
        (Self { unserved, forward, eip, transit }, events, tasks)
    }
}

/// How long a start, and an end, wait for tables to be removed: neither is to hang with `nft`.
const REMOVAL: Duration = Duration::from_secs(4);

/// Removes the tables of the guard and of forwarding of this instance, if they are there. What cannot be removed is told.
pub async fn remove(instance: &Instance) {
    let table = instance.table();
    let removal = async {
        tokio::join!(unserved::remove(&table), forward::remove(&table), transit::remove(&table))
    };
    let Ok((guard, forward, transit)) = tokio::time::timeout(REMOVAL, removal).await else {
        return tracing::warn!(table, "nft does not end: what it has of this table stays");
    };
    if let Err(error) = guard {
        tracing::debug!(%error, "no guard to remove");
    }
    if let Err(error) = forward {
        tracing::debug!(%error, "nothing of forwarding to remove");
    }
    if let Err(error) = transit {
        tracing::debug!(%error, "nothing that keeps anybody from passing to remove");
    }
}
