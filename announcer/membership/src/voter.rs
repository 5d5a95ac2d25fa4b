//! Owns what this node promised to others. A promise is never broken and never shortened: until it runs out, or who has it says
//! that it dropped the address, no other session gets it from this voter.

mod runs;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::dialect::Said;
use crate::journal::{Applied, Journal, Replica};
use crate::message::{Ack, Condition, Heartbeat, Refused, Report, Stage, Subject, Verdict};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::parameters::Parameters;
use crate::rules::Rules;
use crate::view::Standing;
use crate::wire::OVERHEAD;
use runs::Runs;

/// The lists of sessions that are owed nothing are kept, at most this many in all.
const MOST_SESSIONS: usize = 2_048;

/// A run of a node.
type SessionKey = (NodeId, u64);

#[derive(Debug)]
struct Session {
    promise: Moment,
    /// The list is thrown away after this: whoever was not heard for so long has nothing here.
    fresh_until: Moment,
    list: Replica<IpAddr, Stage>,
    granted: BTreeSet<IpAddr>,
}

/// When a node was heard.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Contact {
    pub(crate) last: Moment,
    /// Since when without a gap longer than suspicion.
    pub(crate) since: Moment,
    /// Whether it said that it is about to stop.
    pub(crate) leaving: bool,
    /// Whether it said that nobody answers it, or that it has ended.
    pub(crate) gone: bool,
    /// How long it may be silent, for how often it is to be heard.
    pub(crate) suspicion: Duration,
}

#[derive(Debug)]
pub(crate) struct Voter {
    parameters: Parameters,
    rules: Rules,
    nothing_before: Moment,
    no_claims_before: Moment,
    sessions: BTreeMap<SessionKey, Session>,
    table: BTreeMap<IpAddr, SessionKey>,
    next_expiry: Moment,
    contacts: BTreeMap<NodeId, Contact>,
    runs: Runs,
    next_silence: Moment,
    journal: Journal<Subject, Report>,
}

impl Voter {
    /// A voter that starts now, with a secret nobody has seen: the cookies come of it.
    pub(crate) fn new(parameters: Parameters, rules: Rules, secret: u64, now: Moment) -> Self {
        // What an earlier run of this voter promised has run out by then.
        let forgotten = forgotten(&parameters, rules);
        let nothing_before = if rules.restart_wait() { now + forgotten } else { now };
        Self {
            parameters,
            rules,
            nothing_before,
            no_claims_before: now,
            sessions: BTreeMap::new(),
            table: BTreeMap::new(),
            next_expiry: Moment::NEVER,
            contacts: BTreeMap::new(),
            runs: Runs::new(secret),
            next_silence: Moment::NEVER,
            journal: Journal::new(parameters.memory),
        }
    }

    pub(crate) fn contacts(&self) -> &BTreeMap<NodeId, Contact> {
        &self.contacts
    }

    /// How many addresses are promised to somebody.
    pub(crate) fn promised(&self) -> usize {
        self.table.len()
    }

    /// The view became active here: whatever earlier voters granted has run out when claims are granted again.
    pub(crate) fn activated(&mut self, now: Moment, standing: &Standing) {
        if self.rules.wait_after_activation() && !standing.knows_every_promise() {
            let forgotten = forgotten(&self.parameters, self.rules);
            self.no_claims_before = self.no_claims_before.max(now + forgotten);
        }
    }

    /// The cookie with which a run of a node is heard.
    pub(crate) fn cookie(&self, node: NodeId, session: u64) -> u64 {
        self.runs.cookie(node, session)
    }

    /// Whether a heartbeat was sent to this run of the voter, and whether after all before it: then it shows that its sender
    /// lives. One that somebody recorded shows nothing. To be asked once of each.
    pub(crate) fn said(&mut self, from: NodeId, heartbeat: &Heartbeat) -> Said {
        self.runs.hear(from, heartbeat)
    }

    /// A node was heard, by what only it can say now.
    pub(crate) fn heard(&mut self, now: Moment, node: NodeId) {
        let suspicion = self.parameters.suspicion;
        let new = Contact { last: now, since: now, suspicion, ..Contact::default() };
        let contact = self.contacts.entry(node).or_insert(new);
        if now.since(contact.last) > suspicion {
            contact.since = now;
        }
        contact.last = now;
        self.next_silence = self.next_silence.min(now + contact.suspicion);
        if !contact.gone {
            self.journal.set(Subject::Node(node), Some(Report::Heard));
        }
    }

    /// A node that was heard says whether it is about to stop, and could say no more.
    pub(crate) fn leaves(&mut self, node: NodeId, leaving: bool) {
        if let Some(contact) = self.contacts.get_mut(&node) {
            contact.leaving = leaving;
        }
    }

