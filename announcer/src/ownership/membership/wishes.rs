//! Who may have which address, out of what the watches show. Pure. Advice: the voters never look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_membership::{NodeId, Wish};

use crate::advertise::arp_nd::schedule::Link;
use crate::desired::{Scene, place, place_anywhere};
use crate::ownership::Candidates;
use crate::source::cluster::{Name, Service};
use crate::vip::nodes::Peers;

/// By address, who may have it. This node is no candidate for what it cannot bind: `refused`, or without the interface.
/// Where its interface is `wary`, it lets every other candidate go first.
pub(super) fn wishes(
    scene: Scene<'_>,
    peers: &Peers,
    refused: &BTreeSet<IpAddr>,
    wary: &dyn Fn(&Link) -> bool,
) -> BTreeMap<IpAddr, Wish> {
    let me = NodeId::of(scene.node);
    let everybody = peers.takers(|_| true);
    let others = |candidates: &[NodeId]| {
        candidates.iter().copied().filter(|node| *node != me).collect::<Vec<_>>()
    };
    let mut services: Vec<(&Name, &Service)> =
        scene.cluster.services().iter().filter(|(_, service)| service.ours).collect();
    // The oldest Service of an address decides where it goes: one that joins later moves nothing.
    services.sort_by_key(|(name, service)| (&service.created, *name));
    let mut wishes: BTreeMap<IpAddr, Wish> = BTreeMap::new();
    for (name, service) in services {
        let candidates = match Candidates::of(scene.cluster, name) {
            Candidates::Every => everybody.clone(),
            Candidates::Only(nodes) if nodes.is_empty() => continue,
            Candidates::Only(nodes) => peers.takers(|node| nodes.contains(node)),
        };
        for address in &service.addresses {
            let place = place(scene, service, *address).ok();
            let usable = !refused.contains(address) && place.is_some();
            let wary = place.as_ref().is_some_and(wary);
            let may = |node: &NodeId| *node != me || usable;
            match wishes.get_mut(address) {
                None => {
                    let wish = Wish {
                        key: Wish::key_of(&name.to_string()),
                        candidates: candidates.iter().copied().filter(may).collect(),
                        // By its own ranking alone does a node know when it is its turn.
                        preferred: match wary {
                            true => others(&candidates),
                            false => peers.meant(&service.preferred),
                        },
                        previous: service.vip_host.as_deref().map(NodeId::of),
                    };
                    wishes.insert(*address, wish);
                }
                Some(wish) => {
                    // Whoever has a shared address should serve all of its Services; if nobody can, the oldest.
                    let both = |node: &NodeId| candidates.contains(node) && may(node);
                    let both: Vec<NodeId> = wish.candidates.iter().copied().filter(both).collect();
                    if !both.is_empty() {
                        wish.candidates = both;
                    }
                }
            }
        }
    }
    for (name, eip) in scene.cluster.eips() {
        // A node that is being emptied keeps its machines' addresses for as long as it has the machines.
        let Some(owner) = eip.owner().map(NodeId::of) else { continue };
        for address in eip.addresses() {
            let usable = !refused.contains(&address) && place_anywhere(scene, address).is_ok();
            let candidates = if owner != me || usable { vec![owner] } else { Vec::new() };
            wishes.entry(address).or_insert_with(|| Wish {
                key: Wish::key_of(&name.to_string()),
                candidates,
                preferred: Vec::new(),
                previous: eip.holder.as_ref().map(|holder| NodeId::of(&holder.node)),
            });
        }
    }
    wishes
}

#[cfg(test)]
mod tests {
    use berth_membership::rank;

    use super::*;
    use crate::kernel::{Host, Interface};
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{eip, service, slice};
    use crate::vip::nodes::Peer;

    fn peers(names: &[&str]) -> Peers {
        let mut peers = Peers::default();
        for name in names {
            peers.apply((*name).to_owned(), Peer::default());
        }
        peers
    }

