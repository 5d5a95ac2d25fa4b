//! Owns what watches show, as values, and what follows from a list that begins again.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_api::conflict::Mac;
use berth_ipam::{AddressSet, OwnerKind};

use crate::binding::Binding;
use crate::claim::Claim;
use crate::claimant::{Claimant, Id};
use crate::kubevirt::Vmi;
use crate::service::Service;
use crate::{Index, Source};

/// Addresses, and what they belong to in words for users: `node worker-1`.
pub type Reservation = (String, AddressSet);

/// Something that a watch shows.
#[derive(Clone, Debug)]
pub enum Change {
    /// A source is listed again: what does not come is gone.
    Listing(Source),
    /// The list of a source is complete.
    Listed(Source),
    /// The cluster has no such resource, and so no object of it.
    Absent(Source),
    /// A Service is like this.
    Service(Box<Service>),
    /// A Service is gone.
    ServiceGone(NamespacedName, String),
    /// An EipBinding is like this.
    Eip(Box<Binding>),
    /// An EipBinding is gone.
    EipGone(NamespacedName, String),
    /// A virtual machine is like this.
    Machine(Box<Vmi>),
    /// A virtual machine is gone.
    MachineGone(NamespacedName, String),
    /// A claim is like this.
    Claim(Box<Claim>),
    /// A claim is gone.
    ClaimGone(IpAddr, String),
    /// The pool ConfigMap is like this.
    Pools(String, BTreeMap<String, String>),
    /// The pool ConfigMap is gone.
    PoolsGone,
    /// Something of this source uses these addresses itself; none when it is gone.
    Reserved(Source, Vec<Reservation>),
    /// A node tells of itself, or its Lease is gone.
    Host(Box<Host>),
    /// The Lease by which one announcer is elected for all Services: its holder, and when it was renewed, as written; none
    /// when it is gone.
    Elected(Option<(String, String)>),
}

/// What a node tells of itself; nothing but its name when its Lease is gone.
#[derive(Clone, Debug, Default)]
pub struct Host {
    /// The node.
    pub node: String,
    /// What it uses.
    pub reservations: Vec<Reservation>,
    /// The hardware addresses by which it answers.
    pub macs: BTreeSet<Mac>,
    /// By uid, which addresses the network gave it for Services.
    pub offers: BTreeSet<(String, IpAddr)>,
    /// For how long routers may lead addresses to it of which nothing is heard any more, where it tells any.
    pub keeps: Option<Duration>,
    /// When its announcer renewed the Lease, as written; none when that is gone.
    pub renewed: Option<String>,
}

/// The kind of claimants that a source lists.
fn kind_of(source: Source) -> OwnerKind {
    if source == Source::Eips { OwnerKind::EipBinding } else { OwnerKind::Service }
}

/// Applies changes to the index, and works out what a list that starts again does not have any more.
#[derive(Debug, Default)]
pub struct Intake {
    /// Those of each kind that a list which is coming in has not shown yet.
    claimants: BTreeMap<OwnerKind, BTreeSet<Id>>,
    machines: Option<BTreeSet<NamespacedName>>,
    claims: Option<BTreeMap<IpAddr, String>>,
    /// By source, the names of reservations that a list which is coming in has not shown yet.
    unused: BTreeMap<Source, BTreeSet<String>>,
    used: BTreeMap<Source, BTreeSet<String>>,
    /// The nodes that tell of themselves, and that a list which is coming in has not shown yet.
    hosts: Option<BTreeSet<String>>,
    pools: Option<bool>,
}

