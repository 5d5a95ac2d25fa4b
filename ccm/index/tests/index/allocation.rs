use std::time::Duration;

use berth_api::reason;
use berth_index::Source;
use berth_index::finalizers::Finalizers;
use berth_index::service::{Service, Standing};
use berth_index::write::Write;
use berth_ipam::{Family, FamilyPolicy};

use crate::cluster::{Lab, dual, ip, key, service};

const SECOND: Duration = Duration::from_secs(1);

fn lab() -> Lab {
    Lab::with_pools([("cidr-global", "192.0.2.0/29,2001:db8::/125"), ("reuse-delay", "0s")])
}

fn pinned(name: &str, addresses: &str) -> Service {
    Service { annotated: Some(addresses.to_owned()), ..service(name) }
}

#[test]
fn an_address_costs_one_claim_and_one_patch() {
    let mut lab = lab();
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    assert!(
        matches!(&lab.writes[..], [Write::CreateClaim { .. }, Write::PatchService { .. }]),
        "{:?}",
        lab.writes
    );
    assert_eq!(lab.told("web", reason::ADDRESS_ALLOCATED), 1);
    let web = &lab.cluster.services[&crate::cluster::key("web")];
    assert!(web.labelled && web.has_finalizer());
    assert_eq!(web.deprecated.as_deref(), Some("192.0.2.1"));
}

#[test]
fn what_the_announcer_and_others_write_costs_nothing() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.cost();
    lab.cluster.announce("web");
    lab.edit("web", |_| {});
    lab.edit("web", |web| web.annotated = Some(" 192.0.2.1 ,".to_owned()));
    lab.pass(60 * SECOND);
    assert_eq!(lab.cost(), 0);
}

#[test]
fn nothing_is_given_out_before_everything_is_listed() {
    let mut lab = lab().restart();
    lab.pools([("cidr-global", "192.0.2.0/29")]);
    lab.cluster.create(service("web"));
    lab.index.lead(lab.now);
    for source in Source::REQUIRED.into_iter().filter(|source| *source != Source::Claims) {
        lab.catch_up();
        lab.index.listed(source, lab.now);
        assert_eq!(lab.poll(), [], "{source:?}");
    }
    lab.index.listed(Source::Claims, lab.now);
    assert_eq!(lab.poll().len(), 1);
}

#[test]
fn a_follower_writes_nothing() {
    let mut lab = lab();
    lab.index.follow();
    lab.create(service("web"));
    assert_eq!(lab.cost(), 0);
    lab.index.lead(lab.now);
    lab.settle();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn families_come_in_the_order_of_the_service() {
    let mut lab = lab();
    lab.create(dual("six", FamilyPolicy::RequireDualStack, [Family::V6, Family::V4]));
    assert_eq!(lab.cluster.addresses("six"), "2001:db8::,192.0.2.1");
    assert_eq!(lab.cost(), 3);
}

#[test]
fn a_second_family_is_added_and_the_first_stays() {
    let mut lab = lab();
    lab.create(service("web"));
    let both = dual("web", FamilyPolicy::RequireDualStack, [Family::V4, Family::V6]).families;
    lab.edit("web", |web| web.families = both);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1,2001:db8::");
    lab.edit("web", |web| web.families = service("x").families);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    assert_eq!(lab.cluster.holder("2001:db8::"), None);
}

#[test]
fn required_dual_stack_takes_both_or_none() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29")]);
    lab.create(dual("both", FamilyPolicy::RequireDualStack, [Family::V4, Family::V6]));
    assert!(lab.cluster.claims.is_empty());
    assert_eq!(lab.cluster.reason("both"), Some((false, "FamilyUnavailable".to_owned())));
    lab.create(dual("either", FamilyPolicy::PreferDualStack, [Family::V4, Family::V6]));
    assert_eq!(lab.cluster.addresses("either"), "192.0.2.1");
    lab.pools([("cidr-global", "192.0.2.0/29,2001:db8::/125")]);
    lab.settle();
    assert_eq!(lab.cluster.addresses("both"), "192.0.2.2,2001:db8::");
    assert_eq!(lab.cluster.addresses("either"), "192.0.2.1,2001:db8::1");
    assert_eq!(lab.cluster.reason("both"), Some((true, "AddressAllocated".to_owned())));
}

