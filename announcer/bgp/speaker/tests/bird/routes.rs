//! Each attribute, each family and next hop, and many routes, as BIRD's table shows them.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use berth_bgp::{Attributes, Community, LargeCommunity, Parameters, RemoteAs, Routes};

use crate::router::Router;
use crate::speaker::{block_on, hosts, parameters, speak, target};

const EXTERNAL: &str = "
protocol bgp node {
  local 192.0.2.1 as 65001;
  neighbor 192.0.2.11 as 65000;
  passive on;
  ipv4 { import all; export none; };
  ipv6 { import all; export none; };
}
";

fn attributes() -> Arc<Attributes> {
    Arc::new(Attributes {
        local_pref: Some(200),
        med: Some(42),
        prepend: 2,
        communities: BTreeSet::from([Community(65000 << 16 | 7), Community::GRACEFUL_SHUTDOWN]),
        large_communities: BTreeSet::from([LargeCommunity(4_200_000_000, 1, 2)]),
    })
}

#[test]
fn each_attribute_of_both_families_is_in_the_table_of_a_peer_of_another_as() {
    let router = Router::with(EXTERNAL);
    router.node.within(|| {
        block_on(async {
            let routes = Routes::from([
                ("198.51.100.1/32".parse().unwrap(), attributes()),
                ("2001:db8:1::1/128".parse().unwrap(), attributes()),
                ("203.0.113.0/24".parse().unwrap(), Arc::default()),
            ]);
            let speaker = speak(target("192.0.2.1:179"), parameters(), routes, false).await;
            speaker.until_up().await;
            speaker.handle.told().await.unwrap();
            for (route, hop) in
                [("198.51.100.1/32", "192.0.2.11"), ("2001:db8:1::1/128", "2001:db8::11")]
            {
                let said = router
                    .until(&format!("show route {route} all"), |said| said.contains("BGP.as_path"));
                for expected in [
                    "BGP.origin: IGP",
                    "BGP.as_path: 65000 65000 65000",
                    &format!("BGP.next_hop: {hop}"),
                    "BGP.med: 42",
                    "(65000,7) (65535,0)",
                    "BGP.large_community: (4200000000, 1, 2)",
                ] {
                    assert!(said.contains(expected), "{expected}\n{said}");
                }
            }
            assert_eq!(router.count("node"), 3);
            speaker.handle.set_routes(hosts("198.51.100.1", 1)).await.unwrap();
            speaker.handle.told().await.unwrap();
            router.until("show route protocol node count", |said| {
                said.starts_with("BIRD") && router.count("node") == 1
            });
            let said = router.says("show protocols all node");
            assert!(said.contains("Established") && said.contains("4-octet AS numbers"), "{said}");
        });
    });
}

#[test]
fn a_peer_of_the_own_as_has_the_preference() {
    let router = Router::with(&EXTERNAL.replace("as 65001;", "as 65000;"));
    router.node.within(|| {
        block_on(async {
            let internal = Parameters { remote_as: RemoteAs::Internal, ..parameters() };
            let routes = Routes::from([("198.51.100.1/32".parse().unwrap(), attributes())]);
            let mut target = target("192.0.2.1:179");
            target.external = false;
            let speaker = speak(target, internal, routes, false).await;
            speaker.until_up().await;
            let said = router
                .until("show route 198.51.100.1/32 all", |said| said.contains("BGP.local_pref"));
            assert!(
                said.contains("BGP.local_pref: 200") && !said.contains("as_path: 65000"),
                "{said}"
            );
        });
    });
}

#[test]
fn ipv4_routes_lead_over_a_link_that_has_ipv6_alone() {
    let router = Router::with(
        "
protocol bgp node {
  local fe80::1 as 65001;
  neighbor fe80::11%eth0 as 65000;
  passive on;
  ipv4 { import all; export none; extended next hop on; };
  ipv6 { import all; export none; };
}
",
    );
    router.node.within(|| {
        block_on(async {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            let mut routes = hosts("198.51.100.1", 2);
            routes.insert("2001:db8:1::1/128".parse().unwrap(), Arc::default());
            let mut target = target(&format!("[fe80::1%{index}]:179"));
            // The interface has one that the kernel has made, too.
            target.source = Some("fe80::11".parse().unwrap());
            let speaker = speak(target, parameters(), routes, false).await;
            speaker.until_up().await;
            for route in ["198.51.100.1/32", "2001:db8:1::1/128"] {
                let said = router.until(&format!("show route {route} all"), |said| {
                    said.contains("BGP.next_hop")
                });
                assert!(said.contains("fe80::11"), "{said}");
            }
        });
    });
}

#[test]
fn twenty_thousand_routes_are_there_within_seconds() {
    let router = Router::with(EXTERNAL);
    router.node.within(|| {
        block_on(async {
            let begun = Instant::now();
            let routes = hosts("10.0.0.0", 20_000);
            let speaker = speak(target("192.0.2.1:179"), parameters(), routes, false).await;
            speaker.until_up().await;
            speaker.handle.told().await.unwrap();
            let told = begun.elapsed();
            router.until("show protocols all node", |said| said.contains("20000 imported"));
            let there = begun.elapsed();
            println!("20,000 routes, from the start: told after {told:?}, in BIRD's table after {there:?}");
            let said = router.says("show protocols all node");
            let updates =
                said.lines().find(|line| line.contains("Import updates:")).unwrap_or_default();
            assert!(updates.contains("20000"), "{said}");
        });
    });
}