impl Intake {
    /// Takes in one change.
    pub fn take(&mut self, change: Change, index: &mut Index, now: Duration) {
        match change {
            Change::Listing(source) => self.start(source, index),
            Change::Listed(source) => {
                self.finish(source, index, now);
                index.listed(source, now);
            }
            Change::Absent(source) => {
                self.finish(source, index, now);
                index.absent(source, now);
            }
            Change::Service(service) => {
                self.shown(&Id::service(&service.key));
                index.apply(Claimant::Service(*service), now);
            }
            Change::ServiceGone(key, uid) => {
                index.remove_claimant(&Id::service(&key), Some(&uid), now);
            }
            Change::Eip(binding) => {
                self.shown(&Id::eip(&binding.key));
                index.apply(Claimant::Eip(*binding), now);
            }
            Change::EipGone(key, uid) => index.remove_claimant(&Id::eip(&key), Some(&uid), now),
            Change::Machine(vmi) => {
                if let Some(missing) = &mut self.machines {
                    missing.remove(&vmi.key);
                }
                index.apply_machine(*vmi);
            }
            Change::MachineGone(key, uid) => index.remove_machine(&key, Some(&uid)),
            Change::Claim(claim) => {
                if let Some(missing) = &mut self.claims {
                    missing.remove(&claim.address);
                }
                index.apply_claim(*claim, now);
            }
            Change::ClaimGone(address, uid) => index.remove_claim(address, &uid, now),
            Change::Pools(uid, data) => {
                self.pools = self.pools.map(|_| true);
                index.apply_pools(uid, &data);
            }
            Change::PoolsGone => index.remove_pools(),
            Change::Reserved(source, reservations) => self.reserve(source, reservations, index),
            Change::Host(host) => {
                let Host { node, reservations, macs, offers, keeps, renewed } = *host;
                self.reserve(Source::Hosts, reservations, index);
                if let Some(missing) = &mut self.hosts {
                    missing.remove(&node);
                }
                index.offer(&node, offers);
                index.meet(&node, macs);
                index.route(&node, keeps, now);
                index.hear(&node, renewed.as_deref(), now);
            }
            Change::Elected(elected) => {
                let elected = elected.as_ref();
                index.elect(elected.map(|(holder, at)| (holder.as_str(), at.as_str())), now);
            }
        }
    }

    fn reserve(&mut self, source: Source, reservations: Vec<Reservation>, index: &mut Index) {
        for (name, addresses) in reservations {
            if let Some(missing) = self.unused.get_mut(&source) {
                missing.remove(&name);
            }
            index.reserve(&name, addresses);
            self.used.entry(source).or_default().insert(name);
        }
    }

    fn shown(&mut self, id: &Id) {
        if let Some(missing) = self.claimants.get_mut(&id.kind) {
            missing.remove(id);
        }
    }

    fn start(&mut self, source: Source, index: &Index) {
        match source {
            Source::Services | Source::Eips => {
                let kind = kind_of(source);
                self.claimants.insert(kind, index.known_claimants(kind));
            }
            Source::Machines => self.machines = Some(index.known_machines()),
            Source::Claims => self.claims = Some(index.known_claims()),
            Source::Nodes
            | Source::ServiceCidrs
            | Source::Hosts
            | Source::ApiServers
            | Source::ControlPlane
            | Source::ControlPlaneHosts => {
                let known = self.used.get(&source).cloned().unwrap_or_default();
                self.unused.insert(source, known);
                if source == Source::Hosts {
                    self.hosts = Some(index.known_hosts());
                }
            }
            Source::Pools => self.pools = Some(false),
        }
    }

    fn finish(&mut self, source: Source, index: &mut Index, now: Duration) {
        match source {
            Source::Services | Source::Eips => {
                let gone = self.claimants.remove(&kind_of(source)).unwrap_or_default();
                gone.iter().for_each(|id| index.remove_claimant(id, None, now));
            }
            Source::Machines => {
                let gone = self.machines.take().unwrap_or_default();
                gone.iter().for_each(|key| index.remove_machine(key, None));
            }
            Source::Claims => {
                let gone = self.claims.take().unwrap_or_default();
                gone.iter().for_each(|(address, uid)| index.remove_claim(*address, uid, now));
            }
            Source::Nodes
            | Source::ServiceCidrs
            | Source::Hosts
            | Source::ApiServers
            | Source::ControlPlane
            | Source::ControlPlaneHosts => {
                for name in self.unused.remove(&source).unwrap_or_default() {
                    index.reserve(&name, AddressSet::new());
                    self.used.entry(source).or_default().remove(&name);
                }
                if source == Source::Hosts {
                    for node in self.hosts.take().unwrap_or_default() {
                        index.offer(&node, BTreeSet::new());
                        index.route(&node, None, now);
                        index.hear(&node, None, now);
                    }
                    index.heard_again(now);
                }
            }
            Source::Pools => {
                if self.pools.take() == Some(false) {
                    index.remove_pools();
                }
            }
        }
    }
}
