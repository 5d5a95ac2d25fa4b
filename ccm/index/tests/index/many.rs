//! Ten thousand of whatever a tenant can make cost ten times as much as a thousand, and hold nobody up.

use std::time::Duration;

use berth_hostile::{in_proportion, in_square};
use berth_index::kubevirt::{Interface, Origin, Vmi};
use berth_ipam::{Protocol, Sharing};

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, service};

fn lab() -> Lab {
    Lab::with_pools([
        ("range-global", "192.0.2.1-192.0.2.254"),
        ("range-shop", "198.51.100.1-198.51.100.3"),
        ("reuse-delay", "0s"),
    ])
}

fn names(count: usize) -> impl Iterator<Item = String> {
    (0..count).map(|number| format!("m{number}"))
}

/// Somebody else is served.
fn others_are_served(lab: &mut Lab, name: &str) {
    lab.create(service(&format!("other/{name}")));
    assert!(lab.cluster.addresses(&format!("other/{name}")).starts_with("192.0.2."));
}

#[test]
fn bindings_of_one_machine_wait_in_line_and_the_next_serves_it_when_the_first_goes() {
    in_proportion(500, |count| {
        let mut lab = lab();
        lab.run(machine("vm", "a", &["10.244.0.5"]));
        names(count).for_each(|name| lab.cluster.bind(binding(&name, "vm")));
        lab.settle();
        assert_eq!(lab.cluster.shown("m0"), "198.51.100.1 on a to 10.244.0.5 #1");
        let last = format!("m{}", count - 1);
        assert_eq!(lab.cluster.standing(&last), "-VmiTaken -NotAllocated");
        assert_eq!(lab.cluster.claims.len(), 1);
        // What its machine does is nothing to who waits.
        lab.cost();
        for host in 6..30 {
            lab.run(machine("vm", "a", &[&format!("10.244.0.{host}")]));
        }
        assert_eq!(lab.cost(), 24);
        others_are_served(&mut lab, "web");
        lab.cluster.unbind("m0");
        lab.pass(Duration::from_secs(4));
        assert!(lab.cluster.shown("m1").contains(" on a to 10.244.0.29"));
        names(count).skip(1).for_each(|name| lab.cluster.unbind(&name));
        lab.pass(Duration::from_secs(4));
        assert!(lab.cluster.bindings.is_empty() && lab.cluster.claims.len() == 1);
        others_are_served(&mut lab, "late");
    });
}

#[test]
fn bindings_that_wait_for_a_machine_wait_in_line_too_and_give_nothing_back_for_it() {
    in_proportion(500, |count| {
        let mut lab = lab();
        for (number, name) in names(count).enumerate() {
            let retain = number % 2 == 0;
            lab.cluster.bind(berth_index::binding::Binding { retain, ..binding(&name, "vm") });
        }
        lab.settle();
        assert_eq!(lab.cluster.standing("m0"), "+AddressAllocated -VmiNotFound");
        assert_eq!(lab.cluster.standing("m1"), "-VmiTaken -NotAllocated");
        lab.run(machine("vm", "a", &["10.244.0.5"]));
        assert_eq!(lab.cluster.shown("m0"), "198.51.100.1 on a to 10.244.0.5 #2");
        names(count).for_each(|name| lab.cluster.unbind(&name));
        lab.pass(Duration::from_secs(4));
        assert!(lab.cluster.bindings.is_empty() && lab.cluster.claims.is_empty());
    });
}

#[test]
fn services_that_ask_for_one_address_wait_and_others_do_not_wait_for_them() {
    in_proportion(300, |count| {
        let mut lab = lab();
        for name in names(count) {
            let annotated = Some("192.0.2.200".to_owned());
            lab.cluster.create(berth_index::service::Service {
                annotated,
                ..service(&format!("own/{name}"))
            });
        }
        lab.settle();
        assert_eq!(lab.cluster.holder("192.0.2.200").as_deref(), Some("m0"));
        let last = format!("own/m{}", count - 1);
        assert_eq!(lab.cluster.reason(&last), Some((false, "AddressInUse".to_owned())));
        for number in 0..5 {
            others_are_served(&mut lab, &format!("web{number}"));
            lab.cluster.delete(&format!("other/web{number}"));
            lab.pass(Duration::from_secs(4));
        }
        names(count).for_each(|name| lab.cluster.delete(&format!("own/{name}")));
        lab.pass(Duration::from_secs(10));
        lab.pass(Duration::from_secs(10));
        assert!(lab.cluster.claims.is_empty(), "{}", lab.cluster.claims.len());
    });
}

