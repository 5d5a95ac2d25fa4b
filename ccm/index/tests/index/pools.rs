use berth_api::reason;
use berth_index::Source;
use berth_index::intake::Change;
use berth_index::service::Service;
use berth_ipam::Range;

use crate::cluster::{Lab, service};

#[test]
fn a_missing_configmap_is_named_and_served_from_as_soon_as_it_is_there() {
    let mut lab = Lab::around(Default::default());
    lab.start();
    lab.create(service("web"));
    assert_eq!(lab.cluster.reason("web"), Some((false, "NoPool".to_owned())));
    assert!(
        lab.told[0].2.contains("ConfigMap kube-system/kubevip does not exist"),
        "{:?}",
        lab.told
    );
    lab.pools([("cidr-global", "192.0.2.0/29")]);
    lab.settle();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn bad_keys_are_told_once_each_and_stop_nothing_else() {
    let mut lab = Lab::with_pools([
        ("cidr-global", "192.0.2.0/29"),
        ("cidr-one", "192.0.2.0/33"),
        ("range-two", "192.0.2.9-192.0.2.1"),
        ("cdir-three", "192.0.2.0/24"),
    ]);
    assert_eq!(lab.told("kubevip", reason::INVALID_KEY), 2);
    assert_eq!(lab.told("kubevip", reason::UNKNOWN_KEY), 1);
    assert_eq!(lab.index.invalid_keys(), 2);
    lab.create(service("web"));
    lab.pools([("cidr-global", "192.0.2.0/29 oops"), ("cidr-one", "192.0.2.0/33")]);
    lab.create(service("later"));
    assert_eq!(lab.cluster.addresses("later"), "192.0.2.2", "the last good value stays");
    assert_eq!(lab.told("kubevip", reason::INVALID_KEY), 3);
}

#[test]
fn a_key_that_a_template_left_empty_is_told_and_stops_nothing() {
    let mut lab = Lab::with_pools([
        ("cidr-global", ""),
        ("range-global", "192.0.2.1-192.0.2.2"),
        ("exclude-global", ""),
        ("range-blog", ""),
    ]);
    assert_eq!(lab.told("kubevip", reason::EMPTY_KEY), 3);
    assert_eq!(lab.told("kubevip", reason::INVALID_KEY), 0);
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    let mut own = Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("range-shop", "")]);
    own.create(service("web"));
    assert_eq!(own.cluster.reason("web"), Some((false, "FamilyUnavailable".to_owned())));
}

#[test]
fn a_pool_that_shrinks_keeps_what_is_assigned_and_says_so() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29")]);
    lab.create(service("web"));
    lab.cost();
    lab.pools([("cidr-global", "198.51.100.0/29")]);
    lab.settle();
    assert_eq!(lab.cost(), 1, "the condition");
    assert_eq!(lab.cluster.reason("web"), Some((true, "OutsidePool".to_owned())));
    assert_eq!(lab.told("web", reason::OUTSIDE_POOL), 1);
    lab.show(Change::PoolsGone);
    lab.settle();
    assert_eq!(lab.cost(), 0);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    lab.create(service("after"));
    assert_eq!(
        lab.cluster.addresses("after"),
        "198.51.100.1",
        "a deleted ConfigMap changes nothing"
    );
}

#[test]
fn what_the_cluster_itself_uses_is_never_given_out() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29,198.51.100.0/24")]);
    let uses = |name: &str, range: &str| {
        let set = range.split_whitespace().map(|range| range.parse::<Range>().unwrap()).collect();
        Change::Reserved(Source::Nodes, vec![(name.to_owned(), set)])
    };
    lab.show(uses("node worker", "192.0.2.1 2001:db8::1"));
    lab.show(uses("the pod network of node worker", "198.51.100.0/25"));
    lab.create(service("web"));
    lab.create(Service { annotated: Some("192.0.2.1".to_owned()), ..service("greedy") });
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    assert_eq!(lab.cluster.reason("greedy"), Some((false, "AddressReserved".to_owned())));
    assert_eq!(lab.told("kubevip", reason::RESERVED_OVERLAP), 2);
    lab.show(Change::Listing(Source::Nodes));
    lab.show(uses("the pod network of node worker", "198.51.100.0/25"));
    lab.show(Change::Listed(Source::Nodes));
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("greedy".to_owned()), "the node is gone");
}

#[test]
fn addresses_that_no_host_can_have_are_reported_and_the_rest_of_the_pool_serves() {
    let mut lab = Lab::with_pools([("range-global", "223.255.255.250-224.0.0.5")]);
    assert_eq!(lab.told("kubevip", reason::RESERVED_OVERLAP), 1);
    assert!(lab.told.iter().any(|(.., note)| note.contains("multicast")), "{:?}", lab.told);
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "223.255.255.250");
    let dhcp = Lab::with_pools([("cidr-global", "0.0.0.0/32")]);
    assert_eq!(dhcp.told("kubevip", reason::RESERVED_OVERLAP), 0, "a marker is no address");
}

#[test]
fn overlapping_namespace_pools_never_give_one_address_twice() {
    let mut lab = Lab::with_pools([("cidr-one", "192.0.2.0/30"), ("cidr-two", "192.0.2.0/30")]);
    for name in ["one/a", "two/a", "one/b", "two/b"] {
        lab.create(service(name));
    }
    assert_eq!(lab.cluster.claims.len(), 3);
    assert_eq!(lab.index.waiting()["PoolExhausted"], 1);
}
