use berth_api::reason;
use berth_index::binding::Binding;
use berth_index::claim::Basis;
use berth_index::intake::Change;
use berth_index::service::{Service, Standing};
use berth_index::write::Write;
use berth_index::{MAY_BE_VIPS, Source};
use berth_ipam::{Families, Family, Range};

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Cluster, Lab, ip, key, service};

/// A Service as the stock provider and announcer leave it.
fn served(name: &str, address: &str) -> Service {
    Service {
        annotated: Some(address.to_owned()),
        deprecated: Some(address.to_owned()),
        labelled: true,
        published: vec![ip(address)],
        ..service(name)
    }
}

fn stock(services: impl IntoIterator<Item = Service>) -> Lab {
    let mut cluster = Cluster::default();
    services.into_iter().for_each(|service| _ = cluster.create(service));
    let mut lab = Lab::around(cluster);
    lab.pools([("cidr-global", "192.0.2.0/29")]);
    lab
}

#[test]
fn addresses_of_the_stock_provider_are_claimed_before_any_is_given_out() {
    let waiting = Service { created: 0, ..service("aa-first-in-line") };
    let others = ["192.0.2.1", "192.0.2.2", "203.0.113.7"].map(|address| Service {
        created: 5,
        ..served(&format!("old-{}", address.replace('.', "-")), address)
    });
    let mut lab = stock([waiting].into_iter().chain(others));
    lab.start();
    let claims: Vec<_> = lab.writes.iter().take(3).collect();
    assert!(claims.iter().all(|write| matches!(write, Write::CreateClaim { owner, .. } if owner.name != "aa-first-in-line")));
    assert_eq!(lab.cluster.addresses("aa-first-in-line"), "192.0.2.3");
    assert_eq!(lab.cluster.holder("203.0.113.7"), Some("old-203-0-113-7".to_owned()));
    assert_eq!(lab.cluster.addresses("old-192-0-2-1"), "192.0.2.1");
}

#[test]
fn only_what_a_status_showed_is_marked_as_older_than_its_claim() {
    let asked = Service { published: Vec::new(), ..served("asked", "192.0.2.1") };
    let mut lab = stock([asked, served("served", "192.0.2.2")]);
    lab.start();
    lab.create(service("new"));
    let bases = lab.writes.iter().filter_map(|write| match write {
        Write::CreateClaim { owner, basis, .. } => Some((owner.name.as_str(), *basis)),
        _ => None,
    });
    let expected = [("served", Basis::Imported), ("asked", Basis::Pinned), ("new", Basis::Given)];
    assert_eq!(bases.collect::<Vec<_>>(), expected);
}

#[test]
fn a_conflict_that_already_exists_is_told_to_both_and_moves_nobody() {
    let elder = Service { created: 1, ..served("elder", "192.0.2.1") };
    let younger = Service { created: 2, ..served("younger", "192.0.2.1") };
    let mut lab = stock([younger, elder]);
    lab.start();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("elder".to_owned()));
    for name in ["elder", "younger"] {
        assert_eq!(lab.told(name, reason::ADDRESS_CONFLICT), 1, "{name}");
        assert_eq!(lab.cluster.addresses(name), "192.0.2.1");
    }
    assert_eq!(lab.cluster.reason("younger"), Some((false, "AddressConflict".to_owned())));
    // When the user resolves it, it is resolved.
    lab.edit("younger", |younger| younger.annotated = Some("192.0.2.4".to_owned()));
    assert_eq!(lab.cluster.holder("192.0.2.4"), Some("younger".to_owned()));
    assert_eq!(lab.cluster.reason("younger"), Some((true, "AddressAllocated".to_owned())));
}

#[test]
fn a_conflict_ends_when_the_other_goes() {
    let mut lab = stock([
        Service { created: 1, ..served("elder", "192.0.2.1") },
        Service { created: 2, ..served("younger", "192.0.2.1") },
    ]);
    lab.pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
    lab.start();
    lab.cluster.edit("elder", |elder| elder.published.clear());
    lab.cluster.delete("elder");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("younger".to_owned()));
}

