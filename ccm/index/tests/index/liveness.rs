//! Nobody is left with a status that says that an address is answered for while no announcer lives.

use std::time::Duration;

use berth_api::eip;
use berth_api::names::condition;
use berth_index::Source;
use berth_index::finalizers::Finalizers;
use berth_index::intake::Change;
use berth_index::service::{Service, Standing};
use berth_index::write::{Outcome, Write};
use berth_ipam::{Family, FamilyPolicy};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::cluster::eips::{binding, machine};
use crate::cluster::{Lab, dual, ip, key, says, service};

const POOL: (&str, &str) = ("cidr-global", "192.0.2.0/29");
const ALL: [&str; 3] = ["a", "b", "c"];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// What the condition `berth.dev/Announced` of the Service says: its reason, with a plus where it is true.
fn announced(lab: &Lab, name: &str) -> String {
    let Some(service) = lab.cluster.services.get(&key(name)) else { return "gone".to_owned() };
    let shown = service.condition(condition::ANNOUNCED);
    let sign = |status: &str| if status == "True" { "+" } else { "-" };
    shown.map(|shown| format!("{}{}", sign(&shown.status), shown.reason)).unwrap_or_default()
}

/// Three nodes whose announcers live, `web` that one of them announces, and the elastic IP `vm` at node b.
fn served() -> Lab {
    let mut lab = Lab::with_pools([POOL]);
    lab.live(&ALL, seconds(60));
    lab.create(service("web"));
    lab.cluster.announce("web");
    lab.cluster.run(machine("vm", "b", &["10.0.0.5"]));
    lab.bind(binding("vm", "vm"));
    lab.obey("vm");
    lab.live(&ALL, seconds(60));
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
    assert_eq!(announced(&lab, "web"), "");
    lab
}

#[test]
fn while_announcers_live_nothing_is_written_and_nothing_asked_for() {
    let mut lab = served();
    lab.all_cost();
    lab.live(&ALL, seconds(600));
    assert_eq!(lab.all_cost(), 0);
}

#[test]
fn whoever_has_an_address_is_told_within_a_minute_that_no_announcer_lives_and_that_one_does_again()
{
    let mut lab = served();
    lab.create(Service { standing: Standing::Foreign, ..service("other") });
    // They died just before they would have renewed their Leases.
    lab.all_cost();
    lab.pass(seconds(24));
    assert_eq!((announced(&lab, "web").as_str(), lab.all_cost()), ("", 0));
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer");
    assert_eq!(announced(&lab, "other"), "");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated -NoAnnouncer");
    assert_eq!((lab.told("web", "NoAnnouncer"), lab.told("vm", "NoAnnouncer")), (1, 1));
    assert_eq!(lab.all_cost(), 3, "a list, and what each is told");
    let web = lab.cluster.services[&key("web")].clone();
    assert!(!web.published.is_empty(), "what is published is the announcers' to write");
    lab.pass(seconds(3600));
    assert_eq!(lab.all_cost(), 0);

    lab.renew(&["c"]);
    lab.pass(seconds(9));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer", "it has not said yet how things stand");
    lab.cluster.edit("web", |web| web.host = Some("c".to_owned()));
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated -NoAnnouncer", "that is not of b");
    lab.live(&["b", "c"], seconds(20));
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
    assert_eq!((lab.told("web", "NoAnnouncer"), lab.told("vm", "NoAnnouncer")), (1, 1));
}

#[test]
fn what_announcers_say_themselves_wins_while_one_lives_and_is_taken_for_nothing_when_none_does() {
    let mut lab = served();
    let word = |holds, reason| says(condition::ANNOUNCED, holds, reason, "");
    for (holds, reason) in [(true, "Announced"), (false, "NoEndpoint")] {
        lab.edit("web", |web| web.conditions = vec![word(holds, reason)]);
        lab.pass(seconds(45));
        assert_eq!(announced(&lab, "web"), "-NoAnnouncer", "{reason}");
        lab.renew(&["a"]);
        lab.edit("web", |web| web.conditions = vec![word(holds, reason)]);
        let sign = if holds { "+" } else { "-" };
        lab.live(&["a"], seconds(300));
        assert_eq!(announced(&lab, "web"), format!("{sign}{reason}"), "its word stays");
    }
}

