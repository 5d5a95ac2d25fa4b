//! Owns how an address moves on purpose: its holder and its target get ready, then one releases it and the other asks.

use std::net::IpAddr;

use super::{Node, Stay};
use crate::event::{Cause, Output};
use crate::handover::hands;
use crate::message::{Hand, Stage, Step};
use crate::name::NodeId;

impl Node {
    pub(super) fn ready(&mut self, address: IpAddr) {
        let awaited = self.owner.hold(&address).is_some() || self.handovers.is_coming(&address);
        if !awaited {
            self.out.push(Output::Discard { address });
            return;
        }
        self.serving.prepared(address);
        self.arm(address);
        self.say_ready(address);
    }

    fn say_ready(&mut self, address: IpAddr) {
        if let Some(holder) =
            self.handovers.expected_by(&address).filter(|_| self.serving.is_prepared(&address))
        {
            for hand in hands(Step::Ready, &[address]) {
                self.out.hand(holder, hand);
            }
        }
    }

    /// Moves an address if another node can take it. One that says it is about to leave as well cannot.
    pub(super) fn hand_over(&mut self, address: IpAddr) {
        let keeps = self.keeps(address);
        let fit =
            |node| (!keeps || self.handovers.is_fit(address, node)) && !self.voter.is_leaving(node);
        let to = self.claims.best_other(address, &self.sight, fit);
        if let Some(to) = to.filter(|_| self.may_go(address)) {
            self.handovers.begin(self.now, address, to, keeps);
            self.hurry();
        }
    }

    /// Moves an address if another node had better have it.
    pub(super) fn hand_over_to_a_better_one(&mut self, address: IpAddr) {
        let fit =
            |node| self.handovers.is_fit(address, node) && !self.handovers.is_from(&address, node);
        let to = self.claims.better(address, &self.sight, fit);
        if let Some(to) = to.filter(|_| self.may_go(address)) {
            self.handovers.offer(self.now, address, to);
            self.hurry();
        }
    }

    /// Whether a move may begin.
    fn may_go(&self, address: IpAddr) -> bool {
        let held = self.owner.hold(&address).is_some_and(|hold| hold.stage == Stage::Held);
        held && !self.handovers.is_going(&address) && self.sight.is_clear()
    }

    /// Whether this node may go on with an address if nobody takes it.
    pub(super) fn keeps(&self, address: IpAddr) -> bool {
        self.stay == Stay::Here && self.claims.may_have(address)
    }

    pub(super) fn handed(&mut self, from: NodeId, hand: &Hand) {
        for address in &hand.addresses {
            let (may, hold) = (self.claims.may_have(*address), self.owner.hold(address));
            match hand.step {
                Step::Ready => self.handovers.ready(from, *address),
                Step::Prepare if may && hold.is_none() && self.stay == Stay::Here => {
                    if self.handovers.expected_by(address).is_none()
                        && !self.serving.is_prepared(address)
                    {
                        let cause = Cause::Handover;
                        self.out.push(Output::Prepare { address: *address, cause });
                    }
                    self.handovers.expect(self.now, *address, from);
                    self.say_ready(*address);
                }
                Step::Take => self.take(*address),
                Step::Prepare => {}
            }
        }
    }

    /// Asks without patience for what another node has released.
    pub(super) fn take(&mut self, address: IpAddr) {
        let free = self.claims.may_have(address) && self.owner.hold(&address).is_none();
        if free && self.standing.is_some() && self.stay == Stay::Here {
            self.handovers.take(self.now, address);
            self.claim(address, Cause::Handover);
        }
    }
}
