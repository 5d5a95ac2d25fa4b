mod control_plane;

use berth_api::claim::{ClaimPolicy, Holder};
use berth_api::election::Action;
use berth_api::service::{Port, Protocol};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use super::*;
use crate::ownership::testing::context;
use crate::source::cluster::testing::{eip, ending, service, slice};
use crate::source::cluster::{Claims, Cluster, Ingress, Service};
use crate::source::testing::{host, seen};
use crate::vip::Serving;
use crate::vip::nodes::{Peer, Peers, Stay};
use crate::vip::serve::{Endpoints, Where};

fn cluster(services: &[(&str, crate::source::cluster::Service)]) -> Cluster {
    let mut cluster = Cluster::default();
    for (name, service) in services {
        cluster.apply_service(Name::new("d", *name), service.clone());
    }
    cluster
}

fn global() -> Strategy {
    Strategy::Global(Name::new("kube-system", "lock"))
}

fn web() -> Name {
    Name::new("d", "web")
}

fn candidates(cluster: &Cluster) -> Serving {
    let address = "192.0.2.1".parse().unwrap();
    let wanted = seen(cluster, &host(), Some("eth0"));
    (**wanted.services[&web()].serving(&address)).clone()
}

#[test]
fn every_node_is_a_candidate_while_there_is_an_endpoint_anywhere() {
    let mut cluster = cluster(&[("web", service(&["192.0.2.1"]))]);
    assert!(candidates(&cluster).is_empty());
    slice(&mut cluster, "web", "s1", &["a"]);
    assert!(candidates(&cluster).has("b"));
}

#[test]
fn only_nodes_with_an_endpoint_are_candidates_for_local_traffic() {
    let mut local = service(&["192.0.2.1"]);
    local.local = true;
    let mut cluster = cluster(&[("web", local.clone())]);
    slice(&mut cluster, "web", "s1", &["a"]);
    assert!(candidates(&cluster).has("a"));
    assert!(!candidates(&cluster).has("b"));
    local.without_endpoints = true;
    cluster.apply_service(web(), local);
    assert!(candidates(&cluster).has("b"), "the annotation lifts it");
}

#[test]
fn on_an_address_that_services_share_the_lease_of_the_first_decides_and_on_no_other() {
    let mut first = service(&["192.0.2.1"]);
    first.created = "2026-01-01".to_owned();
    let mut second = service(&["192.0.2.1", "2001:db8::1"]);
    second.created = "2026-01-02".to_owned();
    let mut other = service(&["192.0.2.9"]);
    other.lease = Some("shared".to_owned());
    let cluster = cluster(&[("zeta", first), ("alpha", second), ("other", other)]);
    let deciding = Strategy::PerService.decide(&seen(&cluster, &host(), Some("eth0")));
    let reports = |name: &str| deciding.services[&Name::new("d", name)].to_string();
    assert_eq!(reports("zeta"), "d/kubevip-zeta");
    assert_eq!(reports("alpha"), "d/kubevip-zeta");
    assert_eq!(reports("other"), "d/shared", "it names its Lease");
    let decides = |text: &str| deciding.addresses[&text.parse::<IpAddr>().unwrap()].to_string();
    assert_eq!(decides("192.0.2.1"), "d/kubevip-zeta");
    assert_eq!(decides("2001:db8::1"), "d/kubevip-alpha");
}

#[test]
fn who_shares_addresses_of_two_others_gives_neither_a_second_owner() {
    let (v4, v6) = ("192.0.2.1", "2001:db8::1");
    let dated = |addresses: &[&str], created: &str| {
        let created = created.to_owned();
        crate::source::cluster::Service { created, ..service(addresses) }
    };
    let (one, two, both) =
        (dated(&[v4], "2026-01-01"), dated(&[v6], "2026-01-02"), dated(&[v4, v6], "2026-01-03"));
    let mut cluster = cluster(&[("one", one), ("two", two), ("both", both)]);
    for name in ["one", "two", "both"] {
        slice(&mut cluster, name, name, &["a"]);
    }
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let context = context(&wanted, &host);
    let mut leases = Leases::new("a", Strategy::PerService, Timing::DEFAULT, BTreeMap::new());
    leases.listed(&BTreeSet::new(), now);
    let mut others = Lease::default();
    others.metadata.resource_version = Some("1".to_owned());
    others.spec = Some(LeaseSpec {
        holder_identity: Some("b".to_owned()),
        lease_duration_seconds: Some(15),
        ..LeaseSpec::default()
    });
    leases.observe(Name::new("d", "kubevip-two"), Sight::Present(Box::new(others)), now);
    acquire(&mut leases, context, now);
    let held: Vec<String> = leases.holds(context, now).keys().map(ToString::to_string).collect();
    assert_eq!(held, [v4], "node b has the other one");
    let verdicts = leases.verdicts(context, now);
    let both = &verdicts[&Name::new("d", "both")];
    assert_eq!(both.announce, [v4.parse::<IpAddr>().unwrap()]);
    let note = both.refusals[0].note();
    assert!(note.contains("Lease d/kubevip-two, which \"b\" holds"), "{note}");
    assert!(!verdicts.contains_key(&Name::new("d", "two")));
}

