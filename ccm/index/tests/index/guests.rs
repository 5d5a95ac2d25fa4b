//! What a guest agent tells that is not its machine's own, and who is served all the same.

use berth_api::reason;
use berth_index::binding::Binding;
use berth_index::intake::Change;
use berth_index::kubevirt::{Interface, Origin, Vmi};
use berth_index::{PODS, Source};
use berth_ipam::Range;

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, ip, service};

const PODS_OF_A: &str = "10.244.1.0/24";

/// Node `a` with the address 10.0.0.5, its router, pods and cluster IPs.
fn lab() -> Lab {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
    reserve(&mut lab, Source::Hosts, "node a (its interfaces)", "10.0.0.5");
    reserve(&mut lab, Source::Hosts, "the router of node a", "10.0.0.1");
    reserve(&mut lab, Source::Nodes, &format!("{PODS}node a"), PODS_OF_A);
    reserve(&mut lab, Source::ServiceCidrs, "the Service network (kubernetes)", "10.96.0.0/12");
    lab
}

fn reserve(lab: &mut Lab, source: Source, name: &str, range: &str) {
    let set = range.parse::<Range>().into_iter().collect();
    lab.show(Change::Reserved(source, vec![(name.to_owned(), set)]));
    lab.settle();
}

/// A machine whose first interface is on another network than that of pods: its guest agent tells the addresses, or KubeVirt.
fn elsewhere(name: &str, by_guest: bool, addresses: &[&str]) -> Vmi {
    let origin = Origin { on_pods: false, by_guest };
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    let lan = Interface { name: "lan".to_owned(), origin, addresses, inner: Vec::new() };
    Vmi { interfaces: vec![lan], ..machine(name, "a", &[]) }
}

