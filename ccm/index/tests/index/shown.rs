//! What the status of a Service shows is led to it by kube-proxy, whoever holds the address by then: nobody else gets it.

use std::time::Duration;

use berth_index::finalizers::Finalizers;
use berth_index::service::{Service, Standing};
use berth_index::write::Write;
use berth_ipam::{Sharing, TrafficPolicy};

use crate::cluster::{Lab, ip, service};

const SECOND: Duration = Duration::from_secs(1);
const POOL: (&str, &str) = ("range-global", "192.0.2.1-192.0.2.2,2001:db8::1-2001:db8::2");
const AT_ONCE: (&str, &str) = ("reuse-delay", "0s");

/// A Service that was announced and deleted, and is held by a finalizer of its own; its claim is given back after a while.
fn kept(lab: &mut Lab, name: &str) {
    lab.create(service(name));
    lab.cluster.announce(name);
    lab.cluster.edit(name, |kept| kept.finalizers.others += 1);
    lab.cluster.delete(name);
    lab.settle();
    lab.pass(3 * SECOND);
    assert!(lab.cluster.claims.is_empty());
}

fn pinned(name: &str, address: &str) -> Service {
    Service { annotated: Some(address.to_owned()), ..service(name) }
}

#[test]
fn what_a_deleted_service_still_shows_is_given_to_nobody_until_it_does_no_longer() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    kept(&mut lab, "mallory/kept");
    lab.create(service("alice/web"));
    assert_eq!(lab.cluster.addresses("alice/web"), "192.0.2.2", "the next of the pool");
    lab.create(pinned("alice/pin", "192.0.2.1"));
    let refused = Some((false, "AddressResting".to_owned()));
    assert_eq!(lab.cluster.reason("alice/pin"), refused);
    let told = |(_, why, note): &(String, &str, String)| {
        *why == "AddressResting" && note.contains("mallory/kept")
    };
    assert!(lab.told.iter().any(told), "by whom");
    lab.create(service("alice/late"));
    assert_eq!(lab.cluster.reason("alice/late"), Some((false, "PoolExhausted".to_owned())));
    lab.pass(600 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), None, "it does not end by time");

    let mut lab = lab.restart();
    lab.pools([POOL, AT_ONCE]);
    lab.start();
    lab.pass(600 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), None, "nor by a restart");
    lab.edit("mallory/kept", |kept| kept.published.clear());
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("late".to_owned()), "who waits is woken");
}

#[test]
fn what_ends_with_the_object_is_free_with_it_and_a_list_anew_does_not_keep_it() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    kept(&mut lab, "mallory/kept");
    lab.create(pinned("alice/pin", "192.0.2.1"));
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
    lab.edit("mallory/kept", |kept| kept.finalizers.others = 0);
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("pin".to_owned()));
}

#[test]
fn services_of_others_count_in_both_families_and_are_not_touched() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    let published = vec![ip("192.0.2.1"), ip("2001:db8::1"), ip("198.51.100.1")];
    lab.create(Service { standing: Standing::Foreign, published, ..service("other/balanced") });
    lab.create(pinned("alice/pin", "2001:db8::1"));
    lab.create(service("alice/web"));
    assert_eq!(lab.cluster.addresses("alice/web"), "192.0.2.2");
    lab.cost();
    lab.edit("other/balanced", |other| other.published.clear());
    lab.create(service("alice/late"));
    assert_eq!(lab.cluster.addresses("alice/late"), "192.0.2.1");
}

#[test]
fn what_a_service_shows_itself_is_its_own_to_ask_for() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    let published = vec![ip("192.0.2.1")];
    lab.create(Service { published, ..pinned("alice/web", "192.0.2.1") });
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("web".to_owned()));
}

#[test]
fn what_is_shown_and_held_by_nobody_counts_against_the_quota_of_who_shows_it() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE, ("quota-mallory", "1")]);
    kept(&mut lab, "mallory/kept");
    lab.create(service("mallory/more"));
    assert_eq!(lab.cluster.reason("mallory/more"), Some((false, "QuotaExceeded".to_owned())));
    lab.edit("mallory/kept", |kept| kept.published.clear());
    assert_eq!(lab.cluster.addresses("mallory/more"), "192.0.2.1");
}

#[test]
fn who_shares_an_address_is_no_obstacle_and_who_has_left_it_is() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE, ("allow-share-global", "true")]);
    let listening = |name: &str, port| {
        let sharing = Sharing {
            ports: [(berth_ipam::Protocol::Tcp, port)].into(),
            policy: TrafficPolicy::Cluster,
        };
        Service { sharing, ..service(name) }
    };
    for (name, port) in [("web", 80), ("admin", 443)] {
        lab.create(listening(name, port));
        lab.cluster.announce(name);
        lab.settle();
    }
    lab.create(listening("dns", 53));
    assert_eq!(lab.cluster.addresses("dns"), "192.0.2.1");
    lab.cluster.edit("admin", |admin| {
        admin.finalizers = Finalizers { others: 1, ..admin.finalizers };
    });
    lab.cluster.delete("admin");
    lab.settle();
    lab.pass(3 * SECOND);
    lab.create(listening("blog", 8080));
    assert_eq!(lab.cluster.addresses("blog"), "192.0.2.2", "its former ports may be anything now");
    lab.edit("admin", |admin| admin.published.clear());
    lab.create(listening("more", 8081));
    assert_eq!(lab.cluster.addresses("more"), "192.0.2.1");
}

#[test]
fn what_a_write_answers_after_its_object_is_gone_is_shown_by_nobody() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    lab.create(service("mallory/late"));
    lab.cluster.announce("mallory/late");
    lab.settle();
    lab.cluster.delete("mallory/late");
    lab.catch_up();
    // The finalizer goes, and with it the object: that is shown before the answer is here.
    for _ in 0..100 {
        let writes = lab.poll();
        for write in writes {
            let outcome = lab.cluster.perform(&write);
            lab.catch_up();
            lab.index.settle(&write, outcome, lab.now);
        }
        lab.now += SECOND;
    }
    assert!(!lab.cluster.services.contains_key(&berth_api::NamespacedName::new("mallory", "late")));
    assert!(lab.cluster.claims.is_empty());
    lab.create(pinned("alice/pin", "192.0.2.1"));
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("pin".to_owned()));
}

#[test]
fn what_a_write_answered_before_its_object_was_gone_is_shown_by_nobody() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    lab.create(service("mallory/late"));
    lab.cluster.announce("mallory/late");
    lab.settle();
    lab.cluster.edit("mallory/late", |late| {
        late.finalizers = Finalizers { others: 1, ..late.finalizers };
    });
    lab.cluster.delete("mallory/late");
    lab.catch_up();
    let late = berth_api::NamespacedName::new("mallory", "late");
    for _ in 0..100 {
        for write in lab.poll() {
            let outcome = lab.cluster.perform(&write);
            // Its own finalizer goes after ours, and that is shown before the answer to ours is here.
            let is_free = matches!(write, Write::PatchService { .. });
            if is_free && lab.cluster.services.contains_key(&late) {
                lab.cluster.edit("mallory/late", |late| late.finalizers = Finalizers::default());
            }
            lab.catch_up();
            lab.index.settle(&write, outcome, lab.now);
        }
        lab.now += SECOND;
    }
    assert!(!lab.cluster.services.contains_key(&late) && lab.cluster.claims.is_empty());
    lab.create(pinned("alice/pin", "192.0.2.1"));
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("pin".to_owned()));
}
