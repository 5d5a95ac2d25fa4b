//! Where endpoints are: by EndpointSlices, or by Endpoints where a role that was made for an older kube-vip grants those alone.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::lean::{Lean, Take, strip};
use berth_api::limits::MOST_PORTS;
use berth_api::names::label;
use berth_runtime::watch::{Served, objects, objects_where_granted};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{
    EndpointAddress, EndpointPort as Port, EndpointSubset, Endpoints,
};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions, EndpointPort, EndpointSlice};
use kube::api::{Api, Resource};
use kube::runtime::watcher::{Config, Event};
use tokio::sync::mpsc;

use super::feed::{ClusterEvent, LARGE};
use crate::source::cluster::{Name, Slice, Taken};

/// Those that lead to endpoints of a proxy: not of headless Services.
const PROXIED: &str = "!service.kubernetes.io/headless";

/// An EndpointSlice, of which little is kept.
pub(super) type AsSlice = Lean<EndpointSlice, Taken>;
/// Endpoints, as the slices that would say the same.
pub(super) type AsOlder = Lean<Endpoints, Subsets>;

/// Of so many addresses it is read where they are: the controller of Endpoints leaves out what exceeds a thousand, and whoever
/// may write them may write a hundred thousand.
const MOST_ADDRESSES: usize = 1024;

/// So many subsets count that differ in family or in names of ports: those of pods have few, and by hand there may be ten
/// thousands.
const MOST_KINDS: usize = 64;

/// What is taken of Endpoints: a slice for each family and names of ports.
#[derive(Clone, Debug)]
pub(super) struct Subsets(Vec<Slice>);

/// Whether the addresses are of IPv6, and the names and protocols of the ports.
type Kind = (bool, Vec<(Option<String>, Option<String>)>);

impl Take<Endpoints> for Subsets {
    fn take(object: &mut Endpoints) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        let own = object.metadata.labels.iter().flatten();
        let proxy = own.filter(|(key, _)| *key == label::PROXY_NAME);
        let labels = proxy.map(|(key, value)| (key.clone(), value.clone()));
        let labels: BTreeMap<_, _> =
            labels.chain([(label::SERVICE_NAME.to_owned(), name)]).collect();
        let mut kinds: BTreeMap<Kind, EndpointSlice> = BTreeMap::new();
        let mut room = MOST_ADDRESSES;
        for subset in object.subsets.take().unwrap_or_default() {
            let EndpointSubset { addresses, not_ready_addresses, ports } = subset;
            let ports: Vec<EndpointPort> =
                ports.into_iter().flatten().take(MOST_PORTS).map(port).collect();
            let ready = addresses.into_iter().flatten().map(|own| endpoint(own, true));
            let not = not_ready_addresses.into_iter().flatten().map(|own| endpoint(own, false));
            let all: Vec<Endpoint> = ready.chain(not).take(room).collect();
            room -= all.len();
            let (v6, v4): (Vec<_>, Vec<_>) =
                all.into_iter().partition(|own| own.addresses[0].contains(':'));
            for (is_v6, endpoints) in [(false, v4), (true, v6)] {
                let names = ports.iter().map(|port| (port.name.clone(), port.protocol.clone()));
                let kind = (is_v6, names.collect());
                let is_known = kinds.contains_key(&kind);
                if endpoints.is_empty() || !is_known && kinds.len() >= MOST_KINDS {
                    continue;
                }
                let begin = || {
                    let family = if is_v6 { "IPv6" } else { "IPv4" }.to_owned();
                    let mut slice = EndpointSlice { address_type: family, ..Default::default() };
                    slice.ports = Some(ports.clone());
                    slice.metadata.labels = Some(labels.clone());
                    slice
                };
                kinds.entry(kind).or_insert_with(begin).endpoints.extend(endpoints);
            }
        }
        let slices = kinds.values().filter_map(Slice::read).map(|(_, slice)| slice);
        let taken = Self(slices.collect());
        strip(&mut object.metadata);
        object.metadata.annotations = None;
        taken
    }
}

fn endpoint(own: EndpointAddress, ready: bool) -> Endpoint {
    Endpoint {
        addresses: vec![own.ip],
        node_name: own.node_name,
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        ..Endpoint::default()
    }
}

fn port(own: Port) -> EndpointPort {
    EndpointPort {
        port: Some(own.port),
        protocol: own.protocol,
        name: own.name,
        ..EndpointPort::default()
    }
}

