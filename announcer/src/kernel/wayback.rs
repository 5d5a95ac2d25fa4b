//! Where answers could not go out, or the kernel drops what asks, as far as that is certain. Pure.
//!
//! With strict rp_filter Linux drops what comes by IPv4, questions of ARP too, where its answer would leave by another
//! interface (RFC 3704, `fib_validate_source`). By which one depends on who asks; but where no route at all leads out of an
//! interface, nobody passes there. Nothing is told of interfaces that had a route lately: a node's own address may be
//! taken off and set again, as when systemd-networkd is restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Family;
use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};

use super::host::{Host, Interface, single};
use super::routes::hops;

/// How long an interface may be without a route that had one.
const PATIENCE: Duration = Duration::from_secs(15);

/// By which interfaces routes lead.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// Beyond the link, in whatever table: a policy rule may lead to any.
    out: BTreeSet<(Family, u32)>,
    /// On the link alone, as IPv6 has them wherever it is switched on.
    local: BTreeSet<(Family, u32)>,
    /// Families of which a route leads further than to the subnet of an address of the node, on whatever interface.
    far: BTreeSet<Family>,
    /// Families of which a route is not understood.
    unread: BTreeSet<Family>,
}

impl Ways {
    /// Takes in a route. Those that `own` made are for what machines with elastic IPs send, and for nothing that asks.
    pub(super) fn see(&mut self, route: &RouteMessage, own: RouteProtocol) {
        if route.header.protocol == own {
            return;
        }
        let family = match route.header.address_family {
            AddressFamily::Inet => Family::V4,
            AddressFamily::Inet6 => Family::V6,
            _ => return,
        };
        if route.header.kind != RouteType::Unicast {
            return;
        }
        let destination = route.attributes.iter().find_map(destination);
        let length = route.header.destination_prefix_length;
        // That of an address that is bound (`addrconf_prefix_route`) leads to nobody else.
        let own = |address: IpAddr| {
            length == single(&address) && route.header.protocol == RouteProtocol::Kernel
        };
        if destination.is_some_and(|address| address.is_multicast() || own(address)) {
            return;
        }
        let is_local = matches!(destination, Some(IpAddr::V6(v6)) if v6.is_unicast_link_local());
        let hops = hops(route);
        if hops.is_empty() {
            // One by an object of its own (`ip nexthop`), where the kernel does not spell that out.
            self.unread.insert(family);
        }
        let is_subnet = route.header.protocol == RouteProtocol::Kernel;
        if !is_local && (!is_subnet || hops.iter().any(|hop| hop.gateway.is_some())) {
            self.far.insert(family);
        }
        let ways = if is_local { &mut self.local } else { &mut self.out };
        ways.extend(hops.into_iter().map(|hop| (family, hop.index)));
    }
}

