//! The degraded fence: what differs from the other one, and the way from one to the other.

use crate::support::{NODE4, NODE6, OTHER4, VIP4, VIP6, Wire, filters};

/// The tables of nftables, as `nft` tells them.
fn tables(wire: &Wire) -> Vec<String> {
    let list: serde_json::Value =
        serde_json::from_str(&wire.node.run("nft -j list tables")).unwrap();
    let tables =
        list["nftables"].as_array().unwrap().iter().filter_map(|object| object.get("table"));
    tables.map(|table| table["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_restart_holds_nothing_and_opens_nothing() {
    let wire = Wire::lay();
    for address in [VIP4, VIP6, OTHER4] {
        wire.bind(address);
    }
    let mut old = wire.settled("nft-timeout", &[VIP4, VIP6, OTHER4]);
    let witness = wire.witness();
    witness.ask(&[VIP4, VIP6, OTHER4, NODE4, NODE6]);
    old.at(&format!("arm 3600000 {VIP4} {VIP6}"));
    witness.hears(VIP4);
    witness.hears(VIP6);
    old.kill();
    let mut new = wire.holder("nft-timeout");
    witness.silence(VIP4, NODE4, 50);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "silent once it is open");
    new.ok(&format!("cover {VIP4}"));
    new.ok("attach eth0");
    assert_eq!(witness.silence(VIP6, NODE6, 100), 0, "covered by its predecessor");
    new.ok(&format!("cover {VIP4} {VIP6} {OTHER4}"));
    new.ok("settle");
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
    new.at(&format!("arm 3600000 {VIP4} {VIP6}"));
    witness.hears(VIP4);
    witness.hears(VIP6);
    assert!(witness.answers(OTHER4).is_empty(), "covered at any moment");
}

#[test]
fn an_address_that_is_no_longer_covered_passes() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let mut holder = wire.settled("nft-timeout", &[VIP4]);
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4]);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
    holder.ok(&format!("cover {VIP6}"));
    witness.hears(VIP4);
}

#[test]
fn removal_leaves_nothing_and_spares_other_tables() {
    let wire = Wire::lay();
    wire.node.run_with("nft", "table ip foreign { chain c { counter accept; }; }");
    let before = wire.node.run("nft list ruleset");
    let mut holder = wire.settled("nft-timeout", &[VIP4, VIP6]);
    assert!(tables(&wire).contains(&"berth-fence".to_owned()));
    holder.ok("remove");
    assert_eq!(wire.node.run("nft list ruleset"), before);
}

#[test]
fn a_flushed_rule_set_is_reported_and_put_back() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let mut holder = wire.settled("nft-timeout", &[VIP4]);
    assert_eq!(holder.say("inspect"), "[]");
    wire.node.run("nft flush ruleset");
    assert!(holder.say("inspect").contains("Missing"));
    holder.ok("attach eth0");
    assert_eq!(holder.say("inspect"), "[]");
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4]);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "covered again");
    holder.at(&format!("arm 3600000 {VIP4}"));
    witness.hears(VIP4);
}

#[test]
fn a_node_goes_from_one_fence_to_the_other_and_keeps_no_trace_of_the_first() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let witness = wire.witness();
    wire.settled("nft-timeout", &[VIP4]).kill();
    witness.ask(&[VIP4, NODE4]);
    let change = |kind: &str| {
        let mut holder = wire.settled(kind, &[VIP4]);
        assert_eq!(witness.silence(VIP4, NODE4, 100), 0, "{kind}: not armed");
        holder.at(&format!("arm 3600000 {VIP4}"));
        witness.hears(VIP4);
        holder.at("mute");
        witness.silence(VIP4, NODE4, 100);
        holder.kill();
    };
    change("bpf");
    assert_eq!(tables(&wire), Vec::<String>::new());
    change("nft-timeout");
    assert_eq!(filters(&wire.node, "eth0").len(), 0);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
    let mut unfenced = wire.holder("unfenced");
    unfenced.ok("settle");
    assert_eq!(tables(&wire), Vec::<String>::new());
    witness.hears(VIP4);
}

#[test]
fn several_interfaces_and_one_that_is_no_longer_ours() {
    let wire = Wire::lay();
    wire.node.run("ip link add eth1 type veth peer name eth2");
    let mut holder = wire.holder("nft-timeout");
    holder.ok("attach eth0 eth1");
    holder.ok("settle");
    assert_eq!(holder.say("inspect"), "[]");
    let rules = || wire.node.run("nft list ruleset");
    assert!(rules().contains("device \"eth1\""));
    holder.ok("attach eth0");
    assert!(!rules().contains("device \"eth1\""));
    assert!(rules().contains("device \"eth0\""));
    assert_eq!(holder.say("attach eth0 eth9"), "error interface eth9: does not exist");
}

#[test]
fn an_interface_that_comes_back_is_guarded_again() {
    let wire = Wire::lay();
    wire.bind(VIP4);
    let mut holder = wire.settled("nft-timeout", &[VIP4]);
    wire.node.run("ip link del eth0");
    assert!(holder.say("inspect").contains("Missing"));
    let path = wire.peer.path();
    wire.node.run(&format!("ip link add eth0 type veth peer name lan0 netns {path}"));
    wire.node.run("ip link set eth0 up");
    wire.node.run(&format!("ip addr add {NODE4}/24 dev eth0"));
    wire.bind(VIP4);
    wire.peer.run("ip link set lan0 up");
    holder.ok("attach eth0");
    let witness = wire.witness();
    witness.ask(&[VIP4, NODE4]);
    assert_eq!(witness.silence(VIP4, NODE4, 100), 0);
}
