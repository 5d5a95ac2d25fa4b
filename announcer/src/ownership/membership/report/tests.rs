use berth_api::claim::ClaimPolicy;

use std::collections::BTreeSet;

use berth_membership::Cause;

use super::super::exchange::MembershipEvent;
use super::*;
use crate::ownership::testing::context;
use crate::source::cluster::testing::{eip, service, slice};
use crate::source::cluster::{Claims, Cluster, Ingress, Service, Slice};
use crate::source::testing::{host, seen};

const BOTH: [&str; 2] = ["192.0.2.1", "2001:db8::1"];

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn web() -> Name {
    Name::new("d", "web")
}

fn holds(text: &str) -> MembershipEvent {
    MembershipEvent::Holds { address: address(text), cause: Cause::First, took: Duration::ZERO }
}

/// A majority answers.
fn alive() -> MembershipEvent {
    MembershipEvent::Live(["a", "b"].map(NodeId::of).into())
}

/// What node `a` decides on a Service with both addresses, after it was told this, and beside a host that has some.
fn decide(
    endpoints: &[&str],
    taken: &[&str],
    told: &[MembershipEvent],
    after: Duration,
) -> BTreeMap<Name, Verdict> {
    let mut cluster = Cluster::default();
    cluster.apply_service(web(), service(&BOTH));
    slice(&mut cluster, "web", "s", endpoints);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let mut holdings = Holdings::new(NodeId::of("a"), true, now);
    told.iter().for_each(|told| holdings.take(told, now));
    let taken = |own: &IpAddr| taken.iter().any(|text| address(text) == *own);
    verdicts(context(&wanted, &host), &Peers::default(), &holdings, &taken, now + after)
}

/// What `node` decides on `web` once it is sure that `a` and `b` live, where it has the first address or not.
fn judged(context: Context<'_>, node: &str, has: bool, now: Instant) -> Option<Verdict> {
    let mut holdings = Holdings::new(NodeId::of(node), true, now);
    holdings.take(&alive(), now);
    if has {
        holdings.take(&holds(BOTH[0]), now);
    }
    let (context, settled) = (Context { node, ..context }, now + Duration::from_secs(5));
    verdicts(context, &Peers::default(), &holdings, &|_| false, settled).remove(&web())
}

#[test]
fn who_is_not_the_owner_yet_says_nothing() {
    let told = BOTH.map(|text| MembershipEvent::Prepare {
        address: address(text),
        first: true,
        handed: false,
    });
    let told = [&[alive()], &told[..]].concat();
    assert!(decide(&["b"], &[], &told, Duration::ZERO).is_empty());
}

#[test]
fn who_has_the_first_address_speaks_and_waits_a_while_for_the_second() {
    let announced =
        |told: &str, after| decide(&["b"], &[], &[holds(told)], after)[&web()].announce.len();
    assert_eq!(announced(BOTH[0], Duration::ZERO), 2);
    assert_eq!(announced(BOTH[0], TOGETHER), 1);
    assert!(decide(&["b"], &[], &[holds(BOTH[1])], Duration::ZERO).is_empty());
}

#[test]
fn another_host_is_told_of_by_who_was_granted_the_address_and_by_nobody_before() {
    let taken = [BOTH[0]];
    let asked = BOTH.map(|text| MembershipEvent::Prepare {
        address: address(text),
        first: true,
        handed: false,
    });
    let asked = [&[alive()], &asked[..]].concat();
    let granted = [MembershipEvent::Granted(address(BOTH[0])), holds(BOTH[1])];
    let before = decide(&["b"], &taken, &asked, Duration::ZERO);
    assert!(before.is_empty(), "a fellow node may have been granted it");
    let told = [&asked[..], &granted].concat();
    let verdict = &decide(&["b"], &taken, &told, Duration::ZERO)[&web()];
    assert_eq!(verdict.announce.len(), 2, "what another host has is taken out of it later");
}

