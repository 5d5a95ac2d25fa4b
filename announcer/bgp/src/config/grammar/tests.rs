use super::*;

fn one(text: &str) -> Peer {
    let (mut peers, flaws) = peers(text);
    assert_eq!((peers.len(), flaws.as_slice()), (1, &[][..]), "{text}");
    peers.remove(0)
}

fn flaws(text: &str) -> Vec<String> {
    let (peers, flaws) = peers(text);
    assert!(peers.is_empty(), "{peers:?}");
    flaws.iter().map(ToString::to_string).collect()
}

fn secret(text: &str) -> Option<Password> {
    Some(Password::Text(text.to_owned()))
}

#[test]
fn both_grammars_say_the_same() {
    let old = one(
        "192.0.2.1:65001:secret:true/mpbgp_nexthop=fixed;mpbgp_ipv4=192.0.2.11;mpbgp_ipv6=fd00::11",
    );
    let new = one(
        "192.0.2.1:65001:secret:true:179:mpbgp_nexthop=fixed;mpbgp_ipv4=192.0.2.11;mpbgp_ipv6=[fd00::11]",
    );
    assert_eq!(old, new);
    assert_eq!(old.remote, Remote::Address("192.0.2.1".parse().unwrap()));
    assert_eq!(
        (old.remote_as, old.port, old.distance),
        (RemoteAs::Is(65001), 179, Distance::Hops(50))
    );
    assert_eq!(old.password, secret("secret"));
    let hops = Hops::Fixed {
        v4: Some("192.0.2.11".parse().unwrap()),
        v6: Some("fd00::11".parse().unwrap()),
    };
    assert_eq!((old.hops, old.families), (hops, BTreeSet::from(Family::ALL)));
}

#[test]
fn what_is_left_out_is_as_in_kube_vip() {
    for text in [
        "192.0.2.1:65001",
        "192.0.2.1:65001:",
        "192.0.2.1:65001::",
        "192.0.2.1:65001:::",
        "192.0.2.1:65001:::::",
    ] {
        let peer = one(text);
        assert_eq!(peer, Peer::new(peer.remote.clone(), RemoteAs::Is(65001)), "{text}");
        assert_eq!(peer.families, BTreeSet::from([Family::V4]));
    }
    let v6 = one("[2001:db8::1]:65001::false:1790");
    assert_eq!((v6.families, v6.port), (BTreeSet::from([Family::V6]), 1790));
    assert_eq!(v6.name, "2001:db8::1");
    assert_eq!(peers(""), (vec![], vec![]));
    assert_eq!(peers(",, ,"), (vec![], vec![]));
}

#[test]
fn several_peers_stand_in_one_list_over_several_lines() {
    let (peers, flaws) =
        peers("192.0.2.1:65001::false,\n  [2001:db8::1]:65001:a:t ,192.0.2.2:65002");
    assert_eq!((peers.len(), flaws.len()), (3, 0));
    assert_eq!(peers[1].distance, Distance::Hops(50));
}

#[test]
fn a_router_on_a_link_needs_neither_address_nor_as() {
    let peer = one("unnumbered:eth0:65001:secret");
    assert_eq!(peer.remote, Remote::Interface("eth0".to_owned()));
    assert_eq!((peer.remote_as, &peer.password), (RemoteAs::Is(65001), &secret("secret")));
    assert_eq!(one("unnumbered:eth0").remote_as, RemoteAs::External);
    assert_eq!(one("unnumbered:eth0").families, BTreeSet::from(Family::ALL));
}

#[test]
fn a_password_may_have_anything_in_it_that_kube_vip_takes_and_the_rest_in_brackets() {
    for (text, password) in [
        ("192.0.2.1:65001:ab/cd=:false", "ab/cd="),
        ("192.0.2.1:65001:a[b:false", "a[b"),
        ("192.0.2.1:65001:[a:b,c;d/mp]:false", "a:b,c;d/mp"),
        ("192.0.2.1:65001:[:false", "["),
        ("192.0.2.1:65001:a]b", "a]b"),
    ] {
        assert_eq!(one(text).password, secret(password), "{text}");
    }
    assert_eq!(
        one("192.0.2.1:65001:[file:/run/pw]").password,
        Some(Password::File("/run/pw".into()))
    );
}

#[test]
fn a_peer_may_be_watched() {
    assert_eq!(
        one("192.0.2.1:65001:::::true;50;60;5").bfd,
        Some(Bfd { receive: 50, transmit: 60, multiplier: 5 })
    );
    assert_eq!(one("192.0.2.1:65001:::::true;;;").bfd, Some(Bfd::default()));
    assert_eq!(one("192.0.2.1:65001:::::false;;;").bfd, None);
}

