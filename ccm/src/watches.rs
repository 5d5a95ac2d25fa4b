//! Owns the watches: the ConfigMap, Services, EipBindings, claims, Nodes, ServiceCIDRs and virtual machines. What comes
//! in is cut down to what is kept before it is handed on.
//!
//! # Permissions
//!
//! `list` and `watch` on `services` and `nodes` everywhere, and on the ConfigMap in its namespace. Besides, where it is
//! granted: the same on `ipaddresses.networking.k8s.io`, `servicecidrs.networking.k8s.io`, `eipbindings.berth.dev` and
//! `virtualmachineinstances.kubevirt.io` everywhere, on `leases.coordination.k8s.io` in the namespace of its own Lease and
//! in `kube-system`, on `endpointslices.discovery.k8s.io` in `default`, and `get` on the ConfigMap `cluster-info` in
//! `kube-public`. What is lost without each is said by [`crate::rights`].

use std::time::Duration;

use berth_api::eip::EipBinding;
use berth_api::host::{self, ControlPlane, Told};
use berth_api::lean::Lean;
use berth_api::names::{label, lease};
use berth_api::service::ClassPolicy;
use berth_api::{NamespacedName, claim};
use berth_index::Source;
use berth_index::binding::Binding;
use berth_index::claim::Claim;
use berth_index::finalizers::Finalizers;
use berth_index::intake::{Change, Host, Reservation};
use berth_index::kubevirt::{VirtualMachineInstance, Vmi};
use berth_index::service::Service;
use berth_ipam::AddressSet;
use berth_runtime::refusals::Refusals;
use berth_runtime::watch::{Served, chain, forbidden, objects, objects_where_granted};
use futures::stream::{self, BoxStream, Stream, StreamExt, select_all};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service as ServiceObject};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::Client;
use kube::api::Api;
use kube::runtime::watcher::{Config, Event};

use crate::reserved;

type LeanService = Lean<ServiceObject, Finalizers>;
type LeanBinding = Lean<EipBinding, Finalizers>;

/// Objects in one page of a list: small, for memory that a large page takes once is not given back.
const PAGE: u32 = 32;
/// The same of what a user can make a megabyte and a half large.
const LARGE: u32 = 8;

/// How long to wait before a read is tried again.
const AGAIN: Duration = Duration::from_secs(1);

