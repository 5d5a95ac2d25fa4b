//! The Leases of the other elections: while somebody else renews one, an announcer that goes by Leases (an older Berth in the
//! middle of an upgrade, or kube-vip) holds the addresses that it decides on. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Quoted;
use berth_api::election::{Held, ORPHANED};
use berth_api::names::lease::MEMBERS;

use crate::ownership::leases::of_one_service;
use crate::vip::{Claim, Claimant, Name, Vip, Wanted};

/// A Lease that names no duration (`leaseDurationSeconds`) lasts as long as kube-vip's default.
const DURATION: Duration = Duration::from_secs(15);

/// How often is told of a Lease that somebody else holds.
const REMIND: Duration = Duration::from_secs(60);

/// The Leases by which others may hold addresses still, and what is known of them.
#[derive(Debug)]
pub(super) struct Rivalry {
    /// The one that decides on all Services; none where there is no other election.
    lease: Option<Name>,
    is_listed: bool,
    are_services_listed: bool,
    /// Whether that one was in the members' hand when it was last seen in anybody's.
    is_ours: bool,
    /// By Lease, who holds it beside the members.
    rivals: BTreeMap<Name, Rival>,
    barred: Barred,
    /// When was told of the Leases by which others decide on something that is wanted.
    told: BTreeMap<Name, Instant>,
}

/// What a member may not ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Barred {
    /// Whether it is the address of any Service.
    all: bool,
    /// Whether that is for a stranger who decides on them, and not for members that have not got the Lease yet.
    is_left: bool,
    /// The Services on which others decide by a Lease of their own (kube-vip's `svc_election`).
    services: BTreeSet<Name>,
    /// The addresses on which they decide.
    addresses: BTreeSet<IpAddr>,
    /// Whether who decides on all Services is on another node.
    is_elsewhere: bool,
    /// The addresses on which one on another node decides.
    elsewhere: BTreeSet<IpAddr>,
}

impl Barred {
    /// Whether this node may not ask for an address. What neither a Service nor the control plane wants (an elastic IP) no Lease
    /// decides on.
    pub(super) fn bars(&self, address: &IpAddr, vip: &Vip) -> bool {
        let by_lease =
            |claimant: &Claimant| matches!(claimant, Claimant::Service(_) | Claimant::ControlPlane);
        let is_by_lease = || vip.wants.iter().any(|want| by_lease(&want.claimant));
        self.all && is_by_lease() || self.addresses.contains(address)
    }

    /// Whether an address is left to somebody who may answer for it on this very node.
    pub(super) fn leaves(&self, address: &IpAddr, vip: &Vip) -> bool {
        self.bars(address, vip) && (self.is_left || !self.all)
    }

    /// Whether whoever may answer for an address that is [left](Self::leaves) to others is on another node: what this one has of it
    /// was left by an announcer that crashed here.
    pub(super) fn is_elsewhere(&self, address: &IpAddr) -> bool {
        if self.all { self.is_elsewhere } else { self.elsewhere.contains(address) }
    }

    /// Whether others report on a Service.
    pub(super) fn reports(&self, service: &Name) -> bool {
        self.all || self.services.contains(service)
    }
}

impl Rivalry {
    /// Nothing is known of `lease`; where there is none, nobody else holds anything.
    pub(super) fn new(lease: Option<Name>) -> Self {
        let alone = lease.is_none();
        Self {
            lease,
            is_listed: alone,
            are_services_listed: alone,
            is_ours: alone,
            rivals: BTreeMap::new(),
            barred: Barred::default(),
            told: BTreeMap::new(),
        }
    }

    /// Takes in that members held the Lease when this node was last one: that it is seen is not waited for.
    pub(super) fn resume(&mut self) {
        (self.is_ours, self.is_listed, self.are_services_listed) = (true, true, true);
    }

    /// Takes in what the watch shows of a Lease; true if it may decide on something else now than before.
    pub(super) fn observe(&mut self, name: &Name, held: &Held, now: Instant) -> bool {
        let Some(lease) = &self.lease else { return false };
        let is_standing = lease == name;
        let before = self.rivals.remove(name);
        let holder = |rival: &Option<Rival>| {
            rival.as_ref().filter(|rival| rival.until > now).map(|rival| rival.holder.clone())
        };
        let had = holder(&before);
        let rival = Rival::after(before, held, now);
        let (is_another, has) = (holder(&rival) != had, holder(&rival).is_some());
        // One that has run out, and is gone, is of no use to know.
        if let Some(rival) = rival.filter(|_| has || *held != Held::Gone) {
            self.rivals.insert(name.clone(), rival);
        }
        let was_ours = self.is_ours;
        if is_standing {
            let is_members = matches!(held, Held::By { identity, .. } if identity == MEMBERS);
            self.is_ours = !has && (self.is_ours || is_members);
        }
        is_another || was_ours != self.is_ours
    }

