//! Decides what is written next, and how soon again: the status of Services and bindings, and Events about them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::conflict::MacText;
use berth_api::eip::manager;
use berth_api::reason;
use berth_runtime::events::{Events, Report, Severity};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;

use super::closed::Closed;
use super::contention::Contests;
use super::denials::{Denials, accepted, denied};
use super::eip::{self, Apply, Coming, Outlook};
use super::events::{self, Refusals, eip_reference, service_reference};
use super::open::Open;
use super::order::{by_turns, in_turn};
use super::overtaken::Overtaken;
use super::rewords::Rewords;
use super::status::{self, Answering, Update};
use super::strays::Strays;
use super::turns::Turns;
use super::writer::{WriteOutcome, Writer};
use crate::backoff::{Backoff, Seldom};
use crate::kernel::Listening;
use crate::metrics::{Metrics, cause};
use crate::source::cluster::{Cluster, Eip};
use crate::source::scene::Scene;
use crate::vip::{Claimant, Name, Verdict, Wanted};

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
    /// Those of which something is to be taken out and that failed.
    removals: Backoff<Name>,
    /// Those of which somebody else's write came before that.
    outrun: BTreeSet<Name>,
    /// Those that the API server did not take last, or that failed although something was to be taken out: where that is so
    /// still, all is.
    stuck: BTreeSet<Name>,
    bindings: Backoff<Name>,
    coming: Coming,
    overtaken: Overtaken,
    contests: Contests,
    rewords: Rewords,
    strays: Strays,
    turns: Turns,
    refusals: Refusals,
    closed: Closed,
    open: Open,
    /// Services whose status the API server does not take.
    denied_services: Denials,
    /// The same of bindings.
    denied_bindings: Denials,
    /// When somebody was last told that another host claims an address.
    defended: Seldom<IpAddr>,
    /// The same of what an elastic IP leads to: a guest may say something else each time.
    advised: Seldom<IpAddr>,
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
            removals: Backoff::new(second / 10, second * 2),
            outrun: BTreeSet::new(),
            stuck: BTreeSet::new(),
            bindings: Backoff::new(second / 10, second * 2),
            coming: Coming::default(),
            overtaken: Overtaken::default(),
            contests: Contests::default(),
            rewords: Rewords::default(),
            strays: Strays::default(),
            turns: Turns::of(node),
            refusals: Refusals::default(),
            closed: Closed::default(),
            open: Open::default(),
            denied_services: Denials::default(),
            denied_bindings: Denials::default(),
            defended: Seldom::default(),
            advised: Seldom::default(),
        }
    }

    /// When something is due although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let deadlines = [
            self.services.deadline(now),
            self.removals.deadline(now),
            self.bindings.deadline(now),
            self.coming.deadline(now),
            self.contests.deadline(now),
            self.rewords.deadline(now),
            self.strays.deadline(now),
            self.turns.deadline(now),
            self.refusals.deadline(now),
            self.closed.deadline(),
            self.open.deadline(),
            self.denied_services.deadline(now),
            self.denied_bindings.deadline(now),
        ];
        deadlines.into_iter().flatten().min()
    }

    /// Writes what has become true into the status of Services, and after a while what is to be out of those that `clears`
    /// names. Gives those that are not written yet.
    pub fn publish(
        &mut self,
        cluster: &Cluster,
        wanted: &Wanted,
        verdicts: &BTreeMap<Name, Verdict>,
        clears: &BTreeMap<Name, Duration>,
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
        let due = self.strays.see(clears, now);
        let lasting = |name: &Name| self.refusals.lasting(name, now);
        let removals = status::Removals { clears: &due, stuck: &self.stuck };
        let node = &self.node;
        let updates =
            status::updates(cluster, wanted, verdicts, removals, lasting, answering, node);
        self.contests.retain(verdicts.keys().chain(self.strays.cleared()));
        let found = self.contests.undone(&updates, now);
        self.metrics.status_undone.inc_by(found.undone);
        for name in &found.contested {
            tracing::warn!(service = %name, "somebody else writes this status, too");
            self.events.publish(events::contested(name, cluster));
        }
        for name in self.contests.settled(now) {
            tracing::info!(service = %name, "nobody else writes this status any more");
            self.events.publish(events::settled(&name, cluster));
        }
        // What is refused is waited for by nobody. What takes out was not, until all was to go.
        let (denials, stuck, rewords) = (&self.denied_services, &self.stuck, &self.rewords);
        let allowed = |update: &Update| {
            let Update { name, uid, version, takes_out, .. } = update;
            rewords.may(update, now)
                && (*takes_out && !stuck.contains(name) || denials.allow(name, uid, version, now))
        };
        let updates: Vec<Update> = updates.into_iter().filter(allowed).collect();
        self.turns.see(&updates, now);
        // What another node may write as well is waited for by nobody either.
        let own = updates.iter().filter(|update| update.waits.is_none());
        let pending: BTreeSet<Name> = own.map(|update| update.name.clone()).collect();
        self.outrun.retain(|name| pending.contains(name));
        let is_due = |update: &Update| {
            let backoff = if update.takes_out { &self.removals } else { &self.services };
            backoff.is_due(&update.name, now)
                && self.contests.may_write(update, now)
                && self.turns.is_due(update, now)
        };
        let due: Vec<Update> = updates
            .into_iter()
            .filter(|update| self.writer.is_free(update) && is_due(update))
            .collect();
        for mut update in by_turns(due) {
            update.insists = update.takes_out && self.outrun.contains(&update.name);
            if self.writer.is_free(&update) {
                self.writer.write(update);
            }
        }
        let services = cluster.services();
        self.services.retain(|name| services.contains_key(name));
        self.removals.retain(|name| services.contains_key(name));
        self.stuck.retain(|name| services.contains_key(name));
        self.denied_services.retain(|name| services.contains_key(name));
        pending
    }

    /// Tells Services once of ports on which somebody listens, as `look` finds, and that are closed behind these addresses.
    pub fn close(
        &mut self,
        wanted: &Wanted,
        addresses: BTreeSet<IpAddr>,
        look: impl FnOnce() -> Listening,
        now: Instant,
    ) {
        if self.closed.see(addresses, now) {
            let news = self.closed.poll(wanted, &self.node, &look(), now);
            news.into_iter().for_each(|report| self.events.publish(report));
        }
    }

    /// Tells Services once that ports of this node answer behind these addresses of theirs although they are to be closed,
    /// and why, while that is so; and once that it is over.
    pub fn leave_open(
        &mut self,
        wanted: &Wanted,
        addresses: &BTreeSet<IpAddr>,
        why: Option<&str>,
        now: Instant,
    ) {
        let news = self.open.poll(wanted, &self.node, addresses, why, now);
        news.into_iter().for_each(|report| self.events.publish(report));
    }

    /// Takes in how a write to a Service has ended.
    pub fn written<T>(&mut self, update: &Update, outcome: &WriteOutcome<T>, now: Instant) {
        self.writer.ended(&update.name);
        // A write that helped is not needed again.
        match (update.takes_out, outcome) {
            (false, _) => self.services.again(update.name.clone(), now),
            (true, WriteOutcome::Written(_)) => _ = self.outrun.remove(&update.name),
            (true, _) => self.removals.again(update.name.clone(), now),
        }
        match outcome {
            WriteOutcome::Written(_) => {
                self.stuck.remove(&update.name);
                self.contests.wrote(update, now);
                self.rewords.wrote(update, now);
                self.tell_what_was_said(update, now);
                if self.denied_services.end(&update.name, &update.uid) {
                    let uid = Some(update.uid.clone());
                    self.events.publish(accepted(service_reference(&update.name, uid)));
                }
            }
            WriteOutcome::Overtaken if update.takes_out => {
                self.outrun.insert(update.name.clone());
            }
            WriteOutcome::Overtaken => {}
            WriteOutcome::Refused(why) => {
                let Update { name, uid, version, .. } = update;
                if self.stuck.insert(name.clone()) && update.takes_out {
                    tracing::warn!(service = %name, why, "what is another's is not taken out: all is next");
                } else if self.denied_services.deny(name, uid, version, now) {
                    tracing::warn!(service = %name, why, "the status is refused");
                    let regarding = service_reference(name, Some(uid.clone()));
                    self.events.publish(denied(regarding, why));
                }
            }
            WriteOutcome::Failed(error) => {
                if update.takes_out {
                    self.stuck.insert(update.name.clone());
                }
                tracing::warn!(service = %update.name, %error, "cannot write the status");
            }
        }
        self.count(outcome);
    }

    /// Sends the Event that goes with what was written.
    fn tell_what_was_said(&mut self, update: &Update, now: Instant) {
        let Some(report) = events::said(update) else { return };
        if update.waits.is_some() {
            self.refusals.told(&update.name, now);
        }
        self.events.publish(report);
    }

    /// Writes what has become true of elastic IPs on this node.
    #[allow(clippy::disallowed_methods, reason = "the time of a condition is for people")]
    pub fn sign(&mut self, scene: Scene<'_>, outlook: &Outlook<'_>, now: Instant) {
        self.coming.see(scene, outlook, now);
        let is_late = |name: &Name| self.coming.is_late(name, now);
        let applies = eip::applies(scene, outlook, is_late, Timestamp::now()).into_iter();
        let due = applies.filter(|apply| {
            let Apply { name, uid, version, .. } = apply;
            let is_due = self.bindings.is_due(name, now);
            self.writer.is_free_for(name)
                && self.denied_bindings.allow(name, uid, version, now)
                && (is_due || self.overtaken.may_go_on(name, version))
        });
        for apply in in_turn(due.collect(), |_| 0, |apply: &Apply| &apply.name) {
            if self.writer.is_free_for(&apply.name) {
                self.writer.apply(apply, &self.manager);
            }
        }
        let eips = scene.cluster.eips();
        self.bindings.retain(|name| eips.contains_key(name));
        self.overtaken.retain(|name| eips.contains_key(name));
        self.denied_bindings.retain(|name| eips.contains_key(name));
        let held = eips.values().flat_map(Eip::addresses);
        let held = held.filter(|address| outlook.answering.live.contains(address)).count();
        self.metrics.eips.set(held.try_into().unwrap_or(i64::MAX));
    }

    /// Takes in how a write to an `EipBinding` has ended.
    pub fn applied<T>(&mut self, apply: &Apply, outcome: &WriteOutcome<T>, now: Instant) {
        self.writer.applied(&apply.name);
        self.bindings.again(apply.name.clone(), now);
        match outcome {
            WriteOutcome::Overtaken => self.overtaken.note(&apply.name, &apply.version),
            _ => self.overtaken.end(&apply.name),
        }
        match outcome {
            WriteOutcome::Written(_) => {
                if self.denied_bindings.end(&apply.name, &apply.uid) {
                    let uid = Some(apply.uid.clone());
                    self.events.publish(accepted(eip_reference(&apply.name, uid)));
                }
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
            WriteOutcome::Refused(why) => {
                let Apply { name, uid, version, .. } = apply;
                if self.denied_bindings.deny(name, uid, version, now) {
                    tracing::warn!(eip = %name, why, "the status is refused");
                    self.events.publish(denied(eip_reference(name, Some(uid.clone())), why));
                }
            }
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
            WriteOutcome::Refused(_) => "refused",
            WriteOutcome::Failed(_) => "failed",
        };
        self.metrics.status_writes.get_or_create(&cause(outcome)).inc();
    }

    /// Tells who has an elastic IP what may keep it from leading anywhere.
    pub fn advise(&mut self, wanted: &Wanted, address: IpAddr, note: String, now: Instant) {
        if !self.advised.may(address, now) {
            return;
        }
        tracing::warn!("{note}");
        if let Some(regarding) = holder(wanted, address) {
            self.events.publish(Report {
                regarding,
                severity: Severity::Warning,
                reason: reason::VMI_IS_NEIGHBOUR,
                action: "Translate",
                note,
            });
        }
    }

    /// Tells that another host, once, was told that an address is this node's: the first who has it, once a minute.
    pub fn defended(&mut self, wanted: &Wanted, address: IpAddr, mac: [u8; 6], now: Instant) {
        let regarding = holder(wanted, address);
        let Some(regarding) = regarding.filter(|_| self.defended.may(address, now)) else { return };
        let (node, mac) = (&self.node, MacText(mac));
        let note = format!(
            "another host, {mac}, says that it has {address}; node {node} keeps it and has said so, once"
        );
        self.events.publish(Report {
            regarding,
            severity: Severity::Warning,
            reason: reason::ADDRESS_CONFLICT,
            action: "Defend",
            note,
        });
    }
}

/// The first who has an address.
fn holder(wanted: &Wanted, address: IpAddr) -> Option<ObjectReference> {
    let first = wanted.vip(address).and_then(|vip| vip.wants.first())?;
    match &first.claimant {
        Claimant::Operator | Claimant::ControlPlane => None,
        Claimant::Service(name) => Some(service_reference(name, Some(first.uid.clone()))),
        Claimant::Eip(name) => Some(eip_reference(name, Some(first.uid.clone()))),
    }
}

#[cfg(test)]
mod tests;
