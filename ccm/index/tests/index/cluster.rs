//! An API server that is as strict as the real one about uids, versions and finalizers, and a watch on it that is as
//! late as a test wants.

#[path = "eips.rs"]
pub(crate) mod eips;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_api::conflict::Conflicts;
use berth_api::names::condition;
use berth_index::binding::Binding;
use berth_index::claim::{Basis, Claim, Holder};
use berth_index::claimant::{Claimant, Id};
use berth_index::finalizers::Finalizers;
use berth_index::intake::{Change, Host};
use berth_index::kubevirt::Vmi;
use berth_index::service::{Service, Standing};
use berth_index::write::{Outcome, Silence, Verdict, Write};
use berth_index::{Index, Source};
use berth_ipam::{Families, Family, FamilyPolicy, Owner, OwnerKind, Sharing};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

pub(crate) fn key(name: &str) -> NamespacedName {
    let (namespace, name) = name.split_once('/').unwrap_or(("shop", name));
    NamespacedName { namespace: namespace.to_owned(), name: name.to_owned() }
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A Service as `kubectl expose` makes it.
pub(crate) fn service(name: &str) -> Service {
    Service {
        key: key(name),
        uid: String::new(),
        version: String::new(),
        created: 0,
        deleting: false,
        standing: Standing::Ours,
        families: Families::single(Family::V4),
        sharing: Sharing::default(),
        pods: None,
        annotated: None,
        deprecated: None,
        left_out: 0,
        has_interface: false,
        labelled: false,
        finalizers: Finalizers::default(),
        host: None,
        published: Vec::new(),
        conflicts: Conflicts::default(),
        conditions: Vec::new(),
    }
}

pub(crate) fn dual(name: &str, policy: FamilyPolicy, order: [Family; 2]) -> Service {
    Service { families: Families::new(policy, order), ..service(name) }
}

#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Cluster {
    version: u64,
    pub(crate) services: BTreeMap<NamespacedName, Service>,
    pub(crate) bindings: BTreeMap<NamespacedName, Binding>,
    pub(crate) machines: BTreeMap<NamespacedName, Vmi>,
    pub(crate) claims: BTreeMap<IpAddr, Claim>,
    /// Addresses whose `IPAddress` belongs to another controller.
    pub(crate) foreign: Vec<IpAddr>,
    /// The nodes that have an announcer's Lease, and when each says that it was renewed.
    pub(crate) hosts: BTreeMap<String, String>,
    /// Every change, for watches.
    pub(crate) log: Vec<Logged>,
}

/// [`Change`] can be compared only by what it shows.
#[derive(Clone, Debug)]
pub(crate) struct Logged(pub(crate) Arc<Change>);

impl PartialEq for Logged {
    fn eq(&self, other: &Self) -> bool {
        format!("{:?}", self.0) == format!("{:?}", other.0)
    }
}

