//! What the CCM promises about claims, with the process killed where it hurts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::{DeleteParams, ListParams};
use kube::{Api, ResourceExt};
use serde_json::json;

use berth_e2e::world::{World, annotated, env, eventually};

const SERVICES: usize = 200;

#[tokio::test(flavor = "multi_thread")]
async fn a_ccm_killed_in_the_middle_gives_no_address_twice_and_leaks_none() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "cidr-global": "10.0.64.0/22" })).await?;
    let service = |n: usize| {
        json!({
            "metadata": { "name": format!("s{n}") },
            "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }], "selector": { "app": "none" } },
        })
    };
    let create = stream::iter(0..SERVICES).map(|n| world.create(service(n))).buffer_unordered(16);
    create.try_collect::<Vec<_>>().await?;
    // It finds all of them waiting, so that there is something left to do when it is killed.
    world.start_ccm().await?;

    let (mut kills, mut at_last_kill) = (0, 0);
    loop {
        let served = addresses(&world).await?.len();
        if served == SERVICES {
            break;
        }
        // Each life gets something done, or a fast killer would prove nothing.
        if kills < 20 && served > at_last_kill {
            world.ccm()?.kill()?;
            (kills, at_last_kill) = (kills + 1, served);
            world.start_ccm().await?;
        }
        ensure!(world.ccm()?.is_alive(), "the CCM ended: {}", world.ccm()?.log_tail());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    ensure!(kills > 0, "all were served before the CCM could be killed");
    agree(&world, SERVICES).await?;
    println!("{SERVICES} Services served over {kills} kills: no address twice");

    let delete = DeleteParams::default();
    world
        .services("default")
        .delete_collection(&delete, &ListParams::default().labels("implementation=kube-vip"))
        .await?;
    eventually("half of the Services gone", 20, || async {
        Ok((addresses(&world).await?.len() < SERVICES / 2).then_some(()))
    })
    .await?;
    world.ccm()?.kill()?;
    world.start_ccm().await?;
    eventually("every claim released", 30, || async {
        Ok((world.claims().await?.is_empty() && addresses(&world).await?.is_empty()).then_some(()))
    })
    .await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn assigned_addresses_survive_a_restart_and_a_pool_edit() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.4" })).await?;
    world.start_ccm().await?;
    for n in 0..3 {
        let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
        world.create(json!({ "metadata": { "name": format!("s{n}") }, "spec": spec })).await?;
    }
    let three = || async {
        let held = addresses(&world).await?;
        Ok((held.len() == 3).then_some(held))
    };
    let before = eventually("three addresses", 15, three).await?;
    world.pools(json!({ "range-global": "10.0.65.1-10.0.65.4" })).await?;
    world.ccm()?.terminate(Duration::from_secs(10))?;
    world.start_ccm().await?;
    world.create(json!({ "metadata": { "name": "s3" }, "spec": { "type": "LoadBalancer", "ports": [{ "port": 80 }] } })).await?;
    let after = eventually("a fourth address", 30, || async {
        let held = addresses(&world).await?;
        Ok((held.len() == 4).then_some(held))
    })
    .await?;
    for (name, address) in &before {
        ensure!(after[name] == *address, "{name} moved from {address} to {}", after[name]);
    }
    ensure!(after["s3"] == "10.0.65.1", "{after:?}");
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_rests_goes_on_resting_after_a_restart() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9", "reuse-delay": "1h" })).await?;
    world.start_ccm().await?;
    let service = |name: &str| {
        let spec = json!({ "type": "LoadBalancer", "ports": [{ "port": 80 }] });
        json!({ "metadata": { "name": name }, "spec": spec })
    };
    world.create(service("first")).await?;
    eventually("an address", 15, || async { Ok(addresses(&world).await?.pop_first()) }).await?;
    world.delete("first").await?;
    eventually("the claim given back", 15, || async {
        Ok(world.claims().await?.is_empty().then_some(()))
    })
    .await?;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    eventually("the rest written down", 15, || async {
        let lease = leases.get("kube-vip-cloud-controller").await?;
        let text = lease.annotations().get("berth.dev/resting").cloned().unwrap_or_default();
        Ok(text.contains("10.0.64.1").then_some(()))
    })
    .await?;
    world.ccm()?.kill()?;
    world.start_ccm().await?;
    world.create(service("second")).await?;
    let held = eventually("an address after the restart", 40, || async {
        Ok(addresses(&world).await?.pop_first())
    })
    .await?;
    ensure!(held.1 == "10.0.64.2", "{held:?}: 10.0.64.1 rests");
    world.lab.down()
}

/// The annotated address of each Service that has one.
async fn addresses(world: &World) -> Result<BTreeMap<String, String>> {
    let list = world.services("default").list(&ListParams::default()).await?;
    let held = list
        .iter()
        .filter_map(|service| Some((service.name_any(), annotated(service).first()?.to_string())));
    Ok(held.collect())
}

/// Every Service has an address of its own, and the claims are exactly those, each by the right owner.
pub(super) async fn agree(world: &World, count: usize) -> Result<()> {
    let held = addresses(world).await?;
    let distinct: BTreeSet<_> = held.values().collect();
    ensure!(
        held.len() == count && distinct.len() == count,
        "{} Services, {} addresses",
        held.len(),
        distinct.len()
    );
    eventually("claims and annotations agree", 10, || async {
        let claims = world.claims().await?;
        let owners: BTreeMap<_, _> = claims
            .iter()
            .filter_map(|(address, claim)| {
                let parent = claim.spec.as_ref()?.parent_ref.clone();
                Some((parent.name, address.clone()))
            })
            .collect();
        Ok((owners == held && claims.len() == count).then_some(()))
    })
    .await
}