#[test]
fn who_is_named_and_has_not_answered_for_a_while_says_so() {
    let of = |host: &str| Service { vip_host: Some(host.to_owned()), ..service(&BOTH) };
    let now = Instant::now();
    let holdings = Holdings::new(NodeId::of("a"), true, now);
    let decide = |named: &str, up, after| {
        let mut cluster = Cluster::default();
        cluster.apply_service(web(), of(named));
        slice(&mut cluster, "web", "s", &["b"]);
        let mut host = host();
        host.interfaces.get_mut("eth0").unwrap().up = up;
        let wanted = seen(&cluster, &host, Some("eth0"));
        let nobody = |_: &IpAddr| false;
        let verdict =
            verdicts(context(&wanted, &host), &Peers::default(), &holdings, &nobody, now + after);
        let verdict = verdict.get(&web());
        verdict.map(|verdict| (verdict.announce.len(), verdict.refusals[0].reason()))
    };
    let second = Duration::from_secs(1);
    assert_eq!(decide("a", true, second), None);
    assert_eq!(decide("a", true, second * 5), Some((0, "NotGranted")));
    assert_eq!(decide("a", false, second), None);
    assert_eq!(decide("a", false, second * 5), Some((0, "InterfaceUnfit")));
    assert_eq!(decide("b", true, second * 5), None, "another one is named");
}

#[test]
fn a_service_that_names_an_elastic_ip_is_told_and_has_its_other_address() {
    let mut cluster = Cluster::default();
    cluster.apply_service(web(), service(&BOTH));
    slice(&mut cluster, "web", "s", &["a"]);
    cluster.apply_eip(Name::new("d", "vm"), eip("a", &[(BOTH[0], "10.244.0.4")]));
    let (host, now) = (host(), Instant::now());
    let mut holdings = Holdings::new(NodeId::of("a"), true, now);
    let nobody = |_: &IpAddr| false;
    let alone = MembershipEvent::Live(BTreeSet::from([NodeId::of("a")]));
    holdings.take(&alone, now);
    holdings.take(&holds(BOTH[0]), now);
    let judge = |cluster: &Cluster, holdings: &Holdings| {
        let wanted = seen(cluster, &host, Some("eth0"));
        let now = now + Duration::from_secs(5);
        verdicts(context(&wanted, &host), &Peers::default(), holdings, &nobody, now).remove(&web())
    };
    assert_eq!(judge(&cluster, &holdings), None, "it is the binding that has it");
    holdings.take(&holds(BOTH[1]), now);
    let verdict = judge(&cluster, &holdings).unwrap();
    assert_eq!(verdict.announce, [address(BOTH[1])]);
    assert_eq!(verdict.refusals[0].reason(), "AddressInUse");
    cluster.apply_service(web(), service(&BOTH[..1]));
    let verdict = judge(&cluster, &holdings).unwrap();
    assert_eq!((verdict.announce.len(), verdict.refusals[0].reason()), (0, "AddressInUse"));
}

#[test]
fn who_shares_an_address_and_finds_no_endpoint_where_the_first_does_is_told_and_published_nowhere()
{
    let local = |name: &str| {
        let created = format!("2026-{name}");
        Service { local: true, created, uid: name.to_owned(), ..service(&BOTH[..1]) }
    };
    let mut cluster = Cluster::default();
    for (name, node) in [("one", "a"), ("two", "b"), ("three", "a")] {
        cluster.apply_service(Name::new("d", name), local(name));
        slice(&mut cluster, name, name, &[node]);
    }
    let decide = |cluster: &Cluster| {
        let (host, now) = (host(), Instant::now());
        let wanted = seen(cluster, &host, Some("eth0"));
        let mut holdings = Holdings::new(NodeId::of("a"), true, now);
        holdings.take(&MembershipEvent::Live([NodeId::of("a")].into()), now);
        holdings.take(&holds(BOTH[0]), now);
        let settled = now + Duration::from_secs(5);
        let verdicts =
            verdicts(context(&wanted, &host), &Peers::default(), &holdings, &|_| false, settled);
        let told = |name: &str| {
            let verdict = &verdicts[&Name::new("d", name)];
            let reasons = verdict.refusals.iter().map(Refusal::reason).collect::<Vec<_>>();
            (verdict.announce.len(), reasons.join(" "))
        };
        ["one", "three", "two"].map(told)
    };
    let (served, apart) = ((1, String::new()), (0, "NotServedTogether".to_owned()));
    assert_eq!(decide(&cluster), [served.clone(), served.clone(), apart]);
    slice(&mut cluster, "two", "two", &["a", "b"]);
    assert_eq!(decide(&cluster), [served.clone(), served.clone(), served]);
    slice(&mut cluster, "two", "two", &[]);
    assert_eq!(decide(&cluster)[2].1, "NoEndpoint", "by who has the address for the others, too");
}

