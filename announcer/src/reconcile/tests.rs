//! From what is seen to what is to be in the kernel, for node `a`, which may have everything that it is a candidate for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_runtime::freshness::Freshness;
use berth_runtime::http::Health;

use super::desired::Desired;
use super::detection;
use crate::advertise::arp_nd::hearing::{Heard, Said};
use crate::advertise::arp_nd::probe::{Probes, Question};
use crate::dataplane::eip::{Nat, Pair, Stage};
use crate::kernel::{Binding, Host, Lifetime};
use crate::reconcile::sight::Sight;
use crate::reconcile::translate::Elastic;
use crate::source::cluster::testing::{eip, service, slice};
use crate::source::cluster::{Cluster, Ingress, Service};
use crate::source::placement::{is_awaited, vlans};
use crate::source::testing::{host, scene, seen, two_interfaces};
use crate::source::watch::ENDPOINT_SLICES;
use crate::vip::{Attach, Family, Hold, Holds, Name, Refusal, Verdict, Vip, VipId, Wanted};

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name() -> Name {
    Name::new("d", "web")
}

fn cluster(web: Service, nodes: &[&str]) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply_service(name(), web);
    slice(&mut cluster, "web", "s", nodes);
    cluster
}

fn decide_beside(wanted: &Wanted, probes: &Probes) -> Desired {
    let until = Instant::now() + Duration::from_secs(10);
    let mine = wanted.services.values().filter(|claim| claim.ours);
    let addresses = mine.flat_map(|claim| {
        claim.addresses.iter().copied().filter(|address| claim.serving(address).has("a"))
    });
    let holds: Holds =
        addresses.map(|a| (a, Hold { until, answers: true, lapses: None })).collect();
    let mut desired = Desired::of(wanted, "a", &holds, probes, |_, _| true);
    let verdict = |(name, claim)| (Name::clone(name), Verdict::whole(wanted, name, claim, "a"));
    let verdicts: BTreeMap<Name, Verdict> = wanted.services.iter().map(verdict).collect();
    let host = host();
    desired.judge(verdicts, probes, |address, mac| {
        detection::conflict(&host, "a", probes, address, mac)
    });
    desired
}

fn decide(cluster: &Cluster, host: &Host) -> Desired {
    decide_beside(&seen(cluster, host, None), &Probes::default())
}

fn refusals(desired: &Desired) -> Vec<&'static str> {
    desired.verdicts[&name()].refusals.iter().map(Refusal::reason).collect()
}

fn places(desired: &Desired) -> Vec<(String, u32)> {
    let places = desired.addresses.iter();
    places.map(|(address, place)| (address.to_string(), place.attach.index())).collect()
}

#[test]
fn the_owner_holds_the_addresses_on_the_interface_of_the_default_route() {
    let desired = decide(&cluster(service(&BOTH), &["b"]), &two_interfaces());
    assert_eq!(places(&desired), BOTH.map(|address| (address.to_owned(), 2)));
    assert_eq!(desired.guard.ports.len(), 2);
    assert_eq!(refusals(&desired), [""; 0]);
}

#[test]
fn who_holds_nothing_guards_everything_and_doubts_nothing() {
    let mut wanted = seen(&cluster(service(&["192.0.2.1"]), &["a"]), &two_interfaces(), None);
    wanted.doubted = [(ip("192.0.2.1"), BTreeSet::new())].into();
    let desired = Desired::of(&wanted, "a", &Holds::new(), &Probes::default(), |_, _| true);
    assert!(desired.addresses.is_empty());
    assert_eq!((desired.guard.ports.len(), desired.guard.doubted.len()), (1, 0));
    assert_eq!(decide_beside(&wanted, &Probes::default()).guard.doubted, wanted.doubted);
}

#[test]
fn who_hears_nothing_of_endpoints_doubts_nothing() {
    let mut desired = Desired::default();
    desired.guard.doubted = [(ip("192.0.2.1"), BTreeSet::new())].into();
    let (health, start) = (Health::default(), Instant::now());
    health.fresh(&Freshness::new("services watch", start + Duration::from_secs(3600)));
    health.fresh(&Freshness::new(ENDPOINT_SLICES, start));
    for (seconds, doubts) in [(300, 1), (3600, 0)] {
        let now = start + Duration::from_secs(seconds);
        let mut denied = desired.clone();
        denied.hear(&health, true, now);
        desired.hear(&health, false, now);
        assert_eq!((desired.guard.doubted.len(), denied.guard.doubted.len()), (doubts, 0));
    }
}

