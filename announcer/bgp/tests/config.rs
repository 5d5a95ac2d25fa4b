//! What operators and tenants may write: it is read or refused, and harms nothing.
#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::BTreeMap;

use berth_bgp::config::{Config, asked, check, node_annotations, peers, report, settings};

#[global_allocator]
static ALLOCATOR: berth_hostile::Counting = berth_hostile::Counting;

fn text(octets: &[u8]) -> String {
    String::from_utf8_lossy(octets).into_owned()
}

#[test]
fn any_list_of_peers_is_read_or_refused_and_no_password_is_shown() {
    let samples = [
        "192.0.2.1:65001:hunter2:true:179/mpbgp_nexthop=fixed;mpbgp_ipv4=192.0.2.11;mpbgp_ipv6=fd00::11",
        "[2001:db8::1]:65001:[hunter2]:false:179:mpbgp_nexthop=auto_sourceip;mpbgp_ipv6=[fd00::11]:true;300;300;3,192.0.2.2:65002",
        "unnumbered:eth0:65001::::,,[fd00::2]:4294967295",
    ];
    let samples = samples.map(|sample| sample.as_bytes().to_vec());
    let (right, wrong) = (Cell::new(0), Cell::new(0));
    berth_hostile::octets(&samples, |octets| {
        let text = text(octets);
        let (peers, flaws) = peers(&text);
        right.set(right.get() + peers.len());
        wrong.set(wrong.get() + flaws.len());
        let parts = 1 + text.matches([',', ';']).count();
        assert!(peers.len() + flaws.len() <= 8 * parts);
        for flaw in flaws {
            assert!(flaw.to_string().len() < 4096, "{flaw}");
        }
        assert!(!format!("{peers:?}").contains("hunter2"), "{peers:?}");
        let one = |name: &str| {
            ["bgp_peers", "bgp_peeraddress", "bgp_as", "mpbgp_nexthop"]
                .contains(&name)
                .then_some(text.as_str())
        };
        let (speaker, peers, _) = settings(one);
        let _ = Config::of((speaker, peers), Default::default());
    });
    assert!(right.get() > 0 && wrong.get() > 0);
}

