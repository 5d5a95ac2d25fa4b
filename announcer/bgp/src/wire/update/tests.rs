use std::collections::BTreeSet;
use std::net::IpAddr;

use super::super::{Message, decode as decode_message};
use super::*;
use crate::attributes::{Community, LargeCommunity};

fn external() -> Path {
    Path {
        asn: 65000,
        external: true,
        four_octets: true,
        v4: Some(Ipv4Addr::new(192, 0, 2, 11)),
        v6: vec!["2001:db8::11".parse().unwrap()],
        extended: false,
    }
}

fn prefixes(texts: &[&str]) -> Vec<Prefix> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

fn announced(path: &Path, attributes: &Attributes, texts: &[&str]) -> Vec<u8> {
    let prefixes = prefixes(texts);
    let mut out = Vec::new();
    assert_eq!(
        announce(&mut out, path, attributes, prefixes[0].family(), &prefixes),
        prefixes.len()
    );
    assert!(
        matches!(decode_message(&out), Ok(Some((Message::Update(Update { end_of_rib: None }), length))) if length == out.len())
    );
    out.split_off(HEADER)
}

#[test]
fn an_ipv4_route_to_another_as_is_as_rfc_4271_has_it() {
    let update =
        announced(&external(), &Attributes::default(), &["198.51.100.7/32", "203.0.113.0/24"]);
    let expected = [
        &[0, 0, 0, 20][..],
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8],
        &[0x40, 3, 4, 192, 0, 2, 11],
        &[32, 198, 51, 100, 7, 24, 203, 0, 113],
    ];
    assert_eq!(update, expected.concat());
}

#[test]
fn a_peer_of_the_own_as_is_told_a_preference_and_no_path() {
    let internal = Path { external: false, ..external() };
    let attributes = Attributes { local_pref: Some(200), prepend: 3, ..Attributes::default() };
    let update = announced(&internal, &attributes, &["198.51.100.7/32"]);
    let expected = [
        &[0x40, 1, 1, 0][..],
        &[0x40, 2, 0],
        &[0x40, 3, 4, 192, 0, 2, 11],
        &[0x40, 5, 4, 0, 0, 0, 200],
    ]
    .concat();
    assert_eq!(update[4..4 + expected.len()], expected);
    let update = announced(&internal, &Attributes::default(), &["198.51.100.7/32"]);
    assert!(update.windows(7).any(|window| window == [0x40, 5, 4, 0, 0, 0, 100]));
}

#[test]
fn each_attribute_is_where_its_rfc_says() {
    let attributes = Attributes {
        local_pref: Some(200),
        med: Some(7),
        prepend: 2,
        communities: BTreeSet::from([Community(65000 << 16 | 1), Community::GRACEFUL_SHUTDOWN]),
        large_communities: BTreeSet::from([LargeCommunity(4_200_000_000, 1, 2)]),
    };
    let update = announced(&external(), &attributes, &["198.51.100.7/32"]);
    let has = |octets: &[u8]| update.windows(octets.len()).any(|window| window == octets);
    assert!(
        has(&[0x40, 2, 14, 2, 3, 0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe8]),
        "prepended"
    );
    assert!(has(&[0x80, 4, 4, 0, 0, 0, 7]), "MED");
    assert!(!has(&[0x40, 5, 4]), "no preference for another AS");
    assert!(has(&[0xc0, 8, 8, 0xfd, 0xe8, 0, 1, 0xff, 0xff, 0, 0]), "communities, in order");
    assert!(has(&[0xc0, 32, 12, 0xfa, 0x56, 0xea, 0, 0, 0, 0, 1, 0, 0, 0, 2]), "large communities");
}

#[test]
fn a_peer_without_four_octets_reads_the_as_that_stands_for_one() {
    let old = Path { asn: 4_200_000_000, four_octets: false, ..external() };
    let attributes = Attributes { prepend: 1, ..Attributes::default() };
    let update = announced(&old, &attributes, &["198.51.100.7/32"]);
    let has = |octets: &[u8]| update.windows(octets.len()).any(|window| window == octets);
    assert!(has(&[0x40, 2, 6, 2, 2, 0x5b, 0xa0, 0x5b, 0xa0]));
    assert!(has(&[0xc0, 17, 10, 2, 2, 0xfa, 0x56, 0xea, 0, 0xfa, 0x56, 0xea, 0]));
    let small = announced(&Path { asn: 65000, ..old }, &attributes, &["198.51.100.7/32"]);
    assert!(!small.windows(2).any(|window| window == [0xc0, 17]));
}

