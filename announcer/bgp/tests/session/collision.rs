//! Both open a connection: one of the two stays, the same one in both eyes (RFC 4271 §6.8, RFC 6286).

use std::time::Duration;

use berth_bgp::{NextHops, Parameters, Role, Session, State};

use crate::network::{Network, parameters};

#[test]
fn of_two_connections_the_one_of_the_higher_identifier_stays_and_nobody_goes_down() {
    for (first, second) in [(11, 1), (1, 11)] {
        let mut net = Network::new([parameters(65000, first), parameters(65001, second)]);
        // At the same moment.
        net.start();
        net.until(Duration::from_secs(1), Network::both_up);
        net.run(Duration::from_secs(300));
        assert!(net.both_up());
        assert!(net.downs(0).is_empty() && net.downs(1).is_empty(), "{:?}", net.hosts);
        assert!(net.hosts[0].got.get(&3).copied().unwrap_or_default() <= 1, "one Cease at most");
    }
}

#[test]
fn with_the_same_identifier_the_higher_as_decides() {
    let twins = [parameters(65000, 1), parameters(65001, 1)];
    let mut net = Network::new(twins);
    net.start();
    net.until(Duration::from_secs(1), Network::both_up);
    net.run(Duration::from_secs(60));
    assert!(net.both_up() && net.downs(0).is_empty());
}

#[test]
fn whenever_the_second_one_comes_the_session_that_is_up_stays() {
    for delay in 0..12 {
        let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
        net.act(0, |session, now| session.start(now, None));
        net.run(Duration::from_millis(delay));
        net.act(1, |session, now| session.start(now, None));
        net.until(Duration::from_secs(3), Network::both_up);
        net.run(Duration::from_secs(60));
        assert!(net.both_up(), "{delay}");
        assert!(net.downs(0).is_empty() && net.downs(1).is_empty(), "{delay}");
    }
}

#[test]
fn a_peer_that_has_lost_everything_and_comes_back_is_taken_before_the_hold_time() {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.up();
    net.run(Duration::from_secs(10));
    // Its host has restarted within a second: for us the connection is still there.
    let again = Session::new(net.now, parameters(65001, 1), 99);
    net.crash(1, again);
    net.act(1, |session, now| session.start(now, None));
    let took = net.until(Duration::from_secs(10), |net| net.both_up() && net.downs(0).len() == 1);
    assert!(took < Duration::from_secs(2), "{took:?}");
}

#[test]
fn who_connects_from_the_peers_address_and_says_nothing_costs_no_session() {
    let passive = Parameters { role: Role::Passive, ..parameters(65000, 11) };
    let mut net = Network::new([passive, parameters(65001, 1)]);
    net.up();
    // Somebody at the peer's address connects and says nothing.
    let link = net.act(0, |session, now| session.accepted(now, NextHops::default())).unwrap();
    net.run(Duration::from_secs(200));
    assert!(net.both_up());
    // And somebody else, and again.
    for _ in 0..1000 {
        net.act(0, |session, now| session.accepted(now, NextHops::default())).unwrap();
    }
    assert!(net.both_up() && net.downs(0).is_empty());
    let output = net.hosts[0].session.output(net.now, link);
    assert!(output.is_empty(), "what came before is forgotten");
    assert_eq!(net.hosts[0].session.status().state, State::Established);
}