#[test]
fn a_service_whose_node_has_no_live_announcer_is_told_while_others_live() {
    let mut lab = served();
    lab.live(&["b", "c"], seconds(60));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer");
    let web = &lab.cluster.services[&key("web")];
    let message = &web.condition(condition::ANNOUNCED).unwrap().message;
    assert!(message.contains("node a,"), "{message}");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
    lab.edit("web", |web| web.host = Some("c".to_owned()));
    assert_eq!(announced(&lab, "web"), "");
    // The same of an elastic IP.
    lab.live(&["c"], seconds(60));
    assert_eq!(announced(&lab, "web"), "");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated -NoAnnouncer");
    lab.run(machine("vm", "c", &["10.0.0.5"]));
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated -AwaitingNode");
}

#[test]
fn a_service_of_which_nobody_says_anything_for_a_minute_is_told() {
    let mut lab = Lab::with_pools([POOL]);
    lab.create(service("web"));
    lab.pass(seconds(59));
    assert_eq!(announced(&lab, "web"), "");
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "-Unannounced", "though no announcer was ever here");
    assert_eq!(lab.told("web", "Unannounced"), 1);
    lab.cluster.announce("web");
    lab.settle();
    assert_eq!(announced(&lab, "web"), "");
    // One that waits for its address is told of that.
    lab.create(Service { annotated: Some("192.0.2.1".to_owned()), ..service("late") });
    lab.pass(seconds(300));
    assert_eq!(announced(&lab, "late"), "");
    // Where an announcer says why, that is it.
    lab.create(service("idle"));
    lab.edit("idle", |idle| {
        idle.conditions = vec![says(condition::ANNOUNCED, false, "NoEndpoint", "")];
    });
    lab.pass(seconds(300));
    assert_eq!(announced(&lab, "idle"), "-NoEndpoint");
}

#[test]
fn a_service_that_asks_for_dhcp_is_told_where_nobody_serves_that() {
    let mut lab = Lab::with_pools([("cidr-global", "0.0.0.0/32")]);
    lab.create(service("web"));
    lab.pass(seconds(60));
    assert_eq!(announced(&lab, "web"), "-Unannounced");
    lab.edit("web", |web| web.published = vec![ip("198.51.100.7")]);
    assert_eq!(announced(&lab, "web"), "", "an announcer of kube-vip has asked");
}

#[test]
fn one_family_by_dhcp_is_missed_where_the_other_is_announced() {
    let mut lab = Lab::with_pools([("range-global", "2001:db8::1-2001:db8::9")]);
    let dual = dual("web", FamilyPolicy::RequireDualStack, [Family::V6, Family::V4]);
    lab.create(Service { deprecated: Some("0.0.0.0".to_owned()), ..dual });
    assert_eq!(lab.cluster.addresses("web"), "2001:db8::1,0.0.0.0");
    lab.edit("web", |web| {
        (web.host, web.published) = (Some("a".to_owned()), vec![ip("2001:db8::1")]);
    });
    lab.pass(seconds(60));
    assert_eq!(announced(&lab, "web"), "-Unannounced");
    lab.edit("web", |web| web.published.push(ip("198.51.100.7")));
    assert_eq!(announced(&lab, "web"), "");
}

#[test]
fn a_controller_that_has_just_begun_says_nothing_before_it_has_listened() {
    let lab = served();
    let mut lab = lab.restart();
    lab.now += seconds(3600);
    lab.pools([POOL]);
    lab.start();
    lab.pass(seconds(44));
    assert_eq!(announced(&lab, "web"), "");
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer");

    // Nor does it take back what was said before.
    let mut lab = lab.restart();
    lab.pools([POOL]);
    lab.start();
    lab.pass(seconds(600));
    assert_eq!(
        (announced(&lab, "web").as_str(), lab.told("web", "NoAnnouncer")),
        ("-NoAnnouncer", 0)
    );
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated -NoAnnouncer");
    // It did not lead meanwhile.
    lab.index.follow();
    lab.now += seconds(3600);
    lab.index.lead(lab.now);
    lab.settle();
    lab.all_cost();
    lab.live(&ALL, seconds(30));
    assert_eq!(announced(&lab, "web"), "");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
}