#[test]
fn an_ipv6_route_comes_first_of_all_attributes() {
    let update = announced(&external(), &Attributes::default(), &["2001:db8:1::/48"]);
    let next_hop = "2001:db8::11".parse::<Ipv6Addr>().unwrap().octets();
    let expected = [
        &[0, 0, 0, 45, 0x90, 14, 0, 28, 0, 2, 1, 16][..],
        &next_hop,
        &[0, 48, 0x20, 1, 0x0d, 0xb8, 0, 1],
        &[0x40, 1, 1, 0],
        &[0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8],
    ];
    assert_eq!(update, expected.concat());
    let both = Path {
        v6: vec!["2001:db8::11".parse().unwrap(), "fe80::1".parse().unwrap()],
        ..external()
    };
    let update = announced(&both, &Attributes::default(), &["2001:db8:1::/48"]);
    assert_eq!(update[11], 32);
}

#[test]
fn an_ipv4_route_has_an_ipv6_next_hop_where_there_is_no_other() {
    let path =
        Path { v4: None, extended: true, v6: vec!["fe80::1".parse().unwrap()], ..external() };
    let update = announced(&path, &Attributes::default(), &["198.51.100.7/32"]);
    assert_eq!(update[4..12], [0x90, 14, 0, 26, 0, 1, 1, 16]);
    assert_eq!(update[29..34], [32, 198, 51, 100, 7]);
    let mut out = Vec::new();
    withdraw(&mut out, &path, Family::V4, &prefixes(&["198.51.100.7/32"]));
    assert_eq!(out[HEADER..], [0, 0, 0, 12, 0x90, 15, 0, 8, 0, 1, 1, 32, 198, 51, 100, 7]);
    let leads = |path: &Path| Family::ALL.map(|family| path.leads(family));
    assert_eq!(leads(&path), [true, true]);
    assert_eq!(leads(&Path { extended: false, ..path.clone() }), [false, true]);
    assert_eq!(leads(&Path { v6: vec![], ..external() }), [true, false]);
}

#[test]
fn withdrawals_and_ends_are_as_short_as_they_can_be() {
    let octets = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        out.split_off(HEADER)
    };
    let (v4, v6) = (prefixes(&["198.51.100.7/32"]), prefixes(&["2001:db8::/32"]));
    let gone = octets(&|out| _ = withdraw(out, &external(), Family::V4, &v4));
    assert_eq!(gone, [0, 5, 32, 198, 51, 100, 7, 0, 0]);
    let gone = octets(&|out| _ = withdraw(out, &external(), Family::V6, &v6));
    assert_eq!(gone, [0, 0, 0, 12, 0x90, 15, 0, 8, 0, 2, 1, 32, 0x20, 1, 0x0d, 0xb8]);
    for family in Family::ALL {
        let mut out = Vec::new();
        end_of_rib(&mut out, family);
        let read = decode_message(&out).unwrap().unwrap();
        assert_eq!(read, (Message::Update(Update { end_of_rib: Some(family) }), out.len()));
    }
}

#[test]
fn no_message_is_longer_than_agreed_whatever_its_attributes_are() {
    let host = |number: u32| Prefix::host(IpAddr::V4(Ipv4Addr::from_bits(number)));
    let many: Vec<Prefix> = (0..2000).map(host).collect();
    let communities = (0..500).map(Community).collect();
    let large_communities = (0..500).map(|number| LargeCommunity(1, 2, number)).collect();
    let full = Attributes {
        prepend: 255,
        med: Some(1),
        communities,
        large_communities,
        local_pref: Some(1),
    };
    let (v4, v6) = (external(), Path { v4: None, extended: true, ..external() });
    let old = Path { asn: 4_200_000_000, four_octets: false, ..external() };
    for path in [&v4, &v6, &old] {
        for attributes in [&Attributes::default(), &full] {
            let mut out = Vec::new();
            let count = announce(&mut out, path, attributes, Family::V4, &many);
            assert!(
                count > 0 && out.len() <= LONGEST && out.len() > LONGEST - 5,
                "{count} {}",
                out.len()
            );
            assert!(decode_message(&out).is_ok());
        }
        let mut out = Vec::new();
        let count = withdraw(&mut out, path, Family::V4, &many);
        assert!(
            count > 800 && out.len() <= LONGEST && out.len() > LONGEST - 5,
            "{count} {}",
            out.len()
        );
    }
}

#[test]
fn what_a_peer_says_of_its_routes_is_passed_over() {
    let mut attributes = vec![0xff; 9];
    let mut out = Vec::new();
    message(&mut out, UPDATE, |out| {
        out.extend([0, 0, 0, 9]);
        out.append(&mut attributes);
        out.extend([200, 1, 2]);
    });
    assert_eq!(
        decode_message(&out).unwrap().unwrap().0,
        Message::Update(Update { end_of_rib: None })
    );
    for wrong in [[0, 9, 0, 0], [0, 0, 0, 1], [0xff; 4]] {
        let mut out = Vec::new();
        message(&mut out, UPDATE, |out| out.extend(wrong));
        let notification = decode_message(&out).unwrap_err();
        assert_eq!((notification.code, notification.subcode), (3, 1), "{wrong:?}");
    }
}