impl Cluster {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }

    fn store(&mut self, mut service: Service) -> Service {
        service.version = self.next();
        if service.deleting && service.finalizers.is_empty() {
            self.services.remove(&service.key);
            self.log.push(Logged(Arc::new(Change::ServiceGone(
                service.key.clone(),
                service.uid.clone(),
            ))));
        } else {
            self.services.insert(service.key.clone(), service.clone());
            self.log.push(Logged(Arc::new(Change::Service(Box::new(service.clone())))));
        }
        service
    }

    pub(crate) fn create(&mut self, service: Service) -> Service {
        assert!(!self.services.contains_key(&service.key), "{} exists", service.key);
        let uid = format!("uid-{}", self.version + 1);
        self.store(Service { uid, ..service })
    }

    pub(crate) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Service)) {
        let mut service = self.services[&key(name)].clone();
        edit(&mut service);
        self.store(service);
    }

    pub(crate) fn delete(&mut self, name: &str) {
        self.edit(name, |service| service.deleting = true);
    }

    /// The announcer takes up what is written, and lets go of what is not.
    pub(crate) fn announce(&mut self, name: &str) {
        self.edit(name, |service| {
            let served = service.standing == Standing::Ours && !service.deleting;
            service.host = served.then(|| "a".to_owned());
            service.published =
                if served { service.annotation().addresses().collect() } else { Vec::new() };
        });
    }

    pub(crate) fn addresses(&self, name: &str) -> String {
        self.services
            .get(&key(name))
            .and_then(|service| service.annotated.clone())
            .unwrap_or_default()
    }

    /// The names of those who hold the address.
    pub(crate) fn holder(&self, address: &str) -> Option<String> {
        let claim = self.claims.get(&ip(address))?;
        let names = claim.holders.iter().map(|holder| holder.owner.name.as_str());
        Some(names.collect::<Vec<_>>().join(" "))
    }

    pub(crate) fn reason(&self, name: &str) -> Option<(bool, String)> {
        let conditions = &self.services.get(&key(name))?.conditions;
        let ours = conditions.iter().find(|shown| shown.type_ == condition::ADDRESS_ALLOCATED)?;
        Some((ours.status == "True", ours.reason.clone()))
    }

    pub(crate) fn claim(&mut self, address: &str, owner: Owner) {
        let outcome = self.perform(&Write::CreateClaim {
            address: ip(address),
            owner,
            pool: None,
            basis: Basis::Imported,
        });
        assert!(matches!(outcome, Outcome::Claimed(_)), "{outcome:?}");
    }

    /// What the API server and the writer make of a write.
    pub(crate) fn perform(&mut self, write: &Write) -> Outcome {
        match write {
            Write::CreateClaim { address, owner, pool, basis } => {
                if self.foreign.contains(address) {
                    return Outcome::Taken(None);
                }
                if let Some(claim) = self.claims.get(address) {
                    return Outcome::Taken(Some(claim.clone()));
                }
                let version = self.next();
                let uid = format!("claim-{version}");
                let holders = vec![Holder { owner: owner.clone(), sharing: None, since: 0 }];
                let pinned = (*basis == Basis::Pinned).then(|| owner.uid.clone());
                let pinned = pinned.into_iter().collect();
                let (address, pool) = (*address, pool.clone());
                self.change(Claim { address, uid, version, holders, pool, pinned })
            }
            Write::JoinClaim { address, uid, version, owner, sharing, others, came, pinned } => {
                let (owner, sharing) = (owner.clone(), Some(sharing.clone()));
                let (at, since) = came.unwrap_or((others.len(), 0));
                let mut holders = others.clone();
                holders.insert(at, Holder { owner, sharing, since });
                self.leave_to(*address, uid, version, holders, Some(pinned))
            }
            Write::LeaveClaim { address, uid, version, owner, others, orphan } => {
                let there = self.find(&Id::from(owner)).filter(|there| there.uid() == owner.uid);
                if let Some(claimant) = there.filter(|_| *orphan) {
                    return Outcome::Claimant(Box::new(claimant));
                }
                self.leave_to(*address, uid, version, others.clone(), None)
            }
            Write::PatchService { key, uid, version, change } => {
                self.patch(key, uid, version, |service| {
                    let served = !change.addresses.is_empty();
                    let text = || berth_api::address::format(change.addresses.iter().copied());
                    if change.annotates {
                        service.annotated = served.then(text);
                    }
                    service.deprecated = change.addresses.first().map(ToString::to_string);
                    service.labelled = served;
                    service.has_interface |= change.interface.is_some();
                    assert_eq!(service.finalizers, change.finalizers);
                    service.finalizers = change.finalizers.with(served);
                })
            }
            Write::PatchStatus { key, uid, version, verdict } => {
                self.patch(key, uid, version, |service| {
                    service.conditions.retain(|shown| shown.type_ != condition::ADDRESS_ALLOCATED);
                    service.conditions.push(shown(verdict));
                })
            }
            Write::PatchAnnounced { key, uid, version, silence } => {
                self.patch(key, uid, version, |service| {
                    service.conditions.retain(|shown| shown.type_ != condition::ANNOUNCED);
                    service.conditions.extend(silence.as_ref().map(silent));
                })
            }
            Write::ListHosts => Outcome::Hosts(self.hosts.clone().into_iter().collect()),
            Write::PatchEip { key, uid, version, finalizers, with_ours } => {
                self.patch_binding(key, uid, version, |binding| {
                    assert_eq!(binding.finalizers, *finalizers);
                    binding.finalizers = finalizers.with(*with_ours);
                })
            }
            Write::ApplyEip { key, uid, version, decided, .. } => {
                self.patch_binding(key, uid, version, |binding| eips::say(binding, decided))
            }
            Write::Read { id } => match self.find(id) {
                Some(claimant) => Outcome::Claimant(Box::new(claimant)),
                None => Outcome::Missing,
            },
        }
    }

    fn find(&self, id: &Id) -> Option<Claimant> {
        let service = || self.services.get(&id.key).cloned().map(Claimant::Service);
        let binding = || self.bindings.get(&id.key).cloned().map(Claimant::Eip);
        if id.kind == OwnerKind::Service { service() } else { binding() }
    }

    fn leave_to(
        &mut self,
        address: IpAddr,
        uid: &str,
        version: &str,
        holders: Vec<Holder>,
        pinned: Option<&BTreeSet<String>>,
    ) -> Outcome {
        let found = self.claims.get(&address).filter(|claim| claim.uid == uid).cloned();
        let Some(claim) = found else { return Outcome::Released };
        if claim.version != version {
            return Outcome::Taken(Some(claim));
        }
        if holders.is_empty() {
            self.version += 1;
            self.claims.remove(&address);
            self.log.push(Logged(Arc::new(Change::ClaimGone(address, uid.to_owned()))));
            return Outcome::Released;
        }
        let version = self.next();
        let pinned = pinned.cloned().unwrap_or_else(|| claim.pinned.clone());
        self.change(Claim { version, holders, pinned, ..claim })
    }

    fn change(&mut self, claim: Claim) -> Outcome {
        self.claims.insert(claim.address, claim.clone());
        self.log.push(Logged(Arc::new(Change::Claim(Box::new(claim.clone())))));
        Outcome::Claimed(claim)
    }

    fn patch(
        &mut self,
        key: &NamespacedName,
        uid: &str,
        version: &str,
        edit: impl FnOnce(&mut Service),
    ) -> Outcome {
        let Some(service) = self.services.get(key) else { return Outcome::Missing };
        if service.uid != uid || service.version != version {
            return Outcome::Conflict;
        }
        let mut service = service.clone();
        edit(&mut service);
        Outcome::Claimant(Box::new(Claimant::Service(self.store(service))))
    }

    /// Everything, as a list that a watch starts with.
    pub(crate) fn list(&self) -> Vec<Change> {
        let services =
            self.services.values().cloned().map(|service| Change::Service(Box::new(service)));
        let claims = self.claims.values().cloned().map(|claim| Change::Claim(Box::new(claim)));
        let mut changes = vec![Change::Listing(Source::Services)];
        changes.extend(services);
        changes.extend([Change::Listed(Source::Services), Change::Listing(Source::Claims)]);
        changes.extend(claims);
        changes.push(Change::Listed(Source::Claims));
        changes.extend(self.list_eips());
        changes.extend(self.hosts.iter().map(|(node, renewed)| host(node, renewed)));
        changes
    }
}

