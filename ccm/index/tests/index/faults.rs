use std::time::Duration;

use berth_index::finalizers::Finalizers;
use berth_index::intake::Change;
use berth_index::service::Service;
use berth_index::write::{Outcome, Write};
use berth_ipam::{Owner, OwnerKind};

use crate::cluster::{Lab, ip, key, service};

const SECOND: Duration = Duration::from_secs(1);

fn lab() -> Lab {
    Lab::with_pools([("cidr-global", "192.0.2.0/29"), ("reuse-delay", "0s")])
}

fn only(writes: Vec<Write>) -> Write {
    let [write] = <[Write; 1]>::try_from(writes).expect("one write");
    write
}

#[test]
fn an_address_that_another_controller_won_is_passed_over() {
    let mut lab = lab();
    lab.cluster.create(service("web"));
    lab.catch_up();
    let rival = lab.cluster.create(service("rival"));
    lab.cluster.claim("192.0.2.1", rival.owner());
    let write = only(lab.poll());
    let outcome = lab.cluster.perform(&write);
    assert!(matches!(outcome, Outcome::Taken(Some(_))));
    lab.index.settle(&write, outcome, lab.now);
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), Some("rival".to_owned()));
    assert_eq!(
        (lab.cluster.addresses("rival"), lab.cluster.addresses("web")),
        ("192.0.2.1".into(), "192.0.2.2".into())
    );
}

#[test]
fn the_ip_address_of_another_kind_of_controller_is_passed_over() {
    let mut lab = lab();
    lab.cluster.foreign.push(ip("192.0.2.1"));
    lab.create(service("web"));
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.cluster.foreign.clear();
    lab.pass(601 * SECOND);
    lab.create(service("later"));
    assert_eq!(lab.cluster.addresses("later"), "192.0.2.1", "looked at again after a while");
}

#[test]
fn a_claim_that_timed_out_and_was_made_is_taken_up() {
    let mut lab = lab();
    lab.cluster.create(service("web"));
    lab.catch_up();
    let write = only(lab.poll());
    lab.cluster.perform(&write);
    lab.miss();
    lab.index.settle(&write, Outcome::Unknown("timed out".to_owned()), lab.now);
    assert_eq!(lab.poll(), [], "not at once");
    lab.pass(SECOND);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
    assert_eq!(lab.cluster.claims.len(), 1);
}

