//! Owns what this node holds: for each address the lease that a majority of voters granted. Time counts from when a
//! heartbeat was *sent*, so a lease never outlasts the promises it rests on.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::bounds::LONGEST;
use crate::journal::{Delta, Journal};
use crate::message::{Ack, Condition, Heartbeat, Stage};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::parameters::Parameters;
use crate::rules::Rules;
use crate::view::{Standing, Voters};
use crate::wire::OVERHEAD;

#[derive(Clone, Debug)]
pub(crate) struct Hold {
    pub(crate) stage: Stage,
    /// When the claim began.
    pub(crate) since: Moment,
    /// Until when this node may answer.
    pub(crate) lease: Moment,
    /// The version of the list that first says what `stage` says: a voter that has not read it grants something else.
    version: u64,
    /// While a majority's first grant lasts: what the second one has to answer.
    second: Option<Moment>,
    /// What an older view granted.
    frozen: Moment,
    grants: Vec<Grant>,
}

/// What a voter granted.
#[derive(Clone, Copy, Debug)]
struct Grant {
    voter: NodeId,
    /// When the newest was sent that it granted.
    sent: Moment,
    /// Until when it is promised to nobody else: a promise is never shortened.
    until: Moment,
}

/// What this node knows of a voter.
#[derive(Clone, Copy, Debug, Default)]
struct Peer {
    cookie: u64,
    /// The version of my list that it has.
    applied: u64,
    /// The newest of mine that it answered.
    answered: u64,
    /// The newest that I sent to it.
    sent: u64,
    /// The newest of mine that it judged as a voter of my view, once that was active.
    judged: Moment,
    heard: Moment,
}

/// What an ack led to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Leases that became longer, or are of a hold now.
    pub(crate) renewed: bool,
    /// Claims that became holds.
    pub(crate) won: Vec<IpAddr>,
    /// When what was refused may be asked for again.
    pub(crate) retry_after: Option<Duration>,
    /// A majority granted a claim for the first time: it is to be asked again at once.
    pub(crate) ask_again: bool,
    /// The voter lacks something that it can be sent at once.
    pub(crate) behind: bool,
    /// A majority has judged what was sent later than all before: how long it took since that was sent.
    pub(crate) took: Option<Duration>,
    /// The same of one voter more.
    pub(crate) took_one_more: Option<Duration>,
}

#[derive(Debug)]
pub(crate) struct Owner {
    me: NodeId,
    parameters: Parameters,
    rules: Rules,
    session: u64,
    sequence: u64,
    list: Journal<IpAddr, Stage>,
    holds: BTreeMap<IpAddr, Hold>,
    next_lapse: Moment,
    /// The lease that was asked for last.
    asked: Duration,
    /// When what a majority has judged was sent, and one voter more; none before the first time.
    judged: [Option<Moment>; 2],
    peers: BTreeMap<NodeId, Peer>,
}

impl Owner {
    /// An owner that starts now, with a session nobody has seen. It knows the cookie of the voter beside it.
    pub(crate) fn new(
        me: NodeId,
        parameters: Parameters,
        rules: Rules,
        session: u64,
        cookie: u64,
    ) -> Self {
        Self {
            me,
            parameters,
            rules,
            session,
            sequence: 0,
            list: Journal::new(parameters.memory),
            holds: BTreeMap::new(),
            next_lapse: Moment::NEVER,
            asked: parameters.lease,
            judged: [None; 2],
            peers: [(me, Peer { cookie, ..Peer::default() })].into(),
        }
    }

    pub(crate) fn hold(&self, address: &IpAddr) -> Option<&Hold> {
        self.holds.get(address)
    }

    pub(crate) fn holds(&self) -> impl ExactSizeIterator<Item = (IpAddr, &Hold)> {
        self.holds.iter().map(|(address, hold)| (*address, hold))
    }

    /// When the voter last answered.
    pub(crate) fn heard(&self, voter: NodeId) -> Option<Moment> {
        self.peers.get(&voter).filter(|peer| peer.answered > 0).map(|peer| peer.heard)
    }

