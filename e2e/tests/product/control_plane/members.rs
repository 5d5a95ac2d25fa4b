//! The same where the control-plane nodes decide among themselves: no API server is needed for a takeover, nor waited for.

use std::path::PathBuf;

use berth_e2e::control_plane::Part;
use berth_e2e::node::Node;

use super::*;

/// The checks that fail before an API server is not healthy, each of a second.
const FAILURES: u32 = 2;

/// What a client may see of a crash, and what of a handover, beside what the machine itself stood still.
const CRASH: Duration = Duration::from_secs(1);
const HANDED: Duration = Duration::from_millis(500);

/// Where a node keeps its view.
fn kept(node: &Node) -> Result<PathBuf> {
    Ok(node.place()?.dir.join(format!("membership-{}", node.name())))
}

impl Scene {
    async fn of_members(nodes: usize) -> Result<Self> {
        let world = World::without_berth(nodes, env([])).await?;
        let servers = servers(&world, nodes).await?;
        rights_for(&world, &["--address", ADDRESSES, "--election", "membership"])?;
        let addresses = ADDRESSES.split(',').map(str::parse).collect::<Result<Vec<IpAddr>, _>>()?;
        let mut scene = Self { world, servers, addresses };
        for node in 0..nodes {
            let name = scene.world.lab.node(node).name().to_owned();
            let label = "node-role.kubernetes.io/control-plane=";
            kubectl(&scene.world.lab, &["label", "node", &name, label])?;
            scene.start(node).await?;
        }
        Ok(scene)
    }

    async fn start(&mut self, node: usize) -> Result<()> {
        let config = self.world.kubeconfig_of_pod("berth-control-plane", node).await?;
        let folder = kept(self.world.lab.node(node))?;
        let settings = env([
            ("KUBECONFIG", &config.display().to_string()),
            ("svc_enable", "false"),
            ("cp_enable", "true"),
            ("address", ADDRESSES),
            ("berth_election", "membership"),
            ("berth_cp_folder", &folder.display().to_string()),
            ("kubernetes_addr", "http://127.0.0.1:6443"),
            ("control_plane_health_check_failure_threshold", &FAILURES.to_string()),
        ]);
        self.world.start_announcer_with(node, settings).await.map(drop)
    }

    /// The view that a node has kept has so many voters.
    async fn vote(&self, voters: usize) -> Result<()> {
        let kept = || async {
            for node in self.world.lab.nodes() {
                let file = kept(node)?.join("view.json");
                let text = std::fs::read_to_string(file).unwrap_or_default();
                let line = text.lines().next().unwrap_or_default();
                let stood: serde_json::Value = serde_json::from_str(line).unwrap_or_default();
                let view = stood["view"].as_str().unwrap_or_default();
                let view: serde_json::Value = serde_json::from_str(view).unwrap_or_default();
                if view["voters"].as_array().map_or(0, Vec::len) != voters {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        };
        eventually("all vote", 20, kept).await.with_context(|| self.world.logs())
    }

    /// Something happens to the owner: another takes over, and a client sees no more of it than this.
    async fn moves(&self, what: &str, owner: &str, away: Duration) -> Result<String> {
        let probe = self.probe()?;
        let begun = Instant::now();
        match what {
            "hangs" => self.server(owner)?.make(hangs()),
            "is away" => self.server(owner)?.make(Trouble { is_cut: true, ..Trouble::default() }),
            _ => self.server(owner)?.make(slow()),
        }
        let next = self.owner(Some(owner), 15).await?;
        let took = begun.elapsed();
        let report = probe.finish()?;
        println!("{what}: moved after {took:.1?}, away for {:.0?} at most", report.longest_gap);
        pauses::within(&format!("{what}: answered after"), report.longest_gap, away, begun)
            .with_context(|| self.world.logs())?;
        Ok(next)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn control_plane_nodes_decide_among_themselves_who_has_their_address() -> Result<()> {
    let mut scene = Scene::of_members(3).await?;
    let mut owner = scene.owner(None, 30).await?;
    scene.vote(3).await?;
    let (start, wire) = (Instant::now(), scene.world.lab.watch()?);
    let client = scene.world.lab.outside();
    let ask = |address: &IpAddr| Asker::start(&client, *address, ASK);
    let askers = scene.addresses.iter().map(ask).collect::<Result<Vec<_>>>()?;

    // Its API server is not what it was: it hands over, and takes nothing back.
    // A client of one that does not answer waits until that is known.
    let known = Duration::from_secs(1) * (FAILURES + 1) + HANDED;
    for (what, away) in [("hangs", known), ("is away", known), ("is not ready", HANDED)] {
        let next = scene.moves(what, &owner, away).await?;
        scene.server(&owner)?.make(Trouble::default());
        scene.stays_with(&next, Duration::from_secs(3)).await.context("somebody preempts")?;
        owner = next;
    }

    // All of them: nobody moves anything, also where nobody can renew any Lease.
    let probe = scene.probe()?;
    scene.servers.iter().for_each(|server| server.make(slow()));
    scene.stays_with(&owner, PATIENCE).await.context("it hops")?;
    let report = probe.finish()?;
    report.answered_within(HANDED).with_context(|| scene.world.logs())?;
    let server = scene.world.lab.part(Part::ApiServer)?;
    server.freeze()?;
    scene.servers.iter().for_each(|server| server.make(Trouble::default()));
    scene
        .stays_with(&owner, PATIENCE)
        .await
        .context("it hops while the one behind them is stopped")?;
    server.thaw()?;
    scene.stays_with(&owner, PATIENCE).await.context("it moves when it is back")?;

    // It dies, and comes back.
    let (probe, died) = (scene.probe()?, Instant::now());
    scene.world.announcer(&owner)?.kill()?;
    tokio::time::sleep(2 * CRASH).await;
    let report = probe.finish()?;
    pauses::within("dies: answered after", report.longest_gap, CRASH, died)
        .with_context(|| scene.world.logs())?;
    // Until then what it had is bound there, and silent.
    let node = scene.world.index_of(&owner)?;
    scene.start(node).await?;
    let next = scene.owner(Some(&owner), 15).await?;
    scene.stays_with(&next, Duration::from_secs(3)).await.context("who comes back preempts")?;

    askers.into_iter().try_for_each(Asker::finish)?;
    let record = wire.finish()?;
    for address in &scene.addresses {
        // Who hands it over is silent a millisecond before the other answers.
        let both = record.overlaps(*address, Duration::from_millis(100));
        let both: Vec<_> = both.into_iter().filter(|(begun, _)| *begun >= start).collect();
        ensure!(both.is_empty(), "{address}: two answer: {both:?}\n{}", scene.world.logs());
    }
    scene.world.lab.down()
}
