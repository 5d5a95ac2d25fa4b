//! Faults of pools and of the way to the API server, judged by what the API server has.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Client;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use super::bad_input::event;
use super::flaws::{balancer, holds, told};
use berth_e2e::api_proxy::{ApiProxy, Seen, Trouble};
use berth_e2e::world::{World, annotated, env, eventually};

/// Where all Services and all claims are listed and watched.
const PATHS: [&str; 2] = ["/api/v1/services", "/apis/networking.k8s.io/v1/ipaddresses"];
const CONDITION: &str = "berth.dev/AddressAllocated";

/// Fault 11: a pool shrinks under assigned addresses. They stay, and the condition says where they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_shrinks_keeps_what_is_assigned_and_sets_the_condition() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    world.start_ccm().await?;
    for (name, address) in [("first", "10.0.64.1"), ("second", "10.0.64.2")] {
        world.create(balancer("default", name, json!({}))).await?;
        holds(&world, "default", name, &[address]).await?;
    }
    world.pools(json!({ "range-global": "10.0.64.2-10.0.64.9" })).await?;
    told(&world, "default", "first", "OutsidePool").await?;
    condition(&world, "first", "True", "OutsidePool").await?;
    holds(&world, "default", "first", &["10.0.64.1"]).await?;
    holds(&world, "default", "second", &["10.0.64.2"]).await?;
    let conditions = world.service("second").await?.status.and_then(|status| status.conditions);
    ensure!(conditions.unwrap_or_default().is_empty(), "second is where it was");

    // The condition goes with its cause.
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    condition(&world, "first", "True", "AddressAllocated").await?;
    holds(&world, "default", "first", &["10.0.64.1"]).await?;
    world.lab.down()
}

/// Fault 12: the ConfigMap is garbage, its pools overlap, it is deleted. The last good values stay, an Event says so
/// within 2 s, nothing is released.
#[tokio::test(flavor = "multi_thread")]
async fn a_configmap_of_garbage_or_none_releases_nothing() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    world.start_ccm().await?;
    let mut held = BTreeMap::new();
    let serve_one_more = async |held: &mut BTreeMap<String, String>, world: &World| {
        let name = format!("s{}", held.len());
        world.create(balancer("default", &name, json!({}))).await?;
        let address = format!("10.0.64.{}", held.len() + 1);
        holds(world, "default", &name, &[&address]).await?;
        held.insert(name, address);
        for (name, address) in held.iter() {
            holds(world, "default", name, &[address]).await?;
        }
        ensure!(world.claims().await?.len() == held.len(), "nothing else is claimed");
        anyhow::Ok(())
    };
    serve_one_more(&mut held, &world).await?;

    let garbage = "\u{1F980} 10.0.64.1-";
    world.pools(json!({ "range-global": garbage, "reuse-delay": "soon" })).await?;
    let edited = Instant::now();
    event(&world, "kube-system", "ConfigMap", "kubevip", &["range-global", garbage]).await?;
    event(&world, "kube-system", "ConfigMap", "kubevip", &["reuse-delay", "soon"]).await?;
    let took = edited.elapsed();
    ensure!(took < Duration::from_secs(2), "the Events came after {took:?}");
    serve_one_more(&mut held, &world).await?;

    // Pools that overlap, with each other and with what is assigned.
    let overlap = json!({ "range-global": "10.0.64.1-10.0.64.9", "cidr-other": "10.0.64.0/28" });
    world.pools(overlap).await?;
    serve_one_more(&mut held, &world).await?;

    let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), "kube-system");
    maps.delete("kubevip", &DeleteParams::default()).await?;
    serve_one_more(&mut held, &world).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.9" })).await?;
    serve_one_more(&mut held, &world).await?;
    world.lab.down()
}