#[test]
fn any_document_is_read_or_refused() {
    let whole = "asn: 65000\nlisten: 1790\npeers:\n- name: tor\n  address: 192.0.2.1\n  asn: 65001\n  connect: both\n  password: {secret: a}\n  nodes: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [b]}]}\npolicy:\n- {peers: [tor], communities: [\"1:2\", \"1:2:3\"], aggregate: {ipv4: 24}}\nservices:\n- {namespaces: [\"*\"], communities: [\"1:*\"], localPref: {min: 1, max: 2}}\n";
    let manifest =
        format!("kind: ConfigMap\ndata:\n  config.yaml: |\n{}", whole.replace('\n', "\n    "));
    let samples = [whole.as_bytes().to_vec(), manifest.replace("|\n", "|\n    ").into_bytes()];
    assert!(check(whole).1.is_empty(), "{:?}", check(whole).1);
    let (right, wrong) = (Cell::new(0), Cell::new(0));
    berth_hostile::octets(&samples, |octets| {
        let (document, flaws) = check(&text(octets));
        right.set(right.get() + document.peers.len());
        wrong.set(wrong.get() + flaws.len());
        flaws.iter().for_each(|flaw| assert!(flaw.to_string().len() < 4096, "{flaw}"));
        let (config, _) = Config::of(Default::default(), document);
        let _ = report(&text(octets)).to_string();
        let _ = config.of_node(&BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    });
    assert!(right.get() > 0 && wrong.get() > 0);
}

#[test]
fn any_annotation_is_read_or_refused() {
    let samples = [
        "65000:100,no-export,4200000000:1:2",
        "200",
        "tor-a,tor-b",
        "aHVudGVyMg==",
        "192.0.2.1,192.0.2.2",
    ];
    let samples = samples.map(|sample| sample.as_bytes().to_vec());
    berth_hostile::octets(&samples, |octets| {
        let text = text(octets);
        let (got, flaws) = asked(|_| Some(text.as_str()));
        assert!(flaws.len() <= 3);
        let (_, refused) = Config::default().permits.admit("a", got);
        assert!(refused.len() <= text.len() + 3);
        let keys = [
            "node-asn",
            "peer-asn",
            "src-ip",
            "peer-ip",
            "bgp-pass",
            "bgp-peers-1-peer-ip",
            "bgp-peers-1-node-asn",
        ];
        let annotations = keys.map(|key| (format!("x/{key}"), text.clone())).into_iter().collect();
        let (_, flaws) = node_annotations("x", &annotations);
        flaws.iter().for_each(|flaw| assert!(flaw.to_string().len() < 4096, "{flaw}"));
    });
}

/// kube-vip#1637: an IPv6 peer was `invalid IP` in metrics. What it is called here is its label.
#[test]
fn a_peer_is_called_by_its_address_in_one_form_whatever_stands_there() {
    let (peers, flaws) = peers("[2001:DB8:0:0::1]:65001,192.0.2.1:65001,unnumbered:eth0:65001");
    assert_eq!(flaws, []);
    let names: Vec<&str> = peers.iter().map(|peer| peer.name.as_str()).collect();
    assert_eq!(names, ["2001:db8::1", "192.0.2.1", "eth0"]);
    let document = check("peers: [{address: \"2001:db8::0001\", asn: 65001}]").0;
    assert_eq!(document.peers[0].name, "2001:db8::1");
}

/// One kind of lines, or of whatever a document may have many of, as often as is said.
type Many = (&'static str, fn(usize) -> String);

/// What somebody may write a megabyte of who may edit the ConfigMap.
const LONG: [Many; 16] = [
    ("keys", |count| repeat(count, |n| format!("k{n}: v\n"))),
    ("keys on one line", |count| format!("{{{}}}", repeat(count, |n| format!("k{n}: v, ")))),
    ("entries", |count| format!("peers:\n{}", "- a\n".repeat(count))),
    ("entries on one line", |count| format!("peers: [{}]", "a, ".repeat(count))),
    ("comments", |count| "# nothing\n".repeat(count)),
    ("empty lines", |count| format!("asn:{} 1", "\n".repeat(count))),
    ("lines of a text", |count| format!("asn: a\n{}", "  b\n".repeat(count))),
    ("lines of a block", |count| format!("asn: |\n{}", "  b\n".repeat(count))),
    ("escapes", |count| format!("asn: \"{}\"", "\\u0041".repeat(count))),
    ("open brackets", |count| "[".repeat(count)),
    ("open braces", |count| "{a: ".repeat(count)),
    ("dashes", |count| "- ".repeat(count)),
    ("question marks", |count| "? ".repeat(count)),
    ("anchors", |count| format!("peers:\n{}", repeat(count, |n| format!("- &a{n} x\n")))),
    ("tags", |count| format!("peers:\n{}", "- !!str x\n".repeat(count))),
    ("documents", |count| "---\n".repeat(count)),
];

/// The same of what a document is about.
const MEANT: [Many; 6] = [
    ("peers at one place", |count| {
        format!(
            "peers:\n{}",
            repeat(count, |n| format!("- {{name: p{n}, address: 192.0.2.1, asn: 1}}\n"))
        )
    }),
    ("peers of one name", |count| {
        format!("peers:\n{}", "- {name: p, address: 192.0.2.1, asn: 1}\n".repeat(count))
    }),
    ("rules about strangers", |count| {
        format!("policy:\n{}", repeat(count, |n| format!("- {{peers: [p{n}], med: 1}}\n")))
    }),
    ("strangers in one rule", |count| {
        format!("policy:\n- peers: [{}]\n", repeat(count, |n| format!("p{n}, ")))
    }),
    ("communities", |count| {
        format!("policy:\n- communities: [{}]\n", repeat(count, |n| format!("\"1:{n}\", ")))
    }),
    ("labels", |count| {
        let labels = repeat(count, |n| format!("l{n}: v, "));
        format!("policy:\n- services: {{matchLabels: {{{labels}}}}}\n")
    }),
];

fn repeat(count: usize, line: impl Fn(usize) -> String) -> String {
    (0..count).map(line).collect()
}

#[test]
fn a_long_document_costs_work_in_proportion_whatever_it_is_full_of() {
    for (what, make) in LONG.into_iter().chain(MEANT) {
        println!("{what}:");
        berth_hostile::in_proportion(1_000, |count| {
            let _ = report(&make(count)).to_string();
        });
    }
}

#[test]
fn a_megabyte_is_read_or_refused_within_seconds() {
    for (what, make) in LONG.into_iter().chain(MEANT) {
        let (one, two) = (make(1).len(), make(1001).len());
        let text = make((1 << 20) * 1000 / (two - one));
        let begun = std::time::Instant::now();
        let report = report(&text);
        let said = report.to_string().len();
        println!("{what}: {} octets, {:?}, {said} said", text.len(), begun.elapsed());
        let wrong: Vec<_> = report.flaws.iter().chain(&report.notes).collect();
        assert!(wrong.len() <= 400, "{what}: {} flaws", wrong.len());
        wrong.iter().for_each(|flaw| assert!(flaw.to_string().len() < 1024, "{what}: {flaw}"));
        assert!(begun.elapsed() < std::time::Duration::from_secs(20), "{what}");
    }
}

/// metallb#2423, calico#10844: of several routers on a link that have no other addresses one is told by its own.
#[test]
fn a_router_may_be_named_by_its_address_of_a_link() {
    let (document, flaws) = check(
        "peers:\n- {name: tor, address: \"fe80::1\", sourceInterface: eth1, asn: external}\n",
    );
    assert!(flaws.is_empty(), "{flaws:?}");
    assert_eq!(document.peers.len(), 1);
}
