//! Where no elastic IP leads on this node. Pure. berth-ccm names no such address of a VM; but a node knows its own at once,
//! berth-ccm a minute later, and what is translated to and from a node's address is all that the node says.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::source::scene::Scene;
use crate::vip::Refusal;

/// What this node has itself.
pub struct Own<'a> {
    scene: Scene<'a>,
    /// By address, the interface.
    addresses: BTreeMap<IpAddr, &'a str>,
    /// What is bound for Services and bindings.
    bound: BTreeSet<IpAddr>,
}

impl<'a> Own<'a> {
    /// As the kernel has shown it.
    pub fn of(scene: Scene<'a>) -> Self {
        let interfaces = scene.host.interfaces.iter();
        let addresses = interfaces.flat_map(|(name, interface)| {
            interface.foreign.keys().map(move |address| (*address, name.as_str()))
        });
        let bound = scene.host.ours.keys().map(|binding| binding.address);
        Self { scene, addresses: addresses.collect(), bound: bound.collect() }
    }

    /// What there is against leading an elastic IP to this address; nothing if it may be a VM's.
    pub(super) fn objection(&self, address: IpAddr) -> Option<Refusal> {
        let Scene { host, cluster, node, .. } = self.scene;
        let reserved = |by: String| Some(Refusal::VmiAddressReserved { address, by });
        if is_no_hosts(&address) {
            return reserved("no host".to_owned());
        }
        if let Some(interface) = self.addresses.get(&address) {
            return reserved(format!("node {node}, on interface {interface}"));
        }
        if host.gateways.values().any(|routers| routers.contains(&address)) {
            return reserved(format!("the router of node {node}"));
        }
        if let Some(what) = cluster.routers.get(&address) {
            return reserved(format!("a router, or known to one: {what}"));
        }
        let is_given = self.bound.contains(&address) || cluster.claims.are_of(&address);
        is_given.then_some(Refusal::VmiAddressInUse { address })
    }
}

/// Whether an address means many, whoever asks, or nobody, or differs from link to link (RFC 6890).
fn is_no_hosts(address: &IpAddr) -> bool {
    let is_special = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.to_ipv4_mapped().is_some(),
    };
    is_special || address.is_unspecified() || address.is_loopback() || address.is_multicast()
}

#[cfg(test)]
mod tests {
    use berth_api::claim::Holder;

    use super::*;
    use crate::kernel::{Binding, Lifetime};
    use crate::source::cluster::Cluster;
    use crate::source::testing::{scene, two_interfaces};

    #[test]
    fn what_is_the_nodes_or_nobodys_or_given_out_is_no_vms() {
        let (mut host, mut cluster) = (two_interfaces(), Cluster::default());
        host.gateways.insert(2, ["10.0.0.1".parse().unwrap()].into());
        let address = "192.0.2.77".parse().unwrap();
        host.ours.insert(Binding { index: 2, address }, Lifetime::Forever);
        cluster.claims.apply("192.0.2.78", vec![Holder::alone("web")], false);
        let (cluster, host) = (&cluster, &host);
        let scene = scene(cluster, host, Some("eth0"));
        let own = Own::of(scene);
        let told = |text: &str| {
            let refusal = own.objection(text.parse().unwrap());
            refusal.map(|refusal| refusal.note()).unwrap_or_default()
        };
        for (address, by) in [
            ("192.0.2.5", "node a, on interface eth1"),
            ("10.0.0.1", "the router of node a"),
            ("0.0.0.0", "no host"),
            ("0.1.2.3", "no host"),
            ("127.0.0.1", "no host"),
            ("169.254.169.254", "no host"),
            ("224.0.0.1", "no host"),
            ("255.255.255.255", "no host"),
            ("::", "no host"),
            ("::1", "no host"),
            ("::ffff:10.0.0.1", "no host"),
            ("fe80::1", "no host"),
            ("ff02::1", "no host"),
            ("192.0.2.77", "a Service or an EipBinding"),
            ("192.0.2.78", "a Service or an EipBinding"),
        ] {
            let told = told(address);
            assert!(told.contains(address) && told.ends_with(by), "{address}: {told}");
        }
        for own in ["10.244.0.4", "10.0.0.6", "fd00:244::4"] {
            assert_eq!(told(own), "");
        }
    }
}