#[test]
fn an_address_of_a_family_without_endpoints_is_told_and_the_other_one_served() {
    let mut cluster = Cluster::default();
    cluster.apply_service(web(), service(&[BOTH[1], BOTH[0]]));
    let on = crate::vip::serve::Where { any: true, nodes: ["b".to_owned()].into() };
    let endpoints = crate::vip::serve::Endpoints { ready: on, ..Default::default() };
    let of_v4 = Slice { family: Some(berth_api::Family::V4), ..Slice::of(&endpoints) };
    cluster.apply_slice(Name::new("d", "s"), Some((web(), of_v4)));
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let mut holdings = Holdings::new(NodeId::of("a"), true, now);
    holdings.take(&holds(BOTH[0]), now);
    let verdicts = verdicts(context(&wanted, &host), &Peers::default(), &holdings, &|_| false, now);
    let verdict = &verdicts[&web()];
    assert_eq!(verdict.announce, [address(BOTH[0])]);
    assert_eq!(verdict.refusals[0].reason(), "NoEndpoint");
}

#[test]
fn who_shares_an_address_that_is_held_for_others_is_told_by_one_live_node_why_it_has_it_not() {
    let now = Instant::now();
    let speakers = |named: Option<&str>| {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "first"), service(&BOTH[..1]));
        slice(&mut cluster, "first", "t", &["c"]);
        let (interface, vip_host) = (Some(Ok("eth9".to_owned())), named.map(str::to_owned));
        let created = "2030".to_owned();
        let joins = Service { interface, vip_host, created, ..service(&BOTH[..1]) };
        cluster.apply_service(web(), joins);
        slice(&mut cluster, "web", "s", &["c"]);
        let host = host();
        let wanted = seen(&cluster, &host, Some("eth0"));
        let tells = |(node, holder): &(&str, &str)| {
            judged(context(&wanted, &host), node, node == holder, now).is_some_and(|v| {
                v.announce.is_empty() && v.refusals[0].reason() == "InterfaceMissing"
            })
        };
        ["a", "b"].map(|holder| {
            let nodes = ["a", "b"].map(|node| (node, holder));
            nodes.into_iter().filter(tells).count()
        })
    };
    assert_eq!(speakers(None), [1, 1], "whoever holds it");
    assert_eq!(speakers(Some("b")), [1, 1]);
}

#[test]
fn who_has_an_address_tells_of_a_pause_there_that_others_may_have_missed() {
    let now = Instant::now();
    let told = |node: &str, holder: &str, missed: bool| {
        let mut cluster = Cluster::default();
        cluster.apply_service(web(), service(&BOTH[..1]));
        slice(&mut cluster, "web", "s", &["c"]);
        let host = host();
        let mut wanted = seen(&cluster, &host, Some("eth0"));
        if !missed {
            let (address, by) = (address(BOTH[0]), Name::new("d", "bad"));
            let refusal = Refusal::Paused { address, by, length: Duration::from_secs(10) };
            let claim = wanted.services.get_mut(&web()).unwrap();
            claim.places.insert(address, Err(refusal));
        }
        judged(context(&wanted, &host), node, node == holder, now)
            .is_some_and(|v| v.refusals.iter().any(|why| why.reason() == "AddressInUse"))
    };
    for (holder, other) in [("a", "b"), ("b", "a")] {
        assert!(told(holder, holder, false));
        assert!(!told(other, holder, false) && !told(other, holder, true));
    }
}

#[test]
fn what_no_claim_names_is_told_by_one_live_node_whatever_host_it_names() {
    let now = Instant::now();
    let speakers = |named: Option<&str>| {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let vip_host = named.map(str::to_owned);
        cluster.apply_service(web(), Service { vip_host, ..service(&BOTH) });
        slice(&mut cluster, "web", "s", &["c"]);
        let host = host();
        let wanted = seen(&cluster, &host, Some("eth0"));
        let tells = |node: &&str| {
            let mut holdings = Holdings::new(NodeId::of(node), true, now);
            holdings.take(&MembershipEvent::Live(["a", "b"].map(NodeId::of).into()), now);
            let context = Context { node, ..context(&wanted, &host) };
            let settled = now + Duration::from_secs(5);
            let verdict =
                verdicts(context, &Peers::default(), &holdings, &|_| false, settled).remove(&web());
            verdict.is_some_and(|v| v.refusals[0].reason() == "AddressNotClaimed")
        };
        ["a", "b"].into_iter().filter(tells).collect::<Vec<_>>()
    };
    assert_eq!(speakers(Some("b")), ["b"]);
    assert_eq!(speakers(None).len(), 1);
}

