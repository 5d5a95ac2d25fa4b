//! Elastic IPs and Services move between nodes under `overlays/policies`, by tokens of pods on each node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::apiserver_metrics::Requests;
use berth_e2e::world::{World, env, eventually};
use serde_json::json;

use super::scene::Scene;

/// Longer than a node waits before it writes the same again.
const QUIET: Duration = Duration::from_secs(5);

/// A write may still be under way when the first of these begins; who writes the same again does in each.
const WINDOWS: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn addresses_move_between_nodes_under_the_policies_and_who_let_go_writes_no_more()
-> Result<()> {
    let mut world = World::without_berth(3, env([])).await?;
    world.police()?;
    let mut scene = Scene::of(world, 2).await?;
    scene.world.deploy("default", "hello", 1)?;
    scene.world.expose("web", json!({})).await?;
    let web = scene.world.published("web", 1).await?[0];
    scene.machine("vm", 0).await?;
    scene.is_held("vm").await?;
    for target in [1, 0] {
        scene.migrate("vm", target).await?;
    }

    let mut last = Requests::read(&scene.world.client).await?;
    let mut quiet = false;
    for _ in 0..WINDOWS {
        tokio::time::sleep(QUIET).await;
        let now = Requests::read(&scene.world.client).await?;
        let written = now.since(&last);
        let of = |verb| written.count(verb, "eipbindings");
        quiet = of("PATCH") + of("APPLY") == 0;
        if quiet {
            break;
        }
        println!("after a move somebody still wrote: {written:?}");
        last = now;
    }
    ensure!(quiet, "an elastic IP is written again and again\n{}", scene.world.logs());

    let host = scene.world.host("web").await?;
    scene.world.announcer(&host)?.kill()?;
    eventually("the other node publishes and answers", 20, || async {
        let other = scene.world.host("web").await? != host;
        Ok((other && scene.world.curl(web).is_ok()).then_some(()))
    })
    .await
    .with_context(|| scene.world.logs())?;
    let logs = scene.world.logs();
    ensure!(!logs.contains("ValidatingAdmissionPolicy"), "{logs}");
    scene.down()
}
