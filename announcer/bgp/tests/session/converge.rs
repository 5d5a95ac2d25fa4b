//! Whatever changes, and whenever the peer is lost meanwhile: in the end it has what is wanted, and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_bgp::{Attributes, Community, Prefix, Routes, Stop};
use proptest::prelude::*;

use crate::network::{Network, parameters};

#[derive(Clone, Debug)]
enum Act {
    /// A route comes, changes or goes.
    Set(u8, Option<u8>),
    /// All routes are said anew.
    Replace(Vec<(u8, u8)>),
    /// The peer asks for all of a family again.
    Refresh(bool),
    /// Time passes.
    Wait(u16),
    /// The session is lost, without a word or with one.
    Reset(bool),
    /// The peer reads nothing from now on, or again.
    Stall(bool),
}

fn acts() -> impl Strategy<Value = Vec<Act>> {
    let act = prop_oneof![
        4 => (0_u8..40, proptest::option::of(0_u8..4)).prop_map(|(prefix, attributes)| Act::Set(prefix, attributes)),
        1 => proptest::collection::vec((0_u8..40, 0_u8..4), 0..30).prop_map(Act::Replace),
        1 => any::<bool>().prop_map(Act::Refresh),
        2 => (0_u16..2000).prop_map(Act::Wait),
        1 => any::<bool>().prop_map(Act::Reset),
        1 => any::<bool>().prop_map(Act::Stall),
    ];
    proptest::collection::vec(act, 0..40)
}

/// The lower half of numbers is IPv4, the rest IPv6.
fn prefix(number: u8) -> Prefix {
    let text =
        if number < 20 { format!("198.51.100.{number}") } else { format!("2001:db8:1::{number}") };
    Prefix::host(text.parse().unwrap())
}

fn attributes(number: u8) -> Arc<Attributes> {
    let communities = BTreeSet::from([Community(number.into())]);
    Arc::new(Attributes { communities, ..Attributes::default() })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn in_the_end_the_peer_has_what_is_wanted(acts in acts()) {
        let mut net = Network::new([parameters(65000, 11), parameters(65001, 1)]);
        net.up();
        let mut wanted = Routes::new();
        for act in acts {
            match act {
                Act::Set(number, attribute) => {
                    let route = attribute.map(attributes);
                    match &route {
                        Some(route) => drop(wanted.insert(prefix(number), Arc::clone(route))),
                        None => drop(wanted.remove(&prefix(number))),
                    }
                    net.act(0, |session, _| session.set_route(prefix(number), route));
                }
                Act::Replace(routes) => {
                    wanted = routes.into_iter().map(|(number, attribute)| (prefix(number), attributes(attribute))).collect();
                    let routes = wanted.clone();
                    net.act(0, |session, _| session.set_routes(routes));
                }
                Act::Refresh(v6) => net.refresh(0, v6),
                Act::Wait(millis) => net.run(Duration::from_millis(millis.into())),
                Act::Reset(silent) => {
                    let stop = if silent { Stop::Restart } else { Stop::Shutdown(String::new()) };
                    net.act(0, |session, now| session.stop(now, &stop));
                    net.act(0, |session, now| session.start(now, None));
                }
                Act::Stall(stalled) => net.stall(1, stalled),
            }
        }
        net.stall(1, false);
        net.until(Duration::from_secs(120), Network::both_up);
        net.run(Duration::from_secs(2));
        let table = &net.hosts[1].table;
        let told: Vec<(String, Vec<u8>)> =
            table.routes.iter().map(|(prefix, route)| (prefix.clone(), route.attributes[&8].clone())).collect();
        let mut expected: Vec<(String, Vec<u8>)> = wanted
            .iter()
            .map(|(prefix, attributes)| {
                let community = attributes.communities.first().unwrap();
                (prefix.to_string(), community.0.to_be_bytes().to_vec())
            })
            .collect();
        expected.sort();
        prop_assert_eq!(told, expected);
        prop_assert!(net.hosts[0].session.is_told());
    }
}
