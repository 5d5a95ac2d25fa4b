//! The Leases of the other elections: while somebody else renews one, an announcer that goes by Leases (an older Berth in the
//! middle of an upgrade, or kube-vip) holds the addresses that it decides on. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::election::Sight;
use berth_api::names::lease::MEMBERS;

use crate::ownership::leases::Strategy;
use crate::vip::{Name, Wanted};

/// A Lease that names no duration (`leaseDurationSeconds`) lasts as long as kube-vip's default.
const DURATION: Duration = Duration::from_secs(15);

/// The Leases by which others may hold addresses still, and what is known of them.
#[derive(Debug)]
pub(super) struct Rivalry {
    /// The one that decides on all Services; none where there is no other election.
    lease: Option<Name>,
    is_listed: bool,
    are_services_listed: bool,
    /// By Lease, who holds it beside this node and the members.
    rivals: BTreeMap<Name, Rival>,
    /// The Leases by which others decide on something that is wanted, of whose holders was told.
    deciding: BTreeSet<Name>,
    /// The Services on which others decide by a Lease of their own.
    services: BTreeSet<Name>,
}

impl Rivalry {
    /// Nothing is known of `lease`; where there is none, nobody else holds anything.
    pub(super) fn new(lease: Option<Name>) -> Self {
        let (is_listed, are_services_listed) = (lease.is_none(), lease.is_none());
        let (rivals, deciding, services) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        Self { lease, is_listed, are_services_listed, rivals, deciding, services }
    }

    /// Takes in what the watch shows of a Lease; true if another has it now.
    pub(super) fn observe(&mut self, name: &Name, sight: &Sight, node: &str, now: Instant) -> bool {
        if self.lease.is_none() {
            return false;
        }
        let before = self.rivals.remove(name);
        let had = before.as_ref().map(|rival| rival.holder.clone());
        let rival = Rival::after(before, sight, node, now);
        let has = rival.as_ref().map(|rival| rival.holder.clone());
        self.rivals.extend(rival.map(|rival| (name.clone(), rival)));
        self.rivals.retain(|_, rival| !rival.deleted || rival.until > now);
        had != has
    }

    /// Takes in that the Lease that decides on all Services was shown, if it is there.
    pub(super) fn listed(&mut self) {
        self.is_listed = true;
    }

    /// Takes in that those of single Services were shown, if they may be.
    pub(super) fn services_listed(&mut self) {
        self.are_services_listed = true;
    }

    /// Whether every Lease was shown.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed && self.are_services_listed
    }

    /// Whether somebody holds the Lease that decides on all Services.
    pub(super) fn holds_all(&self, now: Instant) -> bool {
        self.lease.as_ref().is_some_and(|lease| self.holder(lease, now).is_some())
    }

    /// When the first Lease by which others decide runs out, unless it is renewed.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let rivals = self.deciding.iter().filter_map(|lease| self.rivals.get(lease));
        rivals.map(|rival| rival.until).filter(|until| *until > now).min()
    }

    /// The Services that somebody else decides on by a Lease of their own (kube-vip's `svc_election`), as was found last.
    pub(super) fn services(&self) -> &BTreeSet<Name> {
        &self.services
    }

    /// What this node may not ask for: everything, or the addresses of those Services. Tells of each holder once.
    pub(super) fn barred(&mut self, wanted: &Wanted, now: Instant) -> Barred {
        self.services.clear();
        let all = self.lease.clone().filter(|lease| self.holder(lease, now).is_some());
        if all.is_some() {
            self.decide(all.into_iter().collect(), now);
            return Barred::Everything;
        }
        let is_live = |(lease, rival): (&Name, &Rival)| {
            Some(lease) != self.lease.as_ref() && rival.until > now
        };
        let leases = match self.rivals.iter().any(is_live) {
            true => Strategy::PerService.leases(wanted),
            false => BTreeMap::new(),
        };
        let held = leases.into_iter().filter(|(_, lease)| self.holder(lease, now).is_some());
        let (services, deciding): (BTreeSet<Name>, BTreeSet<Name>) = held.unzip();
        self.decide(deciding, now);
        let claims = services.iter().filter_map(|name| wanted.services.get(name));
        let addresses = claims.flat_map(|claim| claim.own().copied()).collect();
        self.services = services;
        Barred::Only(addresses)
    }

    fn holder(&self, lease: &Name, now: Instant) -> Option<&str> {
        let rival = self.rivals.get(lease).filter(|rival| rival.until > now)?;
        Some(&rival.holder)
    }

    fn decide(&mut self, deciding: BTreeSet<Name>, now: Instant) {
        for lease in deciding.difference(&self.deciding) {
            let holder = self.holder(lease, now).unwrap_or_default();
            tracing::warn!(%lease, holder, "another announcer goes by this Lease: what it decides on is left to it");
        }
        self.deciding = deciding;
    }
}

/// What a member may not ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Barred {
    /// Any address.
    Everything,
    /// These.
    Only(BTreeSet<IpAddr>),
}

