//! Who may have which address, out of what is wanted. Pure. Advice: the voters never look at it.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_membership::{NodeId, Request};

use super::super::context::Context;
use crate::vip::nodes::Peers;
use crate::vip::serve::{Ask, Lives, Rank, Reach, serve};
use crate::vip::{Attach, Claimant, Vip, Want};

/// Who may have an address, and how late.
type Ranks = BTreeMap<NodeId, Rank>;

/// By address, who may have it. This node is no candidate for what it cannot bind: refused by the kernel, or without the
/// interface. Where `is_last` says so of its interface, it lets every other candidate go first.
pub(super) fn requests(
    context: Context<'_>,
    peers: &Peers,
    is_last: &dyn Fn(&Attach) -> bool,
) -> BTreeMap<IpAddr, Request> {
    let asker = Asker { context, peers, is_last, everywhere: Default::default() };
    let vips = context.wanted.addressed();
    vips.filter_map(|(address, vip)| Some((address, asker.request(address, vip)?))).collect()
}

struct Asker<'a> {
    context: Context<'a>,
    peers: &'a Peers,
    is_last: &'a dyn Fn(&Attach) -> bool,
    /// What holds of all whose traffic finds an endpoint from anywhere, for each reach: there may be thousands.
    everywhere: [OnceCell<Ranks>; 3],
}

impl Asker<'_> {
    fn request(&self, address: IpAddr, vip: &Vip) -> Option<Request> {
        let me = NodeId::of(self.context.node);
        let is_last = vip.attach(self.context.node).as_ref().is_some_and(self.is_last);
        let mut served = vip.deciding();
        // The oldest claimant of an address decides where it goes: one that joins later moves nothing.
        let first = served.next()?;
        let reach = match first.attach.is_ok() && !self.context.refused.contains(&address) {
            true if is_last => Reach::Poor,
            true => Reach::Good,
            false => Reach::None,
        };
        let mut ranks = self.ranks(first, reach);
        // Whoever has a shared address should serve all who decide; if nobody can, the oldest. Which interface another one names
        // is not looked at: each node knows of itself alone that it has none such, and where all lack it each would wait for the others.
        for want in served {
            let others = self.ranks(want, reach);
            let both =
                ranks.iter().filter_map(|(node, rank)| Some((*node, rank.and(*others.get(node)?))));
            let both: Ranks = both.collect();
            if !both.is_empty() {
                ranks = both;
            }
        }
        let tiers = ranks.iter().map(|(node, rank)| (*node, rank.tier()));
        let mine = ranks.get(&me).copied().unwrap_or_default();
        Some(Request {
            key: Request::key_of(&key(&first.claimant)),
            candidates: ranks.keys().copied().collect(),
            tiers: tiers.filter(|(_, tier)| *tier > 0).collect(),
            moves: mine.moves(),
            // By its own ranking alone does a node know when it is its turn.
            behind: mine.poor.then_some(me),
            preferred: self.peers.meant(&first.preferred),
            previous: first.previous.as_deref().map(NodeId::of),
        })
    }

    fn ranks(&self, want: &Want, reach: Reach) -> Ranks {
        let ask = || {
            let (serving, nodes, lives) = (&*want.serving, Some(self.peers), Lives::Unknown);
            let serves = serve(Ask { serving, nodes, lives, me: self.context.node, reach });
            serves.ranks.iter().map(|(name, rank)| (NodeId::of(name), *rank)).collect()
        };
        match want.serving.is_everywhere() {
            true => self.everywhere[reach as usize].get_or_init(ask).clone(),
            false => ask(),
        }
    }
}

