//! The network as dumps of the kernel show it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Family;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressMessage};
use rtnetlink::packet_route::link::{
    InfoData, InfoPortKind, InfoVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop,
    VlanProtocol,
};
use rtnetlink::packet_route::route::{RouteHeader, RouteMessage};

use super::host::{Binding, Host, Interface, KUBE_VIP_PROTOCOL, Lifetime, Vlan, single};
use super::left::Foreign;
use super::routes::{Hop, hops, metric};
use crate::instance::Instance;

/// The kernel's "for ever" (`INFINITY_LIFE_TIME`).
pub(super) const FOREVER: u32 = u32::MAX;

/// `IFAPROT_UNSPEC`: nobody has tagged an address, nor did the kernel make it by itself.
const UNSPECIFIED: u8 = 0;

/// What matters of a default route.
pub(super) struct DefaultRoute {
    family: Family,
    pub(super) metric: u32,
    pub(super) hops: Vec<Hop>,
}

/// Reads a default route of the main table.
pub(super) fn default_route(route: &RouteMessage) -> Option<DefaultRoute> {
    if route.header.destination_prefix_length != 0
        || route.header.table != RouteHeader::RT_TABLE_MAIN
    {
        return None;
    }
    let family = match route.header.address_family {
        AddressFamily::Inet => Family::V4,
        AddressFamily::Inet6 => Family::V6,
        _ => return None,
    };
    let hops = hops(route);
    (!hops.is_empty()).then(|| DefaultRoute { family, metric: metric(route), hops })
}

/// The network as these show it, where `number` is the tag of what is ours.
pub(super) fn assemble(
    number: u8,
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[DefaultRoute],
    now: Instant,
) -> Host {
    let mut names = BTreeMap::new();
    let mut host = Host::default();
    for link in links {
        let Some((name, interface)) = interface(link) else { continue };
        names.insert(interface.index, name.clone());
        host.ports.extend(above(link).map(|above| (interface.index, above)));
        host.alternatives.extend(alternatives(link).map(|other| (other, name.clone())));
        host.interfaces.insert(name, interface);
    }
    for link in links {
        let Some((vlan, name)) = vlan(link).zip(names.get(&link.header.index)) else { continue };
        // Somebody else may have a use for the group: what we made has the name that we give it.
        let given = names.get(&vlan.parent).map(|parent| Vlan::name(parent, vlan));
        if group(link) == u32::from(number) && given.as_ref() == Some(name) {
            host.made.insert(link.header.index);
        }
        // Of a VLAN Linux makes one interface.
        host.vlans.insert(vlan, name.clone());
    }
    for route in routes {
        for hop in &route.hops {
            host.gateways.entry(hop.index).or_default().extend(hop.gateway);
        }
        // The first one of a family is its best.
        host.default_routes.entry(route.family).or_insert_with(|| {
            let mut all: Vec<String> =
                route.hops.iter().filter_map(|hop| names.get(&hop.index).cloned()).collect();
            let mut seen = BTreeSet::new();
            all.retain(|name| seen.insert(name.clone()));
            all
        });
    }
    let seen: Vec<Seen> = addresses.iter().filter_map(seen).collect();
    // Before Linux 5.18 the tag is not kept. Then no address has one, not even that of the loopback interface, and ours
    // are told by what nobody else does: one address, deprecated from the start, with an end.
    let tags_kept = seen.iter().any(|address| address.protocol.is_some());
    host.untagged = !tags_kept && !seen.is_empty();
    for address in seen {
        let Some(interface) =
            names.get(&address.index).and_then(|name| host.interfaces.get_mut(name))
        else {
            continue;
        };
        let tagged =
            if tags_kept { address.protocol == Some(number) } else { address.looks_ours() };
        if tagged && address.is_single() {
            let binding = Binding { index: address.index, address: address.address };
            host.ours.insert(binding, address.lifetime(now));
        } else {
            let other = address.protocol.filter(|other| Instance::is_number(*other));
            host.others.extend(other.filter(|_| address.looks_ours()));
            // One address may stand there twice: with a subnet, and as what an announcer has added.
            let found = address.foreign();
            let all = interface.foreign.entry(address.address).or_insert(found);
            all.prefix_len = all.prefix_len.min(found.prefix_len);
            all.adoptable &= found.adoptable;
            all.untagged &= found.untagged;
            all.anothers |= found.anothers;
        }
    }
    host
}

fn interface(link: &LinkMessage) -> Option<(String, Interface)> {
    let (mut name, mut mac) = (None, None);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::IfName(value) => name = Some(value.clone()),
            LinkAttribute::Address(value) => {
                // That of the loopback interface is all zeroes: no LAN hears what is announced there.
                mac = <[u8; 6]>::try_from(value.as_slice()).ok().filter(|mac| *mac != [0; 6]);
            }
            _ => {}
        }
    }
    let up = link.header.flags.contains(LinkFlags::Up | LinkFlags::LowerUp);
    let index = link.header.index;
    Some((name?, Interface { index, mac, up, foreign: BTreeMap::new() }))
}