#[test]
fn services_and_bindings_that_wait_for_a_full_pool_hold_up_no_other() {
    in_proportion(300, |count| {
        let mut lab = lab();
        for name in names(count) {
            lab.cluster.create(service(&name));
            lab.cluster.bind(binding(&name, &name));
        }
        lab.settle();
        assert_eq!(lab.cluster.claims.len(), 3, "the pool is empty");
        for number in 0..5 {
            lab.cluster.delete(&format!("m{number}"));
            lab.pass(Duration::from_secs(4));
            assert_eq!(lab.cluster.claims.len(), 3, "the next of the same age has it");
        }
        names(count).skip(5).for_each(|name| lab.cluster.delete(&name));
        names(count).for_each(|name| lab.cluster.unbind(&name));
        lab.pass(Duration::from_secs(10));
        lab.pass(Duration::from_secs(10));
        assert!(lab.cluster.claims.is_empty(), "{}", lab.cluster.claims.len());
    });
}

#[test]
fn who_waits_among_many_is_looked_at_again_a_little_later_and_asks_to_be() {
    let mut lab = lab();
    for name in names(600) {
        lab.cluster.create(service(&name));
    }
    lab.settle();
    lab.cluster.delete("m0");
    lab.settle();
    // Of the same age the names decide: m0, m1 and m10 came first.
    assert_eq!(lab.cluster.addresses("m100"), "198.51.100.1");
    lab.cluster.delete("m1");
    lab.settle();
    let due = lab.index.deadline().unwrap();
    assert!(due > lab.now && due < lab.now + Duration::from_millis(50), "{due:?} {:?}", lab.now);
    lab.now = due;
    lab.settle();
    assert_eq!(lab.cluster.addresses("m101"), "198.51.100.2");
}

#[test]
fn machines_that_show_one_address_are_each_looked_at_when_that_is_news_to_them() {
    for origin in [(true, true), (true, false), (false, true), (false, false)] {
        in_proportion(300, |count| {
            let (on_pods, by_guest) = origin;
            let origin = Origin { on_pods, by_guest };
            let mut lab = lab();
            for name in names(count) {
                let addresses = vec!["10.0.2.2".parse().unwrap()];
                let interface =
                    Interface { name: "lan".to_owned(), origin, addresses, inner: Vec::new() };
                lab.cluster.run(Vmi { interfaces: vec![interface], ..machine(&name, "a", &[]) });
                lab.cluster.bind(binding(&name, &name));
            }
            lab.settle();
            assert_eq!(lab.cluster.standing("m0"), "+AddressAllocated -VmiAddressInUse");
            names(count).skip(1).for_each(|name| lab.cluster.stop(&name));
            lab.settle();
            assert_eq!(lab.cluster.standing("m0"), "+AddressAllocated -AwaitingNode");
            assert!(lab.cluster.shown("m0").contains(" on a to 10.0.2.2"));
        });
    }
}

#[test]
fn services_that_share_one_address_concern_each_other_only_where_they_come_and_go() {
    // Each write of the claim names all of them, who are 512 at most.
    in_square(50, |count| {
        let mut lab = Lab::with_pools([
            ("range-global", "192.0.2.1-192.0.2.254"),
            ("allow-share-global", "true"),
            ("reuse-delay", "0s"),
        ]);
        for (port, name) in (1..).zip(names(count)) {
            let ports = [(Protocol::Tcp, port)].into();
            let sharing = Sharing { ports, ..Sharing::default() };
            lab.cluster.create(berth_index::service::Service { sharing, ..service(&name) });
        }
        lab.settle();
        assert_eq!(lab.cluster.claims.len(), 1);
        names(count).for_each(|name| lab.cluster.delete(&name));
        lab.pass(Duration::from_secs(10));
        lab.pass(Duration::from_secs(10));
        assert!(lab.cluster.claims.is_empty(), "{}", lab.cluster.claims.len());
    });
}
