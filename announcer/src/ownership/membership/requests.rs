//! Who may have which address, out of what is wanted. Pure. Advice: the voters never look at it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_membership::{NodeId, Request};

use super::super::context::Context;
use crate::vip::nodes::Peers;
use crate::vip::{Attach, Candidates, Claimant, Vip, Want};

/// By address, who may have it. This node is no candidate for what it cannot bind: refused by the kernel, or without the
/// interface. Where `is_last` says so of its interface, it lets every other candidate go first.
pub(super) fn requests(
    context: Context<'_>,
    peers: &Peers,
    is_last: &dyn Fn(&Attach) -> bool,
) -> BTreeMap<IpAddr, Request> {
    let everybody = peers.takers(|_| true);
    // Not the nodes that are being emptied, unless all are; but a VM's address is wherever the VM is.
    let nodes = |candidates: &Candidates| match candidates {
        Candidates::Every => everybody.clone(),
        Candidates::Only(nodes) => peers.takers(|node| nodes.contains(node)),
        Candidates::Named(node) => vec![NodeId::of(node)],
    };
    let meant = |want: &Want| peers.meant(&want.preferred);
    let vips = context.wanted.addressed();
    let request = |(address, vip)| {
        Some((address, request(context, &nodes, &meant, is_last, (address, vip))?))
    };
    vips.filter_map(request).collect()
}

fn request(
    context: Context<'_>,
    nodes: &dyn Fn(&Candidates) -> Vec<NodeId>,
    meant: &dyn Fn(&Want) -> Vec<NodeId>,
    is_last: &dyn Fn(&Attach) -> bool,
    (address, vip): (IpAddr, &Vip),
) -> Option<Request> {
    let me = NodeId::of(context.node);
    let refused = context.refused.contains(&address);
    let may = |want: &Want, node: &NodeId| *node != me || !refused && want.attach.is_ok();
    let mut served = vip.wants.iter().filter(|want| !want.candidates.is_empty());
    // The oldest claimant of an address decides where it goes: one that joins later moves nothing.
    let first = served.next()?;
    let all = nodes(&first.candidates);
    let mut candidates: Vec<NodeId> = all.iter().copied().filter(|node| may(first, node)).collect();
    // Whoever has a shared address should serve all of its Services; if nobody can, the oldest.
    for want in served {
        let others: BTreeSet<NodeId> = nodes(&want.candidates).into_iter().collect();
        let both = |node: &NodeId| others.contains(node) && may(want, node);
        let both: Vec<NodeId> = candidates.iter().copied().filter(both).collect();
        if !both.is_empty() {
            candidates = both;
        }
    }
    Some(Request {
        key: Request::key_of(&key(&first.claimant)),
        candidates,
        // By its own ranking alone does a node know when it is its turn.
        preferred: match vip.attach(context.node).as_ref().is_some_and(is_last) {
            true => all.into_iter().filter(|node| *node != me).collect(),
            false => meant(first),
        },
        previous: first.previous.as_deref().map(NodeId::of),
    })
}

/// What is hashed to choose a node: addresses of one object go together.
fn key(claimant: &Claimant) -> String {
    match claimant {
        Claimant::Operator => claimant.to_string(),
        Claimant::Service(name) | Claimant::Eip(name) => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use berth_membership::rank;

    use super::*;
    use crate::kernel::Host;
    use crate::ownership::testing::context;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::{eip, service, slice};
    use crate::source::testing::seen;
    use crate::vip::Name;
    use crate::vip::nodes::Peer;

    fn peers(names: &[&str]) -> Peers {
        let mut peers = Peers::default();
        for name in names {
            peers.apply((*name).to_owned(), Peer::default());
        }
        peers
    }

    fn host(up: bool) -> Host {
        let mut host = crate::source::testing::host();
        host.interfaces.get_mut("eth0").unwrap().up = up;
        host
    }

    fn requested(cluster: &Cluster, up: bool, refused: &[&str]) -> BTreeMap<IpAddr, Request> {
        let host = host(up);
        let wanted = seen(cluster, &host, Some("eth0"));
        let refused = refused.iter().map(|address| address.parse().unwrap()).collect();
        let context = Context { refused: &refused, ..context(&wanted, &host) };
        requests(context, &peers(&["a", "b", "c"]), &|_| false)
    }

    fn nodes(names: &[&str]) -> Vec<NodeId> {
        names.iter().map(|name| NodeId::of(name)).collect()
    }

    fn candidates(requests: &BTreeMap<IpAddr, Request>, address: &str) -> Vec<NodeId> {
        requests[&address.parse::<IpAddr>().unwrap()].candidates.clone()
    }

    #[test]
    fn both_addresses_of_a_service_share_what_is_hashed_and_the_last_host() {
        let mut cluster = Cluster::default();
        let mut web = service(&["192.0.2.1", "2001:db8::1"]);
        web.vip_host = Some("b".to_owned());
        cluster.apply_service(Name::new("d", "web"), web);
        assert!(requested(&cluster, true, &[]).is_empty(), "no endpoint is ready");
        slice(&mut cluster, "web", "s", &["c"]);
        let requests = requested(&cluster, true, &[]);
        let keys: BTreeSet<u64> = requests.values().map(|request| request.key).collect();
        assert_eq!((requests.len(), keys.len()), (2, 1));
        assert!(requests.values().all(|request| request.previous == Some(NodeId::of("b"))));
        assert_eq!(candidates(&requests, "192.0.2.1").len(), 3);
    }

    #[test]
    fn a_node_is_no_candidate_for_what_it_cannot_bind() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let others = nodes(&["b", "c"]);
        assert_eq!(candidates(&requested(&cluster, false, &[]), "192.0.2.1"), others);
        assert_eq!(candidates(&requested(&cluster, true, &["192.0.2.1"]), "192.0.2.1"), others);
    }

    #[test]
    fn a_node_whose_interface_is_back_only_lately_lets_the_others_go_first() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let host = host(true);
        let wanted = seen(&cluster, &host, Some("eth0"));
        let request = |damped: bool| {
            let requests = requests(context(&wanted, &host), &peers(&["a", "b"]), &|_| damped);
            requests.into_values().next().unwrap()
        };
        assert_eq!(request(false).preferred, []);
        let damped = request(true);
        assert_eq!((damped.preferred.clone(), damped.candidates.len()), (nodes(&["b"]), 2));
        assert_eq!(rank(&damped, |_| true, None), nodes(&["b", "a"]));
        assert_eq!(rank(&damped, |node| node == NodeId::of("a"), None), nodes(&["a"]), "alone");
    }

    #[test]
    fn the_only_candidate_of_an_elastic_ip_is_the_node_of_its_machine() {
        let mut cluster = Cluster::default();
        cluster.apply_eip(Name::new("d", "vm"), eip("b", &[("192.0.2.1", "10.244.0.4")]));
        assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), nodes(&["b"]));
        cluster.apply_eip(Name::new("d", "vm"), eip("a", &[("192.0.2.1", "10.244.0.4")]));
        assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), nodes(&["a"]));
        assert_eq!(candidates(&requested(&cluster, false, &[]), "192.0.2.1"), nodes(&[]));
        let nobody =
            crate::source::cluster::Eip { node: None, ..eip("a", &[("192.0.2.1", "10.244.0.4")]) };
        cluster.apply_eip(Name::new("d", "vm"), nobody);
        assert!(requested(&cluster, true, &[]).is_empty());
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
        assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), nodes(&["b"]));
    }
}