    /// A node that was heard says how it is. One that hears nobody, or has ended, is reported as little as one that is not heard.
    pub(crate) fn says(&mut self, node: NodeId, condition: &Condition) {
        let Some(contact) = self.contacts.get_mut(&node) else { return };
        contact.leaving = condition.leaving;
        contact.gone = condition.deaf || condition.over;
        contact.suspicion = self.parameters.suspicion_of(condition.lease);
        self.next_silence = self.next_silence.min(contact.last + contact.suspicion);
        let report = (!contact.gone).then_some(Report::Heard);
        self.journal.set(Subject::Node(node), report);
    }

    /// Whether a node said so last, as far as it is heard here.
    pub(crate) fn is_leaving(&self, node: NodeId) -> bool {
        self.contacts.get(&node).is_some_and(|contact| contact.leaving)
    }

    /// Ends what has run out.
    pub(crate) fn sweep(&mut self, now: Moment) {
        if now >= self.next_silence {
            self.next_silence = Moment::NEVER;
            for (node, contact) in &self.contacts {
                let silence = contact.last + contact.suspicion;
                if silence <= now {
                    self.journal.set(Subject::Node(*node), None);
                } else {
                    self.next_silence = self.next_silence.min(silence);
                }
            }
        }
        if now >= self.next_expiry {
            self.next_expiry = Moment::NEVER;
            for session in self.sessions.values_mut() {
                if session.promise > now {
                    self.next_expiry = self.next_expiry.min(session.promise);
                    continue;
                }
                for address in std::mem::take(&mut session.granted) {
                    self.table.remove(&address);
                    self.journal.set(Subject::Address(address), None);
                }
            }
        }
    }

    /// The answer to a heartbeat in which nothing was looked at. Its sender learns the cookie from it.
    pub(crate) fn greeting(&self, from: NodeId, heartbeat: &Heartbeat, standing: &Standing) -> Ack {
        Ack {
            session: heartbeat.session,
            sequence: heartbeat.sequence,
            cookie: self.cookie(from, heartbeat.session),
            view: standing.view().clone(),
            active: standing.is_active(),
            applied: 0,
            lease: None,
            verdict: None,
            reports: self.journal.deltas(u64::MAX, 0, 1).remove(0),
        }
    }

    /// Answers a heartbeat of which [`said`](Self::said) was asked, in one piece if the answer stays on this node. The caller
    /// has adopted its view before, if that was newer.
    pub(crate) fn answer(
        &mut self,
        now: Moment,
        from: NodeId,
        heartbeat: &Heartbeat,
        said: Said,
        standing: &Standing,
        local: bool,
    ) -> Vec<Ack> {
        self.sweep(now);
        let key = (from, heartbeat.session);
        let mut ack = self.greeting(from, heartbeat, standing);
        // What was not sent to this run of the voter, a replay of what an earlier run had for example, gets nothing.
        if !standing.votes() || said == Said::Elsewhere {
            return vec![ack];
        }
        if said == Said::Here {
            return Vec::new();
        }
        if heartbeat.condition.over {
            self.end(key);
            return Vec::new();
        }
        self.admit(key);
        let Some(session) = self.sessions.get_mut(&key) else { return Vec::new() };
        if session.fresh_until <= now {
            session.list = Replica::new();
        }
        let applied = session.list.apply(&heartbeat.list);
        ack.applied = session.list.applied();
        if applied != Applied::Gap {
            session.fresh_until = now + self.parameters.longest_promise();
            if applied == Applied::Newer {
                self.free(key, heartbeat);
            }
            if !heartbeat.more {
                let lease = self.grantable(heartbeat.condition.lease, standing);
                ack.lease = Some(lease);
                ack.verdict = Some(self.judge(now, key, lease, standing));
            }
        }
        if heartbeat.more { Vec::new() } else { self.split(ack, heartbeat.reports, local) }
    }

    /// Makes room for a session if there is none, at the cost of the oldest that is owed nothing.
    fn admit(&mut self, key: SessionKey) {
        if self.sessions.contains_key(&key) {
            return;
        }
        if self.sessions.len() >= MOST_SESSIONS {
            let idle = self.sessions.iter().filter(|(_, session)| session.granted.is_empty());
            let oldest = idle.min_by_key(|(_, session)| session.fresh_until).map(|(key, _)| *key);
            if let Some(oldest) = oldest {
                self.sessions.remove(&oldest);
            }
        }
        let session = Session {
            promise: Moment::default(),
            fresh_until: Moment::default(),
            list: Replica::new(),
            granted: BTreeSet::new(),
        };
        self.sessions.insert(key, session);
    }

    /// Frees what a session had that has ended.
    fn end(&mut self, key: SessionKey) {
        for address in self.sessions.remove(&key).into_iter().flat_map(|session| session.granted) {
            self.table.remove(&address);
            self.journal.set(Subject::Address(address), None);
        }
    }