#[test]
fn the_longest_waiting_service_is_served_first_and_told_once() {
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.1"), ("reuse-delay", "0s")]);
    lab.create(Service { created: 1, ..service("first") });
    lab.create(Service { created: 2, ..service("zz-second") });
    lab.create(Service { created: 3, ..service("aa-third") });
    for name in ["zz-second", "aa-third"] {
        assert_eq!(lab.cluster.reason(name), Some((false, "PoolExhausted".to_owned())));
    }
    assert_eq!(lab.index.waiting()["PoolExhausted"], 2);
    lab.cost();
    lab.cluster.create(Service { created: 4, ..service("fourth") });
    lab.cluster.delete("first");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("zz-second".to_owned()));
    assert_eq!(lab.told("aa-third", "PoolExhausted"), 1);
    lab.pools([("range-global", "192.0.2.1-192.0.2.2"), ("reuse-delay", "0s")]);
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.2"), Some("aa-third".to_owned()));
}

#[test]
fn a_freed_address_rests_before_the_next_one_gets_it() {
    let mut lab =
        Lab::with_pools([("range-global", "192.0.2.1-192.0.2.1"), ("reuse-delay", "30s")]);
    lab.create(service("first"));
    lab.cluster.delete("first");
    lab.settle();
    lab.create(service("second"));
    lab.pass(29 * SECOND);
    assert_eq!(lab.cluster.addresses("second"), "");
    assert!(lab.index.deadline().unwrap() <= lab.now + SECOND);
    lab.pass(SECOND);
    assert_eq!(lab.cluster.addresses("second"), "192.0.2.1");
}

#[test]
fn an_address_in_use_is_refused_to_a_new_service() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.create(pinned("late", "192.0.2.1"));
    assert_eq!(lab.cluster.reason("late"), Some((false, "AddressInUse".to_owned())));
    assert_eq!(lab.cluster.claims.len(), 1);
    lab.cost();
    lab.pass(600 * SECOND);
    assert_eq!(lab.cost(), 0, "a refusal is written once");
    lab.cluster.delete("web");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("late".to_owned()));
}

#[test]
fn an_edit_moves_the_service_by_annotation_and_by_field() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.edit("web", |web| web.annotated = Some("198.51.100.9".to_owned()));
    assert_eq!(lab.cluster.claims.keys().copied().collect::<Vec<_>>(), [ip("198.51.100.9")]);
    assert_eq!(
        lab.cluster.services[&crate::cluster::key("web")].deprecated.as_deref(),
        Some("198.51.100.9")
    );
    lab.edit("web", |web| web.deprecated = Some("192.0.2.3".to_owned()));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.3");
    assert_eq!(lab.cluster.claims.keys().copied().collect::<Vec<_>>(), [ip("192.0.2.3")]);
    // Both at once: the annotation wins.
    lab.edit("web", |web| {
        web.annotated = Some("192.0.2.4".to_owned());
        web.deprecated = Some("192.0.2.5".to_owned());
    });
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.4");
}

#[test]
fn a_move_to_an_address_in_use_is_refused_and_the_old_one_stays() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.create(service("shy"));
    for edit in [
        (|shy: &mut Service| shy.annotated = Some("192.0.2.1".to_owned())) as fn(&mut Service),
        |shy| shy.deprecated = Some("192.0.2.1".to_owned()),
    ] {
        lab.edit("shy", edit);
        assert_eq!(lab.cluster.addresses("shy"), "192.0.2.2");
        assert_eq!(
            lab.cluster.services[&crate::cluster::key("shy")].deprecated.as_deref(),
            Some("192.0.2.2")
        );
    }
    assert_eq!(lab.told("shy", "AddressInUse"), 2);
    assert_eq!(lab.cluster.reason("shy"), None);
}

#[test]
fn the_old_address_is_given_back_when_the_announcer_has_left_it() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.cluster.announce("web");
    lab.edit("web", |web| web.annotated = Some("192.0.2.5".to_owned()));
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    lab.cluster.announce("web");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
    // An announcer that is not there is not waited for.
    lab.edit("web", |web| web.annotated = Some("192.0.2.6".to_owned()));
    lab.pass(3 * SECOND);
    assert_eq!(lab.cluster.claims.keys().copied().collect::<Vec<_>>(), [ip("192.0.2.6")]);
}

#[test]
fn an_annotation_that_is_no_address_is_told_and_harms_nobody_else() {
    let mut lab = lab();
    lab.create(pinned("bad", "192.0.2.300"));
    lab.create(service("good"));
    assert_eq!(lab.cluster.addresses("good"), "192.0.2.1");
    assert_eq!(lab.cluster.addresses("bad"), "192.0.2.300");
    assert_eq!(lab.cluster.reason("bad"), Some((false, "InvalidAddress".to_owned())));
    lab.edit("bad", |bad| bad.annotated = Some("192.0.2.3,nonsense!".to_owned()));
    assert_eq!(lab.cluster.holder("192.0.2.3"), Some("bad".to_owned()));
}

