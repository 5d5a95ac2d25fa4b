//! What matters of a route in a dump, whatever it is for. Pure.

use std::net::IpAddr;

use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteNextHop, RouteVia,
};

/// A way by which a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hop {
    /// The interface.
    pub(crate) index: u32,
    /// None if everything is a neighbour. That of an IPv4 route may have an IPv6 address (RFC 8950).
    pub(crate) gateway: Option<IpAddr>,
}

/// The ways by which a route leads.
pub(crate) fn hops(route: &RouteMessage) -> Vec<Hop> {
    let (mut index, mut hops) = (None, Vec::new());
    for attribute in &route.attributes {
        match attribute {
            RouteAttribute::Oif(value) => index = Some(*value),
            RouteAttribute::MultiPath(several) => {
                let hop = |hop: &RouteNextHop| Hop {
                    index: hop.interface_index,
                    gateway: gateway(&hop.attributes),
                };
                hops.extend(several.iter().map(hop));
            }
            _ => {}
        }
    }
    hops.extend(index.map(|index| Hop { index, gateway: gateway(&route.attributes) }));
    hops
}

/// Its metric; the lower one is preferred.
pub(crate) fn metric(route: &RouteMessage) -> u32 {
    let metric = route.attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Priority(metric) => Some(*metric),
        _ => None,
    });
    metric.unwrap_or_default()
}

/// The gateway of a route, or of one of its next hops.
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|attribute| match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6))
        | RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    })
}
