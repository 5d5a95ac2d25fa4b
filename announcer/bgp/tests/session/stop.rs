//! What a peer is told at the end, and what becomes of the routes.

use std::sync::Arc;
use std::time::Duration;

use berth_bgp::{Attributes, Cause, Parameters, Prefix, Restart, Routes, State, Stop};

use crate::network::{Network, parameters};

fn route() -> (Prefix, Arc<Attributes>) {
    ("198.51.100.1/32".parse().unwrap(), Arc::default())
}

fn up(peer: Parameters) -> Network {
    let mut net = Network::new([parameters(65000, 11), peer]);
    net.hosts[0].session.set_routes(Routes::from([route()]));
    net.up();
    net
}

fn told(net: &Network) -> String {
    match net.downs(1).last() {
        Some(Cause::Received(notification)) => notification.to_string(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn who_goes_for_good_says_why_and_no_route_is_kept() {
    let (soft, hard) = (Restart::default(), Restart { notification: true, ..Restart::default() });
    let cases = [
        (Some(hard), "Cease/Hard Reset (Cease/Administrative Shutdown: \"uninstalled\")"),
        (Some(soft), "Cease/Administrative Shutdown: \"uninstalled\""),
        (None, "Cease/Administrative Shutdown: \"uninstalled\""),
    ];
    for (graceful_restart, words) in cases {
        let mut net = up(Parameters { graceful_restart, ..parameters(65001, 1) });
        net.hosts[1].keeps = graceful_restart.is_some_and(|restart| restart.notification);
        net.act(0, |session, now| session.stop(now, &Stop::Shutdown("uninstalled".to_owned())));
        net.run(Duration::from_secs(1));
        assert_eq!(told(&net), words);
        assert!(net.hosts[1].table.routes.is_empty(), "{words}");
        net.run(Duration::from_secs(600));
        assert_eq!(net.states()[0], State::Idle, "it does not come back by itself");
    }
}

#[test]
fn a_peer_that_is_not_configured_any_more_is_told_so() {
    let mut net = up(parameters(65001, 1));
    net.act(0, |session, now| session.stop(now, &Stop::Removed));
    net.run(Duration::from_secs(1));
    assert_eq!(told(&net), "Cease/Hard Reset (Cease/Peer De-configured)");
}

#[test]
fn a_drain_makes_the_route_the_last_choice_then_withdraws_it_and_keeps_the_session() {
    let mut net = up(parameters(65001, 1));
    let (prefix, attributes) = route();
    let going = Some(Arc::new(attributes.shutting_down()));
    net.act(0, |session, _| session.set_route(prefix, going));
    net.run(Duration::from_secs(1));
    assert!(net.hosts[0].session.is_told());
    let seen = net.hosts[1].table.routes["198.51.100.1/32"].attributes[&8].clone();
    assert_eq!(seen, [0xff, 0xff, 0, 0]);
    net.act(0, |session, _| session.set_route(prefix, None));
    net.run(Duration::from_secs(1));
    assert!(net.hosts[1].table.routes.is_empty() && net.hosts[0].session.is_told());
    assert!(net.both_up());
}

#[test]
fn what_is_stopped_before_it_is_up_says_so_as_well() {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.act(0, |session, now| session.start(now, None));
    net.act(0, |session, now| session.stop(now, &Stop::Removed));
    net.run(Duration::from_secs(60));
    assert_eq!(net.states(), [State::Idle; 2]);
    assert_eq!(net.hosts[0].session.deadline(), None);
}