#[test]
fn a_node_strives_for_what_it_can_serve_and_for_what_nobody_can_and_must_be_cleared() {
    let name = web();
    let only: BTreeSet<&Name> = [&name].into();
    let mut local = service(&["192.0.2.1"]);
    local.local = true;
    let mut cluster = cluster(&[("web", local.clone())]);
    let strives = |cluster: &Cluster, node| {
        Strategy::PerService.strives(node, &only, &seen(cluster, &host(), Some("eth0")))
    };
    assert!(!strives(&cluster, "a"), "nobody has an endpoint, and nothing is to be cleared");
    slice(&mut cluster, "web", "s1", &["a"]);
    assert!(strives(&cluster, "a"));
    assert!(!strives(&cluster, "b"));
    let without = seen(&cluster, &host(), Some("eth9"));
    assert!(!Strategy::PerService.strives("a", &only, &without), "not without the interface");
    local.vip_host = Some("gone".to_owned());
    cluster.apply_service(web(), local);
    assert!(!strives(&cluster, "b"), "the new owner will write it anew");
    slice(&mut cluster, "web", "s1", &[]);
    assert!(strives(&cluster, "b"), "nobody can serve it: somebody must clear what it says");
}

/// Node `a`, which has just taken every Lease that it strives for.
fn holder(strategy: Strategy, context: Context<'_>, now: Instant) -> Leases {
    let mut leases = Leases::new("a", strategy, Timing::DEFAULT, BTreeMap::new());
    leases.listed(&BTreeSet::new(), now);
    acquire(&mut leases, context, now);
    leases
}

/// Takes every Lease that is striven for and that nobody has.
fn acquire(leases: &mut Leases, context: Context<'_>, now: Instant) {
    leases.request(context);
    leases.settle(false, &BTreeSet::new(), true, now);
    for (name, request) in leases.poll(now).0 {
        let Request::Acquire(Action::Create(mut lease)) = request else { panic!("{request:?}") };
        lease.metadata.resource_version = Some("1".to_owned());
        leases.replied(&name, Reply::Written(lease), now);
    }
}