#[test]
fn without_a_ready_endpoint_nothing_is_announced_unless_the_service_says_so() {
    let mut web = service(&["192.0.2.1"]);
    let desired = decide(&cluster(web.clone(), &[]), &two_interfaces());
    assert!(desired.addresses.is_empty());
    assert_eq!(refusals(&desired), ["NoEndpoint"]);
    web.without_endpoints = true;
    assert_eq!(decide(&cluster(web, &[]), &two_interfaces()).addresses.len(), 1);
}

#[test]
fn a_service_may_name_its_interface_or_ask_for_the_one_with_its_subnet() {
    for (named, expected) in [("eth1", 3), ("auto", 3)] {
        let mut web = service(&["192.0.2.1"]);
        web.interface = Some(Ok(named.to_owned()));
        let desired = decide(&cluster(web, &["a"]), &two_interfaces());
        assert_eq!(places(&desired), [("192.0.2.1".to_owned(), expected)], "{named}");
    }
    let mut web = service(&["203.0.113.1"]);
    web.interface = Some(Ok("auto".to_owned()));
    let desired = decide(&cluster(web, &["a"]), &two_interfaces());
    assert_eq!(places(&desired)[0].1, 2, "no subnet: the default");
}

#[test]
fn a_shared_address_is_bound_and_asked_for_where_a_service_has_it_that_can_be_served_here() {
    let web = |interface: &str, created: &str| Service {
        interface: Some(Ok(interface.to_owned())),
        created: created.to_owned(),
        local: true,
        ..service(&["192.0.2.1"])
    };
    let mut cluster = cluster(web("eth0", "2025"), &["b"]);
    cluster.apply_service(Name::new("d", "later"), web("eth1", "2026"));
    slice(&mut cluster, "later", "t", &["a"]);
    let asked = |cluster: &Cluster| {
        let wanted = seen(cluster, &two_interfaces(), None);
        let asked = [ip("192.0.2.1")].into();
        detection::questions(&wanted, "a", &asked, |_| true)[&ip("192.0.2.1")].link.index
    };
    let desired = decide(&cluster, &two_interfaces());
    assert_eq!((places(&desired)[0].1, asked(&cluster)), (3, 3), "the older one is served on b");
    slice(&mut cluster, "web", "s", &["a", "b"]);
    let desired = decide(&cluster, &two_interfaces());
    assert_eq!((places(&desired)[0].1, asked(&cluster)), (2, 2), "the older one has its way");
}

#[test]
fn what_belongs_where_nobody_asks_is_bound_and_nobody_is_asked_for_it() {
    let mut wanted = seen(&cluster(service(&["192.0.2.1"]), &["a"]), &two_interfaces(), None);
    let vip = wanted.vips.values_mut().next().unwrap();
    vip.wants[0].attach = Ok(Attach::Host(1));
    let desired = decide_beside(&wanted, &Probes::default());
    assert_eq!(places(&desired), [("192.0.2.1".to_owned(), 1)]);
    let asked = [ip("192.0.2.1")].into();
    assert!(detection::questions(&wanted, "a", &asked, |_| true).is_empty());
}

#[test]
fn a_vip_without_an_address_has_owners_and_nothing_in_the_kernel() {
    let mut wanted = seen(&cluster(service(&["192.0.2.1"]), &["a"]), &two_interfaces(), None);
    let (_, vip) = wanted.vips.pop_first().unwrap();
    let id = VipId::Dynamic(vip.wants[0].claimant.clone(), Family::V4);
    wanted.vips.insert(id, Vip { address: None, ..vip });
    assert!(wanted.addressed().next().is_none() && wanted.vip(ip("192.0.2.1")).is_none());
    assert!(decide_beside(&wanted, &Probes::default()).addresses.is_empty());
    assert!(wanted.vips.values().all(|vip| vip.attach("a").is_some()), "it has a place");
}

#[test]
fn a_missing_interface_is_named_and_stops_no_other_service() {
    let mut lost = service(&["192.0.2.2"]);
    lost.interface = Some(Ok("eth9".to_owned()));
    let mut both = cluster(service(&["192.0.2.1"]), &["a"]);
    both.apply_service(Name::new("d", "lost"), lost);
    slice(&mut both, "lost", "s2", &["a"]);
    let desired = decide(&both, &two_interfaces());
    assert_eq!(desired.addresses.len(), 1);
    let refusal = &desired.verdicts[&Name::new("d", "lost")].refusals[0];
    assert_eq!(refusal.reason(), "InterfaceMissing");
    assert!(refusal.note().contains("eth9"));
}

