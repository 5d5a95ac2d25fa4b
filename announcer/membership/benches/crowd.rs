//! What the protocol costs a processor: nodes that hold thousands of addresses, in virtual time in which each step takes
//! what it takes this processor. `cargo bench -p berth-membership --bench crowd` prints a table.
#![allow(clippy::expect_used)]

#[path = "../tests/crowd/crowd.rs"]
mod crowd;

use std::time::Duration;

use berth_membership::Moment;
use crowd::{Cost, Crowd, NODES};

fn main() {
    println!(
        "| what | addresses | seconds | of a processor, per node, % | datagrams | KiB | leases run out | changes of voters |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    for count in [10, 500, 2_000] {
        let mut crowd = Crowd::new(Cost::Measured);
        let second = Duration::from_secs(1);
        let start = Moment::default() + second * 5;
        crowd.run(start, |_| false);
        crowd.reset();
        crowd.request(start, count);
        let all = crowd.run(start + second * 30, |crowd| crowd.held.len() == count as usize);
        row(&crowd, "all come at once", count, all.since(start));
        let rest = all + second * 5;
        crowd.run(rest, |_| false);
        crowd.reset();
        crowd.run(rest + second * 5, |_| false);
        row(&crowd, "at rest", count, second * 5);
        let start = rest + second * 5;
        crowd.reset();
        crowd.leave(start, 0);
        let gone = crowd.run(start + second * 30, |crowd| crowd.left.contains(&0));
        row(&crowd, "a node leaves", count, gone.since(start));
    }
}

fn row(crowd: &Crowd, what: &str, count: u32, span: Duration) {
    let work: Duration = crowd.work.iter().sum();
    println!(
        "| {what} | {count} | {:.3} | {:.1} | {} | {:.0} | {} | {} |",
        span.as_secs_f64(),
        100.0 * work.as_secs_f64() / NODES as f64 / span.as_secs_f64().max(1e-9),
        crowd.datagrams,
        crowd.octets as f64 / 1024.0,
        crowd.lost,
        crowd.adopted / NODES as u64,
    );
}
