//! What a namespace may have, of whatever kind the claimant is.

use std::time::Duration;

use berth_api::reason;
use berth_index::binding::Binding;
use berth_index::intake::{Change, Host};
use berth_index::service::Service;

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Cluster, Lab, ip, key, service};

const POOL: (&str, &str) = ("range-global", "192.0.2.1-192.0.2.9");

fn asking(name: &str, address: &str) -> Service {
    Service { annotated: Some(address.to_owned()), ..service(name) }
}

fn refused(reason: &str) -> Option<(bool, String)> {
    Some((false, reason.to_owned()))
}

#[test]
fn an_address_outside_of_what_may_be_asked_for_is_refused_to_services_bindings_and_labels_alike() {
    let mut cluster = Cluster::default();
    cluster.create(Service { labelled: true, ..asking("labelled", "8.8.8.8") });
    let published = vec![ip("203.0.113.1")];
    let deprecated = Some("203.0.113.1".to_owned());
    let served = asking("served", "203.0.113.1");
    cluster.create(Service { labelled: true, published, deprecated, ..served });
    let mut lab = Lab::around(cluster);
    lab.pools([POOL, ("pins-global", "pool")]);
    lab.start();
    lab.create(asking("web", "8.8.8.8"));
    lab.create(Service { deprecated: Some("8.8.8.8".to_owned()), ..service("field") });
    for name in ["labelled", "web", "field"] {
        assert_eq!(lab.cluster.reason(name), refused("AddressNotAllowed"), "{name}");
        assert_eq!(lab.told(name, "AddressNotAllowed"), 1, "{name}");
    }
    assert_eq!(lab.cluster.holder("8.8.8.8"), None);
    assert_eq!(lab.cluster.holder("203.0.113.1").unwrap(), "served", "what a status shows stays");
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(Binding { pin: Some(ip("8.8.8.8")), ..binding("eip", "vm") });
    assert_eq!(lab.cluster.standing("eip"), "-AddressNotAllowed -NotAllocated");
    // A refused move is told, and what is held stays.
    lab.create(service("plain"));
    lab.edit("plain", |plain| plain.annotated = Some("8.8.8.8".to_owned()));
    assert_eq!(lab.cluster.addresses("plain"), "192.0.2.1");
    assert_eq!(lab.told("plain", "AddressNotAllowed"), 1);
    lab.pools([POOL, ("pins-global", "pool"), ("pins-shop", "8.8.8.0/24")]);
    lab.settle();
    assert_eq!(lab.cluster.holder("8.8.8.8").unwrap(), "field", "of those who wait the first");
}

#[test]
fn what_the_network_gives_is_asked_for_as_any_other() {
    let dhcp = ("cidr-global", "0.0.0.0/32");
    let mut lab = Lab::with_pools([dhcp, ("pins-global", "192.0.2.0/25")]);
    lab.create(service("web"));
    for (given, holder) in [("192.0.2.200", None), ("192.0.2.7", Some("web".to_owned()))] {
        let uid = lab.cluster.services[&key("web")].uid.clone();
        let (node, offers) = ("a".to_owned(), [(uid, ip(given))].into());
        lab.show(Change::Host(Box::new(Host { node, offers, ..Host::default() })));
        lab.settle();
        assert_eq!(lab.cluster.holder(given), holder);
        assert_eq!(lab.cluster.addresses("web"), "0.0.0.0");
    }
    assert_eq!(lab.told("web", "AddressNotAllowed"), 1);
}

#[test]
fn what_rests_counts_against_the_quota_and_a_service_of_the_same_name_is_not_locked_out() {
    let mut lab = Lab::with_pools([POOL, ("namespace-quota", "1")]);
    lab.create(service("web"));
    lab.cluster.delete("web");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
    // Both wait in one pass, and what is hopeless for the one is not so for the other.
    lab.cluster.create(service("another"));
    lab.cluster.create(Service { created: 1, ..service("web") });
    lab.settle();
    assert_eq!(lab.cluster.reason("another"), refused("QuotaExceeded"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.cluster.delete("web");
    lab.settle();
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.cluster.reason("another"), Some((true, reason::ADDRESS_ALLOCATED.to_owned())));
}
