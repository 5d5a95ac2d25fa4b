//! EipBindings: the same ledger as for Services, and where their addresses belong.

use std::time::Duration;

use berth_api::reason;
use berth_index::Source;
use berth_index::binding::Binding;
use berth_index::intake::Change;
use berth_index::kubevirt::Vmi;
use berth_index::rests;
use berth_index::service::Service;
use berth_index::write::{Outcome, Write};
use berth_ipam::{Families, Family, FamilyPolicy};

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Cluster, Lab, ip, key, service};

const SECOND: Duration = Duration::from_secs(1);

fn lab() -> Lab {
    Lab::with_pools([("cidr-global", "192.0.2.0/29,2001:db8::/125"), ("reuse-delay", "0s")])
}

/// A binding `web` whose machine `vm` runs on `a`, and which `a` answers for.
fn served() -> Lab {
    let mut lab = lab();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(binding("web", "vm"));
    lab.obey("web");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
    lab.cost();
    lab
}

#[test]
fn an_elastic_ip_costs_a_finalizer_a_claim_and_a_status() {
    let mut lab = lab();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(binding("web", "vm"));
    assert!(
        matches!(
            &lab.writes[..],
            [Write::PatchEip { .. }, Write::CreateClaim { .. }, Write::ApplyEip { .. }]
        ),
        "{:?}",
        lab.writes
    );
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -AwaitingNode");
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    lab.cost();
    lab.obey("web");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
    assert_eq!((lab.cost(), lab.told("web", reason::ADDRESS_ALLOCATED)), (1, 1));
}

#[test]
fn no_elastic_ip_is_asked_of_a_dhcp_server() {
    let mut lab = Lab::with_pools([("cidr-global", "0.0.0.0/32"), ("cidr-own", "192.0.2.0/29")]);
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.standing("web"), "-FamilyUnavailable -NotAllocated");
    lab.bind(Binding { pin: Some(ip("0.0.0.0")), ..binding("asks", "other") });
    assert!(lab.cluster.standing("asks").starts_with("-FamilyUnavailable"));
    lab.pools([("cidr-global", "192.0.2.0/29")]);
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
}

#[test]
fn services_and_machines_take_from_one_pool_and_one_quota() {
    let mut lab = Lab::with_pools([
        ("cidr-shop", "192.0.2.0/29"),
        ("quota-shop", "2"),
        ("reuse-delay", "0s"),
    ]);
    lab.create(service("first"));
    lab.bind(Binding { created: 1, ..binding("second", "vm") });
    lab.create(Service { created: 2, ..service("third") });
    lab.bind(Binding { created: 3, ..binding("fourth", "other") });
    assert_eq!(lab.cluster.addresses("first"), "192.0.2.1");
    assert_eq!(lab.cluster.shown("second"), "192.0.2.2 on none to  #1");
    assert_eq!(lab.cluster.reason("third"), Some((false, "QuotaExceeded".to_owned())));
    assert_eq!(lab.cluster.standing("fourth"), "-QuotaExceeded -NotAllocated");
    // Whoever has waited longest comes first, whatever it is.
    lab.cluster.delete("first");
    lab.settle();
    assert_eq!(lab.cluster.addresses("third"), "192.0.2.1");
    lab.cluster.unbind("second");
    lab.settle();
    assert_eq!(lab.cluster.shown("fourth"), "192.0.2.2 on none to  #1");
}

#[test]
fn an_address_that_is_asked_for_is_had_once() {
    let mut lab = served();
    lab.bind(Binding { pin: Some(ip("198.51.100.7")), ..binding("outside", "vm2") });
    assert_eq!(lab.cluster.shown("outside"), "198.51.100.7 on none to  #1");
    lab.bind(Binding { pin: Some(ip("192.0.2.1")), created: 1, ..binding("late", "vm3") });
    assert_eq!(lab.cluster.standing("late"), "-AddressInUse -NotAllocated");
    lab.create(Service { annotated: Some("198.51.100.7".to_owned()), ..service("svc") });
    assert_eq!(lab.cluster.reason("svc"), Some((false, "AddressInUse".to_owned())));
    assert_eq!(lab.told("late", "AddressInUse"), 1);
}