#[test]
fn a_watch_that_hangs_is_found_out_by_a_list() {
    let mut lab = served();
    // Renewed, and the watch does not show it.
    for renewed in lab.cluster.hosts.values_mut() {
        renewed.push('x');
    }
    lab.pass(seconds(60));
    assert_eq!(announced(&lab, "web"), "");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
    assert!(lab.writes.contains(&Write::ListHosts));

    // While there is no answer, nothing is known.
    let mut lab = served();
    lab.now += seconds(60);
    let asked = lab.poll();
    assert_eq!(asked, [Write::ListHosts]);
    lab.index.settle(&asked[0], Outcome::Unknown("timed out".to_owned()), lab.now);
    assert!(lab.poll().is_empty());
    assert_eq!(announced(&lab, "web"), "");
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer", "it is asked again");
}

#[test]
fn a_list_that_begins_anew_counts_no_silence_from_before() {
    let mut lab = served();
    lab.pass(seconds(20));
    lab.show(Change::Listing(Source::Hosts));
    for change in lab.cluster.list() {
        if matches!(change, Change::Host(_)) {
            lab.show(change);
        }
    }
    lab.show(Change::Listed(Source::Hosts));
    lab.pass(seconds(44));
    assert_eq!(announced(&lab, "web"), "");
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer");

    // Leases that are deleted say nothing, as where another program is to announce.
    lab.cluster.hosts.clear();
    lab.show(Change::Listing(Source::Hosts));
    lab.show(Change::Listed(Source::Hosts));
    lab.pass(seconds(1));
    assert_eq!(announced(&lab, "web"), "");
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
}

#[test]
fn beside_an_announcer_of_kube_vip_nothing_is_said() {
    let elected = |holder: &str, renewed: u64| {
        Change::Elected(Some((holder.to_owned(), renewed.to_string())))
    };
    // It holds the Lease of the election, and Leases of ours were left behind.
    let mut lab = served();
    for renewed in 0..60 {
        lab.show(elected("worker-1", renewed));
        lab.pass(seconds(2));
        assert_eq!(announced(&lab, "web"), "", "{renewed}");
    }
    lab.pass(seconds(60));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer", "it is gone, too");
    lab.show(elected("worker-1", 100));
    lab.settle();
    assert_eq!(announced(&lab, "web"), "", "and is back");

    // Our own announcers hold it together.
    let mut lab = served();
    lab.show(elected("berth.dev/membership", 1));
    lab.pass(seconds(40));
    lab.show(elected("berth.dev/membership", 2));
    lab.pass(seconds(5));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer");

    // With a Lease for each Service only what it writes tells of it.
    let mut lab = served();
    lab.create(service("next"));
    lab.pass(seconds(45));
    assert_eq!(announced(&lab, "web"), "-NoAnnouncer");
    lab.edit("web", |web| web.host = Some("b".to_owned()));
    assert_eq!(announced(&lab, "web"), "", "it has written who announces it");
    assert_eq!(announced(&lab, "next"), "-NoAnnouncer", "any user may have done that");
    lab.cluster.announce("next");
    lab.settle();
    assert_eq!(announced(&lab, "next"), "", "a status is written by controllers");
    let mut third = service("third");
    third.annotated = Some("192.0.2.6".to_owned());
    lab.create(third);
    lab.cluster.announce("third");
    lab.pass(seconds(600));
    assert_eq!(announced(&lab, "third"), "");

    // A node of kube-vip beside nodes of ours.
    let mut lab = served();
    lab.live(&["b", "c"], seconds(40));
    lab.edit("web", |web| web.host = Some("b".to_owned()));
    lab.edit("web", |web| web.host = Some("a".to_owned()));
    lab.live(&["b", "c"], seconds(600));
    assert_eq!(announced(&lab, "web"), "");
}

