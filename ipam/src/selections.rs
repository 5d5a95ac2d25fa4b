//! Owns which pods Services lead to whose traffic only nodes with one of them take: one node answers for all who share an
//! address, so those of one set of pods alone are surely served together.

use std::collections::BTreeMap;

use crate::grant::{Claim, Owner, Sharing, TrafficPolicy};

/// By owner, a number for the pods that it leads to: the same for the same pods.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selections(BTreeMap<Owner, u64>);

impl Selections {
    /// Takes in what the owner leads to; none if that does not matter. Returns whether it is news.
    pub(crate) fn put(&mut self, owner: &Owner, pods: Option<u64>) -> bool {
        if self.0.get(owner).copied() == pods {
            return false;
        }
        match pods {
            Some(pods) => _ = self.0.insert(owner.clone(), pods),
            None => _ = self.0.remove(owner),
        }
        true
    }

    /// Whether one node can serve the owner together with all who hold the address, as far as that is known.
    pub(crate) fn together(&self, owner: &Owner, sharing: &Sharing, claim: &Claim) -> bool {
        let own = self.0.get(owner);
        let mut others = claim.owners().filter(|other| *other != owner);
        sharing.policy == TrafficPolicy::Cluster || others.all(|other| self.0.get(other) == own)
    }
}
