//! What is said of a Service that several nodes announce at once, and of which each may write what is true of all. Pure.
//!
//! Whoever announces an address first shows it, and nobody takes out what others announce. Who is named and announces nothing any
//! more gives way, so that another is. What no node could announce is taken out by whoever finds it, where Berth has said that it
//! is announced: what another provider shows is its own.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::source::cluster::{Ingress, Service};
use crate::vip::Verdict;

/// The node that is to be named and the addresses that are to be shown, if that is not what the status says: those that this
/// node announces, which are `live`, and those that are shown and that any node `could`.
pub(super) fn publish(
    service: &Service,
    verdict: &Verdict,
    could: &BTreeSet<IpAddr>,
    live: &BTreeSet<IpAddr>,
    node: &str,
) -> Option<(Option<String>, Vec<Ingress>)> {
    let shown = |address: &IpAddr| {
        let is_it = |entry: &&Ingress| entry.ip.parse::<IpAddr>().is_ok_and(|own| own == *address);
        service.published.iter().find(is_it)
    };
    let is_own = |address: &IpAddr| verdict.announce.contains(address) && live.contains(address);
    // What others announce is left as they wrote it.
    let entry = |address: &IpAddr| match is_own(address) {
        true => Some(Ingress::vip(*address, &service.ports)),
        false => shown(address).filter(|_| could.contains(address)).cloned(),
    };
    let ingress: Vec<Ingress> = service.addresses.iter().filter_map(entry).collect();
    let is_said = service.vip_host.is_some();
    if ingress.is_empty() {
        return is_said.then_some((None, ingress));
    }
    let announces = service.addresses.iter().any(is_own);
    let is_named = service.vip_host.as_deref() == Some(node);
    // Nobody adds to a status in another node's name (overlays/policies).
    let adds = ingress.iter().any(|entry| !service.published.contains(entry));
    let vip_host = match announces {
        true if !is_said || adds => Some(node.to_owned()),
        false if is_named => None,
        _ => service.vip_host.clone(),
    };
    let is_true = service.published == ingress && service.vip_host == vip_host;
    let is_ours_to_say =
        announces || is_named || is_said && service.published.len() > ingress.len();
    (!is_true && is_ours_to_say).then_some((vip_host, ingress))
}
