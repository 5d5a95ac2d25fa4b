//! Owns who holds which address. No address ever has two holders unless their ports are disjoint, and none that was
//! held is handed out again before it has rested.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasherDefault;
use std::net::IpAddr;
use std::time::Duration;

use crate::free::Free;
use crate::grant::{Claim, Grant, Owner, Tally};
use crate::keys::KeyError;
use crate::pools::Pools;
use crate::range::Range;
use crate::selections::Selections;
use crate::set::AddressSet;
use crate::sharers::{Sharers, Together};
use crate::statuses::Statuses;

/// Hashes the same on every run. Iteration over such a map never reaches an answer.
type Fixed = BuildHasherDefault<DefaultHasher>;

/// The pools, and every address that is held, rests or is reserved.
///
/// It records facts and never decides: [`crate::allocate`] decides, the caller makes the claim in the cluster and
/// then records it here with [`Ledger::insert`].
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    pub(crate) pools: Pools,
    pub(crate) free: Free,
    pub(crate) sharers: Sharers,
    pub(crate) selections: Selections,
    pub(crate) claims: BTreeMap<IpAddr, Claim>,
    held: HashMap<Owner, BTreeSet<IpAddr>, Fixed>,
    pub(crate) by_namespace: Tally,
    pub(crate) resting: BTreeMap<IpAddr, Rest>,
    pub(crate) resting_in: Tally,
    /// What rests, by who held it last, without uid.
    pub(crate) rested_by: BTreeMap<Owner, BTreeSet<IpAddr>>,
    by_release: BTreeSet<(Duration, IpAddr)>,
    pub(crate) reservations: BTreeMap<String, AddressSet>,
    pub(crate) reserved: AddressSet,
    /// Addresses that are not handed out for a while, unless somebody asks for them by name.
    pub(crate) aside: BTreeMap<IpAddr, Aside>,
    /// The same, by the namespace that caused it.
    pub(crate) aside_in: BTreeMap<String, BTreeSet<IpAddr>>,
    pub(crate) statuses: Statuses,
    /// Addresses of pools that nobody holds and a status shows.
    pub(crate) loose: BTreeSet<IpAddr>,
}

/// An address that something outside of the cluster has.
#[derive(Clone, Debug)]
pub(crate) struct Aside {
    until: Duration,
    pub(crate) namespace: String,
}

/// An address that was released.
#[derive(Clone, Debug)]
pub(crate) struct Rest {
    since: Duration,
    pub(crate) owner: Owner,
}

/// Somebody else holds the address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is held by {}", names(.holders))]
pub struct Conflict {
    /// The address.
    pub address: IpAddr,
    /// Its holders that are in the way.
    pub holders: Vec<Owner>,
}

/// The names of owners, for a message: the first three, as thousands may share an address.
pub fn names(owners: &[Owner]) -> String {
    let first: Vec<String> = owners.iter().take(3).map(Owner::to_string).collect();
    match owners.len() - first.len() {
        0 => first.join(", "),
        rest => format!("{} and {rest} more", first.join(", ")),
    }
}

impl Ledger {
    /// No pools, no holders.
    pub fn new() -> Self {
        Self::default()
    }

    /// The pools as they are now.
    pub fn pools(&self) -> &Pools {
        &self.pools
    }

    /// [`Pools::update`], after which everything free follows the new pools. Nothing that is held changes.
    pub fn update_pools(&mut self, data: &BTreeMap<String, String>) -> Vec<KeyError> {
        let before = self.pools.clone();
        let errors = self.pools.update(data);
        if self.pools != before {
            self.rebuild();
        }
        errors
    }

    /// Records that the owner holds the address, together with its ports and pool if it held it already.
    ///
    /// It takes what the cluster says: an address outside every pool, reserved, resting or draining as well. The DHCP
    /// markers `0.0.0.0` and `::` are nobody's and are not recorded.
    ///
    /// # Errors
    /// When another owner holds the address and the two do not fit together; nothing changes then.
    pub fn insert(&mut self, address: IpAddr, grant: Grant) -> Result<(), Conflict> {
        if address.is_unspecified() {
            return Ok(());
        }
        if let Some(claim) = self.claims.get(&address) {
            let holders = claim.in_the_way(&grant.owner, grant.sharing.as_ref());
            if !holders.is_empty() {
                return Err(Conflict { address, holders });
            }
            self.unindex(address);
        } else {
            self.unrest(address);
            self.loose.remove(&address);
            self.free.take(address.into());
            if let Some(region) = self.free.locate(address) {
                self.free.region_mut(region).used += 1;
            }
        }
        let claim = self.claims.entry(address).or_default();
        if !claim.holds_for(&grant.owner.namespace) {
            self.by_namespace.add(&grant.owner.namespace);
        }
        match self.held.get_mut(&grant.owner) {
            Some(addresses) => _ = addresses.insert(address),
            None => _ = self.held.insert(grant.owner.clone(), [address].into()),
        }
        claim.put(grant);
        self.index(address);
        Ok(())
    }

