//! Several Services at one address.

use std::time::Duration;

use berth_api::reason;
use berth_index::claim::Holder;
use berth_index::service::Service;
use berth_index::write::{Outcome, Write};
use berth_ipam::Protocol::{self, Tcp, Udp};
use berth_ipam::{Sharing, TrafficPolicy};

use crate::cluster::{Cluster, Lab, ip, service};

const SECOND: Duration = Duration::from_secs(1);
const POOL: (&str, &str) = ("range-global", "192.0.2.1-192.0.2.3");
const AT_ONCE: (&str, &str) = ("reuse-delay", "0s");
const SHARE: (&str, &str) = ("allow-share-global", "true");

fn lab() -> Lab {
    Lab::with_pools([POOL, AT_ONCE, SHARE])
}

fn ports(ports: &[(Protocol, u16)]) -> Sharing {
    Sharing { ports: ports.iter().copied().collect(), policy: TrafficPolicy::Cluster }
}

fn listening(name: &str, port: u16) -> Service {
    Service { sharing: ports(&[(Tcp, port)]), ..service(name) }
}

fn pinned(service: Service, address: &str) -> Service {
    Service { annotated: Some(address.to_owned()), ..service }
}

/// As the stock provider leaves one.
fn served(service: Service, address: &str) -> Service {
    let deprecated = Some(address.to_owned());
    let published = vec![ip(address)];
    Service { labelled: true, deprecated, published, ..pinned(service, address) }
}

/// One whose traffic is taken where it has pods.
fn local(name: &str, port: u16, pods: u64) -> Service {
    let sharing = Sharing { policy: TrafficPolicy::Local, ..ports(&[(Tcp, port)]) };
    Service { sharing, pods: Some(pods), ..service(name) }
}

#[test]
fn services_that_are_served_where_their_pods_are_share_an_address_where_these_are_the_same() {
    let mut lab = lab();
    lab.create(local("web", 80, 1));
    lab.create(local("admin", 443, 1));
    assert_eq!(lab.cluster.addresses("admin"), "192.0.2.1");
    lab.create(local("dns", 53, 2));
    assert_eq!(lab.cluster.addresses("dns"), "192.0.2.2", "it may have none where those have some");
    lab.create(pinned(local("asks", 25, 2), "192.0.2.1"));
    assert_eq!(lab.cluster.reason("asks"), Some((false, "AddressInUse".to_owned())));
    let told = |(about, _, note): &(String, &str, String)| {
        about == "asks" && note.contains("selectors differ") && note.contains("shop/web")
    };
    assert!(lab.told.iter().any(told), "{:?}", lab.told);

    // What is shared stays, in silence, over a restart, too.
    lab.cost();
    lab.edit("admin", |admin| admin.pods = Some(3));
    let mut lab = lab.restart();
    lab.pools([("cidr-global", "192.0.2.0/30"), ("allow-share-global", "true")]);
    lab.start();
    assert_eq!((lab.cluster.addresses("admin").as_str(), lab.cost()), ("192.0.2.1", 0));
    assert_eq!(lab.told("admin", "AddressInUse"), 0);
    // Nobody joins those any more.
    lab.create(local("late", 26, 1));
    assert_ne!(lab.cluster.addresses("late"), "192.0.2.1");
    // Who asked in vain gets in when all that is there leads where it does.
    lab.cluster.delete("web");
    lab.cluster.delete("admin");
    lab.settle();
    assert_eq!(lab.cluster.addresses("asks"), "192.0.2.1");
}

#[test]
fn services_with_different_ports_share_an_address_by_one_patch_of_its_claim() {
    let mut lab = lab();
    lab.create(listening("web", 80));
    lab.cost();
    lab.create(listening("admin", 443));
    assert!(
        matches!(&lab.writes[..], [Write::JoinClaim { .. }, Write::PatchService { .. }]),
        "{:?}",
        lab.writes
    );
    lab.create(Service { sharing: ports(&[(Udp, 80)]), ..service("dns") });
    for name in ["web", "admin", "dns"] {
        assert_eq!(lab.cluster.addresses(name), "192.0.2.1", "{name}");
        assert_eq!(lab.told(name, "AddressAllocated"), 1, "{name}");
    }
    assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "web admin dns");
    lab.create(listening("blog", 80));
    assert_eq!(lab.cluster.addresses("blog"), "192.0.2.2", "the port is taken");
    lab.cost();
    lab.pass(60 * SECOND);
    assert_eq!(lab.cost(), 0, "at rest");
}

