//! Settings of elastic IPs.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;

use super::settings::{Problem, Settings};

/// How elastic IPs are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Eip {
    /// Networks in which VMs are met under their own addresses, never under elastic IPs; none to read them from the
    /// cluster.
    pub internal: Option<BTreeSet<IpNetwork>>,
    /// Gateways by which VMs with elastic IPs reach the outside, at most one of each family; those of the
    /// interface's default routes otherwise.
    pub gateways: BTreeSet<IpAddr>,
}

pub(super) fn eip(settings: &Settings) -> Result<Eip, Vec<Problem>> {
    match (internal(settings), gateways(settings)) {
        (Ok(internal), Ok(gateways)) => Ok(Eip { internal, gateways }),
        (internal, gateways) => Err(internal.err().into_iter().chain(gateways.err()).collect()),
    }
}

/// A comma list of networks, each as it is routed: without bits of a host.
fn internal(settings: &Settings) -> Result<Option<BTreeSet<IpNetwork>>, Problem> {
    const NAME: &str = "berth_eip_internal_net";
    let network = |text: &str| {
        let network: IpNetwork = text.trim().parse().ok()?;
        (network.ip() == network.network() && network.prefix() > 0).then_some(network)
    };
    let Some(text) = settings.text(NAME) else { return Ok(None) };
    let networks: Option<BTreeSet<_>> = text.split(',').map(network).collect();
    networks.map(Some).ok_or_else(|| {
        settings.problem(
            NAME,
            "accepted is a comma list of networks, such as 10.244.0.0/16,10.96.0.0/12",
        )
    })
}

/// A comma list of at most one address of each family.
fn gateways(settings: &Settings) -> Result<BTreeSet<IpAddr>, Problem> {
    const NAME: &str = "berth_eip_gateway";
    let Some(text) = settings.text(NAME) else { return Ok(BTreeSet::new()) };
    let addresses: Result<Vec<IpAddr>, _> =
        text.split(',').map(|text| text.trim().parse()).collect();
    let single = |addresses: &Vec<IpAddr>| {
        addresses.iter().filter(|address| address.is_ipv4()).count() <= 1
            && addresses.iter().filter(|address| address.is_ipv6()).count() <= 1
    };
    let addresses = addresses.ok().filter(single).map(BTreeSet::from_iter);
    addresses.ok_or_else(|| {
        settings
            .problem(NAME, "accepted is one address of each family, such as 192.0.2.1,2001:db8::1")
    })
}
