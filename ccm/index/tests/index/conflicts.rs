//! Another host on the LAN answers for an address, as an announcer has written.

use std::time::Duration;

use berth_api::conflict::Conflicts;
use berth_api::reason;
use berth_api::service::ClassPolicy;
use berth_index::ASIDE;
use berth_index::binding::Binding;
use berth_index::intake::{Change, Host};
use berth_index::rests;
use berth_index::service::Service;
use berth_index::write::Write;
use berth_ipam::{Family, FamilyPolicy};
use serde_json::json;

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, dual, ip, service};

fn lab(range: &str) -> Lab {
    Lab::with_pools([("range-global", range), ("reuse-delay", "0s")])
}

/// What is read of a Service with this annotation, and this message of the condition.
fn written(annotation: &str, message: Option<&str>) -> Conflicts {
    let condition = message.map(|message| {
        json!({
            "type": "berth.dev/AddressConflict", "status": "True", "reason": "AddressConflict",
            "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    });
    let object = json!({
        "metadata": {
            "namespace": "shop", "name": "web", "annotations": { "berth.dev/conflict": annotation },
        },
        "spec": { "type": "LoadBalancer" },
        "status": { "conditions": Vec::from_iter(condition) },
    });
    let object = serde_json::from_value(object).unwrap();
    Service::read(&object, &ClassPolicy::default()).unwrap().conflicts
}

/// An announcer finds another host with the address.
fn find(lab: &mut Lab, name: &str, address: &str) {
    let text = format!("{address}=02:00:00:00:00:09");
    let message =
        format!("{address} is not announced: another host, 02:00:00:00:00:09, answers for it");
    lab.edit(name, |service| service.conflicts = written(&text, Some(&message)));
}

/// The announcer serves what the Service has now, and no other host has that.
fn announce(lab: &mut Lab, name: &str) {
    lab.cluster.announce(name);
    lab.edit(name, |service| service.conflicts = Conflicts::default());
}

fn pinned(name: &str, address: &str) -> Service {
    Service { annotated: Some(address.to_owned()), ..service(name) }
}

#[test]
fn a_service_gets_the_next_address_and_nobody_gets_the_taken_one_for_ten_minutes() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    find(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    assert_eq!(lab.told("web", reason::ADDRESS_SET_ASIDE), 1);
    announce(&mut lab, "web");
    assert_eq!(lab.cluster.holder("192.0.2.1"), None, "it is given back");
    lab.create(service("later"));
    assert_eq!(lab.cluster.addresses("later"), "192.0.2.3");
    lab.pass(ASIDE);
    lab.create(service("last"));
    assert_eq!(lab.cluster.addresses("last"), "192.0.2.1");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2", "an address never moves by itself");
}

#[test]
fn what_the_user_asked_for_is_kept_and_the_condition_says_why_it_is_not_served() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    lab.create(pinned("web", "192.0.2.3"));
    lab.create(Service { deprecated: Some("192.0.2.4".to_owned()), ..service("old") });
    for (name, address) in [("web", "192.0.2.3"), ("old", "192.0.2.4")] {
        find(&mut lab, name, address);
        assert_eq!(lab.cluster.addresses(name), address);
        let expected = Some((true, reason::ADDRESS_CONFLICT.to_owned()));
        assert_eq!(lab.cluster.reason(name), expected);
        assert_eq!(lab.told(name, reason::ADDRESS_SET_ASIDE), 0);
    }
    announce(&mut lab, "web");
    let expected = Some((true, reason::ADDRESS_ALLOCATED.to_owned()));
    assert_eq!(lab.cluster.reason("web"), expected);
}

#[test]
fn without_another_address_the_service_keeps_what_it_has_and_says_so() {
    let mut lab = lab("192.0.2.1");
    lab.create(service("web"));
    find(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    assert_eq!(lab.cluster.reason("web"), Some((false, "PoolExhausted".to_owned())));
    // The other host goes.
    announce(&mut lab, "web");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    assert_eq!(lab.cluster.reason("web"), Some((true, reason::ADDRESS_ALLOCATED.to_owned())));
}

#[test]
fn a_service_that_waits_gets_another_address_when_there_is_one() {
    let mut lab = lab("192.0.2.1-192.0.2.2");
    lab.create(service("first"));
    lab.create(service("web"));
    find(&mut lab, "web", "192.0.2.2");
    lab.cluster.delete("first");
    lab.settle();
    lab.pass(Duration::from_secs(3));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn a_restart_in_the_middle_of_the_move_ends_in_the_same_place() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    lab.create(service("web"));
    let (text, message) = ("192.0.2.1=02:00:00:00:00:09", "192.0.2.1, 02:00:00:00:00:09");
    lab.cluster.edit("web", |service| service.conflicts = written(text, Some(message)));
    let owner = lab.cluster.services[&crate::cluster::key("web")].owner();
    lab.cluster.claim("192.0.2.2", owner);
    let mut lab = lab.restart();
    lab.pools([("range-global", "192.0.2.1-192.0.2.4")]);
    lab.start();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.pass(Duration::from_secs(3));
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
}

#[test]
fn a_tenant_that_names_every_address_of_the_pool_moves_nobody_and_takes_nothing_away() {
    let mut lab = lab("192.0.2.1-192.0.2.9");
    lab.create(service("web"));
    let all: Vec<String> = (1..10).map(|n| format!("192.0.2.{n}=02:00:00:00:00:09")).collect();
    lab.edit("web", |web| web.conflicts = written(&all.join(","), None));
    // One of them another host does have: that entry alone counts.
    lab.create(service("found"));
    let message = "192.0.2.2 is not announced: another host, 02:00:00:00:00:09, answers for it";
    lab.edit("found", |found| found.conflicts = written(&all.join(","), Some(message)));
    for _ in 0..3 {
        lab.pass(Duration::from_secs(60));
    }
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    assert_eq!(lab.told("web", reason::ADDRESS_SET_ASIDE), 0);
    assert_eq!(lab.cluster.addresses("found"), "192.0.2.3");
    assert_eq!(lab.index.ledger().asides().count(), 1);
    for number in 4..10 {
        let name = format!("web-{number}");
        lab.create(service(&name));
        assert_eq!(lab.cluster.addresses(&name), format!("192.0.2.{number}"));
    }
}

#[test]
fn a_claimant_gets_another_address_at_most_once_a_minute_and_then_without_an_event() {
    let mut lab = lab("192.0.2.1-192.0.2.9");
    lab.create(service("web"));
    find(&mut lab, "web", "192.0.2.1");
    announce(&mut lab, "web");
    let began = lab.now;
    lab.pass(Duration::from_secs(5));
    find(&mut lab, "web", "192.0.2.2");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2", "it waits");
    assert_eq!(lab.index.deadline(), Some(began + Duration::from_secs(60)));
    assert_eq!(lab.index.ledger().aside(ip("192.0.2.2")), None, "and its address is not set aside");
    // Another one may at once.
    lab.create(service("other"));
    find(&mut lab, "other", "192.0.2.3");
    assert_eq!(lab.cluster.addresses("other"), "192.0.2.4");
    lab.pass(Duration::from_secs(54));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.5");
    assert_eq!(lab.told("web", reason::ADDRESS_SET_ASIDE), 2);
}

#[test]
fn a_node_of_the_cluster_that_is_late_to_be_silent_costs_nobody_its_address() {
    let mut lab = lab("192.0.2.1-192.0.2.9,2001:db8::1-2001:db8::9");
    let lease = |macs| Host { node: "node-7".to_owned(), macs, ..Host::default() };
    lab.show(Change::Host(Box::new(lease([[2, 0, 0, 0, 0, 9]].into()))));
    lab.create(dual("web", FamilyPolicy::RequireDualStack, Family::ALL));
    for address in ["192.0.2.1", "2001:db8::1"] {
        find(&mut lab, "web", address);
        assert_eq!(lab.cluster.addresses("web"), "192.0.2.1,2001:db8::1");
        // It is silent soon, and once more later: no such time counts for another.
        lab.pass(Duration::from_secs(29));
        announce(&mut lab, "web");
    }
    assert_eq!(lab.index.ledger().asides().count(), 0);
    find(&mut lab, "web", "192.0.2.1");
    lab.pass(Duration::from_secs(29));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1,2001:db8::1");
    lab.pass(Duration::from_secs(1));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2,2001:db8::1", "nobody cleans up there");
    let told = |note: &str| lab.told.iter().any(|(.., told)| told.contains(note));
    assert!(told("02:00:00:00:00:09 of node node-7, answers for 192.0.2.1"));
    // A host of which no node tells is a stranger.
    lab.show(Change::Host(Box::new(lease([].into()))));
    lab.create(service("other"));
    find(&mut lab, "other", "192.0.2.3");
    assert_eq!(lab.cluster.addresses("other"), "192.0.2.4");
}

#[test]
fn of_two_families_each_is_exchanged_at_once() {
    let mut lab = lab("192.0.2.1-192.0.2.9,2001:db8::1-2001:db8::9");
    lab.create(dual("web", FamilyPolicy::RequireDualStack, Family::ALL));
    find(&mut lab, "web", "192.0.2.1");
    find(&mut lab, "web", "2001:db8::1");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2,2001:db8::2");
    announce(&mut lab, "web");
    find(&mut lab, "web", "2001:db8::2");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2,2001:db8::2");
}

#[test]
fn what_is_set_aside_goes_on_being_shunned_within_the_minute() {
    let mut lab = lab("192.0.2.1");
    lab.create(service("web"));
    find(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1", "there is no other");
    lab.pass(Duration::from_secs(10));
    lab.pools([("range-global", "192.0.2.1-192.0.2.2"), ("reuse-delay", "0s")]);
    lab.settle();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
}

#[test]
fn at_full_quota_a_claimant_keeps_the_address_of_another_host_and_is_told_why() {
    let pools = |quota| [("range-global", "192.0.2.1-192.0.2.9"), ("quota-shop", quota)];
    let mut lab = Lab::with_pools(pools("2"));
    lab.create(service("web"));
    find(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2", "within its quota it is exchanged");
    announce(&mut lab, "web");
    lab.pass(Duration::from_secs(60));
    find(&mut lab, "web", "192.0.2.2");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    assert_eq!(lab.cluster.reason("web"), Some((false, "QuotaExceeded".to_owned())));
    let told = lab.told.iter().find(|(_, reason, _)| *reason == "QuotaExceeded").unwrap();
    assert!(told.2.contains("1 of them are set aside"), "{told:?}");
    lab.create(service("more"));
    assert_eq!(lab.cluster.reason("more"), Some((false, "QuotaExceeded".to_owned())));
    lab.create(service("other/web"));
    assert_eq!(lab.cluster.addresses("other/web"), "192.0.2.3");
    // With room for both, the other gets the next one, and this one is exchanged all the same.
    lab.pools(pools("4"));
    lab.settle();
    assert_eq!(lab.cluster.addresses("more"), "192.0.2.4");
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.5");
}

#[test]
fn what_was_set_aside_counts_against_the_quota_over_a_restart() {
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.9"), ("quota-shop", "2")]);
    lab.create(service("web"));
    find(&mut lab, "web", "192.0.2.1");
    announce(&mut lab, "web");
    let unix = Duration::from_secs(1000);
    let word = rests::write(lab.index.ledger(), lab.now, unix);
    let mut lab = lab.restart();
    for (address, namespace, until) in rests::read(&word, lab.now, unix).unwrap().asides {
        lab.index.set_aside(address, &namespace, until, lab.now);
    }
    lab.pools([("range-global", "192.0.2.1-192.0.2.9"), ("quota-shop", "2")]);
    lab.start();
    lab.create(service("more"));
    assert_eq!(lab.cluster.reason("more"), Some((false, "QuotaExceeded".to_owned())));
}

#[test]
fn what_was_set_aside_before_a_restart_stays_so() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    let end = lab.now + Duration::from_secs(60);
    lab.index.set_aside("192.0.2.1".parse().unwrap(), "shop", end, lab.now);
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.pass(Duration::from_secs(60));
    lab.create(service("later"));
    assert_eq!(lab.cluster.addresses("later"), "192.0.2.1");
}

/// The same of a binding, whose machine runs.
fn find_eip(lab: &mut Lab, name: &str, address: &str) {
    let text = format!("{address}=02:00:00:00:00:09");
    lab.cluster.edit_binding(name, |binding| binding.conflicts = Conflicts::parse(&text));
    lab.settle();
}

/// The node of the machine answers for what the binding has now, and no other host has that.
fn answer_eip(lab: &mut Lab, name: &str) {
    lab.cluster.edit_binding(name, |binding| binding.conflicts = Conflicts::default());
    lab.obey(name);
}

fn bound(lab: &mut Lab, binding: Binding) {
    lab.cluster.run(machine("vm", "a", &["10.0.0.5"]));
    lab.bind(binding);
}

#[test]
fn an_elastic_ip_that_another_host_has_is_exchanged_and_set_aside() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    bound(&mut lab, binding("web", "vm"));
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
    find_eip(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.2 on a to 10.0.0.5 #2");
    assert_eq!(lab.told("web", reason::ADDRESS_SET_ASIDE), 1);
    assert_eq!(lab.cluster.holder("192.0.2.1"), None, "nobody ever answered for it");
    answer_eip(&mut lab, "web");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
    lab.create(service("later"));
    assert_eq!(lab.cluster.addresses("later"), "192.0.2.3");
    lab.pass(ASIDE);
    lab.create(service("last"));
    assert_eq!(lab.cluster.addresses("last"), "192.0.2.1");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.2 on a to 10.0.0.5 #2");
}

#[test]
fn an_elastic_ip_that_was_asked_for_is_waited_for() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    bound(&mut lab, Binding { pin: Some(ip("192.0.2.3")), ..binding("web", "vm") });
    find_eip(&mut lab, "web", "192.0.2.3");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.3 on a to 10.0.0.5 #1");
    assert_eq!(lab.cluster.standing("web"), "+AddressConflict -AwaitingNode");
    assert_eq!(lab.told("web", reason::ADDRESS_SET_ASIDE), 0);
    let writes = lab.cost();
    lab.pass(Duration::from_secs(60));
    assert_eq!(lab.cost(), 0, "after {writes}");
    answer_eip(&mut lab, "web");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
    // Who asks for it no longer may be given another.
    find_eip(&mut lab, "web", "192.0.2.3");
    lab.cluster.edit_binding("web", |web| web.pin = None);
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #2");
}

#[test]
fn an_elastic_ip_whose_claim_was_made_anew_is_still_one_that_was_given() {
    let mut lab = lab("192.0.2.1-192.0.2.4");
    bound(&mut lab, binding("web", "vm"));
    let claim = lab.cluster.claims[&ip("192.0.2.1")].clone();
    let (owner, others) = (claim.holders[0].owner.clone(), Vec::new());
    let (uid, version) = (claim.uid, claim.version);
    let address = claim.address;
    let lost = Write::LeaveClaim { address, uid, version, owner, others, orphan: false };
    lab.cluster.perform(&lost);
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    find_eip(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.2 on a to 10.0.0.5 #2");
}

#[test]
fn without_another_address_a_binding_keeps_what_it_has_and_says_so() {
    let mut lab = lab("192.0.2.1");
    bound(&mut lab, binding("web", "vm"));
    find_eip(&mut lab, "web", "192.0.2.1");
    assert_eq!(lab.cluster.shown("web"), "192.0.2.1 on a to 10.0.0.5 #1");
    assert_eq!(lab.cluster.standing("web"), "+PoolExhausted -AwaitingNode");
    // The other host goes.
    answer_eip(&mut lab, "web");
    assert_eq!(lab.cluster.standing("web"), "+AddressAllocated +Held");
    find_eip(&mut lab, "web", "192.0.2.1");
    lab.pools([("range-global", "192.0.2.1-192.0.2.2"), ("reuse-delay", "0s")]);
    lab.settle();
    assert_eq!(lab.cluster.shown("web"), "192.0.2.2 on a to 10.0.0.5 #2");
}
