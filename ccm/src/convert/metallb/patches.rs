//! What keeps Services as they are: each asks for what it has, under our names, before anything of ours gives addresses out.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Quoted;
use berth_api::names::{annotation, label};
use serde_json::{Value, json};

use super::pool::Pool;
use super::service::Service;
use crate::convert::finding::{Finding, Told};

/// Most addresses that a Service has.
const MOST: usize = 2;

/// What is written into a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Patch {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Annotations of ours.
    pub annotations: BTreeMap<&'static str, String>,
    /// Whether it has the addresses, and does not ask for them alone.
    pub has_them: bool,
}

impl Patch {
    /// The merge patch.
    pub fn body(&self) -> Value {
        let mut metadata = json!({ "annotations": self.annotations });
        if self.has_them {
            metadata["labels"] = json!({ label::IMPLEMENTATION: label::IMPLEMENTATION_VALUE });
        }
        json!({ "metadata": metadata })
    }
}

/// One patch for each Service that MetalLB serves, or that asks it for an address.
pub(super) fn of(services: &[Service], pools: &[Pool], findings: &mut Vec<Finding>) -> Vec<Patch> {
    let mut patches = Vec::new();
    // A class is for anybody to write, and so is an annotation: MetalLB serves those of which one has an address of a pool.
    let served = services.iter().filter(|service| has_of(pools, service));
    let classes: BTreeSet<&str> = served.filter_map(|service| service.class.as_deref()).collect();
    for service in services {
        let mut told = Told::of(service.object.clone(), findings);
        if is_foreign(service, pools, &classes, &mut told) {
            continue;
        }
        annotations(service, &mut told);
        if let Some(patch) = patch(service, pools, &mut told) {
            patches.push(patch);
        }
    }
    patches
}

/// Whether it is none of MetalLB's, which is told.
fn is_foreign(
    service: &Service,
    pools: &[Pool],
    classes: &BTreeSet<&str>,
    told: &mut Told<'_>,
) -> bool {
    let is_traced = has_of(pools, service) || service.said().next().is_some();
    match &service.class {
        Some(class) if is_traced && classes.contains(class.as_str()) => told.undone(
            "spec.loadBalancerClass",
            format!(
                "nobody can change it while the type stays: KUBEVIP_CUSTOM_LOADBALANCERCLASS_NAME of berth-ccm and `lb_class_name` \
                 of berth-announcer have to be {}",
                Quoted::of(class)
            ),
        ),
        Some(class) => {
            let says = format!(
                "{} is not MetalLB's, for no Service of it has an address of a pool: it is left alone",
                Quoted::of(class)
            );
            told.note("spec.loadBalancerClass", says);
            return true;
        }
        None if !is_traced && !service.shown.is_empty() => {
            let says = "no pool here has what it shows, and MetalLB says nothing of it: it is left alone";
            told.note("status.loadBalancer.ingress", says);
            return true;
        }
        None => {}
    }
    false
}

/// Tells what annotations have no counterpart. Those that have one are told where they are read.
fn annotations(service: &Service, told: &mut Told<'_>) {
    for (short, name) in service.said() {
        let field = format!("metadata.annotations.{name}");
        match short {
            // MetalLB writes the last.
            "loadBalancerIPs" | "allow-shared-ip" | "ip-allocated-from-pool" => {}
            "address-pool" if service.shown.is_empty() => told.lost(
                &field,
                "pools are not asked for by name: name an address in kube-vip.io/loadbalancerIPs",
            ),
            "address-pool" => told.lost(
                &field,
                "pools are not asked for by name: it keeps its address, and asks for that, not for another one of the pool",
            ),
            _ => told.lost(&field, "it has no counterpart"),
        }
    }
}

fn patch(service: &Service, pools: &[Pool], told: &mut Told<'_>) -> Option<Patch> {
    let asked = service.asks();
    if let Some((field, Err(entry))) = &asked {
        told.lost(field, format!("{} is no address", Quoted::of(entry)));
    }
    let (has_them, addresses) = match (&service.shown[..], &asked) {
        ([], Some((field, Ok(addresses)))) if field != "spec.loadBalancerIP" => {
            (false, addresses.clone())
        }
        // Ours read the field too.
        ([], _) => return None,
        (shown, _) => (true, shown.to_vec()),
    };
    if let (true, Some((field, Ok(asked)))) = (has_them, &asked)
        && asked.iter().any(|address| !addresses.contains(address))
    {
        told.note(field, format!("it has {}, and keeps that", list(&addresses)));
    }
    for address in &addresses {
        match pool_of(pools, *address) {
            Some(_) => continue,
            None if has_them => told.note(
                "status.loadBalancer.ingress",
                format!("no pool here has {address}: it keeps it as long as it has it"),
            ),
            None => told.note(
                "spec",
                format!("no pool here has {address}, which it asks for: refused, as by MetalLB"),
            ),
        }
    }
    let kept = addresses;
    if kept.len() > MOST {
        told.lost("status.loadBalancer.ingress", "a Service has two addresses at most");
    }
    let kept = &kept[..kept.len().min(MOST)];
    let first = *kept.first()?;
    let mut annotations = BTreeMap::from([(annotation::LOADBALANCER_IPS, list(kept))]);
    if let Some(pool) = pool_of(pools, first) {
        if let Some(interface) = &pool.reach.interface {
            annotations.insert(annotation::SERVICE_INTERFACE, interface.clone());
        }
        if !pool.reach.nodes.is_empty() {
            annotations.insert(annotation::PREFERRED_NODES, pool.reach.nodes.join(","));
        }
    }
    let (namespace, name) = (service.namespace.clone(), service.name.clone());
    Some(Patch { namespace, name, annotations, has_them })
}

/// Whether it shows an address of a pool.
fn has_of(pools: &[Pool], service: &Service) -> bool {
    service.shown.iter().any(|address| pool_of(pools, *address).is_some())
}

fn pool_of(pools: &[Pool], address: IpAddr) -> Option<&Pool> {
    pools.iter().find(|pool| pool.addresses.contains(address))
}

fn list(addresses: &[IpAddr]) -> String {
    addresses.iter().map(IpAddr::to_string).collect::<Vec<_>>().join(",")
}
