//! Owns what a node says of itself, and to whom: whether it leaves, hears nobody, or has ended, and how long a lease it asks for.

use std::time::Duration;

use super::{Node, Stay};
use crate::message::Condition;
use crate::moment::Moment;
use crate::name::NodeId;

impl Node {
    /// A heartbeat to one voter.
    pub(super) fn beat_to(&mut self, to: NodeId) {
        self.say_to(to, self.condition());
    }

    pub(super) fn say_to(&mut self, to: NodeId, condition: Condition) {
        let Some(standing) = &self.standing else { return };
        let reports = self.sight.version(to);
        for heartbeat in self.owner.heartbeat(self.now, to, standing, reports, condition) {
            self.out.beat(self.now, to, heartbeat);
        }
        // Who is silent may be of another program by now, or it is this node that hears nobody; then it says that.
        if condition.deaf && self.out.says_less(self.now, to) {
            for heartbeat in self.owner.heartbeat(self.now, to, standing, reports, condition) {
                self.out.beat_in_full(to, heartbeat);
            }
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
