//! What people read, for pools and clusters written out here.

use std::collections::BTreeMap;

use berth_ipam::{Owner, OwnerKind, Protocol, Scope, Sharing, TrafficPolicy};

use super::review::{Cluster, Data, Finding, Holding, review};

fn data<const N: usize>(pairs: [(&str, &str); N]) -> Data {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into()
}

/// The same with nothing left open.
fn closed(mut data: Data) -> Data {
    for (key, value) in [("pins-global", "pool"), ("namespace-quota", "100")] {
        data.insert(key.to_owned(), value.to_owned());
    }
    data
}

/// A Service `namespace/name` that has the address, in no pool that a claim names.
fn holding(owner: &str, address: &str) -> Holding {
    let (namespace, name) = owner.split_once('/').unwrap();
    let owner = Owner::new(OwnerKind::Service, namespace, name, owner);
    Holding { address: address.parse().unwrap(), owner, pool: None, sharing: None }
}

fn node(name: &str, address: &str) -> BTreeMap<String, berth_ipam::AddressSet> {
    [(format!("node {name}"), [address.parse::<std::net::IpAddr>().unwrap()].into_iter().collect())]
        .into()
}

fn text(data: Data, cluster: Option<&Cluster>) -> String {
    let text = review(&data, cluster).to_string();
    assert!(
        text.lines().all(|line| line.trim_end() == line),
        "spaces at the end of a line:\n{text}"
    );
    text
}

#[test]
fn good_pools_are_listed_with_their_sizes() {
    let pools = data([
        ("cidr-global", "192.0.2.0/24,2001:db8::/64"),
        ("range-shop", "198.51.100.10-198.51.100.19"),
        ("exclude-shop", "198.51.100.10"),
        ("drain-shop", "198.51.100.15-198.51.100.19"),
        ("cidr-lab", "0.0.0.0/32"),
        ("quota-shop", "20"),
    ]);
    let pools = closed(pools);
    let expected = "\
POOL    FAMILY                  SIZE                  FREE
global  IPv4                     256                   254
global  IPv6    18446744073709551616  18446744073709551616
lab     IPv4                    DHCP                     -
shop    IPv4                      10                     4

no problem found
1 note:
  the pool of namespace lab asks for DHCP (0.0.0.0): announcers of Berth ask no server yet, and a Service waits for one of kube-vip
";
    assert_eq!(text(pools, None), expected);
}

#[test]
fn every_bad_key_is_named_with_what_follows_from_it() {
    let pools = data([
        ("cidr-global", "192.0.2.0/28"),
        ("cidr-shop", "198.51.100.0/33"),
        ("interface-shop", "a name of the LAN"),
        ("quota-blog", "many"),
        ("search-ordre", "desc"),
        ("pins-shop", "pools"),
        ("pins-global", "none"),
        ("namespace-quota", "few"),
    ]);
    let expected = "\
POOL    FAMILY  SIZE  FREE
global  IPv4      16    15

7 problems:
  key `cidr-shop`: value `198.51.100.0/33` is not accepted: `198.51.100.0/33` is neither a prefix, a first-last range nor an address; accepted is a comma list of prefixes (192.0.2.0/24), ranges (192.0.2.10-192.0.2.20) and addresses, IPv4 or IPv6; so the pool of namespace shop hands out nothing
  key `interface-shop`: value `a name of the LAN` is not accepted: it has 17 characters; accepted is the name of a network interface, at most 15 characters, or auto; so the key counts as absent
  key `namespace-quota`: value `few` is not accepted: it is no whole number; accepted is a number of addresses, 0 or more; so a namespace without a `quota-` of its own gets nothing
  key `pins-global`: value `none` is not accepted: `none` is neither a prefix, a first-last range nor an address; accepted is any, pool, or a comma list of prefixes, ranges and addresses that are accepted besides those of the pool; so a namespace without a `pins-` of its own may ask for no address
  key `pins-shop`: value `pools` is not accepted: `pools` is neither a prefix, a first-last range nor an address; accepted is any, pool, or a comma list of prefixes, ranges and addresses that are accepted besides those of the pool; so namespace shop may ask for no address
  key `quota-blog`: value `many` is not accepted: it is no whole number; accepted is a number of addresses, 0 or more; so the pool of namespace blog hands out nothing
  key \"search-ordre\" means nothing to Berth; accepted are cidr-, range-, exclude-, drain-, pins-, allow-share- and interface- followed by global or a namespace, quota-, overflow- and share-with- followed by a namespace, namespace-quota, search-order, skip-end-ips-in-cidr, avoid-buggy-ips and reuse-delay
";
    assert_eq!(text(pools, None), expected);
}

