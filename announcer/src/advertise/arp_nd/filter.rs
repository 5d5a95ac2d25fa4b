//! Which frames the kernel passes on: socket filters (classic BPF, Linux `networking/filter.rst`), so that a node is
//! woken by what concerns its addresses, and not by every question on the LAN. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use socket2::SockFilter;

/// Ranges of addresses in one filter. Addresses lie close together in pools; if they do not, neighbouring ranges are
/// joined, and the reader of the frames sorts out what is between them.
const RANGES: usize = 16;

// BPF_LD with BPF_W and BPF_B at an absolute offset; BPF_ALU and BPF_JMP with a constant; BPF_RET of a constant.
const WORD: u16 = 0x20;
const BYTE: u16 = 0x30;
const AND: u16 = 0x54;
const EQUAL: u16 = 0x15;
const GREATER: u16 = 0x25;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

/// `SKF_AD_OFF + SKF_AD_PKTTYPE`: for whom a frame was.
const PACKET_TYPE: u32 = 0xffff_f000 + 4;
/// `PACKET_MULTICAST`. Above it are frames for other hosts, such as those of a VLAN that is not ours, and our own.
const MULTICAST: u32 = 2;
/// The whole frame.
const ALL: u32 = u32::MAX;

// Where the fields lie in a frame without a VLAN tag.
const ARP_SENDER: u32 = 28;
const ARP_TARGET: u32 = 38;
const IP6_NEXT_HEADER: u32 = 20;
const IP6_SOURCE: u32 = 22;
const ICMP6_TYPE: u32 = 54;
const ICMP6_TARGET: u32 = 62;
const ICMP6: u32 = 58;
const SOLICITATION: u32 = 135;
const ADVERTISEMENT: u32 = 136;

/// Passes ARP packets whose sender is one of `addresses`, and those without a sender that ask for one.
pub fn arp(addresses: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    let ranges = ranges(addresses);
    let count = u8::try_from(ranges.len()).unwrap_or(u8::MAX);
    let mut program = vec![
        load(WORD, PACKET_TYPE),
        jump(GREATER, MULTICAST, 3 + 2 * count, 0),
        load(WORD, ARP_SENDER),
        jump(EQUAL, 0, 0, 1),
        load(WORD, ARP_TARGET),
    ];
    for (left, (first, last)) in (0..count).rev().zip(ranges) {
        program.push(jump(AT_LEAST, first, 0, 1));
        // Not greater than the last is within: over the ranges that are left, and over the refusal.
        program.push(jump(GREATER, last, 0, 2 * left + 1));
    }
    program.extend([give(0), give(ALL)]);
    program
}

/// Passes advertisements of `addresses`, solicitations from one, and those without a source that ask for one; with them
/// whatever else begins as all of them do.
pub fn neighbour_discovery(addresses: &BTreeSet<IpAddr>) -> Vec<SockFilter> {
    use Target::{At, Next};
    let begins = |field: u32| {
        let words = prefix(addresses).into_iter().zip((field..).step_by(4));
        words.filter(|((_, mask), _)| *mask != 0).flat_map(|((value, mask), at)| {
            [
                (WORD, at, Next, Next),
                (AND, mask, Next, Next),
                (EQUAL, value, Next, At(Label::Refuse)),
            ]
        })
    };
    let mut program = vec![
        (WORD, PACKET_TYPE, Next, Next),
        (GREATER, MULTICAST, At(Label::Refuse), Next),
        (BYTE, IP6_NEXT_HEADER, Next, Next),
        (EQUAL, ICMP6, Next, At(Label::Refuse)),
        (BYTE, ICMP6_TYPE, Next, Next),
        (EQUAL, ADVERTISEMENT, At(Label::Target), Next),
        (EQUAL, SOLICITATION, Next, At(Label::Refuse)),
    ];
    // The unspecified address is zero in all of its words.
    for word in 0..4 {
        let otherwise = At(Label::Source);
        program.push((WORD, IP6_SOURCE + 4 * word, Next, Next));
        program.push((EQUAL, 0, if word == 3 { At(Label::Target) } else { Next }, otherwise));
    }
    let source = program.len();
    program.extend(begins(IP6_SOURCE));
    program.push((RETURN, ALL, Next, Next));
    let target = program.len();
    program.extend(begins(ICMP6_TARGET));
    program.push((RETURN, ALL, Next, Next));
    let refuse = program.len();
    program.push((RETURN, 0, Next, Next));
    let jump = |from: usize, to: Target| {
        let to = match to {
            Next => return 0,
            At(Label::Source) => source,
            At(Label::Target) => target,
            At(Label::Refuse) => refuse,
        };
        // No program is longer than this: two prefixes of four words each.
        u8::try_from(to - from - 1).unwrap_or(u8::MAX)
    };
    let resolved = program.into_iter().enumerate().map(|(at, (code, value, then, otherwise))| {
        SockFilter::new(code, jump(at, then), jump(at, otherwise), value)
    });
    resolved.collect()
}

