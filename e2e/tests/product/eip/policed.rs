//! Elastic IPs and Services move between nodes under `overlays/policies`, by tokens of pods on each node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use berth_e2e::apiserver_metrics::Requests;
use berth_e2e::world::{World, env, eventually};
use serde_json::json;

use super::scene::Scene;

/// Longer than a node waits before it writes the same again.
const QUIET: Duration = Duration::from_secs(5);

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

    let before = Requests::read(&scene.world.client).await?;
    tokio::time::sleep(QUIET).await;
    let after = Requests::read(&scene.world.client).await?;
    let written = after.since(&before);
    let of = |verb| written.count(verb, "eipbindings");
    ensure!(of("PATCH") + of("APPLY") == 0, "{written:?}\n{}", scene.world.logs());

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
