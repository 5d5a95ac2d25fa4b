use std::time::Duration;

use super::placement::shares_prefix;
use super::*;
use crate::kernel::{Foreign, Interface};
use crate::ownership::{Global, PerService};
use crate::source::cluster::testing::{service, slice};

const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

fn host() -> Host {
    let foreign = |text: &str, prefix_len| {
        let foreign = Foreign { prefix_len, adoptable: false };
        (text.parse().unwrap(), foreign)
    };
    let eth0 =
        Interface { index: 2, mac: Some(MAC), up: true, foreign: [foreign("10.0.0.5", 24)].into() };
    let eth1 = Interface {
        index: 3,
        mac: Some(MAC),
        up: true,
        foreign: [foreign("192.0.2.5", 24)].into(),
    };
    let interfaces = [("eth0".to_owned(), eth0), ("eth1".to_owned(), eth1)];
    Host {
        interfaces: interfaces.into(),
        default_route: Some("eth0".to_owned()),
        ..Host::default()
    }
}

/// Decides for node `a`, which holds every Lease.
fn decide(cluster: &Cluster, host: &Host, interface: Option<&str>) -> Desired {
    let now = Instant::now();
    let leases = Global::new(Name::new("kube-system", "lock")).leases(cluster);
    let hold =
        |_: &Name| (View { holder: Some("a".to_owned()) }, Some(now + Duration::from_secs(10)));
    let scene = Scene { cluster, host, node: "a", interface };
    desired(&Inputs { scene, leases: &leases, hold: &hold })
}

fn cluster(web: Service, nodes: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply_service(name(), web);
    slice(&mut cluster, "web", "s", nodes);
    cluster
}

fn name() -> Name {
    Name::new("d", "web")
}

fn refusals(desired: &Desired) -> Vec<&'static str> {
    desired.verdicts[&name()].refusals.iter().map(Refusal::reason).collect()
}

#[test]
fn the_owner_holds_the_addresses_on_the_interface_of_the_default_route() {
    let desired = decide(&cluster(service(&["192.0.2.1", "2001:db8::1"]), &["b"]), &host(), None);
    let held: Vec<(String, u32)> =
        desired.addresses.iter().map(|(a, place)| (a.to_string(), place.link.index)).collect();
    assert_eq!(held, [("192.0.2.1".to_owned(), 2), ("2001:db8::1".to_owned(), 2)]);
    assert_eq!(desired.guard.len(), 2);
    assert_eq!(refusals(&desired), [""; 0]);
}

#[test]
fn who_does_not_hold_the_lease_holds_nothing_but_guards_everything() {
    let cluster = cluster(service(&["192.0.2.1"]), &["a"]);
    let leases = PerService.leases(&cluster);
    let hold = |_: &Name| (View { holder: Some("b".to_owned()) }, None);
    let host = host();
    let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: None };
    let desired = desired(&Inputs { scene, leases: &leases, hold: &hold });
    assert!(desired.addresses.is_empty() && desired.verdicts.is_empty());
    assert_eq!(desired.guard.len(), 1);
}

#[test]
fn without_a_ready_endpoint_nothing_is_announced_unless_the_service_says_so() {
    let mut web = service(&["192.0.2.1"]);
    let desired = decide(&cluster(web.clone(), &[]), &host(), None);
    assert!(desired.addresses.is_empty());
    assert_eq!(refusals(&desired), ["NoEndpoint"]);
    web.without_endpoints = true;
    assert_eq!(decide(&cluster(web, &[]), &host(), None).addresses.len(), 1);
}

#[test]
fn local_traffic_is_not_announced_where_no_endpoint_is_and_the_reason_names_the_node() {
    let mut web = service(&["192.0.2.1"]);
    web.local = true;
    let elsewhere = decide(&cluster(web.clone(), &["b"]), &host(), None);
    assert_eq!(refusals(&elsewhere), ["NoLocalEndpoint"]);
    assert!(elsewhere.verdicts[&name()].refusals[0].note().contains("node a"));
    assert_eq!(decide(&cluster(web, &["a", "b"]), &host(), None).addresses.len(), 1);
}

#[test]
fn a_service_may_name_its_interface_or_ask_for_the_one_with_its_subnet() {
    for (named, expected) in [("eth1", 3), ("auto", 3)] {
        let mut web = service(&["192.0.2.1"]);
        web.interface = Some(named.to_owned());
        let desired = decide(&cluster(web, &["a"]), &host(), None);
        assert_eq!(desired.addresses.values().next().unwrap().link.index, expected, "{named}");
    }
    let mut web = service(&["203.0.113.1"]);
    web.interface = Some("auto".to_owned());
    let desired = decide(&cluster(web, &["a"]), &host(), None);
    assert_eq!(desired.addresses.values().next().unwrap().link.index, 2, "no subnet: the default");
}

