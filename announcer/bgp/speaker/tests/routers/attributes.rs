//! What the ConfigMap says of routes, in the table of each router: every attribute, both families, every next hop.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use berth_bgp::config::check;
use berth_bgp::{Announcement, Parameters, RemoteAs, Routes};
use lab_routers::Program;

use crate::speaker::{
    CABLE, ROUTER, block_on, by_link, hosts, pair, pair_of, parameters, speak, target,
};

each!(
    each_attribute_of_both_families_is_in_the_table_of_a_peer_of_another_as,
    a_peer_of_the_own_as_has_the_preference,
    ipv4_routes_lead_over_a_link_that_has_ipv6_alone,
    an_address_that_goes_is_marked_before_it_is_withdrawn,
);

/// What is announced of these addresses where the ConfigMap says this.
fn routes(document: &str, addresses: &[&str]) -> Routes {
    let (document, flaws) = check(document);
    assert!(flaws.is_empty(), "{flaws:?}");
    let announcements =
        addresses.iter().map(|text| Announcement::of(text.parse().unwrap(), "shop"));
    document.policy.routes("tor", &announcements.collect::<Vec<_>>())
}

const RULES: &str = "
policy:
- {med: 42, prepend: 2, localPref: 200, communities: [\"65000:7\", \"65535:0\", \"4200000000:1:2\"]}
";

fn set<T: Ord + From<&'static str>>(texts: &[&'static str]) -> BTreeSet<T> {
    texts.iter().map(|text| T::from(text)).collect()
}

fn each_attribute_of_both_families_is_in_the_table_of_a_peer_of_another_as(
    program: &'static dyn Program,
) {
    let pair = pair(program, |_| {});
    pair.node.within(|| {
        block_on(async {
            let mut all = routes(RULES, &["198.51.100.1", "2001:db8:1::1"]);
            let wide = "policy: [{aggregate: {ipv4: 24, ipv6: 64}}]";
            all.extend(routes(wide, &["203.0.113.7", "203.0.113.9", "2001:db8:2::7"]));
            let speaker = speak(target(ROUTER), parameters(), all, false).await;
            speaker.until_up().await;
            let router = &pair.router;
            for (prefix, hop) in [
                ("198.51.100.1/32", IpAddr::from(CABLE.v4(11))),
                ("2001:db8:1::1/128", CABLE.v6(11).into()),
            ] {
                let route = router.only(prefix);
                assert_eq!(route.from, "node");
                assert!(route.next_hops.contains(&hop), "{route:?}");
                assert_eq!(route.as_path, [65000; 3], "its own AS, and twice more");
                assert_eq!(route.med, Some(42));
                assert_eq!(route.communities, set(&["65000:7", "65535:0"]));
                assert_eq!(route.large_communities, set(&["4200000000:1:2"]));
            }
            for prefix in ["203.0.113.0/24", "2001:db8:2::/64"] {
                let route = router.only(prefix);
                assert_eq!((route.as_path.as_slice(), route.med), (&[65000][..], None));
                assert!(route.communities.is_empty(), "{route:?}");
            }
            router.until_has([2, 2]);
            speaker.handle.set_routes(hosts("198.51.100.1", 1)).await.unwrap();
            router.until_has([1, 0]);
            let route = router.only("198.51.100.1/32");
            assert!(route.med.is_none() && route.communities.is_empty(), "{route:?}");
        });
    });
}

fn a_peer_of_the_own_as_has_the_preference(program: &'static dyn Program) {
    let pair = pair_of(program, 65000, |_| {});
    pair.node.within(|| {
        block_on(async {
            let internal = Parameters { remote_as: RemoteAs::Internal, ..parameters() };
            let mut target = target(ROUTER);
            target.external = false;
            let routes = routes(RULES, &["198.51.100.1"]);
            let speaker = speak(target, internal, routes, false).await;
            speaker.until_up().await;
            let route = pair.router.only("198.51.100.1/32");
            assert_eq!((route.local_pref, route.med), (Some(200), Some(42)));
            assert!(route.as_path.is_empty(), "within an AS nothing is put before: {route:?}");
        });
    });
}

fn ipv4_routes_lead_over_a_link_that_has_ipv6_alone(program: &'static dyn Program) {
    let pair = pair(program, by_link);
    pair.node.within(|| {
        block_on(async {
            let index = nix::net::if_::if_nametoindex(CABLE.interface().as_str()).unwrap();
            let mut routes = hosts("198.51.100.1", 2);
            routes.insert("2001:db8:1::1/128".parse().unwrap(), Arc::default());
            let target = target(&format!("[{}%{index}]:179", CABLE.link(1)));
            let speaker = speak(target, parameters(), routes, false).await;
            speaker.until_up().await;
            for prefix in ["198.51.100.1/32", "198.51.100.2/32", "2001:db8:1::1/128"] {
                let route = pair.router.only(prefix);
                assert!(route.next_hops.contains(&CABLE.link(11).into()), "{route:?}");
            }
        });
    });
}

fn an_address_that_goes_is_marked_before_it_is_withdrawn(program: &'static dyn Program) {
    let pair = pair(program, |_| {});
    pair.node.within(|| {
        block_on(async {
            let address = "198.51.100.1".parse().unwrap();
            let stays = Announcement::of(address, "shop");
            let goes = Announcement { shutting_down: true, ..stays.clone() };
            let policy = check(RULES).0.policy;
            let routes = policy.routes("tor", [&stays]);
            let speaker = speak(target(ROUTER), parameters(), routes, false).await;
            speaker.until_up().await;
            pair.router.until_has([1, 0]);
            speaker.handle.set_routes(policy.routes("tor", [&goes])).await.unwrap();
            pair.router.until("the community of RFC 8326", || {
                let route = pair.router.only("198.51.100.1/32");
                route.communities.contains("65535:0").then_some(())
            });
            speaker.handle.set_routes(Routes::new()).await.unwrap();
            pair.router.until_has([0, 0]);
        });
    });
}
