//! Owns what follows on this node once an event was taken: claims, moves, heartbeats, proposals, leaving.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Node, Stay};
use crate::claims::Decision;
use crate::event::{Loss, Output};
use crate::message::{Condition, Stage};
use crate::name::NodeId;
use crate::proposal::Seen;

/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// How often one turn may go round: each round follows from the one before on this node alone.
const ROUNDS: usize = 8;

impl Node {
    /// The voters that have not answered this node for at least so long, since it stands in their view.
    pub fn unheard(&self, age: Duration) -> impl Iterator<Item = NodeId> {
        let voters = self.standing.iter().flat_map(|standing| standing.view().voters().nodes());
        let long_ago = move |voter: &NodeId| {
            let last = self.owner.heard(*voter).unwrap_or_default().max(self.proposer.since());
            self.now.since(last) >= age
        };
        voters.copied().filter(|voter| *voter != self.out.me()).filter(long_ago)
    }

    /// Follows up until nothing on this node follows from anything.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let Some(standing) = &self.standing else { return };
            if self.stay == Stay::Left {
                return;
            }
            self.voter.sweep(self.now);
            if self.sight.refresh(self.now, standing.view()) {
                self.claims.note_all();
                let held = self.owner.holds().map(|(address, _)| address);
                let moving = held.filter(|address| self.claims.moves(*address));
                self.handovers.doubt(moving);
            }
            self.claims.note(self.sight.take_changed());
            for decision in self.claims.decide(self.now, &self.sight, &self.owner) {
                match decision {
                    Decision::Claim(address, cause) if self.stay == Stay::Here => {
                        self.claim(address, cause)
                    }
                    Decision::Claim(..) => {}
                    Decision::Withdraw(address) => self.release(address, Loss::Dropped),
                }
            }
            self.move_on();
            if self.now < self.beats.due() {
                return;
            }
            self.beat();
        }
    }

    /// Takes planned moves a step further.
    fn move_on(&mut self) {
        self.handovers.forgive(self.now);
        for address in self.handovers.take_doubtful() {
            let Some(stage) = self.owner.hold(&address).map(|hold| hold.stage) else { continue };
            if self.keeps(address) {
                match self.claims.moves(address) {
                    true => self.hand_over_to_a_better_one(address),
                    false => self.handovers.take_back(&address),
                }
                continue;
            }
            if self.handovers.is_going(&address) {
                self.handovers.hasten(self.now, address);
                continue;
            }
            self.hand_over(address);
            if stage == Stage::Claim || !self.handovers.is_going(&address) {
                self.release(address, Loss::Dropped);
            }
        }
        for (address, to, is_ready) in self.handovers.due(self.now) {
            let (is_live, keeps) = (self.sight.live().contains(&to), self.keeps(address));
            match (is_live, is_ready || !keeps) {
                (true, true) => {
                    self.release(address, Loss::HandedOver { to });
                    self.claims.gave(self.now, address, to);
                    self.handovers.give(self.now, address, to);
                    continue;
                }
                (true, false) => self.handovers.fail(self.now, address, to),
                (false, _) => self.handovers.cancel(&address),
            }
            self.handovers.doubt([address]);
        }
        let (sight, owner) = (&self.sight, &self.owner);
        let taken = |address| sight.others(address, Stage::Held).next().is_some();
        let claimed = |address| owner.hold(&address).is_some_and(|hold| hold.stage == Stage::Claim);
        for address in self.handovers.tidy(self.now, taken, claimed) {
            if self.owner.hold(&address).is_none() {
                self.out.extend(self.serving.discard(address));
            }
        }
    }

    /// Sends a heartbeat to every voter, and takes this node's own.
    fn beat(&mut self) {
        let Some(standing) = &self.standing else { return };
        let view = standing.view();
        let mut targets: BTreeSet<NodeId> = view.voters().nodes().iter().copied().collect();
        if !standing.is_active() {
            targets.extend(view.previous().iter().flat_map(|set| set.nodes()));
        }
        self.pace.roll(self.now);
        self.pace.concerns(self.concerns());
        let (condition, usual) = (self.condition(), self.parameters.heartbeat_of(self.lease()));
        let next = self.handovers.urgency().unwrap_or(usual);
        self.beats.beat(self.now, next, self.concerns());
        let votes = targets.remove(&self.out.me());
        targets.into_iter().for_each(|to| self.say_to(to, condition));
        for (to, hand) in self.handovers.messages() {
            self.out.hand(to, hand);
        }
        if votes {
            self.beat_here(condition);
        }
        self.propose();
        self.leave();
    }

    fn beat_here(&mut self, condition: Condition) {
        let Some(standing) = &self.standing else { return };
        let me = self.out.me();
        self.voter.heard(self.now, me);
        self.voter.says(me, &condition);
        let reports = self.sight.version(me);
        for heartbeat in self.owner.heartbeat(self.now, me, standing, reports, condition) {
            let said = self.voter.said(me, &heartbeat);
            for ack in self.answer(me, &heartbeat, said) {
                self.acknowledge(me, &ack);
            }
        }
    }

    fn propose(&mut self) {
        let Some(standing) = &self.standing else { return };
        let answered = standing.view().voters().nodes().iter().copied();
        let seen = Seen {
            now: self.now,
            me: self.out.me(),
            standing,
            contacts: self.voter.contacts(),
            answered: answered
                .filter_map(|voter| Some((voter, self.owner.heard(voter)?)))
                .collect(),
            // First things are handed over: claims wait for long when a view has become active.
            leaving: self.stay != Stay::Here && self.is_empty(),
        };
        self.out.extend(self.proposer.turn(&seen));
    }

    /// Whether this node has nothing, and is giving nothing to anybody.
    fn is_empty(&self) -> bool {
        self.owner.holds().next().is_none() && !self.handovers.is_giving()
    }

    /// Leaves once everything is handed over and the view does without this node, if it ever will.
    fn leave(&mut self) {
        let Stay::Leaving { since } = self.stay else { return };
        let Some(standing) = &self.standing else {
            // Before there was a view nothing can be held.
            self.stay = Stay::Left;
            return self.out.push(Output::Left);
        };
        let alone = self.sight.live().iter().all(|node| *node == self.out.me());
        // A list of members stays as it is, whoever of them is away.
        let outside = standing.view().is_fixed() || !standing.votes() && standing.is_active();
        if self.now.since(since) >= LEAVE_WITHIN || (self.is_empty() && (alone || outside)) {
            let held: Vec<_> = self.owner.holds().map(|(address, _)| address).collect();
            held.into_iter().for_each(|address| self.release(address, Loss::Dropped));
            self.stay = Stay::Left;
            self.out.push(Output::Left);
        }
    }
}