#[test]
fn without_leave_nobody_shares() {
    let mut lab = Lab::with_pools([POOL, AT_ONCE]);
    lab.create(listening("web", 80));
    lab.create(listening("admin", 443));
    assert_eq!(lab.cluster.addresses("admin"), "192.0.2.2");
    lab.create(pinned(listening("pinned", 8080), "192.0.2.1"));
    assert_eq!(lab.cluster.reason("pinned"), Some((false, "AddressInUse".to_owned())));
}

#[test]
fn a_pin_on_a_taken_port_is_refused_and_served_once_the_port_is_free() {
    let mut lab = lab();
    lab.create(listening("web", 80));
    lab.create(listening("admin", 443));
    lab.create(pinned(listening("late", 443), "192.0.2.1"));
    assert_eq!(lab.cluster.reason("late"), Some((false, "AddressInUse".to_owned())));
    lab.cluster.delete("admin");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "web late");
    assert_eq!(lab.cluster.reason("late"), Some((true, "AddressAllocated".to_owned())));
}

#[test]
fn the_address_stays_until_the_last_of_them_leaves_and_then_rests() {
    let mut lab = Lab::with_pools([POOL, SHARE]);
    lab.create(listening("web", 80));
    lab.create(listening("admin", 443));
    lab.cluster.delete("web");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "admin", "whose claim it was is gone");
    assert_eq!(lab.cluster.addresses("admin"), "192.0.2.1");
    let mut lab = {
        let mut again = lab.restart();
        again.pools([POOL, SHARE]);
        again.start();
        again
    };
    lab.create(listening("blog", 80));
    assert_eq!(lab.cluster.addresses("blog"), "192.0.2.1", "admin is alone there and has 443");
    lab.cluster.delete("blog");
    lab.cluster.delete("admin");
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1"), None);
    lab.create(listening("next", 80));
    assert_eq!(lab.cluster.addresses("next"), "192.0.2.2", "192.0.2.1 rests");
}

#[test]
fn who_asked_for_the_address_and_left_is_no_longer_written_into_its_claim() {
    let mut lab = lab();
    lab.create(pinned(listening("web", 80), "192.0.2.1"));
    for name in ["first", "second", "third"] {
        lab.create(pinned(listening(name, 443), "192.0.2.1"));
        assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), format!("web {name}"));
        lab.cluster.delete(name);
        lab.settle();
    }
    lab.create(pinned(listening("last", 443), "192.0.2.1"));
    let claim = &lab.cluster.claims[&ip("192.0.2.1")];
    assert_eq!(claim.pinned.len(), 2, "web and last: {:?}", claim.pinned);
}

#[test]
fn two_that_join_at_once_with_one_port_do_not_both_get_in() {
    let mut lab = lab();
    lab.create(listening("web", 80));
    lab.cluster.create(listening("one", 443));
    lab.catch_up();
    let [write] = &lab.poll()[..] else { panic!("one write") };
    // Another controller lets somebody in with that port, which this one has not seen.
    let claim = lab.cluster.claims[&ip("192.0.2.1")].clone();
    let other = lab.cluster.create(Service { labelled: true, ..listening("other", 443) });
    let theirs = Write::JoinClaim {
        address: claim.address,
        uid: claim.uid.clone(),
        version: claim.version.clone(),
        owner: other.owner(),
        sharing: other.sharing.clone(),
        others: vec![Holder { sharing: Some(ports(&[(Tcp, 80)])), ..claim.holders[0].clone() }],
        came: None,
        pinned: Default::default(),
    };
    assert!(matches!(lab.cluster.perform(&theirs), Outcome::Claimed(_)));
    let outcome = lab.cluster.perform(write);
    assert!(matches!(outcome, Outcome::Taken(Some(_))), "{outcome:?}");
    lab.index.settle(write, outcome, lab.now);
    lab.settle();
    assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "web other");
    assert_eq!(lab.cluster.addresses("one"), "192.0.2.2");
}

