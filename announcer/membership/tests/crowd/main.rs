//! Thousands of addresses are won and renewed in time, also where each step is slow.
#![allow(clippy::expect_used)]

mod crowd;

use std::time::Duration;

use berth_membership::Moment;
use crowd::{Cost, Crowd, NODES};

const ADDRESSES: u32 = 2_000;

#[test]
fn what_happens_in_a_crowd_shares_beats_and_no_lease_runs_out_for_it() {
    let mut crowd = Crowd::new(Cost::Each(Duration::from_micros(100)));
    let second = Duration::from_secs(1);
    let start = Moment::default() + second * 5;
    crowd.run(start, |_| false);
    crowd.reset();
    crowd.request(start, ADDRESSES);
    let all = crowd.run(start + second * 20, |crowd| crowd.held.len() == ADDRESSES as usize);
    assert_eq!(crowd.held.len(), ADDRESSES as usize);
    assert!(all < start + second * 5, "{all:?}");
    assert_eq!(crowd.lost, 0);
    let each = crowd.datagrams / (NODES as u64 * u64::from(ADDRESSES));
    assert!(each < 2, "{} datagrams", crowd.datagrams);
    crowd.reset();
    crowd.run(all + second * 5, |_| false);
    assert_eq!(crowd.lost, 0);
    // A beat to each of two others each 50 ms, and its answer; twice as many for leases that are as short as may be.
    let beats = 5_000 / 50 * 2 * 2 * NODES as u64;
    assert!(crowd.datagrams <= 2 * beats, "{} datagrams at rest", crowd.datagrams);

    let rested = all + second * 5;
    for (node, start) in [(0, rested), (1, rested + second * 15)] {
        crowd.reset();
        crowd.leave(start, node);
        let gone = crowd.run(start + second * 15, |crowd| crowd.left.contains(&node));
        assert!(gone < start + second * 5, "{:?}", gone.since(start));
        crowd.run(start + second * 15, |_| false);
        assert_eq!(crowd.held.len(), ADDRESSES as usize);
        assert!(crowd.held.values().all(|holder| *holder > node));
        assert_eq!(crowd.lost, 0);
        // The voters change once, as each node hears: nobody makes whoever leaves a voter again.
        assert!(crowd.adopted <= NODES as u64, "{} changes of voters", crowd.adopted);
    }
}