#[test]
fn an_annotation_that_is_too_long_is_told_in_a_few_words_of_one_line() {
    let mut lab = lab();
    let read = |name: &str, text: String| {
        let object = serde_json::json!({
            "metadata": { "namespace": "shop", "name": name, "annotations": { "kube-vip.io/loadbalancerIPs": text } },
            "spec": { "type": "LoadBalancer" },
        });
        let object = serde_json::from_value(object).unwrap();
        Service::read(&object, &berth_api::service::ClassPolicy::default()).unwrap()
    };
    for (name, text) in [("long", "x".repeat(261_900)), ("lines", "a\nb\u{1b}!".repeat(20))] {
        let annotated = read(name, text);
        let (annotated, left_out) = (annotated.annotated, annotated.left_out);
        lab.create(Service { annotated, left_out, ..service(name) });
        assert_eq!(lab.cluster.reason(name), Some((false, "InvalidAddress".to_owned())), "{name}");
    }
    let notes: Vec<&String> = lab.told.iter().map(|(_, _, note)| note).collect();
    let fits = |note: &&String| note.len() < 1024 && !note.contains(char::is_control);
    assert!(notes.len() >= 2 && notes.iter().all(fits), "{notes:?}");
}

#[test]
fn a_removed_annotation_or_label_or_finalizer_is_put_back() {
    let mut lab = lab();
    lab.create(service("web"));
    for strip in [
        (|web: &mut Service| web.annotated = None) as fn(&mut Service),
        |web| web.labelled = false,
        |web| web.finalizers = Default::default(),
        |web| web.deprecated = None,
    ] {
        lab.cost();
        lab.edit("web", strip);
        assert_eq!(lab.cost(), 1);
        assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    }
}

#[test]
fn an_ignored_service_is_left_alone_and_keeps_what_it_has() {
    let mut lab = lab();
    lab.create(Service { standing: Standing::Ignored, ..service("alone") });
    lab.create(service("web"));
    lab.cost();
    lab.edit("web", |web| web.standing = Standing::Ignored);
    lab.edit("web", |web| web.annotated = Some("192.0.2.5".to_owned()));
    assert_eq!(lab.cost(), 0);
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    lab.cluster.delete("web");
    lab.settle();
    assert!(lab.cluster.claims.is_empty() && lab.cluster.services.len() == 1);
}

/// Cloud controller managers hold what they have made by the same finalizer.
#[test]
fn the_finalizer_of_who_serves_an_ignored_service_is_left_to_them() {
    let mut lab = lab();
    let theirs = Finalizers { ours: Some(0), others: 0 };
    let ignored = Service { standing: Standing::Ignored, ..service("balanced") };
    lab.create(Service { finalizers: theirs, ..ignored });
    lab.create(service("web"));
    lab.edit("web", |web| {
        (web.standing, web.labelled) = (Standing::Ignored, false);
    });
    lab.cost();
    lab.cluster.delete("balanced");
    lab.settle();
    assert_eq!(lab.cost(), 0);
    assert!(lab.cluster.services.contains_key(&key("balanced")));

    lab.cluster.delete("web");
    lab.settle();
    assert!(lab.cluster.claims.is_empty(), "who holds an address of ours is let go of");
    assert!(!lab.cluster.services.contains_key(&key("web")));
}

#[test]
fn a_dhcp_pool_writes_the_marker_and_claims_nothing() {
    let mut lab = Lab::with_pools([("cidr-global", "0.0.0.0/32")]);
    lab.create(service("web"));
    lab.create(service("other"));
    assert_eq!(lab.cluster.addresses("web"), "0.0.0.0");
    assert_eq!(lab.cluster.addresses("other"), "0.0.0.0");
    assert_eq!(lab.cost(), 2);
    lab.cluster.delete("web");
    lab.settle();
    assert_eq!(lab.cluster.services.len(), 1);
}

#[test]
fn the_pools_interface_is_written_once_and_the_users_is_kept() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("interface-global", "eth1")]);
    lab.create(service("web"));
    let wrote = |lab: &Lab| {
        lab.writes.iter().any(|write| matches!(write, Write::PatchService { change, .. } if change.interface.is_some()))
    };
    assert!(wrote(&lab));
    lab.cost();
    lab.create(Service { has_interface: true, ..service("own") });
    lab.edit("web", |web| web.has_interface = false);
    lab.edit("web", |web| web.annotated = Some("192.0.2.4".to_owned()));
    assert!(!wrote(&lab));
}

#[test]
fn thousands_that_wait_cost_no_write_each_time_something_is_freed() {
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.1"), ("reuse-delay", "0s")]);
    for number in 0..3000 {
        lab.cluster.create(Service { created: number, ..service(&format!("s{number}")) });
    }
    lab.settle();
    lab.cost();
    lab.cluster.delete("s0");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("s1".to_owned()));
    // Claim and finalizer of the first; claim, patch and condition of the second.
    assert_eq!(lab.cost(), 5);
}
