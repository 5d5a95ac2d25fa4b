//! What a session is to be is edited while it is up, and so are the addresses of the node.

use std::sync::Arc;
use std::time::Duration;

use berth_bgp::{NextHops, Parameters, RemoteAs, Role, Routes};

use crate::network::{Network, parameters};

const SECOND: Duration = Duration::from_secs(1);

fn routes() -> Routes {
    let prefixes = ["198.51.100.1/32", "198.51.100.2/32", "2001:db8:1::1/128"];
    prefixes.map(|text| (text.parse().unwrap(), Arc::default())).into()
}

fn pair() -> Network {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.hosts[0].session.set_routes(routes());
    net.up();
    net
}

/// Where the router leads the routes of a family.
fn hops(net: &Network, v6: bool) -> Vec<&str> {
    let routes = net.hosts[1].table.routes.iter();
    let of_family = routes.filter(|(prefix, _)| prefix.contains(':') == v6);
    of_family.flat_map(|(_, route)| route.next_hops.iter().map(String::as_str)).collect()
}

/// Runs for so long, and gives the fewest routes that the router has had meanwhile, stale or not.
fn fewest(net: &mut Network, span: Duration) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..span.as_millis() {
        fewest = fewest.min(net.hosts[1].table.routes.len());
        net.run(Duration::from_millis(1));
    }
    fewest
}

/// cilium#25827, #26354: an edit was the end of all routes, on all nodes at once.
#[test]
fn an_edit_of_what_is_agreed_begins_the_session_anew_and_costs_no_route() {
    for edit in [
        |all| Parameters { hold_time: 30, ..all },
        |all| Parameters { graceful_restart: None, ..all },
        |all| Parameters { router_id: [192, 0, 2, 12].into(), ..all },
        |all| Parameters { extended_next_hop: false, ..all },
    ] as [fn(Parameters) -> Parameters; 4]
    {
        let mut net = pair();
        let other = edit(parameters(65000, 11));
        net.act(0, |session, now| session.reconfigure(now, other.clone()));
        assert_eq!(net.hosts[1].got.get(&3), None, "no NOTIFICATION");
        assert_eq!(fewest(&mut net, 5 * SECOND), 3, "{other:?}");
        assert!(net.both_up() && net.downs(0).len() == 1, "{:?}", net.downs(0));
        assert_eq!(net.downs(0)[0].to_string(), "it begins anew, since it was edited");
        assert!(net.hosts[1].table.routes.values().all(|route| !route.stale), "all told again");
    }
}

/// cilium#25408: even the time between two attempts ended a session.
#[test]
fn an_edit_of_what_no_peer_was_told_ends_no_session() {
    for edit in [
        |all| all,
        |all| Parameters { connect_retry: SECOND, ..all },
        |all| Parameters { keepalive: Some(1), ..all },
        |all| Parameters { role: Role::Passive, ..all },
        |all| Parameters { role: Role::Active, ..all },
        |all| Parameters { remote_as: RemoteAs::Is(65001), ..all },
    ] as [fn(Parameters) -> Parameters; 6]
    {
        let mut net = pair();
        let other = edit(parameters(65000, 11));
        net.act(0, |session, now| session.reconfigure(now, other.clone()));
        net.run(200 * SECOND);
        assert!(net.downs(0).is_empty() && net.both_up(), "{other:?}: {:?}", net.downs(0));
    }
}

#[test]
fn an_edit_is_followed_where_there_is_no_session_yet() {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    let passive = Parameters { role: Role::Passive, ..parameters(65000, 11) };
    net.hosts[0].session.reconfigure(net.now, passive);
    net.act(0, |session, now| session.start(now, None));
    net.run(60 * SECOND);
    assert_eq!(net.hosts[0].session.deadline(), None, "the peer is to connect");
    net.act(1, |session, now| session.start(now, None));
    net.until(SECOND, Network::both_up);
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    let passive = Parameters { role: Role::Passive, ..parameters(65001, 1) };
    net.hosts[1].session.reconfigure(net.now, passive);
    let strict = Parameters { remote_as: RemoteAs::Is(65009), ..parameters(65000, 11) };
    net.hosts[0].session.reconfigure(net.now, strict);
    net.start();
    net.run(300 * SECOND);
    assert!(!net.both_up());
    let quick = Parameters { connect_retry: 2 * SECOND, ..parameters(65000, 11) };
    net.act(0, |session, now| session.reconfigure(now, quick));
    // It was half a minute before.
    net.until(3 * SECOND, Network::both_up);
}

/// frr#17152, #15919: what was not there when the session began was never told.
#[test]
fn an_address_that_comes_later_is_told_and_one_that_is_another_takes_its_place() {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.hosts[0].session.set_routes(routes());
    let own = net.hosts[0].next_hops;
    net.hosts[0].next_hops.v6 = None;
    net.up();
    assert!(hops(&net, true).is_empty());
    net.renumber(0, own);
    net.run(SECOND);
    assert_eq!(hops(&net, true), ["2001:db8::1"]);
    assert!(net.hosts[0].session.is_told());
    let other = NextHops { v6: Some("2001:db8::77".parse().unwrap()), ..own };
    net.renumber(0, other);
    assert_eq!(fewest(&mut net, SECOND), 3, "none is withdrawn");
    assert_eq!(hops(&net, true), ["2001:db8::77"]);
    let moved = NextHops { v4: Some([192, 0, 2, 99].into()), ..other };
    net.renumber(0, moved);
    net.run(SECOND);
    assert_eq!(hops(&net, false), ["192.0.2.99"; 2]);
    let told = net.hosts[1].table.updates;
    net.renumber(0, moved);
    net.run(SECOND);
    assert_eq!(net.hosts[1].table.updates, told, "what is as it was is told nobody");
    assert!(net.downs(0).is_empty());
}

#[test]
fn what_leads_nowhere_any_more_is_withdrawn_and_comes_back_with_its_address() {
    // Without RFC 8950, where IPv4 would go by IPv6.
    let plain = |all| Parameters { extended_next_hop: false, ..all };
    let mut net = Network::new([plain(parameters(65000, 11)), plain(parameters(65001, 1))]);
    net.hosts[0].session.set_routes(routes());
    net.up();
    let own = net.hosts[0].next_hops;
    for without in [NextHops { v4: None, ..own }, NextHops { v6: None, ..own }] {
        net.renumber(0, without);
        net.run(SECOND);
        assert_eq!(
            (hops(&net, false).is_empty(), hops(&net, true).is_empty()),
            (without.v4.is_none(), without.v6.is_none())
        );
        let agreed = net.hosts[0].session.status().agreed.unwrap();
        assert_eq!(agreed.without_next_hop.len(), 1);
        net.renumber(0, own);
        net.run(SECOND);
        assert_eq!(net.hosts[1].table.routes.len(), 3);
    }
    assert!(net.downs(0).is_empty());
}

#[test]
fn ipv4_goes_by_ipv6_where_its_own_address_goes_and_the_peer_can() {
    let mut net = pair();
    let own = net.hosts[0].next_hops;
    net.renumber(0, NextHops { v4: None, ..own });
    assert_eq!(fewest(&mut net, SECOND), 3);
    assert_eq!(hops(&net, false), ["2001:db8::1"; 2]);
}
