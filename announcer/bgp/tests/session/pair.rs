//! Two sessions find each other, agree, and tell each other their routes.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_bgp::{
    Attributes, Cause, Community, Event, Family, Parameters, Prefix, RemoteAs, Role, Routes, State,
};

use crate::network::{Network, parameters};

const MINUTE: Duration = Duration::from_secs(60);

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn routes(texts: &[&str]) -> Routes {
    texts.iter().map(|text| (prefix(text), Arc::default())).collect()
}

fn pair() -> Network {
    Network::new([parameters(65000, 11), parameters(65001, 1)])
}

#[test]
fn two_speakers_find_each_other_and_tell_their_routes_and_the_end_of_each_family() {
    let mut net = pair();
    net.hosts[0].session.set_routes(routes(&[
        "198.51.100.1/32",
        "198.51.100.2/32",
        "2001:db8:1::1/128",
    ]));
    net.start();
    net.until(Duration::from_secs(5), Network::both_up);
    net.run(Duration::from_secs(1));
    let table = &net.hosts[1].table;
    assert_eq!(table.prefixes(), ["198.51.100.1/32", "198.51.100.2/32", "2001:db8:1::1/128"]);
    assert_eq!(table.ends, [("IPv4", 2), ("IPv6", 1)], "each end behind its routes");
    assert_eq!(table.routes["198.51.100.1/32"].next_hops, ["192.0.2.11"]);
    assert_eq!(table.routes["2001:db8:1::1/128"].next_hops, ["2001:db8::1"]);
    assert_eq!(table.updates, 4);
    let ends = [Event::Established, Event::EndOfRib(Family::V4), Event::EndOfRib(Family::V6)];
    assert_eq!(net.hosts[0].events, ends, "the other one has none, and says so");
    assert!(
        net.hosts[0].session.is_told() && net.hosts[0].session.knows(prefix("198.51.100.1/32"))
    );
    let agreed = net.hosts[0].session.status().agreed.unwrap();
    assert_eq!((agreed.peer_as, agreed.hold), (65001, Some(Duration::from_secs(90))));
    assert_eq!(agreed.told.into_iter().collect::<Vec<_>>(), [(Family::V4, 2), (Family::V6, 1)]);
}

#[test]
fn a_change_of_routes_is_told_at_once_and_touches_no_session() {
    let mut net = pair();
    net.up();
    net.act(0, |session, _| session.set_route(prefix("198.51.100.1/32"), Some(Arc::default())));
    net.run(Duration::from_millis(2));
    assert_eq!(net.hosts[1].table.prefixes(), ["198.51.100.1/32"]);
    let community =
        Attributes { communities: BTreeSet::from([Community(9)]), ..Attributes::default() };
    let changed = Some(Arc::new(community));
    net.act(0, |session, _| session.set_route(prefix("198.51.100.1/32"), changed));
    net.run(Duration::from_millis(2));
    assert_eq!(net.hosts[1].table.routes["198.51.100.1/32"].attributes[&8], [0, 0, 0, 9]);
    net.act(0, |session, _| session.set_routes(Routes::new()));
    net.run(Duration::from_millis(2));
    assert!(net.hosts[1].table.routes.is_empty());
    assert!(net.downs(0).is_empty() && net.downs(1).is_empty());
}

#[test]
fn a_session_without_anything_to_tell_lives_for_hours() {
    let mut net = pair();
    net.up();
    net.run(4 * 60 * MINUTE);
    assert!(net.both_up() && net.downs(0).is_empty());
    let alive = net.hosts[1].got[&4];
    // A third of 90 s, less up to a quarter.
    assert!((480..=642).contains(&alive), "{alive}");
}

#[test]
fn a_peer_that_falls_silent_is_given_up_after_the_hold_time_and_comes_back() {
    let mut net = pair();
    net.up();
    net.cut = true;
    net.run(Duration::from_secs(58));
    assert!(net.both_up(), "not before");
    net.run(Duration::from_secs(33));
    assert_eq!(net.downs(0).last().unwrap().to_string(), "ended: Hold Timer Expired");
    net.run(Duration::from_secs(5 * 60));
    assert_eq!(net.hosts[0].session.status().last.unwrap().1, Cause::NoAnswer);
    assert_eq!(Cause::NoAnswer.to_string(), "no answer: wrong password, or filtered?");
    net.cut = false;
    let took = net.until(2 * MINUTE, Network::both_up);
    assert!(took <= Duration::from_secs(61), "{took:?}");
}

#[test]
fn who_does_not_listen_is_tried_again_ever_more_slowly() {
    let mut net = Network::new([
        parameters(65000, 11),
        Parameters { role: Role::Active, ..parameters(65001, 1) },
    ]);
    net.act(0, |session, now| session.start(now, None));
    let mut waits = Vec::new();
    for _ in 0..9 {
        let before = net.now;
        net.until(MINUTE, |net| net.states()[0] != State::Connect);
        let due = net.hosts[0].session.deadline().unwrap();
        waits.push((due - net.now).as_secs_f64());
        net.run(due - net.now + Duration::from_millis(10));
        assert!(net.now > before);
    }
    assert!(waits[0] <= 1.0 && waits[8] > 22.0 && waits[8] <= 30.0, "{waits:?}");
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0] * 0.74), "{waits:?}");
    assert_eq!(
        net.hosts[0].session.status().last.unwrap().1.to_string(),
        "cannot connect: connection refused"
    );
    net.act(1, |session, now| session.start(now, None));
    net.until(MINUTE, Network::both_up);
}

