//! What users of other allocators met with pools and elastic IPs (`e2e/field/pools.md`), done to this one.

use std::time::Duration;

use berth_api::reason;
use berth_index::binding::Binding;
use berth_index::service::{Service, Standing};
use berth_ipam::Protocol::{self, Tcp, Udp};
use berth_ipam::{Family, FamilyPolicy, Sharing, TrafficPolicy};

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, dual, ip, service};

const SECOND: Duration = Duration::from_secs(1);
const AT_ONCE: (&str, &str) = ("reuse-delay", "0s");

fn pinned(name: &str, addresses: &str) -> Service {
    Service { annotated: Some(addresses.to_owned()), ..service(name) }
}

fn listening(name: &str, ports: &[(Protocol, u16)]) -> Service {
    let (ports, policy) = (ports.iter().copied().collect(), TrafficPolicy::Cluster);
    Service { sharing: Sharing { ports, policy }, ..service(name) }
}

fn refused(reason: &str) -> Option<(bool, String)> {
    Some((false, reason.to_owned()))
}

/// The addresses of as many Services as there are names.
fn given(lab: &mut Lab, names: &[&str]) -> Vec<String> {
    names.iter().for_each(|name| lab.create(service(name)));
    names.iter().map(|name| lab.cluster.addresses(name)).collect()
}

/// kube-vip-cloud-provider#11: it crashed where a range went over the end of a /24.
#[test]
fn a_range_over_the_end_of_a_slash_24_goes_on_in_the_next() {
    let mut lab = Lab::with_pools([("range-global", "192.168.0.253-192.168.1.2")]);
    let all = given(&mut lab, &["a", "b", "c", "d", "e"]);
    assert_eq!(all, ["192.168.0.253", "192.168.0.254", "192.168.1.1", "192.168.1.2", ""]);
    assert_eq!(lab.cluster.reason("e"), refused("PoolExhausted"));
}