    /// Takes in that the Lease that decides on all Services was shown, if it is there.
    pub(super) fn listed(&mut self) {
        self.is_listed = true;
    }

    /// Takes in that these are all other Leases, as far as they may be seen.
    pub(super) fn services_listed(&mut self, names: &BTreeSet<Name>) {
        self.are_services_listed = true;
        let (rivals, lease) = (&mut self.rivals, self.lease.as_ref());
        rivals.retain(|name, _| Some(name) == lease || names.contains(name));
    }

    /// Whether every Lease was shown.
    pub(super) fn is_listed(&self) -> bool {
        self.is_listed && self.are_services_listed
    }

    /// The Lease that members have not got yet, and nobody else has.
    pub(super) fn waits_for(&self, now: Instant) -> Option<&Name> {
        self.lease.as_ref().filter(|_| self.is_listed() && !self.is_ours && !self.holds_all(now))
    }

    /// Whether somebody holds the Lease that decides on all Services.
    pub(super) fn holds_all(&self, now: Instant) -> bool {
        self.lease.as_ref().is_some_and(|lease| self.holder(lease, now).is_some())
    }

    /// When the first Lease by which others decide runs out, unless it is renewed.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        let rivals = self.told.keys().filter_map(|lease| self.rivals.get(lease));
        rivals.map(|rival| rival.until).filter(|until| *until > now).min()
    }

    /// What this node may not ask for, as was found last.
    pub(super) fn barred(&self) -> &Barred {
        &self.barred
    }

    /// Finds what this node may not ask for: everything that is a Service's, until members have the Lease, or what others
    /// decide on by Leases of single Services. Tells of each holder once a minute. `elsewhere` says whether a holder is another
    /// node, by its name.
    pub(super) fn find(&mut self, wanted: &Wanted, elsewhere: impl Fn(&str) -> bool, now: Instant) {
        let elsewhere = |lease: &Name| self.holder(lease, now).is_some_and(&elsewhere);
        let held = |lease: &Name| self.holder(lease, now).is_some();
        let (mut barred, mut deciding) = (Barred::default(), BTreeSet::new());
        barred.all = !self.is_ours;
        if let Some(lease) = self.lease.as_ref().filter(|lease| held(lease)) {
            deciding.insert(lease.clone());
            barred.is_left = true;
            barred.is_elsewhere = elsewhere(lease);
        } else if self.rivals.values().any(|rival| rival.until > now) {
            for (name, claim) in wanted.services.iter().filter(|(_, claim)| claim.ours) {
                let lease = of_one_service(name, claim);
                if Some(&lease) == self.lease.as_ref() || !held(&lease) {
                    continue;
                }
                // Of an address that others were given first theirs decides: nobody takes it away by a Lease of his own.
                let theirs = claim.own().filter(|address| is_first(wanted, address, name));
                let theirs: Vec<IpAddr> = theirs.copied().collect();
                barred.elsewhere.extend(theirs.iter().filter(|_| elsewhere(&lease)));
                barred.addresses.extend(theirs);
                barred.services.insert(name.clone());
                deciding.insert(lease);
            }
        }
        self.barred = barred;
        // Who takes it and gives it back again and again is told of no more often.
        self.told.retain(|lease, told| deciding.contains(lease) || now < *told + REMIND);
        for lease in deciding {
            if self.told.get(&lease).is_none_or(|told| now >= *told + REMIND) {
                let holder = Quoted::of(self.holder(&lease, now).unwrap_or_default());
                tracing::warn!(
                    %lease, %holder,
                    "another announcer goes by this Lease: what it decides on is left to it; if it is gone for good: \
                     kubectl --namespace {} patch lease {} --type=merge --patch '{{\"spec\":{{\"holderIdentity\":\"\"}}}}'",
                    lease.namespace, lease.name
                );
                self.told.insert(lease, now);
            }
        }
    }

    /// The Lease by which another announcer decides on a Service, and who holds it.
    pub(super) fn decides(&self, name: &Name, claim: &Claim, now: Instant) -> Option<(Name, &str)> {
        let leases = self.lease.iter().cloned().chain([of_one_service(name, claim)]);
        leases.into_iter().find_map(|lease| {
            let holder = self.holder(&lease, now)?;
            Some((lease, holder))
        })
    }

    fn holder(&self, lease: &Name, now: Instant) -> Option<&str> {
        let rival = self.rivals.get(lease).filter(|rival| rival.until > now)?;
        Some(&rival.holder)
    }
}