/// How many slices stand for the Endpoints of each name.
#[derive(Default)]
struct Older(BTreeMap<Name, usize>);

impl Older {
    /// No slice has a name with a slash.
    fn part(of: &Name, number: usize) -> Name {
        Name::new(of.namespace.as_str(), format!("{}/{number}", of.name))
    }

    fn see(&mut self, event: Event<AsOlder>) -> Vec<ClusterEvent> {
        match event {
            Event::Init => {
                self.0.clear();
                Vec::new()
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let (of, Subsets(slices)) = (Name::of(object.meta()), object.taken);
                let before = self.0.insert(of.clone(), slices.len()).unwrap_or_default();
                let gone =
                    (slices.len()..before).map(|at| ClusterEvent::SliceGone(Self::part(&of, at)));
                let gone: Vec<_> = gone.collect();
                let there = slices.into_iter().enumerate().map(|(at, slice)| {
                    ClusterEvent::Slice(Self::part(&of, at), Some((of.clone(), slice)))
                });
                there.chain(gone).collect()
            }
            Event::Delete(object) => {
                let of = Name::of(object.meta());
                let before = self.0.remove(&of).unwrap_or_default();
                (0..before).map(|at| ClusterEvent::SliceGone(Self::part(&of, at))).collect()
            }
            Event::InitDone => {
                let all = self.0.iter();
                let all = all.flat_map(|(of, count)| (0..*count).map(|at| Self::part(of, at)));
                vec![ClusterEvent::Slices(all.collect())]
            }
        }
    }
}

