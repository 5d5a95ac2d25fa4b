//! Many routes.

use std::time::Instant;

use lab_routers::Bird;

use crate::speaker::{ROUTER, block_on, hosts, pair, parameters, speak, target};

#[test]
fn twenty_thousand_routes_are_there_within_seconds() {
    let pair = pair(&Bird, |_| {});
    pair.node.within(|| {
        block_on(async {
            let begun = Instant::now();
            let routes = hosts("10.0.0.0", 20_000);
            let speaker = speak(target(ROUTER), parameters(), routes, false).await;
            speaker.until_up().await;
            speaker.handle.told().await.unwrap();
            let told = begun.elapsed();
            pair.router.until_has([20_000, 0]);
            let there = begun.elapsed();
            println!("20,000 routes, from the start: told after {told:?}, in BIRD's table after {there:?}");
            let said = pair.router.says("show protocols all node");
            let updates =
                said.lines().find(|line| line.contains("Import updates:")).unwrap_or_default();
            assert!(updates.contains("20000"), "each is told once: {said}");
        });
    });
}
