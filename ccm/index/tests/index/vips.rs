//! A node has bound what it answers for, and its kubelet lists that as an address of the node. What is claimed is nobody's own.

use std::time::Duration;

use berth_api::reason;
use berth_index::finalizers::Finalizers;
use berth_index::intake::Change;
use berth_index::service::Service;
use berth_index::{MAY_BE_VIPS, Source};
use berth_ipam::{Families, Family};

use crate::cluster::{Lab, ip, service};

const POOL: (&str, &str) = ("range-global", "192.0.2.1-192.0.2.2,2001:db8::1-2001:db8::2");
const SECOND: Duration = Duration::from_secs(1);

/// What a Node object lists, or its announcer tells.
fn list(lab: &mut Lab, source: Source, name: &str, addresses: &[&str]) {
    let addresses = addresses.iter().map(|text| ip(text)).collect();
    lab.show(Change::Reserved(source, vec![(name.to_owned(), addresses)]));
    lab.settle();
}

fn pinned(name: &str, address: &str) -> Service {
    let families = Families::single(Family::of(ip(address)));
    Service { annotated: Some(address.to_owned()), families, ..service(name) }
}

fn gone(lab: &mut Lab, name: &str) {
    lab.cluster.delete(name);
    lab.settle();
    assert!(!lab.cluster.services.contains_key(&crate::cluster::key(name)));
}

#[test]
fn what_is_claimed_is_no_reservation_of_the_node_that_lists_it() {
    for address in ["192.0.2.1", "2001:db8::1"] {
        let mut lab = Lab::with_pools([POOL]);
        lab.create(pinned("web", address));
        list(&mut lab, Source::Nodes, "node a", &[address, "10.0.0.1"]);
        list(&mut lab, Source::Hosts, &format!("node b {MAY_BE_VIPS}"), &[address]);
        assert_eq!(lab.told("kubevip", reason::RESERVED_OVERLAP), 0, "{address}");
        list(&mut lab, Source::Hosts, "node a (its interfaces)", &[address]);
        assert_eq!(lab.told("kubevip", reason::RESERVED_OVERLAP), 1, "that is the node's own");
    }
}

#[test]
fn whoever_was_served_at_it_gets_it_back_while_a_node_lists_it_still() {
    let mut lab = Lab::with_pools([POOL]);
    lab.create(pinned("web", "192.0.2.1"));
    list(&mut lab, Source::Nodes, "node a", &["192.0.2.1", "10.0.0.1"]);
    gone(&mut lab, "web");
    list(&mut lab, Source::Nodes, "node a", &["192.0.2.1", "10.0.0.1"]);
    lab.create(pinned("web", "192.0.2.1"));
    assert_eq!(lab.cluster.holder("192.0.2.1").as_deref(), Some("web"));
    gone(&mut lab, "web");
    // A node that lists it for longer may have it as its own.
    lab.pass(61 * SECOND);
    lab.create(pinned("other", "192.0.2.1"));
    assert_eq!(lab.cluster.reason("other"), Some((false, "AddressReserved".to_owned())));
    assert_eq!(lab.told("kubevip", reason::RESERVED_OVERLAP), 1);
    list(&mut lab, Source::Nodes, "node a", &["10.0.0.1"]);
    assert_eq!(lab.cluster.holder("192.0.2.1").as_deref(), Some("other"));
}

#[test]
fn it_does_not_matter_what_is_listed_first_when_a_controller_starts() {
    let mut lab = Lab::with_pools([POOL]);
    lab.create(pinned("web", "192.0.2.1"));
    let mut lab = lab.restart();
    lab.pools([POOL]);
    let addresses = [ip("192.0.2.1"), ip("10.0.0.1")].into_iter().collect();
    lab.show(Change::Reserved(Source::Nodes, vec![("node a".to_owned(), addresses)]));
    lab.start();
    assert_eq!(lab.told("kubevip", reason::RESERVED_OVERLAP), 0);
    gone(&mut lab, "web");
    lab.create(pinned("web", "192.0.2.1"));
    assert_eq!(lab.cluster.holder("192.0.2.1").as_deref(), Some("web"));
}

#[test]
fn the_interface_of_a_pool_is_written_beside_a_status_of_another_provider() {
    let with = [POOL, ("interface-global", "eth1")];
    // As the load balancer of k3s shows addresses of nodes.
    let mut lab = Lab::with_pools(with);
    lab.create(Service { published: vec![ip("10.0.0.1")], ..service("web") });
    assert!(lab.cluster.services[&crate::cluster::key("web")].has_interface);
    // Who was served at the address already is left as it is.
    let mut served = service("served");
    (served.annotated, served.published) = (Some("192.0.2.1".to_owned()), vec![ip("192.0.2.1")]);
    for (labelled, published) in [(false, true), (true, false), (true, true)] {
        let mut lab = Lab::with_pools(with);
        let mut served = Service { labelled, ..served.clone() };
        served.finalizers = Finalizers::default();
        served.published.retain(|_| published);
        lab.create(served);
        assert_eq!(lab.cluster.addresses("served"), "192.0.2.1");
        let served = &lab.cluster.services[&crate::cluster::key("served")];
        assert!(!served.has_interface, "{labelled} {published}");
    }
}
