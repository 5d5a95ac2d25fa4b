//! Owns the netlink socket for policy rules and routes. Touches only what carries our protocol number.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures::TryStreamExt;
use ipnetwork::IpNetwork;
use nix::libc;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::link::LinkAttribute;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rtnetlink::packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, RouteMessageBuilder};
use tokio::task::JoinHandle;

use super::routes::{PREFERENCE, Routes, TABLE, Uplink, Via};
use super::state::Family;
use crate::kernel::PROTOCOL;

/// Policy rules and routes of this network namespace.
pub(super) struct Routing {
    handle: Handle,
    connection: JoinHandle<()>,
}

/// What is there.
#[derive(Debug, Default)]
pub(super) struct Shown {
    /// Machines that have a policy rule of ours.
    pub(super) rules: BTreeSet<IpAddr>,
    /// Our table.
    pub(super) routes: Routes,
    /// The uplink, if the host has it.
    pub(super) uplink: Option<Uplink>,
}

impl Drop for Routing {
    fn drop(&mut self) {
        self.connection.abort();
    }
}

impl Routing {
    /// Opens a socket in the network namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let (connection, handle, _) = rtnetlink::new_connection()?;
        Ok(Self { handle, connection: tokio::spawn(connection) })
    }

    /// Looks at rules, at our table, and at the interface that is named, or else that of the best default route.
    pub(super) async fn look(&self, uplink: Option<&str>) -> Result<Shown, rtnetlink::Error> {
        let mut shown = Shown::default();
        for version in [IpVersion::V4, IpVersion::V6] {
            let rules: Vec<RuleMessage> =
                self.handle.rule().get(version).execute().try_collect().await?;
            shown.rules.extend(rules.iter().filter_map(ours));
        }
        let mut routes = Vec::new();
        let v4 = RouteMessageBuilder::<Ipv4Addr>::new().build();
        let v6 = RouteMessageBuilder::<Ipv6Addr>::new().build();
        for family in [v4, v6] {
            let of_family: Vec<RouteMessage> =
                self.handle.route().get(family).execute().try_collect().await?;
            routes.extend(of_family.iter().filter_map(read));
        }
        let named = match uplink {
            Some(name) => self.index_of(name).await?,
            None => best_default(&routes),
        };
        shown.uplink = named.map(|index| uplink_of(&routes, index));
        let table = routes.into_iter().filter(|route| route.table == TABLE && route.ours);
        shown.routes = table.map(|route| (route.destination, route.via)).collect();
        Ok(shown)
    }

    async fn index_of(&self, name: &str) -> Result<Option<u32>, rtnetlink::Error> {
        let mut links = self.handle.link().get().execute();
        while let Some(link) = links.try_next().await? {
            if link.attributes.iter().any(|a| matches!(a, LinkAttribute::IfName(n) if n == name)) {
                return Ok(Some(link.header.index));
            }
        }
        Ok(None)
    }

    /// Makes what is `shown` as wanted: routes before the rules that lead to them, and away after them.
    pub(super) async fn change(
        &self,
        shown: &Shown,
        rules: &BTreeSet<IpAddr>,
        routes: &Routes,
    ) -> Result<(), rtnetlink::Error> {
        for vmi in shown.rules.difference(rules) {
            absent(self.handle.rule().del(rule(vmi)).execute().await)?;
        }
        for (network, via) in shown.routes.iter().filter(|(n, via)| routes.get(*n) != Some(*via)) {
            absent(self.handle.route().del(route(network, via)).execute().await)?;
        }
        for (network, via) in routes.iter().filter(|(n, via)| shown.routes.get(*n) != Some(*via)) {
            present(self.handle.route().add(route(network, via)).replace().execute().await)?;
        }
        for vmi in rules.difference(&shown.rules) {
            let mut request = self.handle.rule().add();
            *request.message_mut() = rule(vmi);
            present(request.execute().await)?;
        }
        Ok(())
    }
}

fn code(error: &rtnetlink::Error) -> i32 {
    match error {
        rtnetlink::Error::NetlinkError(message) => -message.raw_code(),
        _ => 0,
    }
}

/// What is gone is removed.
fn absent(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if [libc::ENOENT, libc::ESRCH, libc::ENODEV].contains(&code(&error)) => Ok(()),
        result => result,
    }
}

/// What is there is added.
fn present(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(error) if code(&error) == libc::EEXIST => Ok(()),
        result => result,
    }
}