#[test]
fn an_unreadable_exclude_for_everybody_stops_every_pool() {
    let pools = data([("cidr-shop", "192.0.2.0/24"), ("exclude-global", "192.0.2.1-")]);
    let review = review(&pools, None);
    let said: Vec<_> = review.problems().map(ToString::to_string).collect();
    assert!(said.len() == 1 && said[0].ends_with("so no pool hands out anything"), "{said:?}");
}

#[test]
fn pools_that_overlap_are_named_unless_one_leaves_the_addresses_out() {
    let pools = [("cidr-global", "192.0.2.0/24"), ("range-shop", "192.0.2.10-192.0.2.20")];
    let expected = "\
POOL    FAMILY  SIZE  FREE
global  IPv4     256   254
shop    IPv4      11    11

1 problem:
  192.0.2.10-192.0.2.20 would be handed out by the global pool and the pool of namespace shop: leave it to one of them
";
    assert_eq!(text(closed(data(pools)), None), expected);
    let [global, shop] = pools;
    let left_out = closed(data([global, shop, ("drain-global", "192.0.2.8/29,192.0.2.16/29")]));
    assert_eq!(review(&left_out, None).findings, []);
}

#[test]
fn addresses_that_no_host_can_have_are_named() {
    let pools = data([
        ("cidr-global", "127.0.0.0/30,192.0.2.0/30"),
        ("range-shop", "223.255.255.254-224.0.0.9"),
        ("skip-end-ips-in-cidr", "true"),
    ]);
    let pools = closed(pools);
    let expected = "\
POOL    FAMILY  SIZE  FREE
global  IPv4       8     2
shop    IPv4      12     1

2 problems:
  127.0.0.0/30 in the global pool is never given out: it belongs to the loopback network (RFC 1122)
  224.0.0.0-224.0.0.9 in the pool of namespace shop is never given out: it belongs to multicast (RFC 1112)
";
    assert_eq!(text(pools, None), expected);
}

#[test]
fn a_configmap_without_a_pool_serves_nobody() {
    let expected =
        "1 problem:\n  no key `cidr-` or `range-` fills a pool: nobody gets an address\n";
    assert_eq!(text(data([("search-order", "desc")]), None), expected);
}

#[test]
fn against_a_cluster_the_fate_of_each_address_is_told() {
    let cluster = Cluster {
        live: Some(data([
            ("range-global", "192.0.2.1-192.0.2.30"),
            ("cidr-shop", "198.51.100.0/28"),
        ])),
        assigned: vec![
            holding("blog/a", "192.0.2.1"),
            holding("blog/b", "192.0.2.9"),
            holding("blog/c", "192.0.2.10"),
            holding("blog/d", "192.0.2.20"),
            holding("blog/e", "203.0.113.7"),
            holding("shop/web", "198.51.100.4"),
        ],
        reserved: node("worker-1", "192.0.2.2"),
        ..Cluster::default()
    };
    let pools = data([
        ("range-global", "192.0.2.1-192.0.2.15"),
        ("exclude-global", "192.0.2.9"),
        ("drain-global", "192.0.2.10-192.0.2.15"),
        ("cidr-shop", "198.51.100.0/28 "),
        ("quota-shop", "1"),
    ]);
    let pools = closed(pools);
    let expected = "\
POOL    FAMILY  SIZE  USED  FREE
global  IPv4      15     3     6
shop    IPv4      16     1    14

6 addresses assigned; every one stays where it is
2 problems:
  192.0.2.2 in the global pool is never given out: it belongs to node worker-1
  192.0.2.20 of Service blog/d would be outside the global pool: it stays until it is released
4 notes:
  192.0.2.9 of Service blog/b is in `exclude-global`: it stays until it is released
  192.0.2.10 of Service blog/c drains from the global pool: it stays until it is released
  no pool has 203.0.113.7: what was asked for, or held before, stays until it is released
  namespace shop holds 1 of the 1 addresses that `quota-shop` allows: it gets no more
";
    assert_eq!(text(pools, Some(&cluster)), expected);
}

