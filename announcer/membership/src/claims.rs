//! Owns when this node asks for an address and when it gives up asking. Policy only: voters decide who gets it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::event::Cause;
use crate::message::Stage;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::owner::{Hold, Owner};
use crate::parameters::Parameters;
use crate::placement::{Request, mix, rank};
use crate::sight::Sight;

/// A claim that was not won by then is given up for a while.
const PATIENCE: Duration = Duration::from_secs(1);
const AFTER_LOSS: Duration = Duration::from_millis(300);
const AFTER_LOSSES: Duration = Duration::from_secs(3);
const MANY_LOSSES: usize = 3;
const LOSSES_WITHIN: Duration = Duration::from_secs(10);

/// What to do about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Claim(IpAddr, Cause),
    Withdraw(IpAddr),
}

#[derive(Debug)]
struct Interest {
    request: Request,
    last_holder: Option<NodeId>,
    /// Since when no live node is seen with it.
    orphan_since: Option<Moment>,
    not_before: Moment,
    losses: Vec<Moment>,
}

#[derive(Debug)]
pub(crate) struct Claims {
    me: NodeId,
    parameters: Parameters,
    interests: BTreeMap<IpAddr, Interest>,
    agenda: BTreeMap<IpAddr, Moment>,
    next: Moment,
    changed: BTreeSet<IpAddr>,
    all_changed: bool,
    luck: u64,
    stopped: bool,
}

impl Claims {
    pub(crate) fn new(me: NodeId, parameters: Parameters, luck: u64) -> Self {
        Self {
            me,
            parameters,
            interests: BTreeMap::new(),
            agenda: BTreeMap::new(),
            next: Moment::NEVER,
            changed: BTreeSet::new(),
            all_changed: false,
            luck,
            stopped: false,
        }
    }

    pub(crate) fn request(&mut self, address: IpAddr, request: Request) {
        self.changed.insert(address);
        match self.interests.get_mut(&address) {
            Some(interest) => interest.request = request,
            None => {
                let not_before = Moment::default();
                let interest = Interest {
                    request,
                    last_holder: None,
                    orphan_since: None,
                    not_before,
                    losses: Vec::new(),
                };
                self.interests.insert(address, interest);
            }
        }
    }

    pub(crate) fn withdraw(&mut self, address: IpAddr) {
        self.interests.remove(&address);
        self.agenda.remove(&address);
    }

    pub(crate) fn may_have(&self, address: IpAddr) -> bool {
        self.interests
            .get(&address)
            .is_some_and(|interest| interest.request.candidates.contains(&self.me))
    }

    /// Whether this node gives the address to a live candidate of a lower tier.
    pub(crate) fn moves(&self, address: IpAddr) -> bool {
        self.interests.get(&address).is_some_and(|interest| interest.request.moves)
    }

    /// The best live candidate but this node, of those that are `fit`.
    pub(crate) fn best_other(
        &self,
        address: IpAddr,
        sight: &Sight,
        fit: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let request = &self.interests.get(&address)?.request;
        let is_other = |node| node != self.me && sight.live().contains(&node) && fit(node);
        rank(request, is_other, None).first().copied()
    }

    /// The same of a lower tier than this node's.
    pub(crate) fn better(
        &self,
        address: IpAddr,
        sight: &Sight,
        fit: impl Fn(NodeId) -> bool,
    ) -> Option<NodeId> {
        let request = &self.interests.get(&address)?.request;
        let mine = request.tier(self.me);
        self.best_other(address, sight, |node| request.tier(node) < mine && fit(node))
    }

    /// What no live node is seen with, nor to ask for, for at least so long.
    pub(crate) fn orphans(
        &self,
        now: Moment,
        age: Duration,
        sight: &Sight,
        owner: &Owner,
    ) -> impl Iterator<Item = IpAddr> {
        let is_old = move |interest: &Interest| {
            interest.orphan_since.is_some_and(|since| now.since(since) >= age)
        };
        let old = self.interests.iter().filter(move |(_, interest)| is_old(interest));
        let addresses = old.map(|(address, _)| *address);
        addresses.filter(move |address| {
            let mut stages = [Stage::Claim, Stage::Held].into_iter();
            let has = |stage| sight.others(*address, stage).next().is_some();
            owner.hold(address).is_none() && !stages.any(has)
        })
    }

    /// Everything has to be looked at again.
    pub(crate) fn note_all(&mut self) {
        self.all_changed = true;
    }

    /// These have to be looked at again.
    pub(crate) fn note(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        self.changed.extend(addresses);
    }

    /// This node asks for nothing any more.
    pub(crate) fn stop(&mut self) {
        self.stopped = true;
    }

    /// This node won the address.
    pub(crate) fn won(&mut self, address: IpAddr) {
        if let Some(interest) = self.interests.get_mut(&address) {
            (interest.last_holder, interest.orphan_since) = (Some(self.me), None);
        }
    }

    /// The lease of an address lapsed: whoever loses often waits longer.
    pub(crate) fn lost(&mut self, now: Moment, address: IpAddr) {
        let Some(interest) = self.interests.get_mut(&address) else { return };
        interest.losses.retain(|loss| now.since(*loss) < LOSSES_WITHIN);
        interest.losses.push(now);
        let wait = if interest.losses.len() >= MANY_LOSSES { AFTER_LOSSES } else { AFTER_LOSS };
        interest.not_before = now + wait;
        self.changed.insert(address);
    }