/// Watches everything, for ever.
pub fn all(
    client: &Client,
    pools: &NamespacedName,
    leases: &str,
    classes: ClassPolicy,
) -> BoxStream<'static, Change> {
    let named = Config::default().fields(&format!("metadata.name={}", pools.name));
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &pools.namespace);
    let maps = objects(maps, named).map(config_map);

    let services =
        objects(Api::<LeanService>::all(client.clone()), Config::default().page_size(LARGE));
    let services = services.map(move |event| service(event, &classes));

    let ours = Config::default().labels(&claim::selector()).page_size(PAGE);
    let claims = objects_where_granted(Api::<IPAddress>::all(client.clone()), ours);
    let claims = claims.map(|served| where_served(served, Source::Claims, claimed));

    let nodes =
        objects(Api::<Node>::all(client.clone()), Config::default().page_size(PAGE)).map(node);
    let cidrs = objects_where_granted(Api::<ServiceCIDR>::all(client.clone()), Config::default());
    let unknown = "the ranges of cluster IPs are not known, and their addresses could be given out";
    let cidrs =
        cidrs.map(|served| where_granted(served, unknown, Source::ServiceCidrs, service_cidr));
    let hosts: Api<Lease> = Api::namespaced(client.clone(), leases);
    let hosts = objects_where_granted(hosts, Config::default().labels(label::HOST).page_size(PAGE));
    let unknown = "addresses that nodes have besides those of their Node objects are not known, and could be given out";
    let hosts = hosts.map(|served| where_granted(served, unknown, Source::Hosts, told));
    let of_services = Config::default().fields(&format!("metadata.name={}", lease::SERVICES));
    let election: Api<Lease> = Api::namespaced(client.clone(), leases);
    let election = objects_where_granted(election, of_services).map(|served| match served {
        Served::Absent => None,
        Served::Event(event) => elected(event),
    });
    let api_servers: Api<EndpointSlice> = Api::namespaced(client.clone(), reserved::API_SERVERS);
    let of_kubernetes = Config::default().labels(&reserved::of_kubernetes());
    let api_servers = objects_where_granted(api_servers, of_kubernetes);
    let unknown =
        "addresses of API servers are known only as far as nodes have them, and could be given out";
    let api_servers =
        api_servers.map(|served| where_granted(served, unknown, Source::ApiServers, api_server));
    let control_plane = control_plane(client.clone());
    let control_plane_hosts = control_plane_hosts(client, leases);
    // What each of these is for can be had without it: the watch begins when the resource is there.
    let large = || Config::default().page_size(LARGE);
    let bindings = Api::<LeanBinding>::all(client.clone());
    let bindings = objects_where_granted(bindings, large());
    let bindings = bindings.map(|served| where_served(served, Source::Eips, eip));
    let machines = Api::<Lean<VirtualMachineInstance>>::all(client.clone());
    let machines = objects_where_granted(machines, large());
    let machines = machines.map(|served| where_served(served, Source::Machines, machine));
    let streams = [
        maps.boxed(),
        services.boxed(),
        bindings.boxed(),
        claims.boxed(),
        nodes.boxed(),
        cidrs.boxed(),
        hosts.boxed(),
        election.boxed(),
        api_servers.boxed(),
        control_plane.boxed(),
        control_plane_hosts,
        machines.boxed(),
    ];
    select_all(streams).filter_map(std::future::ready).boxed()
}

fn config_map(event: Event<ConfigMap>) -> Option<Change> {
    let read = |map: ConfigMap| {
        Change::Pools(map.metadata.uid.unwrap_or_default(), map.data.unwrap_or_default())
    };
    match event {
        Event::Init => Some(Change::Listing(Source::Pools)),
        Event::InitDone => Some(Change::Listed(Source::Pools)),
        Event::Apply(map) | Event::InitApply(map) => Some(read(map)),
        Event::Delete(_) => Some(Change::PoolsGone),
    }
}

fn service(event: Event<LeanService>, classes: &ClassPolicy) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(Source::Services)),
        Event::InitDone => Some(Change::Listed(Source::Services)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Service(Box::new(Service::read(&object, classes)?)))
        }
        Event::Delete(object) => {
            let gone = Service::read(&object, classes)?;
            Some(Change::ServiceGone(gone.key, gone.uid))
        }
    }
}

fn where_served<K>(
    served: Served<K>,
    source: Source,
    read: impl Fn(Event<K>) -> Option<Change>,
) -> Option<Change> {
    match served {
        Served::Absent => Some(Change::Absent(source)),
        Served::Event(event) => read(event),
    }
}

/// The same; tells what is `unknown` where it may not be listed.
fn where_granted<K>(
    served: Served<K>,
    unknown: &str,
    source: Source,
    read: impl Fn(Event<K>) -> Option<Change>,
) -> Option<Change> {
    if let Served::Absent = served {
        tracing::warn!("{unknown}");
    }
    where_served(served, source, read)
}

fn eip(event: Event<LeanBinding>) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(Source::Eips)),
        Event::InitDone => Some(Change::Listed(Source::Eips)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Eip(Box::new(Binding::read(&object)?)))
        }
        Event::Delete(object) => {
            let gone = Binding::read(&object)?;
            Some(Change::EipGone(gone.key, gone.uid))
        }
    }
}

fn machine(event: Event<Lean<VirtualMachineInstance>>) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(Source::Machines)),
        Event::InitDone => Some(Change::Listed(Source::Machines)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Machine(Box::new(Vmi::read(&object.object)?)))
        }
        Event::Delete(object) => {
            let gone = Vmi::read(&object.object)?;
            Some(Change::MachineGone(gone.key, gone.uid))
        }
    }
}

