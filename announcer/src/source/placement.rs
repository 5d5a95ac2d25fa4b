//! Where an address belongs on this host. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::{Family, Quoted};

use super::cluster::{Name, Service};
use super::scene::Scene;
use crate::config::LOOPBACK;
use crate::kernel::{Host, Interface, Vlan, is_global};
use crate::vip::{Attach, Link, Refusal};

/// The interface of a Service: the one whose subnet has its address.
const AUTO: &str = "auto";

/// An interface of `node` for Services that name none, ready to send; else why the first one is not.
pub fn interface<'a>(
    host: &'a Host,
    node: &str,
    name: Option<&'a str>,
) -> Result<(&'a str, &'a Interface, Link), Refusal> {
    let mut first = None;
    for found in own(host, name).map(|found| ready(node, host.met(found))) {
        match found {
            Ok(found) => return Ok(found),
            Err(refusal) => _ = first.get_or_insert(refusal),
        }
    }
    Err(first.unwrap_or_else(|| missing(node, name)))
}

/// The interface of this name, or that of the default route for the address.
fn named<'a>(
    Scene { host, node, .. }: Scene<'a>,
    name: Option<&str>,
    address: IpAddr,
) -> Result<(&'a str, &'a Interface), Refusal> {
    let named = name.or_else(|| host.default_for(address));
    named.and_then(|name| host.interface(name)).ok_or_else(|| missing(node, named))
}

/// Why nothing could be bound on `node` that names no interface; nothing where it can.
pub fn obstacle(scene: Scene<'_>) -> Option<Refusal> {
    let Scene { host, node, interface: own, routed, layer2, .. } = scene;
    let absent = routed.filter(|name| host.interface(name).is_none());
    let on_lan = || routed.is_none() || !layer2.is_empty();
    let absent = absent.map(|name| missing(node, Some(name)));
    absent.or_else(|| on_lan().then(|| interface(host, node, own).err()).flatten())
}

fn missing(node: &str, name: Option<&str>) -> Refusal {
    Refusal::InterfaceMissing { node: node.to_owned(), name: name.map(Quoted::of) }
}

/// Whether this is the index of the interface that is named, whatever that is a port of.
pub fn is_named(host: &Host, name: Option<&str>, index: u32) -> bool {
    let found = own(host, name).find(|(_, interface)| interface.index == index);
    found.is_some()
}

/// The interfaces of this name, or of all default routes.
fn own<'a>(
    host: &'a Host,
    name: Option<&'a str>,
) -> impl Iterator<Item = (&'a str, &'a Interface)> {
    let defaults = host.default_routes.values().flatten().map(String::as_str);
    let names = name.into_iter().chain(defaults.filter(move |_| name.is_none()));
    names.filter_map(|name| host.interface(name))
}

fn ready<'a>(
    node: &str,
    (name, interface): (&'a str, &'a Interface),
) -> Result<(&'a str, &'a Interface, Link), Refusal> {
    let lacks = |lacks| {
        let (node, name) = (node.to_owned(), Quoted::of(name));
        Refusal::InterfaceUnfit { node, name, lacks }
    };
    let mac = interface.mac.ok_or_else(|| lacks("Ethernet address"))?;
    if !interface.up {
        return Err(lacks("carrier"));
    }
    Ok((name, interface, Link { index: interface.index, mac }))
}

/// The interfaces to fence: those that Services name, and those with an address of the node, where neighbours may ask.
pub fn guarded(scene: Scene<'_>) -> BTreeSet<String> {
    let services = scene.cluster.services().iter();
    let services =
        services.filter(|(_, service)| service.ours && held(scene, service).next().is_some());
    let wishes = services.filter_map(|(name, service)| {
        let wished = scene.host.interface(wish(service)?)?;
        is_permitted(scene, &name.namespace, wished.0).then_some(wished)
    });
    let own = own(scene.host, scene.interface).chain(own(scene.host, None));
    let named: BTreeSet<&str> =
        wishes.chain(own).flat_map(|named| [named.0, scene.host.met(named).0]).collect();
    let vlans = vlans(scene);
    let guarded = scene.host.interfaces.iter().filter(|(name, interface)| {
        interface.mac.is_some()
            && (named.contains(name.as_str())
                || vlans.contains_key(*name)
                || interface.foreign.keys().any(is_global))
    });
    guarded.map(|(name, _)| name.clone()).collect()
}

