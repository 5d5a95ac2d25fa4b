//! Two announcers on one node: each has its fence, and what becomes of one is nothing to the other.

use crate::support::{
    Holder, LATENESS, NODE4, NODE6, OTHER4, OTHER6, VIP4, VIP6, Wire, Witness, boottime, filters,
    until,
};

const OTHER: (&str, u8) = ("cp", 191);

/// What the kernel has of the fence of the other instance, as `tc` and `nft` tell it, without what time changes by
/// itself.
fn of_other(wire: &Wire, kind: &str) -> String {
    if kind == "bpf" {
        let all = filters(&wire.node, "eth0");
        let its = |filter: &&serde_json::Value| {
            filter["options"]["bpf_name"].as_str() == Some("berth-fence-cp")
        };
        let its: Vec<_> = all.iter().filter(its).collect();
        assert_eq!(its.len(), 1, "{all:?}");
        return serde_json::to_string(&its).unwrap();
    }
    let list = |what: &str| wire.node.run(&format!("nft -a -t list {what}"));
    let sets = ["covered4", "covered6", "held4", "held6"];
    let sets = sets.map(|set| wire.node.run(&format!("nft list set netdev berth-fence-cp {set}")));
    list("table netdev berth-fence-cp") + &sets.concat()
}

/// Whether the kernel has anything of the fence for Services.
fn services_stand(wire: &Wire, kind: &str) -> bool {
    if kind == "bpf" {
        let name = |filter: &serde_json::Value| filter["options"]["bpf_name"] == "berth-fence";
        return filters(&wire.node, "eth0").iter().any(name);
    }
    wire.node.run("nft list tables").lines().any(|line| line == "table netdev berth-fence")
}

/// Arms for a while, and sees both families answer and fall silent in time.
fn answers_in_time(holder: &mut Holder, witness: &Witness, vips: [&str; 2]) {
    let answered = (0..20).find_map(|_| {
        let from = boottime();
        let deadline = holder.at(&format!("arm 400 {} {}", vips[0], vips[1]));
        let heard = |vip| witness.last(vip).is_some_and(|at| at > from);
        until("the grant has ended", || boottime() > deadline);
        vips.iter().all(|vip| heard(vip)).then_some(deadline)
    });
    let deadline = answered.expect("armed twenty times, and it did not answer");
    for (vip, node) in vips.into_iter().zip([NODE4, NODE6]) {
        witness.silence(vip, node, 100);
        let last = witness.last(vip).unwrap();
        assert!(last < deadline + LATENESS.as_nanos() as u64, "{vip}: after its deadline");
    }
}

fn one_crashes_and_is_swept_and_the_other_stays_as_it_is(kind: &str) {
    let wire = Wire::lay();
    for address in [VIP4, VIP6, OTHER4, OTHER6] {
        wire.bind(address);
    }
    let mut services = wire.settled(kind, &[VIP4, VIP6]);
    let mut other = wire.settled_of(kind, OTHER, &[OTHER4, OTHER6]);
    assert!(other.greeting.starts_with(kind), "{}", other.greeting);
    let witness = wire.witness();
    witness.ask(&[VIP4, VIP6, OTHER4, OTHER6, NODE4, NODE6]);
    answers_in_time(&mut services, &witness, [VIP4, VIP6]);
    answers_in_time(&mut other, &witness, [OTHER4, OTHER6]);
    for holder in [&mut services, &mut other] {
        assert_eq!(holder.say("inspect"), "[]", "neither is foreign to the other");
    }

    other.at(&format!("arm 3600000 {OTHER4} {OTHER6}"));
    witness.hears(OTHER4);
    witness.hears(OTHER6);
    let deadlines = |other: &Holder| (kind == "bpf").then(|| other.deadlines());
    let before = (of_other(&wire, kind), deadlines(&other));
    let unchanged = |other: &Holder, when: &str| {
        assert_eq!((of_other(&wire, kind), deadlines(other)), before, "{when}");
    };

    // It crashes in the middle of a grant; its next life takes over, and later sweeps.
    services.at(&format!("arm 3600000 {VIP4} {VIP6}"));
    services.kill();
    unchanged(&other, "crashed");
    let mut services = wire.holder(kind);
    services.ok(&format!("cover {VIP4} {VIP6}"));
    services.ok("attach eth0");
    unchanged(&other, "attached");
    services.ok("settle");
    unchanged(&other, "settled");
    assert_eq!(witness.silence(VIP4, OTHER4, 100), 0, "not armed in this life");
    answers_in_time(&mut services, &witness, [VIP4, VIP6]);
    unchanged(&other, "armed again");
    for holder in [&mut services, &mut other] {
        assert_eq!(holder.say("inspect"), "[]");
    }
    services.ok("remove");
    unchanged(&other, "removed");
    assert!(!services_stand(&wire, kind));

    witness.hears(OTHER4);
    answers_in_time(&mut other, &witness, [OTHER4, OTHER6]);
    other.ok("remove");
    let left = filters(&wire.node, "eth0").len();
    assert_eq!((left, wire.node.run("nft list tables")), (0, String::new()));
}

#[test]
fn one_crashes_and_is_swept_and_the_other_stays_as_it_is_bpf() {
    one_crashes_and_is_swept_and_the_other_stays_as_it_is("bpf");
}

#[test]
fn one_crashes_and_is_swept_and_the_other_stays_as_it_is_nft() {
    one_crashes_and_is_swept_and_the_other_stays_as_it_is("nft-timeout");
}

#[test]
fn fences_of_two_kinds_stand_on_one_interface() {
    let wire = Wire::lay();
    for address in [VIP4, VIP6, OTHER4, OTHER6] {
        wire.bind(address);
    }
    let mut services = wire.settled("bpf", &[VIP4, VIP6]);
    let mut other = wire.settled_of("nft-timeout", OTHER, &[OTHER4, OTHER6]);
    let witness = wire.witness();
    witness.ask(&[VIP4, VIP6, OTHER4, OTHER6, NODE4, NODE6]);
    answers_in_time(&mut other, &witness, [OTHER4, OTHER6]);
    answers_in_time(&mut services, &witness, [VIP4, VIP6]);
    services.ok("remove");
    answers_in_time(&mut other, &witness, [OTHER4, OTHER6]);
}

#[test]
fn a_filter_of_another_name_with_the_same_handle_is_not_replaced() {
    let wire = Wire::lay();
    wire.settled_of("bpf", ("gone", 200), &[VIP4]).kill();
    let before = filters(&wire.node, "eth0");
    let mut holder = Holder::start_of(&wire.node, "bpf", ("new", 200));
    assert_eq!(
        holder.say("attach eth0"),
        "error interface eth0: at egress \"berth-fence-gone\" has the handle 0xc801 of this fence; \
         expected nobody: remove it if its owner is gone"
    );
    assert_eq!(filters(&wire.node, "eth0"), before);
}