fn claimed(event: Event<IPAddress>) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(Source::Claims)),
        Event::InitDone => Some(Change::Listed(Source::Claims)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Claim(Box::new(Claim::read(&object)?)))
        }
        Event::Delete(object) => {
            let gone = Claim::read(&object)?;
            Some(Change::ClaimGone(gone.address, gone.uid))
        }
    }
}

fn node(event: Event<Node>) -> Option<Change> {
    let gone = |node: &Node| {
        let names = reserved::names_of_node(node.metadata.name.as_deref()?);
        Some(names.map(|name| (name, AddressSet::new())).into())
    };
    used(Source::Nodes, event, |node| Some(reserved::of_node(node).into()), gone)
}

fn told(event: Event<Lease>) -> Option<Change> {
    let there = |node: &str, told: Told, renewed| {
        let reservations = reserved::of_host(node, &told).into();
        let Told { macs, offers, routers, .. } = told;
        let (node, keeps) = (node.to_owned(), routers.map(|routers| routers.keeps));
        Change::Host(Box::new(Host { node, reservations, macs, offers, keeps, renewed }))
    };
    let reserve = |reservation| Some(Change::Reserved(Source::Hosts, vec![reservation]));
    match event {
        Event::Init => Some(Change::Listing(Source::Hosts)),
        Event::InitDone => Some(Change::Listed(Source::Hosts)),
        Event::Delete(lease) if ControlPlane::read(&lease).is_some() => {
            let (node, _) = ControlPlane::read(&lease)?;
            reserve((reserved::name_of_control_plane(node), AddressSet::new()))
        }
        Event::Apply(lease) | Event::InitApply(lease) if ControlPlane::read(&lease).is_some() => {
            reserve(reserved::of_control_plane(&lease)?)
        }
        Event::Apply(lease) | Event::InitApply(lease) => {
            Some(there(host::node(&lease)?, Told::read(&lease), Some(host::renewed(&lease))))
        }
        Event::Delete(lease) => Some(there(host::node(&lease)?, Told::default(), None)),
    }
}

/// What announcers of the control plane tell where kubeadm has their Pods, if that is not the namespace `home`, whose Leases all
/// are watched.
fn control_plane_hosts(client: &Client, home: &str) -> BoxStream<'static, Option<Change>> {
    let source = Source::ControlPlaneHosts;
    if home == reserved::STATIC_PODS {
        return stream::iter([Some(Change::Listed(source))]).boxed();
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), reserved::STATIC_PODS);
    let of_control_plane = Config::default().labels(label::CONTROL_PLANE).page_size(PAGE);
    let leases = objects_where_granted(leases, of_control_plane);
    let unknown = "the control plane's address is known only as far as kubeadm tells it, and could be given out";
    let leases = leases.map(move |served| where_granted(served, unknown, source, told_elsewhere));
    leases.boxed()
}

fn told_elsewhere(event: Event<Lease>) -> Option<Change> {
    let gone = |lease: &Lease| {
        let (node, _) = ControlPlane::read(lease)?;
        Some(vec![(reserved::name_of_control_plane_elsewhere(node), AddressSet::new())])
    };
    // What is not its node's any more tells nothing any more.
    let there = |lease: &Lease| {
        let told = reserved::of_control_plane_elsewhere(lease).map(|told| vec![told]);
        told.or_else(|| gone(lease))
    };
    used(Source::ControlPlaneHosts, event, there, gone)
}

/// Who announces all Services, by one Lease: ours, or those of kube-vip.
fn elected(event: Event<Lease>) -> Option<Change> {
    let there = |lease: &Lease| {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.clone());
        Change::Elected(Some((holder.unwrap_or_default(), host::renewed(lease))))
    };
    match event {
        Event::Init | Event::InitDone => None,
        Event::Apply(lease) | Event::InitApply(lease) => Some(there(&lease)),
        Event::Delete(_) => Some(Change::Elected(None)),
    }
}