#[test]
fn an_interface_without_a_carrier_is_not_used() {
    let mut host = two_interfaces();
    host.interfaces.get_mut("eth0").unwrap().up = false;
    let desired = decide(&cluster(service(&["192.0.2.1"]), &["a"]), &host);
    assert_eq!(refusals(&desired), ["InterfaceUnfit"]);
}

#[test]
fn an_address_of_the_node_itself_is_never_touched() {
    let desired = decide(&cluster(service(&["10.0.0.5"]), &["a"]), &two_interfaces());
    assert!(desired.addresses.is_empty());
    assert_eq!(refusals(&desired), ["AddressOnHost"]);
}

#[test]
fn what_is_wrong_with_a_service_is_told_and_the_rest_is_announced() {
    let mut web = service(&["192.0.2.1"]);
    let annotations = ["kube-vip.io/egress"].into_iter().collect();
    let texts = ["192.0.2.300"].into_iter().collect();
    let remarks = [Refusal::InvalidAddress { texts }, Refusal::NotSupported { annotations }];
    web.remarks = remarks.into();
    let desired = decide(&cluster(web, &["a"]), &two_interfaces());
    assert_eq!(desired.addresses.len(), 1);
    assert_eq!(refusals(&desired), ["InvalidAddress", "NotSupported"]);
}

#[test]
fn a_shared_address_has_the_ports_of_all_its_services() {
    let mut other = service(&["192.0.2.1"]);
    other.ports[0].number = 443;
    let mut both = cluster(service(&["192.0.2.1"]), &["a"]);
    both.apply_service(Name::new("d", "other"), other);
    slice(&mut both, "other", "s2", &["a"]);
    let desired = decide(&both, &two_interfaces());
    assert_eq!(desired.addresses[&ip("192.0.2.1")].ports.len(), 2);
}

#[test]
fn an_interface_that_a_service_names_is_awaited_and_no_other() {
    let (mut cluster, host) = (Cluster::default(), two_interfaces());
    let waits = |cluster: &Cluster| {
        let scene = scene(cluster, &host, None);
        assert!(vlans(scene).is_empty());
        [2, 3, 9].map(|index| is_awaited(scene, index))
    };
    assert_eq!(waits(&cluster), [false; 3]);
    for (named, expected) in
        [("eth1", [false, true, false]), ("eth7", [false, false, true]), ("auto", [false; 3])]
    {
        let mut web = service(&["192.0.2.1"]);
        web.interface = Some(Ok(named.to_owned()));
        cluster.apply_service(name(), web);
        assert_eq!(waits(&cluster), expected, "{named}");
    }
}

fn asked(services: &[Service]) -> BTreeMap<IpAddr, Question> {
    let mut cluster = Cluster::default();
    for (number, service) in services.iter().enumerate() {
        cluster.apply_service(Name::new("d", format!("s{number}")), service.clone());
    }
    questions(&seen(&cluster, &host(), Some("eth0")), |_| true)
}

fn questions(wanted: &Wanted, is_first: impl Fn(&IpAddr) -> bool) -> BTreeMap<IpAddr, Question> {
    let all: BTreeSet<IpAddr> = wanted.addressed().map(|(address, _)| address).collect();
    detection::questions(wanted, "a", &all, is_first)
}

#[test]
fn what_no_service_publishes_is_asked_for() {
    let mut web = service(&BOTH);
    assert_eq!(asked(&[web.clone()]).len(), 2);
    web.published = vec![Ingress::vip(ip(BOTH[0]), &web.ports)];
    web.vip_host = Some("b".to_owned());
    let second: Vec<IpAddr> = asked(&[web.clone()]).into_keys().collect();
    assert_eq!(second, [ip(BOTH[1])], "the second address came later");
    let sharing = Service { vip_host: None, published: Vec::new(), ..web.clone() };
    assert_eq!(asked(&[sharing, web]).len(), 1, "one that shares it publishes it");
}

#[test]
fn a_host_in_the_annotation_stands_for_addresses_whose_status_was_taken_away() {
    let mut web = service(&BOTH);
    web.vip_host = Some("kube-vip".to_owned());
    assert!(asked(&[web]).is_empty());
}

#[test]
fn all_nodes_ask_with_one_mark_also_for_a_shared_address() {
    let other = Service { uid: "other".to_owned(), ..service(&BOTH) };
    let (one, two) = (asked(&[service(&BOTH), other.clone()]), asked(&[other, service(&BOTH)]));
    assert_eq!(one, two);
}

