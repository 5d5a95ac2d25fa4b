//! Owns what a node makes of what others say: who said it, when and to whom, and what is answered.

use super::{Node, Stay};
use crate::decode::Opened;
use crate::dialect::Said;
use crate::event::Output;
use crate::message::{Ack, Heartbeat, Message};
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
            // It comes again until it is answered.
            if self.is_to_be_kept(view) {
                return;
            }
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
}
