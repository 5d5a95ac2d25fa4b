//! The frames that tell a LAN which hardware address answers for an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{ArpEthIpv4Packet, ArpOperation, Icmpv6Type, PacketBuilder};

/// A hardware address of Ethernet.
pub type Mac = [u8; 6];

const BROADCAST: Mac = [0xff; 6];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
/// RFC 2464 §7: 33:33 and the last four octets of the group.
const ALL_NODES_MAC: Mac = [0x33, 0x33, 0, 0, 0, 1];
/// RFC 4861 §7.1.2: an advertisement with any other hop limit was forwarded, and is thrown away.
const HOP_LIMIT: u8 = 255;

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

fn gratuitous_arp(operation: ArpOperation, address: Ipv4Addr, mac: Mac, target: Mac) -> Vec<u8> {
    let packet = ArpEthIpv4Packet {
        operation,
        sender_mac: mac,
        sender_ipv4: address.octets(),
        target_mac: target,
        target_ipv4: address.octets(),
    };
    let builder = PacketBuilder::ethernet2(mac, BROADCAST).arp(packet.into());
    let mut frame = Vec::with_capacity(builder.size());
    builder.write_to_vec(&mut frame).expect("a vector takes any frame");
    frame
}

/// RFC 4861 §7.2.6: not solicited, overriding what neighbours have cached, with our link-layer address as an option.
fn unsolicited_advertisement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let header = NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
    // Target address, then option 2 (target link-layer address) of length 1, counted in units of 8 octets.
    let mut payload = address.octets().to_vec();
    payload.extend([2, 1]);
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
}
