//! How this node leaves: it releases everything, or all stays for the next process.

use std::time::Instant;

use super::Announcer;
use crate::advertise::bgp::{Answer, Ending};
use crate::config::LOOPBACK;
use crate::kernel::Kernel;
use crate::ownership::Ownership;

impl<K: Kernel> Announcer<K> {
    /// Releases everything: from now on each round takes off what is held and gives back what is free of it. But for a restart
    /// where routers go by it: then what they lead here stays as it is.
    pub fn leave(&mut self, asked: &Answer, now: Instant) {
        let ending = self.ending(asked);
        if let (Some(routed), Some(ending)) = (&mut self.routed, ending) {
            tracing::info!("this stop is a {ending}");
            self.pauses = ending == Ending::Restart;
            routed.leave(ending, now);
        }
        if self.pauses && !self.config.is_mixed() {
            // The Node keeps its labels.
            std::mem::forget(self.outlets.labels.take());
        }
        self.leaving = true;
        let leave = self.owners.iter_mut().filter(|owner| !self.pauses || !owner.is_routed());
        leave.for_each(Ownership::leave);
    }

    /// Whether what routers lead here stays for the next process.
    pub fn pauses(&self) -> bool {
        self.pauses
    }

    /// Whether all has been released that does not stay.
    pub fn has_left(&self) -> bool {
        let leave = || self.owners.iter().filter(|owner| !self.pauses || !owner.is_routed());
        self.leaving && leave().all(Ownership::has_left) && self.is_free()
    }

    /// Whether nothing is bound that does not stay, and what was is silent.
    fn is_free(&self) -> bool {
        if !self.pauses {
            return self.is_bare();
        }
        let host = &self.sight.host;
        let stays = |index| host.interfaces.get(LOOPBACK).is_some_and(|lo| lo.index == index);
        let is_bare = || host.made.is_empty() && host.ours.keys().all(|own| stays(own.index));
        !self.config.is_mixed() || self.is_silent() && is_bare()
    }

    /// What the stop is, where routers go by it; nothing where they do not.
    fn ending(&self, asked: &Answer) -> Option<Ending> {
        let routed = self.routed.as_ref()?;
        // Of routers that the life before spoke to nothing is known yet.
        let keeps = routed.told().survives() || routed.waits();
        let node = &self.config.core.node;
        Some(Ending::of(asked, node, self.sight.nodes.peers.get(node), keeps))
    }
}