    /// The owner gives the address back. If nobody else holds it, it rests from `now` for the reuse delay.
    ///
    /// Returns whether the owner held it.
    pub fn release(&mut self, owner: &Owner, address: IpAddr, now: Duration) -> bool {
        let was_held = self.remove(owner, address);
        if was_held && !self.claims.contains_key(&address) {
            self.put_to_rest(address, owner.clone(), now);
            self.advance(now);
        }
        was_held
    }

    /// Takes an insert back that never became a claim in the cluster: the address is free again at once.
    ///
    /// Returns whether the owner held it.
    pub fn forget(&mut self, owner: &Owner, address: IpAddr) -> bool {
        let was_held = self.remove(owner, address);
        if was_held && !self.claims.contains_key(&address) {
            self.restore(address.into());
        }
        was_held
    }

    /// Records that the address rests since a release that happened before this ledger was made.
    pub fn rest(&mut self, address: IpAddr, owner: Owner, since: Duration) {
        if !self.claims.contains_key(&address) {
            self.free.take(address.into());
            self.unrest(address);
            self.put_to_rest(address, owner, since);
        }
    }

    /// What rests: the address, who held it last, and since when; first what has rested longest.
    pub fn rests(&self) -> impl DoubleEndedIterator<Item = (IpAddr, &Owner, Duration)> {
        self.by_release.iter().filter_map(|(since, address)| {
            Some((*address, &self.resting.get(address)?.owner, *since))
        })
    }

    /// Hands the address to nobody before `until`, whoever holds it or has held it: something outside of the cluster has
    /// it. Who asks for this very address gets it all the same. Until then it counts against the quota of `namespace`,
    /// whose owner had to get another.
    pub fn set_aside(&mut self, address: IpAddr, namespace: &str, until: Duration) {
        self.take_up(address);
        self.aside.insert(address, Aside { until, namespace: namespace.to_owned() });
        self.aside_in.entry(namespace.to_owned()).or_default().insert(address);
        self.free.take(address.into());
    }

    /// What is set aside, because of which namespace, and until when.
    pub fn asides(&self) -> impl Iterator<Item = (IpAddr, &str, Duration)> {
        self.aside.iter().map(|(address, aside)| (*address, aside.namespace.as_str(), aside.until))
    }

    /// Until when the address is set aside.
    pub fn aside(&self, address: IpAddr) -> Option<Duration> {
        self.aside.get(&address).map(|aside| aside.until)
    }

    /// The address is set aside no longer.
    fn take_up(&mut self, address: IpAddr) {
        let Some(Aside { namespace, .. }) = self.aside.remove(&address) else { return };
        forget(&mut self.aside_in, &namespace, address);
    }

    /// Frees what has rested, or was set aside, long enough. Returns how many addresses that are.
    pub fn advance(&mut self, now: Duration) -> usize {
        let over = self.aside.iter().filter(|(_, aside)| aside.until <= now);
        let over: Vec<IpAddr> = over.map(|(address, _)| *address).collect();
        for address in &over {
            self.take_up(*address);
            self.restore((*address).into());
        }
        let mut woken = over.len();
        while let Some((since, address)) = self.by_release.first().copied()
            && since.saturating_add(self.pools.reuse_delay()) <= now
        {
            self.unrest(address);
            self.restore(address.into());
            woken += 1;
        }
        woken
    }

    /// When [`Ledger::advance`] will next free something.
    pub fn next_rested(&self) -> Option<Duration> {
        let rested = self.by_release.first();
        let rested = rested.map(|(since, _)| since.saturating_add(self.pools.reuse_delay()));
        rested.into_iter().chain(self.aside.values().map(|aside| aside.until)).min()
    }

    /// Until when the address rests, and who held it last.
    pub fn resting(&self, address: IpAddr) -> Option<(Duration, &Owner)> {
        let rest = self.resting.get(&address)?;
        Some((rest.since.saturating_add(self.pools.reuse_delay()), &rest.owner))
    }

    /// Takes in a number for the pods that the owner leads to, where only nodes with one of them take its traffic. Returns
    /// whether it is news.
    pub fn select(&mut self, owner: &Owner, pods: Option<u64>) -> bool {
        self.selections.put(owner, pods)
    }

    /// Who holds the address.
    pub fn claim(&self, address: IpAddr) -> Option<&Claim> {
        self.claims.get(&address)
    }

    /// Every held address, IPv4 first, ascending.
    pub fn claims(&self) -> impl Iterator<Item = (IpAddr, &Claim)> {
        self.claims.iter().map(|(address, claim)| (*address, claim))
    }