fn destination(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Destination(RouteAddress::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Destination(RouteAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

/// When each interface last had a way back.
#[derive(Clone, Debug, Default)]
pub(super) struct WayBack {
    had: BTreeMap<(Family, u32), Instant>,
    /// When the node last had a route of a family that leads further.
    far: BTreeMap<Family, Instant>,
}

impl WayBack {
    /// Adds to `host` where there is none. `rp_filter` gives the kernel's setting for an interface, or for `all`.
    pub(super) fn judge(
        &mut self,
        host: &mut Host,
        ways: &Ways,
        rp_filter: impl Fn(&str) -> Option<u32>,
        now: Instant,
    ) {
        self.had.extend(ways.out.iter().map(|way| (*way, now)));
        self.had.retain(|_, had| now < *had + PATIENCE);
        self.far.extend(ways.far.iter().map(|family| (*family, now)));
        self.far.retain(|_, had| now < *had + PATIENCE);
        let lacks = |family, index| {
            !ways.unread.contains(&family) && !self.had.contains_key(&(family, index))
        };
        // The kernel uses the larger of the two (ip-sysctl.rst): 1 is the strict one, 2 asks for any route.
        let all = rp_filter("all").unwrap_or(0);
        let is_strict = |name: &str| all < 2 && rp_filter(name).unwrap_or(0).max(all) == 1;
        let lans = host.interfaces.iter().filter(|(_, all)| is_lan(&host.ports, all));
        let filtered = lans.clone().filter(|(_, all)| lacks(Family::V4, all.index));
        host.filtered =
            filtered.filter(|(name, _)| is_strict(name)).map(|(_, all)| all.index).collect();
        // The subnet of another interface is no way to who asks here.
        let near = Family::ALL.into_iter().filter(|family| !self.far.contains_key(family));
        let all = near.flat_map(|family| lans.clone().map(move |(_, all)| (family, all.index)));
        let stranded = all.filter(|(family, index)| lacks(*family, *index));
        // Where IPv6 is switched off the kernel says so itself.
        let is_on = |way: &(Family, u32)| way.0 == Family::V4 || ways.local.contains(way);
        host.stranded = stranded.filter(is_on).collect();
    }
}

/// Whether neighbours may ask there, and what they ask comes up there.
fn is_lan(ports: &BTreeMap<u32, u32>, interface: &Interface) -> bool {
    interface.mac.is_some() && interface.up && !ports.contains_key(&interface.index)
}

#[cfg(test)]
mod tests {
    use rtnetlink::RouteMessageBuilder;
    use rtnetlink::packet_route::route::RouteHeader;

    use super::*;

    fn host() -> Host {
        let eth = |index| Interface { index, mac: Some([2; 6]), up: true, foreign: [].into() };
        let interfaces = [("eth0".to_owned(), eth(2)), ("eth1".to_owned(), eth(3))];
        Host { interfaces: interfaces.into(), ..Host::default() }
    }

    fn route(network: &str, index: u32, protocol: RouteProtocol) -> RouteMessage {
        let (address, length) = network.split_once('/').unwrap();
        let builder = RouteMessageBuilder::<IpAddr>::new().output_interface(index);
        let builder = builder.destination_prefix(address.parse().unwrap(), length.parse().unwrap());
        builder.unwrap().protocol(protocol).build()
    }

    fn ways(routes: &[RouteMessage]) -> Ways {
        let mut ways = Ways::default();
        routes.iter().for_each(|route| ways.see(route, OWN));
        ways
    }

    fn judged(routes: &[RouteMessage], strict: &[(&str, u32)]) -> Host {
        let mut host = host();
        let rp_filter = |name: &str| strict.iter().find(|(of, _)| *of == name).map(|(_, n)| *n);
        WayBack::default().judge(&mut host, &ways(routes), rp_filter, Instant::now());
        host
    }

    const BOOT: RouteProtocol = RouteProtocol::Boot;
    const OWN: RouteProtocol = RouteProtocol::Other(190);

    #[test]
    fn only_where_no_route_leads_out_strict_filtering_lets_nobody_pass() {
        let lan = || route("192.0.2.0/24", 2, BOOT);
        for (strict, filtered) in [
            (&[("eth1", 1)][..], &[3][..]),
            (&[("all", 1)], &[3]),
            (&[("all", 1), ("eth1", 0)], &[3]),
            (&[("all", 1), ("eth1", 2)], &[]),
            (&[("all", 2), ("eth1", 1)], &[]),
            (&[("eth0", 1)], &[]),
            (&[], &[]),
        ] {
            let host = judged(&[lan()], strict);
            assert_eq!(host.filtered, filtered.iter().copied().collect(), "{strict:?}");
            assert!(!host.stranded.contains(&(Family::V4, 3)), "answers go by eth0");
        }
        // A table that a policy rule may lead to, and what another family has.
        let mut other = route("198.51.100.0/24", 3, BOOT);
        other.header.table = RouteHeader::RT_TABLE_UNSPEC;
        other.attributes.push(RouteAttribute::Table(1000));
        assert!(judged(&[lan(), other], &[("all", 1)]).filtered.is_empty());
        let of_machines = route("0.0.0.0/0", 3, OWN);
        assert_eq!(judged(&[lan(), of_machines], &[("all", 1)]).filtered, [3].into());
        let v6 = route("2001:db8::/64", 3, BOOT);
        assert_eq!(judged(&[lan(), v6], &[("all", 1)]).filtered, [3].into());
    }

    #[test]
    fn a_node_without_any_route_of_a_family_answers_nobody_by_it() {
        let local = || route("fe80::/64", 3, RouteProtocol::Kernel);
        let own = || route("2001:db8::9/128", 3, RouteProtocol::Kernel);
        let lan = route("192.0.2.0/24", 2, BOOT);
        let host = judged(&[local(), own(), lan], &[]);
        assert_eq!(host.stranded, [(Family::V6, 3)].into(), "eth0 has IPv6 switched off");
        let routed = judged(&[local(), own(), route("2001:db8::/64", 2, BOOT)], &[]);
        assert_eq!(routed.stranded, [(Family::V4, 2), (Family::V4, 3)].into());
        let mut unread = route("198.51.100.0/24", 2, BOOT);
        unread.attributes.retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
        let host = judged(&[unread, local()], &[("all", 1)]);
        assert_eq!((host.stranded, host.filtered), ([(Family::V6, 3)].into(), [].into()));
    }

    #[test]
    fn a_subnet_on_another_interface_is_no_way_back_and_a_route_to_others_may_be() {
        let subnet = |index| route("192.0.2.0/24", index, RouteProtocol::Kernel);
        assert_eq!(judged(&[subnet(2)], &[]).stranded, [(Family::V4, 3)].into());
        assert!(judged(&[subnet(2), subnet(3)], &[]).stranded.is_empty());
        let mut gateway = route("0.0.0.0/0", 2, RouteProtocol::Kernel);
        let router = RouteAddress::Inet([192, 0, 2, 1].into());
        gateway.attributes.push(RouteAttribute::Gateway(router));
        for beyond in [gateway, route("198.51.100.0/24", 2, BOOT)] {
            assert!(judged(&[subnet(2), beyond], &[]).stranded.is_empty());
        }
    }

    #[test]
    fn what_loses_its_routes_for_a_moment_is_waited_for() {
        let (mut host, mut back, now) = (host(), WayBack::default(), Instant::now());
        let strict = |_: &str| Some(1);
        let lan = ways(&[route("192.0.2.0/24", 2, BOOT)]);
        back.judge(&mut host, &lan, strict, now);
        assert_eq!(host.filtered, [3].into());
        for (after, filtered) in
            [(PATIENCE - Duration::from_millis(1), &[3][..]), (PATIENCE, &[2, 3])]
        {
            back.judge(&mut host, &Ways::default(), strict, now + after);
            assert_eq!(host.filtered, filtered.iter().copied().collect(), "{after:?}");
            assert_eq!(host.stranded.is_empty(), after < PATIENCE);
        }
        host.ports.insert(2, 3);
        back.judge(&mut host, &Ways::default(), strict, now + PATIENCE);
        assert_eq!(host.filtered, [3].into(), "a port hands on what comes in");
    }
}