#[test]
fn a_restart_changes_nothing() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29")]);
    ["a", "b", "c"].iter().for_each(|name| lab.create(service(name)));
    let before = lab.cluster.clone();
    let mut lab = lab.restart();
    lab.pools([("cidr-global", "198.51.100.0/24")]);
    lab.start();
    assert_eq!(lab.cost(), 3, "each is told that its pool has left");
    assert_eq!(lab.cluster.claims, before.claims);
    for (name, service) in &before.services {
        assert_eq!(lab.cluster.services[name].annotated, service.annotated);
    }
    let before = lab.cluster.clone();
    let mut lab = lab.restart();
    lab.pools([("cidr-global", "198.51.100.0/24")]);
    lab.start();
    assert_eq!(lab.cost(), 0);
    assert_eq!(lab.cluster, before);
    assert!(lab.told.is_empty(), "{:?}", lab.told);
}

#[test]
fn a_pin_that_was_made_while_nobody_led_is_a_wish_and_no_fact() {
    let mut lab = stock([Service { annotated: Some("192.0.2.7".to_owned()), ..service("new") }]);
    lab.pools([("cidr-global", "192.0.2.0/29"), ("exclude-global", "192.0.2.7")]);
    lab.start();
    assert_eq!(lab.cluster.reason("new"), Some((false, "AddressReserved".to_owned())));
    assert_eq!(lab.cluster.services[&key("new")].annotated.as_deref(), Some("192.0.2.7"));
}

#[test]
fn who_is_served_by_the_field_alone_gets_no_annotation_for_which_kube_vip_would_let_it_go() {
    let deprecated = Some("192.0.2.6".to_owned());
    let mut lab =
        stock([Service { deprecated, published: vec![ip("192.0.2.6")], ..service("legacy") }]);
    lab.start();
    let legacy = |lab: &Lab| lab.cluster.services[&key("legacy")].clone();
    assert_eq!((legacy(&lab).annotated, legacy(&lab).labelled), (None, true));
    assert!(lab.cluster.claims.contains_key(&ip("192.0.2.6")));
    assert_eq!(lab.cost(), 2);
    lab.edit("legacy", |service| service.published.clear());
    assert_eq!(legacy(&lab).annotated.as_deref(), Some("192.0.2.6"), "nobody serves it");
}

/// What a tenant can write alone: label, annotation and field, and no status.
fn wished(name: &str, address: &str) -> Service {
    Service { published: Vec::new(), ..served(name, address) }
}

/// Pools and reservations as in a cluster, before anything else is seen.
fn guarded(cluster: Cluster) -> Lab {
    let mut lab = Lab::around(cluster);
    lab.pools([
        ("cidr-global", "192.0.2.0/29"),
        ("cidr-other", "198.51.100.0/29"),
        ("exclude-global", "203.0.113.66"),
        ("quota-poor", "0"),
    ]);
    let reserved = |source, name: &str, ranges: &str| {
        let set = ranges.split(',').map(|range| range.parse::<Range>().unwrap()).collect();
        Change::Reserved(source, vec![(name.to_owned(), set)])
    };
    lab.show(reserved(Source::Nodes, "node worker-1", "10.0.0.5"));
    lab.show(reserved(Source::Nodes, "the pod network of node worker-1", "10.244.1.0/24"));
    lab.show(reserved(Source::ServiceCidrs, "cluster IPs", "10.96.0.0/12"));
    lab.show(reserved(Source::ApiServers, "API server", "10.0.0.1"));
    lab.show(reserved(Source::Hosts, "node worker-1 (its interfaces)", "203.0.113.5"));
    lab.show(reserved(Source::Hosts, "the router of node worker-1", "10.0.0.254"));
    lab.show(reserved(Source::Hosts, &format!("node worker-1 {MAY_BE_VIPS}"), "192.0.2.5"));
    lab
}