#[test]
fn a_move_to_another_address_is_made_and_one_in_use_is_refused() {
    let mut lab = served();
    lab.cluster.edit_binding("web", |web| {
        web.pin = Some(ip("192.0.2.5"));
        web.generation = 2;
    });
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.5 on a to 10.0.0.5 #2");
    assert_eq!(lab.cluster.claims.len(), 2, "its node may still answer for the old one");
    lab.obey("web");
    assert_eq!(lab.cluster.claims.len(), 1);
    lab.create(service("svc"));
    lab.cluster.edit_binding("web", |web| web.pin = Some(ip("192.0.2.1")));
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.5 on a to 10.0.0.5 #2");
    assert_eq!(lab.cluster.standing("web"), "+AddressInUse +Held");
}

#[test]
fn of_two_for_one_machine_the_one_that_has_it_keeps_it_and_the_next_follows() {
    let mut lab = served();
    // By name and age it would be first, but what is given is not taken away.
    lab.bind(Binding { created: -1, ..binding("also", "vm") });
    assert_eq!(lab.cluster.standing("also"), "-VmiTaken -NotAllocated");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
    assert_eq!(lab.cluster.claims.len(), 1);
    lab.cluster.unbind("web");
    lab.settle();
    lab.cluster.obey("web");
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "gone");
    assert_eq!(lab.cluster.shown("also"), "192.0.2.1 on a to 10.0.0.5 #1");
}

