//! Which labels say what a node answers for (`enable_node_labeling`), and what is to be changed of those that Nodes have: the
//! names and values are kube-vip's. Pure.
//!
//! Each Service has a label of its own. `kube-vip.io/has-ip` has room for one address: the one that `address` names, as in
//! kube-vip, where the node answers for it, and else the lowest (kube-vip#698, #753).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv6Addr};

use berth_api::names::label::{HAS_IP, SERVICE_PROVIDED};
use kube::core::ObjectMeta;

use crate::source::room;
use crate::vip::{Name, Wanted, unserved};

/// The longest name of a label, behind its prefix, and the longest value.
const LONGEST: usize = 63;
/// So many Services are labelled on a Node, shared by their namespaces: a Node has to leave room for what the kubelet writes.
const MOST: usize = 512;
/// Between two addresses: kube-vip's comma is in no label that an API server takes.
const AND: char = '_';

/// What a node is to be labelled with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// The labels.
    pub all: BTreeMap<String, String>,
    /// The addresses that they are about, for which no other node answers.
    pub live: BTreeSet<IpAddr>,
}

/// The labels of `node`, which answers for what is `live`.
pub fn wanted(
    wanted: &Wanted,
    live: &BTreeSet<IpAddr>,
    node: &str,
    first: Option<IpAddr>,
) -> Labels {
    let mut labels = Labels::default();
    let mut each: BTreeMap<&str, Vec<(String, String)>> = BTreeMap::new();
    for (name, claim) in wanted.services.iter().filter(|(_, claim)| claim.ours) {
        let serves = |own: &&IpAddr| live.contains(*own) && unserved(claim, own, node).is_none();
        let own: Vec<IpAddr> = claim.own().filter(serves).copied().collect();
        let values = values(&own);
        labels.live.extend(own);
        let Some(key) = key(name).filter(|_| !values.is_empty()) else { continue };
        each.entry(&name.namespace).or_default().push((key, values));
    }
    // Where there are more namespaces than labels some have one.
    let share = room::share(each.values().map(Vec::len), MOST, MOST).max(1);
    let shared = each.into_values().flat_map(|all| all.into_iter().take(share));
    labels.all.extend(shared.take(MOST));
    let first = first.filter(|first| labels.live.contains(first));
    let named = first.or_else(|| labels.live.first().copied());
    labels.all.extend(named.map(|address| (HAS_IP.to_owned(), value(address))));
    labels
}

/// The label of a Service, whose name and namespace may be too long for one.
fn key(Name { namespace, name }: &Name) -> Option<String> {
    let fits = name.len() + 1 + namespace.len() <= LONGEST;
    fits.then(|| format!("{SERVICE_PROVIDED}/{name}.{namespace}"))
}

fn is_ours(key: &str) -> bool {
    key == HAS_IP || key.split_once('/').is_some_and(|(prefix, _)| prefix == SERVICE_PROVIDED)
}

/// As many of the addresses, in their order, as a label has room for: two of IPv6 it has not.
fn values(own: &[IpAddr]) -> String {
    own.iter().fold(String::new(), |text, own| {
        let more =
            if text.is_empty() { value(*own) } else { format!("{text}{AND}{}", value(*own)) };
        if more.len() <= LONGEST { more } else { text }
    })
}

fn value(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("{:032x}", u128::from(address)),
    }
}

/// The addresses of a value; none if one of them is not readable.
fn addresses(value: &str) -> Option<Vec<IpAddr>> {
    let read = |text: &str| {
        let hex = || u128::from_str_radix(text, 16).ok().filter(|_| text.len() == 32);
        text.parse().ok().or_else(|| Some(Ipv6Addr::from(hex()?).into()))
    };
    value.split(AND).map(read).collect()
}

/// A Node, with those of its labels that are about addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Labelled {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) labels: BTreeMap<String, String>,
}

impl Labelled {
    pub(super) fn read(metadata: ObjectMeta) -> Self {
        let mut labels = metadata.labels.unwrap_or_default();
        labels.retain(|key, _| is_ours(key));
        let (name, version) = (metadata.name, metadata.resource_version);
        Self { name: name.unwrap_or_default(), version: version.unwrap_or_default(), labels }
    }
}

