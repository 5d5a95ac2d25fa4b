//! A Deployment that is rolled out anew behind `externalTrafficPolicy: Local`: each node announces by its own endpoints, and who
//! connects meanwhile is served.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::router;
use berth_e2e::apply;
use berth_e2e::bird::{Bird, protocol};
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::world::{World, eventually, kubectl};
use serde_json::json;

use super::{POOL, by_bgp};
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

/// The nodes of its pods that are not being ended, as BIRD calls them.
fn nodes(world: &World) -> Result<BTreeSet<String>> {
    let path = "jsonpath={range .items[*]}{.metadata.deletionTimestamp}/{.spec.nodeName} {end}";
    let said = kubectl(&world.lab, &["get", "pods", "-l", "app=rolling", "-o", path])?;
    let staying = said.split_whitespace().filter_map(|pod| pod.strip_prefix('/'));
    Ok(staying.map(protocol).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_is_rolled_out_anew_and_nobody_who_connects_is_lost() -> Result<()> {
    let environment = by_bgp(&format!("{}:65001/mpbgp_nexthop=auto_sourceip", router().v4));
    let mut world = World::up(2, environment).await?;
    world.pools(json!({ "range-global": POOL })).await?;
    world.start_announcer(2).await?;
    let bird = Bird::start(&world.lab, 65000, "")?;
    apply::create(&world.lab.client(), DEPLOYMENT, "default").await?;
    apply::rolled_out(&world.lab.client(), "default", "rolling").await?;
    let spec = json!({
        "selector": { "app": "rolling" }, "ipFamilyPolicy": "RequireDualStack", "externalTrafficPolicy": "Local",
    });
    world.expose("rolling", spec).await?;
    let addresses = world.published("rolling", 2).await.with_context(|| bird.log())?;
    let leads_to_pods = || async {
        let pods = nodes(&world)?;
        let known: Vec<BTreeSet<String>> =
            addresses.iter().map(|address| bird.knows(*address)).collect::<Result<_>>()?;
        Ok((pods.len() == 2 && known.iter().all(|known| *known == pods)).then_some(()))
    };
    eventually("ways to the nodes with pods alone", 10, leads_to_pods).await?;
    for address in &addresses {
        eventually("an answer", 10, || async { Ok(world.curl(*address).ok()) }).await?;
    }

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
    loop {
        kubectl(&world.lab, &["rollout", "restart", "deployment/rolling"])?;
        apply::rolled_out(&world.lab.client(), "default", "rolling").await?;
        eventually("ways to the nodes with pods alone", 20, leads_to_pods).await?;
        rollouts += 1;
        if began.elapsed() >= lasts {
            break;
        }
    }
    let mut answered = 0;
    for (client, address) in clients.into_iter().zip(&addresses) {
        let seen = client.finish()?;
        let lost = seen.failed.len();
        ensure!(
            lost == 0,
            "{address}: {lost} lost of {} in {rollouts} rollouts: {seen:?}\n{}",
            seen.ok,
            world.logs()
        );
        answered += seen.ok;
    }
    println!("{answered} connections through {rollouts} rollouts, none lost");
    Ok(())
}