/// Whether a Service names the interface with this index, or one that was not there when this host was last looked at.
pub fn is_awaited(scene: Scene<'_>, index: u32) -> bool {
    let mut interfaces = scene.host.interfaces.iter();
    let known = interfaces.find(|(_, interface)| interface.index == index).map(|(name, _)| name);
    let mut services = scene.cluster.services().values().filter(|service| service.ours);
    services.any(|service| match (wish(service), known) {
        (None | Some(AUTO), _) => false,
        (Some(named), Some(known)) => {
            scene.host.interface(named).is_some_and(|(name, _)| name == known)
        }
        (Some(named), None) => scene.host.interface(named).is_none(),
    })
}

/// Whether the place of an address depends on the addresses of the node.
pub fn is_auto(scene: Scene<'_>) -> bool {
    let mut services = scene.cluster.services().values().filter(|service| service.ours);
    services.any(|service| wish(service) == Some(AUTO))
}

/// Where an address of a Service of the namespace belongs on this host.
pub(crate) fn place(
    scene: Scene<'_>,
    namespace: &str,
    service: &Service,
    address: IpAddr,
) -> Result<Attach, Refusal> {
    let host = scene.host;
    if let Some(Err(text)) = &service.interface {
        return Err(Refusal::InvalidInterface { text: text.clone() });
    }
    if let Some(name) = scene.routed_of(namespace, service) {
        return place_routed(scene, name, address);
    }
    let not_permitted = |name: &str| Refusal::InterfaceNotPermitted { name: Quoted::of(name) };
    // Whether an interface that it may not name is there is not told.
    let found = named(scene, base(scene, service, address), address).map_err(|missing| {
        let unlisted =
            |name: &&str| *name != AUTO && !scene.permits.interface(namespace, |own| own == *name);
        wish(service).filter(unlisted).map_or(missing, not_permitted)
    })?;
    if !is_permitted(scene, namespace, found.0) {
        return Err(not_permitted(found.0));
    }
    let (parent, found, _) = ready(scene.node, found)?;
    let vlan = match &service.vlan {
        None => None,
        Some(Ok(id)) if !scene.permits.vlan(namespace, *id) => {
            return Err(Refusal::VlanNotPermitted { id: *id });
        }
        Some(Ok(id)) => Some(host.vlan_name(parent, Vlan { parent: found.index, id: *id })),
        Some(Err(text)) => return Err(Refusal::InvalidVlan { text: text.clone() }),
    };
    let name = vlan.as_deref().unwrap_or(parent);
    if let Some(error) = host.unmade.get(name).filter(|_| !host.interfaces.contains_key(name)) {
        let (node, name, error) = (scene.node.to_owned(), Quoted::of(name), error.clone());
        return Err(Refusal::VlanNotMade { node, name, error });
    }
    place_on(scene, Some(name), address)
}

/// Where an address that names no interface belongs on this host, where routers lead it to one that is `routed`.
pub(crate) fn place_anywhere(
    scene: Scene<'_>,
    routed: Option<&str>,
    address: IpAddr,
) -> Result<Attach, Refusal> {
    match routed {
        Some(name) => place_routed(scene, name, address),
        None => place_on(scene, scene.interface, address),
    }
}

/// Routers lead it here, whichever interface a Service names; no neighbour is told of it. An IPv6 address of an interface is what
/// a host asks its neighbours with where it answers from it, and nobody is to hear it: such a one is on the loopback interface.
fn place_routed(scene: Scene<'_>, name: &str, address: IpAddr) -> Result<Attach, Refusal> {
    let name = if address.is_ipv6() { LOOPBACK } else { name };
    let (_, interface) = named(scene, Some(name), address)?;
    may_be_bound(scene, address)?;
    // Nobody is asked whose it is.
    let is_gateway = scene.host.gateways.values().any(|routers| routers.contains(&address));
    if is_gateway || scene.host.next_hops.contains(&address) {
        let (node, what) = (scene.node.to_owned(), "the next hop of a route of it".to_owned());
        return Err(Refusal::AddressOfRouter { node, address, what });
    }
    Ok(Attach::Host(interface.index))
}