/// Where a program goes on.
#[derive(Clone, Copy)]
enum Target {
    Next,
    At(Label),
}

#[derive(Clone, Copy)]
enum Label {
    Source,
    Target,
    Refuse,
}

/// How all IPv6 addresses begin: the four words, each with the bits that they have in common.
fn prefix(addresses: &BTreeSet<IpAddr>) -> [(u32, u32); 4] {
    let v6 = || {
        addresses.iter().filter_map(|address| match address {
            IpAddr::V6(address) => Some(address.to_bits()),
            IpAddr::V4(_) => None,
        })
    };
    // They are in order: what the first and the last have in common all have.
    let (first, last) = (v6().next().unwrap_or(0), v6().next_back().unwrap_or(0));
    let mask = u128::MAX.checked_shl(128 - (first ^ last).leading_zeros()).unwrap_or(0);
    [96, 64, 32, 0].map(|shift| (((first & mask) >> shift) as u32, (mask >> shift) as u32))
}

/// At most [`RANGES`] ranges that hold every IPv4 address, ascending.
fn ranges(addresses: &BTreeSet<IpAddr>) -> Vec<(u32, u32)> {
    let v4 = addresses.iter().filter_map(|address| match address {
        IpAddr::V4(address) => Some(address.to_bits()),
        IpAddr::V6(_) => None,
    });
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for address in v4 {
        match ranges.last_mut() {
            Some((_, last)) if address - *last == 1 => *last = address,
            _ => ranges.push((address, address)),
        }
    }
    // The narrowest gaps are closed first: least passes for nothing.
    let mut gaps: Vec<u32> = ranges.windows(2).map(|pair| pair[1].0 - pair[0].1).collect();
    gaps.sort_unstable();
    let Some(widest) = ranges.len().checked_sub(RANGES + 1).and_then(|extra| gaps.get(extra))
    else {
        return ranges;
    };
    let mut joined: Vec<(u32, u32)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some(before) if first - before.1 <= *widest => before.1 = last,
            _ => joined.push((first, last)),
        }
    }
    joined
}

const fn load(size: u16, offset: u32) -> SockFilter {
    SockFilter::new(size, 0, 0, offset)
}

const fn jump(condition: u16, value: u32, then: u8, otherwise: u8) -> SockFilter {
    SockFilter::new(condition, then, otherwise, value)
}

