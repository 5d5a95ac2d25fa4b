//! A Deployment that is rolled out anew behind `externalTrafficPolicy: Local`: addresses follow its pods, and who connects meanwhile
//! is served.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::apply;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::probe::{Failure, Manner, Probe};
use berth_e2e::world::{Env, World, env, eventually, kubectl};
use serde_json::json;

use crate::bgp::{POOL, by_bgp};
use crate::is_soak;

/// One pod on a node, and never fewer than two: each goes on for as long as a well-behaved server does whose clients have
/// not heard yet.
const DEPLOYMENT: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: { name: rolling }
spec:
  replicas: 2
  strategy: { rollingUpdate: { maxUnavailable: 0, maxSurge: 1 } }
  selector: { matchLabels: { app: rolling } }
  template:
    metadata: { labels: { app: rolling } }
    spec:
      affinity:
        podAntiAffinity:
          requiredDuringSchedulingIgnoredDuringExecution:
          - { topologyKey: kubernetes.io/hostname, labelSelector: { matchLabels: { app: rolling } } }
      containers:
      - name: rolling
        image: localhost/berth/echo:0.1.0
        imagePullPolicy: IfNotPresent
        readinessProbe: { httpGet: { path: /, port: 8080 }, periodSeconds: 1 }
        lifecycle: { preStop: { sleep: { seconds: 3 } } }
";

/// The nodes of its pods that are not being ended.
fn nodes(world: &World) -> Result<BTreeSet<String>> {
    let path = "jsonpath={range .items[*]}{.metadata.deletionTimestamp}/{.spec.nodeName} {end}";
    let said = kubectl(&world.lab, &["get", "pods", "-l", "app=rolling", "-o", path])?;
    let staying = said.split_whitespace().filter_map(|pod| pod.strip_prefix('/'));
    Ok(staying.map(str::to_owned).collect())
}

/// A world with a Service in front of the Deployment.
struct Scene {
    world: World,
    addresses: Vec<IpAddr>,
    /// Connections of a client in a rollout that a router without resilient hashing may lead to another node while they are
    /// under way: that resets them, or what it has left of another connection by the same port has them go unanswered.
    moved: usize,
}

impl Scene {
    async fn up(pool: &str, environment: Env, router: bool) -> Result<(Self, Option<Bird>)> {
        let mut world = World::up(2, environment).await?;
        world.pools(json!({ "range-global": pool })).await?;
        world.start_announcer(2).await?;
        let bird = router.then(|| Bird::start(&world.lab, 65000, "")).transpose()?;
        apply::create(&world.lab.client(), DEPLOYMENT, "default").await?;
        apply::rolled_out(&world.lab.client(), "default", "rolling").await?;
        let spec = json!({
            "selector": { "app": "rolling" }, "ipFamilyPolicy": "RequireDualStack", "externalTrafficPolicy": "Local",
        });
        world.expose("rolling", spec).await?;
        let addresses = world.published("rolling", 2).await.with_context(|| world.logs())?;
        for address in &addresses {
            eventually("an answer", 10, || async { Ok(world.curl(*address).ok()) }).await?;
        }
        Ok((Self { world, addresses, moved: if router { 2 } else { 0 } }, bird))
    }

    /// Rolls it out while clients connect, until addresses are where pods are, as `has` says of one of them.
    async fn roll(&self, has: impl Fn(IpAddr, &BTreeSet<String>) -> Result<bool>) -> Result<()> {
        let Self { world, addresses, .. } = self;
        let follows = || async {
            let pods = nodes(world)?;
            let all: Vec<bool> =
                addresses.iter().map(|address| has(*address, &pods)).collect::<Result<_>>()?;
            Ok((pods.len() == 2 && all.into_iter().all(|has| has)).then_some(()))
        };
        eventually("addresses where pods are", 10, follows).await.with_context(|| world.logs())?;
        // Each of both addresses is asked half of it.
        let (every, lasts) = match is_soak() {
            true => (Duration::from_millis(2), Duration::from_secs(120)),
            false => (Duration::from_millis(20), Duration::ZERO),
        };
        let client = world.lab.outside();
        let of = |address: &_| {
            Probe::start(&client, SocketAddr::new(*address, 80), every, Manner::NewConnections)
        };
        let clients: Vec<Probe> = addresses.iter().map(of).collect::<Result<_>>()?;
        let (began, mut rollouts) = (Instant::now(), 0);
        while rollouts == 0 || began.elapsed() < lasts {
            kubectl(&world.lab, &["rollout", "restart", "deployment/rolling"])?;
            apply::rolled_out(&world.lab.client(), "default", "rolling").await?;
            eventually("addresses where pods are", 20, follows)
                .await
                .with_context(|| world.logs())?;
            rollouts += 1;
        }
        let mut answered = 0;
        for (client, address) in clients.into_iter().zip(addresses) {
            let seen = client.finish()?;
            let moved = seen.count(Failure::Reset) + seen.count(Failure::Unanswered);
            let lost = seen.failed.len() - moved;
            ensure!(
                lost == 0 && moved <= self.moved * rollouts,
                "{address}: {lost} lost and {moved} broken of {} in {rollouts} rollouts: {seen:?}\n{}",
                seen.ok,
                world.logs()
            );
            answered += seen.ok;
        }
        println!("{answered} connections through {rollouts} rollouts, none lost");
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn by_bgp_a_deployment_is_rolled_out_anew_and_nobody_who_connects_is_lost() -> Result<()> {
    let environment = by_bgp(&format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4));
    let (scene, bird) = Scene::up(POOL, environment, true).await?;
    let bird = bird.context("a router")?;
    let leads = |address, pods: &BTreeSet<String>| {
        Ok(bird.knows(address)? == pods.iter().map(|node| protocol(node)).collect())
    };
    scene.roll(leads).await
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_lan_a_deployment_is_rolled_out_anew_and_nobody_who_connects_is_lost() -> Result<()> {
    let (scene, _) =
        Scene::up("10.0.64.1-10.0.64.9,fd00:10::4001-fd00:10::4009", env([]), false).await?;
    let has = |address, pods: &BTreeSet<String>| {
        let holders = scene.world.holders(address)?;
        Ok(holders.len() == 1 && holders.iter().all(|node| pods.contains(node)))
    };
    scene.roll(has).await
}