/// Where an address belongs on this host that is to be on the interface of this name, or on that of the default route.
pub(crate) fn place_on(
    scene: Scene<'_>,
    name: Option<&str>,
    address: IpAddr,
) -> Result<Attach, Refusal> {
    let (name, _, link) = ready(scene.node, scene.host.met(named(scene, name, address)?))?;
    may_be_bound(scene, address)?;
    has_way_back(scene, name, link.index, address)?;
    Ok(Attach::L2(link))
}

fn may_be_bound(scene: Scene<'_>, address: IpAddr) -> Result<(), Refusal> {
    let node = || scene.node.to_owned();
    // Binding what the node has already would change the node's own address, and later take it away.
    let left = scene.cluster.claims.left(&address);
    if let Some(owner) = scene.host.has_itself(&address, left) {
        let interface = owner.to_owned();
        return Err(Refusal::AddressOnHost { node: node(), address, interface });
    }
    // Nor would it reach the router any more that has it.
    if let Some(what) = scene.cluster.routers.get(&address) {
        let what = what.clone();
        return Err(Refusal::AddressOfRouter { node: node(), address, what });
    }
    if let Some(why) = scene.host.uncovered.get(&address) {
        return Err(Refusal::NotBound { node: node(), address, error: why.clone() });
    }
    Ok(())
}

/// Whether somebody who asks for an address on an interface may be answered, as far as the node's settings decide it.
fn has_way_back(scene: Scene<'_>, name: &str, index: u32, address: IpAddr) -> Result<(), Refusal> {
    let Scene { host, node, .. } = scene;
    let (told, family) = (|| (node.to_owned(), Quoted::of(name)), Family::of(&address));
    if family == Family::V4 && host.filtered.contains(&index) {
        let (node, name) = told();
        return Err(Refusal::ReversePathFiltered { node, address, name });
    }
    match host.stranded.contains(&(family, index)) && host.connected(address).is_none() {
        true => {
            let (node, name) = told();
            Err(Refusal::NoWayBack { node, address, name })
        }
        false => Ok(()),
    }
}

/// The VLAN interfaces that Services need on this host, by name. One that is there already, and was not made by us, is
/// used as it is.
pub fn vlans(scene: Scene<'_>) -> BTreeMap<String, Vlan> {
    let mut vlans = BTreeMap::new();
    for (Name { namespace, .. }, service) in scene.cluster.services() {
        let Some(Ok(id)) = service.vlan.as_ref().filter(|_| service.ours) else { continue };
        if !scene.permits.vlan(namespace, *id) || scene.routed_of(namespace, service).is_some() {
            continue;
        }
        if let Some(Err(_)) = service.interface {
            continue;
        }
        for address in held(scene, service) {
            let parent = named(scene, base(scene, service, *address), *address);
            if let Ok((name, interface, _)) = parent.and_then(|found| ready(scene.node, found))
                && is_permitted(scene, namespace, name)
            {
                let vlan = Vlan { parent: interface.index, id: *id };
                vlans.insert(scene.host.vlan_name(name, vlan), vlan);
            }
        }
    }
    vlans
}

/// The addresses that a Service may have.
fn held<'a>(scene: Scene<'a>, service: &'a Service) -> impl Iterator<Item = &'a IpAddr> {
    let granted = |address: &&IpAddr| scene.cluster.claims.grant(address, &service.uid);
    service.addresses.iter().filter(granted)
}

/// The interface that a Service names, or `auto`.
fn wish(service: &Service) -> Option<&str> {
    service.interface.as_ref()?.as_deref().ok()
}

/// Whether Services of the namespace may have addresses on this interface: it is the announcer's own, or listed.
fn is_permitted(scene: Scene<'_>, namespace: &str, name: &str) -> bool {
    let resolved =
        |named: &str| scene.host.interface(named).is_some_and(|(known, _)| known == name);
    own(scene.host, scene.interface).any(|(own, _)| own == name)
        || scene.permits.interface(namespace, resolved)
}

/// The name of the interface that a Service asks for, before its VLAN.
fn base<'a>(scene: Scene<'a>, service: &'a Service, address: IpAddr) -> Option<&'a str> {
    match wish(service) {
        Some(AUTO) => scene.host.connected(address).or(scene.interface),
        Some(name) => Some(name),
        None => scene.interface,
    }
}

#[cfg(test)]
mod tests;
