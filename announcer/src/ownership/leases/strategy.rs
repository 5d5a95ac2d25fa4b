//! Which Lease decides on which Services. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::names::lease;

use crate::vip::{Claim, Claimant, Name, Wanted};

/// Which Lease decides on which Services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// One Lease for all Services, kube-vip's `plndr-svcs-lock`: its holder owns every address it is a candidate for. Its
    /// cost does not grow with their number.
    Global(Name),
    /// One Lease for each Service, kube-vip's `svc_election`: `kubevip-<service>` in the Service's namespace. Its cost
    /// grows with their number.
    ///
    /// On an address that Services share the Lease of that one decides which had it first, so that it has one owner, and so
    /// that a Service that joins later moves nothing. On another address of theirs another Lease may decide.
    PerService,
}

/// Which Lease decides on what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deciding {
    /// For each Service that is ours or has been, the Lease whose holder reports on it: that of its first address.
    pub services: BTreeMap<Name, Name>,
    /// For each address of a Service, the Lease whose holder owns it.
    pub addresses: BTreeMap<IpAddr, Name>,
}

impl Deciding {
    /// All of these Leases.
    pub fn leases(&self) -> impl Iterator<Item = &Name> {
        self.services.values().chain(self.addresses.values())
    }

    /// By Lease, the Services of which it decides on anything.
    pub fn by_lease<'a>(&'a self, wanted: &'a Wanted) -> BTreeMap<&'a Name, BTreeSet<&'a Name>> {
        let mut by_lease: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
        for (service, lease) in &self.services {
            by_lease.entry(lease).or_default().insert(service);
            let claim = wanted.services.get(service).filter(|claim| claim.ours);
            let own = claim.into_iter().flat_map(|claim| claim.own());
            for lease in own.filter_map(|address| self.addresses.get(address)) {
                by_lease.entry(lease).or_default().insert(service);
            }
        }
        by_lease
    }
}

impl Strategy {
    /// Which Lease decides on what is wanted.
    pub fn decide(&self, wanted: &Wanted) -> Deciding {
        let of_service = |name: &Name, claim: &Claim| match self {
            Self::Global(lease) => lease.clone(),
            Self::PerService => of_one_service(name, claim),
        };
        let mut deciding = Deciding::default();
        for (address, vip) in wanted.addressed() {
            let mut services = vip.wants.iter().filter_map(|want| match &want.claimant {
                Claimant::Service(name) => Some((name, wanted.services.get(name)?)),
                _ => None,
            });
            if let Some((name, claim)) = services.next() {
                deciding.addresses.insert(address, of_service(name, claim));
            }
        }
        for (name, claim) in &wanted.services {
            let first =
                claim.own().find_map(|own| deciding.addresses.get(own)).filter(|_| claim.ours);
            let reports = match self {
                Self::Global(_) => Some(of_service(name, claim)),
                Self::PerService if claim.ours || claim.says() => {
                    Some(first.cloned().unwrap_or_else(|| of_service(name, claim)))
                }
                Self::PerService => None,
            };
            deciding.services.extend(reports.map(|lease| (name.clone(), lease)));
        }
        deciding
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
                Some(Err(refusal)) => refusal.is_of_another() && claim.serving(address).has(node),
                // Who shares it is served here as well.
                Some(Ok(_)) => wanted.vip(*address).is_some_and(|vip| vip.is_served_by(node)),
                None => false,
            };
            claim.ours && claim.addresses.iter().any(here)
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

/// The Lease of a Service where each has its own.
pub fn of_one_service(name: &Name, claim: &Claim) -> Name {
    let lease = claim.lease.clone().unwrap_or_else(|| lease::of_service(&name.name));
    Name::new(&name.namespace, lease)
}