/// kube-vip#122, ai-platform#8: several small networks, which their author named by an address inside them.
#[test]
fn networks_that_are_named_by_an_address_inside_them_are_whole_and_that_is_told_once() {
    let pools =
        [("cidr-shop", "192.168.0.200/29,192.168.0.230/29"), ("skip-end-ips-in-cidr", "true")];
    let mut lab = Lab::with_pools(pools);
    let names: Vec<String> = (0..13).map(|n| format!("s{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let all = given(&mut lab, &names);
    assert_eq!((&*all[0], &*all[5], &*all[6]), ("192.168.0.201", "192.168.0.206", "192.168.0.225"));
    assert_eq!((&*all[11], &*all[12]), ("192.168.0.230", ""), "twelve of sixteen");
    assert_eq!(lab.told("kubevip", reason::HOST_BITS), 1);
    let notes = lab.told.iter().filter(|(_, why, _)| *why == reason::HOST_BITS);
    let notes: Vec<&str> = notes.map(|(.., note)| note.as_str()).collect();
    assert!(notes[0].contains("192.168.0.230/29 is all of 192.168.0.224/29"), "{notes:?}");
    assert!(!notes[0].contains("192.168.0.200/29"), "it begins there: {notes:?}");
    lab.pools(pools);
    lab.settle();
    assert_eq!(lab.told("kubevip", reason::HOST_BITS), 1, "the same edit again");
}

/// cilium#24351, #28255, purelb#2: single addresses with holes between them, as prefixes or without.
#[test]
fn a_pool_of_single_addresses_gives_each_of_them_and_none_between() {
    let single = "192.0.2.123/32,192.0.2.125,192.0.2.129/32,2001:db8::5/128,2001:db8::7";
    let mut lab = Lab::with_pools([("cidr-global", single), ("skip-end-ips-in-cidr", "true")]);
    assert_eq!(
        given(&mut lab, &["a", "b", "c", "d"]),
        ["192.0.2.123", "192.0.2.125", "192.0.2.129", ""]
    );
    lab.create(dual("six", FamilyPolicy::SingleStack, [Family::V6, Family::V4]));
    assert_eq!(lab.cluster.addresses("six"), "2001:db8::5");
}

/// cilium#29410, #23261: the ends of a small network, which one pool leaves out and the other one gives.
#[test]
fn the_ends_of_a_network_are_left_out_where_that_is_asked_for_and_may_be_asked_for() {
    let small = ("cidr-global", "192.0.2.8/29");
    let names = ["a", "b", "c", "d", "e", "f", "g", "h"];
    let mut whole = Lab::with_pools([small]);
    let all = given(&mut whole, &names);
    assert_eq!((&*all[0], &*all[7]), ("192.0.2.8", "192.0.2.15"));
    let mut inner = Lab::with_pools([small, ("skip-end-ips-in-cidr", "true")]);
    let all = given(&mut inner, &names);
    assert_eq!((&*all[0], &*all[5], &*all[6]), ("192.0.2.9", "192.0.2.14", ""));
    inner.create(pinned("asks", "192.0.2.8"));
    assert_eq!(inner.cluster.holder("192.0.2.8"), Some("asks".to_owned()));
}

/// cilium#41458, #40358, #1591 and #2076 of metallb: a pool that grows, shrinks or goes.
#[test]
fn whatever_becomes_of_a_pool_who_has_an_address_keeps_it_and_nobody_else_gets_it() {
    let mut lab = Lab::with_pools([("range-global", "192.0.2.9-192.0.2.50"), AT_ONCE]);
    let before = given(&mut lab, &["a", "b", "c"]);
    for pool in
        ["192.0.2.9-192.0.2.39,192.0.2.49-192.0.2.50", "192.0.2.1-192.0.2.50", "198.51.100.1"]
    {
        lab.pools([("range-global", pool), AT_ONCE]);
        lab.settle();
        let after: Vec<_> = ["a", "b", "c"].map(|name| lab.cluster.addresses(name)).into();
        assert_eq!(before, after, "{pool}");
    }
    lab.create(service("late"));
    assert_eq!(lab.cluster.addresses("late"), "198.51.100.1");
    // Made anew under its name it is a newcomer, and the former pool is none of its own.
    lab.cluster.delete("a");
    lab.settle();
    lab.create(service("a"));
    assert_eq!(lab.cluster.reason("a"), refused("PoolExhausted"));
    assert_eq!(lab.cluster.holder("192.0.2.9"), None);
}

/// metallb#2723, #686: an address changed when another Service went.
#[test]
fn no_address_changes_when_another_service_goes() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29,2001:db8::/125"), AT_ONCE]);
    for name in ["a", "b", "c", "d"] {
        lab.create(dual(name, FamilyPolicy::RequireDualStack, [Family::V4, Family::V6]));
    }
    let had = |lab: &Lab| ["c", "d"].map(|name| lab.cluster.addresses(name));
    let before = had(&lab);
    for gone in ["b", "a"] {
        lab.cluster.delete(gone);
        lab.settle();
        lab.pass(100 * SECOND);
        assert_eq!(had(&lab), before);
    }
    let mut again = lab.restart();
    again.pools([("cidr-global", "192.0.2.0/29,2001:db8::/125"), AT_ONCE]);
    again.start();
    assert_eq!(had(&again), before, "nor when the controller starts anew");
}

/// metallb#435: after a restart the one address went to the one that had waited.
#[test]
fn who_had_the_only_address_has_it_after_a_restart_whoever_waits_for_it() {
    let pool = [("range-global", "192.0.2.1"), AT_ONCE];
    let mut lab = Lab::with_pools(pool);
    lab.create(Service { created: 9, ..service("zz-has") });
    lab.create(Service { created: 1, ..service("aa-waits") });
    for _ in 0..3 {
        lab = lab.restart();
        lab.pools(pool);
        lab.start();
        assert_eq!(lab.cluster.holder("192.0.2.1"), Some("zz-has".to_owned()));
        assert_eq!(lab.cluster.reason("aa-waits"), refused("PoolExhausted"));
    }
}

/// metallb#448: a Service whose pool is another one from now on.
#[test]
fn a_namespace_that_is_given_a_pool_of_its_own_moves_nobody_who_does_not_ask() {
    let global = ("range-global", "192.0.2.1-192.0.2.9");
    let own = ("range-shop", "198.51.100.1-198.51.100.9");
    let mut lab = Lab::with_pools([global, AT_ONCE]);
    lab.create(service("web"));
    lab.pools([global, own, AT_ONCE]);
    lab.settle();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    lab.create(service("late"));
    assert_eq!(lab.cluster.addresses("late"), "198.51.100.1");
    lab.edit("web", |web| web.annotated = Some("198.51.100.2".to_owned()));
    assert_eq!(lab.cluster.addresses("web"), "198.51.100.2");
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
}

/// metallb#1916, library-charts#650: two addresses are asked for at once, one in each place.
#[test]
fn of_two_addresses_that_a_new_service_asks_for_the_annotation_is_the_one() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/28")]);
    let deprecated = Some("192.0.2.5".to_owned());
    lab.create(Service { deprecated, ..pinned("web", "192.0.2.4") });
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.4");
    assert_eq!(lab.cluster.holder("192.0.2.5"), None);
    let web = &lab.cluster.services[&crate::cluster::key("web")];
    assert_eq!(web.deprecated.as_deref(), Some("192.0.2.4"), "both say the same afterwards");
}