/// What is to be changed of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) node: String,
    /// The version that this was decided on.
    pub(super) version: String,
    /// By label what it is to be; nothing takes it off.
    pub(super) labels: BTreeMap<String, Option<String>>,
}

/// What makes it true: `node` has what is wanted and nothing else, and another one none that is about addresses of this one
/// alone. One that has died cannot take its own off.
pub(super) fn changes(nodes: &[Labelled], node: &str, wanted: &Labels) -> Vec<Change> {
    let is_taken_over = |value: &str| {
        let all = addresses(value);
        all.is_some_and(|all| all.iter().all(|address| wanted.live.contains(address)))
    };
    let change = |seen: &Labelled| {
        let is_own = seen.name == node;
        let goes = |(key, value): &(&String, &String)| match is_own {
            true => !wanted.all.contains_key(*key),
            false => is_taken_over(value),
        };
        let gone = seen.labels.iter().filter(goes).map(|(key, _)| (key.clone(), None));
        let lacks = |(key, value): &(&String, &String)| seen.labels.get(*key) != Some(*value);
        let own = wanted.all.iter().filter(|_| is_own).filter(lacks);
        let new = own.map(|(key, value)| (key.clone(), Some(value.clone())));
        let labels: BTreeMap<_, _> = gone.chain(new).collect();
        let (node, version) = (seen.name.clone(), seen.version.clone());
        (!labels.is_empty()).then_some(Change { node, version, labels })
    };
    nodes.iter().filter_map(change).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{service, slice, slice_of};
    use crate::source::testing::{host, seen};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// What node `a` is labelled with, whose Services have these addresses, where it answers for some.
    fn labelled(
        services: &[(&str, &[&str])],
        live: &[&str],
        first: Option<&str>,
    ) -> BTreeMap<String, String> {
        let mut cluster = Cluster::default();
        for (name, addresses) in services {
            cluster.apply_service(Name::new("d", *name), service(addresses));
            slice(&mut cluster, name, name, &["a"]);
        }
        let live = live.iter().map(|text| ip(text)).collect();
        wanted(&seen(&cluster, &host(), None), &live, "a", first.map(ip)).all
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_node_says_of_each_service_which_addresses_it_answers_for() {
        let both: &[&str] = &["192.0.2.1", "2001:db8::1"];
        let six = "20010db8000000000000000000000001";
        let web = "service-provided.kube-vip.io/web.d";
        let api = "service-provided.kube-vip.io/api.d";
        let services = [("web", both), ("api", &["192.0.2.7"])];
        let of = |live: &[&str]| labelled(&services, live, None);
        assert_eq!(of(&[]), map(&[]));
        assert_eq!(of(&["2001:db8::1"]), map(&[(web, six), (HAS_IP, six)]));
        let all = [both, &["192.0.2.7"]].concat();
        let two = format!("192.0.2.1_{six}");
        let expected = map(&[(web, &two), (api, "192.0.2.7"), (HAS_IP, "192.0.2.1")]);
        assert_eq!(of(&all), expected, "one label has room for one address");
        let named = labelled(&services, &all, Some("192.0.2.7"));
        assert_eq!(named[HAS_IP], "192.0.2.7", "the one that `address` names");
        let elsewhere = labelled(&services, &["192.0.2.1"], Some("192.0.2.7"));
        assert_eq!(elsewhere[HAS_IP], "192.0.2.1", "unless another node answers for it");
    }

    #[test]
    fn a_name_that_no_label_has_room_for_is_left_out() {
        let long = "n".repeat(62);
        let only = labelled(&[(&long, &["192.0.2.1"])], &["192.0.2.1"], None);
        assert_eq!(only, map(&[(HAS_IP, "192.0.2.1")]));
        let fits = labelled(&[(&long[1..], &["192.0.2.1"])], &["192.0.2.1"], None);
        assert_eq!(fits.len(), 2);
    }

    #[test]
    fn whatever_addresses_a_service_has_its_label_is_one_that_an_api_server_takes() {
        let (four, six) = (["192.0.2.101", "192.0.2.102"], ["2001:db8::1", "2001:db8::2"]);
        for both in [[six[0], six[1]], [four[0], four[1]], [four[0], six[0]], [six[1], four[1]]] {
            let labels = labelled(&[("web", &both)], &both, None);
            let own = &labels["service-provided.kube-vip.io/web.d"];
            let is_taken = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            assert!(own.len() <= 63 && own.chars().all(is_taken), "{own}");
            assert_eq!(addresses(own).unwrap()[0], ip(both[0]), "{own}");
        }
    }

    #[test]
    fn where_there_are_more_namespaces_than_labels_as_many_have_one() {
        let (mut cluster, mut live) = (Cluster::default(), BTreeSet::new());
        for number in 0..600u16 {
            let [high, low] = number.to_be_bytes();
            let address = IpAddr::from([10, 0, high, low]);
            let name = Name::new(format!("n{number}"), "web");
            cluster.apply_service(name.clone(), service(&[&address.to_string()]));
            slice_of(&mut cluster, &name, &["a"]);
            live.insert(address);
        }
        let all = wanted(&seen(&cluster, &host(), None), &live, "a", None).all;
        assert_eq!(all.len(), MOST + 1);
    }

    #[test]
    fn no_namespace_fills_a_node() {
        let (mut cluster, mut live) = (Cluster::default(), BTreeSet::new());
        for number in 0..600u16 {
            let [high, low] = number.to_be_bytes();
            let address = IpAddr::from([10, 0, high, low]);
            let namespace = if number % 300 == 0 { "shop" } else { "mallory" };
            let name = Name::new(namespace, format!("s{number}"));
            cluster.apply_service(name.clone(), service(&[&address.to_string()]));
            slice_of(&mut cluster, &name, &["a"]);
            live.insert(address);
        }
        let all = wanted(&seen(&cluster, &host(), None), &live, "a", None).all;
        let of = |namespace: &str| all.keys().filter(|key| key.ends_with(namespace)).count();
        assert_eq!((of(".shop"), of(".mallory")), (2, MOST - 2));
    }

    fn node(name: &str, labels: &[(&str, &str)]) -> Labelled {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            resource_version: Some("7".to_owned()),
            labels: Some(map(labels)),
            ..ObjectMeta::default()
        };
        Labelled::read(metadata)
    }

    #[test]
    fn what_a_node_has_no_more_goes_and_so_does_what_was_taken_over_from_another() {
        let (web, api) =
            ("service-provided.kube-vip.io/web.d", "service-provided.kube-vip.io/api.d");
        let other = "kubernetes.io/hostname";
        let wanted = Labels {
            all: map(&[(HAS_IP, "192.0.2.1"), (web, "192.0.2.1")]),
            live: [ip("192.0.2.1"), ip("2001:db8::1")].into(),
        };
        let six = "20010db8000000000000000000000001";
        let part = format!("192.0.2.1{AND}192.0.2.9");
        let nodes = [
            node("a", &[(other, "a"), (web, "192.0.2.9"), (api, "192.0.2.9")]),
            node("b", &[(other, "b"), (HAS_IP, six), (web, &part)]),
            node("c", &[(HAS_IP, "192.0.2.9"), (api, "what is no address")]),
        ];
        let told = changes(&nodes, "a", &wanted);
        let of = |pairs: &[(&str, Option<&str>)]| {
            let own =
                |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
            pairs.iter().map(own).collect::<BTreeMap<_, _>>()
        };
        let own = of(&[(HAS_IP, Some("192.0.2.1")), (web, Some("192.0.2.1")), (api, None)]);
        let change =
            |name: &str, labels| Change { node: name.to_owned(), version: "7".to_owned(), labels };
        assert_eq!(told, [change("a", own), change("b", of(&[(HAS_IP, None)]))]);
        let done = node("a", &[(HAS_IP, "192.0.2.1"), (web, "192.0.2.1"), (other, "a")]);
        assert_eq!(changes(std::slice::from_ref(&done), "a", &wanted), []);
        let nothing = changes(&[done], "a", &Labels::default());
        assert_eq!(nothing, [change("a", of(&[(HAS_IP, None), (web, None)]))]);
    }
}
