use std::net::IpAddr;
use std::time::Duration;

use berth_api::reason;
use berth_index::finalizers::Finalizers;
use berth_index::intake::{Change, Host};
use berth_index::service::{Service, Standing};
use berth_index::write::Write;
use berth_ipam::{Owner, OwnerKind};

use crate::cluster::{Lab, service};

const SECOND: Duration = Duration::from_secs(1);

fn lab() -> Lab {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")]);
    lab.create(service("web"));
    lab.cost();
    lab
}

#[test]
fn an_address_is_not_free_while_the_announcer_may_still_answer() {
    let mut lab = lab();
    lab.cluster.announce("web");
    lab.cluster.delete("web");
    lab.settle();
    lab.pass(SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    lab.cluster.announce("web");
    lab.settle();
    assert!(lab.cluster.claims.is_empty() && lab.cluster.services.is_empty());
    assert!(
        matches!(&lab.writes[..], [Write::LeaveClaim { .. }, Write::PatchService { .. }]),
        "the claim goes before the finalizer: {:?}",
        lab.writes
    );
}

#[test]
fn a_dead_announcer_holds_a_deletion_up_for_three_seconds_only() {
    let mut lab = lab();
    lab.cluster.announce("web");
    lab.cluster.delete("web");
    lab.settle();
    assert_eq!(lab.index.deadline(), Some(lab.now + 3 * SECOND));
    lab.pass(3 * SECOND);
    assert!(lab.cluster.claims.is_empty() && lab.cluster.services.is_empty());
}

#[test]
fn a_service_that_changes_its_type_gives_its_address_back() {
    let mut lab = lab();
    lab.edit("web", |web| {
        web.standing = Standing::Foreign;
        web.finalizers.others += 1;
    });
    assert!(lab.cluster.claims.is_empty());
    let web = &lab.cluster.services[&crate::cluster::key("web")];
    assert_eq!((web.labelled, &web.annotated, &web.deprecated), (false, &None, &None));
    assert_eq!(web.finalizers, Finalizers { ours: None, others: 1 });
    assert_eq!(lab.told("web", reason::ADDRESS_RELEASED), 1);
    lab.edit("web", |web| web.standing = Standing::Ours);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn services_of_others_are_never_touched() {
    let mut lab = lab();
    lab.create(Service {
        standing: Standing::Foreign,
        finalizers: Finalizers::default().with(true),
        published: vec!["198.51.100.1".parse().unwrap()],
        ..service("theirs")
    });
    lab.create(Service { standing: Standing::Foreign, labelled: true, ..service("labelled") });
    lab.cluster.delete("theirs");
    lab.settle();
    assert_eq!(lab.cost(), 0);
}

#[test]
fn the_finalizer_of_the_stock_provider_is_taken_off() {
    let mut lab = lab();
    let finalizers = Finalizers::default().with(true);
    lab.cluster.create(Service { finalizers, ..service("old") });
    lab.cluster.delete("old");
    lab.settle();
    assert_eq!(lab.cluster.services.len(), 1);
}

#[test]
fn a_claim_whose_owner_is_gone_is_given_back() {
    let mut lab = lab();
    // Somebody took the finalizer off by force.
    lab.cluster.edit("web", |web| {
        web.finalizers = Default::default();
        web.deleting = true;
    });
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    lab.pass(3 * SECOND);
    assert!(lab.cluster.claims.is_empty());
}

#[test]
fn a_claim_of_a_service_that_was_made_anew_is_not_the_new_ones() {
    let mut lab = lab();
    lab.cluster.edit("web", |web| {
        web.finalizers = Default::default();
        web.deleting = true;
    });
    lab.cluster.create(service("web"));
    lab.settle();
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.pass(3 * SECOND);
    assert_eq!(lab.cluster.claims.len(), 1);
}

/// A claim whose owner the watch has not shown yet.
fn unseen_owner() -> Lab {
    let mut lab = lab();
    lab.cluster.create(service("late"));
    let uid = lab.cluster.services[&crate::cluster::key("late")].uid.clone();
    lab.miss();
    lab.cluster.claim("192.0.2.5", Owner::new(OwnerKind::Service, "shop", "late", uid));
    lab.settle();
    lab
}

#[test]
fn a_claim_whose_owner_the_watch_has_not_shown_yet_is_kept() {
    let mut lab = unseen_owner();
    lab.pass(3 * SECOND);
    assert_eq!(
        lab.cluster.addresses("late"),
        "192.0.2.5",
        "the question whether it is gone showed it"
    );
}

#[test]
fn a_claim_whose_owner_is_gone_before_the_answer_that_it_is_there_is_given_back() {
    let mut lab = unseen_owner();
    for _ in 0..20 {
        for write in lab.poll() {
            let outcome = lab.cluster.perform(&write);
            if matches!(&write, Write::LeaveClaim { orphan: true, .. })
                && lab.cluster.services.contains_key(&crate::cluster::key("late"))
            {
                lab.cluster.edit("late", |late| {
                    late.finalizers = Default::default();
                    late.deleting = true;
                });
            }
            lab.catch_up();
            lab.index.settle(&write, outcome, lab.now);
        }
        lab.now += SECOND;
    }
    assert_eq!(lab.cluster.services.len(), 1, "it is gone");
    assert_eq!(lab.cluster.holder("192.0.2.5"), None);
}

#[test]
fn a_claim_that_somebody_deletes_is_made_again() {
    let mut lab = lab();
    let claim = lab.cluster.claims.values().next().unwrap().clone();
    let write = Write::LeaveClaim {
        address: claim.address,
        uid: claim.uid,
        version: claim.version,
        owner: claim.holders[0].owner.clone(),
        others: Vec::new(),
        orphan: false,
    };
    lab.cluster.perform(&write);
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn a_claim_for_something_that_is_not_watched_is_kept() {
    let mut lab = lab();
    lab.cluster.claim("192.0.2.5", Owner::new(OwnerKind::VipProxy, "shop", "vm", "uid-vm"));
    lab.settle();
    lab.pass(60 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.5"), Some("vm".to_owned()));
    lab.create(Service { annotated: Some("192.0.2.5".to_owned()), ..service("greedy") });
    assert_eq!(lab.cluster.reason("greedy"), Some((false, "AddressInUse".to_owned())));
}

#[test]
fn a_watch_that_is_faster_than_the_answer_to_a_delete_leaves_nobody_waiting() {
    let mut lab = Lab::with_pools([("range-global", "192.0.2.1-192.0.2.1"), ("reuse-delay", "0s")]);
    lab.create(service("first"));
    lab.create(Service { created: 1, ..service("second") });
    lab.cluster.delete("first");
    lab.catch_up();
    let [delete] = &lab.poll()[..] else { panic!("one delete and nothing else") };
    let outcome = lab.cluster.perform(delete);
    // The watch shows the deletion, and the index is asked, before the answer is here.
    lab.catch_up();
    assert_eq!(lab.poll(), []);
    lab.index.settle(delete, outcome, lab.now);
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("second".to_owned()));
}

#[test]
fn who_comes_does_not_wait_until_all_who_go_are_gone() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/24"), ("reuse-delay", "0s")]);
    for number in 0..20 {
        lab.create(service(&format!("old-{number}")));
    }
    for number in 0..20 {
        lab.cluster.delete(&format!("old-{number}"));
        lab.cluster.create(Service { created: 1, ..service(&format!("new-{number}")) });
    }
    lab.catch_up();
    // A slow API server leaves one slot at a time.
    let mut claims = Vec::new();
    for _ in 0..20 {
        claims.extend(lab.index.poll(lab.now, 1));
    }
    let coming = claims.iter().filter(|write| matches!(write, Write::CreateClaim { .. })).count();
    let going = claims.iter().filter(|write| matches!(write, Write::LeaveClaim { .. })).count();
    assert_eq!((coming, going), (15, 5));
}

#[test]
fn a_service_that_loses_class_and_label_at_once_is_let_go() {
    let mut lab = Lab::with_pools([("cidr-global", "192.0.2.0/29")]);
    lab.create(service("web"));
    lab.create(Service { standing: Standing::Foreign, ..service("other") });
    lab.edit("other", |other| other.finalizers = Finalizers { ours: Some(0), others: 0 });
    lab.edit("web", |web| (web.standing, web.labelled) = (Standing::Foreign, false));
    lab.pass(Duration::from_secs(10));
    assert!(lab.cluster.claims.is_empty());
    lab.cluster.delete("web");
    lab.cluster.delete("other");
    lab.pass(Duration::from_secs(10));
    let left: Vec<_> = lab.cluster.services.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(left, ["other"], "another controller's finalizer stays");
}

#[test]
fn what_routers_may_lead_to_a_node_that_is_gone_is_given_to_nobody_meanwhile() {
    let mut lab =
        Lab::with_pools([("range-global", "192.0.2.1-192.0.2.2"), ("reuse-delay", "10s")]);
    let told = |keeps: Option<u64>| {
        let keeps = keeps.map(Duration::from_secs);
        let host = Host { node: "a".to_owned(), keeps, ..Host::default() };
        Change::Host(Box::new(host))
    };
    lab.show(told(Some(150)));
    for name in ["web", "next"] {
        lab.create(service(name));
    }
    let address: IpAddr = lab.cluster.addresses("web").parse().unwrap();
    lab.cluster.delete("web");
    lab.settle();
    let released = lab.now;
    let until = lab.index.ledger().resting(address).map(|(until, _)| until);
    assert_eq!(until, Some(released + 150 * SECOND));
    lab.create(service("late"));
    lab.pass(149 * SECOND);
    assert_eq!(lab.cluster.addresses("late"), "", "a router may lead to a node that was killed");
    lab.pass(SECOND);
    assert_eq!(lab.cluster.addresses("late"), address.to_string());
    // Who tells no routers any more was believed by some for as long.
    lab.show(told(None));
    lab.cluster.delete("late");
    lab.settle();
    let until = lab.index.ledger().resting(address).map(|(until, _)| until);
    assert_eq!(until, Some(lab.now + 150 * SECOND));
    lab.pass(200 * SECOND);
    lab.create(service("last"));
    lab.cluster.delete("last");
    lab.settle();
    let until = lab.index.ledger().resting(address).map(|(until, _)| until);
    assert_eq!(until, Some(lab.now + 10 * SECOND), "the reuse delay alone");
}
