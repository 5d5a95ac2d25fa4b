//! What peers may send, or whoever has their key: it is refused or taken, and harms no node.

use std::cell::Cell;
use std::time::Duration;

use berth_membership::envelope::VERSION_AT;
use berth_membership::{Input, Moment, Node, NodeId, Output, Parameters, View, Voters};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::cluster::{ADDRESS, Cluster, KEY, ids, keys};

const TAG: usize = 32;
/// With its length in front it fills one block of SHA-256.
const INCARNATION: &str = "one";

/// The datagram with the tag that whoever has the key would put to it.
fn signed(octets: &[u8]) -> Vec<u8> {
    let body = &octets[..octets.len().saturating_sub(TAG)];
    let mut mac = Hmac::<Sha256>::new_from_slice(KEY).unwrap();
    if matches!(body.get(VERSION_AT), Some(2 | 3)) {
        let mut prefix = (INCARNATION.len() as u64).to_be_bytes().to_vec();
        prefix.extend(INCARNATION.as_bytes());
        prefix.resize(64, 0);
        mac.update(&prefix);
    }
    mac.update(body);
    [body, &mac.finalize().into_bytes()].concat()
}

/// What three nodes say to `b` until one of them has handed the address over.
fn samples(view: &View) -> Vec<Vec<u8>> {
    let mut cluster = Cluster::new();
    for name in ["a", "b", "c"] {
        cluster.start_with(keys(INCARNATION), name, Input::View(view.clone()));
    }
    cluster.run(Duration::from_secs(2));
    let (owner, address) = (cluster.owners()[0], ADDRESS.parse().unwrap());
    cluster.tell(owner, Input::HandOver { address });
    cluster.run(Duration::from_millis(200));
    let to_b = |(to, _): &(NodeId, Vec<u8>)| *to == NodeId::of("b");
    let all: Vec<Vec<u8>> = cluster.recorded.into_iter().filter(to_b).map(|(_, d)| d).collect();
    let of_kind = |kind| all.iter().rev().filter(move |datagram| datagram[3] == kind).take(20);
    (1..=3).flat_map(of_kind).cloned().collect()
}

#[test]
fn whatever_arrives_of_a_peer_is_taken_or_refused_and_harms_no_node() {
    let view = View::new(1, Voters::new(ids(&["a", "b", "c"])).unwrap(), vec![]).unwrap();
    let samples = samples(&view);
    assert!(samples.iter().all(|sample| signed(sample) == *sample), "tags are made as nodes do");
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    berth_hostile::octets(&samples, |octets| {
        let (me, start) = (NodeId::of("b"), Moment::from_nanos(3_000_000_000));
        let mut node = Node::new(me, Parameters::default(), keys(INCARNATION), 7, start).unwrap();
        node.handle(start, Input::View(view.clone()));
        for datagram in [octets.to_vec(), signed(octets)] {
            let outputs = node.handle(start, Input::Datagram(&datagram));
            let is_refused = outputs.iter().any(|output| matches!(output, Output::Refused(_)));
            let counter = if is_refused { &refused } else { &taken };
            counter.set(counter.get() + 1);
            // It answers with as many datagrams as a heartbeat may fill.
            assert!(outputs.len() < 100, "{}", outputs.len());
        }
        let mut now = start;
        for _ in 0..4 {
            now = node.deadline().max(now);
            if now == Moment::NEVER {
                break;
            }
            node.poll(now);
        }
    });
    assert!(taken.get() > 0 && refused.get() > taken.get(), "{taken:?} {refused:?}");
}
