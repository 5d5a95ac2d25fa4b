//! Owns how long those are waited for that leave an address, and those that hold one and are not to be seen.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::Owner;

use crate::claimant::Id;

/// How long a release waits for the announcer, and an orphaned claim for its owner to show up.
pub(super) const PATIENCE: Duration = Duration::from_secs(3);

/// How long an address rests at least whose node never said that it let go of it. A node that hears nothing more, or is
/// heard of no more, stops answering when its ownership runs out: after 350 ms at most where membership decides, after 15 s at
/// the latest where a Lease does (the default of kube-vip and of Kubernetes).
pub(super) const SILENT: Duration = Duration::from_secs(15);

/// Who leaves, and since when.
#[derive(Clone, Debug, Default)]
pub(super) struct Departures {
    /// Since when a release waits for the announcer.
    leaving: BTreeMap<Id, Duration>,
    /// Since when the holder of a claim is not to be seen.
    loose: BTreeMap<(IpAddr, Owner), Duration>,
    /// The same in the order of time.
    by_time: BTreeSet<(Duration, IpAddr, Owner)>,
    /// Since when an address that a claimant moved away from waits for the announcer.
    moved: BTreeMap<(IpAddr, Id), Duration>,
    /// Elastic IPs that are given back although their node has not let go of them.
    unheard: BTreeSet<(IpAddr, Owner)>,
}

impl Departures {
    /// The claimant gives back all that it holds. Returns until when the announcer is waited for.
    pub(super) fn leave(&mut self, id: Id, now: Duration) -> Duration {
        *self.leaving.entry(id).or_insert(now) + PATIENCE
    }

    /// Whether the claimant gives back what it held.
    pub(super) fn is_leaving(&self, id: &Id) -> bool {
        self.leaving.contains_key(id)
    }

    /// The claimant does not leave, or has nothing left to give back.
    pub(super) fn stay(&mut self, id: &Id) {
        self.leaving.remove(id);
    }

    /// The holder of a claim is not to be seen. Returns when to look again if it showed up.
    pub(super) fn loosen(&mut self, address: IpAddr, owner: Owner, now: Duration) -> Duration {
        let key = (address, owner);
        if !self.loose.contains_key(&key) {
            self.by_time.insert((now, key.0, key.1.clone()));
            self.loose.insert(key, now);
        }
        now + PATIENCE
    }

    /// The holder of a claim has shown up, or holds it no more.
    pub(super) fn tie(&mut self, address: IpAddr, owner: Owner) {
        let key = (address, owner);
        if let Some(since) = self.loose.remove(&key) {
            self.by_time.remove(&(since, key.0, key.1));
        }
    }

    /// The holders of claims that have not shown up in time.
    pub(super) fn lost(&self, now: Duration) -> impl Iterator<Item = (IpAddr, &Owner)> {
        let lost = self.by_time.iter().take_while(move |(since, ..)| *since + PATIENCE <= now);
        lost.map(|(_, address, owner)| (*address, owner))
    }

    /// The claimant has moved away from the address. Returns until when the announcer is waited for.
    pub(super) fn move_away(&mut self, address: IpAddr, id: Id, now: Duration) -> Duration {
        *self.moved.entry((address, id)).or_insert(now) + PATIENCE
    }

    /// The claimant is gone, or holds the address no more: nobody waits for its announcer.
    pub(super) fn moved(&mut self, address: IpAddr, id: Id) {
        self.moved.remove(&(address, id));
    }

    /// The address is given back although its node has not let go of it.
    pub(super) fn unheard(&mut self, address: IpAddr, owner: Owner) {
        self.unheard.insert((address, owner));
    }

    /// The owner does not hold the address any more. Returns whether its node has not let go of it.
    pub(super) fn left(&mut self, address: IpAddr, owner: &Owner) -> bool {
        self.tie(address, owner.clone());
        self.moved(address, Id::from(owner));
        self.unheard.remove(&(address, owner.clone()))
    }
}
