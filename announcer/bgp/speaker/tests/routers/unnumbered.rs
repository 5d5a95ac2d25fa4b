//! Sessions without numbers: each knows the other on its link by router advertisements (RFC 4861), and IPv4 goes by the link
//! too (RFC 8950). GoBGP sends none.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use berth_bgp::{Parameters, Stop};
use berth_bgp_speaker::{Find, Target, router_on};
use lab_routers::{Bird, Frr, Namespace, Program};

use crate::speaker::{
    CABLE, ROUTER, block_on, by_link, hosts, pair, parameters, speak_finding, target,
};

#[test]
fn bird_is_found_by_its_advertisements_and_has_both_families_by_the_link_alone() {
    is_found_and_has_both_families_by_the_link_alone(&Bird);
}

/// FRR speaks to whom it has found by its advertisements, and to nobody else.
#[test]
fn frr_finds_and_is_found_by_advertisements_and_has_both_families_by_the_link_alone() {
    is_found_and_has_both_families_by_the_link_alone(&Frr);
}

fn is_found_and_has_both_families_by_the_link_alone(program: &'static dyn Program) {
    let pair = pair(program, |neighbor| {
        by_link(neighbor);
        neighbor.unnumbered = true;
    });
    pair.node.within(|| {
        block_on(async {
            // This node tells of itself in the same way, whenever it looks.
            let find: Find = Arc::new(|| {
                Box::pin(async {
                    let interface = CABLE.interface();
                    let remote = router_on(&interface, 179).await?;
                    assert_eq!(remote.ip(), CABLE.link(1));
                    Ok(Target { remote, interface: Some(interface), ..target(ROUTER) })
                })
            });
            let parameters = Parameters { connect_retry: Duration::from_secs(1), ..parameters() };
            let mut routes = hosts("198.51.100.1", 1);
            routes.insert("2001:db8:1::1/128".parse().unwrap(), Arc::default());
            let speaker = speak_finding(find, parameters, routes).await;
            speaker.until_up().await;
            for prefix in ["198.51.100.1/32", "2001:db8:1::1/128"] {
                let route = pair.router.only(prefix);
                assert_eq!(route.next_hops, BTreeSet::from([CABLE.link(11).into()]), "{route:?}");
            }
            speaker.handle.stop(Stop::Removed).await.unwrap();
            pair.router.until_has([0, 0]);
        });
    });
}

#[test]
fn a_link_without_a_router_and_one_that_is_not_there_are_told() {
    let node = Namespace::new().unwrap();
    node.within(|| {
        block_on(async {
            let absent = router_on("lo", 179).await.unwrap_err().to_string();
            assert!(absent.starts_with("asking for the router on the link of lo: "), "{absent}");
            let unknown = router_on("eth7", 179).await.unwrap_err().to_string();
            assert!(unknown.starts_with("interface eth7: "), "{unknown}");
        });
    });
}
