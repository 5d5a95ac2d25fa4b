//! Policy rules and routes in the kernel. Touches only what carries the instance's number.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use nix::libc;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
    RouteVia,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{IpVersion, RouteMessageBuilder};

use super::routes::{PREFERENCE, Routes, Uplink, Uplinks, Via};
use crate::instance::Instance;
use crate::kernel::events::table;
use crate::kernel::routes::{Hop, hops, metric};
use crate::kernel::rtnetlink::{Rtnetlink, code};
use crate::vip::Family;

/// Policy rules and routes of this network namespace.
pub(super) struct Routing {
    rtnetlink: Rtnetlink,
    /// The number of the route table, and the protocol of everything in it and of the rules that lead to it.
    number: u8,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Machines that have a policy rule of ours.
    pub(super) rules: BTreeSet<IpAddr>,
    /// Our table.
    pub(super) routes: Routes,
    /// The uplink of each family, if the host has it.
    pub(super) uplinks: Uplinks,
}

impl Routing {
    pub(super) fn new(rtnetlink: Rtnetlink, instance: &Instance) -> Self {
        Self { rtnetlink, number: instance.number() }
    }

    /// The number of the route table.
    pub(super) fn table(&self) -> u32 {
        self.number.into()
    }

    /// The protocol, as it is read: some numbers, as 192, have names there.
    fn protocol(&self) -> RouteProtocol {
        RouteProtocol::from(self.number)
    }

    /// Looks at rules, at our table, and at the interface that is named, or else that of the best default route of each
    /// family, or of the other one where a family has none.
    pub(super) async fn look(&self, uplink: Option<&str>) -> Result<Shown, rtnetlink::Error> {
        let mut shown = Shown::default();
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules = self.rtnetlink.rules(version).await?;
            shown.rules.extend(rules.iter().filter_map(|rule| self.ours(rule)));
        }
        let mut routes = Vec::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let of_family = self.rtnetlink.routes(family).await?;
            routes.extend(of_family.iter().flat_map(read));
        }
        let named = match uplink {
            Some(name) => Some(self.index_of(name).await?),
            None => None,
        };
        let found = Family::ALL.into_iter().filter_map(|family| {
            let index = named.unwrap_or_else(|| best_default(&routes, family))?;
            Some((family, uplink_of(&routes, index)))
        });
        shown.uplinks = found.collect();
        let ours = self.protocol();
        let table = routes.into_iter();
        let table = table.filter(|route| route.table == self.table() && route.protocol == ours);
        shown.routes = table.map(|route| (route.destination, route.via)).collect();
        Ok(shown)
    }

    async fn index_of(&self, name: &str) -> Result<Option<u32>, rtnetlink::Error> {
        let links = self.rtnetlink.links().await?;
        let is_named =
            |attribute: &LinkAttribute| matches!(attribute, LinkAttribute::IfName(n) if n == name);
        let link = links.iter().find(|link| link.attributes.iter().any(is_named));
        Ok(link.map(|link| link.header.index))
    }

    /// Makes what is `shown` as wanted: routes before the rules that lead to them, and away after them.
    pub(super) async fn change(
        &self,
        shown: &Shown,
        rules: &BTreeSet<IpAddr>,
        routes: &Routes,
    ) -> Result<(), rtnetlink::Error> {
        let handle = self.rtnetlink.handle();
        for vmi in shown.rules.difference(rules) {
            absent(handle.rule().del(self.rule(vmi)).execute().await)?;
        }
        for (network, via) in shown.routes.iter().filter(|(n, via)| routes.get(*n) != Some(*via)) {
            absent(handle.route().del(self.route(network, via)).execute().await)?;
        }
        for (network, via) in routes.iter().filter(|(n, via)| shown.routes.get(*n) != Some(*via)) {
            present(handle.route().add(self.route(network, via)).replace().execute().await)?;
        }
        for vmi in rules.difference(&shown.rules) {
            let mut request = handle.rule().add();
            *request.message_mut() = self.rule(vmi);
            present(request.execute().await)?;
        }
        Ok(())
    }

    fn rule(&self, vmi: &IpAddr) -> RuleMessage {
        let family = Family::of(vmi);
        let mut rule = RuleMessage::default();
        rule.header.family = match family {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        rule.header.src_len = family.bits();
        rule.header.action = RuleAction::ToTable;
        rule.attributes = vec![
            RuleAttribute::Source(*vmi),
            RuleAttribute::Priority(PREFERENCE),
            RuleAttribute::Table(self.table()),
            RuleAttribute::Protocol(self.protocol()),
        ];
        rule
    }

    /// The VM that a policy rule of ours is for.
    fn ours(&self, rule: &RuleMessage) -> Option<IpAddr> {
        let mut source = None;
        let (mut tagged, mut preferred, mut table) = (false, false, u32::from(rule.header.table));
        for attribute in &rule.attributes {
            match attribute {
                RuleAttribute::Source(address) => source = Some(*address),
                RuleAttribute::Protocol(protocol) => tagged = u8::from(*protocol) == self.number,
                RuleAttribute::Priority(number) => preferred = *number == PREFERENCE,
                RuleAttribute::Table(number) => table = *number,
                _ => {}
            }
        }
        source.filter(|_| tagged && preferred && table == self.table())
    }

    fn route(&self, network: &IpNetwork, via: &Via) -> RouteMessage {
        let mut builder =
            RouteMessageBuilder::<IpAddr>::new().table_id(self.table()).protocol(self.protocol());
        builder = match via {
            Via::Throw => builder.kind(RouteType::Throw),
            Via::Link(index) => builder.scope(RouteScope::Link).output_interface(*index),
            Via::Gateway(_, index) => builder.output_interface(*index),
        };
        let mut message = builder.build();
        message.header.address_family = match Family::of(&network.ip()) {
            Family::V4 => AddressFamily::Inet,
            Family::V6 => AddressFamily::Inet6,
        };
        message.header.destination_prefix_length = network.prefix();
        message.attributes.push(RouteAttribute::Destination(network.network().into()));
        if let Via::Gateway(gateway, _) = via {
            let is_foreign = Family::of(gateway) != Family::of(&network.ip());
            message.attributes.push(match gateway {
                IpAddr::V6(v6) if is_foreign => RouteAttribute::Via(RouteVia::Inet6(*v6)),
                gateway => RouteAttribute::Gateway((*gateway).into()),
            });
        }
        message
    }
}