#[test]
fn a_patch_that_timed_out_and_was_made_is_not_made_again() {
    let mut lab = lab();
    lab.cluster.create(service("web"));
    lab.catch_up();
    let claim = only(lab.poll());
    let outcome = lab.cluster.perform(&claim);
    lab.index.settle(&claim, outcome, lab.now);
    let patch = only(lab.poll());
    lab.cluster.perform(&patch);
    lab.index.settle(&patch, Outcome::Unknown("timed out".to_owned()), lab.now);
    lab.pass(SECOND);
    assert_eq!(lab.cost(), 0);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn a_conflict_is_decided_anew_on_what_the_watch_brings() {
    let mut lab = lab();
    lab.cluster.create(service("web"));
    lab.catch_up();
    let claim = only(lab.poll());
    let outcome = lab.cluster.perform(&claim);
    lab.index.settle(&claim, outcome, lab.now);
    let patch = only(lab.poll());
    lab.cluster.edit("web", |web| web.finalizers.others += 1);
    let outcome = lab.cluster.perform(&patch);
    assert_eq!(outcome, Outcome::Conflict);
    lab.index.settle(&patch, outcome, lab.now);
    assert_eq!(lab.poll(), []);
    lab.settle();
    assert_eq!(lab.cost(), 1);
    assert_eq!(
        lab.cluster.services[&key("web")].finalizers,
        Finalizers { ours: Some(1), others: 1 }
    );
}

#[test]
fn a_conflict_that_the_watch_does_not_explain_is_looked_up() {
    let mut lab = lab();
    lab.cluster.create(service("web"));
    lab.catch_up();
    lab.cluster.edit("web", |_| {});
    lab.miss();
    lab.pass(Duration::ZERO);
    lab.pass(SECOND);
    assert!(lab.writes.iter().any(|write| matches!(write, Write::Read { .. })), "{:?}", lab.writes);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn a_busy_api_server_is_given_the_time_it_asks_for() {
    let mut lab = lab();
    lab.cluster.create(service("web"));
    lab.catch_up();
    let write = only(lab.poll());
    lab.index.settle(&write, Outcome::Throttled(7 * SECOND), lab.now);
    lab.pass(6 * SECOND);
    assert_eq!(lab.cost(), 0);
    assert_eq!(lab.index.deadline(), Some(lab.now + SECOND));
    lab.pass(SECOND);
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.1");
}

#[test]
fn a_write_that_is_refused_holds_up_nobody_else() {
    let mut lab = lab();
    lab.cluster.create(service("bad"));
    lab.catch_up();
    let write = only(lab.poll());
    lab.index.settle(&write, Outcome::Refused("a webhook says no (403)".to_owned()), lab.now);
    lab.create(service("good"));
    assert_eq!(lab.cluster.addresses("good"), "192.0.2.1");
    lab.pass(30 * SECOND);
    assert_eq!(lab.cluster.addresses("bad"), "192.0.2.2");
}

#[test]
fn what_the_api_server_refuses_is_told_once_and_tried_ever_more_rarely_until_the_service_changes() {
    let mut lab = lab();
    lab.cluster.create(service("full"));
    lab.catch_up();
    let (mut tries, end) = (0, lab.now + 3600 * SECOND);
    while lab.now < end {
        for write in lab.poll() {
            tries += 1;
            let too_long = "metadata.annotations: Too long (422)".to_owned();
            lab.index.settle(&write, Outcome::Refused(too_long), lab.now);
        }
        lab.now += SECOND;
    }
    assert!((5..25).contains(&tries), "{tries}");
    assert_eq!(lab.told("full", "WriteRefused"), 1, "{:?}", lab.told);
    lab.edit("full", |full| full.has_interface = true);
    lab.pass(11 * SECOND);
    assert_eq!(lab.cluster.addresses("full"), "192.0.2.1");
}

#[test]
fn old_and_repeated_events_change_nothing() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.cluster.announce("web");
    lab.create(service("gone"));
    lab.cluster.delete("gone");
    lab.settle();
    let before = lab.cluster.clone();
    lab.cost();
    for logged in before.log.clone() {
        lab.show(Change::clone(&logged.0));
    }
    lab.settle();
    lab.pass(60 * SECOND);
    assert_eq!(lab.cluster, before);
    assert_eq!(lab.cost(), 0, "{:?}", lab.writes);
}

#[test]
fn what_was_deleted_while_the_watch_was_away_is_noticed() {
    let mut lab = lab();
    lab.create(service("web"));
    lab.cluster.edit("web", |web| {
        web.finalizers = Default::default();
        web.deleting = true;
    });
    lab.miss();
    lab.cluster.list().into_iter().for_each(|change| lab.show(change));
    lab.pass(3 * SECOND);
    assert!(lab.cluster.claims.is_empty());
}

#[test]
fn a_leader_that_was_paused_undoes_no_work_of_its_successor() {
    let mut old = lab();
    old.cluster.create(service("web"));
    old.catch_up();
    let late = only(old.poll());
    let mut new = Lab::around(old.cluster.clone());
    new.pools([("cidr-global", "192.0.2.4/30")]);
    new.start();
    assert_eq!(new.cluster.addresses("web"), "192.0.2.4");
    // The old leader wakes up and sends what it had decided.
    let outcome = new.cluster.perform(&late);
    assert!(matches!(outcome, Outcome::Claimed(_)));
    new.settle();
    assert_eq!(new.cluster.addresses("web"), "192.0.2.4");
    assert_eq!(new.cluster.claims.len(), 1, "the second address is given back");
}

#[test]
fn a_claim_made_for_an_owner_that_went_meanwhile_does_not_leak() {
    let mut lab = lab();
    let ghost = Owner::new(OwnerKind::Service, "shop", "ghost", "uid-0");
    lab.cluster.claim("192.0.2.1", ghost);
    lab.settle();
    lab.create(Service { created: 9, ..service("web") });
    assert_eq!(lab.cluster.addresses("web"), "192.0.2.2");
    lab.pass(3 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
}