    /// When the first lease may lapse, not later than it does.
    pub(crate) fn next_lapse(&self) -> Moment {
        if self.rules.lapsed_is_lost() { self.next_lapse } else { Moment::NEVER }
    }

    /// Begins to ask for an address.
    pub(crate) fn claim(&mut self, now: Moment, address: IpAddr) {
        let version = self.list.set(address, Some(Stage::Claim));
        let hold = Hold {
            stage: Stage::Claim,
            since: now,
            lease: Moment::default(),
            version: if self.rules.versions() { version } else { 0 },
            second: None,
            frozen: Moment::default(),
            grants: Vec::new(),
        };
        self.holds.insert(address, hold);
    }

    /// Lets go. The kernel must be silent before voters hear of it.
    pub(crate) fn drop(&mut self, address: &IpAddr) {
        self.holds.remove(address);
        self.list.set(*address, None);
    }

    /// The holds whose lease has lapsed. A lapsed lease never revives: the caller mutes and drops them.
    pub(crate) fn lapsed(&mut self, now: Moment) -> Vec<IpAddr> {
        if now < self.next_lapse || !self.rules.lapsed_is_lost() {
            return Vec::new();
        }
        let lapsed =
            self.holds.iter().filter(|(_, hold)| hold.stage == Stage::Held && hold.lease <= now);
        let lapsed = lapsed.map(|(address, _)| *address).collect();
        self.note_next_lapse(now);
        lapsed
    }

    /// Goes over to another view: what the old one granted to a hold stands as a fixed deadline. Claims begin anew.
    pub(crate) fn adopted(&mut self) {
        self.peers.values_mut().for_each(|peer| peer.judged = Moment::default());
        for hold in self.holds.values_mut() {
            if self.rules.grants_of_my_epoch() {
                hold.grants.clear();
            }
            match hold.stage {
                Stage::Held => hold.frozen = hold.lease,
                Stage::Claim => (hold.lease, hold.second) = (Moment::default(), None),
            }
        }
    }

    /// The heartbeat for a voter, in as many datagrams as it takes; one if it stays on this node.
    pub(crate) fn heartbeat(
        &mut self,
        now: Moment,
        to: NodeId,
        standing: &Standing,
        reports: u64,
        condition: Condition,
    ) -> Vec<Heartbeat> {
        self.asked = condition.lease.unwrap_or(self.parameters.lease);
        let parameters = &self.parameters;
        let (budget, burst) = if to == self.me {
            (usize::MAX, 1)
        } else {
            (parameters.datagram - OVERHEAD, parameters.burst)
        };
        let peer = self.peers.entry(to).or_default();
        let deltas = self.list.deltas(peer.applied, budget, burst);
        let count = deltas.len();
        let numbered = deltas.into_iter().enumerate().map(|(at, list)| {
            self.sequence = (self.sequence + 1).max(now.nanos());
            Heartbeat {
                session: self.session,
                sequence: self.sequence,
                cookie: peer.cookie,
                view: standing.view().clone(),
                active: standing.is_active(),
                more: at + 1 < count,
                condition,
                list,
                reports,
            }
        });
        let heartbeats = numbered.collect();
        peer.sent = self.sequence;
        heartbeats
    }

    /// What a voter is told when this run has ended: after all that it was ever sent. None before it has answered.
    pub(crate) fn last_heartbeat(&self, to: NodeId, standing: &Standing) -> Option<Heartbeat> {
        let peer = self.peers.get(&to).filter(|peer| peer.answered > 0)?;
        let changes = Vec::new();
        Some(Heartbeat {
            session: self.session,
            sequence: u64::MAX,
            cookie: peer.cookie,
            view: standing.view().clone(),
            active: standing.is_active(),
            more: false,
            condition: Condition { over: true, ..Condition::default() },
            list: Delta { base: 0, upto: 0, latest: 0, digest: 0, changes },
            reports: 0,
        })
    }

