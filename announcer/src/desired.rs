//! What this node should hold: which addresses, where, and for which Services; and why not. Pure.

mod fenced;
mod placement;
mod unproven;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::conflict::{Conflicts, Mac, MacText};
use berth_api::names::annotation;
use berth_api::preference::InvalidPreference;
use berth_api::reason;

use crate::advertise::arp_nd::schedule::Link;
use crate::kernel::{Host, Port, Vlan};
use crate::ownership::leases::Tied;
use crate::ownership::{Candidates, Strategy, View, elect};
use crate::source::cluster::{Cluster, Name, Service};

/// What is seen from this node.
#[derive(Clone, Copy)]
pub struct Scene<'a> {
    /// What the watches have shown.
    pub cluster: &'a Cluster,
    /// What the kernel has shown.
    pub host: &'a Host,
    /// This node.
    pub node: &'a str,
    /// Interface for Services that name none; none for that of the default route.
    pub interface: Option<&'a str>,
}

/// Everything that decides on what this node should hold where Leases decide on the owner.
pub struct Inputs<'a> {
    /// What is seen.
    pub scene: Scene<'a>,
    /// By Service, the Lease that decides on it.
    pub leases: &'a BTreeMap<Name, Name>,
    /// Who holds a Lease, and until when if it is this node.
    pub hold: &'a dyn Fn(&Name) -> (View, Option<Instant>),
}

pub(crate) use fenced::KEPT;
pub use fenced::fenced;
pub(crate) use placement::{connected, place, place_anywhere};
pub use placement::{guarded, interface, is_auto, is_awaited, vlans};
pub use unproven::questions;
pub(crate) use unproven::{conflict, question};

/// What this node should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The addresses to answer for.
    pub addresses: BTreeMap<IpAddr, Place>,
    /// The ports of every Service in the cluster: guarded before an address comes here.
    pub guard: BTreeSet<Port>,
    /// What becomes of each Service that this node decides on.
    pub verdicts: BTreeMap<Name, Verdict>,
    /// The VLAN interfaces that Services need here, by name, whoever owns their addresses: a takeover waits for none.
    pub vlans: BTreeMap<String, Vlan>,
}

/// Where an address is held, and how long.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The interface.
    pub link: Link,
    /// This node may have it until then.
    pub until: Instant,
    /// Whether this node may answer for it: not before the fence lets it.
    pub answers: bool,
    /// The ports that its Services have on it.
    pub ports: BTreeSet<Port>,
}

/// What becomes of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The addresses to announce, in the order of the Service.
    pub announce: Vec<IpAddr>,
    /// Why others are not announced.
    pub refusals: Vec<Refusal>,
    /// Those of them of which it is not known yet whether another host has them.
    pub asked: BTreeSet<IpAddr>,
}

/// Why an address is not announced here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No endpoint is ready anywhere.
    NoEndpoint,
    /// `externalTrafficPolicy: Local`, and no endpoint is ready on the owner.
    NoLocalEndpoint {
        /// The owner: this node.
        node: String,
    },
    /// Membership grants the addresses to nobody.
    NotGranted {
        /// Who had them last: this node.
        node: String,
    },
    /// The host has no such interface.
    InterfaceMissing {
        /// Its name; none if it was to be that of the default route.
        name: Option<String>,
    },
    /// The interface has no hardware address, or no carrier.
    InterfaceUnfit {
        /// Its name.
        name: String,
        /// What it lacks.
        lacks: &'static str,
    },
    /// The VLAN that a Service names is no number of one.
    InvalidVlan {
        /// As it is written.
        text: String,
    },
    /// The kernel does not make the interface of a VLAN.
    VlanNotMade {
        /// Its name.
        name: String,
        /// What the kernel said.
        error: String,
    },
    /// The host has the address itself.
    AddressOnHost {
        /// The address.
        address: IpAddr,
        /// The interface that has it.
        interface: String,
    },
    /// Another host on the LAN has the address.
    AddressConflict {
        /// The address.
        address: IpAddr,
        /// The hardware address of that host.
        mac: Mac,
        /// The node that heard it.
        node: String,
        /// The interface on which it was heard.
        interface: String,
    },
    /// An entry of the annotation is no address.
    InvalidAddress {
        /// As it is written.
        text: String,
    },
    /// An entry of the annotation with preferred nodes is not readable.
    InvalidPreference {
        /// What is wrong with it.
        error: InvalidPreference,
    },
    /// Annotations that this version does not act on.
    NotSupported {
        /// Their names.
        annotations: Vec<String>,
    },
    /// The kernel does not take the address.
    NotBound {
        /// The address.
        address: IpAddr,
        /// What the kernel said.
        error: String,
    },
}