/// kube-vip#574, #998: the field was edited long ago, and kube-vip went by its annotation all the time.
#[test]
fn what_was_served_by_its_annotation_at_the_import_stays_there_whatever_the_field_says() {
    for (labelled, published) in
        [(true, vec![ip("192.0.2.4")]), (true, Vec::new()), (false, vec![ip("192.0.2.4")])]
    {
        let mut lab = Lab::around(Default::default());
        let deprecated = Some("192.0.2.5".to_owned());
        lab.cluster.create(Service {
            deprecated,
            published,
            labelled,
            ..pinned("web", "192.0.2.4")
        });
        lab.pools([("cidr-global", "192.0.2.0/28"), AT_ONCE]);
        lab.start();
        assert_eq!(lab.cluster.addresses("web"), "192.0.2.4");
        assert_eq!(lab.cluster.holder("192.0.2.5"), None);
        lab.edit("web", |web| web.deprecated = Some("192.0.2.6".to_owned()));
        assert_eq!(lab.cluster.addresses("web"), "192.0.2.6", "an edit is a request");
    }
}

/// metallb#321: a chart renames its Service, and both ask for one address for a while.
#[test]
fn who_asks_for_an_address_in_use_has_it_when_the_former_is_gone() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/28")]);
    lab.create(pinned("former", "192.0.2.4"));
    lab.create(pinned("renamed", "192.0.2.4"));
    assert_eq!(lab.cluster.reason("renamed"), refused("AddressInUse"));
    lab.cluster.delete("former");
    lab.settle();
    // It rests as any does, a minute here.
    lab.pass(60 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.4"), Some("renamed".to_owned()));
    assert_eq!(lab.cluster.reason("renamed"), Some((true, "AddressAllocated".to_owned())));
}