    /// Whether this answers a heartbeat of this run. One of an earlier run proves nothing, and its sequence may lie ahead of
    /// ours: after a reboot the clock begins anew.
    pub(crate) fn asked_for(&self, ack: &Ack) -> bool {
        ack.session == self.session && ack.sequence <= self.sequence
    }

    /// Whether this answers a later heartbeat than every answer before. The last one, which anybody can repeat, shows no life.
    pub(crate) fn is_news(&self, from: NodeId, ack: &Ack) -> bool {
        self.peers.get(&from).is_none_or(|peer| ack.sequence > peer.answered)
    }

    /// Takes what a voter answered to a heartbeat of this run. The caller has adopted its view before, if that was newer.
    pub(crate) fn acknowledge(
        &mut self,
        now: Moment,
        from: NodeId,
        ack: &Ack,
        standing: &Standing,
    ) -> Outcome {
        let mut outcome = Outcome::default();
        let view = standing.view();
        let latest = self.list.latest();
        let is_news = self.is_news(from, ack);
        let peer = self.peers.entry(from).or_default();
        if ack.sequence >= peer.answered {
            peer.answered = ack.sequence;
            if is_news {
                peer.heard = now;
            }
            // Only what is new here is answered at once: a voter that stays where it was waits for the next beat.
            let progress =
                peer.cookie != ack.cookie || (ack.applied != peer.applied && ack.applied < latest);
            outcome.behind = progress && ack.sequence == peer.sent && view.voters().contains(from);
            if peer.cookie != ack.cookie {
                // Another run of it: what was away is not late.
                (peer.judged, self.judged[1]) = (Moment::default(), None);
            }
            (peer.cookie, peer.applied) = (ack.cookie, ack.applied);
        }
        let of_my_epoch = ack.view.epoch() == view.epoch() || !self.rules.grants_of_my_epoch();
        let of_active_view = ack.active || !self.rules.grants_of_active_view();
        let Some(verdict) = &ack.verdict else { return outcome };
        if !(of_my_epoch && of_active_view && view.voters().contains(from)) {
            return outcome;
        }
        let sent = Moment::from_nanos(ack.sequence);
        if let Some(peer) = self.peers.get_mut(&from) {
            peer.judged = sent.max(peer.judged);
        }
        [outcome.took, outcome.took_one_more] = self.took(now, view.voters());
        let sent = if self.rules.lease_from_send() { sent } else { now };
        let until = sent + self.granted(ack);
        for (address, hold) in &mut self.holds {
            if hold.version > ack.applied || !verdict.covers(*address) {
                continue;
            }
            if let Some(refused) = verdict.refusal(*address) {
                let sooner = [outcome.retry_after, refused.retry_after];
                outcome.retry_after = sooner.into_iter().flatten().min();
                continue;
            }
            if hold.lease <= now {
                hold.second = None;
            }
            hold.grant(from, sent, until);
            let lease = |since| hold.lease_in(view.voters(), since, &self.rules);
            let (granted, again) = (lease(Moment::default()), hold.second.map(lease));
            outcome.renewed |= granted > hold.lease;
            hold.lease = granted;
            let long = now + self.asked / 3;
            if hold.stage == Stage::Held || granted <= long {
                continue;
            }
            if again.is_some_and(|again| again > long) || !self.rules.second_majority() {
                outcome.won.push(*address);
            } else if hold.second.is_none() {
                hold.second = Some(Moment::from_nanos(self.sequence + 1));
                outcome.ask_again = true;
            }
        }
        for address in &outcome.won {
            if let Some(hold) = self.holds.get_mut(address) {
                hold.stage = Stage::Held;
                let version = self.list.set(*address, Some(Stage::Held));
                hold.version = if self.rules.versions() { version } else { 0 };
            }
        }
        // What was won may have been granted for less the second time: its lease is no longer than it was, and lapses all the same.
        outcome.renewed |= !outcome.won.is_empty();
        if outcome.renewed {
            self.note_next_lapse(now);
        }
        outcome
    }