fn rule(vmi: &IpAddr) -> RuleMessage {
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
        RuleAttribute::Table(TABLE),
        RuleAttribute::Protocol(RouteProtocol::Other(PROTOCOL)),
    ];
    rule
}

/// The machine that a policy rule of ours is for.
fn ours(rule: &RuleMessage) -> Option<IpAddr> {
    let mut source = None;
    let (mut tagged, mut preferred, mut table) = (false, false, u32::from(rule.header.table));
    for attribute in &rule.attributes {
        match attribute {
            RuleAttribute::Source(address) => source = Some(*address),
            RuleAttribute::Protocol(protocol) => tagged = u8::from(*protocol) == PROTOCOL,
            RuleAttribute::Priority(number) => preferred = *number == PREFERENCE,
            RuleAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    source.filter(|_| tagged && preferred && table == TABLE)
}

fn route(network: &IpNetwork, via: &Via) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<IpAddr>::new()
        .table_id(TABLE)
        .protocol(RouteProtocol::Other(PROTOCOL));
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
        message.attributes.push(RouteAttribute::Gateway((*gateway).into()));
    }
    message
}

/// A route of any table, as far as it matters.
struct Seen {
    table: u32,
    ours: bool,
    kernel: bool,
    metric: u32,
    destination: IpNetwork,
    via: Via,
}

fn read(route: &RouteMessage) -> Option<Seen> {
    let plain = |address: &RouteAddress| match address {
        RouteAddress::Inet(v4) => Some(IpAddr::from(*v4)),
        RouteAddress::Inet6(v6) => Some(IpAddr::from(*v6)),
        _ => None,
    };
    let header = &route.header;
    let (mut table, mut index, mut gateway, mut metric) = (u32::from(header.table), None, None, 0);
    let mut destination = match header.address_family {
        AddressFamily::Inet => IpAddr::from(Ipv4Addr::UNSPECIFIED),
        _ => IpAddr::from(Ipv6Addr::UNSPECIFIED),
    };
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Table(number) => table = *number,
            RouteAttribute::Oif(number) => index = Some(*number),
            RouteAttribute::Gateway(address) => gateway = plain(address),
            RouteAttribute::Destination(address) => destination = plain(address)?,
            RouteAttribute::Priority(number) => metric = *number,
            _ => {}
        }
    }
    let via = match (header.kind, gateway, index) {
        (RouteType::Throw, _, _) => Via::Throw,
        (RouteType::Unicast, Some(gateway), Some(index)) => Via::Gateway(gateway, index),
        (RouteType::Unicast, None, Some(index)) => Via::Link(index),
        _ => return None,
    };
    Some(Seen {
        table,
        ours: header.protocol == RouteProtocol::Other(PROTOCOL),
        kernel: header.protocol == RouteProtocol::Kernel,
        metric,
        destination: IpNetwork::new(destination, header.destination_prefix_length).ok()?,
        via,
    })
}

/// Default routes of the main table, the better ones first.
fn defaults(routes: &[Seen]) -> impl Iterator<Item = (IpAddr, u32)> {
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    let default = move |route: &&Seen| route.table == main && route.destination.prefix() == 0;
    let mut found: Vec<&Seen> = routes.iter().filter(default).collect();
    found.sort_by_key(|route| (Family::of(&route.destination.ip()), route.metric));
    found.into_iter().filter_map(|route| match route.via {
        Via::Gateway(gateway, index) => Some((gateway, index)),
        Via::Throw | Via::Link(_) => None,
    })
}

fn best_default(routes: &[Seen]) -> Option<u32> {
    defaults(routes).map(|(_, index)| index).next()
}

fn uplink_of(routes: &[Seen], index: u32) -> Uplink {
    let mut uplink = Uplink { index, ..Uplink::default() };
    for (gateway, of) in defaults(routes) {
        let first = !uplink.gateways.iter().any(|known| Family::of(known) == Family::of(&gateway));
        if of == index && first {
            uplink.gateways.insert(gateway);
        }
    }
    let on_it = |route: &&Seen| {
        let link_local =
            matches!(route.destination.ip(), IpAddr::V6(v6) if v6.is_unicast_link_local());
        // A single address is one that is bound, and not a network.
        let network = route.destination.prefix() < Family::of(&route.destination.ip()).bits();
        route.table == u32::from(RouteHeader::RT_TABLE_MAIN)
            && route.kernel
            && route.via == Via::Link(index)
            && network
            && !link_local
    };
    uplink.connected = routes.iter().filter(on_it).map(|route| route.destination).collect();
    uplink
}
