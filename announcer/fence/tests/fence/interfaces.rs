//! Interfaces of every kind that this kernel has, and frames of every kind that teach where an address is.

use crate::support::{
    Holder, NODE4, NODE6, OTHER4, VIP4, VIP6, Wire, Witness, arp, bind, neighbour, send_from, until,
};

const MAC: [u8; 6] = [0x02, 0xfe, 0, 0, 0, 0x01];

/// Fails unless both addresses, bound behind `fenced`, answer exactly while they are armed.
fn answers_only_while_armed(wire: &Wire, holder: &mut Holder, fenced: &str) -> Witness {
    let witness = wire.witness();
    witness.ask(&[VIP4, VIP6, NODE4, NODE6]);
    assert_eq!(witness.silence(VIP4, NODE4, 50), 0, "{fenced}");
    assert_eq!(witness.silence(VIP6, NODE6, 50), 0, "{fenced}");
    holder.at(&format!("arm 3600000 {VIP4} {VIP6}"));
    witness.hears(VIP4);
    witness.hears(VIP6);
    holder.at("mute");
    witness.silence(VIP4, NODE4, 50);
    assert_eq!(witness.silence(VIP4, NODE4, 50), 0, "{fenced}");
    witness.silence(VIP6, NODE6, 50);
    assert_eq!(witness.silence(VIP6, NODE6, 50), 0, "{fenced}");
    witness
}

fn settled(wire: &Wire, interfaces: &str) -> Holder {
    let mut holder = wire.holder("bpf");
    holder.ok(&format!("cover {VIP4} {VIP6}"));
    holder.ok(&format!("attach {interfaces}"));
    holder.ok("settle");
    holder
}

#[test]
fn a_bridge_is_fenced_as_the_interface_that_has_the_address() {
    let wire = Wire::lay();
    wire.node.run("ip link add br0 type bridge");
    wire.node.run("ip link set br0 addrgenmode none up");
    wire.node.run("ip addr flush dev eth0");
    wire.node.run("ip link set eth0 master br0");
    wire.node.run(&format!("ip addr add {NODE4}/24 dev br0"));
    wire.node.run(&format!("ip addr add {NODE6}/64 dev br0 nodad"));
    bind(&wire.node, VIP4, "br0");
    bind(&wire.node, VIP6, "br0");
    let mut holder = settled(&wire, "br0");
    answers_only_while_armed(&wire, &mut holder, "br0");
}

#[test]
fn a_macvlan_is_fenced_by_itself_and_by_the_interface_below() {
    let wire = Wire::lay();
    // Only the macvlan has the addresses that are asked for, so only it answers.
    wire.node.run("sysctl -qw net.ipv4.conf.all.arp_ignore=1");
    wire.node.run("ip link add mv0 link eth0 type macvlan mode bridge");
    wire.node.run("ip link set mv0 addrgenmode none up");
    bind(&wire.node, VIP4, "mv0");
    bind(&wire.node, VIP6, "mv0");
    for fenced in ["mv0", "eth0", "eth0 mv0"] {
        let mut holder = settled(&wire, fenced);
        answers_only_while_armed(&wire, &mut holder, fenced);
        holder.ok("remove");
    }
}

#[test]
fn each_of_several_interfaces_is_fenced() {
    let wire = Wire::lay();
    let path = wire.peer.path();
    wire.node.run(&format!("ip link add eth1 type veth peer name lan1 netns {path}"));
    wire.node.run("ip link set eth1 addrgenmode none up");
    wire.peer.run("ip link set lan1 addrgenmode none up");
    wire.bind(VIP4);
    let mut holder = wire.holder("bpf");
    holder.ok(&format!("cover {VIP4}"));
    holder.ok("attach eth0 eth1");
    holder.ok("settle");
    // Linux answers for an address of one interface on any other, unless arp_ignore forbids it.
    let other = Witness::start(&wire.peer, "lan1");
    other.ask(&[VIP4, NODE4]);
    assert_eq!(other.silence(VIP4, NODE4, 50), 0);
    holder.at(&format!("arm 3600000 {VIP4}"));
    other.hears(VIP4);
}

