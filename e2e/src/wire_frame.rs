//! Frames of ARP and neighbour discovery: pure.

use std::net::{IpAddr, Ipv6Addr};

use etherparse::icmpv6::NeighborAdvertisementHeader;
use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Type, NetSlice, PacketBuilder, SlicedPacket,
    TransportSlice,
};

use crate::addresses::{DualStack, Mac};

/// In what way an address was claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// An ARP reply to someone, or a solicited neighbour advertisement.
    Answer,
    /// A gratuitous ARP, request or reply, or an unsolicited neighbour advertisement.
    Announcement,
}

/// The claim in a frame, if it is one.
pub(crate) fn read(frame: &[u8]) -> Option<(IpAddr, Mac, Said)> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (&packet.net, &packet.transport) {
        (Some(NetSlice::Arp(arp)), _) => {
            let arp = arp.to_packet().try_eth_ipv4().ok()?;
            let gratuitous = arp.sender_ipv4 == arp.target_ipv4;
            let said = match arp.operation {
                ArpOperation::REPLY if !gratuitous => Said::Answer,
                ArpOperation::REPLY | ArpOperation::REQUEST if gratuitous => Said::Announcement,
                _ => return None,
            };
            Some((arp.sender_ipv4.into(), arp.sender_mac, said))
        }
        (Some(NetSlice::Ipv6(_)), Some(TransportSlice::Icmpv6(icmp))) => {
            let Icmpv6Type::NeighborAdvertisement(flags) = icmp.icmp_type() else { return None };
            let payload = icmp.payload();
            let target: [u8; 16] = payload.get(..16)?.try_into().ok()?;
            let said = if flags.solicited { Said::Answer } else { Said::Announcement };
            // RFC 4861 section 4.6.1: type 2, length 1. Without it the sender itself is meant.
            let option = payload.get(16..).and_then(link_layer_address);
            Some((IpAddr::from(target), option.or(frame.get(6..12)?.try_into().ok())?, said))
        }
        _ => None,
    }
}

fn link_layer_address(mut options: &[u8]) -> Option<Mac> {
    while let [kind, length, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(length) * 8)?;
        match kind {
            2 => return option.get(2..8)?.try_into().ok(),
            _ if option.is_empty() => return None,
            _ => options = rest,
        }
    }
    None
}

/// Who has `address`? As a broadcast, so that everyone who thinks it has it answers.
pub(crate) fn question(address: IpAddr, own_mac: Mac, own: DualStack) -> Vec<u8> {
    let mut frame = Vec::new();
    let written = match address {
        IpAddr::V4(target) => {
            let packet = ArpEthIpv4Packet {
                operation: ArpOperation::REQUEST,
                sender_mac: own_mac,
                sender_ipv4: own.v4.octets(),
                target_mac: [0; 6],
                target_ipv4: target.octets(),
            };
            PacketBuilder::ethernet2(own_mac, [0xff; 6])
                .arp(packet.into())
                .write_to_vec(&mut frame)
                .is_ok()
        }
        IpAddr::V6(target) => {
            let octets = target.octets();
            // RFC 4291 section 2.7.1 and RFC 2464 section 7.
            let mut group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0).octets();
            group[13..].copy_from_slice(&octets[13..]);
            let to = [0x33, 0x33, group[12], group[13], group[14], group[15]];
            // The target, then option 1 (source link-layer address) of length 1 (RFC 4861 section 4.3).
            let mut payload = octets.to_vec();
            payload.extend([1, 1]);
            payload.extend(own_mac);
            PacketBuilder::ethernet2(own_mac, to)
                .ipv6(own.v6.octets(), group, 255)
                .icmpv6(Icmpv6Type::NeighborSolicitation)
                .write(&mut frame, &payload)
                .is_ok()
        }
    };
    // Writing to a vector cannot fail, and the payload has the size it has.
    debug_assert!(written);
    frame
}