fn host(node: &str, renewed: &str) -> Change {
    let (node, renewed) = (node.to_owned(), Some(renewed.to_owned()));
    Change::Host(Box::new(Host { node, renewed, ..Host::default() }))
}

fn shown(verdict: &Verdict) -> Condition {
    says(condition::ADDRESS_ALLOCATED, verdict.allocated, verdict.reason, &verdict.message)
}

fn silent(silence: &Silence) -> Condition {
    says(condition::ANNOUNCED, false, silence.reason, &silence.message)
}

pub(crate) fn says(kind: &str, holds: bool, reason: &str, message: &str) -> Condition {
    Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }
}

/// One CCM on one cluster, with a clock that the test moves.
pub(crate) struct Lab {
    pub(crate) cluster: Cluster,
    pub(crate) index: Index,
    intake: berth_index::intake::Intake,
    shown: usize,
    pub(crate) now: Duration,
    pub(crate) writes: Vec<Write>,
    pub(crate) told: Vec<(String, &'static str, String)>,
}

impl Lab {
    /// A CCM that leads an empty cluster with these pools.
    pub(crate) fn with_pools<const N: usize>(data: [(&str, &str); N]) -> Self {
        let mut lab = Self::around(Cluster::default());
        lab.pools(data);
        lab.start();
        lab
    }

    /// A CCM that has seen nothing of this cluster yet.
    pub(crate) fn around(cluster: Cluster) -> Self {
        let index = Index::new(NamespacedName {
            namespace: "kube-system".to_owned(),
            name: "kubevip".to_owned(),
        });
        let (intake, writes, told) = Default::default();
        Self { cluster, index, intake, shown: 0, now: Duration::ZERO, writes, told }
    }