/// What is hashed to choose a node: addresses of one object go together.
fn key(claimant: &Claimant) -> String {
    match claimant {
        Claimant::Operator | Claimant::ControlPlane => claimant.to_string(),
        Claimant::Service(name) | Claimant::Eip(name) => name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use berth_api::claim::{ClaimPolicy, Holder};
    use berth_membership::rank;

    use super::*;
    use crate::kernel::Host;
    use crate::ownership::testing::context;
    use crate::source::cluster::testing::{eip, service, slice};
    use crate::source::cluster::{Claims, Cluster, Service, Slice};
    use crate::source::testing::seen;
    use crate::vip::Name;
    use crate::vip::nodes::{Peer, Stay};
    use crate::vip::serve::{Endpoints, Where};

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

    fn nodes(names: &[&str]) -> BTreeSet<NodeId> {
        names.iter().map(|name| NodeId::of(name)).collect()
    }

    fn candidates(requests: &BTreeMap<IpAddr, Request>, address: &str) -> BTreeSet<NodeId> {
        requests[&address.parse::<IpAddr>().unwrap()].candidates.iter().copied().collect()
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
        let [a, b] = ["a", "b"].map(NodeId::of);
        assert_eq!(request(false).behind, None);
        let damped = request(true);
        assert_eq!((damped.behind, damped.candidates.len()), (Some(a), 2));
        assert_eq!(rank(&damped, |_| true, None), [b, a]);
        assert_eq!(rank(&damped, |node| node == a, None), [a], "alone");
    }

    #[test]
    fn a_node_that_is_cordoned_or_emptied_goes_later_and_only_the_second_gives_what_it_has() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let local = crate::source::cluster::Service { local: true, ..service(&["192.0.2.2"]) };
        cluster.apply_service(Name::new("d", "local"), local);
        slice(&mut cluster, "local", "t", &["a", "c"]);
        let host = host(true);
        let wanted = seen(&cluster, &host, Some("eth0"));
        let request = |stay: Stay, address: &str| {
            let mut peers = peers(&["b", "c"]);
            peers.apply("a".to_owned(), Peer { stay, ..Peer::default() });
            let mut requests = requests(context(&wanted, &host), &peers, &|_| false);
            requests.remove(&address.parse().unwrap()).unwrap()
        };
        let me = NodeId::of("a");
        for (address, count) in [("192.0.2.1", 3), ("192.0.2.2", 2)] {
            let emptied = request(Stay::Emptied, address);
            assert_eq!((emptied.candidates.len(), emptied.moves), (count, true), "{address}");
            assert_eq!(rank(&emptied, |_| true, Some(me)).last(), Some(&me), "{address}");
            assert!(
                !request(Stay::Cordoned, address).moves && !request(Stay::Stays, address).moves
            );
        }
        let last =
            |address| *rank(&request(Stay::Cordoned, address), |_| true, Some(me)).last().unwrap();
        assert_eq!(last("192.0.2.1"), me);
        assert_ne!(last("192.0.2.2"), me, "with Local to be cordoned is nothing");
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

    #[test]
    fn who_joined_from_another_namespace_keeps_it_from_no_node_wherever_its_endpoints_are_said_to_be()
     {
        let mut cluster = Cluster::new(Claims::new(ClaimPolicy::Required));
        let of =
            |uid: &str, local| Service { uid: uid.to_owned(), local, ..service(&["192.0.2.1"]) };
        cluster.apply_service(Name::new("d", "web"), of("web", false));
        slice(&mut cluster, "web", "s", &["c"]);
        cluster.nodes.apply("b");
        let there = Where { any: true, nodes: ["b".to_owned()].into() };
        let endpoints = Endpoints { ready: there, ..Endpoints::default() };
        let on_b = || Slice::of(&endpoints);
        cluster.claims.apply("192.0.2.1", ["web", "joins"].map(Holder::alone).into(), false);
        for (namespace, expected) in [("mallory", ["a", "b", "c"].as_slice()), ("d", &["b"])] {
            let name = Name::new(namespace, "joins");
            cluster.apply_service(name.clone(), of("joins", true));
            cluster.apply_slice(Name::new(namespace, "t"), Some((name.clone(), on_b())));
            assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), nodes(expected));
            let (host, me) = (host(true), "a");
            let wanted = seen(&cluster, &host, Some("eth0"));
            let vip = wanted.vip("192.0.2.1".parse().unwrap()).unwrap();
            assert_eq!(vip.is_served_by(me), expected.contains(&me), "by a Lease");
            cluster.delete_service(&name);
        }
        // Nor while whoever had it first has no endpoint, and another of that namespace has.
        slice(&mut cluster, "web", "s", &[]);
        let holders = ["web", "joins", "later"].map(Holder::alone);
        cluster.claims.apply("192.0.2.1", holders.into(), false);
        let name = Name::new("mallory", "joins");
        cluster.apply_service(name.clone(), of("joins", true));
        cluster.apply_slice(Name::new("mallory", "t"), Some((name, on_b())));
        assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), nodes(&["b"]));
        cluster.apply_service(Name::new("d", "later"), of("later", false));
        slice(&mut cluster, "later", "l", &["c"]);
        let all = nodes(&["a", "b", "c"]);
        assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), all);
    }

    #[test]
    fn who_shares_an_address_and_names_what_no_node_has_keeps_it_from_nobody() {
        let mut cluster = Cluster::default();
        cluster.apply_service(Name::new("d", "web"), service(&["192.0.2.1"]));
        slice(&mut cluster, "web", "s", &["c"]);
        let joins = |interface: Option<&str>, vlan: Option<Result<u16, berth_api::Quoted>>| {
            let interface = interface.map(|name| Ok(name.to_owned()));
            Service { interface, vlan, created: "2026".to_owned(), ..service(&["192.0.2.1"]) }
        };
        let bad = Err(berth_api::Quoted::of("x"));
        let all = nodes(&["a", "b", "c"]);
        for other in [joins(Some("eth9"), None), joins(None, Some(Ok(5))), joins(None, Some(bad))] {
            cluster.apply_service(Name::new("d", "other"), other);
            slice(&mut cluster, "other", "t", &["c"]);
            assert_eq!(candidates(&requested(&cluster, true, &[]), "192.0.2.1"), all);
        }
    }
}