/// No rule lets anybody have one of these who has no claim of it.
const FORBIDDEN: [&str; 16] = [
    "10.0.0.1",
    "10.0.0.5",
    "10.0.0.254",
    "203.0.113.5",
    "10.96.0.1",
    "10.244.1.9",
    "127.0.0.1",
    "255.255.255.255",
    "0.0.0.7",
    "224.0.0.5",
    "169.254.169.254",
    "240.0.0.1",
    "fe80::1",
    "fec0::1",
    "::a9fe:a9fe",
    "64:ff9b::a9fe:a9fe",
];

fn with_family(service: Service, address: &str) -> Service {
    Service { families: Families::single(Family::of(ip(address))), ..service }
}

#[test]
fn a_refused_pin_with_our_label_is_refused_after_a_restart_too() {
    let mut lab = guarded(Cluster::default());
    lab.start();
    let others = ["198.51.100.1", "203.0.113.66"];
    let all = || FORBIDDEN.iter().chain(&others).enumerate();
    for (number, address) in all() {
        lab.create(with_family(wished(&format!("greedy-{number}"), address), address));
    }
    lab.create(wished("poor/greedy", "203.0.113.8"));
    for _ in 0..2 {
        for (number, address) in all() {
            let name = format!("greedy-{number}");
            let told = lab.cluster.reason(&name);
            assert_eq!(told, Some((false, "AddressReserved".to_owned())), "{address}");
            assert_eq!(lab.cluster.holder(address), None, "{address}");
        }
        let told = lab.cluster.reason("poor/greedy");
        assert_eq!(told, Some((false, "QuotaExceeded".to_owned())));
        assert!(lab.cluster.claims.is_empty());
        let waiting = lab.index.waiting();
        assert_eq!((waiting["AddressReserved"], waiting["QuotaExceeded"]), (18, 1));
        lab = guarded(lab.cluster);
        lab.start();
        assert_eq!(lab.cost(), 0);
    }
}

#[test]
fn what_a_status_shows_is_adopted_but_for_what_nobody_can_have() {
    let mut cluster = Cluster::default();
    for (number, address) in FORBIDDEN.iter().enumerate() {
        let name = format!("thief-{number}");
        cluster.create(with_family(served(&name, address), address));
    }
    for (name, address) in [
        ("in-the-pool-of-others", "198.51.100.1"),
        ("excluded", "203.0.113.66"),
        ("poor/served", "203.0.113.8"),
        ("left-by-kube-vip", "192.0.2.5"),
    ] {
        cluster.create(served(name, address));
    }
    let mut lab = guarded(cluster);
    lab.start();
    for (number, address) in FORBIDDEN.iter().enumerate() {
        let told = lab.cluster.reason(&format!("thief-{number}"));
        assert_eq!(told, Some((false, "AddressReserved".to_owned())), "{address}");
        assert_eq!(lab.told(&format!("thief-{number}"), "AddressReserved"), 1, "{address}");
    }
    assert_eq!(
        lab.cluster.claims.keys().map(ToString::to_string).collect::<Vec<_>>(),
        ["192.0.2.5", "198.51.100.1", "203.0.113.8", "203.0.113.66"]
    );
}

#[test]
fn what_is_claimed_stays_with_its_holder_whoever_reserves_it() {
    let mut cluster = Cluster::default();
    let owner = cluster.create(served("web", "10.0.0.1")).owner();
    cluster.claim("10.0.0.1", owner);
    let mut lab = guarded(cluster);
    lab.start();
    assert_eq!(lab.cluster.holder("10.0.0.1"), Some("web".to_owned()));
    assert_eq!(lab.cluster.reason("web"), None);
}