#[test]
fn many_that_ask_at_once_are_let_in_one_after_the_other() {
    let mut lab = lab();
    for port in 1..=50 {
        lab.cluster.create(listening(&format!("s{port}"), port));
    }
    lab.settle();
    assert_eq!(lab.now, Duration::ZERO, "nobody waits for a timer");
    assert_eq!(lab.cluster.claims.len(), 1);
    assert_eq!(lab.cluster.claims[&ip("192.0.2.1")].holders.len(), 50);
}

#[test]
fn a_sharer_that_changes_its_ports_keeps_them_if_they_fit_and_is_told_if_not() {
    let mut lab = lab();
    lab.create(listening("web", 80));
    lab.create(listening("admin", 443));
    lab.edit("admin", |admin| admin.sharing = ports(&[(Tcp, 8443)]));
    lab.create(listening("tls", 443));
    assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "web admin tls");
    lab.edit("admin", |admin| admin.sharing = ports(&[(Tcp, 443)]));
    assert_eq!(lab.told("admin", "AddressInUse"), 1);
    assert_eq!(lab.cluster.addresses("admin"), "192.0.2.1", "nothing is moved");
    lab.cost();
    lab.pass(60 * SECOND);
    assert_eq!(lab.cost(), 0);
    lab.cluster.delete("tls");
    lab.settle();
    lab.create(listening("again", 443));
    assert_eq!(lab.cluster.addresses("again"), "192.0.2.2", "443 is admin's now");
}

/// Who came first decides where the address is, and its namespace may have most places there.
#[test]
fn a_sharer_that_changes_its_ports_comes_no_later_by_it() {
    let mut lab = lab();
    for (name, port) in [("web", 80), ("admin", 443), ("late", 8443)] {
        lab.create(listening(name, port));
    }
    for name in ["web", "admin"] {
        lab.edit(name, |one| one.sharing.ports.extend([(Udp, 53 + name.len() as u16)]));
        assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "web admin late", "{name}");
    }
}

/// A claim has room for so many characters: who joined with one port each filled it for all by later edits.
#[test]
fn sharers_that_grow_leave_room_in_the_claim_and_are_told() {
    let mut lab = lab();
    let wide = |from: u16| {
        let all: Vec<_> = (0..1000).map(|port| (Tcp, from + port)).collect();
        ports(&all)
    };
    for n in 0..12 {
        lab.create(listening(&format!("s{n}"), 1000 + n));
    }
    for n in 0..12 {
        lab.edit(&format!("s{n}"), |one| one.sharing = wide(2000 + 1000 * n));
    }
    let claim = &lab.cluster.claims[&ip("192.0.2.1")];
    let all = claim.holders.iter().filter_map(|holder| holder.sharing.as_ref());
    assert_eq!((claim.holders.len(), all.map(|one| one.ports.len()).sum()), (12, 8004));
    assert_eq!((lab.told("s7", "AddressInUse"), lab.told("s8", "AddressInUse")), (0, 1));
    assert_eq!(lab.cluster.addresses("s8"), "192.0.2.1", "it stays");
    lab.cost();
    lab.pass(60 * SECOND);
    assert_eq!(lab.cost(), 0, "at rest");
    lab.cluster.delete("s0");
    lab.settle();
    let claim = &lab.cluster.claims[&ip("192.0.2.1")];
    let of = |name: &str| claim.holders.iter().find(|holder| holder.owner.name == name).unwrap();
    let grown = (8..12).filter(|n| of(&format!("s{n}")).sharing.as_ref().unwrap().ports.len() > 1);
    assert_eq!(grown.count(), 1, "one has the room that became free");
}

#[test]
fn a_lone_holder_that_changes_its_ports_costs_nothing_and_keeps_others_off_them() {
    let mut lab = lab();
    lab.create(listening("web", 80));
    lab.cost();
    lab.edit("web", |web| web.sharing = ports(&[(Tcp, 443)]));
    assert_eq!(lab.cost(), 0);
    lab.create(listening("tls", 443));
    lab.create(listening("http", 80));
    assert_eq!(lab.cluster.addresses("tls"), "192.0.2.2");
    assert_eq!(lab.cluster.addresses("http"), "192.0.2.1");
}

