//! Where an address belongs on this host. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Quoted;

use super::cluster::{Name, Service};
use super::scene::Scene;
use crate::kernel::{Host, Interface, Vlan, is_global};
use crate::vip::{Attach, Link, Refusal};

/// The interface of a Service: the one whose subnet has its address.
const AUTO: &str = "auto";

/// An interface for Services that name none, ready to send; else why the first one is not.
pub fn interface<'a>(
    host: &'a Host,
    name: Option<&'a str>,
) -> Result<(&'a str, &'a Interface, Link), Refusal> {
    let mut first = None;
    for found in own(host, name).map(|found| ready(host.met(found))) {
        match found {
            Ok(found) => return Ok(found),
            Err(refusal) => _ = first.get_or_insert(refusal),
        }
    }
    Err(first.unwrap_or_else(|| missing(name)))
}

/// The interface of this name, or that of the default route for the address.
fn named<'a>(
    host: &'a Host,
    name: Option<&str>,
    address: IpAddr,
) -> Result<(&'a str, &'a Interface), Refusal> {
    let named = name.or_else(|| host.default_for(address));
    named.and_then(|name| host.interface(name)).ok_or_else(|| missing(named))
}

fn missing(name: Option<&str>) -> Refusal {
    Refusal::InterfaceMissing { name: name.map(Quoted::of) }
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
    (name, interface): (&'a str, &'a Interface),
) -> Result<(&'a str, &'a Interface, Link), Refusal> {
    let lacks = |lacks| Refusal::InterfaceUnfit { name: Quoted::of(name), lacks };
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
    let (parent, _, _) = ready(named(host, base(scene, service, address), address)?)?;
    if !is_permitted(scene, namespace, parent) {
        return Err(Refusal::InterfaceNotPermitted { name: Quoted::of(parent) });
    }
    let vlan = match &service.vlan {
        None => None,
        Some(Ok(id)) if !scene.permits.vlan(namespace, *id) => {
            return Err(Refusal::VlanNotPermitted { id: *id });
        }
        Some(Ok(id)) => Some(Vlan::name(parent, *id)),
        Some(Err(text)) => return Err(Refusal::InvalidVlan { text: text.clone() }),
    };
    let name = vlan.as_deref().unwrap_or(parent);
    if let Some(error) = host.unmade.get(name).filter(|_| !host.interfaces.contains_key(name)) {
        return Err(Refusal::VlanNotMade { name: Quoted::of(name), error: error.clone() });
    }
    place_on(scene, Some(name), address)
}

/// Where an address that names no interface belongs on this host.
pub(crate) fn place_anywhere(scene: Scene<'_>, address: IpAddr) -> Result<Attach, Refusal> {
    place_on(scene, scene.interface, address)
}

fn place_on(scene: Scene<'_>, name: Option<&str>, address: IpAddr) -> Result<Attach, Refusal> {
    let (_, _, link) = ready(scene.host.met(named(scene.host, name, address)?))?;
    // Binding what the node has already would change the node's own address, and later take it away.
    let left = scene.cluster.claims.may_be_left(&address);
    if let Some(owner) = scene.host.has_itself(&address, left) {
        return Err(Refusal::AddressOnHost { address, interface: owner.to_owned() });
    }
    if let Some(why) = scene.host.uncovered.get(&address) {
        return Err(Refusal::NotBound { address, error: why.clone() });
    }
    Ok(Attach::L2(link))
}

