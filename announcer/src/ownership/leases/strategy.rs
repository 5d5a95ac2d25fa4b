//! Which Lease decides on which Services. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::names::lease;

use crate::vip::{Claim, Name, Wanted};

/// Which Lease decides on which Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One Lease for all Services, kube-vip's `plndr-svcs-lock`: its holder owns every address it is a candidate for. Its
    /// cost does not grow with their number.
    Global(Name),
    /// One Lease for each Service, kube-vip's `svc_election`: `kubevip-<service>` in the Service's namespace. Its cost
    /// grows with their number.
    ///
    /// Services that share an address share the Lease of the oldest of them, so that the address has one owner, and so
    /// that a Service that joins later moves nothing.
    PerService,
}

impl Strategy {
    /// For each Service that is ours or has been, the Lease that decides on its addresses.
    pub fn leases(&self, wanted: &Wanted) -> BTreeMap<Name, Name> {
        match self {
            Self::Global(lease) => {
                wanted.services.keys().map(|name| (name.clone(), lease.clone())).collect()
            }
            Self::PerService => per_service(wanted),
        }
    }

    /// The Lease that is there whether there is a Service or not.
    pub fn standing(&self) -> Option<&Name> {
        match self {
            Self::Global(lease) => Some(lease),
            Self::PerService => None,
        }
    }

    /// Whether `node` should strive for the Lease that decides on `services`. As in kube-vip every node does where one
    /// decides on all, with or without an endpoint: that Lease has to have a holder.
    pub fn strives(&self, node: &str, services: &BTreeSet<&Name>, wanted: &Wanted) -> bool {
        let serves = |name: &Name, claim: &Claim| {
            // What another claimant had first has to be told by somebody.
            let here = |address: &IpAddr| match wanted.attach(name, *address) {
                Some(Err(refusal)) => refusal.is_of_another(),
                Some(Ok(_)) => true,
                None => false,
            };
            claim.ours && claim.candidates.contains(node) && claim.addresses.iter().any(here)
        };
        match self {
            Self::Global(_) => true,
            Self::PerService => services.iter().any(|name| {
                let claim = wanted.services.get(*name);
                claim.is_some_and(|claim| serves(name, claim) || claim.needs_clearing())
            }),
        }
    }
}

fn per_service(wanted: &Wanted) -> BTreeMap<Name, Name> {
    let clears = |claim: &Claim| claim.host.is_some() && claim.correctable;
    let mut oldest_first: Vec<(&Name, &Claim)> =
        wanted.services.iter().filter(|(_, claim)| claim.ours || clears(claim)).collect();
    oldest_first.sort_by_key(|(name, claim)| (&claim.created, *name));
    let mut leases: BTreeMap<Name, Name> = BTreeMap::new();
    let mut of_address: BTreeMap<IpAddr, Name> = BTreeMap::new();
    for (name, claim) in oldest_first {
        let shared = claim.own().find_map(|address| of_address.get(address));
        let lease = shared.cloned().unwrap_or_else(|| of_one_service(name, claim));
        if claim.ours {
            for address in claim.own() {
                of_address.entry(*address).or_insert_with(|| lease.clone());
            }
        }
        leases.insert(name.clone(), lease);
    }
    leases
}

/// The Lease of a Service where each has its own.
pub fn of_one_service(name: &Name, claim: &Claim) -> Name {
    let lease = claim.lease.clone().unwrap_or_else(|| lease::of_service(&name.name));
    Name::new(&name.namespace, lease)
}