/// `address` is at `mac`: a gratuitous ARP request, or an unsolicited advertisement with the override flag, to everybody.
pub(crate) fn announcement(address: IpAddr, mac: Mac) -> Vec<u8> {
    let mut frame = Vec::new();
    let written = match address {
        IpAddr::V4(address) => {
            let packet = ArpEthIpv4Packet {
                operation: ArpOperation::REQUEST,
                sender_mac: mac,
                sender_ipv4: address.octets(),
                target_mac: [0; 6],
                target_ipv4: address.octets(),
            };
            PacketBuilder::ethernet2(mac, [0xff; 6])
                .arp(packet.into())
                .write_to_vec(&mut frame)
                .is_ok()
        }
        IpAddr::V6(address) => {
            let flags =
                NeighborAdvertisementHeader { router: false, solicited: false, r#override: true };
            // The target, then option 2 (target link-layer address) of length 1 (RFC 4861 section 4.4).
            let mut payload = address.octets().to_vec();
            payload.extend([2, 1]);
            payload.extend(mac);
            let everybody = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets();
            PacketBuilder::ethernet2(mac, [0x33, 0x33, 0, 0, 0, 1])
                .ipv6(address.octets(), everybody, 255)
                .icmpv6(Icmpv6Type::NeighborAdvertisement(flags))
                .write(&mut frame, &payload)
                .is_ok()
        }
    };
    // As above.
    debug_assert!(written);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 7];

    fn arp(operation: ArpOperation, sender: [u8; 4], target: [u8; 4]) -> Vec<u8> {
        let packet = ArpEthIpv4Packet {
            operation,
            sender_mac: MAC,
            sender_ipv4: sender,
            target_mac: [0; 6],
            target_ipv4: target,
        };
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(MAC, [0xff; 6])
            .arp(packet.into())
            .write_to_vec(&mut frame)
            .unwrap();
        frame
    }

    #[test]
    fn replies_and_gratuitous_frames_are_claims_and_questions_are_not() {
        let (a, b) = ([10, 0, 0, 1], [10, 0, 0, 2]);
        assert_eq!(read(&arp(ArpOperation::REPLY, a, b)), Some((a.into(), MAC, Said::Answer)));
        assert_eq!(
            read(&arp(ArpOperation::REPLY, a, a)),
            Some((a.into(), MAC, Said::Announcement))
        );
        assert_eq!(
            read(&arp(ArpOperation::REQUEST, a, a)),
            Some((a.into(), MAC, Said::Announcement))
        );
        assert_eq!(read(&arp(ArpOperation::REQUEST, a, b)), None);
        let own = crate::addresses::client();
        assert_eq!(read(&question(a.into(), MAC, own)), None);
        assert_eq!(read(&question("fd00:10::9".parse().unwrap(), MAC, own)), None);
    }

    #[test]
    fn an_announcement_claims_its_address() {
        for address in ["10.0.0.1", "fd00:10::9"] {
            let address = address.parse().unwrap();
            let said = read(&announcement(address, MAC));
            assert_eq!(said, Some((address, MAC, Said::Announcement)));
        }
    }

    #[test]
    fn an_advertisement_names_target_and_hardware_address() {
        let target: Ipv6Addr = "fd00:10::9".parse().unwrap();
        let flags = etherparse::icmpv6::NeighborAdvertisementHeader {
            router: false,
            solicited: true,
            r#override: true,
        };
        let mut payload = target.octets().to_vec();
        payload.extend([2, 1]);
        payload.extend(MAC);
        let mut frame = Vec::new();
        PacketBuilder::ethernet2([2, 0, 0, 0, 0, 9], [0x33, 0x33, 0, 0, 0, 1])
            .ipv6(target.octets(), target.octets(), 255)
            .icmpv6(Icmpv6Type::NeighborAdvertisement(flags))
            .write(&mut frame, &payload)
            .unwrap();
        assert_eq!(read(&frame), Some((target.into(), MAC, Said::Answer)));
    }
}
