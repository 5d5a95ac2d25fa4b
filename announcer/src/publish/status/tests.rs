mod conflict;
mod removal;
mod shared;
mod words;

use berth_api::claim::{ClaimPolicy, Holder};
use berth_api::service::{Port, Protocol};

use super::*;
use crate::source::cluster::Claims;
use crate::source::cluster::testing::service;
use crate::source::testing::{host, seen};

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn name() -> Name {
    Name::new("d", "web")
}

fn cluster(service: Service) -> Cluster {
    let mut cluster = Cluster::default();
    cluster.apply_service(name(), service);
    cluster
}

type Verdicts = BTreeMap<Name, Verdict>;

/// Where nobody is to be cleared but by who decides.
fn updates(
    cluster: &Cluster,
    verdicts: &Verdicts,
    answering: &Answering,
    node: &str,
) -> Vec<Update> {
    all(cluster, verdicts, &BTreeSet::new(), answering, node)
}

/// What is written where these are to be cleared.
fn all(
    cluster: &Cluster,
    verdicts: &Verdicts,
    clears: &BTreeSet<Name>,
    answering: &Answering,
    node: &str,
) -> Vec<Update> {
    let wanted = seen(cluster, &host(), Some("eth0"));
    let removals = super::Removals { clears, stuck: &BTreeSet::new() };
    super::updates(cluster, &wanted, verdicts, removals, |_| vec![], answering, node)
}

/// Where claims decide: of each address those that hold it, each with the port of TCP that it was given there.
fn claimed(web: Service, claims: &[(&str, &[(&str, u16)])]) -> Cluster {
    let sharer = |(name, number): &(&str, u16)| Holder {
        uid: (*name).to_owned(),
        shares: Some((
            Name::new("d", *name),
            vec![Port { protocol: Protocol::Tcp, number: *number }],
        )),
    };
    let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
    let names = claims.iter().map(|(address, _)| (*address).to_owned()).collect();
    for (address, holders) in claims {
        cluster.claims.apply(address, holders.iter().map(sharer).collect(), false);
    }
    cluster.claims.listed(&names);
    cluster.apply_service(name(), web);
    cluster
}

/// A Service that shows these addresses.
fn showing(addresses: &[&str], vip_host: Option<&str>) -> Service {
    let web = service(addresses);
    let published = addresses.iter().map(|text| Ingress::vip(address(text), &web.ports));
    let published = published.collect();
    Service { published, vip_host: vip_host.map(str::to_owned), ..web }
}

/// What is left of what a Service shows, and which node it names, after who clears it or who decides has.
fn left(
    cluster: &Cluster,
    verdicts: &Verdicts,
    clears: bool,
) -> Option<(Vec<String>, Option<String>)> {
    let clears = clears.then(name).into_iter().collect();
    let updates = all(cluster, verdicts, &clears, &Answering::default(), "a");
    let publication = updates.into_iter().next()?.publication?;
    let shown = publication.ingress.iter().map(|ingress| ingress.ip.clone()).collect();
    Some((shown, publication.vip_host))
}

fn announcing(addresses: &[&str]) -> Verdicts {
    let announce: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
    [(name(), Verdict { announce, ..Verdict::default() })].into()
}

fn answering(live: &[&str], bound: &[&str]) -> Answering {
    let set = |texts: &[&str]| texts.iter().map(|text| address(text)).collect();
    Answering { live: set(live), bound: set(bound), ..Answering::default() }
}

