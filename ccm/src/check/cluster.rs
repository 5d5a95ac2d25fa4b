//! Owns reading what a review needs of a cluster: a few lists, no watch, no write.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_api::host::{self, ControlPlane, Told};
use berth_api::lean::Lean;
use berth_api::names::label;
use berth_api::service::ClassPolicy;
use berth_index::claim::Claim;
use berth_index::finalizers::Finalizers;
use berth_index::intake::Reservation;
use berth_index::service::{Service, Standing};
use berth_ipam::{Family, Owner, Sharing};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Service as ServiceObject};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use kube::api::ListParams;
use kube::{Api, Client};

use super::review::{Cluster, Holding};
use crate::reserved;

/// The cluster did not tell something.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} {what}: {source}")]
pub struct ClusterError {
    verb: &'static str,
    what: String,
    source: Box<kube::Error>,
}

impl ClusterError {
    fn on(verb: &'static str, what: impl Into<String>) -> impl FnOnce(kube::Error) -> Self {
        move |source| Self { verb, what: what.into(), source: Box::new(source) }
    }
}

/// Reads the pools in force, who has which address, and the addresses that the cluster itself uses; what nodes tell of
/// themselves is in the namespace `hosts`.
///
/// # Errors
/// When the API server is not to be reached or does not allow it.
pub async fn read(
    client: &Client,
    pools: &NamespacedName,
    hosts: &str,
    classes: &ClassPolicy,
) -> Result<Cluster, ClusterError> {
    let maps = Api::<ConfigMap>::namespaced(client.clone(), &pools.namespace);
    let live = maps
        .get_opt(&pools.name)
        .await
        .map_err(ClusterError::on("get", format!("ConfigMap {pools}")))?;
    let all = ListParams::default();
    let services = Api::<Lean<ServiceObject, Finalizers>>::all(client.clone()).list(&all).await;
    let services = services.map_err(ClusterError::on("list", "services"))?;
    let ours = all.clone().labels(&format!("{}={}", label::IP_ADDRESS_MANAGED_BY, label::BERTH));
    let claims = Api::<IPAddress>::all(client.clone()).list(&ours).await;
    let claims = claims.map_err(ClusterError::on("list", "ipaddresses"))?;
    let nodes = Api::<Node>::all(client.clone())
        .list(&all)
        .await
        .map_err(ClusterError::on("list", "nodes"))?;

    let services: Vec<Service> =
        services.items.iter().filter_map(|object| Service::read(object, classes)).collect();
    let claims: Vec<Claim> = claims.items.iter().filter_map(Claim::read).collect();
    let cidrs = Api::<ServiceCIDR>::all(client.clone()).list(&all).await;
    let cidrs = cidrs.map_err(ClusterError::on("list", "servicecidrs"))?;
    let (namespace, name) = reserved::CLUSTER_INFO;
    let info = Api::<ConfigMap>::namespaced(client.clone(), namespace).get_opt(name).await;
    let info = info.map_err(ClusterError::on("get", format!("ConfigMap {namespace}/{name}")))?;
    let told = Api::<Lease>::namespaced(client.clone(), hosts);
    let told = told.list(&all.clone().labels(label::HOST)).await;
    let told = told.map_err(ClusterError::on("list", format!("leases in {hosts}")))?;
    let servers = Api::<EndpointSlice>::namespaced(client.clone(), reserved::API_SERVERS);
    let servers = servers.list(&all.clone().labels(&reserved::of_kubernetes())).await;
    let servers = servers.map_err(ClusterError::on("list", "endpointslices in default"))?;
    let tells_no_more = |lease: &Lease| ControlPlane::read(lease).is_some();
    let is_untold = told.items.iter().all(tells_no_more) && !nodes.items.is_empty();
    let reserved = nodes.items.iter().flat_map(reserved::of_node);
    let reserved = reserved.chain(cidrs.items.iter().map(reserved::of_service_cidr));
    let reserved = reserved.chain(of_hosts(&told.items, &nodes.items));
    let reserved = reserved.chain(told.items.iter().filter_map(reserved::of_control_plane));
    let reserved = reserved.chain(servers.items.iter().map(reserved::of_api_servers));
    Ok(Cluster {
        live: live.map(|map| map.data.unwrap_or_default()),
        assigned: assigned(&services, &claims),
        reserved: reserved.chain(info.as_ref().map(reserved::of_cluster_info)).collect(),
        untold: is_untold.then(|| hosts.to_owned()),
    })
}

/// What the nodes of the cluster tell of themselves.
fn of_hosts(leases: &[Lease], nodes: &[Node]) -> Vec<Reservation> {
    let names: BTreeSet<&str> =
        nodes.iter().filter_map(|node| node.metadata.name.as_deref()).collect();
    let of_nodes = leases.iter().filter_map(|lease| {
        let node = host::node(lease).filter(|node| names.contains(node))?;
        Some(reserved::of_host(node, &Told::read(lease)))
    });
    of_nodes.flatten().collect()
}