/// What an interface is a port of, if that takes all that comes in. A VRF leaves addresses on its ports.
fn above(link: &LinkMessage) -> Option<u32> {
    let takes = |info: &LinkInfo| {
        matches!(
            info,
            LinkInfo::PortKind(InfoPortKind::Bridge | InfoPortKind::Bond | InfoPortKind::Team)
        )
    };
    let is_port = link.attributes.iter().any(
        |attribute| matches!(attribute, LinkAttribute::LinkInfo(infos) if infos.iter().any(takes)),
    );
    let mut attributes = link.attributes.iter().filter(|_| is_port);
    attributes.find_map(|attribute| match attribute {
        LinkAttribute::Controller(index) => Some(*index),
        _ => None,
    })
}

fn alternatives(link: &LinkMessage) -> impl Iterator<Item = String> {
    let properties = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::PropList(properties) => Some(properties),
        _ => None,
    });
    properties.flatten().filter_map(|property| match property {
        Prop::AltIfName(name) => Some(name.clone()),
        _ => None,
    })
}

fn group(link: &LinkMessage) -> u32 {
    let mut groups = link.attributes.iter().filter_map(|attribute| match attribute {
        LinkAttribute::Group(number) => Some(*number),
        _ => None,
    });
    groups.next().unwrap_or_default()
}

