//! What others saw with other speakers (`e2e/field/bgp.md`), as far as a session alone is asked.

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::{NextHops, Parameters, RemoteAs, Role, Routes, Session, State, Step, Stop};

use crate::network::{Network, parameters};
use crate::scripted::{OWN, keepalive, message, open};

const SECOND: Duration = Duration::from_secs(1);

fn both_families() -> Routes {
    let prefixes = ["198.51.100.1/32", "2001:db8:1::1/128"];
    prefixes.map(|text| (text.parse().unwrap(), Arc::default())).into()
}

fn pair() -> Network {
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.hosts[0].session.set_routes(both_families());
    net.up();
    net
}

/// Another process in the place of this one, which ends as for a restart.
fn restart(net: &mut Network, routes: Routes) {
    net.act(0, |session, now| session.stop(now, &Stop::Restart));
    net.run(2 * SECOND);
    let mut session = Session::new(net.now, parameters(65000, 11), 77);
    session.set_routes(routes);
    net.hosts[0].session = session;
    net.act(0, |session, now| session.start(now, Some(now + 120 * SECOND)));
}

/// osrg/gobgp#2761, FRR#16126: who waits for the end of a family that never comes keeps what was there before.
#[test]
fn a_family_that_has_lost_its_next_hop_meanwhile_ends_as_well() {
    let mut net = pair();
    assert_eq!(net.hosts[1].table.prefixes(), ["198.51.100.1/32", "2001:db8:1::1/128"]);
    net.hosts[0].next_hops.v6 = None;
    restart(&mut net, both_families());
    net.until(10 * SECOND, Network::both_up);
    net.run(SECOND);
    let table = &net.hosts[1].table;
    assert_eq!(
        table.prefixes(),
        ["198.51.100.1/32"],
        "IPv6 leads nowhere, and nobody tells it: {table:?}"
    );
    assert!(table.ends.iter().any(|(family, _)| *family == "IPv6"), "{:?}", table.ends);
}

/// osrg/gobgp#2761: a family that has no routes ends, too.
#[test]
fn a_family_without_any_route_ends_as_well() {
    let mut net = pair();
    restart(&mut net, Routes::from([("198.51.100.1/32".parse().unwrap(), Arc::default())]));
    net.until(10 * SECOND, Network::both_up);
    net.run(SECOND);
    let table = &net.hosts[1].table;
    assert_eq!((table.prefixes(), table.ends.len()), (vec!["198.51.100.1/32"], 2), "{table:?}");
}

/// A peer that takes each connection, says these, and closes; how long each next attempt is waited for.
fn waits(said: &[u8]) -> (Session, Vec<f64>) {
    let active =
        Parameters { role: Role::Active, ..Parameters::new(65000, RemoteAs::Is(65001), OWN) };
    let mut now = Instant::now();
    let mut session = Session::new(now, active, 7);
    session.start(now, None);
    let mut waits = Vec::new();
    for _ in 0..9 {
        let link = loop {
            match session.next_step().expect("a connection is opened") {
                Step::Connect(link) => break link,
                Step::Close { .. } | Step::Tell(_) => {}
            }
        };
        session.connected(now, link, NextHops { v4: Some(OWN), ..NextHops::default() });
        let written = session.output(now, link).len();
        session.written(now, link, written);
        session.received(now, link, said);
        let due = session.deadline().expect("it is tried again");
        waits.push((due - now).as_secs_f64());
        now = due;
        session.poll(now);
    }
    (session, waits)
}

/// metallb#1114: several attempts in one second where the AS is wrong. FRR#5065: up and ended again and again where a router
/// takes no more routes.
#[test]
fn whoever_ends_each_session_is_tried_ever_more_slowly_however_far_it_came() {
    let wrong = message(3, &[2, 2]);
    let full = message(3, &[6, 1, 0, 1, 1, 0, 0, 0, 3]);
    for (said, words) in [
        ([open(90), wrong].concat(), "OPEN Message Error/Bad Peer AS"),
        ([open(90), keepalive(), full].concat(), "Cease/Maximum Number of Prefixes Reached"),
    ] {
        let (session, waits) = waits(&said);
        assert!(waits[0] >= 0.75 && waits[8] > 22.0 && waits[8] <= 30.0, "{words}: {waits:?}");
        assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 0.74), "{words}: {waits:?}");
        let (_, cause) = session.status().last.unwrap();
        assert!(cause.to_string().contains(words), "{cause}");
    }
}

/// exabgp#1241, #895: what is said again though nothing has changed.
#[test]
fn what_is_ordered_again_as_it_was_is_not_told_again() {
    let mut net = pair();
    let updates = net.hosts[1].table.updates;
    for _ in 0..50 {
        net.act(0, |session, _| session.set_routes(both_families()));
        net.run(SECOND / 10);
    }
    assert_eq!(net.hosts[1].table.updates, updates);
}

/// metallb#777: a firewall has forgotten the connection and drops what comes on it: keepalives are sent and nothing is answered.
#[test]
fn a_router_that_has_forgotten_the_connection_is_spoken_to_anew_after_the_hold_time() {
    let short = |asn, last| Parameters { hold_time: 9, ..parameters(asn, last) };
    let mut net = Network::new([
        Parameters { role: Role::Active, ..short(65000, 11) },
        Parameters { role: Role::Passive, graceful_restart: None, ..short(65001, 1) },
    ]);
    net.hosts[0].session.set_routes(both_families());
    net.up();
    let fresh = Parameters { role: Role::Passive, graceful_restart: None, ..short(65001, 1) };
    let mut again = Session::new(net.now, fresh, 99);
    again.start(net.now, None);
    net.crash(1, again);
    net.hosts[1].table = Default::default();
    let took = net.until(60 * SECOND, |net| net.hosts[1].table.routes.len() == 2);
    assert!(took <= 12 * SECOND, "{took:?}");
    assert_eq!(net.hosts[0].session.status().state, State::Established);
}

/// What a Service asks for fills the room that there is: what rules say of its route, and that it goes, are said all the same.
#[test]
fn whatever_a_service_asks_for_what_the_operator_says_is_said() {
    let own = berth_bgp::Rule {
        change: berth_bgp::Change {
            communities: ["no-export".parse().unwrap()].into(),
            ..berth_bgp::Change::default()
        },
        ..berth_bgp::Rule::default()
    };
    let policy = berth_bgp::Policy { rules: vec![own] };
    let mut announcement = berth_bgp::Announcement::of("198.51.100.1".parse().unwrap(), "shop");
    announcement.asked.communities =
        (0..100).map(|number| berth_bgp::Community(65000 << 16 | number)).collect();
    announcement.shutting_down = true;
    let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
    net.hosts[0].session.set_routes(policy.routes("tor", [&announcement]));
    net.up();
    let told = &net.hosts[1].table.routes["198.51.100.1/32"].attributes[&8];
    let has = |octets: [u8; 4]| told.chunks(4).any(|community| community == octets);
    assert!(has([0xff, 0xff, 0xff, 1]) && has([0xff, 0xff, 0, 0]), "{:?}", told.len() / 4);
}