#[test]
fn a_status_is_written_once_all_addresses_answer_and_never_again() {
    let both = ["192.0.2.1", "2001:db8::1"];
    let mut web = service(&both);
    let desired = announcing(&both);
    let half = answering(&both[..1], &both[..1]);
    assert_eq!(updates(&cluster(web.clone()), &desired, &half, "a"), []);
    let all = answering(&both, &both);
    let [update] = &updates(&cluster(web.clone()), &desired, &all, "a")[..] else { panic!() };
    assert_eq!(
        update.patch(Timestamp::UNIX_EPOCH),
        json!({
            "metadata": {
                "uid": "uid", "resourceVersion": "1", "annotations": { "kube-vip.io/vipHost": "a" },
            },
            "status": { "loadBalancer": { "ingress": [
                { "ip": "192.0.2.1", "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
                { "ip": "2001:db8::1", "ipMode": "VIP", "ports": [{ "protocol": "TCP", "port": 80 }] },
            ] } },
        })
    );
    let publication = update.publication.clone().unwrap();
    (web.published, web.vip_host) = (publication.ingress, publication.vip_host);
    assert_eq!(updates(&cluster(web), &desired, &all, "a"), []);
}

#[test]
fn an_address_that_the_kernel_refuses_does_not_hold_up_the_other() {
    let both = ["192.0.2.1", "2001:db8::1"];
    let mut answering = answering(&both[..1], &both[..1]);
    answering.failed.insert(address(both[1]));
    let updates = updates(&cluster(service(&both)), &announcing(&both), &answering, "a");
    assert_eq!(updates[0].publication.as_ref().unwrap().ingress.len(), 1);
}

#[test]
fn a_status_is_cleared_only_after_the_address_is_off_the_interface() {
    let mut web = service(&["192.0.2.1"]);
    (web.ours, web.vip_host) = (false, Some("a".to_owned()));
    web.published = vec![Ingress::vip(address("192.0.2.1"), &web.ports)];
    let cluster = cluster(web);
    let mut nothing = Verdicts::default();
    nothing.insert(name(), Verdict::default());
    let bound = answering(&[], &["192.0.2.1"]);
    assert_eq!(updates(&cluster, &nothing, &bound, "a"), []);
    let [update] = &updates(&cluster, &nothing, &Answering::default(), "a")[..] else { panic!() };
    let patch = update.patch(Timestamp::UNIX_EPOCH);
    assert_eq!(patch["status"]["loadBalancer"], json!({ "ingress": null }));
    assert_eq!(patch["metadata"]["annotations"], json!({ "kube-vip.io/vipHost": null }));
}

#[test]
fn what_another_node_left_behind_is_cleared_by_who_decides_now() {
    let mut web = service(&[]);
    web.vip_host = Some("gone".to_owned());
    let mut nothing = Verdicts::default();
    nothing.insert(name(), Verdict::default());
    assert_eq!(updates(&cluster(web), &nothing, &Answering::default(), "a").len(), 1);
}

#[test]
fn a_status_that_somebody_else_wrote_is_left_alone() {
    let mut web = service(&[]);
    web.published = vec![Ingress { ip: "203.0.113.1".to_owned(), ..Ingress::default() }];
    let mut nothing = Verdicts::default();
    nothing.insert(name(), Verdict::default());
    assert_eq!(updates(&cluster(web.clone()), &nothing, &Answering::default(), "a"), []);
    (web.foreign, web.vip_host) = (true, Some("a".to_owned()));
    assert_eq!(updates(&cluster(web), &nothing, &Answering::default(), "a"), []);
}

#[test]
fn who_does_not_decide_writes_nothing() {
    let mut web = service(&["192.0.2.1"]);
    web.vip_host = Some("b".to_owned());
    assert_eq!(updates(&cluster(web), &Verdicts::default(), &Answering::default(), "a"), []);
}

#[test]
fn a_shared_address_that_stays_for_another_service_does_not_hold_up_the_clearing() {
    let mut web = service(&["192.0.2.1"]);
    (web.ours, web.vip_host) = (false, Some("a".to_owned()));
    let desired = [(name(), Verdict::default())].into();
    let mut bound = answering(&["192.0.2.1"], &["192.0.2.1"]);
    bound.kept.insert(address("192.0.2.1"));
    assert_eq!(updates(&cluster(web), &desired, &bound, "a").len(), 1);
}

#[test]
fn where_claims_decide_what_no_claim_gives_is_taken_out_whatever_host_is_named() {
    const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];
    let undecided: Verdicts = [(name(), Verdict::default())].into();
    for host in [None, Some("b")] {
        let none = claimed(showing(&BOTH, host), &[]);
        assert_eq!(left(&none, &undecided, false), Some((vec![], None)), "by who decides");
        assert_eq!(left(&none, &Verdicts::new(), true), Some((vec![], None)), "by who clears");
        assert_eq!(left(&none, &Verdicts::new(), false), None, "and by nobody else");
        let one = claimed(showing(&BOTH, host), &[(BOTH[1], &[("uid", 80)])]);
        let rest = Some((vec![BOTH[1].to_owned()], host.map(str::to_owned)));
        assert_eq!(left(&one, &Verdicts::new(), true), rest, "the other one stays");
        // Its second address is on its way in here, and the first is another's by now.
        let coming: Verdicts = announcing(&BOTH[1..]);
        assert_eq!(left(&one, &coming, false), rest);
    }
    let all =
        claimed(showing(&BOTH, None), &[(BOTH[0], &[("uid", 80)]), (BOTH[1], &[("uid", 80)])]);
    assert_eq!(left(&all, &Verdicts::new(), true), None);
}

