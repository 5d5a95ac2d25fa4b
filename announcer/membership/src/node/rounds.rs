//! Owns what follows on this node once an event was taken: claims, moves, heartbeats, proposals, leaving.

use std::collections::BTreeSet;
use std::time::Duration;

use super::Node;
use crate::claims::Decision;
use crate::event::{Loss, Output};
use crate::handover::URGENT_EVERY;
use crate::message::{Message, Stage};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::proposal::{OTHERS_AFTER, Situation, propose};
use crate::view::Voters;

/// How long leaving may take.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);
/// How often one turn may go round: each round follows from the one before on this node alone.
const ROUNDS: usize = 8;

impl Node {
    /// Follows up until nothing on this node follows from anything.
    pub(super) fn settle(&mut self) {
        for _ in 0..ROUNDS {
            let Some(standing) = &self.standing else { return };
            if self.left {
                return;
            }
            self.voter.sweep(self.now);
            if self.sight.refresh(self.now, standing.view()) {
                self.claims.note_all();
            }
            self.claims.note(self.sight.take_changed());
            for decision in self.claims.decide(self.now, &self.sight, &self.owner) {
                match decision {
                    Decision::Claim(address, cause) if self.leaving.is_none() => {
                        self.claim(address, cause)
                    }
                    Decision::Claim(..) => {}
                    Decision::Withdraw(address) => self.release(address, Loss::Dropped),
                }
            }
            self.move_on();
            if self.now < self.next_beat && self.now < self.retry_at {
                return;
            }
            self.beat();
        }
    }

    /// Takes planned moves a step further.
    fn move_on(&mut self) {
        for address in std::mem::take(&mut self.doubtful) {
            let Some(stage) = self.owner.hold(&address).map(|hold| hold.stage) else { continue };
            let stays = self.leaving.is_none() && self.claims.may_have(address);
            if stays || self.handovers.is_going(&address) {
                continue;
            }
            self.hand_over(address);
            if stage == Stage::Claim || !self.handovers.is_going(&address) {
                self.release(address, Loss::Dropped);
            }
        }
        for (address, to) in self.handovers.due(self.now) {
            if self.sight.live().contains(&to) {
                self.release(address, Loss::HandedOver { to });
                self.claims.gave(self.now, address, Some(to));
                self.handovers.give(self.now, address, to);
            } else {
                self.handovers.cancel(&address);
                self.doubtful.insert(address);
            }
        }
        let (sight, owner) = (&self.sight, &self.owner);
        let taken = |address| sight.others(address, Stage::Held).next().is_some();
        let claimed = |address| owner.hold(&address).is_some_and(|hold| hold.stage == Stage::Claim);
        for address in self.handovers.tidy(self.now, taken, claimed) {
            if self.owner.hold(&address).is_none() && self.prepared.remove(&address) {
                self.out.push(Output::Discard { address });
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
        let every =
            if self.handovers.is_urgent() { URGENT_EVERY } else { self.parameters.heartbeat };
        self.last_beat = self.now;
        self.next_beat = self.soon(self.now + every);
        self.retry_at = Moment::NEVER;
        let votes = targets.remove(&self.me);
        targets.into_iter().for_each(|to| self.beat_to(to));
        for (to, hand) in self.handovers.messages() {
            self.send(to, &Message::Hand(hand));
        }
        if votes {
            self.beat_here();
        }
        self.propose();
        self.leave();
    }

    pub(super) fn beat_to(&mut self, to: NodeId) {
        let Some(standing) = &self.standing else { return };
        let (reports, leaving) = (self.sight.version(to), self.leaving.is_some());
        for heartbeat in self.owner.heartbeat(self.now, to, standing, reports, leaving) {
            self.send(to, &Message::Heartbeat(heartbeat));
        }
    }

    fn beat_here(&mut self) {
        let Some(standing) = &self.standing else { return };
        self.voter.heard(self.now, self.me);
        let (reports, leaving) = (self.sight.version(self.me), self.leaving.is_some());
        let heartbeats = self.owner.heartbeat(self.now, self.me, standing, reports, leaving);
        for ack in heartbeats
            .iter()
            .flat_map(|heartbeat| self.answer(self.me, heartbeat))
            .collect::<Vec<_>>()
        {
            self.acknowledge(self.me, &ack);
        }
    }

    fn propose(&mut self) {
        let Some(standing) = &self.standing else { return };
        let answered = standing.view().voters().nodes().iter().copied();
        let situation = Situation {
            now: self.now,
            me: self.me,
            parameters: &self.parameters,
            standing,
            contacts: self.voter.contacts(),
            answered: answered
                .filter_map(|voter| Some((voter, self.owner.heard(voter)?)))
                .collect(),
            since: self.started.max(self.adopted),
            leaving: self.leaving.is_some(),
        };
        let Some(proposal) = propose(&situation) else {
            self.wanted_since = None;
            return;
        };
        let since = *self.wanted_since.get_or_insert(self.now);
        let from_epoch = standing.epoch();
        if self.proposing.is_none() && (proposal.first || self.now.since(since) >= OTHERS_AFTER) {
            self.proposing = Some(from_epoch);
            self.out.push(Output::ProposeView { from_epoch, view: proposal.view });
        }
    }

    pub(super) fn propose_these(&mut self, voters: Voters) {
        let Some(standing) = self.standing.as_ref().filter(|standing| standing.votes()) else {
            return;
        };
        let from_epoch = standing.epoch();
        if self.proposing.is_none()
            && let Some(view) = standing.next(voters)
        {
            self.proposing = Some(from_epoch);
            self.out.push(Output::ProposeView { from_epoch, view });
        }
    }

    /// Leaves once everything is handed over and the view does without this node.
    fn leave(&mut self) {
        let (Some(since), Some(standing)) = (self.leaving, &self.standing) else { return };
        let alone = self.sight.live().iter().all(|node| *node == self.me);
        let outside = !standing.votes() && standing.is_active();
        let empty = self.owner.holds().next().is_none() && !self.handovers.is_giving();
        if self.now.since(since) >= LEAVE_WITHIN || (empty && (alone || outside)) {
            let held: Vec<_> = self.owner.holds().map(|(address, _)| address).collect();
            held.into_iter().for_each(|address| self.release(address, Loss::Dropped));
            self.left = true;
            self.out.push(Output::Left);
        }
    }
}