    /// For how long an ack grants, from when its heartbeat was sent.
    fn granted(&self, ack: &Ack) -> Duration {
        let granted = match ack.lease {
            Some(said) if self.rules.said_lease() => said,
            None if self.rules.unsaid_lease() => self.parameters.lease,
            _ => self.asked,
        };
        granted.min(LONGEST)
    }

    /// Whether a majority, and whether one voter more, has judged what was sent later than all before, and how long a lease had
    /// to last for that.
    fn took(&mut self, now: Moment, voters: &Voters) -> [Option<Duration>; 2] {
        let judged = |voter: &NodeId| self.peers.get(voter).map(|peer| peer.judged);
        let mut judged: Vec<_> = voters.nodes().iter().filter_map(judged).collect();
        judged.sort_unstable_by(|a, b| b.cmp(a));
        let mut took = [None; 2];
        for (more, (took, before)) in took.iter_mut().zip(&mut self.judged).enumerate() {
            let renewed = judged.get(voters.majority() - 1 + more).copied().unwrap_or_default();
            if renewed > before.unwrap_or_default() {
                *took = before.replace(renewed).map(|before| now.since(before));
            }
        }
        took
    }

    fn note_next_lapse(&mut self, now: Moment) {
        let held = self.holds.values().filter(|hold| hold.stage == Stage::Held && hold.lease > now);
        self.next_lapse = held.map(|hold| hold.lease).min().unwrap_or(Moment::NEVER);
    }
}

impl Hold {
    fn grant(&mut self, voter: NodeId, sent: Moment, until: Moment) {
        match self.grants.iter_mut().find(|grant| grant.voter == voter) {
            Some(grant) => {
                (grant.sent, grant.until) = (sent.max(grant.sent), until.max(grant.until));
            }
            None => self.grants.push(Grant { voter, sent, until }),
        }
    }

    /// Until when a majority of voters has promised this, of those that granted what was sent since a moment: each of the m,
    /// m being the majority, whose promises last longest. Or what an older view granted.
    fn lease_in(&self, voters: &Voters, since: Moment, rules: &Rules) -> Moment {
        let counts = |grant: &&Grant| voters.contains(grant.voter) && grant.sent >= since;
        let granted = self.grants.iter().filter(counts);
        let mut ends: Vec<_> = granted.map(|grant| grant.until).collect();
        ends.sort_unstable_by(|a, b| b.cmp(a));
        let needed =
            if rules.majority() { voters.majority() } else { voters.majority().max(2) - 1 };
        ends.get(needed - 1).copied().unwrap_or_default().max(self.frozen)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::Verdict;
    use crate::view::View;
    use crate::voter::Voter;

    #[test]
    fn what_is_won_by_a_shorter_lease_than_the_claim_had_lapses_all_the_same() {
        let at = |millis: u64| Moment::from_nanos(millis * 1_000_000);
        let [me, other] = [1, 2].map(NodeId::from_bits);
        let (parameters, rules) = (Parameters::default(), Rules::default());
        let standing = Standing::new(me, View::first(other), rules);
        let voter = Voter::new(parameters, rules, 7, at(0));
        let mut owner = Owner::new(me, parameters, rules, 1, 0);
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        owner.claim(at(1_000), address);
        let mut granted = |now: Moment, lease: Option<Duration>| {
            let condition = Condition { lease, ..Condition::default() };
            let heartbeat = owner.heartbeat(now, other, &standing, 0, condition).remove(0);
            let greeting = voter.greeting(me, &heartbeat, &standing);
            let (applied, verdict) = (heartbeat.list.upto, Some(Verdict::default()));
            let ack = Ack { applied, lease, verdict, ..greeting };
            owner.acknowledge(now, other, &ack, &standing).won
        };
        assert!(granted(at(1_000), None).is_empty(), "the first majority");
        assert_eq!(granted(at(1_001), Some(Duration::from_millis(100))), [address]);
        assert_eq!((owner.next_lapse(), owner.lapsed(at(1_349))), (at(1_350), vec![]));
        assert_eq!(owner.lapsed(at(1_350)), [address]);
    }
}
