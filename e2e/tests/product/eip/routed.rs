//! Elastic IPs by BGP: the router leads to the node of the machine and to no other, and follows it
//! without a moment in which it has two ways, or none.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::world::eventually;
use serde_json::json;

use super::scene::Scene;
use crate::bgp::{POOL, by_bgp};
use crate::is_soak;

/// Waits until the router leads to the node of this number alone.
async fn leads_to(scene: &Scene, bird: &Bird, node: usize) -> Result<()> {
    let expected = BTreeSet::from([protocol(scene.world.lab.node(node).name())]);
    let eips = scene.machines["one"].eips;
    eventually("a way to the machine's node alone", 10, || async {
        let known = eips.map(|eip| bird.knows(eip));
        Ok(known.into_iter().all(|known| known.is_ok_and(|known| known == expected)).then_some(()))
    })
    .await
    .with_context(|| format!("{:?}\n{}", eips.map(|eip| bird.paths(eip)), scene.world.logs()))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_router_follows_a_machine_to_its_node() -> Result<()> {
    let router = berth_e2e::addresses::router().v4;
    let mut environment = by_bgp(&format!("{router}:65001/mpbgp_nexthop=auto_sourceip"));
    for (name, value) in [("bgp_attach_ip_to_interface", "true"), ("vip_interface", "eth0")] {
        environment.insert(name.to_owned(), value.to_owned());
    }
    let mut scene = Scene::up(2, environment).await?;
    scene.world.pools(json!({ "range-global": POOL, "reuse-delay": "1s" })).await?;
    let bird = Bird::start(&scene.world.lab, 65000, "")?;
    scene.machine("one", 0).await?;
    scene.is_held("one").await?;
    leads_to(&scene, &bird, 0).await?;
    let router = scene.world.lab.router();
    let monitor = router.start("routes", ["ip", "-o", "monitor", "route"].map(str::to_owned))?;
    let mut gaps = Vec::new();
    for round in 0..if is_soak() { 100 } else { 4 } {
        let traffic = scene.streams("one")?;
        let target = (round + 1) % 2;
        let moved = scene.migrate("one", target).await;
        leads_to(&scene, &bird, target).await?;
        let report = traffic.finish()?;
        println!("migration {}: {report}", round + 1);
        moved?;
        ensure!(report.resets == 0 && report.alive, "migration {}: {report}", round + 1);
        gaps.push(report.longest_gap);
    }
    println!("longest gaps: {gaps:.0?}");
    // The router's own table had one way at each moment. (Of IPv6 BIRD replaces a route by taking it out.)
    let changes = monitor.log_text();
    for eip in scene.machines["one"].eips {
        let of_it: Vec<&str> =
            changes.lines().filter(|line| line.contains(&format!("{eip} "))).collect();
        let is_wrong = |line: &&&str| {
            line.matches("nexthop").count() > 1 || eip.is_ipv4() && line.starts_with("Deleted")
        };
        let wrong: Vec<&&str> = of_it.iter().filter(is_wrong).collect();
        ensure!(!of_it.is_empty() && wrong.is_empty(), "{wrong:#?}\nof\n{changes}");
    }
    Ok(())
}