/// Who holds a Lease.
#[derive(Clone, Debug)]
struct Rival {
    holder: String,
    version: Option<String>,
    /// It may act until then at least.
    until: Instant,
    deleted: bool,
}

impl Rival {
    /// Who holds a Lease that is seen like this, and was held so before. Neither this node nor the members are rivals.
    fn after(before: Option<Self>, sight: &Sight, node: &str, now: Instant) -> Option<Self> {
        let Sight::Present(lease) = sight else {
            // Who deletes a Lease does not stop its holder.
            return before.map(|rival| Self { deleted: true, ..rival });
        };
        let spec = lease.spec.as_ref();
        let holder = spec.and_then(|spec| spec.holder_identity.as_deref());
        let holder = holder.filter(|holder| !["", node, MEMBERS].contains(holder))?;
        let version = lease.metadata.resource_version.clone();
        if let Some(known) = before.filter(|rival| rival.version == version) {
            return Some(known);
        }
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        let duration = seconds.and_then(|seconds| u64::try_from(seconds).ok());
        // Counted from when it was seen to change, by our clock: nobody's wall clock is trusted.
        let until = now + duration.map_or(DURATION, Duration::from_secs);
        Some(Self { holder: holder.to_owned(), version, until, deleted: false })
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use serde_json::json;

    use super::*;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::service;
    use crate::source::testing::{host, seen};

    const SECOND: Duration = Duration::from_secs(1);

    fn sight(holder: &str, version: &str) -> Sight {
        let lease: Lease = serde_json::from_value(json!({
            "metadata": { "resourceVersion": version },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 5 },
        }))
        .unwrap();
        Sight::Present(Box::new(lease))
    }

    fn all() -> Name {
        Name::new("kube-system", "plndr-svcs-lock")
    }

    fn rivalry() -> Rivalry {
        Rivalry::new(Some(all()))
    }

    #[test]
    fn a_holder_counts_for_the_duration_of_its_lease_from_its_last_renewal() {
        let (mut rivalry, now) = (rivalry(), Instant::now());
        assert!(rivalry.observe(&all(), &sight("b", "1"), "a", now));
        let wanted = Wanted::default();
        assert_eq!(rivalry.barred(&wanted, now), Barred::Everything);
        assert_eq!(rivalry.deadline(now), Some(now + SECOND * 5));
        rivalry.observe(&all(), &sight("b", "1"), "a", now + SECOND * 3);
        assert!(!rivalry.holds_all(now + SECOND * 5), "seen again is not renewed");
        assert!(!rivalry.observe(&all(), &sight("b", "2"), "a", now + SECOND * 6));
        assert!(rivalry.holds_all(now + SECOND * 10));
    }

    #[test]
    fn a_lease_that_was_given_back_or_is_this_nodes_own_or_the_members_holds_up_nobody() {
        let now = Instant::now();
        for holder in ["a", "", MEMBERS] {
            let mut rivalry = rivalry();
            rivalry.observe(&all(), &sight("b", "0"), "a", now);
            assert!(rivalry.observe(&all(), &sight(holder, "1"), "a", now));
            assert!(!rivalry.holds_all(now), "{holder}");
        }
    }

    #[test]
    fn a_lease_that_is_deleted_is_held_until_it_would_have_run_out() {
        let (mut rivalry, now) = (rivalry(), Instant::now());
        rivalry.observe(&all(), &sight("b", "1"), "a", now);
        let Sight::Present(last) = sight("b", "1") else { return };
        for gone in [Sight::Deleted(last), Sight::Absent] {
            rivalry.observe(&all(), &gone, "a", now + SECOND);
            assert!(rivalry.holds_all(now + SECOND * 4), "{gone:?}");
        }
        assert!(!rivalry.holds_all(now + SECOND * 5));
    }

    #[test]
    fn the_lease_of_one_service_keeps_members_from_its_addresses_and_from_no_others() {
        let mut cluster = Cluster::default();
        for (name, address) in [("web", "192.0.2.1"), ("other", "192.0.2.2")] {
            cluster.apply_service(Name::new("d", name), service(&[address]));
        }
        let (mut rivalry, now, host) = (rivalry(), Instant::now(), host());
        let wanted = seen(&cluster, &host, Some("eth0"));
        assert_eq!(rivalry.barred(&wanted, now), Barred::Only(BTreeSet::new()));
        rivalry.observe(&Name::new("d", "kubevip-web"), &sight("b", "1"), "a", now);
        rivalry.observe(&Name::new("d", "unrelated"), &sight("b", "1"), "a", now);
        let only = ["192.0.2.1".parse().unwrap()].into();
        assert_eq!(rivalry.barred(&wanted, now), Barred::Only(only));
        rivalry.observe(&all(), &sight("b", "1"), "a", now);
        assert_eq!(rivalry.barred(&wanted, now), Barred::Everything);
        assert_eq!(rivalry.barred(&wanted, now + SECOND * 5), Barred::Only(BTreeSet::new()));
    }
}