/// What is gone is removed.
fn absent(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if matches!(code(&error), Some(libc::ENOENT | libc::ESRCH | libc::ENODEV)) => {
            Ok(())
        }
        result => result,
    }
}

/// What is there is added.
fn present(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if code(&error) == Some(libc::EEXIST) => Ok(()),
        result => result,
    }
}

/// A route of any table, as far as it matters.
struct Seen {
    table: u32,
    protocol: RouteProtocol,
    metric: u32,
    destination: IpNetwork,
    via: Via,
}

/// A route as each of the ways by which it leads.
fn read(route: &RouteMessage) -> Vec<Seen> {
    let hops = match route.header.kind {
        RouteType::Throw => vec![None],
        _ => hops(route).into_iter().map(Some).collect(),
    };
    hops.into_iter().filter_map(|hop| read_by(route, hop)).collect()
}

fn read_by(route: &RouteMessage, hop: Option<Hop>) -> Option<Seen> {
    let plain = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::from(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::from(*v6)),
        _ => None,
    };
    let header = &route.header;
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    for attribute in &route.attributes {
        if let RouteAttribute::Destination(address) = attribute {
            destination = plain(address)?;
        }
    }
    let via = match (header.kind, hop) {
        (RouteType::Throw, _) => Via::Throw,
        (RouteType::Unicast, Some(Hop { index, gateway: Some(gateway) })) => {
            Via::Gateway(gateway, index)
        }
        (RouteType::Unicast, Some(Hop { index, gateway: None })) => Via::Link(index),
        _ => return None,
    };
    Some(Seen {
        table: table(route),
        protocol: header.protocol,
        metric: metric(route),
        destination: IpNetwork::new(destination, header.destination_prefix_length).ok()?,
        via,
    })
}

/// Default routes of the main table, the better ones first: the family, the gateway and the interface.
fn defaults(routes: &[Seen]) -> impl Iterator<Item = (Family, IpAddr, u32)> {
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let default = move |route: &&Seen| route.table == main && route.destination.prefix() == 0;
    let mut found: Vec<&Seen> = routes.iter().filter(default).collect();
    found.sort_by_key(|route| (Family::of(&route.destination.ip()), route.metric));
    found.into_iter().filter_map(|route| match route.via {
        Via::Gateway(gateway, index) => Some((Family::of(&route.destination.ip()), gateway, index)),
        Via::Throw | Via::Link(_) => None,
    })
}

fn best_default(routes: &[Seen], family: Family) -> Option<u32> {
    let of = |wanted: bool| defaults(routes).find(move |(of, _, _)| (*of == family) == wanted);
    of(true).or_else(|| of(false)).map(|(_, _, index)| index)
}

fn uplink_of(routes: &[Seen], index: u32) -> Uplink {
    let mut uplink = Uplink { index, ..Uplink::default() };
    for (family, gateway, _) in defaults(routes).filter(|(_, _, of)| *of == index) {
        uplink.gateways.entry(family).or_insert(gateway);
    }
    let on_it = |route: &&Seen| {
        let link_local =
            matches!(route.destination.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        // A single address is one that is bound, and not a network.
        let network = route.destination.prefix() < Family::of(&route.destination.ip()).bits();
        route.table == u32::from(RouteHeader::RT_TABLE_MAIN)
            && route.protocol == RouteProtocol::Kernel
            && route.via == Via::Link(index)
            && network
            && !link_local
    };
    uplink.connected = routes.iter().filter(on_it).map(|route| route.destination).collect();
    uplink
}
