//! What is read of an EndpointSlice. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use berth_api::Family;
use berth_api::names::label;
use berth_api::service::Protocol;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};

use crate::vip::Name;
use crate::vip::serve::Endpoints;

/// What matters of one EndpointSlice: where endpoints are, and to what it leads.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slice {
    /// The family of their addresses; nothing where they have names, or it is not said.
    pub family: Option<Family>,
    /// Where they are. None counts where another proxy than kube-proxy serves them, or where they have no port, as pods
    /// without the one that a Service names.
    pub endpoints: Endpoints,
    /// The names of their ports; without a number kube-proxy passes a port over.
    pub ports: BTreeSet<(Protocol, String)>,
    /// The addresses of all, ready or not.
    pub addresses: Vec<IpAddr>,
}

impl Slice {
    /// Reads what matters of an EndpointSlice; nothing if it belongs to no Service.
    pub fn read(slice: &EndpointSlice) -> Option<(Name, Self)> {
        let labels = slice.metadata.labels.as_ref()?;
        let namespace = slice.metadata.namespace.clone().unwrap_or_default();
        let service = Name::new(namespace, labels.get(label::SERVICE_NAME)?);
        let mut read = Self {
            family: match slice.address_type.as_str() {
                "IPv4" => Some(Family::V4),
                "IPv6" => Some(Family::V6),
                _ => None,
            },
            ports: slice.ports.iter().flatten().filter_map(port_name).collect(),
            addresses: slice.endpoints.iter().filter_map(address).collect(),
            ..Self::default()
        };
        if labels.contains_key(label::PROXY_NAME) || read.ports.is_empty() {
            return Some((service, read));
        }
        let endpoints = &mut read.endpoints;
        for endpoint in &slice.endpoints {
            // An endpoint that says nothing is ready (discovery/v1 EndpointConditions).
            let conditions = endpoint.conditions.clone().unwrap_or_default();
            let is_serving = conditions.serving == Some(true);
            // As kube-proxy does where none is ready.
            let side = match conditions.ready.unwrap_or(true) {
                true => &mut endpoints.ready,
                false if is_serving && conditions.terminating == Some(true) => {
                    &mut endpoints.serving
                }
                false => continue,
            };
            side.any = true;
            side.nodes.extend(endpoint.node_name.clone());
        }
        Some((service, read))
    }
}

fn port_name(port: &EndpointPort) -> Option<(Protocol, String)> {
    port.port.filter(|number| *number > 0)?;
    Some((Protocol::read(port.protocol.as_deref()), port.name.clone().unwrap_or_default()))
}

/// The only one of its addresses that kube-proxy reads.
fn address(endpoint: &Endpoint) -> Option<IpAddr> {
    endpoint.addresses.first()?.parse().ok()
}
