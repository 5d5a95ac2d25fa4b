//! A fence outlives its process, and the next process takes it over without an answer in between.

use crate::support::{NODE4, NODE6, OTHER4, OTHER6, VIP4, VIP6, Wire, filters};

#[test]
fn a_restart_silences_what_it_finds_bound_and_opens_nothing() {
    let wire = Wire::lay();
    for address in [VIP4, VIP6, OTHER4, OTHER6] {
        wire.bind(address);
    }
    let mut old = wire.settled("bpf", &[VIP4, VIP6, OTHER4, OTHER6]);
    old.at(&format!("arm 3600000 {VIP4} {VIP6}"));
    let witness = wire.witness();
    witness.ask(&[VIP4, VIP6, OTHER4, OTHER6, NODE4, NODE6]);
    witness.hears(VIP4);
    witness.hears(VIP6);
    old.kill();
    // An hour of its grant is left; nobody is there to keep the promise.
    witness.hears(VIP4);

    let mut new = wire.holder("bpf");
    new.ok(&format!("cover {VIP4} {VIP6}"));
    new.ok("attach eth0");
    witness.silence(VIP4, NODE4, 50);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "bound and found: silent at once");
    assert_eq!(witness.silence(VIP6, NODE6, 100), 0, "bound and found: silent at once");
    assert_eq!(filters(&wire.node, "eth0").len(), 2, "beside its predecessor");
    let refused = new.say(&format!("arm 1000 {VIP4}"));
    assert!(refused.contains("before the fence is settled"), "{refused}");

    new.ok(&format!("cover {VIP4} {VIP6} {OTHER4} {OTHER6}"));
    new.ok("settle");
    assert_eq!(filters(&wire.node, "eth0").len(), 1, "in its predecessor's place");
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
    new.at(&format!("arm 3600000 {VIP4} {VIP6}"));
    witness.hears(VIP4);
    witness.hears(VIP6);
    assert!(witness.answers(OTHER4).is_empty(), "covered by one of them at any moment");
    assert!(witness.answers(OTHER6).is_empty(), "covered by one of them at any moment");
}

#[test]
fn a_process_that_dies_anywhere_in_its_start_opens_nothing() {
    let wire = Wire::lay();
    for address in [VIP4, VIP6] {
        wire.bind(address);
    }
    let witness = wire.witness();
    wire.settled("bpf", &[VIP4, VIP6]).kill();
    witness.ask(&[VIP4, VIP6, NODE4, NODE6]);
    let start = [
        &format!("cover {VIP4}"),
        "attach eth0",
        &format!("cover {VIP4} {VIP6}"),
        "settle",
        "attach eth0",
    ];
    for steps in 0..=start.len() {
        for _ in 0..3 {
            let mut holder = wire.holder("bpf");
            start[..steps].iter().for_each(|step| holder.ok(step));
            holder.kill();
            assert!(
                filters(&wire.node, "eth0").len() <= 2,
                "one predecessor is kept, not each of them"
            );
        }
    }
    witness.silence(VIP4, NODE4, 100);
    witness.silence(VIP6, NODE6, 100);
    assert!(witness.answers(VIP4).is_empty());
    assert!(witness.answers(VIP6).is_empty());
}

#[test]
fn an_interface_that_is_no_longer_ours_is_cleared_once_the_fence_is_settled() {
    let wire = Wire::lay();
    wire.node.run("ip link add eth1 type veth peer name eth2");
    let mut old = wire.holder("bpf");
    old.ok("attach eth0 eth1");
    old.ok("settle");
    old.kill();
    let mut new = wire.holder("bpf");
    new.ok("attach eth0");
    assert_eq!(
        filters(&wire.node, "eth1").len(),
        1,
        "its predecessor's, until it knows all addresses"
    );
    new.ok("settle");
    assert_eq!(filters(&wire.node, "eth1").len(), 0);
    assert_eq!(filters(&wire.node, "eth0").len(), 1);
}
