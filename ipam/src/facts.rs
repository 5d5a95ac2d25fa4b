//! Owns what can be said about pools and ledger to people: sizes, overlaps, and addresses that left their pool.
//! Changes nothing.

use std::net::IpAddr;

use crate::grant::Owner;
use crate::keys::Scope;
use crate::ledger::Ledger;
use crate::pools::{unusable, unusable_because};
use crate::range::{Family, Range};
use crate::request::Refusal;
use crate::set::AddressSet;

/// How full a pool is, in addresses of one family. A number above what `u128` holds counts as its maximum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Named by the keys of the pool.
    pub size: u128,
    /// Held by anyone.
    pub used: u64,
    /// Resting after a release, or while the status of one that does not hold them shows them.
    pub resting: u64,
    /// Could be handed out now.
    pub free: u128,
}

/// Addresses that belong to several pools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// The pools, in order; two or more.
    pub pools: Vec<Scope>,
    /// The addresses.
    pub addresses: AddressSet,
}

/// Addresses of a pool that are reserved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservedOverlap {
    /// The name of the reservation.
    pub reservation: String,
    /// The pools.
    pub pools: Vec<Scope>,
    /// The addresses.
    pub addresses: AddressSet,
}

/// An address that namespaces share which do not name each other, or do not all allow it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Crossing {
    /// The address.
    pub address: IpAddr,
    /// The namespaces, in order; two or more.
    pub namespaces: Vec<String>,
}

/// An address that was given from a pool which does not have it any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stray {
    /// The address.
    pub address: IpAddr,
    /// Its holder, which keeps it.
    pub owner: Owner,
    /// The pool it came from.
    pub pool: Scope,
}

impl Ledger {
    /// How full a pool is. Costs a step per region, not per address.
    pub fn usage(&self, scope: &Scope, family: Family) -> Usage {
        let mut usage = Usage::default();
        for id in self.free.members(scope, family) {
            let region = self.free.region(id);
            usage.size = usage.size.saturating_add(region.size);
            usage.used += region.used;
            usage.resting += region.resting;
        }
        usage.resting += self.loose_of(scope, family);
        let free = self.free.offers(scope, family).map(|id| self.free.region(id).free_count);
        usage.free = free.fold(0, u128::saturating_add);
        usage
    }

    /// Addresses that several pools would hand out or name.
    pub fn overlaps(&self) -> Vec<Overlap> {
        let mut overlaps: std::collections::BTreeMap<Vec<Scope>, AddressSet> = Default::default();
        for family in Family::ALL {
            for (range, id) in self.free.parts(Range::all(family)) {
                let members = &self.free.region(id).members;
                if members.len() > 1 {
                    overlaps.entry(members.clone()).or_default().insert(range);
                }
            }
        }
        overlaps.into_iter().map(|(pools, addresses)| Overlap { pools, addresses }).collect()
    }

    /// Reserved addresses that lie in pools, each once: several nodes may have one router. Of the reservations whose names
    /// `may_be_held` takes, what somebody holds is left out: a node that answers for an address lists it as its own.
    pub fn reserved_overlaps(&self, may_be_held: impl Fn(&str) -> bool) -> Vec<ReservedOverlap> {
        let mut told = AddressSet::new();
        let overlaps = self.reservations().filter_map(|(name, reserved)| {
            let mut news = reserved.clone();
            news.subtract(&told);
            if may_be_held(name) && self.overlap(name, news.iter()).is_some() {
                let held = self.claims().map(|(address, _)| address);
                let held = held.filter(|address| reserved.contains(*address));
                news.subtract(&held.collect());
            }
            told.extend_with(&news);
            self.overlap(name, news.iter())
        });
        overlaps.collect()
    }

    /// Addresses in pools that no host can have, such as those of the loopback network. Markers for DHCP are none.
    pub fn unusable_overlaps(&self) -> Vec<ReservedOverlap> {
        unusable().filter_map(|(range, why)| self.overlap(why, [range])).collect()
    }

    /// Why nobody can have the address, whatever the pools say: no host can, or a reservation has it of those whose
    /// names `counts` takes. One that somebody holds is not asked about reservations again.
    pub fn kept_from_all(&self, address: IpAddr, counts: impl Fn(&str) -> bool) -> Option<Refusal> {
        let by = match self.claim(address) {
            Some(_) => unusable_because(address),
            None => self.kept_by(address, counts),
        };
        by.map(|by| Refusal::AddressReserved { address, by: by.to_owned() })
    }

    /// What has the address that is no claimant's, in words for users: no host can have it, or a reservation has it of those
    /// whose names `counts` takes.
    pub fn kept_by(&self, address: IpAddr, counts: impl Fn(&str) -> bool) -> Option<&str> {
        if let Some(why) = unusable_because(address) {
            return Some(why);
        }
        self.reserved_by(address)?;
        let mut found = self.reservations().filter(|(_, addresses)| addresses.contains(address));
        found.find(|(name, _)| counts(name)).map(|(name, _)| name)
    }

    fn overlap(
        &self,
        name: &str,
        ranges: impl IntoIterator<Item = Range>,
    ) -> Option<ReservedOverlap> {
        let mut overlap = ReservedOverlap {
            reservation: name.to_owned(),
            pools: Vec::new(),
            addresses: AddressSet::new(),
        };
        for (part, id) in ranges.into_iter().flat_map(|range| self.free.parts(range)) {
            let is_marker = |scope: &&Scope| {
                self.pools.pool(scope).is_some_and(|pool| pool.is_dhcp(part.family()))
            };
            let members = &self.free.region(id).members;
            if !members.iter().all(|scope| is_marker(&scope)) {
                overlap.pools.extend(members.iter().cloned());
                overlap.addresses.insert(part);
            }
        }
        overlap.pools.sort_unstable();
        overlap.pools.dedup();
        (!overlap.pools.is_empty()).then_some(overlap)
    }

    /// Addresses that several namespaces share although the keys do not allow these to share. They go on sharing them.
    pub fn crossings(&self) -> Vec<Crossing> {
        let shared = self.claims().filter(|(_, claim)| claim.grants().len() > 1);
        let shared = shared.map(|(address, claim)| (address, claim.namespaces()));
        let crosses = shared.filter(|(_, namespaces)| {
            let pairs = namespaces.iter().enumerate().flat_map(|(at, one)| {
                namespaces.iter().skip(at + 1).map(move |other| (one, other))
            });
            !pairs.into_iter().all(|(one, other)| self.pools.may_share(one, other))
        });
        let crossing = |(address, namespaces): (_, std::collections::BTreeSet<&str>)| Crossing {
            address,
            namespaces: namespaces.into_iter().map(str::to_owned).collect(),
        };
        crosses.map(crossing).collect()
    }

    /// Held addresses that are no longer in the pool they came from. They stay where they are.
    pub fn strays(&self) -> Vec<Stray> {
        let grants = self
            .claims()
            .flat_map(|(address, claim)| claim.grants().iter().map(move |grant| (address, grant)));
        grants
            .filter_map(|(address, grant)| Some((address, &grant.owner, grant.pool.as_ref()?)))
            .filter(|(address, _, scope)| {
                !self.pools.pool(scope).is_some_and(|pool| pool.addresses().contains(*address))
            })
            .map(|(address, owner, pool)| Stray {
                address,
                owner: owner.clone(),
                pool: pool.clone(),
            })
            .collect()
    }
}