#[test]
fn what_is_wrong_names_peer_field_and_position() {
    let long = format!("192.0.2.1:65001:{}", "x".repeat(81));
    let cases = [
        (
            "[fd00::2]:65000x::",
            "peer 1 (fd00::2), AS at character 11 \"65000x\": accepted is a whole number from 1 to 4294967295",
        ),
        (
            "192.0.2.1:4294967296",
            "peer 1 (192.0.2.1), AS at character 11 \"4294967296\": accepted is",
        ),
        ("192.0.2.1:0", "AS at character 11 \"0\": accepted is"),
        ("192.0.2.1", "peer 1 (192.0.2.1), AS at character 10: accepted is"),
        (
            "[fd00::2",
            "peer 1, address at character 1 \"[fd00\": accepted is an IPv4 address, or an IPv6",
        ),
        ("fd00::2:65000", "peer 1, address at character 1 \"fd00\""),
        ("router:65000", "peer 1, address at character 1 \"router\""),
        ("0.0.0.0:65000", "address at character 1"),
        ("[fe80::1]:65000", "address at character 1"),
        (
            "192.0.2.1:65000::maybe",
            "multihop at character 18 \"maybe\": accepted are true and false",
        ),
        ("192.0.2.1:65000:::70000", "port at character 19 \"70000\": accepted is a port"),
        (
            "192.0.2.1:65000:::179:mpbgp_nexthop",
            "options at character 23 \"mpbgp_nexthop\": accepted are mpbgp_nexthop=",
        ),
        ("192.0.2.1:65000/mpbgp_nexthop", "options at character 17 \"mpbgp_nexthop\""),
        (
            "192.0.2.1:65000/mpbgp_nexthop=fixed",
            "mpbgp_nexthop at character 31 \"fixed\": accepted are fixed (with",
        ),
        ("192.0.2.1:65000/mpbgp_nexthop=auto", "mpbgp_nexthop at character 31 \"auto\""),
        (
            "192.0.2.1:65000/mpbgp_ipv4=x",
            "mpbgp_ipv4 at character 28 \"x\": accepted is an IPv4 address",
        ),
        (
            "192.0.2.1:65000::::mpbgp_nexthop=fixed;mpbgp_ipv6=fd00::2",
            "field 8 at character 57: accepted are 7 fields",
        ),
        ("192.0.2.1:65000::::a=b", "options at character 20 \"a=b\""),
        ("192.0.2.1:65000:::::true", "BFD at character 21 \"true\": accepted is ENABLED"),
        (
            "192.0.2.1:65000:::::true;1;300;3",
            "BFD receive at character 26 \"1\": accepted are milliseconds",
        ),
        ("192.0.2.1:65000:::::true;300;300;0", "BFD multiplier at character 34 \"0\""),
        (
            "unnumbered::65000",
            "peer 1, interface at character 12 \"\": accepted is the name of an interface",
        ),
        (
            &long,
            "peer 1 (192.0.2.1), password at character 17: accepted is a password of 1 to 80 octets",
        ),
    ];
    for (text, expected) in cases {
        let flaws = flaws(text);
        assert_eq!(flaws.len(), 1, "{flaws:?}");
        assert!(flaws[0].contains(expected), "{text}\n{}\n{expected}", flaws[0]);
        assert!(!flaws[0].contains("xxxx"), "a password is shown to nobody");
    }
}

#[test]
fn a_peer_that_is_wrong_costs_no_other() {
    let (right, flaws) = peers("192.0.2.1:65001,192.0.2.2:x::y,192.0.2.3:65003");
    assert_eq!(
        right.iter().map(|peer| peer.name.as_str()).collect::<Vec<_>>(),
        ["192.0.2.1", "192.0.2.3"]
    );
    assert_eq!(flaws.len(), 1);
    assert!(
        flaws[0].to_string().starts_with("peer 2 (192.0.2.2), AS at character 27 \"x\""),
        "{}",
        flaws[0]
    );
}

#[test]
fn what_is_said_for_all_counts_where_a_peer_says_nothing() {
    let usual = MultiProtocol {
        mode: Some("fixed".to_owned()),
        v4: None,
        v6: Some("fd00::11".parse().unwrap()),
    };
    let text = "192.0.2.1:65001,192.0.2.2:65001/mpbgp_nexthop=auto_sourceif,192.0.2.3:65001/mpbgp_ipv6=fd00::3";
    let (peers, flaws) = peers_with(text, &usual);
    assert!(flaws.is_empty(), "{flaws:?}");
    let fixed = |v6: &str| Hops::Fixed { v4: None, v6: Some(v6.parse().unwrap()) };
    let hops: Vec<Hops> = peers.iter().map(|peer| peer.hops).collect();
    assert_eq!(hops, [fixed("fd00::11"), Hops::Interface, fixed("fd00::3")]);
    let (peers, flaws) = peers_with("192.0.2.1:65001", &MultiProtocol { v6: None, ..usual });
    assert_eq!((peers.len(), flaws.len()), (0, 1));
}