#[test]
fn what_was_given_and_never_announced_is_given_to_nobody_else() {
    let mut cluster = Cluster::default();
    cluster.create(Service { created: 0, ..service("aa-first-in-line") });
    for number in 1..=4 {
        let name = format!("given-{number}");
        cluster.create(Service { created: 9, ..wished(&name, &format!("192.0.2.{number}")) });
    }
    cluster.create(Service { created: 9, ..wished("outside", "203.0.113.7") });
    cluster.create(Service { created: 10, ..wished("late", "192.0.2.1") });
    let mut lab = guarded(cluster);
    lab.start();
    for number in 1..=4 {
        let address = format!("192.0.2.{number}");
        assert_eq!(lab.cluster.holder(&address), Some(format!("given-{number}")));
    }
    assert_eq!(lab.cluster.holder("203.0.113.7"), Some("outside".to_owned()));
    assert_eq!(lab.cluster.addresses("aa-first-in-line"), "192.0.2.6");
    assert_eq!(lab.cluster.reason("late"), Some((false, "AddressInUse".to_owned())));
}

#[test]
fn an_edit_while_nobody_led_is_a_request_to_move_from_what_the_status_shows() {
    let moves = |annotated: &str| Service {
        annotated: Some(annotated.to_owned()),
        deprecated: Some(annotated.to_owned()),
        ..served("web", "192.0.2.1")
    };
    let mut cluster = Cluster::default();
    cluster.create(moves("10.0.0.1"));
    let mut lab = guarded(cluster);
    lab.start();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    assert_eq!((lab.cluster.holder("10.0.0.1"), lab.told("web", "AddressReserved")), (None, 1));

    let mut cluster = Cluster::default();
    cluster.create(moves("192.0.2.4"));
    let mut lab = guarded(cluster);
    lab.start();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()), "it is still answered for");
    lab.cluster.announce("web");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
    assert_eq!(lab.cluster.holder("192.0.2.4"), Some("web".to_owned()));
}

#[test]
fn who_is_to_be_left_alone_keeps_what_its_status_shows_and_gets_nothing_by_its_label() {
    let ignored = |service| Service { standing: Standing::Ignored, ..service };
    let mut cluster = Cluster::default();
    cluster.create(ignored(served("served", "192.0.2.1")));
    cluster.create(ignored(wished("wishes", "192.0.2.2")));
    cluster.create(ignored(wished("greedy", "10.0.0.1")));
    cluster.create(ignored(served("thief", "10.0.0.1")));
    let foreign = Service { standing: Standing::Foreign, ..served("foreign", "192.0.2.3") };
    cluster.create(Service { labelled: false, ..foreign });
    // The status of another's, whom nobody asked for an address of his own choice.
    let of_others = Service { annotated: None, deprecated: None, ..served("other", "203.0.113.9") };
    cluster.create(Service { labelled: false, ..of_others });
    let mut lab = guarded(cluster);
    lab.start();
    let claims: Vec<_> = lab.cluster.claims.keys().map(ToString::to_string).collect();
    assert_eq!(claims, ["192.0.2.1", "192.0.2.2"], "the second is given to who has none");
    assert_eq!(lab.cluster.holder("192.0.2.2"), Some("other".to_owned()));
    assert_eq!(lab.told("thief", "AddressReserved"), 1);
}

#[test]
fn a_binding_keeps_what_its_status_shows_but_for_what_nobody_can_have() {
    let mut cluster = Cluster::default();
    for (name, address) in
        [("vm", "203.0.113.7"), ("thief", "10.0.0.1"), ("cloud", "169.254.169.254")]
    {
        cluster.run(machine(name, "node", &["10.244.1.5"]));
        cluster.bind(Binding { eips: vec![ip(address)], ..binding(name, name) });
    }
    let mut lab = guarded(cluster);
    lab.start();
    assert_eq!(lab.cluster.holder("203.0.113.7"), Some("vm".to_owned()));
    for (name, address) in [("thief", "10.0.0.1"), ("cloud", "169.254.169.254")] {
        assert_eq!(lab.cluster.holder(address), None);
        assert_eq!(lab.told(name, "AddressReserved"), 1, "{name}");
    }
}
