use std::collections::BTreeSet;

use super::super::password::Password;
use super::super::peer::{Bfd, Distance, Hops, Remote};
use super::*;
use crate::attributes::{Community, LargeCommunity};
use crate::policy::{Requirement, Widened};
use crate::prefix::Family;
use crate::session::{RemoteAs, Role};

const WHOLE: &str = "
asn: 65000
routerId: 192.0.2.11
holdTime: 9
keepalive: 3
connectRetry: 5
gracefulRestart: {time: 300, notification: false}
listen: 1790
peers:
- name: tor-a
  description: the switch of rack a
  address: 192.0.2.1
  asn: 65001
  localAsn: 65100
  port: 1179
  connect: both
  password: {secret: tor, key: a}
  multihop: 3
  ttlSecurity: true
  families: [ipv4, ipv6]
  source: 192.0.2.11
  sourceInterface: eth1
  nextHop: {ipv6: 2001:db8::11}
  holdTime: 0
  gracefulRestart: false
  bfd: {receive: 50, multiplier: 5}
  nodes:
    matchLabels: {rack: a, empty: }
    matchExpressions:
    - {key: role, operator: NotIn, values: [storage]}
    - {key: ready, operator: Exists}
- interface: eth2
  asn: external
policy:
- pools: [global]
  namespaces: [web, db]
  services: {matchLabels: {tier: gold}}
  peers: [tor-a]
  announce: true
  localPref: 200
  med: 10
  prepend: 2
  communities: [\"65000:100\", no-export, \"4200000000:1:2\"]
  aggregate: {ipv4: 24}
services:
- namespaces: [\"*\"]
  communities: [\"65000:*\"]
  localPref: {max: 100}
  peers: [tor-a]
";

fn wrong(text: &str) -> Vec<String> {
    check(text).1.iter().map(ToString::to_string).collect()
}

#[test]
fn peers_may_connect_to_a_port_of_some_addresses() {
    let of = |text: &str| check(text).0.listen;
    let listen = of("listen: {addresses: [192.0.2.11, \"2001:db8::/64\"]}").unwrap();
    let within: Vec<String> = listen.within.iter().map(ToString::to_string).collect();
    assert_eq!((listen.port, within.join(" ")), (179, "192.0.2.11/32 2001:db8::/64".to_owned()));
    assert_eq!(of("asn: 65000"), None);
    for text in ["listen: 0", "listen: [179]", "listen: {port: x}", "listen: {addresses: [eth0]}"] {
        assert!(!wrong(text).is_empty(), "{text}");
    }
}

#[test]
fn everything_that_can_be_said_is_read() {
    let (document, flaws) = check(WHOLE);
    assert!(flaws.is_empty(), "{flaws:#?}");
    assert_eq!((document.local_as, document.hold_time), (Some(65000), Some(9)));
    assert_eq!(document.listen, Some(Listen { port: 1790, within: vec![] }));
    assert_eq!(document.router_id, Some(RouterId::Is("192.0.2.11".parse().unwrap())));
    assert_eq!(document.graceful_restart, Some(Some(Restart { time: 300, notification: false })));
    let [tor, link] = document.peers.as_slice() else { panic!("{document:?}") };
    assert_eq!((tor.name.as_str(), tor.port, tor.local_as), ("tor-a", 1179, Some(65100)));
    assert_eq!((tor.role, tor.distance), (Role::Both, Distance::Secured(3)));
    assert_eq!(
        tor.password,
        Some(Password::Secret { name: "tor".to_owned(), key: "a".to_owned() })
    );
    assert_eq!(tor.hops, Hops::Fixed { v4: None, v6: Some("2001:db8::11".parse().unwrap()) });
    assert_eq!((tor.hold_time, tor.graceful_restart), (Some(0), Some(None)));
    assert_eq!(tor.bfd, Some(Bfd { receive: 50, transmit: 300, multiplier: 5 }));
    assert_eq!((tor.nodes.labels.len(), tor.nodes.requirements.len()), (2, 2));
    assert_eq!(tor.nodes.requirements[1], Requirement::Exists("ready".to_owned()));
    assert_eq!(
        (link.remote.clone(), link.remote_as),
        (Remote::Interface("eth2".to_owned()), RemoteAs::External)
    );
    assert_eq!((link.name.as_str(), link.families.clone()), ("eth2", BTreeSet::from(Family::ALL)));
    let rule = &document.policy.rules[0];
    assert_eq!(rule.change.communities.len(), 2);
    assert!(rule.change.communities.contains(&Community(65000 << 16 | 100)));
    assert_eq!(
        rule.change.large_communities,
        BTreeSet::from([LargeCommunity(4_200_000_000, 1, 2)])
    );
    assert_eq!(rule.change.widened, Some(Widened { v4: 24, v6: 128 }));
    assert_eq!(document.permits.0[0].local_pref, Some(0..=100));
}

#[test]
fn an_empty_document_says_nothing() {
    for text in ["", "# nothing\n", "peers:\npolicy:\n"] {
        assert_eq!(check(text), (Document::default(), vec![]), "{text}");
    }
    assert_eq!(config_map(&BTreeMap::new()), (Document::default(), vec![]));
    assert_eq!(check("layer2: [{}]").0.layer2.len(), 1, "everything");
}

#[test]
fn what_is_wrong_names_whose_field_it_is_and_its_line() {
    let cases = [
        ("asn: 0", "asn on line 1 \"0\": accepted is a whole number from 1 to 4294967295"),
        ("asns: 1", "key on line 1 \"asns\": accepted are asn, routerId"),
        ("peers: {a: b}", "peers on line 1: accepted is a list"),
        ("peers:\n- a", "peer 1, peer on line 2 \"a\": accepted are keys: name"),
        ("peers:\n- {asn: 1}", "peer 1, address on line 2: it is missing"),
        ("peers:\n- {address: fe80::1, asn: 1}", "peer 1, address on line 2 \"fe80::1\""),
        ("peers:\n- {address: 192.0.2.1}", "peer 1 (192.0.2.1), asn on line 2: it is missing"),
        (
            "peers:\n- {name: a, address: 192.0.2.1, asn: 4294967296}",
            "peer 1 (a), asn on line 2 \"4294967296\"",
        ),
        (
            "peers:\n- {name: a b, address: 192.0.2.1, asn: 1}",
            "name on line 2 \"a b\": accepted is a name",
        ),
        (
            "peers:\n- {address: 192.0.2.1, interface: eth0, asn: 1}",
            "interface on line 2 \"eth0\": accepted is address or",
        ),
        (
            "peers:\n- address: 192.0.2.1\n  asn: 1\n  password: hunter2",
            "password on line 4: a password does not stand here; accepted is where",
        ),
        (
            "peers:\n- address: 192.0.2.1\n  asn: 1\n  password: {file: x}",
            "password on line 4: accepted is where",
        ),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, port: 0}",
            "port on line 2 \"0\": accepted is a whole number from 1",
        ),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, holdTime: 2}",
            "holdTime on line 2 \"2\": accepted are seconds",
        ),
        ("peers:\n- {address: 192.0.2.1, asn: 1, families: [ipv5]}", "families on line 2 \"ipv5\""),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, families: []}",
            "families on line 2: accepted is at least one",
        ),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, source: \"2001:db8::1\"}",
            "source on line 2 \"2001:db8::1\": accepted is an address of the peer's",
        ),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, nextHop: {}}",
            "nextHop on line 2: accepted are connection",
        ),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, nodes: {matchLabel: {}}}",
            "peer 1 (192.0.2.1), key of nodes on line 2 \"matchLabel\"",
        ),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, nodes: {matchExpressions: [{key: a, operator: In}]}}",
            "operator on line 2 \"In\"",
        ),
        ("peers:\n- {address: 192.0.2.1, asn: 1, bfd: {receive: 1}}", "receive on line 2 \"1\""),
        (
            "peers:\n- {address: 192.0.2.1, asn: 1, gracefulRestart: {time: 5000}}",
            "gracefulRestart.time on line 2 \"5000\"",
        ),
        ("policy:\n- {communities: [\"1:2:3:4\"]}", "policy 1, communities on line 2 \"1:2:3:4\""),
        (
            "policy:\n- {prepend: 33}",
            "policy 1, prepend on line 2 \"33\": accepted is a whole number from 0 to 32",
        ),
        ("policy:\n- {aggregate: {ipv4: 33}}", "policy 1, aggregate.ipv4 on line 2 \"33\""),
        (
            "peers:\n- {name: a, address: 192.0.2.1, asn: 1, pasword: x}",
            "peer 1 (a), key on line 2 \"pasword\": accepted are name",
        ),
        (
            "peers:\n- {name: a, address: 192.0.2.1, asn: 1, password: {secret: b, kye: x}}",
            "peer 1 (a), key of password on line 2 \"kye\": accepted are secret, key, file",
        ),
        (
            "peers:\n- {name: a, address: 192.0.2.1, asn: 1, password: {secret: B_c}}",
            "peer 1 (a), password.secret on line 2 \"B_c\": accepted is the name of a Secret",
        ),
        (
            "peers:\n- {name: a, address: 192.0.2.1, asn: 1, nodes: {matchLabels: {rack: \"a b\"}}}",
            "peer 1 (a), nodes.matchLabels on line 2 \"a b\": accepted is the value of a label",
        ),
        ("listen: {port: 0}", "listen.port on line 1 \"0\""),
        (
            "policy:\n- {namespaces: [\"*\"], med: 1}",
            "policy 1, namespaces on line 2 \"*\": accepted are names of namespaces; for all leave it out",
        ),
        ("policy:\n- {namespaces: [Shop], med: 1}", "policy 1, namespaces on line 2 \"Shop\""),
        ("policy:\n- {pools: [Global], med: 1}", "policy 1, pools on line 2 \"Global\""),
        ("policy:\n- {peers: [\"*\"], med: 1}", "policy 1, peers on line 2 \"*\""),
        ("layer2:\n- {pools: [\"*\"]}", "layer2 1, pools on line 2 \"*\""),
        (
            "services:\n- {namespaces: [a], localPref: {min: 200, max: 100}}",
            "services 1, localPref on line 2: min 200 is more than max 100",
        ),
        (
            "services:\n- {communities: [\"1:*\"]}",
            "services 1, namespaces on line 2: it is missing",
        ),
        (
            "services:\n- {namespaces: [a], localPref: 100}",
            "services 1, localPref on line 2 \"100\": accepted are bounds",
        ),
        ("a: [", "YAML on line"),
    ];
    for (text, expected) in cases {
        let flaws = wrong(text);
        assert_eq!(flaws.len(), 1, "{text}: {flaws:#?}");
        assert!(flaws[0].contains(expected), "{text}\n{}\n{expected}", flaws[0]);
        assert!(!flaws[0].contains("hunter2"), "a password is shown to nobody");
        let (document, _) = check(text);
        assert_eq!(
            (document.peers.len(), document.policy.rules.len(), document.permits.0.len()),
            (0, 0, 0),
            "{text}"
        );
    }
}