/// Of which VLAN of which interface this is the interface: one of IEEE 802.1Q, and none of a provider (802.1ad).
fn vlan(link: &LinkMessage) -> Option<Vlan> {
    let (mut parent, mut id, mut is_plain) = (None, None, true);
    for attribute in &link.attributes {
        match attribute {
            LinkAttribute::Link(index) => parent = Some(*index),
            // One of another network namespace, where that index means another interface.
            LinkAttribute::LinkNetNsId(_) => return None,
            LinkAttribute::LinkInfo(infos) => {
                let data = infos.iter().filter_map(|info| match info {
                    LinkInfo::Data(InfoData::Vlan(data)) => Some(data),
                    _ => None,
                });
                for attribute in data.flatten() {
                    match attribute {
                        InfoVlan::Id(number) => id = Some(*number),
                        InfoVlan::Protocol(protocol) => {
                            is_plain = *protocol == VlanProtocol::Ieee8021Q;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Some(Vlan { parent: parent?, id: id.filter(|_| is_plain)? })
}

/// What matters of an address in a dump.
struct Seen {
    index: u32,
    address: IpAddr,
    prefix_len: u8,
    protocol: Option<u8>,
    preferred: u32,
    valid: u32,
}

fn seen(message: &AddressMessage) -> Option<Seen> {
    let (mut address, mut local, mut protocol) = (None, None, None);
    let (mut preferred, mut valid) = (FOREVER, FOREVER);
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(value) => address = Some(*value),
            AddressAttribute::Local(value) => local = Some(*value),
            AddressAttribute::Protocol(value) => protocol = Some(u8::from(*value)),
            AddressAttribute::CacheInfo(times) => {
                (preferred, valid) = (times.ifa_preferred, times.ifa_valid);
            }
            _ => {}
        }
    }
    // On a point-to-point link `Address` is the peer's and `Local` ours.
    let address = local.or(address)?;
    let header = &message.header;
    Some(Seen {
        index: header.index,
        address,
        prefix_len: header.prefix_len,
        protocol,
        preferred,
        valid,
    })
}

impl Seen {
    fn is_single(&self) -> bool {
        self.prefix_len == single(&self.address)
    }

    fn looks_ours(&self) -> bool {
        self.is_single() && self.preferred == 0 && self.valid != FOREVER
    }

    fn lifetime(&self, now: Instant) -> Lifetime {
        match self.valid {
            FOREVER => Lifetime::Forever,
            seconds => Lifetime::Until(now + Duration::from_secs(seconds.into())),
        }
    }

    fn foreign(&self) -> Foreign {
        let other = self.protocol.is_some_and(Instance::is_number);
        let abandoned = self.protocol == Some(KUBE_VIP_PROTOCOL) || self.preferred == 0 && !other;
        let tag = self.protocol.unwrap_or(UNSPECIFIED);
        Foreign {
            prefix_len: self.prefix_len,
            adoptable: self.is_single() && abandoned,
            untagged: self.is_single() && tag == UNSPECIFIED,
            anothers: other && self.looks_ours(),
        }
    }
}

#[cfg(test)]
mod tests {
    use rtnetlink::packet_route::address::CacheInfo;
    use rtnetlink::packet_route::link::InfoKind;

    use super::*;

    const OURS: u8 = 190;
    const ANOTHER: u8 = 191;

    fn link() -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = 2;
        link.attributes.push(LinkAttribute::IfName("eth0".to_owned()));
        link
    }

    fn shown(address: &str, prefix_len: u8, valid: u32, protocol: Option<u8>) -> AddressMessage {
        let mut message = AddressMessage::default();
        message.header.index = 2;
        message.header.prefix_len = prefix_len;
        message.attributes.push(AddressAttribute::Address(address.parse().unwrap()));
        let mut times = CacheInfo::default();
        (times.ifa_preferred, times.ifa_valid) = (0, valid);
        message.attributes.push(AddressAttribute::CacheInfo(times));
        message.attributes.extend(protocol.map(|p| AddressAttribute::Protocol(p.into())));
        message
    }

    fn ours(addresses: &[AddressMessage]) -> Vec<String> {
        let host = assemble(OURS, &[link()], addresses, &[], Instant::now());
        host.ours.keys().map(|binding| binding.address.to_string()).collect()
    }

    #[test]
    fn only_vlans_of_our_group_with_the_name_that_we_give_are_ours() {
        let vlan = |id| LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]));
        let veth = LinkInfo::Kind(InfoKind::Veth);
        for (group, name, info, ours) in [
            (OURS, "eth0.5", vlan(5), true),
            (OURS, "eth0.5", veth, false),
            (0, "eth0.5", vlan(5), false),
            (ANOTHER, "eth0.5", vlan(5), false),
            (OURS, "storage", vlan(5), false),
            (OURS, "eth0.5", vlan(6), false),
            (OURS, "eth1.5", vlan(5), false),
        ] {
            let mut shown = LinkMessage::default();
            shown.header.index = 3;
            shown.attributes = vec![
                LinkAttribute::IfName(name.to_owned()),
                LinkAttribute::Link(2),
                LinkAttribute::Group(group.into()),
                LinkAttribute::LinkInfo(vec![info]),
            ];
            // The parent may come behind it.
            let host = assemble(OURS, &[shown, link()], &[], &[], Instant::now());
            assert_eq!(host.made.len(), usize::from(ours), "{group} {name}");
        }
    }

    #[test]
    fn a_vlan_is_known_by_parent_and_number_and_not_one_of_a_provider_or_of_another_network() {
        let plain = InfoVlan::Protocol(VlanProtocol::Ieee8021Q);
        let provider = InfoVlan::Protocol(VlanProtocol::Ieee8021Ad);
        for (protocol, beyond, known) in
            [(plain.clone(), false, true), (provider, false, false), (plain, true, false)]
        {
            let mut shown = LinkMessage::default();
            shown.header.index = 3;
            let vlan = InfoData::Vlan(vec![InfoVlan::Id(5), protocol]);
            shown.attributes = vec![
                LinkAttribute::IfName("storage".to_owned()),
                LinkAttribute::Link(2),
                LinkAttribute::LinkInfo(vec![LinkInfo::Data(vlan)]),
            ];
            shown.attributes.extend(beyond.then_some(LinkAttribute::LinkNetNsId(1)));
            let host = assemble(OURS, &[link(), shown], &[], &[], Instant::now());
            let name = host.vlans.get(&Vlan { parent: 2, id: 5 }).map(String::as_str);
            assert_eq!(name, known.then_some("storage"));
        }
    }

    #[test]
    fn where_the_kernel_keeps_tags_only_they_tell_what_is_ours() {
        let tagged = shown("192.0.2.1", 32, 10, Some(OURS));
        let alike = shown("192.0.2.2", 32, 10, None);
        let subnet = shown("192.0.2.3", 24, 10, Some(OURS));
        assert_eq!(ours(&[tagged, alike, subnet]), ["192.0.2.1"]);
    }

    #[test]
    fn what_another_instance_has_tagged_is_foreign_and_stays_so() {
        let addresses = [
            shown("192.0.2.1", 32, 10, Some(ANOTHER)),
            shown("192.0.2.2", 32, 10, Some(0)),
            shown("192.0.2.3", 32, FOREVER, Some(KUBE_VIP_PROTOCOL)),
        ];
        let host = assemble(OURS, &[link()], &addresses, &[], Instant::now());
        assert!(host.ours.is_empty());
        let foreign = host.interfaces["eth0"].foreign.values();
        let adoptable: Vec<bool> = foreign.map(|foreign| foreign.adoptable).collect();
        assert_eq!(adoptable, [false, true, true]);
        let foreign = host.interfaces["eth0"].foreign.values();
        let untagged: Vec<bool> = foreign.map(|foreign| foreign.untagged).collect();
        assert_eq!(untagged, [false, true, false]);
        let is_anothers = |own: &str| host.is_anothers(&own.parse().unwrap());
        assert!(is_anothers("192.0.2.1") && !is_anothers("192.0.2.2") && !is_anothers("192.0.2.3"));
        assert_eq!(host.others, [ANOTHER].into());
        let lasting = shown("192.0.2.1", 32, FOREVER, Some(ANOTHER));
        let host = assemble(OURS, &[link()], &[lasting], &[], Instant::now());
        let is_anothers = host.is_anothers(&"192.0.2.1".parse().unwrap());
        assert!(host.others.is_empty() && !is_anothers, "no instance binds one for ever");
    }

    #[test]
    fn where_it_keeps_none_ours_are_single_deprecated_and_have_an_end() {
        let alike = shown("192.0.2.1", 32, 10, None);
        let endless = shown("192.0.2.2", 32, FOREVER, None);
        let subnet = shown("192.0.2.3", 24, 10, None);
        let v6 = shown("2001:db8::1", 128, 10, None);
        assert_eq!(ours(&[alike, endless, subnet, v6]), ["192.0.2.1", "2001:db8::1"]);
    }
}