impl Refusal {
    /// The stable reason, for Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::NoEndpoint => "NoEndpoint",
            Self::NoLocalEndpoint { .. } => "NoLocalEndpoint",
            Self::NotGranted { .. } => "NotGranted",
            Self::InterfaceMissing { .. } => "InterfaceMissing",
            Self::InterfaceUnfit { .. } => "InterfaceUnfit",
            Self::InvalidVlan { .. } => "InvalidVlan",
            Self::VlanNotMade { .. } => "VlanNotMade",
            Self::AddressOnHost { .. } => "AddressOnHost",
            Self::AddressConflict { .. } => reason::ADDRESS_CONFLICT,
            Self::InvalidAddress { .. } => reason::INVALID_ADDRESS,
            Self::InvalidPreference { .. } => "InvalidPreference",
            Self::NotSupported { .. } => "NotSupported",
            Self::NotBound { .. } => "NotBound",
        }
    }

    /// What it is, for people.
    pub fn note(&self) -> String {
        match self {
            Self::NoEndpoint => "not announced: no endpoint of this Service is ready".to_owned(),
            Self::NoLocalEndpoint { node } => format!(
                "not announced: spec.externalTrafficPolicy is Local and node {node}, which owns the addresses, has no \
                 ready endpoint; accepted: an endpoint there, externalTrafficPolicy Cluster, or an election per Service"
            ),
            Self::NotGranted { node } => format!(
                "not announced: node {node} had the addresses and no majority of nodes grants them to it; \
                 docs/failover.md"
            ),
            Self::InterfaceMissing { name: Some(name) } => {
                format!("not announced: the node has no interface {name}")
            }
            Self::InterfaceMissing { name: None } => {
                "not announced: no interface is named and the node has no default route".to_owned()
            }
            Self::InterfaceUnfit { name, lacks } => {
                format!("not announced: interface {name} has no {lacks}")
            }
            Self::InvalidVlan { text } => format!(
                "not announced: kube-vip.io/serviceVLAN has {text:?}; accepted is a whole number from 1 to 4094"
            ),
            Self::VlanNotMade { name, error } => {
                format!("not announced: the node cannot make VLAN interface {name}: {error}")
            }
            Self::AddressOnHost { address, interface } => format!(
                "{address} is not announced: it is an address of the node itself, on interface {interface}"
            ),
            Self::AddressConflict { address, mac, node, interface } => format!(
                "{address} is not announced: another host, {}, answers for it on the LAN of interface {interface} of \
                 node {node}; it is taken as soon as that host is silent",
                MacText(*mac)
            ),
            Self::InvalidAddress { text } => format!(
                "kube-vip.io/loadbalancerIPs or spec.loadBalancerIP has {text:?}; accepted are IPv4 and IPv6 addresses"
            ),
            Self::InvalidPreference { error } => {
                format!("{}: {error}, and is passed over", annotation::PREFERRED_NODES)
            }
            Self::NotSupported { annotations } => {
                format!("annotations that this version does not act on: {}", annotations.join(", "))
            }
            Self::NotBound { address, error } => format!("{address} is not announced: {error}"),
        }
    }
}

impl Refusal {
    /// An address that another host has, and that host.
    pub fn conflict(&self) -> Option<(IpAddr, Mac)> {
        match self {
            Self::AddressConflict { address, mac, .. } => Some((*address, *mac)),
            _ => None,
        }
    }
}

impl Verdict {
    /// The addresses that another host has.
    pub fn conflicts(&self) -> Conflicts {
        self.refusals.iter().filter_map(Refusal::conflict).collect()
    }
}

/// Computes what this node should hold.
pub fn desired(inputs: &Inputs<'_>) -> Desired {
    let mut desired = Desired::default();
    let scene = inputs.scene;
    for (name, service) in scene.cluster.services() {
        if service.ours {
            desired.guard.extend(ports(service));
        }
        let Some(lease) = inputs.leases.get(name) else { continue };
        let (view, until) = (inputs.hold)(lease);
        let Some(until) = until.filter(|_| view.holder.as_deref() == Some(scene.node)) else {
            continue;
        };
        let verdict = verdict(scene, name, service, &view);
        for address in &verdict.announce {
            if let Ok(link) = place(scene, service, *address) {
                desired.put(service, *address, link, until, true);
            }
        }
        desired.verdicts.insert(name.clone(), verdict);
    }
    desired
}

