//! What Services want. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_api::Family;
use berth_api::names::condition;
use berth_api::service::{self, Protocol};

use super::cluster::{Claims, Cluster, Service, Withheld};
use super::placement::place;
use super::scene::Scene;
use crate::kernel::Port;
use crate::vip::serve::Endpoints;
use crate::vip::{ByFamily, Claim, Claimant, Name, Refusal, Serving, Traffic, Want};

/// What says who could serve a Service: where its traffic may go, and where that finds an endpoint.
pub fn serving(cluster: &Cluster, name: &Name, service: &Service) -> ByFamily {
    let traffic = match (service.ours, service.without_endpoints, service.local) {
        (false, _, _) => Traffic::Named(None),
        (true, true, _) => Traffic::Anyhow,
        (true, false, true) => Traffic::Local,
        (true, false, false) => Traffic::Cluster,
    };
    let endpoints = |family| match traffic {
        Traffic::Local => cluster.endpoints(name, family),
        Traffic::Cluster => cluster.any_endpoints(name, family),
        Traffic::Anyhow | Traffic::Named(_) => Endpoints::default(),
    };
    let of = |family| Arc::new(Serving { traffic: traffic.clone(), endpoints: endpoints(family) });
    ByFamily { v4: of(Family::V4), v6: of(Family::V6) }
}

/// What a Service wants and says; nothing if it is none of ours and says nothing.
/// Nobody has an address of `inside` the cluster: bound, it would be closed to whoever asks for what is there.
pub fn claim(
    scene: Scene<'_>,
    name: &Name,
    service: &Service,
    inside: &BTreeMap<IpAddr, &Name>,
) -> Option<Claim> {
    let cluster = scene.cluster;
    let is_told = !service.ending && service.condition(condition::ANNOUNCED).is_some();
    let says = service.vip_host.is_some() || service.conflict_shown().is_some() || is_told;
    let strays: Vec<IpAddr> = strays(&cluster.claims, service).collect();
    let paused: Vec<IpAddr> = paused(cluster, name, service).collect();
    let ours = service.addresses.iter().filter(|_| service.ours);
    let placed = |address: &IpAddr| {
        let address = *address;
        if let Some(of) = inside.get(&address) {
            let by = Claimant::Service((*of).clone());
            return Err(Refusal::AddressInUse { address, by });
        }
        is_given(&cluster.claims, service, address)?;
        if let Some(Withheld { by, length }) =
            cluster.pauses.withhold(address, &name.namespace, &service.uid)
        {
            return Err(Refusal::Paused { address, by, length });
        }
        place(scene, &name.namespace, service, address)
    };
    let places = || ours.map(|address| (*address, placed(address))).collect();
    let is_out = !strays.is_empty() || !paused.is_empty();
    (service.ours || says && !service.foreign || is_out).then(|| Claim {
        ours: service.ours,
        uid: service.uid.clone(),
        created: service.created.clone(),
        lease: service.lease.clone(),
        routed: scene.routed_of(&name.namespace, service).is_some(),
        addresses: service.addresses.clone(),
        places: places(),
        serving: serving(cluster, name, service),
        apart: BTreeMap::new(),
        follows: BTreeMap::new(),
        host: service.vip_host.clone(),
        correctable: !service.foreign,
        strays,
        paused,
        remarks: if service.ours { service.remarks.clone() } else { Arc::default() },
    })
}

/// Whether an address is the Service's to have, with the ports that it has now: kube-proxy serves all of them at whatever
/// its status shows.
fn is_given(claims: &Claims, service: &Service, address: IpAddr) -> Result<(), Refusal> {
    if !claims.grant(&address, &service.uid) {
        return Err(Refusal::NotClaimed { address });
    }
    if service.has_more_ports && claims.shares(&address, &service.uid) {
        return Err(Refusal::PortsUnknown { address });
    }
    match claims.in_the_way(&address, &service.uid, &service.ports) {
        Some((by, port)) => Err(Refusal::PortInUse { address, by: by.clone(), port }),
        None => Ok(()),
    }
}

/// Where claims decide: what its status shows that is not its own to show, whatever its author has written. Of one that is
/// being deleted that is all; of one that asks to be ignored, or that says nothing of us, as where another provider serves
/// what has no class, what a claim gives to others; of another class, nothing.
fn strays<'a>(claims: &'a Claims, service: &'a Service) -> impl Iterator<Item = IpAddr> + use<'a> {
    let is_known = claims.are_known();
    let says = service.vip_host.is_some() || !service.addresses.is_empty();
    let shown = service.published.iter().filter(move |_| is_known);
    shown.filter_map(|ingress| ingress.ip.parse().ok()).filter(move |address| {
        let is_own = || is_given(claims, service, *address).is_ok();
        match (service.ours, service.ending, service.ignored) {
            (true, _, _) => (says || claims.are_of(address)) && !is_own(),
            (false, is_ending, is_ignored) => {
                is_ending || is_ignored && claims.are_of(address) && !is_own()
            }
        }
    })
}

/// What its status shows and a claim gives it, while its namespace pauses there ([`super::cluster::Pauses`]).
fn paused(cluster: &Cluster, name: &Name, service: &Service) -> impl Iterator<Item = IpAddr> {
    let shown = service.published.iter().filter(|_| service.ours || service.ignored);
    let shown = shown.filter_map(|ingress| ingress.ip.parse().ok());
    shown.filter(|address| {
        cluster.pauses.withhold(*address, &name.namespace, &service.uid).is_some()
            && is_given(&cluster.claims, service, *address).is_ok()
    })
}

/// What a Service that is ours wants of each of its addresses, of which `used` are known to have been served.
pub fn wants<'a>(
    name: &'a Name,
    service: &'a Service,
    claim: &'a Claim,
    used: &'a BTreeSet<IpAddr>,
) -> impl Iterator<Item = (IpAddr, Want)> + 'a {
    let own =
        claim.places.iter().filter(|(_, place)| !matches!(place, Err(r) if r.is_of_another()));
    own.map(move |(address, place)| {
        let want = Want {
            claimant: Claimant::Service(name.clone()),
            uid: service.uid.clone(),
            created: service.created.clone(),
            leads_to: None,
            serving: claim.serving(address).clone(),
            preferred: service.preferred.clone(),
            previous: service.vip_host.clone(),
            epoch: 0,
            routed: claim.routed,
            attach: place.clone(),
            ports: ports(service, *address),
            conflicts: service.conflict.of(address).is_some(),
            in_use: used.contains(address),
        };
        (*address, want)
    })
}

/// The addresses that a Service says to be served, by us or by kube-vip. One that names a host and publishes nothing had
/// its status changed by somebody; but where claims decide, what a tenant may write proves no use, nor does the status of
/// one that has no claim.
pub fn in_use<'a>(cluster: &'a Cluster, service: &'a Service) -> impl Iterator<Item = IpAddr> + 'a {
    let published = service.published.iter().filter_map(|ingress| ingress.ip.parse().ok());
    let published = published.filter(|address| cluster.claims.grant(address, &service.uid));
    let said = service.vip_host.is_some() && !cluster.claims.decide();
    let hosted = said && service.published.is_empty();
    let all = service.addresses.iter().copied().filter(move |_| hosted);
    published.chain(all)
}

fn ports(service: &Service, address: IpAddr) -> BTreeSet<Port> {
    let port = |port: &service::Port| Port {
        address,
        protocol: protocol_number(port.protocol),
        port: port.number,
    };
    service.ports.iter().map(port).collect()
}

fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
        Protocol::Sctp => 132,
    }
}
