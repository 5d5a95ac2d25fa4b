//! What the fence leaves on a node, and what it does to what others put there.

use crate::support::{NODE4, VIP4, Wire, filters, qdiscs};

const FOREIGN: &str = "protocol all prio 2 u32 match u32 0 0 classid 1:1";

#[test]
fn removal_leaves_no_filter_and_a_qdisc_that_stops_nobody() {
    let wire = Wire::lay();
    wire.node.run("ip link add eth1 type veth peer name eth2");
    let mut holder = wire.holder("bpf");
    holder.ok(&format!("cover {VIP4}"));
    holder.ok("attach eth0 eth1");
    holder.ok("settle");
    assert_eq!(filters(&wire.node, "eth1")[0]["options"]["bpf_name"], "berth-fence");
    holder.ok("remove");
    assert_eq!(filters(&wire.node, "eth0"), Vec::<serde_json::Value>::new());
    assert_eq!(filters(&wire.node, "eth1"), Vec::<serde_json::Value>::new());
    // The kernel drops what is sent while it comes or goes.
    assert!(qdiscs(&wire.node, "eth0").contains(&"clsact".to_owned()));
}

#[test]
fn removal_finds_what_a_crash_left() {
    let wire = Wire::lay();
    wire.settled("bpf", &[VIP4]).kill();
    let mut starting = wire.holder("bpf");
    starting.ok("attach eth0");
    starting.kill();
    assert_eq!(filters(&wire.node, "eth0").len(), 2);
    wire.holder("bpf").ok("remove");
    assert_eq!(filters(&wire.node, "eth0").len(), 0);
}

#[test]
fn what_others_put_there_stays_as_it_is() {
    let wire = Wire::lay();
    wire.node.run("tc qdisc add dev eth0 clsact");
    wire.node.run(&format!("tc filter add dev eth0 egress {FOREIGN}"));
    wire.node.run(&format!("tc filter add dev eth0 ingress {FOREIGN}"));
    let picture = || {
        wire.node.run("tc filter show dev eth0 egress")
            + &wire.node.run("tc filter show dev eth0 ingress")
    };
    let before = picture();
    wire.settled("bpf", &[VIP4]).ok("remove");
    assert_eq!(picture(), before);
    assert!(qdiscs(&wire.node, "eth0").contains(&"clsact".to_owned()));
}

#[test]
fn what_others_put_on_a_qdisc_that_we_made_stays() {
    let wire = Wire::lay();
    let mut holder = wire.settled("bpf", &[VIP4]);
    wire.node.run(&format!("tc filter add dev eth0 ingress {FOREIGN}"));
    let before = wire.node.run("tc filter show dev eth0 ingress");
    holder.ok("remove");
    assert_eq!(wire.node.run("tc filter show dev eth0 ingress"), before);
    assert_eq!(filters(&wire.node, "eth0").len(), 0);
}

#[test]
fn a_filter_that_ends_the_classification_later_does_not_open_the_fence() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let mut holder = wire.settled("bpf", &[VIP4]);
    wire.node.run(&format!("tc filter add dev eth0 egress {FOREIGN}"));
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4]);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
    assert_eq!(holder.say("inspect"), "[]");
}

#[test]
fn a_filter_that_runs_first_is_reported() {
    let wire = Wire::lay();
    let mut holder = wire.settled("bpf", &[VIP4]);
    assert_eq!(holder.say("inspect"), "[]");
    // Classic BPF: every frame matches, which ends the classification.
    let command = "tc filter add dev eth0 egress protocol all prio 1 handle 1 bpf bytecode";
    wire.node.run_with(command, "1,6 0 0 4294967295");
    let findings = holder.say("inspect");
    assert!(findings.contains("Preceded") && findings.contains("priority 1"), "{findings}");
}

#[test]
fn a_priority_that_others_hold_is_an_error_that_names_them() {
    let wire = Wire::lay();
    wire.node.run("tc qdisc add dev eth0 clsact");
    wire.node
        .run("tc filter add dev eth0 egress protocol all prio 1 u32 match u32 0 0 classid 1:1");
    let mut holder = wire.holder("bpf");
    let error = holder.say("attach eth0");
    assert_eq!(
        error,
        "error interface eth0: priority 1 at egress belongs to a filter of kind u32; expected bpf or none"
    );
}

#[test]
fn a_fence_that_was_taken_away_is_reported_and_put_back() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let mut holder = wire.settled("bpf", &[VIP4]);
    wire.node.run("tc qdisc del dev eth0 clsact");
    assert!(holder.say("inspect").contains("Missing"));
    holder.ok("attach eth0");
    assert_eq!(holder.say("inspect"), "[]");
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4]);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
}