fn api_server(event: Event<EndpointSlice>) -> Option<Change> {
    let gone = |slice: &EndpointSlice| {
        let name = reserved::name_of_api_servers(slice.metadata.name.as_deref()?);
        Some(vec![(name, AddressSet::new())])
    };
    used(Source::ApiServers, event, |slice| Some(vec![reserved::of_api_servers(slice)]), gone)
}

fn service_cidr(event: Event<ServiceCIDR>) -> Option<Change> {
    let gone = |cidr: &ServiceCIDR| {
        let name = reserved::name_of_service_cidr(cidr.metadata.name.as_deref()?);
        Some(vec![(name, AddressSet::new())])
    };
    used(Source::ServiceCidrs, event, |cidr| Some(vec![reserved::of_service_cidr(cidr)]), gone)
}

fn used<K>(
    source: Source,
    event: Event<K>,
    there: impl Fn(&K) -> Option<Vec<Reservation>>,
    gone: impl Fn(&K) -> Option<Vec<Reservation>>,
) -> Option<Change> {
    match event {
        Event::Init => Some(Change::Listing(source)),
        Event::InitDone => Some(Change::Listed(source)),
        Event::Apply(object) | Event::InitApply(object) => {
            Some(Change::Reserved(source, there(&object)?))
        }
        Event::Delete(object) => Some(Change::Reserved(source, gone(&object)?)),
    }
}

/// How the API server is reached is read once: it does not change. A cluster that kubeadm did not make does not say.
fn control_plane(client: Client) -> impl Stream<Item = Option<Change>> {
    let read = async move {
        let (namespace, name) = reserved::CLUSTER_INFO;
        let mut refusals = Refusals::default();
        let maps: Api<ConfigMap> = Api::namespaced(client, namespace);
        loop {
            match maps.get_opt(name).await {
                Ok(info) => return info.as_ref().map(reserved::of_cluster_info),
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    let pause = refusals.again();
                    if !refusals.are_believed() {
                        tokio::time::sleep(pause).await;
                        continue;
                    }
                    tracing::warn!(
                        "{}; without it the control-plane VIP is not known and could be given out",
                        forbidden("get", "configmaps", &status.message)
                    );
                    return None;
                }
                Err(error) => {
                    tracing::debug!("ConfigMap {namespace}/{name}: {}", chain(&error));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    };
    let source = Source::ControlPlane;
    stream::once(read).flat_map(move |reservation| {
        let reserved = reservation.map(|found| Change::Reserved(source, vec![found]));
        stream::iter([reserved, Some(Change::Listed(source))])
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{from_value, json};

    use super::*;

    #[test]
    fn what_the_control_plane_tells_in_another_namespace_is_reserved_while_its_node_tells_it() {
        let lease = |name: &str, node: &str| -> Lease {
            from_value(json!({ "metadata": {
                "name": name,
                "annotations": {
                    "berth.dev/api-server": "healthy",
                    "berth.dev/control-plane-addresses": "192.0.2.100",
                },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": "1" }],
            } }))
            .unwrap()
        };
        let own = || lease("berth-control-plane-a", "a");
        let said = |event| match told_elsewhere(event) {
            Some(Change::Reserved(Source::ControlPlaneHosts, told)) => {
                let [(name, addresses)] = &told[..] else { panic!("{told:?}") };
                assert_eq!(name, "the control plane (by node a, in kube-system)");
                Some(addresses.contains("192.0.2.100".parse().unwrap()))
            }
            _ => None,
        };
        assert_eq!(said(Event::InitApply(own())), Some(true));
        assert_eq!(said(Event::Apply(own())), Some(true));
        assert_eq!(said(Event::Delete(own())), Some(false));
        assert_eq!(said(Event::Apply(lease("berth-control-plane-a", "b"))), Some(false));
        assert_eq!(said(Event::Apply(lease("berth-announcer-a", "a"))), None);
    }
}