#[test]
fn a_status_without_a_claim_proves_no_use_and_is_told_of_by_one_live_node() {
    let now = Instant::now();
    let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
    cluster.claims.listed(&BTreeSet::new());
    let published = vec![Ingress::vip(address(BOTH[0]), &[])];
    let ending = Service { ours: false, ending: true, published, ..service(&BOTH) };
    cluster.apply_service(web(), ending);
    let host = host();
    let wanted = seen(&cluster, &host, Some("eth0"));
    let speaks = |node: &&str| {
        let mut holdings = Holdings::new(NodeId::of(node), true, now);
        holdings.take(&MembershipEvent::Live(["a", "b"].map(NodeId::of).into()), now);
        let context = Context { node, ..context(&wanted, &host) };
        let settled = now + Duration::from_secs(5);
        verdicts(context, &Peers::default(), &holdings, &|_| false, settled).contains_key(&web())
    };
    assert_eq!(["a", "b"].into_iter().filter(speaks).count(), 1);
}

#[test]
fn a_service_that_nobody_can_own_is_explained_by_one_live_node() {
    let alone = MembershipEvent::Live(BTreeSet::from([NodeId::of("a")]));
    let settled = Duration::from_secs(5);
    let verdicts = decide(&[], &[], std::slice::from_ref(&alone), settled);
    assert_eq!(verdicts[&web()].refusals[0].reason(), "NoEndpoint");
    let held = [alone, holds(BOTH[0])];
    assert!(decide(&[], &[], &held, settled).is_empty(), "not while held");
    let unheard = decide(&[], &[], &[], settled);
    assert_eq!(unheard[&web()].voice, Voice::Bystander, "without a majority nobody decides");
}

/// What node `a` says, that sees these nodes live and these addresses with none of them, of a Service with endpoints on
/// `endpoints` only that names `host`.
fn orphan(
    (endpoints, live, orphans): (&[&str], &[&str], &[&str]),
    host: Option<&str>,
    named: Option<&str>,
) -> Option<(Voice, Vec<&'static str>)> {
    let mut cluster = Cluster::default();
    let (local, vip_host) = (true, host.map(str::to_owned));
    let interface = named.map(|name| Ok(name.to_owned()));
    cluster.apply_service(web(), Service { local, vip_host, interface, ..service(&BOTH) });
    slice(&mut cluster, "web", "s", endpoints);
    let (here, now) = (crate::source::testing::host(), Instant::now());
    let wanted = seen(&cluster, &here, Some("eth0"));
    let mut holdings = Holdings::new(NodeId::of("a"), true, now);
    holdings.take(&MembershipEvent::Live(live.iter().map(|node| NodeId::of(node)).collect()), now);
    let orphans = orphans.iter().map(|text| address(text)).collect();
    holdings.take(&MembershipEvent::Orphans(orphans), now);
    let mut peers = Peers::default();
    for node in ["a", "b", "c"] {
        peers.apply(node.to_owned(), crate::vip::nodes::Peer::default());
    }
    let settled = now + Duration::from_secs(3);
    let verdicts = verdicts(context(&wanted, &here), &peers, &holdings, &|_| false, settled);
    let verdict = verdicts.get(&web())?;
    let reasons = verdict.refusals.iter().map(Refusal::reason).collect();
    verdict.announce.is_empty().then_some((verdict.voice, reasons))
}

#[test]
fn what_no_live_node_has_is_told_with_its_cause_whether_it_was_announced_or_not() {
    let alone = ["a"];
    let said = |reason| Some((Voice::Lasts, vec![reason]));
    for host in [None, Some("b")] {
        assert_eq!(orphan((&["b"], &alone, &BOTH), host, None), said("NoLiveNode"), "{host:?}");
        assert_eq!(orphan((&["a"], &alone, &BOTH), host, None), said("NotGranted"), "{host:?}");
        assert_eq!(orphan((&["b"], &alone, &[]), host, None), None, "it may be had soon");
        let missing = |on: &str| orphan((&[on], &alone, &BOTH), host, Some("eth9"));
        assert_eq!(missing("a"), said("InterfaceMissing"), "{host:?}");
        assert_eq!(missing("b"), said("NoLiveNode"), "it would not serve it anyway: {host:?}");
    }
    let both = ["a", "b"];
    assert_eq!(orphan((&["b"], &both, &BOTH), Some("b"), None), None, "that node says so itself");
    assert_eq!(orphan((&["b"], &[], &BOTH), Some("b"), None), None, "berth-ccm says so");
    let by = orphan((&["b"], &[], &[]), None, None);
    assert_eq!(by, Some((Voice::Bystander, vec!["NotGranted"])));
}