#[test]
fn a_guest_gets_nothing_translated_that_the_cluster_uses_itself_and_what_is_its_own_as_before() {
    let mut lab = lab();
    lab.cluster.run(elsewhere("vm", true, &["192.168.7.9"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 192.168.7.9 #1");
    let foreign =
        ["10.0.0.5", "10.0.0.1", "10.96.0.1", "10.244.1.9", "240.0.0.1", "255.255.255.255"];
    for address in foreign {
        lab.run(elsewhere("vm", true, &[address]));
        assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressReserved");
        assert!(lab.cluster.shown("web").contains("on none to  #"), "{address}");
    }
    assert_eq!(lab.told("web", reason::VMI_ADDRESS_RESERVED), 1);
    // Its own beside a foreign one.
    lab.run(elsewhere("vm", true, &["10.0.0.5", "192.168.7.9"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 192.168.7.9 #3");
    // Its pod's, and what KubeVirt says that the network gave it.
    lab.run(machine("vm", "a", &["10.244.1.9"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.244.1.9 #4");
    lab.run(elsewhere("vm", false, &["10.244.1.10"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.244.1.10 #5");
}

#[test]
fn what_becomes_a_nodes_own_is_let_go_and_taken_up_again_when_it_is_no_more() {
    let mut lab = lab();
    lab.cluster.run(elsewhere("vm", true, &["192.168.7.9"]));
    lab.bind(binding("web", "vm"));
    reserve(&mut lab, Source::Hosts, "node b (its interfaces)", "192.168.7.9");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressReserved");
    reserve(&mut lab, Source::Hosts, "node b (its interfaces)", "192.168.7.10");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 192.168.7.9 #3");
}

#[test]
fn what_a_service_or_a_binding_has_is_no_machines() {
    let mut lab = lab();
    lab.cluster.run(elsewhere("vm", true, &["192.0.2.2"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 192.0.2.2 #1");
    lab.create(service("svc"));
    assert_eq!(lab.cluster.addresses("svc"), "192.0.2.2");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse");
    lab.cluster.delete("svc");
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 192.0.2.2 #3");
    lab.run(elsewhere("vm", true, &["192.0.2.1"]));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse", "its own eip");
}

#[test]
fn of_two_machines_that_show_one_address_neither_is_reached_by_it_and_both_are_told() {
    let mut lab = lab();
    lab.cluster.run(elsewhere("vm", true, &["10.0.2.2"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.2.2 #1");
    // One without a binding, and then one more that has one.
    lab.run(elsewhere("other", true, &["10.0.2.2"]));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse");
    lab.run(elsewhere("third", true, &["10.0.2.2"]));
    lab.bind(binding("also", "third"));
    assert_eq!(lab.cluster.standing("also"), "+AddressAllocated -VmiAddressInUse");
    assert_eq!(lab.told("web", reason::VMI_ADDRESS_IN_USE), 1);
    lab.stop("other");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse");
    lab.run(elsewhere("vm", true, &["10.0.2.9"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.2.9 #3");
    assert_eq!(lab.cluster.shown("also"), "192.0.2.2 on a to 10.0.2.2 #2");
}

#[test]
fn a_machine_that_shows_what_every_guest_has_behind_its_pod_is_not_reached_there() {
    let mut lab = lab();
    let shows = |addresses: &[&str], inner: &[&str]| {
        let mut vm = machine("vm", "a", addresses);
        vm.interfaces[0].inner = inner.iter().map(|text| ip(text)).collect();
        vm
    };
    lab.cluster.run(shows(&["10.0.2.2"], &["10.0.2.2"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressReserved");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on none to  #1");
    assert_eq!(lab.told("web", reason::VMI_ADDRESS_RESERVED), 1);
    lab.run(shows(&["10.0.2.2", "10.244.1.9"], &["10.0.2.2"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.244.1.9 #2", "its pod's");
    // Where pods have such addresses it is the pod's.
    lab.run(shows(&["10.244.1.2"], &["10.244.1.2"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.244.1.2 #3");
}

#[test]
fn a_guest_that_names_what_a_node_lists_because_it_answers_for_it_is_told_whose_it_is() {
    let mut lab = lab();
    lab.create(service("svc"));
    reserve(&mut lab, Source::Nodes, "node a", "192.0.2.1");
    lab.cluster.run(elsewhere("vm", true, &["192.0.2.1"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse");
    let is_it = |why: &str| why == reason::VMI_ADDRESS_IN_USE;
    let (_, _, note) = lab.told.iter().find(|(_, why, _)| is_it(why)).unwrap();
    assert!(note.contains("Service shop/svc has it") && !note.contains("node a"), "{note}");
}

#[test]
fn nobody_takes_an_address_away_for_which_kubevirt_vouches() {
    let mut lab = lab();
    lab.cluster.run(machine("vm", "a", &["10.244.1.9"]));
    lab.bind(binding("web", "vm"));
    lab.run(elsewhere("thief", true, &["10.244.1.9"]));
    lab.run(elsewhere("more", true, &["10.244.1.9"]));
    lab.bind(binding("thief", "thief"));
    assert_eq!(lab.cluster.standing("thief"), "+AddressAllocated -VmiAddressReserved");
    // While the list is empty, as when a migration hands over, it is the machine's still.
    lab.run(Vmi { interfaces: Vec::new(), ..machine("vm", "b", &[]) });
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.244.1.9 #2");
    assert_eq!(lab.cluster.standing("thief"), "+AddressAllocated -VmiAddressReserved");
    // Where pods have addresses that no Node tells of, it is one word against the other.
    lab.run(machine("vm", "b", &["172.16.0.9"]));
    lab.run(elsewhere("thief", true, &["172.16.0.9"]));
    for name in ["web", "thief"] {
        assert_eq!(lab.cluster.standing(name), "+AddressAllocated -VmiAddressInUse", "{name}");
    }
    // What KubeVirt says of two is disputed.
    lab.run(machine("vm", "b", &["10.244.1.9"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.244.1.9 #5");
    lab.run(machine("twin", "a", &["10.244.1.9"]));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse");
}

#[test]
fn an_address_of_the_pods_of_another_node_is_its_machines_own_as_any_of_pods() {
    let mut lab = lab();
    reserve(&mut lab, Source::Nodes, &format!("{PODS}node b"), "10.244.2.0/24");
    // As a CNI gives it that has blocks of its own in the same network.
    lab.cluster.run(machine("vm", "b", &["10.244.1.9"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.244.1.9 #1");
    // It migrates, and again, and keeps its address.
    for (node, epoch) in [("c", 2), ("a", 3), ("b", 4)] {
        lab.run(machine("vm", node, &["10.244.1.9"]));
        assert_eq!(lab.cluster.shown("web"), format!("192.0.2.1 on {node} to 10.244.1.9 #{epoch}"));
    }
    // The source hands over before the new pod's address is shown.
    lab.run(machine("vm", "a", &["10.244.1.9"]));
    lab.run(machine("vm", "a", &["10.244.1.8"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.244.1.8 #6");
}

#[test]
fn who_shows_an_address_no_more_and_keeps_it_meanwhile_is_one_of_two_all_the_same() {
    let mut lab = lab();
    let pods = machine("thief", "a", &["10.244.1.9"]).interfaces;
    let both = |lan: &[&str]| {
        let lan = elsewhere("thief", true, lan);
        Vmi { interfaces: [&pods[..], &lan.interfaces].concat(), ..lan }
    };
    lab.cluster.run(both(&["192.168.7.9"]));
    lab.bind(Binding { interface: Some("lan".to_owned()), ..binding("thief", "thief") });
    lab.run(both(&[]));
    assert_eq!(lab.cluster.shown("thief"), "192.0.2.1 on a to 192.168.7.9 #1");
    lab.run(elsewhere("vm", true, &["192.168.7.9"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiAddressInUse");
    // Refused, it is one that shows no address.
    assert_eq!(lab.cluster.standing("thief"), "+AddressAllocated -NoVmiAddress");
    assert_eq!(lab.told("thief", reason::VMI_ADDRESS_IN_USE), 1);
}

#[test]
fn a_thousand_machines_with_one_address_cost_each_other_nothing() {
    let mut lab = lab();
    for number in 0..1000 {
        lab.cluster.run(elsewhere(&format!("vm-{number}"), true, &["10.0.2.2"]));
        lab.cluster.bind(binding(&format!("eip-{number}"), &format!("vm-{number}")));
    }
    lab.settle();
    lab.cost();
    lab.run(elsewhere("one-more", true, &["10.0.2.2"]));
    lab.stop("one-more");
    assert_eq!(lab.cost(), 0);
}
