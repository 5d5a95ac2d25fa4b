//! What a frame of ARP or neighbour discovery says about who has an address. Pure.

use std::net::{IpAddr, Ipv4Addr};

use etherparse::{
    ArpEthIpv4Packet, ArpOperation, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice,
};

use super::frame::{
    ARP_END, HOP_LIMIT, Mac, Mark, NONCE, SOURCE_LINK_ADDRESS, TARGET_LINK_ADDRESS,
};

/// What somebody said about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The address.
    pub address: IpAddr,
    /// The hardware address of who spoke.
    pub mac: Mac,
    /// What it said.
    pub said: Said,
}

/// What is said about an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// "I have it."
    Claim,
    /// "Does anybody have it? I am about to." With what may be the mark of a fellow's probe.
    Probe(Option<Mark>),
}

/// Reads a whole Ethernet frame; nothing if it says nothing of this kind.
pub fn read(frame: &[u8]) -> Option<Heard> {
    let packet = SlicedPacket::from_ethernet(frame).ok()?;
    match (&packet.net, &packet.transport) {
        (Some(NetSlice::Arp(arp)), _) => {
            let arp = arp.to_packet().try_into().ok()?;
            read_arp(&arp, frame.get(ARP_END..))
        }
        (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
            // RFC 4861 §7.1: whatever was forwarded is no neighbour's.
            if ip.header().hop_limit() != HOP_LIMIT {
                return None;
            }
            let (target, options) = icmp.payload().split_first_chunk::<16>()?;
            let sender = frame.get(6..12)?.try_into().ok()?;
            match icmp.icmp_type() {
                Icmpv6Type::NeighborAdvertisement(_) => Some(Heard {
                    address: IpAddr::from(*target),
                    mac: option(options, TARGET_LINK_ADDRESS).unwrap_or(sender),
                    said: Said::Claim,
                }),
                // RFC 4862 §5.4.3: a solicitation without a source is a probe for its target.
                Icmpv6Type::NeighborSolicitation if ip.header().source_addr().is_unspecified() => {
                    let said = Said::Probe(option(options, NONCE));
                    Some(Heard { address: IpAddr::from(*target), mac: sender, said })
                }
                Icmpv6Type::NeighborSolicitation => Some(Heard {
                    address: ip.header().source_addr().into(),
                    mac: option(options, SOURCE_LINK_ADDRESS).unwrap_or(sender),
                    said: Said::Claim,
                }),
                _ => None,
            }
        }
        _ => None,
    }
}

fn read_arp(arp: &ArpEthIpv4Packet, rest: Option<&[u8]>) -> Option<Heard> {
    let sender = Ipv4Addr::from(arp.sender_ipv4);
    // RFC 5227 §2.1.1: any ARP packet whose sender is the address, request or reply, tells of somebody who has it.
    if !sender.is_unspecified() {
        return Some(Heard { address: sender.into(), mac: arp.sender_mac, said: Said::Claim });
    }
    let mark = rest.and_then(|rest| rest.first_chunk()).copied();
    (arp.operation == ArpOperation::REQUEST).then(|| Heard {
        address: Ipv4Addr::from(arp.target_ipv4).into(),
        mac: arp.sender_mac,
        said: Said::Probe(mark),
    })
}

/// The six octets of the first option of a kind.
fn option(mut options: &[u8], kind: u8) -> Option<[u8; 6]> {
    while let [found, units, ..] = *options {
        let (option, rest) = options.split_at_checked(usize::from(units) * 8)?;
        if option.is_empty() {
            return None;
        }
        if found == kind {
            return option.get(2..8)?.try_into().ok();
        }
        options = rest;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::frame::{announce, introduce, probe};
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];
    const MARK: Mark = *b"berth!";
    const BOTH: [&str; 2] = ["192.0.2.7", "2001:db8::7"];

    #[test]
    fn announcements_and_questions_in_the_name_of_an_address_claim_it() {
        let gateways = ["192.0.2.254", "fe80::1"].map(|gateway| gateway.parse().unwrap());
        for address in BOTH.map(|address| address.parse().unwrap()) {
            let asked = gateways.into_iter().filter_map(|gateway| introduce(address, MAC, gateway));
            for frame in announce(address, MAC).into_iter().chain(asked) {
                assert_eq!(read(&frame), Some(Heard { address, mac: MAC, said: Said::Claim }));
            }
        }
    }

    #[test]
    fn a_probe_is_no_claim_and_shows_its_mark() {
        for address in BOTH.map(|address| address.parse().unwrap()) {
            let said = Said::Probe(Some(MARK));
            assert_eq!(read(&probe(address, MAC, MARK)), Some(Heard { address, mac: MAC, said }));
        }
        let mut shortest = probe(BOTH[0].parse().unwrap(), MAC, MARK);
        shortest.truncate(ARP_END);
        assert_eq!(read(&shortest).unwrap().said, Said::Probe(None));
    }

    #[test]
    fn an_advertisement_that_was_forwarded_says_nothing() {
        let mut frame = announce(BOTH[1].parse().unwrap(), MAC).remove(0);
        frame[14 + 7] = 254;
        assert_eq!(read(&frame), None);
    }

    #[test]
    fn whatever_arrives_on_the_lan_is_read_or_passed_over() {
        let [v4, v6]: [IpAddr; 2] = BOTH.map(|address| address.parse().unwrap());
        let questions = [introduce(v4, MAC, v4), introduce(v6, MAC, v6)].into_iter().flatten();
        let probes = [v4, v6].map(|address| probe(address, MAC, MARK));
        let claims = [v4, v6].into_iter().flat_map(|address| announce(address, MAC));
        let frames: Vec<Vec<u8>> = claims.chain(questions).chain(probes).collect();
        berth_hostile::octets(&frames, |frame| _ = read(frame));
    }

    #[test]
    fn an_option_of_no_length_ends_the_options() {
        assert_eq!(option(&[2, 0, 0, 0, 0, 0, 0, 0], 2), None);
    }
}
