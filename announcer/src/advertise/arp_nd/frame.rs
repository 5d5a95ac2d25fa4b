//! The frames that tell a LAN which hardware address answers for an address, and those that ask who does.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpEthIpv4Packet, ArpOperation, Icmpv6Type, PacketBuilder};

pub use berth_api::conflict::Mac;

/// What the probes of one cluster for one address have in common, and nobody else's.
pub type Mark = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 2464 §7: 33:33 and the last four octets of the group.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// RFC 4861 §7.1.2: an advertisement with any other hop limit was forwarded, and is thrown away.
pub(super) const HOP_LIMIT: u8 = 255;
/// The shortest frame of Ethernet without its checksum (IEEE 802.3): an ARP packet leaves 18 octets of it empty.
const SHORTEST: usize = 60;
/// Where an ARP packet of Ethernet and IPv4 ends in its frame, and the mark of a probe begins.
pub(super) const ARP_END: usize = 14 + 28;
// Options of neighbour discovery (RFC 4861 §4.6.1, RFC 3971 §5.3.2), each of one unit of 8 octets here.
pub(super) const SOURCE_LINK_ADDRESS: u8 = 1;
pub(super) const TARGET_LINK_ADDRESS: u8 = 2;
pub(super) const NONCE: u8 = 14;

/// The frames that announce `address` at `mac`: whole Ethernet frames, to be sent in this order.
pub fn announce(address: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match address {
        // RFC 5227 §3 announces by request. A few hosts only look at replies; Linux takes those of an entry younger
        // than its `locktime` only if both hardware addresses in it are equal.
        IpAddr::V4(address) => vec![
            gratuitous_arp(ArpOperation::REQUEST, address, mac, [0; 6]),
            gratuitous_arp(ArpOperation::REPLY, address, mac, mac),
        ],
        IpAddr::V6(address) => vec![unsolicited_advertisement(address, mac)],
    }
}

/// The one frame that defends `address` at `mac`: a single announcement (RFC 5227 §2.4).
pub fn defend(address: IpAddr, mac: Mac) -> Vec<u8> {
    announce(address, mac).swap_remove(0)
}

/// Asks whether anybody has `address`, without saying who asks, so that nobody learns anything from it.
///
/// `mark` tells the probes of fellow nodes from those of foreign hosts. It is where receivers do not look: in the empty
/// rest of an ARP frame, and in the nonce of a neighbour solicitation, which tells a node's own probes from those of
/// others (RFC 7527).
pub fn probe(address: IpAddr, mac: Mac, mark: Mark) -> Vec<u8> {
    match address {
        // RFC 5227 §2.1.1: the sender protocol address is all zeroes.
        IpAddr::V4(address) => {
            let mut frame =
                arp(ArpOperation::REQUEST, (mac, Ipv4Addr::UNSPECIFIED), ([0; 6], address));
            frame.extend(mark);
            frame.resize(SHORTEST, 0);
            frame
        }
        // RFC 4862 §5.4.2: from the unspecified address, to the solicited-node multicast address of the target.
        IpAddr::V6(address) => solicitation(Ipv6Addr::UNSPECIFIED, mac, address, (NONCE, mark)),
    }
}

/// Asks `neighbour` where it is, in the name of `address` at `mac`: a router that ignores announcements learns from a
/// question to itself (RFC 826, RFC 4861 §7.2.3). Nothing if they are of different families.
pub fn introduce(address: IpAddr, mac: Mac, neighbour: IpAddr) -> Option<Vec<u8>> {
    match (address, neighbour) {
        (IpAddr::V4(address), IpAddr::V4(neighbour)) => {
            Some(arp(ArpOperation::REQUEST, (mac, address), ([0; 6], neighbour)))
        }
        (IpAddr::V6(address), IpAddr::V6(neighbour)) => {
            Some(solicitation(address, mac, neighbour, (SOURCE_LINK_ADDRESS, mac)))
        }
        _ => None,
    }
}

/// The group that a host with `address` listens to (RFC 4291 §2.7.1).
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
    group[13..].copy_from_slice(&address.octets()[13..]);
    group.into()
}

fn gratuitous_arp(operation: ArpOperation, address: Ipv4Addr, mac: Mac, target: Mac) -> Vec<u8> {
    arp(operation, (mac, address), (target, address))
}

/// An ARP frame to everybody.
fn arp(operation: ArpOperation, sender: (Mac, Ipv4Addr), target: (Mac, Ipv4Addr)) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: sender.0,
        sender_ipv4: sender.1.octets(),
        target_mac: target.0,
        target_ipv4: target.1.octets(),
    };
    let builder = PacketBuilder::ethernet2(sender.0, BROADCAST).arp(packet.into());
    let mut frame = Vec::with_capacity(SHORTEST);
    builder.write_to_vec(&mut frame).expect("a vector takes any frame");
    frame
}

/// A neighbour solicitation (RFC 4861 §4.3) with one option.
fn solicitation(source: Ipv6Addr, mac: Mac, target: Ipv6Addr, option: (u8, [u8; 6])) -> Vec<u8> {
    let group = solicited_node(target).octets();
    // RFC 2464 §7.
    let to = [0x33, 0x33, group[12], group[13], group[14], group[15]];
    let mut payload = target.octets().to_vec();
    payload.extend([option.0, 1]);
    payload.extend(option.1);
    let builder = PacketBuilder::ethernet2(mac, to)
        .ipv6(source.octets(), group, HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborSolicitation);
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a vector takes any frame");
    frame
}