#[test]
fn what_another_provider_published_of_a_service_that_names_nothing_of_ours_is_left() {
    let theirs = || Service { addresses: vec![], ..showing(&["192.0.2.1"], None) };
    assert_eq!(left(&claimed(theirs(), &[]), &Verdicts::new(), true), None);
    let others: &[(&str, &[(&str, u16)])] = &[("192.0.2.1", &[("other", 80)])];
    assert_eq!(left(&claimed(theirs(), others), &Verdicts::new(), true), Some((vec![], None)));
}

#[test]
fn what_is_being_deleted_shows_nothing_and_what_is_bound_for_it_still_is_waited_for() {
    let ending = Service { ours: false, ending: true, ..showing(&["192.0.2.1"], None) };
    let cluster = claimed(ending, &[("192.0.2.1", &[("uid", 80)])]);
    let (nobody, clears) = (Verdicts::new(), [name()].into());
    let mut bound = answering(&[], &["192.0.2.1"]);
    assert_eq!(all(&cluster, &nobody, &clears, &bound, "a"), []);
    bound.kept.insert(address("192.0.2.1"));
    assert_eq!(all(&cluster, &nobody, &clears, &bound, "a").len(), 1, "for a sharer");
    assert_eq!(left(&cluster, &nobody, true), Some((vec![], None)));
}

#[test]
fn who_took_a_port_of_another_at_a_shared_address_is_not_published_there_and_the_other_is() {
    let shared: &[(&str, u16)] = &[("uid", 81), ("other", 80)];
    // Its port is 80 now.
    let of = |own: Service| claimed(own, &[("192.0.2.1", shared)]);
    let gone = Some((vec![], None));
    assert_eq!(left(&of(showing(&["192.0.2.1"], Some("b"))), &Verdicts::new(), true), gone);
    let many = Service { has_more_ports: true, ports: vec![], ..showing(&["192.0.2.1"], None) };
    assert_eq!(left(&of(many), &Verdicts::new(), true), gone, "they are not all known");
    let taken = of(showing(&["192.0.2.1"], None));
    let (nobody, clears) = (Verdicts::new(), [name()].into());
    let update = &all(&taken, &nobody, &clears, &Answering::default(), "a")[0];
    assert!(update.takes_out && update.unclaimed.is_empty());
    // Where its author's edits come before that again and again it is written to whatever they made of it.
    let since = Some(Time(Timestamp::UNIX_EPOCH));
    let notice = Notice { conflicts: Conflicts::default(), message: String::new(), since };
    let both = |insists| Update { insists, notice: Some(notice.clone()), ..update.clone() };
    let [careful, insists] =
        [false, true].map(|insists| both(insists).patch(k8s_openapi::jiff::Timestamp::UNIX_EPOCH));
    assert_eq!(careful["metadata"]["resourceVersion"], json!("1"));
    assert!(careful["status"].get("conditions").is_some());
    assert_eq!(
        insists["metadata"],
        json!({ "uid": "uid", "annotations": { "kube-vip.io/vipHost": null } })
    );
    assert_eq!(insists["status"], json!({ "loadBalancer": { "ingress": null } }));
    let other = Service { uid: "other".to_owned(), ..showing(&["192.0.2.1"], None) };
    assert_eq!(left(&of(other), &Verdicts::new(), true), None);
}