/// What is assigned: every claim, and what Services show to have been given of a family in which they have no claim.
fn assigned(services: &[Service], claims: &[Claim]) -> Vec<Holding> {
    let sharing: BTreeMap<Owner, &Sharing> =
        services.iter().map(|service| (service.owner(), &service.sharing)).collect();
    let held =
        || claims.iter().flat_map(|claim| claim.holders.iter().map(move |held| (claim, held)));
    let claimed = held().map(|(claim, holder)| Holding {
        address: claim.address,
        owner: holder.owner.clone(),
        pool: claim.pool.clone(),
        sharing: sharing
            .get(&holder.owner)
            .map_or_else(|| holder.sharing.clone(), |own| Some((*own).clone())),
    });
    let has_claim: BTreeSet<(&Owner, Family)> =
        held().map(|(claim, holder)| (&holder.owner, Family::of(claim.address))).collect();
    let mut holdings: Vec<Holding> = claimed.collect();
    for service in services.iter().filter(|service| is_given(service)) {
        let owner = service.owner();
        let annotation = service.annotation();
        let list = if annotation.is_empty() { service.field() } else { annotation };
        let unclaimed = |address: &IpAddr| !has_claim.contains(&(&owner, Family::of(*address)));
        holdings.extend(list.addresses().filter(unclaimed).map(|address| Holding {
            address,
            owner: owner.clone(),
            pool: None,
            sharing: Some(service.sharing.clone()),
        }));
    }
    holdings
}

/// Whether it is given the addresses that it names before anybody else is given any: they are published, or it is
/// labelled as one whom the stock provider has given them.
fn is_given(service: &Service) -> bool {
    match service.standing {
        Standing::Ours => service.is_served(),
        Standing::Ignored => service.labelled,
        Standing::Foreign => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use berth_index::claim::{self, Basis};
    use serde_json::{Value, json};

    fn service(name: &str, annotation: &str, more: Value) -> Service {
        let mut object = json!({
            "metadata": {
                "name": name, "namespace": "shop", "uid": name,
                "labels": { "implementation": "kube-vip" },
                "annotations": { "kube-vip.io/loadbalancerIPs": annotation },
            },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] },
        });
        for (key, value) in more.as_object().unwrap() {
            object[key.as_str()] = value.clone();
        }
        Service::read(&serde_json::from_value(object).unwrap(), &ClassPolicy::default()).unwrap()
    }

    fn texts(services: &[Service], claims: &[Claim]) -> Vec<String> {
        assigned(services, claims)
            .iter()
            .map(|holding| format!("{} {}", holding.owner, holding.address))
            .collect()
    }

    #[test]
    fn what_nodes_tell_counts_while_there_is_the_node_of_that_name() {
        let lease = |node: &str| -> Lease {
            let object = json!({ "metadata": {
                "name": format!("berth-announcer-{node}"),
                "annotations": { "berth.dev/host-addresses": "192.0.2.7/24" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Node", "name": node, "uid": "1" }],
            } });
            serde_json::from_value(object).unwrap()
        };
        let node = serde_json::from_value(json!({ "metadata": { "name": "a" } })).unwrap();
        let reserved = of_hosts(&[lease("a"), lease("gone")], &[node]);
        let (name, addresses) = &reserved[0];
        assert_eq!((reserved.len(), name.as_str()), (5, "node a (its interfaces)"));
        assert!(addresses.contains("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn a_service_of_the_stock_provider_has_what_its_annotation_says() {
        let services = [service("web", "192.0.2.1, 2001:db8::1", json!({}))];
        assert_eq!(
            texts(&services, &[]),
            ["Service shop/web 192.0.2.1", "Service shop/web 2001:db8::1"]
        );
    }

    #[test]
    fn a_claim_counts_for_more_than_an_annotation_that_asks_for_another_address() {
        let web = service("web", "192.0.2.9", json!({}));
        let address = "192.0.2.1".parse().unwrap();
        let object = claim::object(address, &web.owner(), None, Basis::Given);
        assert_eq!(texts(&[web], &[Claim::read(&object).unwrap()]), ["Service shop/web 192.0.2.1"]);
    }

    #[test]
    fn who_only_asks_and_who_is_not_ours_has_nothing() {
        let bare = json!({ "name": "asks", "namespace": "shop",
            "annotations": { "kube-vip.io/loadbalancerIPs": "192.0.2.9" } });
        let other = json!({ "type": "LoadBalancer", "loadBalancerClass": "example.org/other" });
        let services = [
            service("asks", "", json!({ "metadata": bare })),
            service("other", "192.0.2.8", json!({ "spec": other })),
        ];
        assert_eq!(texts(&services, &[]), Vec::<String>::new());
    }
}