#[test]
fn the_holder_owns_what_it_is_a_candidate_for_and_says_why_not() {
    let mut local = service(&["192.0.2.2"]);
    local.local = true;
    let mut cluster = cluster(&[("web", service(&["192.0.2.1"])), ("local", local)]);
    slice(&mut cluster, "web", "s1", &["b"]);
    slice(&mut cluster, "local", "s2", &["b"]);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let leases = holder(global(), context(&wanted, &host), now);
    let held = leases.holds(context(&wanted, &host), now);
    assert_eq!(held.keys().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1"]);
    let verdicts = leases.verdicts(context(&wanted, &host), now);
    assert_eq!(verdicts[&web()].announce.len(), 1);
    let refusal = &verdicts[&Name::new("d", "local")].refusals[0];
    assert_eq!(refusal.reason(), "NoLocalEndpoint");
    assert!(refusal.note().contains("node a"));
    let later = now + Timing::DEFAULT.duration();
    assert!(leases.holds(context(&wanted, &host), later).is_empty(), "a hold ends by itself");
}

#[test]
fn a_service_that_names_an_elastic_ip_gets_nothing_and_is_told() {
    let mut cluster = cluster(&[("web", service(&["192.0.2.1", "192.0.2.2"]))]);
    slice(&mut cluster, "web", "s1", &["a"]);
    cluster.apply_eip(Name::new("d", "vm"), eip("b", &[("192.0.2.1", "10.244.0.4")]));
    let (host, now) = (host(), Instant::now());
    for (strategy, addresses) in
        [(global(), 2), (Strategy::PerService, 2), (Strategy::PerService, 1)]
    {
        let mut cluster = cluster.clone();
        let addresses = &["192.0.2.1", "192.0.2.2"][..addresses];
        cluster.apply_service(web(), service(addresses));
        let wanted = seen(&cluster, &host, Some("eth0"));
        let leases = holder(strategy, context(&wanted, &host), now);
        let held = leases.holds(context(&wanted, &host), now);
        assert!(held.keys().map(ToString::to_string).eq(addresses[1..].iter().copied()));
        let verdict = &leases.verdicts(context(&wanted, &host), now)[&web()];
        assert_eq!(verdict.announce.len(), addresses.len() - 1);
        assert_eq!(verdict.refusals[0].reason(), "AddressInUse");
    }
}

#[test]
fn who_does_not_hold_the_lease_holds_and_says_nothing() {
    let mut cluster = cluster(&[("web", service(&["192.0.2.1"]))]);
    slice(&mut cluster, "web", "s1", &["a"]);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let mut leases = Leases::new("a", Strategy::PerService, Timing::DEFAULT, BTreeMap::new());
    leases.request(context(&wanted, &host));
    assert!(leases.holds(context(&wanted, &host), now).is_empty());
    assert!(leases.verdicts(context(&wanted, &host), now).is_empty());
}

#[test]
fn a_node_without_the_interface_does_not_strive_for_the_lease_of_all() {
    let mut cluster = cluster(&[("web", service(&["192.0.2.1"]))]);
    slice(&mut cluster, "web", "s1", &["a"]);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let strives = |strategy, usable| {
        let context = Context { usable, ..context(&wanted, &host) };
        holder(strategy, context, now).holding()
    };
    assert_eq!(strives(global(), true), [Name::new("kube-system", "lock")].into());
    assert_eq!(strives(global(), false), BTreeSet::new());
    assert_eq!(strives(Strategy::PerService, true), [Name::new("d", "kubevip-web")].into());
}

#[test]
fn what_a_status_shows_of_others_is_taken_out_by_who_has_the_address_and_else_by_all_in_turn() {
    let shared: [(&str, u16); 2] = [("one", 80), ("two", 81)];
    let sharer = |(name, number): (&str, u16)| Holder {
        uid: name.to_owned(),
        shares: Some((Name::new("d", name), vec![Port { protocol: Protocol::Tcp, number }])),
    };
    let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
    cluster.claims.apply("192.0.2.1", shared.map(sharer).into(), false);
    cluster.claims.listed(&["192.0.2.1".to_owned()].into());
    let published = vec![Ingress::vip("192.0.2.1".parse().unwrap(), &[])];
    // Both have port 80 by now.
    for name in ["one", "two"] {
        let (uid, published) = (name.to_owned(), published.clone());
        let web = Service { uid, published, ..service(&["192.0.2.1"]) };
        cluster.apply_service(Name::new("d", name), web);
        slice(&mut cluster, name, name, &["a"]);
    }
    // One that is on its way, of an address that nobody has.
    let published = vec![Ingress::vip("192.0.2.9".parse().unwrap(), &[])];
    let kept = Service { ours: false, ending: true, published, ..service(&[]) };
    cluster.apply_service(Name::new("d", "kept"), kept);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    let context = context(&wanted, &host);
    let clears = |leases: &Leases, node: &str, name: &str| {
        let (context, name) = (Context { node, ..context }, Name::new("d", name));
        leases.clears(context, &name, &wanted.services[&name], now)
    };
    assert!(wanted.services[&Name::new("d", "one")].strays.is_empty());
    for name in ["two", "kept"] {
        assert_eq!(wanted.services[&Name::new("d", name)].strays.len(), 1, "{name}");
    }
    let leases = holder(Strategy::PerService, context, now);
    assert_eq!(clears(&leases, "a", "two"), Some(Duration::ZERO), "it has the address");
    let turns: BTreeSet<_> = ["a", "b", "c"].map(|node| clears(&leases, node, "kept")).into();
    assert_eq!(turns.len(), 3, "one after the other");
    assert!(turns.iter().all(|turn| turn.is_some_and(|turn| turn >= Duration::from_secs(3))));
    let other = Leases::new("b", global(), Timing::DEFAULT, BTreeMap::new());
    assert_eq!(clears(&other, "b", "two"), None, "who holds the Lease of all does");
    assert_eq!(clears(&holder(global(), context, now), "a", "kept"), Some(Duration::ZERO));

    let two = Name::new("d", "two");
    let mut paused = wanted.services[&two].clone();
    paused.paused = std::mem::take(&mut paused.strays);
    assert_eq!(leases.clears(context, &two, &paused, now), Some(Duration::ZERO));
    let other = Leases::new("b", Strategy::PerService, Timing::DEFAULT, BTreeMap::new());
    let turn = other.clears(Context { node: "b", ..context }, &two, &paused, now);
    assert_eq!(turn, None, "who has the address alone, as others may have seen another pause");
}

#[test]
fn who_is_emptied_or_cordoned_lets_others_acquire_first_and_strives_all_the_same() {
    let local = Service { local: true, ..service(&["192.0.2.2"]) };
    let mut cluster = cluster(&[("web", service(&["192.0.2.1"])), ("local", local)]);
    slice(&mut cluster, "web", "s", &["b"]);
    slice(&mut cluster, "local", "t", &["a", "b"]);
    let (host, now) = (host(), Instant::now());
    let wanted = seen(&cluster, &host, Some("eth0"));
    // What this node strives for, and of what it lets others go first.
    let defers = |strategy, stays: Option<[Stay; 2]>| {
        let mut peers = Peers::default();
        for (name, stay) in ["a", "b"].into_iter().zip(stays.into_iter().flatten()) {
            peers.apply(name.to_owned(), Peer { stay, ..Peer::default() });
        }
        let nodes = stays.map(|_| &peers);
        let leases = holder(strategy, Context { nodes, ..context(&wanted, &host) }, now);
        let later = leases.strives.iter().filter(|(_, strife)| !strife.deference.is_zero());
        let later: Vec<String> = later.map(|(name, _)| name.name.clone()).collect();
        (leases.strives.len(), later.join(" "))
    };
    let of = |count: usize, later: &str| (count, later.to_owned());
    use Stay::{Cordoned, Emptied, Stays};
    for (mine, other, global_later, later) in [
        (Stays, Stays, "", ""),
        (Stays, Emptied, "", ""),
        (Cordoned, Stays, "lock", "kubevip-web"),
        (Cordoned, Emptied, "", ""),
        (Emptied, Cordoned, "lock", "kubevip-local kubevip-web"),
        (Emptied, Emptied, "", ""),
    ] {
        let stays = Some([mine, other]);
        assert_eq!(defers(global(), stays), of(1, global_later), "{stays:?}");
        assert_eq!(defers(Strategy::PerService, stays), of(2, later), "{stays:?}");
    }
    assert_eq!(defers(Strategy::PerService, None), of(2, ""), "no Node may be looked at");
}

#[test]
fn endpoints_that_serve_until_they_end_keep_the_lease_where_it_is_and_let_others_go_first() {
    let local = Service { local: true, ..service(&["192.0.2.1"]) };
    let mut cluster = cluster(&[("web", local)]);
    let on = |nodes: &[&str]| {
        let nodes: BTreeSet<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        Where { any: !nodes.is_empty(), nodes }
    };
    let mut strives = |ready: &[&str], serving: &[&str]| {
        let endpoints = Endpoints { ready: on(ready), serving: on(serving) };
        ending(&mut cluster, "web", "s", endpoints);
        let (host, now) = (host(), Instant::now());
        let wanted = seen(&cluster, &host, Some("eth0"));
        let mut peers = Peers::default();
        for name in ["a", "b"] {
            peers.apply(name.to_owned(), Peer::default());
        }
        let context = Context { nodes: Some(&peers), ..context(&wanted, &host) };
        let leases = holder(Strategy::PerService, context, now);
        let strife = leases.strives.values().next();
        let holds_now = strife.is_some_and(|strife| strife.deference.is_zero());
        assert_eq!(leases.holds(context, now).len(), usize::from(holds_now));
        strife.map(|strife| !strife.deference.is_zero())
    };
    assert_eq!(strives(&["a"], &[]), Some(false));
    assert_eq!(strives(&[], &["a"]), Some(false));
    assert_eq!(strives(&["b"], &["a"]), Some(true));
    assert_eq!(strives(&["b"], &[]), None);
}

#[test]
fn on_a_shared_address_only_nodes_strive_that_serve_it_for_the_first_and_who_stands_apart_is_told()
{
    let local = |created: &str| {
        let created = created.to_owned();
        Service { local: true, created, ..service(&["192.0.2.1"]) }
    };
    let mut cluster = cluster(&[("one", local("2025")), ("two", local("2026"))]);
    let (host, now) = (host(), Instant::now());
    let strives = |cluster: &Cluster, node: &str| {
        let wanted = seen(cluster, &host, Some("eth0"));
        let context = Context { node, ..context(&wanted, &host) };
        !holder(Strategy::PerService, context, now).strives.is_empty()
    };
    slice(&mut cluster, "one", "s", &["a", "b"]);
    slice(&mut cluster, "two", "t", &["b", "c"]);
    assert_eq!(["a", "b", "c"].map(|node| strives(&cluster, node)), [false, true, false]);
    slice(&mut cluster, "one", "s", &["a"]);
    assert_eq!(["a", "b", "c"].map(|node| strives(&cluster, node)), [true, false, false]);
    let wanted = seen(&cluster, &host, Some("eth0"));
    let context = context(&wanted, &host);
    let verdicts = holder(Strategy::PerService, context, now).verdicts(context, now);
    let told = |name: &str| {
        let verdict = &verdicts[&Name::new("d", name)];
        (verdict.announce.len(), verdict.refusals.first().map(Refusal::reason))
    };
    assert_eq!((told("one"), told("two")), ((1, None), (0, Some("NotServedTogether"))));
    // The Lease of all goes where it goes, and whoever can be served there is.
    let elsewhere = Context { node: "c", ..context };
    let leases = holder(global(), elsewhere, now);
    let verdict =
        |name: &str| leases.verdicts(elsewhere, now).remove(&Name::new("d", name)).unwrap();
    assert_eq!(verdict("one").refusals[0].reason(), "NoLocalEndpoint");
    assert_eq!((leases.holds(elsewhere, now).len(), verdict("two").announce.len()), (1, 1));
}

impl Leases {
    /// The Leases that this node strives for.
    fn holding(&self) -> BTreeSet<Name> {
        self.strives.keys().cloned().collect()
    }
}

#[test]
fn where_nobody_strives_for_the_lease_whoever_finds_why_says_so_and_nobody_where_somebody_holds_it()
{
    let now = Instant::now();
    let mut local = service(&["192.0.2.1"]);
    local.local = true;
    let told = |own: &crate::source::cluster::Service, endpoints: &[&str], interface, holder| {
        let mut cluster = cluster(&[("web", own.clone())]);
        slice(&mut cluster, "web", "s", endpoints);
        let host = host();
        let wanted = seen(&cluster, &host, Some(interface));
        let mut leases = Leases::new("a", Strategy::PerService, Timing::DEFAULT, BTreeMap::new());
        leases.listed(&BTreeSet::new(), now);
        let spec = Some(LeaseSpec { holder_identity: holder, ..LeaseSpec::default() });
        let held = Lease { spec, ..Lease::default() };
        leases.observe(Name::new("d", "kubevip-web"), Sight::Present(Box::new(held)), now);
        leases.request(context(&wanted, &host));
        let verdict = leases.verdicts(context(&wanted, &host), now).remove(&web())?;
        assert_eq!(verdict.voice, Voice::Bystander);
        Some(verdict.refusals.iter().map(Refusal::reason).collect::<Vec<_>>())
    };
    let free = || Some(String::new());
    assert_eq!(told(&local, &[], "eth0", free()), Some(vec!["NoEndpoint"]));
    assert_eq!(told(&local, &[], "eth0", None), Some(vec!["NoEndpoint"]));
    assert_eq!(told(&local, &["gone"], "eth0", free()), Some(vec!["NoLiveNode"]));
    assert_eq!(told(&local, &["a"], "eth9", free()), Some(vec!["InterfaceMissing"]));
    assert_eq!(told(&local, &["a"], "eth0", free()), None, "it strives for it");
    assert_eq!(told(&local, &[], "eth0", Some("b".to_owned())), None, "that one says so");
    let dhcp = Refusal::DhcpNotServed { marker: "0.0.0.0".parse().unwrap() };
    let none = crate::source::cluster::Service { remarks: [dhcp].into(), ..service(&[]) };
    assert_eq!(told(&none, &["a"], "eth0", free()), Some(vec!["DhcpNotServed"]));
    let named = crate::source::cluster::Service { vip_host: Some("b".to_owned()), ..local.clone() };
    assert_eq!(told(&named, &["b"], "eth0", free()), None, "another node is named");
}