/// Fault 13: half of the requests are answered 429, all of them after 500 ms. The Lease keeps its owner, and what is
/// asked for meanwhile converges: mostly within 10 s, but whoever is refused seven times in a row needs longer.
#[tokio::test(flavor = "multi_thread")]
async fn a_busy_and_slow_api_server_costs_no_lease_and_no_promise() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.99" })).await?;
    let proxy = ApiProxy::start(&world.lab).await?;
    let mut ccms = Vec::new();
    for identity in ["--identity=one", "--identity=two"] {
        ccms.push(world.start_another_ccm(&proxy.url(), &[identity]).await?);
    }
    world.create(balancer("default", "before", json!({}))).await?;
    holds(&world, "default", "before", &["10.0.64.1"]).await?;
    let leader = lease(&world.client).await?;

    let slow = Duration::from_millis(500);
    proxy.make(Trouble { latency: slow, busy_one_in: 2, ..Trouble::default() });
    let start = Instant::now();
    for n in 0..5 {
        world.create(balancer("default", &format!("s{n}"), json!({}))).await?;
    }
    served(&world, 6, 20).await?;
    println!("five Services served in {:.1?}", start.elapsed());
    // Longer than a Lease of 15 s lasts without its renewal.
    while start.elapsed() < Duration::from_secs(20) {
        let now = lease(&world.client).await?;
        ensure!(now == leader, "the Lease went from {leader:?} to {now:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let refused = proxy.seen().iter().filter(|seen| seen.code == 429).count();
    ensure!(refused > 10, "only {refused} requests were refused");

    proxy.make(Trouble::default());
    for n in 0..6 {
        let name = if n == 5 { "before".to_owned() } else { format!("s{n}") };
        world.delete(&name).await?;
    }
    eventually("every claim released", 10, || async {
        Ok(world.claims().await?.is_empty().then_some(()))
    })
    .await?;
    for ccm in ccms {
        ensure!(ccm.is_alive(), "it ended: {}", ccm.log_tail());
    }
    world.lab.down()
}

/// Fault 14: watches are closed, end with 410 Gone, or show events twice and old ones again. Everything is listed anew
/// within 5 s, nothing is written that need not be, and what was deleted meanwhile is noticed.
#[tokio::test(flavor = "multi_thread")]
async fn watches_that_end_expire_and_repeat_themselves_cost_no_write() -> Result<()> {
    let mut world = World::without_berth(1, env([])).await?;
    world.pools(json!({ "range-global": "10.0.64.1-10.0.64.99", "reuse-delay": "0s" })).await?;
    let proxy = ApiProxy::start(&world.lab).await?;
    let ccm = world.start_another_ccm(&proxy.url(), &["--leader-elect=false"]).await?;
    world.create(balancer("default", "s0", json!({}))).await?;
    served(&world, 1, 15).await?;

    // Each event twice and an old one behind it: as many writes as without.
    proxy.make(Trouble { repeats: true, ..Trouble::default() });
    let before = proxy.seen().len();
    proxy.close_watches();
    watched(&proxy, before).await?;
    let before = proxy.seen().len();
    for n in 1..10 {
        world.create(balancer("default", &format!("s{n}"), json!({}))).await?;
        served(&world, n + 1, 15).await?;
    }
    world.delete("s9").await?;
    served(&world, 9, 15).await?;
    eventually("s9 let go", 15, || async {
        Ok(world.services("default").get_opt("s9").await?.is_none().then_some(()))
    })
    .await?;
    let spent = &proxy.seen()[before..];
    let spent: Vec<_> = spent.iter().filter(|seen| is_counted(seen)).collect();
    ensure!(spent.len() == 9 * 2 + 2, "{} writes: {spent:#?}", spent.len());

    // As a running watch ends, and as a new one is refused.
    proxy.make(Trouble::default());
    for how in ["expired", "forgotten"] {
        let before = proxy.seen().len();
        match how {
            "expired" => proxy.expire_watches(),
            _ => {
                proxy.forget();
                proxy.close_watches();
            }
        }
        relisted(&proxy, before, how).await?;
        // What is not watched again yet would not be forgotten next.
        watched(&proxy, before).await?;
        let written: Vec<Seen> = proxy.seen().split_off(before);
        let written: Vec<_> = written.into_iter().filter(is_counted).collect();
        ensure!(written.is_empty(), "{how}: {written:#?}");
    }

    // Gone while nobody looked, and with the finalizer taken off: only its claim is left to tell of it.
    proxy.make(Trouble { is_cut: true, ..Trouble::default() });
    proxy.close_watches();
    let address = annotated(&world.service("s3").await?)[0].to_string();
    world.delete("s3").await?;
    world.patch("s3", json!({ "metadata": { "finalizers": null } })).await?;
    proxy.forget();
    let before = proxy.seen().len();
    proxy.make(Trouble::default());
    relisted(&proxy, before, "cut").await?;
    eventually("the claim of s3 released", 10, || async {
        Ok((!world.claims().await?.contains_key(&address)).then_some(()))
    })
    .await?;
    served(&world, 8, 5).await?;
    ensure!(ccm.is_alive(), "it ended: {}", ccm.log_tail());
    world.lab.down()
}

/// Whether it writes anything but that nobody announces a Service, which a slow run comes to: there is no announcer.
fn is_counted(seen: &Seen) -> bool {
    seen.is_write() && !seen.path.ends_with("/status")
}

/// Waits until the condition of a Service has this status and reason.
async fn condition(world: &World, name: &str, status: &str, reason: &str) -> Result<()> {
    eventually(&format!("condition {status} {reason} on {name}"), 10, || async {
        let conditions = world.service(name).await?.status.and_then(|status| status.conditions);
        let shown = conditions.into_iter().flatten().find(|shown| shown.type_ == CONDITION);
        Ok(shown.filter(|shown| shown.status == status && shown.reason == reason).map(drop))
    })
    .await
}

/// Waits until so many Services have an address each, and as many claims are there.
async fn served(world: &World, count: usize, seconds: u64) -> Result<()> {
    eventually(&format!("{count} Services served"), seconds, || async {
        let list = world.services("default").list(&ListParams::default()).await?;
        let held = list.iter().filter(|service| !annotated(service).is_empty()).count();
        Ok((held == count && world.claims().await?.len() == count).then_some(()))
    })
    .await
}

/// Who holds the Lease, and how often it has changed hands.
async fn lease(client: &Client) -> Result<(Option<String>, Option<i32>)> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), "kube-system");
    let spec =
        leases.get("kube-vip-cloud-controller").await?.spec.context("a Lease without spec")?;
    Ok((spec.holder_identity, spec.lease_transitions))
}

/// Waits until Services and claims are watched anew.
async fn watched(proxy: &ApiProxy, before: usize) -> Result<()> {
    eventually("watched anew", 10, || async {
        let seen = proxy.seen().split_off(before);
        let is_watched = |path: &&str| {
            seen.iter().any(|seen| seen.is_watch && seen.code == 200 && seen.path == **path)
        };
        Ok(PATHS.iter().all(is_watched).then_some(()))
    })
    .await
}

/// Waits until Services and claims have been listed since `before`, and watches them, within 5 s.
async fn relisted(proxy: &ApiProxy, before: usize, how: &str) -> Result<()> {
    eventually(&format!("{how}: listed anew"), 5, || async {
        let seen = proxy.seen().split_off(before);
        let listed = |path: &&str| {
            let lists = seen.iter().filter(|seen| !seen.is_watch && seen.path == **path);
            lists.filter(|seen| seen.code == 200).count() > 0
        };
        Ok(PATHS.iter().all(listed).then_some(()))
    })
    .await
}