#[test]
fn what_is_not_ours_any_more_is_told_nothing_of_ours() {
    for standing in [Standing::Ignored, Standing::Foreign] {
        let mut lab = served();
        lab.pass(seconds(45));
        assert_eq!(announced(&lab, "web"), "-NoAnnouncer");
        lab.edit("web", |web| web.standing = standing);
        lab.pass(seconds(60));
        assert_eq!(announced(&lab, "web"), "", "{standing:?}");
    }
    // Deleted, it goes with our finalizer, unless another one holds it.
    for (others, expected) in [(0, (0, "gone")), (1, (1, ""))] {
        let mut lab = served();
        lab.pass(seconds(45));
        lab.cluster.edit("web", |web| web.finalizers = Finalizers { others, ..web.finalizers });
        lab.cluster.delete("web");
        lab.cluster.announce("web");
        lab.all_cost();
        lab.pass(seconds(60));
        let said = lab.writes.iter().filter(|write| matches!(write, Write::PatchAnnounced { .. }));
        assert_eq!((said.count(), &*announced(&lab, "web")), expected);
    }
}

#[test]
fn thousands_are_told_without_being_looked_at_again_and_again() {
    let mut lab = Lab::with_pools([("cidr-global", "10.0.0.0/16")]);
    lab.live(&ALL, seconds(60));
    for number in 0..2000 {
        lab.cluster.create(service(&format!("web-{number}")));
    }
    lab.settle();
    for number in 0..2000 {
        lab.cluster.announce(&format!("web-{number}"));
    }
    lab.live(&ALL, seconds(60));
    lab.all_cost();
    lab.pass(seconds(45));
    assert_eq!(lab.all_cost(), 2001);
    lab.live(&ALL, seconds(40));
    assert_eq!(lab.all_cost(), 2000);
}

#[test]
fn an_elastic_ip_says_why_the_announcer_of_its_node_does_not_answer_for_it() {
    let mut lab = served();
    lab.live(&["a", "b", "c"], seconds(20));
    let told = |holds: bool, reason: &str, message: &str| Condition {
        type_: eip::condition::ANNOUNCED.to_owned(),
        ..says(condition::ANNOUNCED, holds, reason, message)
    };
    let word = told(false, "InterfaceMissing", "not announced: the node has no interface eth9");
    lab.cluster.edit_binding("vm", |binding| binding.conditions.push(word));
    lab.settle();
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated -InterfaceMissing");
    let ready = |lab: &Lab| {
        let binding = &lab.cluster.bindings[&key("vm")];
        binding.condition(eip::condition::READY).unwrap().message.clone()
    };
    assert!(ready(&lab).contains("eth9"));
    let theirs = |shown: &Condition| shown.type_ == eip::condition::ANNOUNCED;
    lab.cluster.edit_binding("vm", |binding| {
        let word = binding.conditions.iter_mut().find(|shown| theirs(shown)).unwrap();
        word.status = "True".to_owned();
    });
    lab.settle();
    assert_eq!(lab.cluster.standing("vm"), "+AddressAllocated +Held");
}

/// Ten Services of a tenant for each that may be written at once, and one of somebody else, when the last announcer dies.
fn deserted() -> Lab {
    let mut lab = Lab::with_pools([("cidr-global", "10.0.0.0/16")]);
    lab.live(&ALL, seconds(60));
    for number in 0..320 {
        lab.cluster.create(service(&format!("a/web-{number:03}")));
    }
    lab.create(service("shop/web"));
    for number in 0..320 {
        lab.cluster.announce(&format!("a/web-{number:03}"));
    }
    lab.cluster.announce("shop/web");
    lab.live(&ALL, seconds(60));
    lab
}

/// After how many writes it is written that no announcer lives for `shop/web`.
fn told(lab: &mut Lab, mut work: impl FnMut(&mut Lab)) -> usize {
    for count in 0..100 {
        work(lab);
        lab.catch_up();
        for write in lab.poll() {
            let outcome = lab.cluster.perform(&write);
            lab.index.settle(&write, outcome, lab.now);
            if matches!(&write, Write::PatchAnnounced { key, .. } if key.namespace == "shop") {
                return count;
            }
        }
    }
    panic!("never");
}

#[test]
fn nobody_waits_to_be_told_for_hundreds_of_another_namespace_nor_for_whoever_edits_without_end() {
    for edits in [false, true] {
        let mut lab = deserted();
        lab.now += seconds(30);
        let mut number = 0;
        let count = told(&mut lab, |lab| {
            if !edits {
                return;
            }
            lab.now += seconds(1);
            for _ in 0..64 {
                number += 1;
                lab.cluster.create(service(&format!("a/more-{number}")));
            }
        });
        assert!(count < 5, "{edits}: {count}");
    }
}