/// kube-vip-cloud-provider#14: deleted, and made anew with another address; then the first one is asked for by another.
#[test]
fn a_service_made_anew_with_another_address_has_that_one_alone() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/28"), AT_ONCE]);
    lab.create(service("web"));
    let first = lab.cluster.addresses("web");
    lab.cluster.delete("web");
    lab.settle();
    lab.create(pinned("web", "192.0.2.9"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.9");
    lab.create(pinned("other", &first));
    assert_eq!(lab.cluster.holder(&first), Some("other".to_owned()));
    assert_eq!(lab.cluster.claims.len(), 2);
}

/// kube-vip#845, kube-vip-cloud-provider#34: what is in use was looked for by a label, which some have not.
#[test]
fn an_address_that_a_service_of_somebody_else_shows_is_given_to_nobody() {
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.3"), AT_ONCE]);
    let published = vec![ip("192.0.2.1")];
    let foreign =
        Service { standing: Standing::Foreign, published, ..service("kube-system/traefik") };
    lab.create(foreign);
    let published = vec![ip("192.0.2.2")];
    lab.create(Service { standing: Standing::Ignored, published, ..service("alone") });
    assert_eq!(given(&mut lab, &["web", "late"]), ["192.0.2.3", ""]);
    lab.create(pinned("asks", "192.0.2.1"));
    assert!(matches!(lab.cluster.reason("asks"), Some((false, _))), "nor to who asks for it");
}

/// metallb#1431: one Service with more than two addresses in its status kept the controller from all others.
#[test]
fn a_status_with_four_addresses_of_somebody_else_stops_nobody_and_none_of_them_is_given() {
    let published = ["192.0.2.4", "192.0.2.5", "192.0.2.6", "2001:db8::4"].map(ip).to_vec();
    let mut lab = Lab::around(Default::default());
    lab.cluster.create(Service { published, ..service("many") });
    lab.cluster.create(service("web"));
    lab.pools([("cidr-global", "192.0.2.0/28,2001:db8::/125")]);
    lab.start();
    let many = lab.cluster.addresses("many");
    assert_eq!([&*many, &*lab.cluster.addresses("web")], ["192.0.2.1", "192.0.2.2"]);
    let all = given(&mut lab, &["a", "b"]);
    assert_eq!(all, ["192.0.2.3", "192.0.2.7"], "what it shows is given to nobody");
}

/// metallb#2724: a pool of both families in a cluster of one.
#[test]
fn a_service_of_one_family_has_one_address_whatever_the_pool_has() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29,2001:db8::/125")]);
    assert_eq!(given(&mut lab, &["web"]), ["192.0.2.1"]);
    assert_eq!(lab.cluster.claims.len(), 1);
}

/// purelb#1: an IPv6 address could not be asked for of a pool that has both families.
#[test]
fn an_ipv6_address_is_had_for_the_asking_in_either_place() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29,2001:db8::/125")]);
    let six = |name: &str| dual(name, FamilyPolicy::SingleStack, [Family::V6, Family::V4]);
    lab.create(Service { deprecated: Some("2001:DB8::5".to_owned()), ..six("field") });
    lab.create(Service { annotated: Some("2001:0db8:0::6".to_owned()), ..six("annotation") });
    assert_eq!(lab.cluster.holder("2001:db8::5"), Some("field".to_owned()));
    assert_eq!(lab.cluster.holder("2001:db8::6"), Some("annotation".to_owned()));
}

/// metallb#788, #245, #2092, cilium#30692: TCP and UDP of one port, and Services with ports of their own, at one address.
#[test]
fn services_with_ports_of_their_own_have_one_address_for_the_asking_where_they_may_share() {
    let share = ("allow-share-global", "true");
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.9"), share]);
    for (name, port) in [("dns-tcp", (Tcp, 53)), ("dns-udp", (Udp, 53)), ("web", (Tcp, 80))] {
        let asks = Some("192.0.2.7".to_owned());
        lab.create(Service { annotated: asks, ..listening(name, &[port]) });
    }
    assert_eq!(lab.cluster.holder("192.0.2.7"), Some("dns-tcp dns-udp web".to_owned()));
}

