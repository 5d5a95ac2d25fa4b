//! Where endpoints are: by EndpointSlices, or by Endpoints where a role that was made for an older kube-vip grants those alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::lean::{Lean, Take, strip};
use berth_api::names::label;
use berth_runtime::watch::{Served, objects, objects_where_granted};
use futures::StreamExt;
use futures::stream::BoxStream;
use k8s_openapi::api::core::v1::{EndpointAddress, EndpointSubset, Endpoints};
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

/// What is taken of Endpoints: a slice for each subset.
#[derive(Clone, Debug)]
pub(super) struct Subsets(Vec<Slice>);

impl Take<Endpoints> for Subsets {
    fn take(object: &mut Endpoints) -> Self {
        let name = object.metadata.name.clone().unwrap_or_default();
        let subsets = object.subsets.take().unwrap_or_default().into_iter();
        let slices = subsets.filter_map(|subset| Slice::read(&as_slice(&name, subset)));
        let taken = Self(slices.map(|(_, slice)| slice).collect());
        strip(&mut object.metadata);
        object.metadata.annotations = None;
        taken
    }
}

/// The EndpointSlice that says the same. Of one family: Endpoints have that of the Service's first address alone.
fn as_slice(service: &str, subset: EndpointSubset) -> EndpointSlice {
    let EndpointSubset { addresses, not_ready_addresses, ports } = subset;
    let endpoint = |own: EndpointAddress, ready| Endpoint {
        addresses: vec![own.ip],
        node_name: own.node_name,
        conditions: Some(EndpointConditions { ready: Some(ready), ..Default::default() }),
        ..Endpoint::default()
    };
    let ready = addresses.into_iter().flatten().map(|own| endpoint(own, true));
    let not = not_ready_addresses.into_iter().flatten().map(|own| endpoint(own, false));
    let endpoints: Vec<Endpoint> = ready.chain(not).collect();
    let ports = ports.into_iter().flatten().map(|port| EndpointPort {
        port: Some(port.port),
        protocol: port.protocol,
        name: port.name,
        ..EndpointPort::default()
    });
    let first = endpoints.first().and_then(|first| first.addresses[0].parse::<IpAddr>().ok());
    let mut slice = EndpointSlice {
        address_type: if first.is_some_and(|ip| ip.is_ipv6()) { "IPv6" } else { "IPv4" }.to_owned(),
        ports: Some(ports.collect()),
        endpoints,
        ..EndpointSlice::default()
    };
    let labels = [(label::SERVICE_NAME.to_owned(), service.to_owned())];
    slice.metadata.labels = Some(labels.into());
    slice
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
}
