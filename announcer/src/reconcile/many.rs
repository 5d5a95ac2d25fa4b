//! Ten thousand of what a tenant makes cost a round ten times as much as a thousand.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use berth_api::claim::{ClaimPolicy, Holder};
use berth_hostile::in_proportion;
use jiff::Timestamp;

use super::desired::Desired;
use super::plan::plan;
use crate::advertise::arp_nd::probe::Probes;
use crate::config::Permits;
use crate::dataplane::eip::Nat;
use crate::kernel::{Binding, Guard, Host, Lifetime, Port};
use crate::publish::eip::{Outlook, applies};
use crate::publish::status::Answering;
use crate::source::cluster::testing::{eip, service};
use crate::source::cluster::{Claims, Cluster, Eip, Service};
use crate::source::eip::{Translations, Usage};
use crate::source::fixed::Fixed;
use crate::source::scene::Scene;
use crate::source::testing::host;
use crate::source::wanted::wanted;
use crate::vip::{Hold, Holds, Name, Wanted};

fn address(first: u8, number: usize) -> IpAddr {
    let [_, a, b, c] = u32::try_from(number).unwrap().to_be_bytes();
    Ipv4Addr::from([first, a, b, c]).into()
}

fn names(count: usize) -> impl Iterator<Item = (usize, Name)> {
    (0..count).map(|number| (number, Name::new("shop", format!("m{number}"))))
}

/// What is decided where all of `held` is bound.
fn decide(cluster: &Cluster, held: &[IpAddr]) -> Wanted {
    let (mut host, now) = (host(), Instant::now());
    let until = now + Duration::from_secs(60);
    let bindings = held.iter().map(|address| Binding { index: 2, address: *address });
    host.ours = bindings.map(|binding| (binding, Lifetime::Until(until))).collect();
    let scene = scene(cluster, &host);
    let mut usage = Usage::default();
    usage.see(scene);
    let wanted = wanted(scene, &usage, &Fixed::default());
    let mut translations = Translations::default();
    for _ in 0..2 {
        translations.see(scene, &wanted, |_| true, now);
    }
    let nat = Nat { pairs: translations.pairs(now), ..Nat::default() };
    let hold = Hold { until, answers: true, lapses: None };
    let holds: Holds = held.iter().map(|address| (*address, hold)).collect();
    let ready = |address: IpAddr, _: &_| host.has(&address);
    let desired = Desired::of(&wanted, "a", &holds, &Probes::default(), ready);
    assert_eq!(desired.addresses.len(), held.len());
    let ports: BTreeSet<Port> = desired.guard.ports.clone();
    let steps = plan(&desired, &host, &Guard::Holds(ports.into()), Duration::from_secs(20), now);
    assert_eq!(steps, []);
    let bound: BTreeSet<IpAddr> = held.iter().copied().collect();
    let answering =
        Answering { live: bound.clone(), kept: bound.clone(), failed: BTreeSet::new(), bound };
    let outlook = Outlook {
        answering: &answering,
        lost: &wanted.lost,
        taken: &BTreeMap::new(),
        translated: &nat,
        broken: None,
        refused: &BTreeMap::new(),
        awaits: None,
        unheard: None,
    };
    let named = cluster.eips().values().filter(|eip| eip.owner().is_some()).count();
    assert_eq!(applies(scene, &outlook, |_| false, Timestamp::UNIX_EPOCH).len(), named);
    wanted
}

fn scene<'a>(cluster: &'a Cluster, host: &'a Host) -> Scene<'a> {
    Scene {
        cluster,
        host,
        node: "a",
        interface: Some("eth0"),
        permits: Permits::ALL,
        routed: None,
        layer2: &[],
    }
}

#[test]
fn elastic_ips_of_one_tenant_on_one_node_and_bindings_that_have_none() {
    in_proportion(1000, |count| {
        let mut cluster = Cluster::default();
        for (number, name) in names(count) {
            let pairs = vec![(address(20, number), address(10, number))];
            cluster.apply_eip(name, Eip { pairs, ..eip("a", &[]) });
            cluster.apply_eip(Name::new("waiting", format!("m{number}")), eip("a", &[]));
        }
        let held: Vec<IpAddr> = (0..count).map(|number| address(20, number)).collect();
        assert_eq!(decide(&cluster, &held).vips.len(), count);
    });
}

#[test]
fn services_of_one_tenant_with_an_address_each() {
    in_proportion(1000, |count| {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        for (number, name) in names(count) {
            let (uid, own) = (format!("uid-{number}"), address(20, number));
            cluster.claims.apply(&own.to_string(), vec![Holder::alone(&uid)], false);
            cluster.apply_service(name, Service { uid, ..service(&[&own.to_string()]) });
        }
        let held: Vec<IpAddr> = (0..count).map(|number| address(20, number)).collect();
        assert_eq!(decide(&cluster, &held).vips.len(), count);
    });
}

#[test]
fn services_that_share_one_address_and_those_that_ask_for_it_in_vain() {
    in_proportion(300, |count| {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let uids: Vec<String> = (0..count).map(|number| format!("uid-{number}")).collect();
        let holders = uids.into_iter().map(Holder::alone).collect();
        cluster.claims.apply("192.0.2.1", holders, false);
        for (number, name) in names(count * 2) {
            let uid = format!("uid-{number}");
            cluster.apply_service(name, Service { uid, ..service(&["192.0.2.1"]) });
        }
        let wanted = decide(&cluster, &["192.0.2.1".parse().unwrap()]);
        assert_eq!(wanted.vips.values().next().unwrap().wants.len(), count);
    });
}

#[test]
fn bindings_that_name_one_address_which_one_of_them_has() {
    in_proportion(1000, |count| {
        let mut cluster = Cluster::default();
        for (number, name) in names(count) {
            let pairs = vec![(address(20, 1), address(10, number))];
            cluster.apply_eip(name, Eip { pairs, ..eip("a", &[]) });
        }
        let wanted = decide(&cluster, &[address(20, 1)]);
        assert_eq!((wanted.vips.len(), wanted.lost.len()), (1, count - 1));
    });
}
