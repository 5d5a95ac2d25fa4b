//! Owns which of the addresses that a machine shows are its own. A guest agent tells whatever root in the guest wants: the
//! address of a node, a cluster IP, that of a pod, of another machine. Where an elastic IP leads is also what appears as it
//! outside, so it leads to none of these.

use std::net::IpAddr;

use berth_api::NamespacedName;
use berth_ipam::{Owner, names};

use super::cluster::Cluster;
use super::vips::may_be_vips;
use crate::kubevirt::Origin;
use crate::placement::Unplaced;

/// Who has the address that KubeVirt gives to every guest behind its pod.
const BEHIND_PODS: &str = "every machine behind its pod (masquerade), and not to the pod";

/// How the name of a reservation begins that has the addresses of pods.
pub const PODS: &str = "the pod network of ";

impl Cluster {
    /// What there is against an address that the machine shows; nothing if it is its own as far as anybody can tell.
    pub(super) fn objection(&self, vmi: &NamespacedName, address: IpAddr) -> Option<Unplaced> {
        let origin = self.machines.showing(address)?.origin(vmi)?;
        // A machine is reached at the address of its pod. On another network its guest may name that of any pod.
        let inner = self.machines.is_inner(vmi, address);
        if inner && !self.is_of_pods(address) {
            let (key, by) = (vmi.clone(), BEHIND_PODS.to_owned());
            return Some(Unplaced::AddressReserved { key, address, by });
        }
        let is_held = self.claims.contains_key(&address);
        let counts = |name: &str| {
            !(origin.may_vouch() && name.starts_with(PODS) || is_held && may_be_vips(name))
        };
        if let Some(by) = self.ledger.kept_by(address, counts) {
            let (key, by) = (vmi.clone(), by.to_owned());
            return Some(Unplaced::AddressReserved { key, address, by });
        }
        let by = match (self.claims.get(&address), self.rival_of(vmi, origin, address)) {
            (Some(claim), _) => {
                let owners = claim.holders.iter().map(|holder| holder.owner.clone());
                format!("{} has it", names(&owners.collect::<Vec<Owner>>()))
            }
            (None, Some(other)) => format!("so does VirtualMachineInstance {other}"),
            (None, None) => return None,
        };
        Some(Unplaced::AddressInUse { key: vmi.clone(), address, by })
    }

    /// Another machine that shows the address. What KubeVirt vouches for is disputed only by another one for which it does.
    fn rival_of(
        &self,
        vmi: &NamespacedName,
        own: Origin,
        address: IpAddr,
    ) -> Option<&NamespacedName> {
        let showing = self.machines.showing(address)?;
        showing.other(vmi, |_| true)?;
        let is_of_pods = self.is_of_pods(address);
        // A guest agent tells what it likes of a family of which the pod has no address.
        let vouches = |origin: Origin| !origin.by_guest || origin.on_pods && is_of_pods;
        showing.other(vmi, |other| !vouches(own) || vouches(other))
    }

    /// Whether it is of a network that a node has for pods.
    fn is_of_pods(&self, address: IpAddr) -> bool {
        let mut reserved = self.ledger.reservations();
        reserved.any(|(name, all)| name.starts_with(PODS) && all.contains(address))
    }
}