#[test]
fn a_missing_interface_is_named_and_stops_no_other_service() {
    let mut lost = service(&["192.0.2.2"]);
    lost.interface = Some("eth9".to_owned());
    let mut both = cluster(service(&["192.0.2.1"]), &["a"]);
    both.apply_service(Name::new("d", "lost"), lost);
    slice(&mut both, "lost", "s2", &["a"]);
    let desired = decide(&both, &host(), None);
    assert_eq!(desired.addresses.len(), 1);
    let refusal = &desired.verdicts[&Name::new("d", "lost")].refusals[0];
    assert_eq!(refusal.reason(), "InterfaceMissing");
    assert!(refusal.note().contains("eth9"));
}

#[test]
fn an_interface_without_a_carrier_is_not_used() {
    let mut host = host();
    host.interfaces.get_mut("eth0").unwrap().up = false;
    let desired = decide(&cluster(service(&["192.0.2.1"]), &["a"]), &host, None);
    assert_eq!(refusals(&desired), ["InterfaceUnfit"]);
}

#[test]
fn an_address_of_the_node_itself_is_never_touched() {
    let desired = decide(&cluster(service(&["10.0.0.5"]), &["a"]), &host(), None);
    assert!(desired.addresses.is_empty());
    assert_eq!(refusals(&desired), ["AddressOnHost"]);
}

#[test]
fn an_annotation_that_is_not_acted_on_is_told_and_the_address_is_announced() {
    let mut web = service(&["192.0.2.1"]);
    web.unsupported = vec!["kube-vip.io/egress".to_owned()];
    let desired = decide(&cluster(web, &["a"]), &host(), None);
    assert_eq!(desired.addresses.len(), 1);
    assert_eq!(refusals(&desired), ["NotSupported"]);
}

#[test]
fn an_unreadable_entry_is_told_and_the_others_are_announced() {
    let mut web = service(&["192.0.2.1"]);
    web.unreadable = vec!["192.0.2.300".to_owned()];
    let desired = decide(&cluster(web, &["a"]), &host(), None);
    assert_eq!(desired.addresses.len(), 1);
    assert_eq!(refusals(&desired), ["InvalidAddress"]);
}

#[test]
fn a_shared_address_has_the_ports_of_all_its_services() {
    let mut other = service(&["192.0.2.1"]);
    other.ports[0].number = 443;
    let mut both = cluster(service(&["192.0.2.1"]), &["a"]);
    both.apply_service(Name::new("d", "other"), other);
    slice(&mut both, "other", "s2", &["a"]);
    let desired = decide(&both, &host(), None);
    assert_eq!(desired.addresses.values().next().unwrap().ports.len(), 2);
}

#[test]
fn a_node_without_the_interface_does_not_strive_for_the_lease_of_all() {
    let cluster = cluster(service(&["192.0.2.1"]), &["a"]);
    let strategy = Global::new(Name::new("kube-system", "lock"));
    let (host, leases) = (host(), strategy.leases(&cluster));
    let hold = |_: &Name| (View::default(), None);
    let inputs = |interface| Inputs {
        scene: Scene { cluster: &cluster, host: &host, node: "a", interface },
        leases: &leases,
        hold: &hold,
    };
    assert_eq!(wanted(&inputs(None), &strategy).len(), 1);
    assert_eq!(wanted(&inputs(Some("eth9")), &strategy).len(), 0);
    assert_eq!(wanted(&inputs(Some("eth9")), &PerService).len(), 0);
    let per_service = PerService.leases(&cluster);
    let inputs = Inputs { leases: &per_service, ..inputs(None) };
    let lease = Name::new("d", "kubevip-web");
    assert_eq!(wanted(&inputs, &PerService).keys().collect::<Vec<_>>(), [&lease]);
}

#[test]
fn prefixes_are_compared_by_their_bits() {
    let shares =
        |a: &str, b: &str, length| shares_prefix(a.parse().unwrap(), b.parse().unwrap(), length);
    assert!(shares("192.0.2.1", "192.0.2.254", 24));
    assert!(!shares("192.0.2.1", "192.0.3.1", 24));
    assert!(shares("192.0.2.1", "10.0.0.1", 0));
    assert!(shares("2001:db8::1", "2001:db8::2", 64));
    assert!(!shares("2001:db8::1", "2001:db8::2", 128));
    assert!(!shares("2001:db8::1", "192.0.2.1", 0));
}

#[test]
fn an_interface_that_a_service_names_is_awaited_and_no_other() {
    let (mut cluster, host) = (Cluster::default(), host());
    let waits = |cluster: &Cluster| {
        let scene = Scene { cluster, host: &host, node: "a", interface: None };
        [2, 3, 9].map(|index| is_awaited(scene, index))
    };
    assert_eq!(waits(&cluster), [false; 3]);
    for (named, expected) in
        [("eth1", [false, true, false]), ("eth7", [false, false, true]), ("auto", [false; 3])]
    {
        let mut web = service(&["192.0.2.1"]);
        web.interface = Some(named.to_owned());
        cluster.apply_service(Name::new("d", "web"), web);
        assert_eq!(waits(&cluster), expected, "{named}");
    }
}
