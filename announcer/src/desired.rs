//! What this node should hold: which addresses, where, and for which Services; and why not. Pure.

mod fenced;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Instant;

use berth_api::names::annotation;
use berth_api::preference::InvalidPreference;
use berth_api::reason;

use crate::cluster::{Cluster, Name, Service};
use crate::kernel::{Host, Interface, Port};
use crate::l2::schedule::Link;
use crate::ownership::leases::Tied;
use crate::ownership::{Candidates, Strategy, View, elect};

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

pub use fenced::fenced;

/// What this node should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// The addresses to answer for.
    pub addresses: BTreeMap<IpAddr, Place>,
    /// The ports of every Service in the cluster: guarded before an address comes here.
    pub guard: BTreeSet<Port>,
    /// What becomes of each Service that this node decides on.
    pub verdicts: BTreeMap<Name, Verdict>,
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
    /// The host has the address itself.
    AddressOnHost {
        /// The address.
        address: IpAddr,
        /// The interface that has it.
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
            Self::InterfaceMissing { .. } => "InterfaceMissing",
            Self::InterfaceUnfit { .. } => "InterfaceUnfit",
            Self::AddressOnHost { .. } => "AddressOnHost",
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
            Self::InterfaceMissing { name: Some(name) } => {
                format!("not announced: the node has no interface {name}")
            }
            Self::InterfaceMissing { name: None } => {
                "not announced: no interface is named and the node has no default route".to_owned()
            }
            Self::InterfaceUnfit { name, lacks } => {
                format!("not announced: interface {name} has no {lacks}")
            }
            Self::AddressOnHost { address, interface } => format!(
                "{address} is not announced: it is an address of the node itself, on interface {interface}"
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

/// The interface for Services that name none, ready to send.
pub fn interface<'a>(
    host: &'a Host,
    name: Option<&str>,
) -> Result<(&'a str, &'a Interface, Link), Refusal> {
    let named = name.or(host.default_route.as_deref());
    let missing = || Refusal::InterfaceMissing { name: named.map(str::to_owned) };
    let (name, interface) =
        named.and_then(|name| host.interfaces.get_key_value(name)).ok_or_else(missing)?;
    let lacks = |lacks| Refusal::InterfaceUnfit { name: name.clone(), lacks };
    let mac = interface.mac.ok_or_else(|| lacks("Ethernet address"))?;
    if !interface.up {
        return Err(lacks("carrier"));
    }
    Ok((name, interface, Link { index: interface.index, mac }))
}

/// The interfaces to fence: those that Services name, and those with an address of the node, where neighbours may ask.
pub fn guarded(scene: Scene<'_>) -> BTreeSet<String> {
    let services = scene.cluster.services().values().filter(|service| service.ours);
    let named: BTreeSet<&str> = services
        .filter_map(|service| service.interface.as_deref())
        .chain(scene.interface)
        .chain(scene.host.default_route.as_deref())
        .collect();
    let global = |address: &IpAddr| match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    };
    let guarded = scene.host.interfaces.iter().filter(|(name, interface)| {
        // The loopback interface has a hardware address of zeroes.
        interface.mac.is_some_and(|mac| mac != [0; 6])
            && (named.contains(name.as_str()) || interface.foreign.keys().any(global))
    });
    guarded.map(|(name, _)| name.clone()).collect()
}

/// Where an address of a Service belongs on this host.
pub(crate) fn place(scene: Scene<'_>, service: &Service, address: IpAddr) -> Result<Link, Refusal> {
    let Scene { host, interface: default, .. } = scene;
    let name = match service.interface.as_deref() {
        Some("auto") => connected(host, address).or(default),
        Some(name) => Some(name),
        None => default,
    };
    let (name, interface, link) = interface(host, name)?;
    // Binding what the node has already would change the node's own address, and later take it away.
    if interface.foreign.get(&address).is_some_and(|foreign| !foreign.adoptable) {
        return Err(Refusal::AddressOnHost { address, interface: name.to_owned() });
    }
    Ok(link)
}

/// The interface that has the subnet of `address`, the one with the longest prefix if there are several.
fn connected(host: &Host, address: IpAddr) -> Option<&str> {
    let subnets = host.interfaces.iter().flat_map(|(name, interface)| {
        let foreign = interface.foreign.iter();
        foreign.map(move |(own, foreign)| (foreign.prefix_len, name, *own))
    });
    let connected = subnets.filter(|(length, _, own)| shares_prefix(*own, address, *length));
    connected.map(|(length, name, _)| (length, name.as_str())).max().map(|(_, name)| name)
}

fn shares_prefix(a: IpAddr, b: IpAddr, length: u8) -> bool {
    let (bits, a, b) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32, a.to_bits().into(), b.to_bits().into()),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return false,
    };
    let differ: u128 = a ^ b;
    differ.checked_shr(bits - u32::from(length).min(bits)).unwrap_or(0) == 0
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