/// RFC 4861 §7.2.6: not solicited, overriding what neighbours have cached, with our link-layer address as an option.
fn unsolicited_advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    // Target address, then option 2 (target link-layer address) of length 1, counted in units of 8 octets.
    let mut payload = address.octets().to_vec();
    payload.extend([TARGET_LINK_ADDRESS, 1]);
    payload.extend(mac);
    let builder = PacketBuilder::ethernet2(mac, ALL_NODES_MAC)
        .ipv6(address.octets(), ALL_NODES.octets(), HOP_LIMIT)
        .icmpv6(Icmpv6Type::NeighborAdvertisement(header));
    let mut frame = Vec::with_capacity(builder.size(payload.len()));
    builder.write(&mut frame, &payload).expect("a vector takes any frame");
    frame
}

#[cfg(test)]
mod tests {
    use etherparse::{NetSlice, SlicedPacket, TransportSlice};

    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    #[test]
    fn an_ipv4_address_is_announced_by_request_and_by_reply() {
        let frames = announce("192.0.2.7".parse().unwrap(), MAC);
        let parsed: Vec<ArpEthIpv4Packet> = frames
            .iter()
            .map(|frame| {
                let packet = SlicedPacket::from_ethernet(frame).unwrap();
                let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP: {packet:?}") };
                assert_eq!(frame[..6], BROADCAST);
                assert_eq!(frame[6..12], MAC);
                arp.to_packet().try_into().unwrap()
            })
            .collect();
        assert_eq!(parsed[0].operation, ArpOperation::REQUEST);
        assert_eq!(parsed[1].operation, ArpOperation::REPLY);
        for arp in &parsed {
            assert_eq!(arp.sender_mac, MAC);
            assert_eq!(arp.sender_ipv4_addr(), Ipv4Addr::new(192, 0, 2, 7));
            assert_eq!(arp.target_ipv4_addr(), Ipv4Addr::new(192, 0, 2, 7));
        }
        assert_eq!(parsed[1].target_mac, MAC, "Linux ignores a reply with another target");
    }

    #[test]
    fn an_ipv6_address_is_announced_with_override_and_hop_limit_255() {
        let address: Ipv6Addr = "2001:db8::7".parse().unwrap();
        let frames = announce(address.into(), MAC);
        assert_eq!(frames.len(), 1);
        let packet = SlicedPacket::from_ethernet(&frames[0]).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6: {packet:?}") };
        assert_eq!(ip.header().hop_limit(), 255);
        assert_eq!(ip.header().destination_addr(), ALL_NODES);
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("{packet:?}") };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        let Icmpv6Type::NeighborAdvertisement(header) = icmp.icmp_type() else {
            panic!("{icmp:?}")
        };
        assert!(header.r#override && !header.solicited && !header.router);
        assert_eq!(icmp.payload()[..16], address.octets());
        assert_eq!(icmp.payload()[16..], [2, 1, 2, 0, 0, 0, 0, 9]);
    }

    #[test]
    fn a_probe_names_no_sender_and_is_marked_where_nobody_looks() {
        let mark = *b"berth!";
        let frame = probe("192.0.2.7".parse().unwrap(), MAC, mark);
        assert_eq!(
            (frame.len(), &frame[..6], &frame[ARP_END..ARP_END + 6]),
            (60, &BROADCAST[..], &mark[..])
        );
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP: {packet:?}") };
        let arp: ArpEthIpv4Packet = arp.to_packet().try_into().unwrap();
        assert_eq!((arp.operation, arp.sender_mac), (ArpOperation::REQUEST, MAC));
        assert_eq!((arp.sender_ipv4, arp.target_mac), ([0; 4], [0; 6]));
        assert_eq!(arp.target_ipv4, [192, 0, 2, 7]);

        let target: Ipv6Addr = "2001:db8::1:2:3".parse().unwrap();
        let frame = probe(target.into(), MAC, mark);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 2, 0, 3]);
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6: {packet:?}") };
        assert_eq!(
            (ip.header().source_addr(), ip.header().hop_limit()),
            (Ipv6Addr::UNSPECIFIED, 255)
        );
        assert_eq!(ip.header().destination_addr().to_string(), "ff02::1:ff02:3");
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("{packet:?}") };
        assert!(icmp.is_checksum_valid(ip.header().source(), ip.header().destination()));
        assert_eq!(icmp.icmp_type(), Icmpv6Type::NeighborSolicitation);
        assert_eq!(icmp.payload()[..16], target.octets());
        assert_eq!(icmp.payload()[16..], [&[14, 1][..], &mark].concat());
    }

    #[test]
    fn a_router_is_asked_in_the_name_of_the_address() {
        let [v4, v6, gateway4, gateway6]: [IpAddr; 4] =
            ["192.0.2.7", "2001:db8::7", "192.0.2.254", "fe80::1"].map(|a| a.parse().unwrap());
        let frame = introduce(v4, MAC, gateway4).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Arp(arp)) = packet.net else { panic!("no ARP: {packet:?}") };
        let arp: ArpEthIpv4Packet = arp.to_packet().try_into().unwrap();
        assert_eq!((arp.sender_ipv4, arp.target_ipv4), ([192, 0, 2, 7], [192, 0, 2, 254]));
        let frame = introduce(v6, MAC, gateway6).unwrap();
        let packet = SlicedPacket::from_ethernet(&frame).unwrap();
        let Some(NetSlice::Ipv6(ip)) = &packet.net else { panic!("no IPv6: {packet:?}") };
        assert_eq!(IpAddr::from(ip.header().source_addr()), v6);
        let Some(TransportSlice::Icmpv6(icmp)) = &packet.transport else { panic!("{packet:?}") };
        assert_eq!(icmp.payload()[16..], [1, 1, 2, 0, 0, 0, 0, 9]);
        assert_eq!(introduce(v4, MAC, gateway6), None);
    }
}