#[test]
fn the_claim_of_a_sharer_whose_end_was_missed_is_given_back() {
    let mut lab = lab();
    lab.create(listening("web", 80));
    lab.create(listening("admin", 443));
    lab.cluster.edit("web", |web| {
        web.deleting = true;
        web.finalizers = Default::default();
    });
    lab.settle();
    lab.pass(3 * SECOND);
    assert_eq!(lab.cluster.holder("192.0.2.1").unwrap(), "admin");
}

#[test]
fn addresses_that_the_stock_provider_let_services_share_stay_shared() {
    let mut cluster = Cluster::default();
    for (name, port) in [("web", 80), ("admin", 443), ("dns", 53)] {
        cluster.create(served(listening(name, port), "192.0.2.1"));
    }
    cluster.create(Service { created: 1, ..served(listening("clash", 80), "192.0.2.1") });
    cluster.create(listening("new", 8080));
    let mut lab = Lab::around(cluster);
    lab.pools([POOL, AT_ONCE, SHARE]);
    lab.start();
    let claim = &lab.cluster.claims[&ip("192.0.2.1")];
    let names = |claim: &berth_index::claim::Claim| {
        let mut names: Vec<_> = claim.holders.iter().map(|held| held.owner.name.clone()).collect();
        names.sort_unstable();
        names
    };
    assert_eq!(names(claim), ["admin", "dns", "web"], "nobody joins while another shows it, too");
    assert_eq!(lab.cluster.reason("clash"), Some((false, "AddressConflict".to_owned())));
    lab.edit("clash", |clash| clash.published.clear());
    lab.create(listening("late", 8081));
    assert_eq!(names(&lab.cluster.claims[&ip("192.0.2.1")]), ["admin", "dns", "late", "web"]);
}

#[test]
fn what_two_namespaces_share_stays_shared_and_is_told_once_on_the_configmap() {
    let mut cluster = Cluster::default();
    for (name, port) in [("a/web", 80), ("b/tls", 443)] {
        cluster.create(served(listening(name, port), "192.0.2.1"));
    }
    let mut lab = Lab::around(cluster);
    lab.pools([POOL, AT_ONCE, SHARE]);
    lab.start();
    let shared = |lab: &Lab| lab.cluster.claims[&ip("192.0.2.1")].holders.len();
    assert_eq!(shared(&lab), 2);
    assert_eq!(lab.told("kubevip", reason::SHARED_ACROSS), 1);
    let (.., note) = lab.told.iter().find(|(_, why, _)| *why == reason::SHARED_ACROSS).unwrap();
    assert!(note.contains("192.0.2.1 of a, b;"), "{note}");
    // Nobody else of another namespace gets in, over a restart too.
    let mut lab = lab.restart();
    lab.pools([POOL, AT_ONCE, SHARE]);
    lab.start();
    assert_eq!(shared(&lab), 2);
    lab.create(listening("c/ssh", 22));
    lab.create(listening("a/dns", 53));
    assert_eq!(lab.cluster.addresses("c/ssh"), "192.0.2.2");
    assert_eq!(lab.cluster.addresses("a/dns"), "192.0.2.3", "b did not ask for that");
    lab.pools([POOL, AT_ONCE, SHARE, ("share-with-a", "b"), ("share-with-b", "a")]);
    lab.settle();
    lab.create(listening("b/mail", 25));
    assert_eq!(lab.cluster.addresses("b/mail"), "192.0.2.1");
    assert_eq!(lab.told("kubevip", reason::SHARED_ACROSS), 1);
}

#[test]
fn an_import_shares_nothing_where_sharing_is_not_allowed() {
    let mut cluster = Cluster::default();
    for (name, port) in [("web", 80), ("admin", 443)] {
        cluster.create(served(listening(name, port), "192.0.2.1"));
    }
    let mut lab = Lab::around(cluster);
    lab.pools([POOL, AT_ONCE]);
    lab.start();
    assert_eq!(lab.cluster.claims[&ip("192.0.2.1")].holders.len(), 1);
    assert_eq!(lab.told("web", "AddressConflict") + lab.told("admin", "AddressConflict"), 2);
}
