//! How this node leaves: it releases everything, or all stays for the next process.

use std::time::Instant;

use super::Announcer;
use crate::advertise::bgp::{Answer, Ending};
use crate::kernel::Kernel;
use crate::ownership::Ownership;

impl<K: Kernel> Announcer<K> {
    /// Releases everything: from now on each round takes off what is held and gives back what is free of it. But for a restart
    /// where routers go by it: then all stays as it is. Gives what the stop is, where they do.
    pub fn leave(&mut self, asked: &Answer, now: Instant) -> Option<Ending> {
        let ending = self.ending(asked);
        if let (Some(routed), Some(ending)) = (&mut self.routed, &ending) {
            tracing::info!("this stop is a {ending}");
            routed.leave(ending.clone(), now);
            if *ending == Ending::Restart {
                // The Node keeps its labels.
                std::mem::forget(self.outlets.labels.take());
                return Some(Ending::Restart);
            }
        }
        self.leaving = true;
        self.owners.iter_mut().for_each(Ownership::leave);
        ending
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
