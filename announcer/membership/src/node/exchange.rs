//! Owns what a node makes of what others say: who said it, when and to whom, and what is answered.

use std::time::Duration;

use super::{Node, Stay};
use crate::decode::Opened;
use crate::dialect::Said;
use crate::event::Output;
use crate::message::{Ack, Condition, Heartbeat, Message};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::wire::{DatagramError, Tongue};

impl Node {
    pub(super) fn message(&mut self, opened: &Opened) {
        let Opened { from, tongue, message, .. } = opened;
        let (from, tongue) = (*from, *tongue);
        // Before its own read of the view a node is no part of anything.
        let there = self.stay != Stay::Left;
        let Some(standing) = self.standing.as_ref().filter(|_| there) else { return };
        if message.stands().is_some_and(|(view, _)| !view.goes_with(standing.view())) {
            self.out.push(Output::Refused(DatagramError::OtherMembers(from)));
            return;
        }
        let said = self.said(from, message);
        if let Err(error) = self.out.dialect().takes(self.now, from, tongue.version, said) {
            return match message {
                Message::Heartbeat(heartbeat) if said == Said::Elsewhere => {
                    self.greet(from, tongue, heartbeat);
                }
                _ => self.out.push(Output::Refused(error)),
            };
        }
        if said == Said::Now {
            self.hear(from, tongue, message);
        }
        // What was said to another run may tell of a view that has been taken away since, with all that stood in it.
        if let Some((view, active)) = message.stands().filter(|_| said != Said::Elsewhere) {
            self.witness(from, view, active);
        }
        match message {
            Message::Heartbeat(heartbeat) => {
                for ack in self.answer(from, heartbeat, said) {
                    self.out.answer(from, tongue, ack);
                }
            }
            Message::Ack(ack) => self.acknowledge(from, ack),
            Message::Hand(hand) => self.handed(from, hand),
        }
    }

    /// Who has not got the cookie yet gets it, and is listened to when it comes with that.
    fn greet(&mut self, from: NodeId, tongue: Tongue, heartbeat: &Heartbeat) {
        let Some(standing) = &self.standing else { return };
        let ack = self.voter.greeting(from, heartbeat, standing);
        self.out.answer(from, tongue, ack);
    }

    /// To whom a message was said, and when.
    fn said(&mut self, from: NodeId, message: &Message) -> Said {
        match message {
            Message::Heartbeat(heartbeat) => self.voter.said(from, heartbeat),
            Message::Ack(ack) if !self.owner.asked_for(ack) => Said::Elsewhere,
            Message::Ack(ack) if self.owner.is_news(from, ack) => Said::Now,
            Message::Ack(_) | Message::Hand(_) => Said::Here,
        }
    }

    fn hear(&mut self, from: NodeId, tongue: Tongue, message: &Message) {
        self.voter.heard(self.now, from);
        self.out.push(Output::Heard { node: from });
        if self.out.dialect().hear(self.now, from, tongue, message) {
            self.out.push(Output::Former { node: from });
        }
        if let Message::Heartbeat(heartbeat) = message {
            match tongue.is_marked() {
                true => self.voter.leaves(from, heartbeat.condition.leaving),
                false => self.voter.says(from, &heartbeat.condition),
            }
        }
    }

    pub(super) fn answer(&mut self, from: NodeId, heartbeat: &Heartbeat, said: Said) -> Vec<Ack> {
        let Some(standing) = &self.standing else { return Vec::new() };
        let local = from == self.out.me();
        self.voter.answer(self.now, from, heartbeat, said, standing, local)
    }

    pub(super) fn acknowledge(&mut self, from: NodeId, ack: &Ack) {
        let Some(standing) = &self.standing else { return };
        if !self.owner.asked_for(ack) {
            return;
        }
        let outcome = self.owner.acknowledge(self.now, from, ack, standing);
        self.sight.note(self.now, from, ack);
        if let Some(took) = outcome.took {
            self.pace.renewed(self.now, took);
        }
        if let Some(took) = outcome.took_one_more {
            self.pace.renewed_by_one_more(self.now, took);
        }
        for address in &outcome.won {
            self.claims.won(*address);
            if self.claims.moves(*address) {
                self.handovers.doubt([*address]);
            }
            self.out.push(Output::Granted { address: *address });
            self.hurry();
        }
        if outcome.ask_again {
            self.hurry();
        }
        if let Some(after) = outcome.retry_after {
            self.beats.retry(self.now, after, self.concerns());
        }
        if outcome.renewed {
            self.arm_all();
        }
        if outcome.behind && from != self.out.me() {
            self.beat_to(from);
        }
    }

    /// What this node says of itself.
    pub(super) fn condition(&self) -> Condition {
        let (leaving, lease) = (self.stay != Stay::Here, self.asks());
        Condition { leaving, deaf: self.is_deaf(), over: false, lease }
    }

    /// The lease that this node asks for, where it has a choice.
    pub(super) fn asks(&self) -> Option<Duration> {
        let view = self.standing.as_ref()?.view();
        self.pace.ask(view.bounds(), view.voters().nodes().len(), self.concerns())
    }

    /// Whether no majority answers this node though it asks. Who has just come, or stood still, has not asked for long enough.
    fn is_deaf(&self) -> bool {
        let Some(standing) = &self.standing else { return false };
        let patience = self.parameters.suspicion_of(self.asks());
        let lately = |last: Moment| self.now.since(last) <= patience;
        let (voters, since) = (standing.view().voters(), self.proposer.since());
        let answers = |voter: &&NodeId| {
            let last = self.owner.heard(**voter).unwrap_or_default();
            **voter == self.out.me() || lately(last.max(since))
        };
        let answering = voters.nodes().iter().filter(answers).count();
        answering < voters.majority() && lately(self.beats.last())
    }

    /// For each voter the datagram that tells it that this run has ended and that the kernel answers for nothing any more, so
    /// that its promises need not be waited out. Whoever outlives this process may send it, once that is so and never before:
    /// not while the process may arm the kernel again.
    ///
    /// It changes with the view and with voters that start; one that is out of date does nothing.
    pub fn farewells(&self) -> Vec<(NodeId, Vec<u8>)> {
        let Some(standing) = &self.standing else { return Vec::new() };
        let others = standing.view().voters().nodes().iter().filter(|to| **to != self.out.me());
        let farewell = |to: &NodeId| {
            let last = self.owner.last_heartbeat(*to, standing)?;
            Some((*to, self.out.farewell(*to, last)?))
        };
        others.filter_map(farewell).collect()
    }

    /// How long a lease this node asks for.
    pub fn lease(&self) -> Duration {
        self.asks().unwrap_or(self.parameters.lease)
    }
}
