//! Owns who should have an address, as advice: voters never look at it, so a stale watch costs time, not safety.
//!
//! The ranking is a pure function of the request, the live nodes and the last holder. Each node computes the same.

use std::collections::BTreeMap;

use crate::name::NodeId;

/// Who may have an address, and who had better.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    /// What is hashed with each node. Addresses of one Service share it, so that they meet on one node.
    pub key: u64,
    /// The nodes that may answer.
    pub candidates: Vec<NodeId>,
    /// How late a node's turn is, whoever had the address last; 0 for whoever is not in it. Nobody is left out for it: the
    /// last candidate that lives has its turn at once.
    pub tiers: BTreeMap<NodeId, u8>,
    /// Whether this node gives what it has to a live candidate of a lower tier.
    pub moves: bool,
    /// One that comes after the others of its tier, unless it had the address last.
    pub behind: Option<NodeId>,
    /// Those that come before the others of their tier.
    pub preferred: Vec<NodeId>,
    /// Who had the address, as far as it is written down outside.
    pub previous: Option<NodeId>,
}

impl Request {
    /// The key of a name.
    pub fn key_of(name: &str) -> u64 {
        NodeId::of(name).bits()
    }

    /// How late a node's turn is.
    pub(crate) fn tier(&self, node: NodeId) -> u8 {
        self.tiers.get(&node).copied().unwrap_or(0)
    }
}

/// The live candidates, best first: by tier, then who had the address last, then preferred nodes, then by rendezvous hash.
///
/// A node that comes or goes moves only the addresses that it is ranked first for.
pub fn rank(
    request: &Request,
    is_live: impl Fn(NodeId) -> bool,
    last_holder: Option<NodeId>,
) -> Vec<NodeId> {
    let last = last_holder.or(request.previous);
    let mut nodes: Vec<_> =
        request.candidates.iter().copied().filter(|node| is_live(*node)).collect();
    nodes.sort_by_cached_key(|node| {
        let (tier, is_behind) = (request.tier(*node), Some(*node) == request.behind);
        let order = (tier, Some(*node) != last, is_behind, !request.preferred.contains(node));
        (order, std::cmp::Reverse(weight(request.key, *node)), *node)
    });
    nodes.dedup();
    nodes
}

/// The weight of a node for a key: a bijective mix (splitmix64), so that all nodes are equally likely.
fn weight(key: u64, node: NodeId) -> u64 {
    mix(key ^ mix(node.bits()))
}

/// Spreads the bits of a number over all of it.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(n: usize) -> Vec<NodeId> {
        (0..n).map(|i| NodeId::of(&format!("node-{i}"))).collect()
    }

    fn request(i: usize, candidates: &[NodeId]) -> Request {
        Request {
            key: Request::key_of(&format!("shop/web-{i}")),
            candidates: candidates.to_vec(),
            ..Request::default()
        }
    }

    #[test]
    fn addresses_spread_evenly() {
        let nodes = nodes(5);
        let mut counts: BTreeMap<NodeId, usize> = BTreeMap::new();
        for i in 0..2_000 {
            *counts.entry(rank(&request(i, &nodes), |_| true, None)[0]).or_default() += 1;
        }
        assert!(
            counts.len() == 5 && counts.values().all(|count| (330..=470).contains(count)),
            "{counts:?}"
        );
    }

    #[test]
    fn a_node_that_goes_moves_only_its_own_addresses() {
        let nodes = nodes(5);
        for i in 0..500 {
            let request = request(i, &nodes);
            let before = rank(&request, |_| true, None);
            let after = rank(&request, |node| node != nodes[2], None);
            assert_eq!(
                before.into_iter().filter(|node| *node != nodes[2]).collect::<Vec<_>>(),
                after
            );
        }
    }

    #[test]
    fn the_last_holder_comes_first_then_preferred_nodes() {
        let nodes = nodes(4);
        let request =
            Request { preferred: vec![nodes[3]], previous: Some(nodes[1]), ..request(7, &nodes) };
        assert_eq!(rank(&request, |_| true, Some(nodes[2]))[..2], [nodes[2], nodes[3]]);
        assert_eq!(rank(&request, |_| true, None)[..2], [nodes[1], nodes[3]]);
        assert_eq!(
            rank(&request, |node| node != nodes[1], None)[0],
            nodes[3],
            "who is gone is not ranked"
        );
    }

    #[test]
    fn a_later_tier_comes_after_all_of_an_earlier_one_and_is_not_left_out() {
        let nodes = nodes(4);
        let request = Request {
            tiers: [(nodes[0], 2), (nodes[1], 1), (nodes[3], 1)].into(),
            preferred: vec![nodes[3]],
            previous: Some(nodes[0]),
            ..request(7, &nodes)
        };
        let ranked = |live: &[NodeId]| rank(&request, |node| live.contains(&node), None);
        assert_eq!(ranked(&nodes), [nodes[2], nodes[3], nodes[1], nodes[0]]);
        assert_eq!(ranked(&nodes[..1]), nodes[..1], "alone");
        let behind = Request { behind: Some(nodes[2]), tiers: BTreeMap::new(), ..request.clone() };
        assert_eq!(rank(&behind, |_| true, None)[3], nodes[2]);
        assert_eq!(rank(&behind, |_| true, Some(nodes[2]))[0], nodes[2], "it had it last");
    }

    #[test]
    fn the_order_of_candidates_does_not_matter() {
        let nodes = nodes(6);
        let mut turned = nodes.clone();
        turned.reverse();
        assert_eq!(
            rank(&request(1, &nodes), |_| true, None),
            rank(&request(1, &turned), |_| true, None)
        );
    }
}