    pub(crate) fn pools<const N: usize>(&mut self, data: [(&str, &str); N]) {
        let data = data.map(|(key, value)| (key.to_owned(), value.to_owned()));
        self.show(Change::Pools("map".to_owned(), data.into()));
    }

    pub(crate) fn show(&mut self, change: Change) {
        self.intake.take(change, &mut self.index, self.now);
    }

    /// Lists everything and begins to lead.
    pub(crate) fn start(&mut self) {
        self.shown = self.cluster.log.len();
        self.index.lead(self.now);
        self.cluster.list().into_iter().for_each(|change| self.show(change));
        for source in Source::REQUIRED {
            self.index.listed(source, self.now);
        }
        self.settle();
    }

    /// The same cluster with a CCM that was just started.
    pub(crate) fn restart(self) -> Self {
        let mut lab = Self::around(self.cluster);
        lab.now = self.now;
        lab
    }

    /// Shows what happened, performs what the index wants, and goes on until nothing more happens.
    pub(crate) fn settle(&mut self) {
        for _ in 0..100_000 {
            while self.shown < self.cluster.log.len() {
                let change = Change::clone(&self.cluster.log[self.shown].0);
                self.shown += 1;
                self.show(change);
            }
            let writes = self.index.poll(self.now, 32);
            self.hear();
            let rests = writes.is_empty() && !self.index.is_behind();
            if rests && self.shown == self.cluster.log.len() {
                return;
            }
            for write in writes {
                let outcome = self.cluster.perform(&write);
                self.index.settle(&write, outcome, self.now);
                self.writes.push(write);
            }
        }
        panic!("it never comes to rest: {:?}", self.writes.last());
    }

    /// Takes one poll's writes without performing them.
    pub(crate) fn poll(&mut self) -> Vec<Write> {
        let writes = self.index.poll(self.now, 32);
        self.hear();
        writes
    }

    /// Shows what happened without acting on it.
    pub(crate) fn catch_up(&mut self) {
        while self.shown < self.cluster.log.len() {
            let change = Change::clone(&self.cluster.log[self.shown].0);
            self.shown += 1;
            self.show(change);
        }
    }

    /// What happened so far will never be shown.
    pub(crate) fn miss(&mut self) {
        self.shown = self.cluster.log.len();
    }

    fn hear(&mut self) {
        for report in self.index.take_reports() {
            let about = match report.about {
                berth_index::report::About::Claimant(id, _) => id.key.name,
                berth_index::report::About::Pools(key, _) => key.name,
            };
            self.told.push((about, report.reason, report.note));
        }
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.settle();
    }

    pub(crate) fn create(&mut self, service: Service) {
        self.cluster.create(service);
        self.settle();
    }

    /// The announcers of these nodes renew their Leases.
    pub(crate) fn renew(&mut self, nodes: &[&str]) {
        for node in nodes {
            let renewed = self.cluster.next();
            self.cluster.hosts.insert((*node).to_owned(), renewed.clone());
            self.show(host(node, &renewed));
        }
        self.settle();
    }

    /// Time passes, in which the announcers of these nodes renew their Leases.
    pub(crate) fn live(&mut self, nodes: &[&str], time: Duration) {
        let until = self.now + time;
        while self.now < until {
            self.renew(nodes);
            self.pass(Duration::from_secs(20).min(until - self.now));
        }
    }

    pub(crate) fn edit(&mut self, name: &str, edit: impl FnOnce(&mut Service)) {
        self.cluster.edit(name, edit);
        self.settle();
    }

    /// How many writes there were since this was last asked, but for those that say that nobody announces a Service: few
    /// tests have announcers.
    pub(crate) fn cost(&mut self) -> usize {
        let writes = std::mem::take(&mut self.writes).into_iter();
        writes.filter(|write| !matches!(write, Write::PatchAnnounced { .. })).count()
    }

    /// How many writes there were since this was last asked.
    pub(crate) fn all_cost(&mut self) -> usize {
        std::mem::take(&mut self.writes).len()
    }

    pub(crate) fn told(&self, name: &str, reason: &str) -> usize {
        self.told.iter().filter(|(about, why, _)| about == name && *why == reason).count()
    }
}