/// The VLAN interfaces that Services need on this host, by name. One that is there already, and was not made by us, is
/// used as it is.
pub fn vlans(scene: Scene<'_>) -> BTreeMap<String, Vlan> {
    let mut vlans = BTreeMap::new();
    for (Name { namespace, .. }, service) in scene.cluster.services() {
        let Some(Ok(id)) = service.vlan.as_ref().filter(|_| service.ours) else { continue };
        if !scene.permits.vlan(namespace, *id) {
            continue;
        }
        if let Some(Err(_)) = service.interface {
            continue;
        }
        for address in held(scene, service) {
            let parent =
                named(scene.host, base(scene, service, *address), *address).and_then(ready);
            if let Ok((name, interface, _)) = parent
                && is_permitted(scene, namespace, name)
            {
                vlans.insert(Vlan::name(name, *id), Vlan { parent: interface.index, id: *id });
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
mod tests {
    use berth_api::Family;
    use berth_api::claim::{ClaimPolicy, Holder};

    use super::*;
    use crate::config::{Config, Permits, Settings};
    use crate::kernel::Foreign;
    use crate::source::cluster::testing::service;
    use crate::source::cluster::{Claims, Cluster};
    use crate::source::testing::two_interfaces;

    fn refused(host: &Host, address: &str) -> Option<&'static str> {
        let cluster = Cluster::default();
        let scene = Scene {
            cluster: &cluster,
            host,
            node: "a",
            interface: Some("eth0"),
            permits: Permits::ALL,
        };
        place_anywhere(scene, address.parse().unwrap()).err().map(|refusal| refusal.reason())
    }

    #[test]
    fn the_hosts_own_address_on_another_interface_is_not_to_be_had() {
        let mut host = two_interfaces();
        assert_eq!(refused(&host, "192.0.2.5"), Some("AddressOnHost"));
        let eth1 = host.interfaces.remove("eth1").unwrap();
        host.interfaces.insert("kube-ipvs0".to_owned(), eth1);
        assert_eq!(refused(&host, "192.0.2.5"), None, "a copy of kube-proxy's");
    }

    /// The interface of an address that names none, where default routes lead so.
    fn placed(host: &Host, address: &str) -> Option<u32> {
        let cluster = Cluster::default();
        let scene =
            Scene { cluster: &cluster, host, node: "a", interface: None, permits: Permits::ALL };
        match place_anywhere(scene, address.parse().unwrap()) {
            Ok(Attach::L2(link)) => Some(link.index),
            _ => None,
        }
    }

    #[test]
    fn an_address_goes_where_the_default_route_of_its_family_leads_and_to_its_subnet_of_several() {
        let mut host = two_interfaces();
        let lead = |host: &mut Host, family, names: &[&str]| {
            let names = names.iter().map(|name| (*name).to_owned()).collect();
            host.default_routes.insert(family, names);
        };
        assert_eq!(placed(&host, "fd00::9"), Some(2), "that of the other family");
        lead(&mut host, Family::V6, &["eth1"]);
        assert_eq!((placed(&host, "fd00::9"), placed(&host, "192.0.2.9")), (Some(3), Some(2)));
        lead(&mut host, Family::V4, &["eth0", "eth1"]);
        assert_eq!(placed(&host, "192.0.2.9"), Some(3), "its subnet");
        assert_eq!(placed(&host, "10.0.0.9"), Some(2), "its subnet");
        assert_eq!(placed(&host, "203.0.113.9"), Some(2), "the first");
        host.interfaces.get_mut("eth0").unwrap().up = false;
        assert_eq!(placed(&host, "10.0.0.9"), Some(3), "the one that is up");
        // What has no Ethernet address is no LAN, as a tunnel of IPv6.
        host.interfaces.get_mut("eth1").unwrap().mac = None;
        host.interfaces.get_mut("eth0").unwrap().up = true;
        assert_eq!(placed(&host, "fd00::9"), Some(2), "not by the tunnel");
        host.default_routes.clear();
        assert_eq!(placed(&host, "10.0.0.9"), None);
    }

    #[test]
    fn what_the_fence_does_not_cover_is_not_to_be_had_here() {
        let mut host = two_interfaces();
        host.uncovered.insert("192.0.2.77".parse().unwrap(), "full".to_owned());
        assert_eq!(refused(&host, "192.0.2.77"), Some("NotBound"));
        assert_eq!(refused(&host, "192.0.2.78"), None);
    }

    #[test]
    fn what_an_announcer_left_is_taken_over_only_where_its_claim_is_older() {
        let (mut host, address) = (two_interfaces(), "192.0.2.9".parse().unwrap());
        let eth0 = host.interfaces.get_mut("eth0").unwrap();
        eth0.foreign.insert(address, Foreign { prefix_len: 32, adoptable: true });
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let refused = |cluster: &Cluster, host: &Host| {
            let scene =
                Scene { cluster, host, node: "a", interface: Some("eth0"), permits: Permits::ALL };
            place_anywhere(scene, address).err().map(|refusal| refusal.reason())
        };
        assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "nobody claims it");
        cluster.claims.apply("192.0.2.9", vec![Holder::alone("web")], false);
        assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "found later");
        cluster.claims.apply("192.0.2.9", vec![Holder::alone("web")], true);
        assert_eq!(refused(&cluster, &host), None);
        assert_eq!(refused(&Cluster::default(), &host), None, "where claims do not matter");
        for interface in host.interfaces.values_mut() {
            interface.foreign.retain(|_, foreign| foreign.adoptable);
        }
        assert_eq!(refused(&cluster, &host), Some("AddressOnHost"), "its only address");
    }

    #[test]
    fn a_service_has_addresses_only_where_the_operator_permits() {
        let (host, address) = (two_interfaces(), "192.0.2.77".parse().unwrap());
        let cluster = Cluster::default();
        let refused = |interface: Option<&str>, vlan: Option<u16>, lists: [&str; 2]| {
            let given = ["berth_service_interfaces", "berth_service_vlans"];
            let given = given.into_iter().zip(lists).map(|(name, list)| (name.into(), list.into()));
            let config = Config::parse(&Settings::gather(given, []), "a").unwrap();
            let permits = &config.services.unwrap().permits;
            let scene = Scene {
                cluster: &cluster,
                host: &host,
                node: "a",
                interface: Some("eth0"),
                permits,
            };
            let service = Service {
                interface: interface.map(|name| Ok(name.to_owned())),
                vlan: vlan.map(Ok),
                ..service(&["192.0.2.77"])
            };
            place(scene, "shop", &service, address).err().map(|refusal| refusal.reason())
        };
        assert_eq!(refused(Some("eth1"), None, ["", ""]), Some("InterfaceNotPermitted"));
        assert_eq!(
            refused(Some("auto"), None, ["", ""]),
            Some("InterfaceNotPermitted"),
            "it is eth1"
        );
        for named in [None, Some("eth0")] {
            assert_eq!(refused(named, None, ["", ""]), None);
        }
        for listed in ["eth1", "blog/eth1,shop/eth1"] {
            assert_eq!(refused(Some("eth1"), None, [listed, ""]), None);
            assert_eq!(refused(Some("auto"), None, [listed, ""]), None);
        }
        for of_others in ["blog/eth1", "shop/eth0"] {
            let told = Some("InterfaceNotPermitted");
            assert_eq!(refused(Some("eth1"), None, [of_others, ""]), told);
            assert_eq!(refused(Some("auto"), None, [of_others, ""]), told);
        }
        assert_eq!(refused(None, Some(5), ["", ""]), Some("VlanNotPermitted"));
        assert_eq!(refused(None, Some(5), ["", "6-9"]), Some("VlanNotPermitted"));
        assert_eq!(refused(None, Some(5), ["", "blog/5"]), Some("VlanNotPermitted"));
        for listed in ["5", "shop/1-9"] {
            assert_ne!(refused(None, Some(5), ["", listed]), Some("VlanNotPermitted"));
        }
    }

    #[test]
    fn what_a_namespace_may_not_name_is_neither_fenced_for_it_nor_made() {
        let mut cluster = Cluster::default();
        let interface = Some(Ok("eth2".to_owned()));
        let web = Service { interface, vlan: Some(Ok(5)), ..service(&["192.0.2.77"]) };
        cluster.apply_service(Name::new("shop", "web"), web);
        let mut host = two_interfaces();
        let mut eth2 = Interface { index: 9, ..host.interfaces["eth1"].clone() };
        eth2.foreign.clear();
        host.interfaces.insert("eth2".to_owned(), eth2);
        let made = |namespace: &str| {
            let given = ["berth_service_interfaces", "berth_service_vlans"];
            let lists = [format!("{namespace}/eth2"), format!("{namespace}/5")];
            let given = given.into_iter().map(Into::into).zip(lists.map(Into::into));
            let config = Config::parse(&Settings::gather(given, []), "a").unwrap();
            let permits = &config.services.unwrap().permits;
            let interface = Some("eth0");
            let scene = Scene { cluster: &cluster, host: &host, node: "a", interface, permits };
            let vlans: Vec<String> = vlans(scene).into_keys().collect();
            (guarded(scene).contains("eth2"), vlans)
        };
        assert_eq!(made("shop"), (true, vec!["eth2.5".to_owned()]));
        assert_eq!(made("blog"), (false, vec![]));
    }

    #[test]
    fn a_port_of_a_port_is_met_on_the_topmost_and_a_vlan_is_its_own() {
        let mut host = two_interfaces();
        let bridge = Interface { index: 9, ..host.interfaces["eth1"].clone() };
        host.interfaces.insert("br0".to_owned(), bridge);
        host.ports = [(2, 3), (3, 9)].into();
        host.alternatives = [("uplink".to_owned(), "eth0".to_owned())].into();
        assert_eq!(interface(&host, Some("uplink")).unwrap().0, "br0");
        assert_eq!(named(&host, Some("uplink"), "10.0.0.9".parse().unwrap()).unwrap().0, "eth0");
        host.ports.insert(9, 2);
        assert!(interface(&host, Some("eth0")).is_ok(), "a circle ends");
    }
}