    fn host(up: bool) -> Host {
        let eth0 = Interface { index: 2, mac: Some([2; 6]), up, foreign: [].into() };
        Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() }
    }

    fn wished(cluster: &Cluster, up: bool, refused: &[&str]) -> BTreeMap<IpAddr, Wish> {
        let host = host(up);
        let scene = Scene { cluster, host: &host, node: "a", interface: Some("eth0") };
        let refused = refused.iter().map(|address| address.parse().unwrap()).collect();
        wishes(scene, &peers(&["a", "b", "c"]), &refused, &|_| false)
    }

    fn nodes(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| NodeId::of(name)).collect()
    }

    fn candidates(wishes: &BTreeMap<IpAddr, Wish>, address: &str) -> Vec<NodeId> {
        wishes[&address.parse::<IpAddr>().unwrap()].candidates.clone()
    }

    #[test]
    fn both_addresses_of_a_service_share_what_is_hashed_and_the_last_host() {
        let mut cluster = Cluster::default();
        let mut web = service(&["192.0.2.1", "2001:db8::1"]);
        web.vip_host = Some("b".to_owned());
        cluster.apply_service(Name::new("d", "web"), web);
        assert!(wished(&cluster, true, &[]).is_empty(), "no endpoint is ready");
        slice(&mut cluster, "web", "s", &["c"]);
        let wishes = wished(&cluster, true, &[]);
        let keys: BTreeSet<u64> = wishes.values().map(|wish| wish.key).collect();
        assert_eq!((wishes.len(), keys.len()), (2, 1));
        assert!(wishes.values().all(|wish| wish.previous == Some(NodeId::of("b"))));
        assert_eq!(candidates(&wishes, "192.0.2.1").len(), 3);
    }

    #[test]
    fn a_node_is_no_candidate_for_what_it_cannot_bind() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let others = nodes(&["b", "c"]);
        assert_eq!(candidates(&wished(&cluster, false, &[]), "192.0.2.1"), others);
        assert_eq!(candidates(&wished(&cluster, true, &["192.0.2.1"]), "192.0.2.1"), others);
    }

    #[test]
    fn a_node_whose_interface_is_back_only_lately_lets_the_others_go_first() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let host = host(true);
        let scene = Scene { cluster: &cluster, host: &host, node: "a", interface: Some("eth0") };
        let wish = |wary: bool| {
            let wishes = wishes(scene, &peers(&["a", "b"]), &BTreeSet::new(), &|_| wary);
            wishes.into_values().next().unwrap()
        };
        assert_eq!(wish(false).preferred, []);
        let wary = wish(true);
        assert_eq!((wary.preferred.clone(), wary.candidates.len()), (nodes(&["b"]), 2));
        assert_eq!(rank(&wary, |_| true, None), nodes(&["b", "a"]));
        assert_eq!(rank(&wary, |node| node == NodeId::of("a"), None), nodes(&["a"]), "alone");
    }

    #[test]
    fn the_only_candidate_of_an_elastic_ip_is_the_node_of_its_machine() {
        let mut cluster = Cluster::default();
        cluster.apply_eip(Name::new("d", "vm"), eip("b", &[("192.0.2.1", "10.244.0.4")]));
        assert_eq!(candidates(&wished(&cluster, true, &[]), "192.0.2.1"), nodes(&["b"]));
        cluster.apply_eip(Name::new("d", "vm"), eip("a", &[("192.0.2.1", "10.244.0.4")]));
        assert_eq!(candidates(&wished(&cluster, true, &[]), "192.0.2.1"), nodes(&["a"]));
        assert_eq!(candidates(&wished(&cluster, false, &[]), "192.0.2.1"), nodes(&[]));
        let nobody =
            crate::source::cluster::Eip { node: None, ..eip("a", &[("192.0.2.1", "10.244.0.4")]) };
        cluster.apply_eip(Name::new("d", "vm"), nobody);
        assert!(wished(&cluster, true, &[]).is_empty());
    }

    #[test]
    fn a_shared_address_goes_where_all_of_its_services_can_be_served() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let mut local = service(&["192.0.2.1"]);
        (local.local, local.created) = (true, "2026".to_owned());
        cluster.apply_service(Name::new("d", "local"), local);
        slice(&mut cluster, "local", "t", &["b"]);
        assert_eq!(candidates(&wished(&cluster, true, &[]), "192.0.2.1"), nodes(&["b"]));
    }
}