    /// The lease that is granted where this one was asked for. Who does not say counts what every version promises, whatever the
    /// view allows.
    fn grantable(&self, asked: Option<Duration>, standing: &Standing) -> Duration {
        match asked {
            Some(asked) if self.rules.ceiling() => standing.view().bounds().granted(asked),
            Some(asked) => asked,
            None => self.parameters.lease,
        }
    }

    /// Frees what the session lists no longer.
    fn free(&mut self, key: SessionKey, heartbeat: &Heartbeat) {
        let Some(session) = self.sessions.get_mut(&key) else { return };
        for (address, stage) in &heartbeat.list.changes {
            if stage.is_none() && session.granted.remove(address) {
                self.table.remove(address);
                self.journal.set(Subject::Address(*address), None);
            }
        }
    }

    /// Grants what the session lists for so long, or refuses it.
    fn judge(
        &mut self,
        now: Moment,
        key: SessionKey,
        lease: Duration,
        standing: &Standing,
    ) -> Verdict {
        let Some(mut session) = self.sessions.remove(&key) else { return Verdict::default() };
        let mut verdict = Verdict::default();
        let mut granted_any = false;
        for (address, stage) in session.list.iter() {
            match self.refusal(now, key, *address, *stage, standing) {
                Some(retry_after) => {
                    verdict.refused.push(Refused { address: *address, retry_after })
                }
                None => {
                    granted_any = true;
                    let news = session.granted.insert(*address);
                    let before = if news { self.table.insert(*address, key) } else { None };
                    if let Some(other) = before.and_then(|other| self.sessions.get_mut(&other)) {
                        other.granted.remove(address);
                    }
                    let report = Report::Promised { node: key.0, stage: *stage };
                    self.journal.set(Subject::Address(*address), Some(report));
                }
            }
        }
        if granted_any {
            let outlasts = self.rules.promise_outlasts_lease();
            let promise = if outlasts { self.parameters.promise_of(lease) } else { lease * 9 / 10 };
            let kept = if self.rules.promise_is_kept() { session.promise } else { now };
            session.promise = kept.max(now + promise);
            self.next_expiry = self.next_expiry.min(session.promise);
        }
        self.sessions.insert(key, session);
        verdict
    }

    /// Why an address is not granted: the time after which it may be, if that is known.
    fn refusal(
        &self,
        now: Moment,
        key: SessionKey,
        address: IpAddr,
        stage: Stage,
        standing: &Standing,
    ) -> Option<Option<Duration>> {
        if now < self.nothing_before {
            return Some(Some(self.nothing_before.since(now)));
        }
        let entry = self.table.get(&address);
        if let Some(other) = entry.filter(|other| **other != key && self.rules.promises_exclude())
            && let Some(other) = self.sessions.get(other)
        {
            return Some(Some(other.promise.since(now)));
        }
        if stage == Stage::Held || (!self.rules.entry_is_no_pass() && entry == Some(&key)) {
            return None;
        }
        if !standing.is_active() {
            return Some(None);
        }
        (now < self.no_claims_before).then(|| Some(self.no_claims_before.since(now)))
    }

    /// Cuts an answer into datagrams.
    fn split(&self, ack: Ack, reports: u64, local: bool) -> Vec<Ack> {
        let budget = if local { usize::MAX } else { self.parameters.datagram - OVERHEAD };
        let (parts, room) = match &ack.verdict {
            Some(verdict) => cut(verdict, budget),
            None => (vec![None], budget),
        };
        let mut deltas = self.journal.deltas(reports, room, self.parameters.burst);
        let mut acks: Vec<_> =
            parts.into_iter().map(|verdict| Ack { verdict, ..ack.clone() }).collect();
        if let Some(last) = acks.last_mut() {
            last.reports = deltas.remove(0);
        }
        acks.extend(deltas.into_iter().map(|reports| Ack {
            verdict: None,
            reports,
            ..ack.clone()
        }));
        acks
    }
}

/// How long to wait for what was promised, and by whom nobody knows.
fn forgotten(parameters: &Parameters, rules: Rules) -> Duration {
    if rules.longest_wait() { parameters.longest_promise() } else { parameters.promise() }
}

/// Cuts a verdict into ranges whose refusals fit `budget`, and says how much the last one leaves.
fn cut(verdict: &Verdict, budget: usize) -> (Vec<Option<Verdict>>, usize) {
    const LARGEST: usize = 17 + 4;
    let most = (budget / LARGEST).max(1);
    let mut parts: Vec<_> = verdict
        .refused
        .chunks(most)
        .map(|refused| {
            let through = refused.last().map(|refused| refused.address);
            Verdict { after: None, through, refused: refused.to_vec() }
        })
        .collect();
    for at in 1..parts.len() {
        parts[at].after = parts[at - 1].through;
    }
    match parts.last_mut() {
        None => parts.push(Verdict::default()),
        Some(last) => last.through = None,
    }
    let used = parts.last().map_or(0, |last| last.refused.len() * LARGEST);
    (parts.into_iter().map(Some).collect(), budget.saturating_sub(used))
}
