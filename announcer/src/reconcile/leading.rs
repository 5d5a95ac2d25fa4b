//! Whether kube-proxy of this node leads on what is led here: before that a node is no better than one without an endpoint.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::Announcer;
use super::sight::Sight;
use crate::kernel::Kernel;
use crate::source::proxied::{Proxied, Question, Questions};
use crate::vip::{Claimant, Family, Vip};

impl<K: Kernel> Announcer<K> {
    /// Has kube-proxy asked of all that is ready here, whoever has its address: it may come here at any moment.
    pub(super) fn ask_proxy(&self) {
        let Some(proxied) = &self.proxied else { return };
        let (sight, node) = (&self.sight, &self.config.core.node);
        let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        let own = sight.nodes.peers.addresses_of(node).iter().copied();
        let ports = sight.wanted.addressed().flat_map(|vip| questions(vip, sight)).collect();
        proxied.ask(Questions { at: loopback.into_iter().chain(own).collect(), ports });
    }
}

/// Whether kube-proxy leads on what comes here for an address, as far as it is asked.
pub(super) fn leads(proxied: &Option<Proxied>, vip: (IpAddr, &Vip), sight: &Sight) -> bool {
    proxied.as_ref().is_none_or(|proxied| proxied.leads(&questions(vip, sight)))
}

/// What is asked: of all with `Local` that share an address and have something ready here.
fn questions((address, vip): (IpAddr, &Vip), sight: &Sight) -> BTreeSet<Question> {
    let node = sight.node();
    let ready = vip.wants.iter().filter(|want| want.serving.endpoints.ready.nodes.contains(node));
    let services = ready.filter_map(|want| match &want.claimant {
        Claimant::Service(name) => sight.cluster.services().get(name),
        _ => None,
    });
    let local = services.filter(|service| service.local);
    local.filter_map(|service| Some((Family::of(&address), service.health_port?))).collect()
}
