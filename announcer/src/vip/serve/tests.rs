use super::*;
use crate::vip::nodes::Peer;

fn on(nodes: &[&str]) -> Where {
    Where { any: !nodes.is_empty(), nodes: nodes.iter().map(|node| (*node).to_owned()).collect() }
}

fn local(ready: &[&str], serving: &[&str]) -> Serving {
    let endpoints = Endpoints { ready: on(ready), serving: on(serving) };
    Serving { traffic: Traffic::Local, endpoints }
}

fn cluster(ready: &[&str], serving: &[&str]) -> Serving {
    Serving { traffic: Traffic::Cluster, ..local(ready, serving) }
}

fn peers(stays: &[(&str, Stay)]) -> Peers {
    let mut peers = Peers::default();
    for (name, stay) in stays {
        peers.apply((*name).to_owned(), Peer { stay: *stay, ..Peer::default() });
    }
    peers
}

/// Who may, each with its tier.
fn tiers(serving: &Serving, peers: &Peers) -> Vec<(String, u8)> {
    let ask =
        Ask { serving, nodes: Some(peers), lives: Lives::Unknown, me: "a", reach: Reach::Good };
    let serves = serve(ask);
    serves.ranks.iter().map(|(name, rank)| ((*name).to_owned(), rank.tier())).collect()
}

fn of(tiers: &[(&str, u8)]) -> Vec<(String, u8)> {
    tiers.iter().map(|(name, tier)| ((*name).to_owned(), *tier)).collect()
}

#[test]
fn who_is_cordoned_or_emptied_goes_later_and_is_never_left_out() {
    let nodes = peers(&[("a", Stay::Stays), ("b", Stay::Cordoned), ("c", Stay::Emptied)]);
    assert_eq!(tiers(&cluster(&["c"], &[]), &nodes), of(&[("a", 0), ("b", 1), ("c", 4)]));
    assert_eq!(tiers(&cluster(&[], &[]), &nodes), of(&[]));
    assert_eq!(tiers(&local(&["b", "c"], &[]), &nodes), of(&[("b", 0), ("c", 4)]));
    let named = |node: &str| Serving::of(Traffic::Named(Some(node.to_owned())));
    assert_eq!(tiers(&named("c"), &nodes), of(&[("c", 0)]));
}

#[test]
fn endpoints_that_are_being_ended_keep_an_address_where_none_is_ready() {
    let nodes = peers(&[("a", Stay::Stays), ("b", Stay::Stays)]);
    assert_eq!(tiers(&cluster(&[], &["b"]), &nodes), of(&[("a", 0), ("b", 0)]));
    assert_eq!(tiers(&local(&[], &["b"]), &nodes), of(&[("b", 2)]));
    assert_eq!(tiers(&local(&["a"], &["b"]), &nodes), of(&[("a", 0), ("b", 2)]));
    assert_eq!(tiers(&local(&["a"], &["a"]), &nodes), of(&[("a", 0)]));
}

#[test]
fn of_those_who_share_an_address_who_cannot_be_served_where_the_first_is_stands_apart() {
    let apart = |sharers: &[Serving]| super::apart(sharers.iter().map(|sharer| (sharer, true)));
    let (a, b, both) = (local(&["a"], &[]), local(&["b"], &[]), local(&["b"], &["a"]));
    assert_eq!(apart(&[a.clone(), b.clone()]), [1].into());
    assert_eq!(apart(&[a.clone(), both.clone(), b.clone()]), [2].into());
    assert_eq!(apart(&[both, a.clone(), b.clone()]), [2].into());
    assert_eq!(apart(&[cluster(&["b"], &[]), a.clone(), cluster(&["a"], &[])]), [].into());
    assert_eq!(apart(&[local(&[], &[]), a, b]), [2].into(), "who has no endpoint");
}

#[test]
fn nobody_lives_who_is_not_seen_to() {
    let nodes = peers(&[("a", Stay::Stays), ("b", Stay::Stays)]);
    let serving = local(&["b"], &[]);
    let nobody = |live: &[&str]| {
        let live = live.iter().map(|name| NodeId::of(name)).collect();
        let lives = Lives::Known(&live);
        let ask =
            Ask { serving: &serving, nodes: Some(&nodes), lives, me: "a", reach: Reach::Good };
        let serves = serve(ask);
        (serves.here, serves.nobody)
    };
    assert_eq!(nobody(&["a", "b"]), (Some(Why::NoLocalEndpoint), None));
    assert_eq!(nobody(&["a"]), (Some(Why::NoLocalEndpoint), Some(Why::NoLiveNode)));
}
