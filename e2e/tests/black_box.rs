//! What a user does with `manifests/` and the first example, on whichever cluster `BERTH_E2E_CLUSTER` names.
//!
//! Nothing here knows of the lab: only kubectl, commands on the nodes, and a host beside them. `BERTH_E2E_MANIFESTS` names
//! another folder than `manifests`.

#![allow(clippy::unwrap_used)]

use std::{env, net::IpAddr, path::Path, time::Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::{
    cluster::{self, Cluster},
    diagnosis,
    world::{eventually, ingress, repository},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_example_works_and_uninstalling_leaves_nothing() -> Result<()> {
    let start = Instant::now();
    let cluster = cluster::from_env().await?;
    println!("cluster there after {:.1?}", start.elapsed());
    let outcome = first_example(&*cluster, start).await;
    if outcome.is_err() {
        eprintln!("{}", diagnosis::of(&*cluster));
    }
    outcome?;
    cluster.finish()
}

async fn first_example(cluster: &dyn Cluster, start: Instant) -> Result<()> {
    let folder = env::var("BERTH_E2E_MANIFESTS").unwrap_or_else(|_| "manifests".into());
    let manifests = text(&repository().join(folder));
    cluster.run_kubectl(&["apply", "-k", &manifests])?;
    rolled_out(cluster)?;
    // A run that failed leaves these in a cluster that is used again; berth-ccm has to run for them to go.
    remove_example(cluster)?;
    println!("our pods Ready after {:.1?}", start.elapsed());

    let (first, last) = (cluster.free(1), cluster.free(99));
    let example = repository().join("examples/01-expose");
    let read =
        |name: &str| std::fs::read_to_string(example.join(name)).with_context(|| name.to_owned());
    let pools = read("pools.yaml")?
        .replace("192.0.2.100-192.0.2.199", &format!("{}-{}", first.v4, last.v4))
        .replace("2001:db8::1:100-2001:db8::1:1ff", &format!("{}-{}", first.v6, last.v6));
    cluster.apply(&pools)?;
    cluster.apply(&read("deployment.yaml")?)?;
    cluster.run_kubectl(&["rollout", "status", "deployment/hello", "--timeout=90s"])?;
    let expose =
        ["expose", "deployment", "hello", "--type=LoadBalancer", "--port=80", "--target-port=8080"];
    cluster.run_kubectl(&expose)?;
    cluster.apply(&read("service-dual-stack.yaml")?)?;

    let mut all = Vec::new();
    for (name, count) in [("hello", 1), ("hello-dual", 2)] {
        let addresses = eventually(&format!("{count} addresses of {name}"), 30, || async {
            let addresses = addresses(cluster, name)?;
            Ok((addresses.len() == count).then_some(addresses))
        })
        .await?;
        for address in addresses {
            for attempt in 1..=50 {
                cluster
                    .curl(address)
                    .with_context(|| format!("{name}: request {attempt} of 50"))?;
            }
            // A node that suspects the owner makes itself ready, silently, and clears up afterwards.
            eventually(&format!("{address} on one node"), 10, || async {
                Ok((cluster.holders(address)?.len() == 1).then_some(()))
            })
            .await?;
            all.push(address);
        }
    }

    let restart = ["-n", "kube-system", "rollout", "restart", "daemonset/berth-announcer"];
    cluster.run_kubectl(&restart)?;
    rolled_out(cluster)?;
    for address in &all {
        eventually(&format!("one node with {address}"), 30, || async {
            let one = cluster.holders(*address)?.len() == 1;
            Ok((one && cluster.curl(*address).is_ok()).then_some(()))
        })
        .await?;
    }

    remove_example(cluster)?;
    cluster.run_kubectl(&["delete", "-k", &manifests, "--timeout=60s"])?;
    for address in all {
        let holders = cluster.holders(address)?;
        ensure!(holders.is_empty(), "{address} is still on {holders:?}");
    }
    Ok(())
}

fn remove_example(cluster: &dyn Cluster) -> Result<()> {
    let absent = "--ignore-not-found";
    cluster.run_kubectl(&["delete", "service", "hello", "hello-dual", absent, "--timeout=20s"])?;
    cluster.run_kubectl(&["delete", "deployment", "hello", absent, "--timeout=60s"])?;
    Ok(())
}

fn rolled_out(cluster: &dyn Cluster) -> Result<()> {
    for object in ["daemonset/berth-announcer", "statefulset/berth-ccm"] {
        cluster.run_kubectl(&[
            "-n",
            "kube-system",
            "rollout",
            "status",
            object,
            "--timeout=120s",
        ])?;
    }
    Ok(())
}

fn addresses(cluster: &dyn Cluster, service: &str) -> Result<Vec<IpAddr>> {
    let text = cluster.run_kubectl(&["get", "service", service, "-o", "json"])?;
    Ok(ingress(&serde_json::from_str(&text)?))
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
