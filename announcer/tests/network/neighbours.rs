//! What the sockets hear of other hosts, through the filter that the kernel runs: `peer0` is the other host.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use berth_announcer::advertise::arp_nd::frame::{Mac, announce, introduce, probe};
use berth_announcer::advertise::arp_nd::hearing::{Heard, Said};
use berth_announcer::advertise::arp_nd::listener::Listener;
use berth_announcer::advertise::arp_nd::schedule::Frame;
use berth_announcer::advertise::arp_nd::socket::Sockets;
use berth_announcer::kernel::Kernel;

use crate::namespace::{alone, kernel, run};

const OTHER: Mac = [2, 0, 0, 0, 0, 9];

/// The two ends of the cable.
async fn ends() -> (u32, u32) {
    let host = kernel().look().await.unwrap();
    (host.interfaces["eth0"].index, host.interfaces["peer0"].index)
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Everything that is heard until `count` words about addresses of ours have come.
async fn heard(listener: &mut Listener, count: usize) -> Vec<(u32, Heard)> {
    let mut all = Vec::new();
    while all.len() < count {
        let ready = tokio::time::timeout(Duration::from_secs(10), listener.readable()).await;
        ready.unwrap_or_else(|_| panic!("no more than {all:?}"));
        listener.receive(|index, heard| all.push((index, heard)));
    }
    all
}

#[test]
fn what_another_host_says_of_our_addresses_is_heard_and_nothing_else() {
    alone(async || {
        let (eth0, peer0) = ends().await;
        let (mut listener, mut sockets) = (Listener::default(), Sockets::default());
        // Far apart, so that they are not all in one range.
        let many =
            (0..40u32).map(|n| IpAddr::from(Ipv4Addr::from_bits(0x0a00_0000 + n * n * 1000)));
        let ours: BTreeSet<IpAddr> = many.chain([ip("192.0.2.1"), ip("2001:db8::1")]).collect();
        assert!(listener.keep(&[(eth0, ours.clone())].into()).is_empty());
        let mut say = |bytes: Vec<u8>| sockets.send(&Frame { index: peer0, bytes }).unwrap();
        let others = ["192.0.2.7", "10.255.0.1", "9.0.0.1", "2001:db8::7"].map(ip);
        for address in others.into_iter().chain(ours.iter().copied()) {
            say(announce(address, OTHER).swap_remove(0));
            say(probe(address, OTHER, *b"theirs"));
        }
        say(introduce(ip("192.0.2.1"), OTHER, ip("192.0.2.254")).unwrap());
        say(introduce(ip("192.0.2.7"), OTHER, ip("192.0.2.1")).unwrap());
        say(introduce(ip("2001:db8::1"), OTHER, ip("fe80::1")).unwrap());
        let all = heard(&mut listener, ours.len() * 2 + 2).await;
        assert!(all.iter().all(|(index, heard)| *index == eth0 && heard.mac == OTHER));
        let mut by_address: BTreeMap<IpAddr, Vec<Said>> = BTreeMap::new();
        for (_, heard) in all {
            by_address.entry(heard.address).or_default().push(heard.said);
        }
        assert!(by_address.keys().eq(ours.iter()), "{by_address:?}");
        for (address, said) in by_address {
            let asks = ["192.0.2.1", "2001:db8::1"].map(ip).contains(&address);
            assert_eq!(said[..2], [Said::Claim, Said::Probe(Some(*b"theirs"))]);
            assert_eq!(said[2..].len(), usize::from(asks), "{address}");
        }
    });
}

#[test]
fn other_addresses_are_heard_as_soon_as_they_are_ours_and_no_longer() {
    alone(async || {
        let (eth0, peer0) = ends().await;
        let (mut listener, mut sockets) = (Listener::default(), Sockets::default());
        let mut say = |address: &str| {
            let bytes = announce(ip(address), OTHER).swap_remove(0);
            sockets.send(&Frame { index: peer0, bytes }).unwrap();
        };
        for ours in ["192.0.2.1", "198.51.100.1"] {
            assert!(listener.keep(&[(eth0, [ip(ours)].into())].into()).is_empty());
            say("192.0.2.1");
            say("198.51.100.1");
            let all = heard(&mut listener, 1).await;
            assert_eq!((all.len(), all[0].1.address), (1, ip(ours)));
        }
        listener.keep(&BTreeMap::new());
        say("198.51.100.1");
        listener.receive(|_, heard| panic!("{heard:?}"));
    });
}

#[test]
fn an_interface_that_was_down_is_heard_again() {
    alone(async || {
        let (eth0, peer0) = ends().await;
        let (mut listener, mut sockets) = (Listener::default(), Sockets::default());
        let ours = [(eth0, [ip("192.0.2.1")].into())].into();
        listener.keep(&ours);
        run("ip link set eth0 down");
        listener.receive(|_, _| {});
        run("ip link set eth0 up");
        listener.keep(&ours);
        // The cable passes nothing before its ends have noticed each other.
        for _ in 0..200 {
            let bytes = announce(ip("192.0.2.1"), OTHER).swap_remove(0);
            let _ = sockets.send(&Frame { index: peer0, bytes });
            let wait = Duration::from_millis(50);
            if tokio::time::timeout(wait, listener.readable()).await.is_ok() {
                break;
            }
        }
        assert_eq!(heard(&mut listener, 1).await[0].1.said, Said::Claim);
    });
}

#[test]
fn a_host_that_probes_for_the_same_ipv6_address_is_heard_in_its_group() {
    alone(async || {
        let (eth0, _) = ends().await;
        let mut listener = Listener::default();
        listener.join(&[(eth0, ip("2001:db8::1:2:3"))].into()).unwrap();
        let groups = run("ip -json maddress show dev eth0");
        assert!(groups.contains("ff02::1:ff02:3"), "{groups}");
        listener.join(&BTreeSet::new()).unwrap();
        assert!(!run("ip -json maddress show dev eth0").contains("ff02::1:ff02:3"));
    });
}