    /// The addresses that the owner holds, IPv4 first, ascending.
    pub fn held(&self, owner: &Owner) -> impl Iterator<Item = IpAddr> + '_ {
        self.held.get(owner).into_iter().flatten().copied()
    }

    /// Whether the address may be handed out to one more sharer: not reserved, set aside, or one to avoid.
    pub(crate) fn is_offerable(&self, address: IpAddr) -> bool {
        let kept_back = self.reserved.contains(address) || self.aside.contains_key(&address);
        !kept_back && !self.free.is_buggy(address)
    }

    fn remove(&mut self, owner: &Owner, address: IpAddr) -> bool {
        if !self.held.get_mut(owner).is_some_and(|addresses| addresses.remove(&address)) {
            return false;
        }
        if self.held.get(owner).is_some_and(BTreeSet::is_empty) {
            self.held.remove(owner);
        }
        self.unindex(address);
        if let Some(claim) = self.claims.get_mut(&address) {
            claim.take(owner);
            if !claim.holds_for(&owner.namespace) {
                self.by_namespace.sub(&owner.namespace);
            }
            if claim.grants().is_empty() {
                self.claims.remove(&address);
                if self.statuses.has(address) {
                    self.loosen(address);
                }
                if let Some(region) = self.free.locate(address) {
                    self.free.region_mut(region).used -= 1;
                }
            }
        }
        self.index(address);
        true
    }

    /// A status shows the address, which nobody holds.
    pub(crate) fn loosen(&mut self, address: IpAddr) {
        if self.free.locate(address).is_some() {
            self.loose.insert(address);
        }
    }

    fn put_to_rest(&mut self, address: IpAddr, owner: Owner, since: Duration) {
        self.resting_in.add(&owner.namespace);
        self.rested_by.entry(owner.nameless()).or_default().insert(address);
        self.resting.insert(address, Rest { since, owner });
        self.by_release.insert((since, address));
        if let Some(region) = self.free.locate(address) {
            self.free.region_mut(region).resting += 1;
        }
    }

    fn unrest(&mut self, address: IpAddr) {
        let Some(rest) = self.resting.remove(&address) else { return };
        self.by_release.remove(&(rest.since, address));
        self.resting_in.sub(&rest.owner.namespace);
        forget(&mut self.rested_by, &rest.owner.nameless(), address);
        if let Some(region) = self.free.locate(address) {
            self.free.region_mut(region).resting -= 1;
        }
    }

    /// Frees what in the range is neither held nor reserved, resting, set aside or shown.
    pub(crate) fn restore(&mut self, range: Range) {
        self.free.give(range);
        let (first, last) = (range.first(), range.last());
        let held = self.claims.range(first..=last).map(|(address, _)| *address);
        let resting = self.resting.range(first..=last).map(|(address, _)| *address);
        let aside = self.aside.range(first..=last).map(|(address, _)| *address);
        let shown = self.statuses.within(first, last);
        let all = held.chain(resting).chain(aside).chain(shown);
        all.for_each(|address| self.free.take(address.into()));
        self.reserved.overlapping(range).for_each(|part| self.free.take(part));
    }

    /// Works out from the pools what is free, held and resting in each.
    fn rebuild(&mut self) {
        self.free = Free::new(&self.pools);
        self.reserved.iter().for_each(|range| self.free.take(range));
        self.aside.keys().for_each(|address| self.free.take((*address).into()));
        for address in self.resting.keys() {
            self.free.take((*address).into());
            if let Some(region) = self.free.locate(*address) {
                self.free.region_mut(region).resting += 1;
            }
        }
        let shown = self.statuses.addresses();
        let shown = shown.filter(|address| !self.claims.contains_key(address));
        let shown: Vec<IpAddr> = shown.collect();
        self.loose.clear();
        for address in shown {
            self.free.take(address.into());
            self.loosen(address);
        }
        self.sharers.clear();
        let held: Vec<IpAddr> = self.claims.keys().copied().collect();
        for address in held {
            self.free.take(address.into());
            if let Some(region) = self.free.locate(address) {
                self.free.region_mut(region).used += 1;
            }
            self.index(address);
        }
    }

    /// What the sharers of an address use together, if everyone there is in a namespace that allows sharing.
    fn joinable(&self, address: IpAddr) -> Option<Together> {
        let claim = self.claims.get(&address)?;
        let sharing = claim.combined()?;
        let namespaces = claim.namespaces();
        namespaces.iter().all(|namespace| self.pools.allows_sharing(namespace)).then(|| {
            let namespaces = namespaces.into_iter().map(str::to_owned).collect();
            Together { namespaces, sharing }
        })
    }

    fn index(&mut self, address: IpAddr) {
        if let Some(together) = self.joinable(address)
            && let Some(region) = self.free.locate(address)
        {
            self.sharers.insert(region, together, address);
        }
    }

    fn unindex(&mut self, address: IpAddr) {
        if let Some(together) = self.joinable(address)
            && let Some(region) = self.free.locate(address)
        {
            self.sharers.remove(region, &together, address);
        }
    }
}

/// Takes the address out of a set, and forgets a set that is empty.
fn forget<K: Ord>(sets: &mut BTreeMap<K, BTreeSet<IpAddr>>, key: &K, address: IpAddr) {
    if let Some(addresses) = sets.get_mut(key) {
        addresses.remove(&address);
        if addresses.is_empty() {
            sets.remove(key);
        }
    }
}