#[test]
fn a_claim_knows_its_pool_better_than_its_namespace_does() {
    let claimed = Holding { pool: Some(Scope::Global), ..holding("shop/web", "192.0.2.1") };
    let cluster = Cluster { assigned: vec![claimed], ..Cluster::default() };
    let pools = data([("cidr-global", "192.0.2.128/25"), ("cidr-shop", "192.0.2.0/25")]);
    let said: Vec<_> = review(&closed(pools), Some(&cluster)).findings;
    assert!(matches!(&said[..], [Finding::Outside(_, _, Scope::Global)]), "{said:?}");
}

#[test]
fn a_bad_edit_leaves_the_value_of_the_cluster_in_force() {
    let live = data([("cidr-global", "192.0.2.0/24"), ("cidr-shop", "oops")]);
    let cluster = Cluster {
        live: Some(live),
        assigned: vec![holding("blog/a", "192.0.2.1")],
        ..Cluster::default()
    };
    let pools =
        data([("cidr-global", "192.0.2.0/24,"), ("cidr-shop", "oops"), ("quota-blog", "-1")]);
    assert!(
        review(&pools, Some(&cluster))
            .problems()
            .all(|finding| !matches!(finding, Finding::Outside(..)))
    );
    let pools = data([("cidr-global", "192.0.2.0/240"), ("cidr-shop", "oops")]);
    let said: Vec<_> = review(&pools, Some(&cluster)).problems().map(ToString::to_string).collect();
    assert!(said.len() == 2, "{said:?}");
    assert!(said[0].ends_with("the value that the cluster has stays in force"), "{said:?}");
    assert!(said[1].ends_with("so the pool of namespace shop hands out nothing"), "{said:?}");
}

#[test]
fn an_address_that_two_have_and_one_that_a_node_has_are_problems() {
    let sharing = |ports: &[u16]| {
        let ports = ports.iter().map(|port| (Protocol::Tcp, *port)).collect();
        Some(Sharing { ports, policy: TrafficPolicy::Cluster })
    };
    let shared = |owner, port| Holding { sharing: sharing(&[port]), ..holding(owner, "192.0.2.5") };
    let cluster = Cluster {
        live: None,
        assigned: vec![
            holding("blog/a", "192.0.2.1"),
            holding("blog/b", "192.0.2.1"),
            holding("shop/c", "192.0.2.1"),
            holding("shop/d", "192.0.2.9"),
            shared("shop/http", 80),
            shared("shop/https", 443),
        ],
        reserved: node("worker-1 (its interfaces)", "192.0.2.9"),
        ..Cluster::default()
    };
    let pools = closed(data([("range-global", "192.0.2.1-192.0.2.7")]));
    let expected = "\
POOL    FAMILY  SIZE  USED  FREE
global  IPv4       7     2     5

3 addresses assigned; every one stays where it is
2 problems:
  192.0.2.1 is held by Service blog/a and Service blog/b and Service shop/c at once: nothing is moved, change all but one
  192.0.2.9 of Service shop/d belongs to node worker-1 (its interfaces)
";
    assert_eq!(text(pools, Some(&cluster)), expected);
}

#[test]
fn what_a_node_lists_because_it_answers_for_it_is_noted_and_no_problem() {
    let cluster = Cluster {
        live: None,
        assigned: vec![holding("shop/web", "192.0.2.2")],
        reserved: node("worker-1", "192.0.2.2"),
        ..Cluster::default()
    };
    let pools = closed(data([("range-global", "192.0.2.1-192.0.2.7")]));
    let expected = "\
POOL    FAMILY  SIZE  USED  FREE
global  IPv4       7     1     6

1 address assigned; every one stays where it is
no problem found
1 note:
  192.0.2.2 of Service shop/web is listed by node worker-1, as by one that answers for it; nobody else gets it
";
    assert_eq!(text(pools, Some(&cluster)), expected);
}