#[test]
fn either_of_them_may_be_the_one_that_waits() {
    for roles in
        [[Role::Active, Role::Passive], [Role::Passive, Role::Active], [Role::Passive, Role::Both]]
    {
        let mut ours = [parameters(65000, 11), parameters(65001, 1)];
        (ours[0].role, ours[1].role) = (roles[0], roles[1]);
        let mut net = Network::new(ours);
        net.up();
        assert!(net.both_up(), "{roles:?}");
    }
}

#[test]
fn within_an_as_routes_have_a_preference_and_no_path() {
    let mut net = Network::new(
        [parameters(65000, 11), parameters(65000, 1)]
            .map(|parameters| Parameters { remote_as: RemoteAs::Internal, ..parameters }),
    );
    net.hosts[0].session.set_routes(routes(&["198.51.100.1/32"]));
    net.up();
    let route = &net.hosts[1].table.routes["198.51.100.1/32"];
    assert_eq!(route.attributes[&5], [0, 0, 0, 100]);
    assert!(route.attributes[&2].is_empty());
}

#[test]
fn a_peer_of_another_as_than_expected_is_told_why_and_so_are_we() {
    let wrong = Parameters { remote_as: RemoteAs::Is(65002), ..parameters(65000, 11) };
    let mut net = Network::new([wrong, parameters(65001, 1)]);
    net.start();
    net.run(MINUTE);
    let last =
        |net: &Network, host: usize| net.hosts[host].session.status().last.unwrap().1.to_string();
    let seen = [last(&net, 0), last(&net, 1)];
    assert!(seen.iter().all(|cause| cause.contains("OPEN Message Error/Bad Peer AS")), "{seen:?}");
    assert!(net.hosts[0].events.is_empty(), "it was never up");
}

#[test]
fn a_family_without_a_next_hop_or_refused_is_told_of_and_the_other_goes_on() {
    let mut net = pair();
    net.hosts[0].next_hops.v6 = None;
    net.hosts[0].session.set_routes(routes(&["198.51.100.1/32", "2001:db8:1::1/128"]));
    net.up();
    assert_eq!(net.hosts[1].table.prefixes(), ["198.51.100.1/32"]);
    let agreed = net.hosts[0].session.status().agreed.unwrap();
    assert_eq!(agreed.without_next_hop, BTreeSet::from([Family::V6]));

    let v4 = Parameters { families: BTreeSet::from([Family::V4]), ..parameters(65001, 1) };
    let mut net = Network::new([parameters(65000, 11), v4]);
    net.hosts[0].session.set_routes(routes(&["198.51.100.1/32", "2001:db8:1::1/128"]));
    net.up();
    assert_eq!(net.hosts[1].table.prefixes(), ["198.51.100.1/32"]);
    let agreed = net.hosts[0].session.status().agreed.unwrap();
    assert_eq!(agreed.refused, BTreeSet::from([Family::V6]));
    assert_eq!(net.hosts[1].table.ends, [("IPv4", 1)]);
}

#[test]
fn ipv4_routes_lead_over_a_link_without_ipv4() {
    let mut net = pair();
    for host in &mut net.hosts {
        (host.next_hops.v4, host.next_hops.v6) = (None, None);
        host.next_hops.link_local = Some("fe80::11".parse().unwrap());
    }
    net.hosts[0].session.set_routes(routes(&["198.51.100.1/32", "2001:db8:1::1/128"]));
    net.up();
    let table = &net.hosts[1].table;
    assert_eq!(table.prefixes(), ["198.51.100.1/32", "2001:db8:1::1/128"]);
    assert!(table.routes.values().all(|route| route.next_hops == ["fe80::11"]), "{table:?}");
    net.act(0, |session, _| session.set_routes(Routes::new()));
    net.run(Duration::from_secs(1));
    assert!(net.hosts[1].table.routes.is_empty());
}

#[test]
fn a_peer_that_reads_nothing_is_given_up_and_costs_no_memory() {
    let short = Parameters { send_hold: Some(MINUTE), ..parameters(65000, 11) };
    let mut net = Network::new([short, parameters(65001, 1)]);
    net.up();
    net.hosts[1].stalled = true;
    for round in 0..200_u32 {
        let many = (0..500).map(|n: u32| {
            let attributes = Attributes { med: Some(round), ..Attributes::default() };
            let address = std::net::Ipv4Addr::from_bits(0xc633_0000 + n);
            (Prefix::host(address.into()), Arc::new(attributes))
        });
        let many: Routes = many.collect();
        net.act(0, |session, _| session.set_routes(many));
        net.run(Duration::from_millis(100));
    }
    assert!(net.both_up());
    net.run(MINUTE);
    assert_eq!(net.downs(0), [&Cause::NotRead]);
}