#[test]
fn while_its_namespace_pauses_who_was_not_there_is_not_published_and_is_told_who_took_a_port() {
    let shared: &[(&str, u16)] = &[("uid", 81), ("bad", 82), ("other", 80)];
    let ports = vec![Port { protocol: Protocol::Tcp, number: 81 }];
    let web = Service { ports: ports.clone(), ..service(&["192.0.2.1"]) };
    let mut cluster = claimed(web, &[("192.0.2.1", shared)]);
    // Its port is 80 now.
    let bad = Service { uid: "bad".to_owned(), ..showing(&["192.0.2.1"], None) };
    cluster.apply_service(Name::new("d", "bad"), bad);
    let now = std::time::Instant::now();
    cluster.see(now);
    let wanted = seen(&cluster, &host(), Some("eth0"));
    let claim = &wanted.services[&name()];
    let Some(Err(refusal)) = claim.places.get(&address("192.0.2.1")) else { panic!("{claim:?}") };
    assert_eq!((refusal.reason(), claim.own().count()), ("AddressInUse", 0));
    assert!(refusal.note().contains("d/bad") && refusal.note().contains("10 s"));
    // Who had it for a moment published it all the same.
    for ignored in [false, true] {
        let ports = ports.clone();
        let shown = showing(&["192.0.2.1"], None);
        let shown = Service { ports, ours: !ignored, ignored, foreign: ignored, ..shown };
        cluster.apply_service(name(), shown);
        cluster.see(now);
        assert_eq!(left(&cluster, &Verdicts::new(), true), Some((vec![], None)), "{ignored}");
    }
    cluster.see(cluster.pauses.deadline().unwrap());
    assert_eq!(left(&cluster, &Verdicts::new(), true), None);
}

#[test]
fn who_asks_to_be_ignored_shows_no_address_of_another_and_another_class_what_it_likes() {
    let foreign = || Service { ours: false, foreign: true, ..showing(&["192.0.2.1"], None) };
    let ignored = || Service { ignored: true, ..foreign() };
    let others: &[(&str, &[(&str, u16)])] = &[("192.0.2.1", &[("other", 80)])];
    let taken = Some((vec![], None));
    assert_eq!(left(&claimed(ignored(), others), &Verdicts::new(), true), taken);
    assert_eq!(left(&claimed(ignored(), &[]), &Verdicts::new(), true), None, "another's to serve");
    let own: &[(&str, &[(&str, u16)])] = &[("192.0.2.1", &[("uid", 80)])];
    assert_eq!(left(&claimed(ignored(), own), &Verdicts::new(), true), None, "it keeps it");
    assert_eq!(left(&claimed(foreign(), others), &Verdicts::new(), true), None);
}

#[test]
fn nothing_is_taken_out_before_the_claims_are_known_or_where_they_do_not_decide() {
    let mut unlisted = Cluster::new(Claims::new(ClaimPolicy::Required));
    unlisted.apply_service(name(), showing(&["192.0.2.1"], None));
    assert_eq!(left(&unlisted, &Verdicts::new(), true), None);
    let mut stock = Cluster::default();
    stock.apply_service(name(), showing(&["192.0.2.1"], None));
    assert_eq!(left(&stock, &Verdicts::new(), true), None);
}

#[test]
fn a_host_name_beside_what_is_taken_out_stays() {
    let mut web = showing(&["192.0.2.1"], None);
    let hostname = Some("web.example.org".to_owned());
    web.published.push(Ingress { hostname, ..Ingress::default() });
    let cluster = claimed(web, &[]);
    let (nobody, clears) = (Verdicts::new(), [name()].into());
    let updates = all(&cluster, &nobody, &clears, &Answering::default(), "a");
    let patch = updates[0].patch(Timestamp::UNIX_EPOCH);
    let rest = json!({ "ingress": [{ "hostname": "web.example.org" }] });
    assert_eq!(patch["status"]["loadBalancer"], rest);
    assert_eq!(updates[0].unclaimed, [address("192.0.2.1")], "the API server is asked first");
}
