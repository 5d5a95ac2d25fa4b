//! Addresses by the operator's word: what every member wants, from the start to the end. Pure.

use std::net::IpAddr;
use std::sync::Arc;

use berth_api::Family;

use super::placement::{place_anywhere, place_on};
use super::scene::Scene;
use crate::vip::{Attach, Claimant, Refusal, Serving, Traffic, Want};

/// Addresses that the settings name.
#[derive(Clone, Debug, Default)]
pub struct Fixed {
    /// For whom.
    pub by: Claimant,
    /// The interface of the addresses; none for that of the default route.
    pub interface: Option<String>,
    /// The addresses, in their order.
    pub addresses: Vec<IpAddr>,
    /// What all nodes have in common that may have them: by it they know each other's probes.
    pub mark: String,
}

/// What the operator wants of each address. No port of it is guarded: whatever listens on this node answers.
pub fn wants<'a>(scene: Scene<'a>, fixed: &'a Fixed) -> impl Iterator<Item = (IpAddr, Want)> + 'a {
    fixed.addresses.iter().map(move |address| {
        // What routers lead here is where all of that is.
        let attach = match scene.routed {
            Some(routed) => place_anywhere(scene, Some(routed), *address),
            None => place_on(scene, fixed.interface.as_deref(), *address),
        };
        let attach = attach.and_then(|attach| comes_later(scene, fixed, *address, attach));
        let want = Want {
            claimant: fixed.by.clone(),
            uid: fixed.mark.clone(),
            created: String::new(),
            leads_to: None,
            // Who listens there is not asked.
            serving: Arc::new(Serving::of(Traffic::Anyhow)),
            preferred: Arc::default(),
            previous: None,
            epoch: 0,
            routed: scene.routed.is_some(),
            attach,
            ports: [].into(),
            conflicts: false,
            in_use: false,
        };
        (*address, want)
    })
}

/// The first address of an interface is taken for the node's: that of the control plane waits until there is one before it. It may be
/// gone for a moment, as where a network is set up anew (kube-vip#682).
fn comes_later(
    scene: Scene<'_>,
    fixed: &Fixed,
    address: IpAddr,
    attach: Attach,
) -> Result<Attach, Refusal> {
    if fixed.by != Claimant::ControlPlane || scene.host.has_besides(&address) {
        return Ok(attach);
    }
    let error = format!(
        "the node has no {} address of its own any more, so that this one would be taken for it; it comes back after that",
        Family::of(&address)
    );
    Err(Refusal::NotBound { node: scene.node.to_owned(), address, error })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Foreign, Host};
    use crate::source::cluster::Cluster;
    use crate::source::testing::{scene, two_interfaces};

    /// Why the control plane's address, or another one, has no place on a host.
    fn refused(by: Claimant, host: &Host) -> Option<String> {
        let (cluster, address) = (Cluster::default(), IpAddr::from([10, 0, 0, 100]));
        let fixed = Fixed { by, addresses: vec![address], ..Fixed::default() };
        let (_, want) = wants(scene(&cluster, host, Some("eth0")), &fixed).next().unwrap();
        want.attach.err().map(|refusal| refusal.note())
    }

    #[test]
    fn the_control_planes_address_has_a_place_while_the_node_has_one_of_its_own() {
        let mut host = two_interfaces();
        assert_eq!(refused(Claimant::ControlPlane, &host), None);
        for interface in host.interfaces.values_mut() {
            interface.foreign.clear();
        }
        let why = refused(Claimant::ControlPlane, &host).unwrap();
        assert!(why.contains("no IPv4 address of its own any more"), "{why}");
        assert_eq!(refused(Claimant::Operator, &host), None);
        // What another announcer has bound is no address of the node.
        let bound = Foreign { prefix_len: 32, anothers: true, ..Foreign::default() };
        let eth0 = host.interfaces.get_mut("eth0").unwrap();
        eth0.foreign.insert("10.0.0.101".parse().unwrap(), bound);
        assert!(refused(Claimant::ControlPlane, &host).is_some());
    }
}