    /// The address went to another node on purpose.
    pub(crate) fn gave(&mut self, now: Moment, address: IpAddr, to: NodeId) {
        let Some(interest) = self.interests.get_mut(&address) else { return };
        interest.last_holder = Some(to);
        interest.not_before = now + PATIENCE;
        self.changed.insert(address);
    }

    /// When to look again, at the latest.
    pub(crate) fn next(&self) -> Moment {
        if self.all_changed || !self.changed.is_empty() { Moment::default() } else { self.next }
    }

    /// Looks at all that changed or is due.
    pub(crate) fn decide(&mut self, now: Moment, sight: &Sight, owner: &Owner) -> Vec<Decision> {
        let mut due: BTreeSet<_> = std::mem::take(&mut self.changed);
        if std::mem::take(&mut self.all_changed) {
            due.extend(self.interests.keys());
        }
        due.extend(self.agenda.iter().filter(|(_, at)| **at <= now).map(|(address, _)| *address));
        if due.is_empty() {
            // What was due may have been withdrawn: a moment that is past would be due for ever.
            if self.next <= now {
                self.note_next();
            }
            return Vec::new();
        }
        let mut decisions = Vec::new();
        for address in due {
            self.agenda.remove(&address);
            let (decision, again) = match owner.hold(&address) {
                Some(hold) if hold.stage == Stage::Claim => {
                    self.reconsider(now, address, hold, sight)
                }
                Some(_) => (None, Moment::NEVER),
                None => self.consider(now, address, sight),
            };
            decisions.extend(decision);
            if again < Moment::NEVER {
                self.agenda.insert(address, again);
            }
        }
        self.note_next();
        decisions
    }

    fn note_next(&mut self) {
        self.next = self.agenda.values().min().copied().unwrap_or(Moment::NEVER);
    }

    /// Whether to ask for an address, or when to look again.
    fn consider(
        &mut self,
        now: Moment,
        address: IpAddr,
        sight: &Sight,
    ) -> (Option<Decision>, Moment) {
        let nothing = (None, Moment::NEVER);
        let Some(interest) = self.interests.get_mut(&address) else { return nothing };
        if self.stopped || !sight.is_clear() {
            return nothing;
        }
        if let Some(holder) = sight.others(address, Stage::Held).next() {
            (interest.last_holder, interest.orphan_since) = (Some(holder), None);
            return nothing;
        }
        let since = *interest.orphan_since.get_or_insert(now);
        let ranking = interest.ranking(self.me, sight);
        let Some(position) = ranking.iter().position(|node| *node == self.me) else {
            return nothing;
        };
        if sight
            .others(address, Stage::Claim)
            .any(|claimant| ranking[..position].contains(&claimant))
        {
            return nothing;
        }
        let patience = match u32::try_from(position) {
            Ok(0) => Duration::ZERO,
            Ok(rank) => self.parameters.promise() + self.parameters.stagger * rank,
            Err(_) => return nothing,
        };
        let start = interest.not_before.max(since + patience);
        if now < start {
            return (None, start);
        }
        let cause = interest.cause(self.me, sight);
        self.changed.insert(address);
        (Some(Decision::Claim(address, cause)), Moment::NEVER)
    }

    /// Whether to give up asking, or when to look again.
    fn reconsider(
        &mut self,
        now: Moment,
        address: IpAddr,
        hold: &Hold,
        sight: &Sight,
    ) -> (Option<Decision>, Moment) {
        let may = self.may_have(address);
        let Some(interest) = self.interests.get_mut(&address) else {
            return (Some(Decision::Withdraw(address)), Moment::NEVER);
        };
        let (settled, over) = (
            hold.since + self.parameters.heartbeat * 2 + Duration::from_millis(10),
            hold.since + PATIENCE,
        );
        let beaten = || {
            let ranking = interest.ranking(self.me, sight);
            let better = |node: &NodeId| {
                ranking.iter().take_while(|other| **other != self.me).any(|n| n == node)
            };
            sight.others(address, Stage::Held).next().is_some()
                || sight.others(address, Stage::Claim).any(|claimant| better(&claimant))
        };
        if may && now < over && (now < settled || !beaten()) {
            return (None, if now < settled { settled } else { over });
        }
        self.luck = mix(self.luck);
        interest.not_before = now + Duration::from_millis(50 + self.luck % 200);
        self.changed.insert(address);
        (Some(Decision::Withdraw(address)), Moment::NEVER)
    }
}

impl Interest {
    fn ranking(&self, me: NodeId, sight: &Sight) -> Vec<NodeId> {
        rank(&self.request, |node| node == me || sight.live().contains(&node), self.last_holder)
    }

    fn cause(&self, me: NodeId, sight: &Sight) -> Cause {
        match self.last_holder.or(self.request.previous) {
            None => Cause::First,
            Some(node) if node == me => Cause::Resumed,
            Some(node) if sight.live().contains(&node) => Cause::Abandoned,
            Some(_) => Cause::Takeover,
        }
    }
}