/// metallb#1704: pending for ever, for a port that somebody in another namespace has.
#[test]
fn who_waits_for_a_port_of_another_is_told_which_and_whose() {
    let share = ("allow-share-global", "true");
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.9"), share]);
    let asks = |name: &str, ports: &[(Protocol, u16)]| Service {
        annotated: Some("192.0.2.7".to_owned()),
        ..listening(name, ports)
    };
    lab.create(asks("app-web", &[(Tcp, 20009), (Tcp, 443)]));
    lab.create(asks("late", &[(Tcp, 20009)]));
    assert_eq!(lab.cluster.reason("late"), refused("AddressInUse"));
    let told = |(about, _, note): &(String, &str, String)| {
        about == "late" && note.contains("20009") && note.contains("shop/app-web")
    };
    assert!(lab.told.iter().any(told), "{:?}", lab.told);
    lab.edit("app-web", |web| web.sharing = listening("x", &[(Tcp, 443)]).sharing);
    lab.pass(SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.7"), Some("app-web late".to_owned()));
}

fn elastic() -> Lab {
    Lab::with_pools([("cidr-global", "192.0.2.0/29"), AT_ONCE])
}

/// kube-ovn#5115: a rule leaked where a binding went while it was still being made.
#[test]
fn a_binding_that_goes_while_it_is_being_made_leaves_nothing() {
    for writes in 0..4 {
        let mut lab = elastic();
        lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
        lab.cluster.bind(binding("web", "vm"));
        for _ in 0..writes {
            lab.catch_up();
            for write in lab.poll() {
                let outcome = lab.cluster.perform(&write);
                lab.index.settle(&write, outcome, lab.now);
            }
        }
        lab.cluster.unbind("web");
        lab.settle();
        lab.pass(100 * SECOND);
        assert_eq!(lab.cluster.shown("web"), "gone", "after {writes} rounds of writes");
        assert!(lab.cluster.claims.is_empty(), "after {writes} rounds of writes");
    }
}

/// kube-ovn#1847: nothing could be deleted once what it stood on was gone.
#[test]
fn a_binding_goes_whether_its_machine_or_its_node_is_there_or_not() {
    let mut lab = elastic();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(binding("web", "vm"));
    lab.obey("web");
    lab.stop("vm");
    // No announcer of node `a` ever says that it has let go.
    lab.cluster.unbind("web");
    lab.settle();
    lab.pass(3600 * SECOND);
    assert_eq!(lab.cluster.shown("web"), "gone");
    assert!(lab.cluster.claims.is_empty());
}

/// kube-ovn#2105, #4718: an address that was asked for, and is asked for no more or is another one, stayed where it was.
#[test]
fn an_elastic_ip_that_is_asked_for_no_more_stays_and_another_takes_its_place() {
    let mut lab = elastic();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(Binding { pin: Some(ip("192.0.2.5")), ..binding("web", "vm") });
    lab.obey("web");
    lab.cluster.edit_binding("web", |web| (web.pin, web.generation) = (None, 2));
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.5"), Some("web".to_owned()), "nobody asked for another");
    lab.cluster.edit_binding("web", |web| (web.pin, web.generation) = (Some(ip("192.0.2.6")), 3));
    lab.settle();
    lab.obey("web");
    lab.pass(10 * SECOND);
    assert_eq!(lab.cluster.shown("web"), "192.0.2.6 on a to 10.0.0.5 #2");
    assert_eq!(lab.cluster.holder("192.0.2.5"), None);
}

/// kube-ovn#4249: rules were made for what is not there.
#[test]
fn a_binding_of_a_machine_that_is_not_there_says_so_and_leads_nowhere() {
    let mut lab = elastic();
    lab.bind(binding("web", "missing"));
    let standing = lab.cluster.standing("web");
    assert!(standing.contains("VmiNotFound"), "{standing}");
    assert!(lab.cluster.shown("web").contains("on none to  #"), "{}", lab.cluster.shown("web"));
    lab.run(machine("missing", "b", &["10.0.0.5"]));
    assert!(lab.cluster.shown("web").contains("on b to 10.0.0.5"), "{}", lab.cluster.shown("web"));
}

/// kubevirt#12588: a machine that was stopped and started on another node was reached no more; kubevirt#4910: while it
/// moves, both nodes have a pod of it.
#[test]
fn a_machine_that_starts_on_another_node_has_its_address_there_and_nowhere_else() {
    let mut lab = elastic();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(binding("web", "vm"));
    lab.obey("web");
    lab.stop("vm");
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()), "it is kept meanwhile");
    lab.run(machine("vm", "b", &["10.0.1.7"]));
    lab.obey("web");
    let shown = lab.cluster.shown("web");
    assert!(shown.starts_with("192.0.2.1 on b to 10.0.1.7"), "{shown}");
}
