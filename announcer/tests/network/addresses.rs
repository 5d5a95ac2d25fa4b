use std::io::ErrorKind;
use std::net::{Ipv6Addr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use berth_announcer::kernel::{Binding, Kernel, KernelChange, Lifetime, Netlink};
use berth_announcer::vip::Family;

use crate::namespace::{address, addresses, alone, door, kernel, run};

async fn binding(kernel: &mut Netlink, address: &str) -> Binding {
    let host = kernel.look().await.unwrap();
    Binding { index: host.interfaces["eth0"].index, address: address.parse().unwrap() }
}

fn seconds(count: u64) -> Lifetime {
    Lifetime::Until(Instant::now() + Duration::from_secs(count))
}

#[test]
fn an_address_is_bound_alone_deprecated_and_without_detection_of_duplicates() {
    alone(async || {
        let mut kernel = kernel();
        for (text, prefix) in [("192.0.2.1", 32), ("2001:db8::1", 128)] {
            let binding = binding(&mut kernel, text).await;
            kernel.bind(binding, seconds(100)).await.unwrap();
            let shown = address("eth0", text).unwrap();
            assert_eq!(shown["prefixlen"], prefix, "{shown}");
            assert_eq!(shown["scope"], "0", "it is for all: {shown}");
            assert_eq!(shown["deprecated"], true, "{shown}");
            assert_eq!(shown["preferred_life_time"], 0, "{shown}");
            assert!((98..=100).contains(&shown["valid_life_time"].as_u64().unwrap()), "{shown}");
            assert!(
                shown.get("broadcast").is_none() && shown.get("tentative").is_none(),
                "{shown}"
            );
            let host = kernel.look().await.unwrap();
            assert!(host.ours.contains_key(&binding), "{:?}", host.ours);
        }
        assert_eq!(address("eth0", "2001:db8::1").unwrap()["nodad"], true);
    });
}

#[test]
fn the_node_never_speaks_from_an_address_of_a_service() {
    alone(async || {
        let mut kernel = kernel();
        for text in ["192.0.2.1", "2001:db8::1"] {
            let binding = binding(&mut kernel, text).await;
            kernel.bind(binding, seconds(100)).await.unwrap();
        }
        assert!(run("ip route get 192.0.2.77").contains("src 192.0.2.250"));
        assert!(run("ip route get 2001:db8::77").contains("src 2001:db8::250"));
    });
}

#[test]
fn what_comes_for_an_address_that_is_bound_stays_here_though_others_change_the_network() {
    alone(async || {
        let (mut kernel, mut astray) = (kernel(), Vec::new());
        let any = binding(&mut kernel, "2001:db8::1").await;
        let is_over = Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..2)
            .map(|number| {
                let is_over = is_over.clone();
                std::thread::spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        run(&format!("ip link add other{number} type bridge"));
                        run(&format!("ip link del other{number}"));
                    }
                })
            })
            .collect();
        for number in 1..=40 {
            let address = Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1 << 16 | number);
            kernel.bind(Binding { address: address.into(), ..any }, seconds(100)).await.unwrap();
            // Nobody listens there, which is told at once by whoever has the address, and never by anybody else.
            let asked =
                TcpStream::connect_timeout(&(address, 9).into(), Duration::from_millis(100));
            if asked.is_err_and(|error| error.kind() != ErrorKind::ConnectionRefused) {
                astray.push(address);
            }
        }
        is_over.store(true, Ordering::Relaxed);
        others.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!(astray, [] as [Ipv6Addr; 0]);
    });
}

