//! What others saw between other speakers and these routers (`e2e/field/bgp.md`).

use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_bgp::config::Distance;
use berth_bgp::{Parameters, Role, Session};
use berth_bgp_speaker::{Door, Key, Target, spawn};
use lab_routers::{Bird, Cable, Frr, Namespace, Neighbor, Program, Wired};

use crate::speaker::{
    CABLE, ROUTER, Speaker, block_on, by_link, hosts, own, pair, parameters, speak, target,
};

fn quick() -> Parameters {
    Parameters { connect_retry: Duration::from_secs(1), ..parameters() }
}

/// rustbgpd#1525, FRR#11391: who connects takes nothing that may come from farther away, the first answer neither. FRR says so
/// to the kernel before it connects, BIRD after that.
#[test]
fn frr_with_ttl_security_connects_and_is_answered() {
    with_ttl_security_connects_and_is_answered(&Frr, &["port 1790", "ttl-security hops 1"]);
}

#[test]
fn bird_with_ttl_security_connects_and_is_answered() {
    let more = ["neighbor port 1790;", "ttl security on;", "connect delay time 1;"];
    with_ttl_security_connects_and_is_answered(&Bird, &more);
}

fn with_ttl_security_connects_and_is_answered(program: &'static dyn Program, more: &[&str]) {
    let pair = pair(program, |neighbor| {
        neighbor.connects = true;
        neighbor.more = more.iter().map(|line| (*line).to_owned()).collect();
    });
    pair.node.within(|| {
        block_on(async {
            let door = Door::open(1790).unwrap();
            let target = Target { distance: Distance::Secured(1), ..target(ROUTER) };
            let (_admission, incoming) = door.admit(target.remote.ip(), None).unwrap();
            let passive = Parameters { role: Role::Passive, ..parameters() };
            let mut session = Session::new(Instant::now(), passive, 7);
            session.set_routes(hosts("198.51.100.1", 1));
            let (handle, news) = spawn(target, session, Arc::new(own), incoming);
            handle.start(None).await.unwrap();
            let speaker = Speaker { handle, news };
            speaker.until_up().await;
            pair.router.until_has([1, 0]);
        });
    });
}

/// maghemite#610, sonic-buildimage#12042: routers on two links that have the same address of the link.
#[test]
fn routers_of_two_links_that_have_one_address_are_two_peers() {
    let node = Namespace::new().unwrap();
    let routers = [Cable(0), Cable(1)].map(|cable| {
        let mut neighbor = Neighbor::new(cable.v4(1), cable.v4(11), 65000);
        by_link(&mut neighbor);
        neighbor.password = Some("secret".to_owned());
        Wired::up(&Bird, &node, cable, 65001, vec![neighbor]).unwrap()
    });
    node.within(|| {
        block_on(async {
            let mut speakers = Vec::new();
            for (number, cable) in [Cable(0), Cable(1)].into_iter().enumerate() {
                let interface = cable.interface();
                let index = nix::net::if_::if_nametoindex(interface.as_str()).unwrap();
                let remote = std::net::SocketAddrV6::new(cable.link(1), 179, 0, index).into();
                let target = Target {
                    remote,
                    interface: Some(interface),
                    key: Key::new(b"secret"),
                    ..target(ROUTER)
                };
                let routes = hosts(&format!("198.51.{number}.1"), 1 + number as u32);
                speakers.push(speak(target, quick(), routes, false).await);
            }
            for (number, speaker) in speakers.iter().enumerate() {
                speaker.until_up().await;
                routers[number].until_has([1 + number, 0]);
                let route = routers[number].only(&format!("198.51.{number}.1/32"));
                assert_eq!(route.next_hops, [CABLE.link(11).into()].into(), "{route:?}");
            }
        });
    });
}

/// FRR#5065, #4675: a router that takes no more routes than so many ends the session, and takes none until somebody has looked.
#[test]
fn a_router_that_has_enough_says_so_and_so_does_what_is_told_of_it() {
    let pair = pair(&Frr, |neighbor| neighbor.more = vec!["maximum-prefix 3".to_owned()]);
    pair.node.within(|| {
        block_on(async {
            let speaker = speak(target(ROUTER), quick(), hosts("198.51.100.1", 9), false).await;
            speaker.until_told("Maximum Number of Prefixes Reached").await;
            // It is tried again, and FRR hangs up without a word: why it does is still what helps.
            tokio::time::sleep(Duration::from_secs(5)).await;
            let cause = speaker.last_cause().await;
            // Fewer are taken, once somebody has looked.
            speaker.handle.set_routes(hosts("198.51.100.1", 2)).await.unwrap();
            pair.router.says("clear bgp 192.0.2.11");
            speaker.until_up().await;
            pair.router.until_has([2, 0]);
            assert!(cause.contains("Maximum Number of Prefixes Reached"), "{cause}");
        });
    });
}

/// exabgp#492, maghemite#294, gobgp#1799: an AS of four octets, and a router that reads two.
#[test]
fn a_router_that_reads_two_octets_of_an_as_has_a_path_that_it_can_read() {
    // It says nothing of what it can: BIRD without those numbers takes no neighbour that has one.
    let pair = pair(&Frr, |neighbor| {
        neighbor.asn = 4_200_000_001;
        neighbor.more = vec!["dont-capability-negotiate".to_owned()];
    });
    pair.node.within(|| {
        block_on(async {
            let long = Parameters { local_as: 4_200_000_001, ..parameters() };
            let speaker = speak(target(ROUTER), long, hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            let route = pair.router.only("198.51.100.1/32");
            // In two octets each. What AS4_PATH says beside it FRR passes by, for it has heard that this speaker could say
            // it otherwise; that is in the octets (`a_peer_without_four_octets_reads_the_as_that_stands_for_one`).
            assert_eq!(route.as_path, [23456]);
        });
    });
}

/// kube-vip#1198: an IPv6 address on `lo` is where a connection of the node comes from.
#[test]
fn a_service_address_on_the_loopback_interface_is_not_where_a_session_comes_from() {
    let node = Namespace::new().unwrap();
    let neighbor = Neighbor::new(CABLE.v6(1), CABLE.v6(11), 65000);
    let router = Wired::up(&Bird, &node, CABLE, 65001, vec![neighbor]).unwrap();
    node.run("ip link set lo up").unwrap();
    // As the announcer binds one: deprecated from the start. It is nearer to the router's than the node's own.
    node.run("ip addr add 2001:db8::2/128 dev lo nodad preferred_lft 0 valid_lft 100").unwrap();
    node.within(|| {
        block_on(async {
            let remote = format!("[{}]:179", CABLE.v6(1));
            let speaker = speak(target(&remote), quick(), hosts("198.51.100.1", 1), false).await;
            speaker.until_up().await;
            router.until("a session", || router.session().is_up.then_some(()));
        });
    });
}
