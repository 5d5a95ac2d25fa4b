//! Decides what is written next, and how soon again: the status of Services and bindings, and Events about them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::conflict::MacText;
use berth_api::reason;
use berth_runtime::events::{Events, Report, Severity};
use jiff::Timestamp;

use super::contention::Contests;
use super::eip::{self, Apply, Outlook};
use super::events::{self, Refusals, eip_reference, service_reference};
use super::status::{self, Answering, Update};
use super::writer::{WriteOutcome, Writer};
use crate::backoff::Backoff;
use crate::metrics::{Metrics, cause};
use crate::source::cluster::{Cluster, Eip, manager};
use crate::source::scene::Scene;
use crate::vip::{Name, Verdict};

/// What decides on writes.
pub struct Publisher {
    /// What sends them.
    pub writer: Writer,
    events: Events,
    metrics: Metrics,
    node: String,
    /// How this node signs what it writes.
    manager: String,
    /// Whether the status of Services is written.
    publishes: bool,
    services: Backoff<Name>,
    bindings: Backoff<Name>,
    contests: Contests,
    refusals: Refusals,
}

impl Publisher {
    /// Has written nothing yet.
    pub fn new(
        writer: Writer,
        events: Events,
        metrics: Metrics,
        node: &str,
        publishes: bool,
    ) -> Self {
        let second = Duration::from_secs(1);
        Self {
            writer,
            events,
            metrics,
            node: node.to_owned(),
            manager: manager(node),
            publishes,
            services: Backoff::new(second / 10, second * 2),
            bindings: Backoff::new(second / 10, second * 2),
            contests: Contests::default(),
            refusals: Refusals::default(),
        }
    }

    /// When something is due although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines = [
            self.services.deadline(now),
            self.bindings.deadline(now),
            self.contests.deadline(now),
            self.refusals.deadline(),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Writes what has become true into the status of Services. Gives those that are not written yet.
    pub fn publish(
        &mut self,
        cluster: &Cluster,
        verdicts: &BTreeMap<Name, Verdict>,
        answering: &Answering,
        now: Instant,
    ) -> BTreeSet<Name> {
        self.refusals.keep(verdicts, now);
        for report in self.refusals.poll(cluster, now) {
            self.events.publish(report);
        }
        self.metrics.refusals.clear();
        for (reason, count) in self.refusals.by_reason() {
            let count = count.try_into().unwrap_or(i64::MAX);
            self.metrics.refusals.get_or_create(&cause(reason)).set(count);
        }
        if !self.publishes {
            return BTreeSet::new();
        }
        let updates = status::updates(cluster, verdicts, answering, &self.node);
        self.contests.retain(verdicts.keys());
        let found = self.contests.undone(&updates, now);
        self.metrics.status_undone.inc_by(found.undone);
        for name in &found.contested {
            tracing::warn!(service = %name, "somebody else writes this status, too");
            self.events.publish(events::contested(name, cluster));
        }
        let pending = updates.iter().map(|update| update.name.clone()).collect();
        for update in updates {
            let name = &update.name;
            let due = self.services.is_due(name, now) && self.contests.may_write(&update, now);
            if due && self.writer.is_free(name) {
                self.writer.write(update);
            }
        }
        let services = cluster.services();
        self.services.retain(|name| services.contains_key(name));
        pending
    }

    /// Takes in how a write to a Service has ended.
    pub fn written<T>(&mut self, update: &Update, outcome: &WriteOutcome<T>, now: Instant) {
        self.writer.ended(&update.name);
        // A write that helped is not needed again.
        self.services.again(update.name.clone(), now);
        match outcome {
            WriteOutcome::Written(_) => self.contests.wrote(update, now),
            WriteOutcome::Overtaken => {}
            WriteOutcome::Failed(error) => {
                tracing::warn!(service = %update.name, %error, "cannot write the status");
            }
        }
        self.count(outcome);
    }

    /// Writes what has become true of elastic IPs on this node.
    #[allow(clippy::disallowed_methods, reason = "the time of a condition is for people")]
    pub fn sign(&mut self, scene: Scene<'_>, outlook: &Outlook<'_>, now: Instant) {
        for apply in eip::applies(scene, outlook, Timestamp::now()) {
            let name = &apply.name;
            if self.writer.is_free_for(name) && self.bindings.is_due(name, now) {
                self.writer.apply(apply, &self.manager);
            }
        }
        let eips = scene.cluster.eips();
        self.bindings.retain(|name| eips.contains_key(name));
        let held = eips.values().flat_map(Eip::addresses);
        let held = held.filter(|address| outlook.answering.live.contains(address)).count();
        self.metrics.eips.set(held.try_into().unwrap_or(i64::MAX));
    }

    /// Takes in how a write to an `EipBinding` has ended.
    pub fn applied<T>(&mut self, apply: &Apply, outcome: &WriteOutcome<T>, now: Instant) {
        self.writer.applied(&apply.name);
        self.bindings.again(apply.name.clone(), now);
        match outcome {
            WriteOutcome::Written(_) => {
                for note in &apply.news {
                    self.events.publish(Report {
                        regarding: eip_reference(&apply.name, Some(apply.uid.clone())),
                        severity: Severity::Warning,
                        reason: reason::ADDRESS_CONFLICT,
                        action: "Announce",
                        note: note.clone(),
                    });
                }
            }
            WriteOutcome::Overtaken => {}
            WriteOutcome::Failed(error) => {
                tracing::warn!(eip = %apply.name, %error, "cannot write the status");
            }
        }
        self.count(outcome);
    }

    fn count<T>(&self, outcome: &WriteOutcome<T>) {
        let outcome = match outcome {
            WriteOutcome::Written(_) => "written",
            WriteOutcome::Overtaken => "overtaken",
            WriteOutcome::Failed(_) => "failed",
        };
        self.metrics.status_writes.get_or_create(&cause(outcome)).inc();
    }

    /// Tells that another host, once, was told that an address is this node's.
    pub fn defended(&self, cluster: &Cluster, address: IpAddr, mac: [u8; 6]) {
        let (node, mac) = (&self.node, MacText(mac));
        let note = format!(
            "another host, {mac}, says that it has {address}; node {node} keeps it and has said so, once"
        );
        let services = cluster.services().iter();
        let services = services.filter(|(_, service)| service.addresses.contains(&address));
        let eips = cluster.eips().iter();
        let eips = eips.filter(|(_, eip)| eip.addresses().any(|own| own == address));
        let regarded = services
            .map(|(name, service)| service_reference(name, Some(service.uid.clone())))
            .chain(eips.map(|(name, eip)| eip_reference(name, Some(eip.uid.clone()))));
        for regarding in regarded {
            self.events.publish(Report {
                regarding,
                severity: Severity::Warning,
                reason: reason::ADDRESS_CONFLICT,
                action: "Defend",
                note: note.clone(),
            });
        }
    }
}