#[test]
fn binding_again_renews_and_removing_again_is_no_error() {
    alone(async || {
        let mut kernel = kernel();
        for text in ["192.0.2.1", "2001:db8::1"] {
            let binding = binding(&mut kernel, text).await;
            kernel.bind(binding, seconds(10)).await.unwrap();
            kernel.bind(binding, seconds(100)).await.unwrap();
            let left = address("eth0", text).unwrap()["valid_life_time"].as_u64().unwrap();
            assert!((98..=100).contains(&left), "{left}");
            assert_eq!(addresses("eth0").iter().filter(|shown| shown["local"] == text).count(), 1);
            kernel.remove(binding).await.unwrap();
            assert_eq!(address("eth0", text), None);
            kernel.remove(binding).await.unwrap();
        }
        let gone = Binding { index: 999, address: "192.0.2.1".parse().unwrap() };
        kernel.remove(gone).await.unwrap();
        let error = kernel.bind(gone, seconds(10)).await.unwrap_err().to_string();
        assert!(error.contains("192.0.2.1") && error.contains("999"), "{error}");
    });
}

#[test]
fn the_kernel_drops_an_address_by_itself_when_its_owner_is_gone() {
    alone(async || {
        let mut kernel = kernel();
        let bound = Instant::now();
        for text in ["192.0.2.1", "2001:db8::1"] {
            let binding = binding(&mut kernel, text).await;
            kernel.bind(binding, seconds(2)).await.unwrap();
        }
        drop(kernel);
        while addresses("eth0").iter().any(|shown| shown["deprecated"] == true) {
            assert!(bound.elapsed() < Duration::from_secs(10), "{:?}", addresses("eth0"));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(bound.elapsed() > Duration::from_millis(900), "not before its time");
    });
}

#[test]
fn what_others_bound_is_never_taken_for_ours() {
    alone(async || {
        run("ip addr add 192.0.2.9/32 dev eth0");
        run("ip addr add 192.0.2.8/32 dev eth0 valid_lft 1000 preferred_lft 0");
        run("ip addr add 2001:db8::9/128 dev eth0 nodad");
        let mut kernel = kernel();
        let host = kernel.look().await.unwrap();
        assert!(host.ours.is_empty(), "{:?}", host.ours);
        let foreign = &host.interfaces["eth0"].foreign;
        let adoptable = |text: &str| foreign[&text.parse().unwrap()].adoptable;
        assert!(!adoptable("192.0.2.9") && !adoptable("192.0.2.250") && !adoptable("2001:db8::9"));
        assert!(adoptable("192.0.2.8"), "deprecated and alone: one that an announcer left behind");
        let untagged = |text: &str| foreign[&text.parse().unwrap()].untagged;
        assert!(untagged("192.0.2.9") && untagged("2001:db8::9") && !untagged("192.0.2.250"));
    });
}

#[test]
fn what_is_taken_over_is_the_same_address_with_our_tag_and_goes_with_the_hold() {
    alone(async || {
        run("ip addr add 192.0.2.9/32 dev eth0");
        run("ip addr add 2001:db8::9/128 dev eth0 nodad");
        let mut kernel = kernel();
        for text in ["192.0.2.9", "2001:db8::9"] {
            let binding = binding(&mut kernel, text).await;
            kernel.bind(binding, seconds(100)).await.unwrap();
            let shown = addresses("eth0").into_iter().filter(|shown| shown["local"] == text);
            let shown: Vec<_> = shown.collect();
            let [one] = &shown[..] else { panic!("{shown:?}") };
            assert_eq!(one["deprecated"], true, "{one}");
            assert!(kernel.look().await.unwrap().ours.contains_key(&binding), "our tag");
            kernel.remove(binding).await.unwrap();
            assert_eq!(address("eth0", text), None);
        }
    });
}

#[test]
fn links_and_the_default_route_are_seen() {
    alone(async || {
        let mut kernel = kernel();
        assert_eq!(kernel.look().await.unwrap().default_route(), None);
        run("ip route add default via 192.0.2.254 dev eth0 metric 100");
        run("ip route add default via 192.0.2.253 dev lo onlink metric 200");
        let host = kernel.look().await.unwrap();
        assert_eq!(host.default_route(), Some("eth0"));
        assert!(host.interfaces["eth0"].up && host.interfaces["eth0"].mac.is_some());
        run("ip link set peer0 down");
        assert!(!kernel.look().await.unwrap().interfaces["eth0"].up, "no carrier");
    });
}

#[test]
fn each_family_has_its_default_route_and_each_of_several_next_hops_counts() {
    alone(async || {
        run("ip link add eth1 type veth peer name peer1");
        run("ip link set eth1 up");
        run("ip link set peer1 up");
        run("ip address add 198.51.100.1/24 dev eth1");
        run("ip address add fd01::1/64 dev eth1 nodad");
        run(
            "ip -4 route add default nexthop via 192.0.2.254 dev eth0 nexthop via 198.51.100.254 dev eth1",
        );
        run("ip -6 route add default via fd01::fe dev eth1");
        let host = kernel().look().await.unwrap();
        let names = |family| host.default_routes[&family].join(" ");
        assert_eq!((names(Family::V4).as_str(), names(Family::V6).as_str()), ("eth0 eth1", "eth1"));
        let of = |name: &str| {
            let gateways = host.gateways[&host.interfaces[name].index].iter();
            gateways.map(|gateway| gateway.to_string()).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(
            (of("eth0").as_str(), of("eth1").as_str()),
            ("192.0.2.254", "198.51.100.254 fd01::fe")
        );
        run("ip -4 route add 203.0.113.0/24 via 192.0.2.77 dev eth0");
        run("ip -6 route add fd02::/64 via fd01::77 dev eth1 table 77");
        run("ip -4 route add 203.0.114.0/24 via 192.0.2.78 dev eth0 proto 190");
        let next_hops = kernel().look().await.unwrap().next_hops;
        let has = |hop: &str| next_hops.contains(&hop.parse().unwrap());
        assert!(["192.0.2.254", "192.0.2.77", "fd01::fe", "fd01::77"].into_iter().all(has));
        assert!(!has("192.0.2.78"), "a route of our own says nothing: {next_hops:?}");
    });
}

#[test]
fn who_looks_at_the_same_time_or_gives_up_a_look_disturbs_nobody() {
    alone(async || {
        // More than one message of the kernel holds.
        for n in 0..=255 {
            run(&format!("ip route add 198.18.{n}.0/24 via 192.0.2.254 dev eth0"));
        }
        let kernel = kernel();
        let looks = (0..20).map(|_| {
            let mut kernel = kernel.clone();
            async move { kernel.look().await.map(drop) }
        });
        for look in futures::future::join_all(looks).await {
            look.unwrap();
        }
        for microseconds in (0..2000).step_by(50) {
            let given = Duration::from_micros(microseconds);
            let mut kernel = kernel.clone();
            let _ = tokio::time::timeout(given, kernel.look()).await;
            kernel.look().await.unwrap();
        }
    });
}

#[test]
fn an_address_deleted_by_hand_and_a_lost_carrier_are_heard_of() {
    alone(async || {
        let mut kernel = kernel();
        let binding = binding(&mut kernel, "192.0.2.1").await;
        kernel.bind(binding, seconds(100)).await.unwrap();
        let door = door();
        let mut changes = door.changes();
        run("ip addr del 192.0.2.1/32 dev eth0");
        heard(&mut changes, KernelChange::Address(binding.index, Some(binding.address))).await;
        run("ip link set peer0 down");
        heard(&mut changes, KernelChange::Link(binding.index)).await;
        run("ip route add default dev lo");
        heard(&mut changes, KernelChange::DefaultRoute).await;
    });
}

async fn heard(changes: &mut tokio::sync::mpsc::Receiver<KernelChange>, wanted: KernelChange) {
    let wait = async { while changes.recv().await.expect("a watch never ends") != wanted {} };
    let heard = tokio::time::timeout(Duration::from_secs(5), wait).await;
    assert!(heard.is_ok(), "never heard of {wanted:?}");
}