#[test]
fn what_is_open_is_noted_and_no_problem() {
    let expected = "\
POOL    FAMILY  SIZE  FREE
global  IPv4       2     2

no problem found
2 notes:
  `pins-global` is not set, or any: whoever may edit a Service may ask for any address that nobody has, also outside all pools; `pool` closes that
  `namespace-quota` is not set: a namespace without a `quota-` of its own may use up a pool that others share
";
    let pool = ("cidr-global", "192.0.2.8/31");
    assert_eq!(text(data([pool]), None), expected);
    let notes = |more: [(&str, &str); 2]| review(&data([pool, more[0], more[1]]), None).findings;
    let shop = [("pins-shop", "pool"), ("quota-shop", "2")];
    let all = Finding::OpenPins(Scope::Global);
    assert_eq!(notes(shop), [all.clone(), Finding::NoQuota]);
    assert_eq!(notes([("pins-global", "any"), ("namespace-quota", "2")]), [all]);
    let of_shop = Finding::OpenPins(Scope::of("shop"));
    assert_eq!(notes([("pins-global", "pool"), ("pins-shop", "any")]), [of_shop, Finding::NoQuota]);
    assert_eq!(notes([("pins-global", "192.0.2.0/24"), ("namespace-quota", "2")]), []);
}

#[test]
fn what_is_written_for_all_and_is_only_a_namespaces_is_a_problem() {
    for (key, value) in
        [("quota-global", "10"), ("overflow-global", "none"), ("share-with-global", "shop")]
    {
        let review = review(&closed(data([("cidr-global", "192.0.2.8/31"), (key, value)])), None);
        let problems: Vec<String> = review.problems().map(ToString::to_string).collect();
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert!(problem.starts_with(&format!("`{key}` concerns only a namespace")), "{problem}");
    }
}

#[test]
fn what_is_assigned_and_in_no_pool_is_noted() {
    let assigned = vec![holding("shop/a", "192.0.2.9"), holding("shop/b", "198.51.100.8")];
    let cluster = Cluster { assigned, ..Cluster::default() };
    let review = review(&closed(data([("cidr-global", "192.0.2.8/31")])), Some(&cluster));
    let findings: Vec<String> = review.findings.iter().map(ToString::to_string).collect();
    assert_eq!(review.problems().count(), 0);
    let [note] = &findings[..] else { panic!("{findings:?}") };
    assert!(note.starts_with("no pool has 198.51.100.8:"), "{note}");
}

#[test]
fn namespaces_that_share_an_address_and_do_not_name_each_other_are_noted() {
    let shared = |owner, port| {
        let ports = [(Protocol::Tcp, port)].into();
        let sharing = Some(Sharing { ports, policy: TrafficPolicy::Cluster });
        Holding { sharing, ..holding(owner, "192.0.2.5") }
    };
    let assigned = vec![shared("blog/a", 80), shared("shop/b", 443)];
    let cluster = Cluster { assigned, ..Cluster::default() };
    let pools = data([("cidr-global", "192.0.2.0/29"), ("allow-share-global", "true")]);
    let review = |pools: Data| {
        let review = review(&closed(pools), Some(&cluster));
        assert_eq!(review.problems().count(), 0);
        review.findings.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let note = "192.0.2.5 is shared by the namespaces blog, shop, which do not name each other in `share-with-`: they keep it";
    assert_eq!(review(pools.clone()), [note]);
    let each = data([("share-with-blog", "shop"), ("share-with-shop", "blog")]);
    assert_eq!(review(pools.into_iter().chain(each).collect()), [""; 0]);
}

#[test]
fn where_no_node_tells_its_addresses_the_namespace_that_was_looked_in_is_named() {
    let pools =
        data([("cidr-global", "192.0.2.0/24"), ("pins-global", "pool"), ("namespace-quota", "2")]);
    let of = |untold: Option<&str>| {
        let cluster = Cluster { untold: untold.map(str::to_owned), ..Cluster::default() };
        review(&pools, Some(&cluster))
    };
    assert_eq!(of(None).findings, []);
    let review = of(Some("nowhere"));
    assert_eq!(review.problems().count(), 0, "a cluster may have no announcer yet");
    let said = review.to_string();
    assert!(
        said.contains("by a Lease in namespace nowhere") && said.contains("--leases"),
        "{said}"
    );
}

/// ai-platform#8: eight addresses below the one that was written were given out, too.
#[test]
fn a_network_that_is_named_by_an_address_inside_it_is_noted() {
    let pools = data([("cidr-finance", "192.168.0.200/29,192.168.0.230/29")]);
    let said = text(closed(pools), None);
    let note = "key `cidr-finance`: 192.168.0.230/29 is all of 192.168.0.224/29; where no more than what begins at 192.168.0.230 was meant, write a range";
    assert!(
        said.contains(note) && said.contains("no problem found") && said.contains("1 note:"),
        "{said}"
    );
}