#[test]
fn a_migration_that_keeps_the_machines_address_is_followed_and_moves_once() {
    let mut lab = served();
    lab.run(machine("vm", "b", &["10.0.0.5"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.0.0.5 #2");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -AwaitingNode");
    assert_eq!((lab.cost(), lab.index.moves(), lab.told("web", reason::MOVED)), (1, 1, 1));
    lab.obey("web");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
    // KubeVirt empties the interfaces when it hands over, then fills them again.
    lab.run(Vmi { interfaces: Vec::new(), ..machine("vm", "b", &[]) });
    lab.run(machine("vm", "b", &["10.0.0.5"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.0.0.5 #2");
    lab.run(machine("vm", "b", &["10.0.1.5"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.0.1.5 #3");
}

#[test]
fn the_target_of_a_migration_is_named_while_it_is_under_way_and_a_failed_one_moves_nothing() {
    let mut lab = served();
    let going = || Vmi { target: Some("b".to_owned()), ..machine("vm", "a", &["10.0.0.5"]) };
    let target = |lab: &Lab| lab.cluster.bindings[&key("web")].target.clone();
    lab.run(going());
    assert_eq!(target(&lab).as_deref(), Some("b"));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held", "nothing has moved");
    lab.run(machine("vm", "a", &["10.0.0.5"]));
    assert_eq!(target(&lab), None, "it failed");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
    assert_eq!((lab.cost(), lab.index.moves()), (2, 0));
    lab.run(going());
    lab.run(machine("vm", "b", &["10.0.0.5"]));
    assert_eq!(target(&lab), None, "it is there");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.0.0.5 #2");
    lab.run(Vmi { node: Some("b".to_owned()), target: Some("a".to_owned()), ..going() });
    lab.cluster.unbind("web");
    lab.settle();
    assert_eq!(target(&lab), None, "nobody is to do anything for it any more");
}

#[test]
fn a_machine_that_stops_keeps_its_address_and_loses_its_node() {
    let mut lab = served();
    lab.run(Vmi { node: None, phase: "Succeeded".to_owned(), ..machine("vm", "a", &[]) });
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on none to  #2");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiNotRunning");
    lab.stop("vm");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -VmiNotFound");
    // One that is made anew has shown no address yet: those of the former one are not its own.
    lab.run(Vmi { interfaces: Vec::new(), ..machine("vm", "b", &[]) });
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -NoVmiAddress");
    lab.run(machine("vm", "b", &["10.0.0.9"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on b to 10.0.0.9 #3");
}

#[test]
fn one_that_does_not_retain_gives_its_address_back_while_the_machine_is_stopped() {
    let mut lab = lab();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(Binding { retain: false, ..binding("web", "vm") });
    lab.obey("web");
    lab.stop("vm");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on none to  #2", "its node may still answer");
    lab.obey("web");
    assert_eq!(lab.cluster.shown("web"), " on none to  #3");
    assert_eq!(lab.cluster.standing("web"), "-VmiNotFound -VmiNotRunning");
    assert!(lab.cluster.claims.is_empty());
    lab.create(service("svc"));
    assert_eq!(lab.cluster.addresses("svc"), "192.0.2.1");
    lab.run(machine("vm", "a", &["10.0.0.5"]));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.2 on a to 10.0.0.5 #4");
}

#[test]
fn what_is_asked_of_a_machine_in_vain_is_told() {
    let mut lab = lab();
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.cluster.run(machine("vm2", "a", &["10.0.0.6"]));
    lab.bind(Binding { interface: Some("wan".to_owned()), ..binding("wan", "vm") });
    assert_eq!(lab.cluster.standing("wan"), "+AddressAllocated -InterfaceNotFound");
    lab.bind(Binding { families: Families::single(Family::V6), ..binding("six", "vm2") });
    assert_eq!(lab.cluster.standing("six"), "+AddressAllocated -FamilyUnavailable");
    assert_eq!(lab.told("six", reason::FAMILY_UNAVAILABLE), 1);
    lab.run(machine("vm2", "a", &["10.0.0.6", "fd00::6"]));
    assert_eq!(lab.cluster.shown("six"), "2001:db8:: on a to fd00::6 #2");
    lab.pass(60 * SECOND);
    assert_eq!(lab.told("wan", reason::INTERFACE_NOT_FOUND), 1);
}

#[test]
fn both_families_are_had_or_none() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
    lab.cluster.run(machine("vm", "a", &["fd00::5", "10.0.0.5"]));
    let families = Families::new(FamilyPolicy::RequireDualStack, [Family::V4, Family::V6]);
    lab.bind(Binding { families, ..binding("web", "vm") });
    assert_eq!(lab.cluster.standing("web"), "-FamilyUnavailable -NotAllocated");
    lab.pools([("cidr-global", "192.0.2.0/29,2001:db8::/125"), ("reuse-delay", "0s")]);
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1,2001:db8:: on a to 10.0.0.5,fd00::5 #1");
}

#[test]
fn a_binding_without_kubevirt_says_so_and_goes_on_when_it_comes() {
    let mut lab = lab();
    lab.show(Change::Absent(Source::Machines));
    lab.bind(binding("web", "vm"));
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -KubeVirtMissing");
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.show(Change::Listing(Source::Machines));
    lab.catch_up();
    lab.show(Change::Listed(Source::Machines));
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #2");
    lab.show(Change::Listing(Source::Machines));
    lab.show(Change::Absent(Source::Machines));
    lab.settle();
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -KubeVirtMissing");
}

#[test]
fn services_are_served_where_there_is_no_such_resource() {
    let mut lab = Lab::around(Default::default());
    lab.pools([("cidr-global", "192.0.2.0/29")]);
    lab.index.lead(lab.now);
    for source in Source::REQUIRED.into_iter().filter(|source| *source != Source::Eips) {
        lab.show(Change::Listed(source));
    }
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "");
    lab.show(Change::Absent(Source::Eips));
    lab.settle();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn a_restart_changes_nothing_of_a_binding() {
    let mut lab = served().restart();
    lab.pools([("cidr-global", "203.0.113.0/24"), ("reuse-delay", "0s")]);
    lab.start();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
    assert_eq!(lab.cluster.standing("web"), "+OutsidePool +Held", "the pool is another one");
    assert_eq!(lab.cost(), 1);
}

#[test]
fn what_bindings_have_is_claimed_before_anything_is_given_out() {
    let mut lab = served();
    let mut cluster = std::mem::take(&mut lab.cluster);
    // As in a cluster that was restored without its IPAddress objects.
    cluster.claims.clear();
    cluster.create(Service { created: -5, ..service("older") });
    let mut lab = Lab::around(cluster);
    lab.pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
    lab.start();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    assert_eq!(lab.cluster.addresses("older"), "192.0.2.2");
}

#[test]
fn a_deleted_binding_is_gone_when_its_node_is_silent() {
    let mut lab = served();
    lab.cluster.unbind("web");
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on none to  #2");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated -Releasing");
    lab.pass(SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()), "its node still answers");
    lab.obey("web");
    assert_eq!(lab.cluster.shown("web"), "gone");
    assert!(lab.cluster.claims.is_empty());
    assert!(
        matches!(
            &lab.writes[..],
            [Write::ApplyEip { .. }, Write::LeaveClaim { .. }, Write::PatchEip { .. }]
        ),
        "{:?}",
        lab.writes
    );
}

#[test]
fn vm_and_node_gone_hold_a_deletion_up_for_three_seconds_only() {
    let mut lab = served();
    lab.cluster.stop("vm");
    lab.cluster.unbind("web");
    lab.settle();
    lab.pass(3 * SECOND);
    assert_eq!(lab.cluster.shown("web"), "gone");
    assert!(lab.cluster.claims.is_empty());
}

#[test]
fn an_address_of_a_node_that_never_answered_rests_longer_than_any_lease() {
    let mut lab = served();
    lab.cluster.unbind("web");
    lab.settle();
    lab.pass(3 * SECOND);
    lab.create(service("next"));
    assert_eq!(
        lab.cluster.addresses("next"),
        "192.0.2.2",
        "reuse-delay is 0s, but nobody let go of the first"
    );
    lab.create(Service { annotated: Some("192.0.2.1".to_owned()), ..service("greedy") });
    assert_eq!(lab.cluster.reason("greedy"), Some((false, "AddressResting".to_owned())));
    lab.pass(15 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("greedy".to_owned()));
}

#[test]
fn it_does_so_over_a_restart_too() {
    let mut lab = served();
    lab.cluster.unbind("web");
    lab.settle();
    lab.pass(3 * SECOND);
    lab.pass(SECOND);
    let word = rests::write(lab.index.ledger(), lab.now, 1000 * SECOND);
    let mut lab = lab.restart();
    // The next one leads two seconds later, by a clock of its own.
    lab.now = 500 * SECOND;
    lab.pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
    for (address, owner, since) in rests::read(&word, lab.now, 1002 * SECOND).unwrap().rests {
        lab.index.rest(address, owner, since);
    }
    lab.start();
    lab.create(Service { annotated: Some("192.0.2.1".to_owned()), ..service("greedy") });
    lab.pass(11 * SECOND);
    assert_eq!(lab.cluster.reason("greedy"), Some((false, "AddressResting".to_owned())));
    lab.pass(SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("greedy".to_owned()));
}

#[test]
fn a_claim_whose_binding_was_stripped_is_given_back() {
    let mut lab = served();
    lab.cluster.edit_binding("web", |web| {
        web.finalizers = Default::default();
        web.deleting = true;
    });
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    lab.pass(3 * SECOND);
    assert!(lab.cluster.claims.is_empty());
}

#[test]
fn of_two_that_both_lead_one_counts_the_epoch() {
    let mut lab = served();
    lab.cluster.run(machine("vm", "b", &["10.0.0.5"]));
    lab.catch_up();
    let [write] = &lab.poll()[..] else { panic!("one status and nothing else") };
    assert!(matches!(lab.cluster.perform(write), Outcome::Claimant(_)));
    assert_eq!(lab.cluster.perform(write), Outcome::Conflict, "the same from the other one");
    assert_eq!(lab.cluster.bindings[&key("web")].epoch, Some(2));
}

#[test]
fn a_crash_after_any_write_ends_where_an_undisturbed_run_does() {
    type Step<'a> = &'a dyn Fn(&mut Cluster);
    let steps: [(Step<'_>, &str); 5] = [
        (&|cluster| cluster.bind(binding("web", "vm")), "192.0.2.1 on a to 10.0.0.5 #1"),
        (&|cluster| cluster.obey("web"), "192.0.2.1 on a to 10.0.0.5 #1"),
        (
            &|cluster| cluster.run(machine("vm", "b", &["10.0.0.5"])),
            "192.0.2.1 on b to 10.0.0.5 #2",
        ),
        (&|cluster| cluster.unbind("web"), "192.0.2.1 on none to  #3"),
        (&|cluster| cluster.obey("web"), "gone"),
    ];
    for writes in 0..10 {
        let mut lab = lab();
        lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
        let mut left = Some(writes);
        for (step, expected) in &steps {
            step(&mut lab.cluster);
            lab = go_on(lab, &mut left);
            assert_eq!(lab.cluster.shown("web"), *expected, "after {writes} writes");
        }
        assert!(lab.cluster.claims.is_empty(), "after {writes} writes");
    }
}

/// Goes on until nothing more happens, and starts again where nothing is `left`: the last write was made and its
/// answer is lost.
fn go_on(mut lab: Lab, left: &mut Option<usize>) -> Lab {
    loop {
        lab.catch_up();
        let writes = lab.poll();
        if writes.is_empty() {
            return lab;
        }
        for write in writes {
            let outcome = lab.cluster.perform(&write);
            match left {
                Some(0) => {
                    *left = None;
                    lab = lab.restart();
                    lab.pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
                    lab.start();
                    break;
                }
                Some(more) => *more -= 1,
                None => {}
            }
            lab.index.settle(&write, outcome, lab.now);
        }
    }
}