impl Desired {
    fn put(
        &mut self,
        service: &Service,
        address: IpAddr,
        link: Link,
        until: Instant,
        answers: bool,
    ) {
        let begin = || Place { link, until, answers, ports: BTreeSet::new() };
        let place = self.addresses.entry(address).or_insert_with(begin);
        place.ports.extend(ports(service).filter(|port| port.address == address));
    }
}

/// What is wrong with a Service whoever announces it.
fn remarks(service: &Service) -> impl Iterator<Item = Refusal> + '_ {
    let invalid = |text: &String| Refusal::InvalidAddress { text: text.clone() };
    let annotations = Some(&service.unsupported).filter(|annotations| !annotations.is_empty());
    let unsupported = |names: &Vec<String>| Refusal::NotSupported { annotations: names.clone() };
    let preference =
        |error: &InvalidPreference| Refusal::InvalidPreference { error: error.clone() };
    let preferences = service.unreadable_preferences.iter().map(preference);
    service.unreadable.iter().map(invalid).chain(preferences).chain(annotations.map(unsupported))
}

fn verdict(inputs: Scene<'_>, name: &Name, service: &Service, view: &View) -> Verdict {
    let mut verdict = Verdict::default();
    if !service.ours {
        return verdict;
    }
    verdict.refusals.extend(remarks(service));
    if service.addresses.is_empty() {
        return verdict;
    }
    let candidates = Candidates::of(inputs.cluster, name);
    let previous = service.vip_host.as_deref();
    if elect(&candidates, view, previous) != Some(inputs.node) {
        let node = inputs.node.to_owned();
        let somewhere = inputs.cluster.has_endpoint(name);
        verdict.refusals.push(if somewhere {
            Refusal::NoLocalEndpoint { node }
        } else {
            Refusal::NoEndpoint
        });
        return verdict;
    }
    for address in &service.addresses {
        match place(inputs, service, *address) {
            Ok(_) => verdict.announce.push(*address),
            Err(refusal) if !verdict.refusals.contains(&refusal) => verdict.refusals.push(refusal),
            Err(_) => {}
        }
    }
    verdict
}

/// The Leases that this node should strive for, each with the Service it is tied to.
pub fn wanted(inputs: &Inputs<'_>, strategy: &dyn Strategy) -> BTreeMap<Name, Option<Tied>> {
    let mut by_lease: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
    let scene = inputs.scene;
    let services = scene.cluster.services();
    for (service, lease) in inputs.leases {
        if let Some((service, _)) = services.get_key_value(service) {
            by_lease.entry(lease).or_default().insert(service);
        }
    }
    let mut wanted = BTreeMap::new();
    if let Some(lease) = strategy.standing() {
        // A node without the interface would own every address and answer for none.
        if interface(scene.host, scene.interface).is_ok() {
            wanted.insert(lease.clone(), None);
        }
        return wanted;
    }
    let usable = |name: &Name| {
        services.get(name).is_some_and(|service| {
            let placed = |a: &IpAddr| place(scene, service, *a).is_ok();
            service.addresses.iter().any(placed)
        })
    };
    for (lease, of_lease) in by_lease {
        if strategy.strives(scene.node, &of_lease, scene.cluster, &usable) {
            let oldest = of_lease.iter().map(|name| (*name, &services[*name]));
            let oldest = oldest.min_by_key(|(name, service)| (&service.created, *name));
            let claims = of_lease.iter().filter_map(|name| services[*name].vip_host.as_deref());
            let claimed_by = claims.filter(|host| *host != scene.node).max();
            let tied = |(name, service): (&Name, &Service)| Tied {
                name: name.name.clone(),
                uid: service.uid.clone(),
                claimed_by: claimed_by.map(str::to_owned),
            };
            wanted.insert(lease.clone(), oldest.map(tied));
        }
    }
    wanted
}

fn ports(service: &Service) -> impl Iterator<Item = Port> + '_ {
    service.addresses.iter().flat_map(|address| {
        let port = |port: &berth_api::service::Port| Port {
            address: *address,
            protocol: protocol_number(port.protocol),
            port: port.number,
        };
        service.ports.iter().map(port)
    })
}

fn protocol_number(protocol: berth_api::service::Protocol) -> u8 {
    use berth_api::service::Protocol::{Sctp, Tcp, Udp};
    match protocol {
        Tcp => 6,
        Udp => 17,
        Sctp => 132,
    }
}

#[cfg(test)]
mod tests;
