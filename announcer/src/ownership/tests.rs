use std::collections::BTreeSet;

use super::*;
use crate::source::cluster::testing::{service, slice};
use crate::source::cluster::{Cluster, Name};

fn cluster(services: &[(&str, crate::source::cluster::Service)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, service) in services {
        cluster.apply_service(Name::new("d", *name), service.clone());
    }
    cluster
}

fn view(holder: &str) -> View {
    View { holder: Some(holder.to_owned()) }
}

#[test]
fn the_holder_owns_what_it_is_a_candidate_for_and_nobody_else_owns_anything() {
    let some = Candidates::Only(["a".to_owned()].into());
    assert_eq!(elect(&Candidates::Every, &view("a"), None), Some("a"));
    assert_eq!(elect(&some, &view("b"), None), None);
    assert_eq!(elect(&Candidates::none(), &view("a"), Some("a")), None);
    assert_eq!(
        elect(&Candidates::Every, &View::default(), Some("a")),
        None,
        "a last owner is not enough"
    );
}

#[test]
fn every_node_is_a_candidate_while_there_is_an_endpoint_anywhere() {
    let name = Name::new("d", "web");
    let mut cluster = cluster(&[("web", service(&["192.0.2.1"]))]);
    assert!(Candidates::of(&cluster, &name).is_empty());
    slice(&mut cluster, "web", "s1", &["a"]);
    assert!(Candidates::of(&cluster, &name).contains("b"));
}

#[test]
fn only_nodes_with_an_endpoint_are_candidates_for_local_traffic() {
    let name = Name::new("d", "web");
    let mut web = service(&["192.0.2.1"]);
    web.local = true;
    let mut cluster = cluster(&[("web", web.clone())]);
    slice(&mut cluster, "web", "s1", &["a"]);
    assert!(Candidates::of(&cluster, &name).contains("a"));
    assert!(!Candidates::of(&cluster, &name).contains("b"));
    web.without_endpoints = true;
    cluster.apply_service(name.clone(), web);
    assert!(Candidates::of(&cluster, &name).contains("b"), "the annotation lifts it");
}

#[test]
fn services_with_an_address_in_common_are_decided_by_the_lease_of_the_oldest() {
    let mut first = service(&["192.0.2.1"]);
    first.created = "2026-01-01".to_owned();
    let mut second = service(&["192.0.2.1", "2001:db8::1"]);
    second.created = "2026-01-02".to_owned();
    let mut other = service(&["192.0.2.9"]);
    other.lease = Some("shared".to_owned());
    let cluster = cluster(&[("zeta", first), ("alpha", second), ("other", other)]);
    let leases = PerService.leases(&cluster);
    assert_eq!(leases[&Name::new("d", "zeta")], Name::new("d", "kubevip-zeta"));
    assert_eq!(leases[&Name::new("d", "alpha")], Name::new("d", "kubevip-zeta"));
    assert_eq!(leases[&Name::new("d", "other")], Name::new("d", "shared"), "it names its Lease");
}

#[test]
fn a_node_strives_for_what_it_can_serve_and_for_what_nobody_can_and_must_be_cleared() {
    let name = Name::new("d", "web");
    let only: BTreeSet<&Name> = [&name].into();
    let mut web = service(&["192.0.2.1"]);
    web.local = true;
    let mut cluster = cluster(&[("web", web.clone())]);
    let strives = |cluster: &Cluster, node| PerService.strives(node, &only, cluster, &|_| true);
    assert!(!strives(&cluster, "a"), "nobody has an endpoint, and nothing is to be cleared");
    slice(&mut cluster, "web", "s1", &["a"]);
    assert!(strives(&cluster, "a"));
    assert!(!strives(&cluster, "b"));
    assert!(!PerService.strives("a", &only, &cluster, &|_| false), "not without the interface");
    web.vip_host = Some("gone".to_owned());
    cluster.apply_service(name.clone(), web);
    assert!(!strives(&cluster, "b"), "the new owner will write it anew");
    slice(&mut cluster, "web", "s1", &[]);
    assert!(strives(&cluster, "b"), "nobody can serve it: somebody must clear what it says");
}