#[test]
fn an_elastic_ip_is_asked_for_by_its_node_and_with_patience_unless_it_is_known_to_be_a_hosts() {
    let mut cluster = Cluster::default();
    let of = |node: &str| eip(node, &[("192.0.2.1", "10.244.0.4")]);
    let asks = |cluster: &Cluster| {
        let asked = questions(&seen(cluster, &host(), Some("eth0")), |_| false);
        asked.get(&ip("192.0.2.1")).map(|question| question.patience.is_zero())
    };
    cluster.apply_eip(name(), of("a"));
    assert_eq!(asks(&cluster), Some(false), "a fellow node may have it");
    let conflicts = berth_api::conflict::Conflicts::parse("192.0.2.1=02:00:00:00:00:09");
    cluster.apply_eip(name(), crate::source::cluster::Eip { conflicts, ..of("a") });
    assert_eq!(asks(&cluster), Some(true), "whoever has it is no fellow node");
    cluster.apply_eip(name(), of("b"));
    assert_eq!(asks(&cluster), None);
}

/// Probes that have heard another host claim an address.
fn heard(wanted: &Wanted, address: &str) -> Probes {
    let (mut probes, now) = (Probes::default(), Instant::now());
    probes.keep(&questions(wanted, |_| true), now);
    let heard = Heard { address: ip(address), mac: [9; 6], said: Said::Claim };
    probes.hear(2, &heard, now);
    probes
}

#[test]
fn what_is_not_proven_is_withheld_and_what_another_host_has_is_refused() {
    let wanted = seen(&cluster(service(&BOTH), &["a"]), &host(), Some("eth0"));
    let desired = decide_beside(&wanted, &heard(&wanted, BOTH[0]));
    assert!(desired.addresses.is_empty());
    let verdict = &desired.verdicts[&name()];
    assert_eq!(
        (&verdict.announce[..], &verdict.asked),
        (&[ip(BOTH[1])][..], &[ip(BOTH[1])].into())
    );
    assert_eq!(verdict.conflicts().to_string(), "192.0.2.1=09:09:09:09:09:09");
    assert!(verdict.refusals[0].note().contains("eth0"));
}

#[test]
fn another_host_is_told_of_by_who_was_granted_the_elastic_ip_and_by_nobody_before() {
    let of = |node: &str| {
        let mut cluster = Cluster::default();
        cluster.apply_eip(name(), eip(node, &[("192.0.2.1", "10.244.0.4")]));
        seen(&cluster, &host(), Some("eth0"))
    };
    let wanted = of("a");
    let probes = heard(&wanted, "192.0.2.1");
    let told = |wanted: &Wanted, granted: bool| {
        detection::conflicts(wanted, &host(), "a", &probes, |_| granted)
    };
    assert!(told(&wanted, false).is_empty());
    let note = told(&wanted, true)[&ip("192.0.2.1")].note();
    for word in ["192.0.2.1", "09:09:09:09:09:09", "eth0", "node a"] {
        assert!(note.contains(word), "{note}");
    }
    assert!(told(&of("b"), true).is_empty(), "it is another node's");
}

#[test]
fn an_elastic_ip_is_bound_when_it_is_translated_and_stays_when_that_is_lost_for_a_moment() {
    let config = crate::config::Config::parse(&crate::config::Settings::gather([], []), "a");
    let mut sight = Sight::new(&config.unwrap());
    sight.host = host();
    sight.cluster.apply_eip(name(), eip("a", &[("192.0.2.1", "10.244.0.4")]));
    sight.refresh(Instant::now());
    let vip = sight.wanted.vip(ip("192.0.2.1")).unwrap().clone();
    let mut elastic = Elastic::default();
    let ready = |elastic: &Elastic, sight: &Sight| elastic.is_ready(ip("192.0.2.1"), &vip, sight);
    assert!(!ready(&elastic, &sight));
    for (vmi, is_ready) in [("10.244.0.48", false), ("10.244.0.4", true)] {
        let pair = Pair { vmi: ip(vmi), stage: Stage::Held };
        elastic.translated = Nat { pairs: [(ip("192.0.2.1"), pair)].into(), ..Nat::default() };
        assert_eq!(ready(&elastic, &sight), is_ready, "{vmi}");
    }
    elastic.translated = Nat::default();
    sight.host.ours.insert(Binding { index: 2, address: ip("192.0.2.1") }, Lifetime::Forever);
    assert!(ready(&elastic, &sight));
}
