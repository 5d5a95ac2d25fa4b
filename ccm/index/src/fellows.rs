//! Owns by which hardware addresses nodes of this cluster answer ([`berth_api::host`]), and for how long one of them is said
//! to be another host that has an address: a node that is busy may still answer for what the next one asks for, and is
//! silent soon. Only what lasts is an address that somebody else has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::conflict::Mac;

use crate::claimant::Id;

/// For so long a node of this cluster may answer for an address that is not its to have: longer than its kernel holds what
/// its announcer no longer renews.
pub(super) const LASTS: Duration = Duration::from_secs(30);

/// After so long without a look nobody waits any more.
const FORGOTTEN: Duration = Duration::from_secs(600);

/// The nodes, and what waits for them.
#[derive(Clone, Debug, Default)]
pub(super) struct Fellows {
    macs: BTreeMap<String, BTreeSet<Mac>>,
    /// Since when one of them answers, and when that was last looked at.
    waiting: BTreeMap<(Id, IpAddr), [Duration; 2]>,
}

impl Fellows {
    /// Takes in the hardware addresses of a node, none when its Lease is gone.
    pub(super) fn meet(&mut self, node: &str, macs: BTreeSet<Mac>) {
        match macs.is_empty() {
            true => _ = self.macs.remove(node),
            false => _ = self.macs.insert(node.to_owned(), macs),
        }
    }

    /// The node that answers by this.
    pub(super) fn node(&self, mac: Mac) -> Option<&str> {
        self.macs.iter().find(|(_, macs)| macs.contains(&mac)).map(|(node, _)| node.as_str())
    }

    /// Until when a claimant keeps an address that a host with this hardware address answers for.
    pub(super) fn waits(
        &mut self,
        id: &Id,
        address: IpAddr,
        mac: Mac,
        now: Duration,
    ) -> Option<Duration> {
        self.node(mac)?;
        self.waiting.retain(|_, [_, last]| now < *last + FORGOTTEN);
        let [since, last] = self.waiting.entry((id.clone(), address)).or_insert([now; 2]);
        *last = now;
        Some(*since + LASTS).filter(|until| now < *until)
    }

    /// No host answers for any of the others.
    pub(super) fn keep(&mut self, id: &Id, answered: &BTreeSet<IpAddr>) {
        self.waiting.retain(|(of, address), _| of != id || answered.contains(address));
    }
}
