//! A node that has let go of an address serves what still arrives for it, without a word about where it is.

use crate::support::{NODE4, NODE6, VIP4, VIP6, Wire};

/// A node whose address is muted and routed to itself, and a peer that has not heard of the new owner yet.
fn let_go(announce: u8) -> (Wire, crate::support::Holder) {
    let wire = Wire::lay();
    let holder = wire.settled("bpf", &[VIP4, VIP6]);
    wire.node.run(&format!("sysctl -qw net.ipv4.conf.all.arp_announce={announce}"));
    wire.node.run(&format!("ip route add local {VIP4}/32 dev lo"));
    wire.node.run(&format!("ip -6 route add local {VIP6}/128 dev lo"));
    let links: serde_json::Value =
        serde_json::from_str(&wire.node.run("ip -j link show dev eth0")).unwrap();
    let mac = links[0]["address"].as_str().unwrap().to_owned();
    for stale in [VIP4, VIP6] {
        wire.peer.run(&format!("ip neigh replace {stale} lladdr {mac} dev lan0 nud permanent"));
    }
    wire.node.run("ip neigh flush dev eth0");
    (wire, holder)
}

fn answers_ping(wire: &Wire, address: &str) -> bool {
    wire.peer.within(|| {
        let ping = ["-q", "-n", "-c", "3", "-i", "0.2", "-W", "1", address];
        let output =
            std::process::Command::new("ping").args(ping).output().expect("ping is needed");
        output.status.success()
    })
}

#[test]
fn with_arp_announce_2_an_old_owner_serves_from_an_address_that_is_mute() {
    let (wire, _holder) = let_go(2);
    let witness = wire.witness();
    assert!(answers_ping(&wire, VIP4));
    assert!(answers_ping(&wire, VIP6));
    witness.ask(&[VIP4, VIP6, NODE4, NODE6]);
    witness.silence(VIP4, NODE4, 100);
    witness.silence(VIP6, NODE6, 100);
    assert!(witness.answers(VIP4).is_empty());
    assert!(witness.answers(VIP6).is_empty());
}

#[test]
fn without_it_the_kernel_asks_in_the_name_of_the_address_and_the_fence_stops_that() {
    let (wire, _holder) = let_go(0);
    let witness = wire.witness();
    assert!(
        !answers_ping(&wire, VIP4),
        "its question for the peer would teach the peer where the address is"
    );
    assert!(answers_ping(&wire, VIP6), "IPv6 asks in the name of the interface");
    assert!(witness.answers(VIP4).is_empty());
}
