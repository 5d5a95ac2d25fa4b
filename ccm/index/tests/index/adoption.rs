use berth_api::reason;
use berth_index::claim::Basis;
use berth_index::service::Service;
use berth_index::write::Write;

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
    let expected = [("asked", Basis::Given), ("served", Basis::Imported), ("new", Basis::Given)];
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
fn an_old_service_with_the_field_alone_gets_its_annotation() {
    let deprecated = Some("192.0.2.6".to_owned());
    let mut lab =
        stock([Service { deprecated, published: vec![ip("192.0.2.6")], ..service("legacy") }]);
    lab.start();
    assert_eq!(lab.cluster.addresses("legacy"), "192.0.2.6");
    assert_eq!(lab.cost(), 2);
}