/// Whether the oldest that wants an address is of the namespace of this Service.
fn is_first(wanted: &Wanted, address: &IpAddr, service: &Name) -> bool {
    let first = wanted.vip(*address).and_then(|vip| vip.wants.first());
    first.is_some_and(|want| {
        matches!(&want.claimant, Claimant::Service(name) if name.namespace == service.namespace)
    })
}

/// Who holds a Lease.
#[derive(Clone, Debug)]
struct Rival {
    holder: String,
    version: Option<String>,
    /// It may act until then at least.
    until: Instant,
}

impl Rival {
    /// Who holds a Lease that is seen like this, and was held so before. The members are no rivals.
    fn after(before: Option<Self>, held: &Held, now: Instant) -> Option<Self> {
        let (identity, version, duration) = match held {
            Held::By { identity, version, duration } => (identity, version, duration),
            Held::Nobody => return None,
            // Who deletes a Lease does not stop its holder; but that makes it again before long.
            Held::Gone => {
                let until = |rival: &Self| rival.until.min(now + ORPHANED);
                return before.map(|rival| Self { until: until(&rival), ..rival });
            }
        };
        if identity == MEMBERS {
            return None;
        }
        if let Some(known) = before.filter(|rival| rival.version == *version) {
            return Some(known);
        }
        // Counted from when it was seen to change, by our clock: nobody's wall clock is trusted.
        let until = now + duration.unwrap_or(DURATION);
        Some(Self { holder: identity.clone(), version: version.clone(), until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{eip, service};
    use crate::source::testing::{host, seen};

    const SECOND: Duration = Duration::from_secs(1);

    fn held(identity: &str, version: u32) -> Held {
        if identity.is_empty() {
            return Held::Nobody;
        }
        let (identity, version) = (identity.to_owned(), Some(version.to_string()));
        Held::By { identity, version, duration: Some(SECOND * 5) }
    }

    fn all() -> Name {
        Name::new("kube-system", "plndr-svcs-lock")
    }

    /// Members hold the Lease.
    fn ours(now: Instant) -> Rivalry {
        let mut rivalry = Rivalry::new(Some(all()));
        assert!(rivalry.observe(&all(), &held(MEMBERS, 0), now));
        rivalry
    }

    fn web(names: &[(&str, &str, &str)]) -> Wanted {
        let mut cluster = Cluster::default();
        for (namespace, name, address) in names {
            cluster.apply_service(Name::new(*namespace, *name), service(&[address]));
        }
        seen(&cluster, &host(), Some("eth0"))
    }

    fn bars(rivalry: &mut Rivalry, wanted: &Wanted, now: Instant) -> Vec<String> {
        rivalry.find(wanted, |holder| holder == "b", now);
        let barred =
            wanted.addressed().filter(|(address, vip)| rivalry.barred().bars(address, vip));
        barred.map(|(address, _)| address.to_string()).collect()
    }

    #[test]
    fn a_holder_counts_for_the_duration_of_its_lease_from_its_last_renewal() {
        let now = Instant::now();
        let mut rivalry = ours(now);
        assert!(rivalry.observe(&all(), &held("b", 1), now));
        assert!(rivalry.holds_all(now + SECOND * 4));
        assert!(!rivalry.observe(&all(), &held("b", 1), now + SECOND * 3));
        assert!(!rivalry.holds_all(now + SECOND * 5), "seen again is not renewed");
        assert!(!rivalry.observe(&all(), &held("b", 2), now + SECOND * 4));
        assert!(rivalry.holds_all(now + SECOND * 8));
        assert!(rivalry.observe(&all(), &held("b", 3), now + SECOND * 10), "it is back");
    }

    #[test]
    fn nothing_is_asked_for_before_members_have_the_lease_nor_after_a_stranger_until_they_have_it_again()
     {
        let (now, wanted) = (Instant::now(), web(&[("d", "web", "192.0.2.1")]));
        let mut rivalry = Rivalry::new(Some(all()));
        let everything = ["192.0.2.1"];
        for free in [Held::Gone, Held::Nobody] {
            rivalry.observe(&all(), &free, now);
            assert_eq!(bars(&mut rivalry, &wanted, now), everything, "{free:?}");
        }
        rivalry.observe(&all(), &held(MEMBERS, 2), now);
        assert!(bars(&mut rivalry, &wanted, now).is_empty());
        for between in [Held::Nobody, Held::Gone] {
            assert!(!rivalry.observe(&all(), &between, now), "one member gives way to another");
        }
        rivalry.observe(&all(), &held("b", 3), now);
        assert_eq!(bars(&mut rivalry, &wanted, now), everything);
        assert_eq!(rivalry.deadline(now), Some(now + SECOND * 5));
        let later = now + SECOND * 6;
        assert_eq!(bars(&mut rivalry, &wanted, later), everything, "it may come back");
        rivalry.observe(&all(), &held(MEMBERS, 4), later);
        assert!(bars(&mut rivalry, &wanted, later).is_empty());
    }

    #[test]
    fn a_lease_that_is_deleted_is_held_until_it_would_have_run_out_and_no_longer_than_a_minute() {
        let now = Instant::now();
        let mut rivalry = ours(now);
        rivalry.observe(&all(), &held("b", 1), now);
        rivalry.observe(&all(), &Held::Gone, now + SECOND);
        assert!(rivalry.holds_all(now + SECOND * 4) && !rivalry.holds_all(now + SECOND * 5));
        let (identity, version) = ("b".to_owned(), None);
        let duration = Some(Duration::from_secs(1 << 31));
        rivalry.observe(&all(), &Held::By { identity, version, duration }, now);
        rivalry.observe(&all(), &Held::Gone, now);
        assert!(!rivalry.holds_all(now + ORPHANED));
    }

    #[test]
    fn the_lease_of_one_service_keeps_members_from_its_addresses_and_from_no_others() {
        let (now, other) = (Instant::now(), ("d", "other", "192.0.2.2"));
        let wanted = web(&[("d", "web", "192.0.2.1"), other]);
        let mut rivalry = ours(now);
        assert!(rivalry.observe(&Name::new("d", "kubevip-web"), &held("b", 1), now));
        rivalry.observe(&Name::new("d", "unrelated"), &held("b", 1), now);
        assert_eq!(bars(&mut rivalry, &wanted, now), ["192.0.2.1"]);
        assert!(rivalry.barred().reports(&Name::new("d", "web")));
        assert!(!rivalry.barred().reports(&Name::new("d", "other")));
        let decides = |name: &str| {
            let name = Name::new("d", name);
            let decides = rivalry.decides(&name, &wanted.services[&name], now);
            decides.map(|(lease, holder)| format!("{lease} {holder}"))
        };
        assert_eq!(decides("web").as_deref(), Some("d/kubevip-web b"));
        assert_eq!(decides("other"), None);
        rivalry.services_listed(&BTreeSet::new());
        assert!(bars(&mut rivalry, &wanted, now).is_empty(), "it went unseen");
    }

    #[test]
    fn who_decides_on_another_node_answers_there_alone() {
        let (now, wanted) = (Instant::now(), web(&[("d", "web", "192.0.2.1")]));
        let address: IpAddr = [192, 0, 2, 1].into();
        let elsewhere = |rivalry: &mut Rivalry| {
            bars(rivalry, &wanted, now);
            rivalry.barred().is_elsewhere(&address)
        };
        let mut rivalry = ours(now);
        assert!(rivalry.observe(&all(), &held("b", 1), now) && elsewhere(&mut rivalry));
        assert!(!rivalry.observe(&all(), &held("b", 2), now), "renewed");
        assert!(rivalry.observe(&all(), &held("a", 3), now), "this node, or a name of no node");
        assert!(!elsewhere(&mut rivalry));
        let mut rivalry = ours(now);
        let own = Name::new("d", "kubevip-web");
        assert!(rivalry.observe(&own, &held("b", 1), now) && elsewhere(&mut rivalry));
        assert!(rivalry.observe(&own, &held("a", 2), now) && !elsewhere(&mut rivalry));
    }

    #[test]
    fn nobody_takes_an_address_from_another_namespace_by_a_lease_of_his_own() {
        let shared = [("a", "first", "192.0.2.1"), ("b", "joins", "192.0.2.1")];
        let (now, wanted) = (Instant::now(), web(&shared));
        let mut rivalry = ours(now);
        rivalry.observe(&Name::new("b", "kubevip-joins"), &held("x", 1), now);
        assert!(bars(&mut rivalry, &wanted, now).is_empty());
        rivalry.observe(&Name::new("a", "kubevip-first"), &held("x", 1), now);
        assert_eq!(bars(&mut rivalry, &wanted, now), ["192.0.2.1"]);
    }

    #[test]
    fn no_lease_decides_on_an_elastic_ip() {
        let mut cluster = Cluster::default();
        cluster.apply_eip(Name::new("d", "vm"), eip("a", &[("192.0.2.9", "10.1.0.9")]));
        let wanted = seen(&cluster, &host(), Some("eth0"));
        let (now, mut rivalry) = (Instant::now(), Rivalry::new(Some(all())));
        rivalry.observe(&all(), &held("b", 1), now);
        assert!(bars(&mut rivalry, &wanted, now).is_empty());
    }
}