#[test]
fn whatever_teaches_where_an_address_is_waits_for_its_deadline() {
    let wire = Wire::lay();
    let mut holder = wire.settled("bpf", &[VIP4, VIP6]);
    let witness = wire.witness();
    let vip4 = VIP4.parse().unwrap();
    let (vip6, all_nodes) = (VIP6.parse().unwrap(), "ff02::1".parse().unwrap());
    let link_local = "fe80::1".parse().unwrap();
    let tagged = |frame: Vec<u8>| [&frame[..12], &[0x81, 0, 0, 5], &frame[12..]].concat();
    let teaching = [
        ("gratuitous request", VIP4, arp(MAC, 1, vip4, vip4)),
        ("gratuitous reply", VIP4, arp(MAC, 2, vip4, vip4)),
        ("request from the address", VIP4, arp(MAC, 1, vip4, "192.0.2.2".parse().unwrap())),
        ("request in a VLAN", VIP4, tagged(arp(MAC, 1, vip4, vip4))),
        ("advertisement", VIP6, neighbour(MAC, 136, vip6, all_nodes, vip6)),
        ("advertisement by proxy", VIP6, neighbour(MAC, 136, link_local, all_nodes, vip6)),
        ("advertisement in a VLAN", VIP6, tagged(neighbour(MAC, 136, vip6, all_nodes, vip6))),
        (
            "solicitation from the address",
            VIP6,
            neighbour(MAC, 135, vip6, all_nodes, "2001:db8::2".parse().unwrap()),
        ),
    ];
    // It passes at any time; what arrives after it shows that what came before did not.
    let marker = arp(MAC, 1, OTHER4.parse().unwrap(), OTHER4.parse().unwrap());
    for (what, address, frame) in &teaching {
        holder.at("mute");
        let (before, marks) = (witness.answers(address).len(), witness.answers(OTHER4).len());
        send_from(&wire.node, "eth0", frame);
        send_from(&wire.node, "eth0", &marker);
        until("the marker arrives", || witness.answers(OTHER4).len() > marks);
        assert_eq!(witness.answers(address).len(), before, "mute: {what}");
        holder.at(&format!("arm 3600000 {VIP4} {VIP6}"));
        send_from(&wire.node, "eth0", frame);
        until(&format!("armed: {what} arrives"), || witness.answers(address).len() == before + 1);
    }
}

#[test]
fn asking_whether_an_address_is_free_needs_no_grant() {
    let wire = Wire::lay();
    let _holder = wire.settled("bpf", &[VIP4, VIP6]);
    let witness = wire.witness();
    // RFC 5227 section 2.1.1 and RFC 4862 section 5.4: without a sender, so nothing is taught.
    let probe = arp(MAC, 1, "0.0.0.0".parse().unwrap(), VIP4.parse().unwrap());
    send_from(&wire.node, "eth0", &probe);
    until("the ARP probe arrives", || witness.answers("0.0.0.0").len() == 1);
    let dad = neighbour(
        MAC,
        135,
        "::".parse().unwrap(),
        "ff02::1:ff00:100".parse().unwrap(),
        VIP6.parse().unwrap(),
    );
    send_from(&wire.node, "eth0", &dad);
    until("the solicitation arrives", || witness.answers("::").len() == 1);
}

#[test]
fn an_interface_that_comes_back_is_guarded_again() {
    let wire = Wire::lay();
    wire.node.run("ip link add eth1 type veth peer name eth2");
    let mut holder = wire.holder("bpf");
    holder.ok("attach eth0 eth1");
    wire.node.run("ip link del eth1");
    assert!(holder.say("inspect").contains("Missing { interface: \"eth1\" }"));
    assert_eq!(holder.say("attach eth0 eth1"), "error interface eth1: does not exist");
    wire.node.run("ip link add eth1 type veth peer name eth2");
    holder.ok("attach eth0 eth1");
    assert_eq!(holder.say("inspect"), "[]");
}

#[test]
fn an_interface_without_neighbours_is_refused() {
    let wire = Wire::lay();
    let error = wire.holder("bpf").say("attach lo");
    assert!(error.starts_with("error interface lo: is not Ethernet"), "{error}");
}