#[test]
fn a_router_is_named_by_its_address_of_a_link_where_the_interface_is_named() {
    let text = "peers:\n- {address: \"fe80::1\", sourceInterface: eth1, asn: external}\n";
    let (document, flaws) = check(text);
    assert_eq!((document.peers.len(), flaws), (1, vec![]));
    let told = wrong("peers:\n- {address: \"fe80::1\", asn: external}\n");
    assert!(told[0].contains("one of a link with sourceInterface: eth0 beside it"), "{told:?}");
}

#[test]
fn of_two_peers_with_one_name_the_second_is_told_of_the_first() {
    let text = "peers:\n- {address: 192.0.2.1, asn: 1}\n- {address: 192.0.2.1, asn: 2}\n";
    let (document, flaws) = check(text);
    assert_eq!(document.peers.len(), 1);
    let [flaw] = &flaws[..] else { panic!("{flaws:?}") };
    let told = "peer 2 (192.0.2.1), name on line 3 \"192.0.2.1\": peer 1 has it too";
    assert!(flaw.to_string().starts_with(told), "{flaw}");
}

#[test]
fn a_peer_that_is_wrong_costs_no_other_and_all_that_is_wrong_is_told() {
    let text = "peers:\n- {address: 192.0.2.1, asn: 1}\n- {address: x, asn: 1}\n- {address: 192.0.2.3, asn: 0, port: x}\n";
    let (document, flaws) = check(text);
    assert_eq!(document.peers.len(), 1);
    assert_eq!(flaws.len(), 2, "{flaws:?}");
}

#[test]
fn a_manifest_is_read_as_the_file_that_it_is() {
    let manifest = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: berth-bgp\ndata:\n  config.yaml: |\n    asn: 65001\n    peers:\n    - address: x\n      asn: 1\n";
    let (document, flaws) = check(manifest);
    assert_eq!(document.local_as, Some(65001));
    assert_eq!(
        flaws[0].to_string(),
        "peer 1, address on line 9 \"x\": accepted is an IPv4 or IPv6 address of a host; one of a link with \
         sourceInterface: eth0 beside it, or interface: eth0 for the one router there"
    );
    assert!(wrong("kind: Secret\n")[0].contains("accepted is ConfigMap"));
    assert!(wrong("kind: ConfigMap\ndata: {peers: x}\n")[0].contains("accepted is one key"));
    let data = BTreeMap::from([("peers".to_owned(), String::new())]);
    assert_eq!(config_map(&data).1.len(), 1);
    let data = BTreeMap::from([("config.yaml".to_owned(), WHOLE.to_owned())]);
    assert_eq!(config_map(&data), check(WHOLE));
}