#[test]
fn who_tells_that_nobody_grants_it_names_who_does_not_answer_and_where_all_do_who_could_serve_it() {
    let unheard = |names: &[&str]| {
        MembershipEvent::Unheard(names.iter().map(|name| (*name).to_owned()).collect())
    };
    let told = |told: &[MembershipEvent]| {
        let verdicts = decide(&["a"], &[], told, Duration::from_secs(5));
        verdicts.get(&web()).map(|verdict| verdict.refusals[0].note()).unwrap_or_default()
    };
    let note = told(&[unheard(&["node-b", "node-c"])]);
    assert!(note.contains(r#"do not answer node a: "node-b", "node-c""#), "{note}");
    let note = told(&[unheard(&["node-b"]), unheard(&[])]);
    assert!(note.contains("no majority") && !note.contains("do not answer"), "{note}");

    let mut cluster = Cluster::default();
    cluster.apply_service(web(), Service { local: true, ..service(&BOTH) });
    slice(&mut cluster, "web", "s", &["b", "c"]);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let mut peers = Peers::default();
    for node in ["a", "b", "c"] {
        peers.apply(node.to_owned(), crate::vip::nodes::Peer::default());
    }
    let notes = ["a", "b"].map(|node| {
        let mut holdings = Holdings::new(NodeId::of(node), true, now);
        holdings.take(&alive(), now);
        holdings.take(&MembershipEvent::Orphans(BOTH.map(address).into()), now);
        let (context, settled) = (Context { node, ..context(&wanted, &host) }, now + TOGETHER);
        let verdict = verdicts(context, &peers, &holdings, &|_| false, settled).remove(&web());
        verdict.map(|verdict| verdict.refusals[0].note())
    });
    let notes: Vec<String> = notes.into_iter().flatten().collect();
    let [note] = &notes[..] else { panic!("one of them tells: {notes:?}") };
    assert!(note.contains(r#"could serve it these live: "b""#), "and c does not live: {note}");
}

/// What node `a` says of a Service of both families, the second of which has no endpoint, where these nodes live and none
/// has any of it: which reason of which address.
fn of_each_family(live: &[&str], host: Option<&str>) -> Vec<(&'static str, String)> {
    let mut cluster = Cluster::default();
    let vip_host = host.map(str::to_owned);
    cluster.apply_service(web(), Service { vip_host, ..service(&BOTH) });
    let on = crate::vip::serve::Where { any: true, nodes: ["b".to_owned()].into() };
    let endpoints = crate::vip::serve::Endpoints { ready: on, ..Default::default() };
    let of_v4 = Slice { family: Some(berth_api::Family::V4), ..Slice::of(&endpoints) };
    cluster.apply_slice(Name::new("d", "s"), Some((web(), of_v4)));
    let (here, now) = (crate::source::testing::host(), Instant::now());
    let wanted = seen(&cluster, &here, Some("eth0"));
    let mut holdings = Holdings::new(NodeId::of("a"), true, now);
    let live = live.iter().map(|node| NodeId::of(node)).collect();
    holdings.take(&MembershipEvent::Live(live), now);
    holdings.take(&MembershipEvent::Orphans(BOTH.map(address).into()), now);
    let mut peers = Peers::default();
    peers.apply("a".to_owned(), crate::vip::nodes::Peer::default());
    let settled = now + Duration::from_secs(5);
    let verdicts = verdicts(context(&wanted, &here), &peers, &holdings, &|_| false, settled);
    let verdict = &verdicts[&web()];
    let about = verdict
        .about
        .iter()
        .flat_map(|(why, about)| about.iter().map(|address| (why.reason(), address.to_string())));
    about.collect()
}

#[test]
fn of_two_families_that_are_silent_for_different_reasons_neither_hides_the_other() {
    let both = vec![("NoEndpoint", BOTH[1].to_owned()), ("NotGranted", BOTH[0].to_owned())];
    for (live, host) in [(&["a"][..], None), (&["a"], Some("gone")), (&[], None), (&[], Some("a"))]
    {
        assert_eq!(of_each_family(live, host), both, "{live:?} {host:?}");
    }
}