const fn give(length: u32) -> SockFilter {
    SockFilter::new(RETURN, 0, 0, length)
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::net::Ipv4Addr;
    use std::os::unix::net::UnixDatagram;

    use socket2::SockRef;

    use super::super::frame::{Mac, announce, introduce, probe};
    use super::*;

    const MAC: Mac = [2, 0, 0, 0, 0, 9];

    /// Whether the kernel passes a frame: it runs the filter of any socket.
    fn passes(filter: &[SockFilter], frame: &[u8]) -> bool {
        let (one, other) = UnixDatagram::pair().unwrap();
        SockRef::from(&other).attach_filter(filter).unwrap();
        other.set_nonblocking(true).unwrap();
        one.send(frame).unwrap();
        match other.recv(&mut [0; 2048]) {
            Ok(length) => length == frame.len(),
            Err(error) => {
                assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
                false
            }
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn arp_about_our_addresses_passes_and_the_questions_of_others_do_not() {
        let ours = ["192.0.2.1", "192.0.2.2", "192.0.2.9"].map(ip).into();
        let filter = arp(&ours);
        let router = ip("192.0.2.254");
        for address in &ours {
            assert!(announce(*address, MAC).iter().all(|frame| passes(&filter, frame)));
            assert!(passes(&filter, &probe(*address, MAC, [0; 6])));
            assert!(passes(&filter, &introduce(*address, MAC, router).unwrap()));
            let asked = introduce(router, MAC, *address).unwrap();
            assert!(!passes(&filter, &asked), "who asks for it does not say that it has it");
        }
        for other in ["192.0.2.0", "192.0.2.3", "192.0.2.8", "192.0.2.10", "0.0.0.1"].map(ip) {
            assert!(!announce(other, MAC).iter().any(|frame| passes(&filter, frame)), "{other}");
            assert!(!passes(&filter, &probe(other, MAC, [0; 6])), "{other}");
        }
        assert!(!passes(&filter, &[0; 20]), "too short");
    }

    #[test]
    fn neighbour_discovery_about_our_addresses_passes_and_that_of_others_does_not() {
        let router = ip("fe80::1");
        for (ours, others) in [
            (&["2001:db8::4001"][..], &["2001:db8::4000", "2001:db8::2", "fe80::1"][..]),
            (&["2001:db8::4001", "2001:db8::4002"], &["2001:db8::2", "2001:db9::4001", "::1"]),
            (&["2001:db8::1", "3fff::1"], &["fd00::1", "::1"]),
        ] {
            let ours: BTreeSet<IpAddr> = ours.iter().map(|address| ip(address)).collect();
            let filter = neighbour_discovery(&ours);
            for address in &ours {
                assert!(passes(&filter, &announce(*address, MAC)[0]));
                assert!(passes(&filter, &probe(*address, MAC, [0; 6])));
                assert!(passes(&filter, &introduce(*address, MAC, router).unwrap()));
            }
            for other in others.iter().map(|other| ip(other)) {
                assert!(!passes(&filter, &announce(other, MAC)[0]), "{other} {ours:?}");
                assert!(!passes(&filter, &probe(other, MAC, [0; 6])), "{other} {ours:?}");
                let asks = introduce(other, MAC, *ours.first().unwrap()).unwrap();
                assert!(!passes(&filter, &asks), "{other} {ours:?}");
            }
        }
    }

    fn set(addresses: impl IntoIterator<Item = u32>) -> BTreeSet<IpAddr> {
        addresses.into_iter().map(|address| Ipv4Addr::from_bits(address).into()).collect()
    }

    #[test]
    fn neighbours_are_one_range_and_many_ranges_are_joined_over_the_narrowest_gaps() {
        assert_eq!(ranges(&set([5, 6, 7, 9])), [(5, 7), (9, 9)]);
        assert_eq!(ranges(&["2001:db8::1".parse().unwrap()].into()), []);
        // Pairs with a gap of 2, far from each other: each pair becomes one range.
        let pairs = (0..12).flat_map(|n| [n * 1000, n * 1000 + 2]);
        let joined = ranges(&set(pairs));
        assert!(joined.len() <= RANGES, "{joined:?}");
        assert!(joined.iter().all(|(first, last)| last - first <= 2), "{joined:?}");
        let many: BTreeSet<IpAddr> = set((0..500).map(|n| n * n * 7));
        let joined = ranges(&many);
        assert!(joined.len() <= RANGES);
        let holds = |address: u32| joined.iter().any(|(a, b)| (*a..=*b).contains(&address));
        assert!((0..500).all(|n| holds(n * n * 7)));
    }
}
