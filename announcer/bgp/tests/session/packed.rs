//! Many routes in few messages.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::{Prefix, Routes};

use crate::network::{Network, parameters};

fn up_with(routes: Routes) -> Network {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.hosts[0].session.set_routes(routes);
    net.up();
    net
}

#[test]
fn twenty_thousand_routes_go_in_twenty_five_messages_and_as_many_of_ipv6_in_eighty_five() {
    let v4 = |n: u32| IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + n));
    let v6 = |n: u32| IpAddr::V6(Ipv6Addr::from_bits((0x2001_0db8 << 96) + u128::from(n)));
    let routes = |address: &dyn Fn(u32) -> IpAddr| -> Routes {
        let attributes = Arc::default();
        (0..20_000).map(|n| (Prefix::host(address(n)), Arc::clone(&attributes))).collect()
    };
    for (address, most) in [(&v4 as &dyn Fn(u32) -> IpAddr, 25), (&v6, 85)] {
        let routes = routes(address);
        let begun = Instant::now();
        let net = up_with(routes);
        let took = begun.elapsed();
        let table = &net.hosts[1].table;
        assert_eq!(table.routes.len(), 20_000);
        println!(
            "20,000 routes: {} messages, {} octets, {took:?} with the reader",
            table.updates, table.octets
        );
        assert_eq!(table.updates, most + 2, "and two ends");
    }
}

#[test]
fn one_change_among_twenty_thousand_is_one_message() {
    let host = |n: u32| Prefix::host(Ipv4Addr::from_bits(0x0a00_0000 + n).into());
    let mut net = up_with((0..20_000).map(|n| (host(n), Arc::default())).collect());
    let before = net.hosts[1].table.updates;
    net.act(0, |session, _| session.set_route(host(7), None));
    net.run(Duration::from_millis(5));
    assert_eq!(net.hosts[1].table.updates, before + 1);
    assert_eq!(net.hosts[1].table.routes.len(), 19_999);
}
