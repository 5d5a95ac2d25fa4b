//! All that is wanted, by address. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::cluster::Service;
use super::eip::{self, Usage};
use super::fixed::{self, Fixed};
use super::scene::Scene;
use super::service;
use crate::vip::{Advertise, Name, Vip, VipId, Want, Wanted};

/// What is wanted as seen from this node: by the objects of the cluster, of which `usage` tells what elastic IPs are in
/// use, and by the operator.
pub fn wanted(scene: Scene<'_>, usage: &Usage, fixed: &Fixed) -> Wanted {
    let services = scene.cluster.services();
    let mut wanted = Wanted::default();
    for (name, service) in services {
        if let Some(claim) = service::claim(scene, name, service) {
            wanted.services.insert(name.clone(), claim);
        }
    }
    for (address, want) in fixed::wants(scene, fixed) {
        add(&mut wanted.vips, address, want);
    }
    let mut ours: Vec<(&Name, &Service)> = services.iter().filter(|(_, s)| s.ours).collect();
    ours.sort_by_key(|(name, service)| (&service.created, *name));
    let used: BTreeSet<IpAddr> =
        ours.iter().flat_map(|(_, service)| service::in_use(service)).collect();
    for (name, service) in ours {
        let claim = wanted.services.get(name);
        let wants = claim.into_iter().flat_map(|claim| service::wants(name, service, claim, &used));
        for (address, want) in wants {
            add(&mut wanted.vips, address, want);
        }
    }
    for (name, binding) in scene.cluster.eips() {
        for (address, vmi, want) in eip::wants(scene, name, binding, usage) {
            let vip = add(&mut wanted.vips, address, want);
            // Of two that name one address, which berth-ccm does not give, the first by name counts.
            vip.leads_to.get_or_insert(vmi);
        }
    }
    wanted
}

fn add(vips: &mut BTreeMap<VipId, Vip>, address: IpAddr, want: Want) -> &mut Vip {
    let begin = || Vip {
        address: Some(address),
        wants: Vec::new(),
        advertise: Advertise::ArpNd,
        leads_to: None,
    };
    let vip = vips.entry(VipId::Address(address)).or_insert_with(begin);
    vip.wants.push(want);
    vip
}

#[cfg(test)]
mod tests {
    use super::super::cluster::Cluster;
    use super::super::cluster::testing::service;
    use super::super::testing::{host, seen};
    use super::*;

    #[test]
    fn where_a_service_belongs_is_searched_for_among_none_of_those_that_share_its_address() {
        let (mut cluster, address) = (Cluster::default(), "192.0.2.1");
        let names: Vec<Name> = (0..100).map(|n| Name::new("d", n.to_string())).collect();
        for name in &names {
            cluster.apply_service(name.clone(), service(&[address]));
        }
        let address = address.parse().unwrap();
        let mut wanted = seen(&cluster, &host(), Some("eth0"));
        assert_eq!(wanted.vip(address).unwrap().wants.len(), names.len());
        // With N of them a search for each would be N².
        wanted.vips.clear();
        assert!(names.iter().all(|name| matches!(wanted.attach(name, address), Some(Ok(_)))));
    }
}
