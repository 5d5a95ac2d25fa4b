//! Addresses that the network gives: a node offers them, and they are claimed as any other.

use std::time::Duration;

use berth_index::Source;
use berth_index::intake::{Change, Host};

use crate::cluster::{Lab, ip, service};

/// What the network gave `node` for Services, as its Lease says.
fn offer(lab: &mut Lab, node: &str, offers: &[(&str, &str)]) {
    let uid = |name: &str| lab.cluster.services[&crate::cluster::key(name)].uid.clone();
    let offers = offers.iter().map(|(name, address)| (uid(name), ip(address))).collect();
    lab.show(Change::Host(Box::new(Host { node: node.to_owned(), offers, ..Host::default() })));
    lab.settle();
}

fn dhcp() -> Lab {
    let mut lab = Lab::with_pools([
        ("cidr-global", "0.0.0.0/32"),
        ("cidr-other", "192.0.2.128/25"),
        ("exclude-global", "192.0.2.66"),
    ]);
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "0.0.0.0");
    lab
}

#[test]
fn an_offer_is_claimed_and_the_service_goes_on_asking_for_dhcp() {
    let mut lab = dhcp();
    lab.cost();
    offer(&mut lab, "a", &[("web", "192.0.2.7")]);
    assert_eq!(lab.cluster.holder("192.0.2.7").as_deref(), Some("web"));
    assert_eq!(lab.cluster.addresses("web"), "0.0.0.0");
    lab.cost();
    // Another owner is given the same, and one that was there before keeps its own.
    offer(&mut lab, "b", &[("web", "192.0.2.7")]);
    offer(&mut lab, "a", &[]);
    offer(&mut lab, "a", &[("web", "192.0.2.3")]);
    assert_eq!(lab.cluster.holder("192.0.2.7").as_deref(), Some("web"));
    assert_eq!(lab.cost(), 0);
    offer(&mut lab, "b", &[]);
    assert_eq!(lab.cluster.holder("192.0.2.3").as_deref(), Some("web"));
    lab.pass(Duration::from_secs(600));
    assert_eq!(lab.cluster.holder("192.0.2.7"), None);
    lab.cluster.delete("web");
    lab.settle();
    assert!(lab.cluster.claims.is_empty());
}

#[test]
fn an_offer_that_is_taken_back_is_released_and_dhcp_goes_on() {
    let mut lab = dhcp();
    offer(&mut lab, "a", &[("web", "192.0.2.7")]);
    let mut lab = lab.restart();
    lab.pools([("cidr-global", "0.0.0.0/32")]);
    let uid = lab.cluster.services[&crate::cluster::key("web")].uid.clone();
    let offers = [(uid, ip("192.0.2.7"))].into();
    lab.show(Change::Host(Box::new(Host { node: "a".to_owned(), offers, ..Host::default() })));
    lab.start();
    assert_eq!(lab.cluster.holder("192.0.2.7").as_deref(), Some("web"), "over a restart");
    // A list anew in which the node is not.
    lab.show(Change::Listing(Source::Hosts));
    lab.show(Change::Listed(Source::Hosts));
    lab.pass(Duration::from_secs(600));
    assert!(lab.cluster.claims.is_empty());
    assert_eq!(lab.cluster.addresses("web"), "0.0.0.0");
}

#[test]
fn an_offer_is_asked_for_as_any_pin_is_and_what_is_refused_is_told() {
    let mut lab = dhcp();
    lab.create(service("second"));
    offer(&mut lab, "a", &[("web", "192.0.2.7")]);
    for (address, reason) in [
        ("192.0.2.130", "AddressReserved"),
        ("192.0.2.66", "AddressReserved"),
        ("127.0.0.1", "AddressReserved"),
        ("192.0.2.7", "AddressInUse"),
    ] {
        offer(&mut lab, "b", &[("second", address)]);
        assert_ne!(lab.cluster.holder(address).as_deref(), Some("second"), "{address}");
        let told = lab.told.iter().rfind(|(about, ..)| about == "second").unwrap();
        assert!(told.1 == reason && told.2.contains(address), "{told:?}");
        assert_eq!(lab.cluster.addresses("second"), "0.0.0.0", "DHCP goes on");
    }
    lab.pools([("cidr-global", "0.0.0.0/32"), ("quota-shop", "1")]);
    offer(&mut lab, "b", &[("second", "192.0.2.8")]);
    assert_eq!(lab.cluster.holder("192.0.2.8"), None);
}

#[test]
fn who_does_not_ask_for_dhcp_is_given_nothing_by_an_offer() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29")]);
    lab.create(service("web"));
    offer(&mut lab, "a", &[("web", "192.0.2.7")]);
    assert_eq!(lab.cluster.holder("192.0.2.7"), None);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    lab.edit("web", |web| web.annotated = Some("192.0.2.5".to_owned()));
    offer(&mut lab, "a", &[("web", "192.0.2.5")]);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.5", "it was asked for by hand");
}