/// Passes on where endpoints are until nobody listens.
pub(super) async fn follow(
    slices: Api<AsSlice>,
    endpoints: Api<AsOlder>,
    send: mpsc::Sender<ClusterEvent>,
) {
    let config = || Config::default().labels(PROXIED).page_size(LARGE);
    let mut slices = Box::pin(objects_where_granted(slices, config()));
    let mut older: Option<(BoxStream<'static, Event<AsOlder>>, Older)> = None;
    let mut coming = BTreeSet::new();
    loop {
        let seen = tokio::select! {
            served = slices.next() => match served {
                None => return,
                Some(Served::Absent) => {
                    let stream = objects(endpoints.clone(), config()).boxed();
                    older = Some((stream, Older::default()));
                    vec![ClusterEvent::SlicesDenied(true)]
                }
                Some(Served::Event(event)) => {
                    let is_shown = !matches!(event, Event::Init);
                    let granted = (is_shown && older.take().is_some())
                        .then_some(ClusterEvent::SlicesDenied(false));
                    granted.into_iter().chain(shown(event, &mut coming)).collect()
                }
            },
            seen = next(&mut older) => seen,
        };
        for event in seen {
            if send.send(event).await.is_err() {
                return;
            }
        }
    }
}

async fn next(
    older: &mut Option<(BoxStream<'static, Event<AsOlder>>, Older)>,
) -> Vec<ClusterEvent> {
    match older {
        Some((stream, there)) => match stream.next().await {
            Some(event) => there.see(event),
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

fn shown(event: Event<AsSlice>, coming: &mut BTreeSet<Name>) -> Option<ClusterEvent> {
    let name = |slice: &AsSlice| Name::of(slice.meta());
    Some(match event {
        Event::Init => {
            coming.clear();
            return None;
        }
        Event::InitApply(slice) => {
            coming.insert(name(&slice));
            ClusterEvent::Slice(name(&slice), slice.taken.0)
        }
        Event::InitDone => ClusterEvent::Slices(std::mem::take(coming)),
        Event::Apply(slice) => ClusterEvent::Slice(name(&slice), slice.taken.0),
        Event::Delete(slice) => ClusterEvent::SliceGone(name(&slice)),
    })
}

#[cfg(test)]
mod tests {
    use berth_api::Family;
    use serde_json::json;

    use super::*;
    use crate::source::cluster::Cluster;

    fn endpoints(subsets: serde_json::Value) -> AsOlder {
        let object = json!({ "metadata": { "namespace": "d", "name": "web" }, "subsets": subsets });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn endpoints_say_what_slices_say_and_each_subset_is_one_of_them() {
        let (mut cluster, mut older) = (Cluster::default(), Older::default());
        let mut see = |cluster: &mut Cluster, event| {
            for event in older.see(event) {
                match event {
                    ClusterEvent::Slice(name, read) => cluster.apply_slice(name, read),
                    ClusterEvent::SliceGone(name) => cluster.delete_slice(&name),
                    ClusterEvent::Slices(names) => cluster.retain_slices(&names),
                    other => panic!("{other:?}"),
                }
            }
        };
        ["a", "b", "c"].into_iter().for_each(|node| _ = cluster.nodes.apply(node));
        let at = |ip: &str, node: &str| json!({ "ip": ip, "nodeName": node });
        let port = |number: u16| json!([{ "name": "http", "port": number, "protocol": "TCP" }]);
        let ready = |cluster: &Cluster, family| {
            let all = cluster.endpoints(&Name::new("d", "web"), family);
            all.ready.nodes.into_iter().collect::<Vec<_>>().join(" ")
        };
        see(&mut cluster, Event::Init);
        see(
            &mut cluster,
            Event::InitApply(endpoints(json!([
                { "addresses": [at("10.0.0.1", "a")], "notReadyAddresses": [at("10.0.0.3", "c")], "ports": port(80) },
                { "addresses": [at("10.0.0.2", "b")], "ports": port(81) },
            ]))),
        );
        see(&mut cluster, Event::InitDone);
        assert_eq!(ready(&cluster, Family::V4), "a b");
        assert_eq!(ready(&cluster, Family::V6), "");
        let six = json!([{ "addresses": [at("fd00::1", "c")], "ports": port(80) }]);
        see(&mut cluster, Event::Apply(endpoints(six)));
        assert_eq!(
            (ready(&cluster, Family::V4), ready(&cluster, Family::V6)),
            (String::new(), "c".to_owned())
        );
        see(&mut cluster, Event::Delete(endpoints(json!(null))));
        assert_eq!(ready(&cluster, Family::V6), "");
    }

    /// What is taken of Endpoints with these subsets.
    fn taken(subsets: serde_json::Value) -> Vec<Slice> {
        endpoints(subsets).taken.0
    }

    #[test]
    fn each_address_counts_for_its_own_family_and_pods_of_other_numbers_are_of_one_slice() {
        let of = |ips: &[&str], number: u16| {
            let all: Vec<_> = ips.iter().map(|ip| json!({ "ip": ip, "nodeName": "a" })).collect();
            json!({ "addresses": all, "ports": [{ "name": "http", "port": number }] })
        };
        let slices = taken(json!([of(&["10.0.0.1", "fd00::1"], 80), of(&["10.0.0.2"], 81)]));
        let told = |slice: &Slice| {
            let all: Vec<String> = slice.addresses.iter().map(|ip| ip.to_string()).collect();
            (slice.family, slice.endpoints.ready.any, all.join(" "))
        };
        let told: Vec<_> = slices.iter().map(told).collect();
        let v4 = (Some(Family::V4), true, "10.0.0.1 10.0.0.2".to_owned());
        assert_eq!(told, [v4, (Some(Family::V6), true, "fd00::1".to_owned())]);
    }

    #[test]
    fn endpoints_of_another_proxy_are_none() {
        let object = json!({
            "metadata": {
                "namespace": "d", "name": "web", "labels": { label::PROXY_NAME: "other" },
            },
            "subsets": [{ "addresses": [{ "ip": "10.0.0.1" }], "ports": [{ "port": 80 }] }],
        });
        let read: AsOlder = serde_json::from_value(object).unwrap();
        let slices = read.taken.0;
        assert!(slices.iter().all(|slice| !slice.endpoints.ready.any) && slices.len() == 1);
    }

    #[test]
    fn of_endpoints_with_ten_thousands_of_subsets_or_addresses_little_is_kept() {
        let ip = |n: u32| std::net::Ipv4Addr::from(0x0a00_0000 + n).to_string();
        let subset = |n: u32| json!({ "addresses": [{ "ip": ip(n) }], "ports": [{ "name": format!("p{n}"), "port": 80 }] });
        let subsets: Vec<_> = (0..20_000).map(subset).collect();
        let addresses: Vec<_> =
            (0..50_000).map(|n| json!({ "ip": ip(n), "nodeName": format!("n{n}") })).collect();
        let one = json!([{ "addresses": addresses, "ports": [{ "port": 80 }] }]);
        for subsets in [json!(subsets), one] {
            let mut cluster = Cluster::default();
            let read = endpoints(subsets);
            let ((), kept) = berth_hostile::kept(|| {
                for event in Older::default().see(Event::Apply(read)) {
                    let ClusterEvent::Slice(name, read) = event else { continue };
                    cluster.apply_slice(name, read);
                }
            });
            assert!(kept < 100_000, "{kept}");
        }
    }
}
