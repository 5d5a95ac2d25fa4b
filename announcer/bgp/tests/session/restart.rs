//! Routes survive what they should: restarts and crashes of this speaker, of the peer, and of the cable (RFC 4724, 8538).

use std::sync::Arc;
use std::time::Duration;

use berth_bgp::{Parameters, Routes, Session, State, Stop};

use crate::network::{Network, parameters};

const SECOND: Duration = Duration::from_secs(1);

fn routes(count: u32) -> Routes {
    let host = |n| berth_bgp::Prefix::host(std::net::Ipv4Addr::from_bits(0xc633_6400 + n).into());
    (0..count).map(|n| (host(n), Arc::default())).collect()
}

fn pair() -> Network {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.hosts[0].session.set_routes(routes(50));
    net.up();
    net.run(10 * SECOND);
    net
}

/// The router's routes at every moment from now on until the speaker is back and has told everything.
fn fewest_until_back(net: &mut Network) -> usize {
    let mut fewest = usize::MAX;
    for _ in 0..30_000 {
        fewest = fewest.min(net.hosts[1].table.routes.len());
        if net.both_up() && net.hosts[1].table.ends.len() == 2 {
            assert!(
                net.hosts[1].table.routes.values().all(|route| !route.stale),
                "none is left over"
            );
            return fewest;
        }
        net.run(Duration::from_millis(1));
    }
    panic!("not back: {:?}", net.states());
}

/// Another process at this speaker's place, some seconds later.
fn again(net: &mut Network, after: Duration, count: u32) {
    net.run(after);
    let mut session = Session::new(net.now, parameters(65000, 11), 77);
    session.set_routes(routes(count));
    net.hosts[0].session = session;
    net.act(0, |session, now| session.start(now, Some(now + 120 * SECOND)));
}

#[test]
fn a_restart_loses_no_route_and_what_is_gone_by_then_goes_with_the_end() {
    let mut net = pair();
    net.act(0, |session, now| session.stop(now, &Stop::Restart));
    assert_eq!(net.hosts[1].got.get(&3), None, "no NOTIFICATION");
    again(&mut net, 3 * SECOND, 40);
    assert_eq!(fewest_until_back(&mut net), 40, "fifty until the end, then forty");
    let ends = &net.hosts[1].table.ends;
    assert!(ends.contains(&("IPv4", 40)) && ends.contains(&("IPv6", 0)), "{ends:?}");
}

#[test]
fn a_crash_loses_none_either() {
    let mut net = pair();
    let fresh = Session::new(net.now, parameters(65000, 11), 5);
    net.replace(0, fresh);
    again(&mut net, 2 * SECOND, 50);
    assert_eq!(fewest_until_back(&mut net), 50);
}

#[test]
fn a_cable_that_breaks_for_longer_than_the_hold_time_loses_none() {
    let mut net = pair();
    net.cut = true;
    net.run(95 * SECOND);
    assert_eq!(net.downs(1).len(), 1);
    net.hosts[1].table.lost(true);
    net.cut = false;
    assert_eq!(fewest_until_back(&mut net), 50);
}

#[test]
fn a_restart_is_told_once_and_not_after_the_time_is_over() {
    let restarting = |net: &mut Network| {
        // R and F as the peer sees them, in the octets of the OPEN.
        let open = net.act(0, |session, now| {
            let link = session.accepted(now, berth_bgp::NextHops::default()).unwrap();
            session.output(now, link).to_vec()
        });
        let at = open.windows(2).position(|window| window == [64, 10]).unwrap();
        (open[at + 2] & 0x80 != 0, open[at + 7] & 0x80 != 0)
    };
    let begin = |restarted: Option<Duration>| {
        let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
        net.act(0, |session, now| session.start(now, restarted.map(|span| now + span)));
        net
    };
    assert_eq!(restarting(&mut begin(None)), (false, false), "a fresh node");
    assert_eq!(restarting(&mut begin(Some(SECOND))), (true, true));
    let mut late = begin(Some(SECOND));
    late.run(2 * SECOND);
    assert_eq!(restarting(&mut late), (false, false), "too late");
    let mut back = begin(Some(120 * SECOND));
    back.act(1, |session, now| session.start(now, None));
    back.until(5 * SECOND, Network::both_up);
    back.run(SECOND);
    assert_eq!(
        restarting(&mut back),
        (false, true),
        "everything is told; it has forwarded all the time since"
    );
}

#[test]
fn a_second_restart_within_the_first_loses_nothing() {
    let mut net = pair();
    for _ in 0..3 {
        net.act(0, |session, now| session.stop(now, &Stop::Restart));
        again(&mut net, SECOND, 50);
        net.until(10 * SECOND, |net| net.states()[0] >= State::OpenConfirm);
    }
    assert_eq!(fewest_until_back(&mut net), 50);
}

#[test]
fn a_peer_that_restarts_is_told_everything_and_the_end_at_once() {
    let mut net = pair();
    let mut fresh = Session::new(net.now, parameters(65001, 1), 5);
    fresh.start(net.now, Some(net.now + 60 * SECOND));
    net.replace(1, fresh);
    net.hosts[1].table = Default::default();
    let took = net.until(30 * SECOND, |net| net.hosts[1].table.ends.len() == 2);
    assert_eq!(net.hosts[1].table.routes.len(), 50);
    assert!(took < 2 * SECOND, "{took:?}");
}

#[test]
fn a_peer_without_restarts_is_told_at_once_and_no_end_is_kept_from_it() {
    let without = Parameters { graceful_restart: None, ..parameters(65001, 1) };
    let mut net = Network::new([parameters(65000, 11), without]);
    net.hosts[0].session.set_routes(routes(5));
    net.act(0, |session, now| session.start(now, Some(now + 120 * SECOND)));
    net.act(1, |session, now| session.start(now, None));
    net.until(2 * SECOND, |net| net.hosts[1].table.routes.len() == 5);
}

/// osrg/gobgp#2761, FRR#16126: who waits for the end of a family that never comes keeps what was there before.
#[test]
fn what_led_to_an_address_that_is_gone_after_a_restart_ends_with_its_family() {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    let v6 = ("2001:db8:1::1/128".parse().unwrap(), Arc::default());
    let both = || routes(1).into_iter().chain([v6.clone()]).collect::<Routes>();
    net.hosts[0].session.set_routes(both());
    net.up();
    assert_eq!(net.hosts[1].table.routes.len(), 2);
    net.act(0, |session, now| session.stop(now, &Stop::Restart));
    net.run(2 * SECOND);
    net.hosts[0].next_hops.v6 = None;
    let mut session = Session::new(net.now, parameters(65000, 11), 77);
    session.set_routes(both());
    net.hosts[0].session = session;
    net.act(0, |session, now| session.start(now, Some(now + 120 * SECOND)));
    net.until(10 * SECOND, |net| net.hosts[1].table.ends.len() == 2);
    let table = &net.hosts[1].table;
    assert_eq!(table.prefixes(), ["198.51.100.0/32"], "{:?}", table.ends);
}
