//! From a Service to an answering address, and back to nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use berth_e2e::world::{ADDRESSES, HOST, World, annotated, env, eventually, ingress};

use super::conflict::event;
use crate::scene::answers_now;
use crate::unannounced::{events, says};

const IGNORE: &str = "kube-vip.io/ignore";

/// Everything that was taken is given back within this time.
const GONE_WITHIN: u64 = 5;

#[tokio::test(flavor = "multi_thread")]
async fn an_exposed_service_answers_from_the_moment_its_status_appears() -> Result<()> {
    let world = World::up(3, env([])).await?;
    let families = [
        ("four", json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv4"] }), 1),
        ("six", json!({ "ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"] }), 1),
        (
            "dual",
            json!({ "ipFamilyPolicy": "RequireDualStack", "ipFamilies": ["IPv6", "IPv4"] }),
            2,
        ),
    ];
    for (name, spec, count) in families {
        let start = Instant::now();
        world.expose(name, spec).await?;
        let addresses = world.published(name, count).await?;
        let shown = start.elapsed();
        for address in &addresses {
            for attempt in 1..=50 {
                let told = || format!("{name}: {attempt} of 50 to {address}");
                answers_now(&world, *address).await.with_context(told)?;
            }
            // A node that suspects the owner makes itself ready, silently, and clears up afterwards.
            eventually(&format!("{address} on its host alone"), 10, || async {
                Ok((world.holders(*address)? == [world.host(name).await?]).then_some(()))
            })
            .await?;
        }
        let service = world.service(name).await?;
        ensure!(
            annotated(&service) == addresses,
            "{name}: annotation and status differ: {service:?}"
        );
        for entry in
            service.status.iter().flat_map(|s| &s.load_balancer).flat_map(|l| &l.ingress).flatten()
        {
            ensure!(entry.ip_mode.as_deref() == Some("VIP"), "{name}: {entry:?}");
            let ports = entry.ports.as_deref().unwrap_or_default();
            ensure!(
                ports.len() == 1 && ports[0].port == 80 && ports[0].protocol == "TCP",
                "{name}: {entry:?}"
            );
        }
        println!("{name}: status after {shown:.0?}, 50 of 50 requests to each of {addresses:?}");
    }
    let claims = world.claims().await?;
    ensure!(claims.len() == 4, "claims: {:?}", claims.keys());
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_service_leaves_nothing_behind() -> Result<()> {
    let world = World::up(2, env([("svc_election", "true")])).await?;
    for name in ["idle", "kept"] {
        world.expose(name, json!({ "selector": { "app": "nobody" } })).await?;
    }
    world.expose("web", json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    let addresses = world.published("web", 2).await?;
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "default");
    let lease = leases.get("kubevip-web").await?;
    ensure!(
        lease.spec.and_then(|spec| spec.holder_identity) == Some(world.host("web").await?),
        "another holder"
    );
    nothing_is_said_of_what_is_not_ours(&world).await?;

    world.delete("web").await?;
    let start = Instant::now();
    eventually("nothing left of web", GONE_WITHIN, || async {
        let gone = world.services("default").get_opt("web").await?.is_none()
            && world.claims().await?.is_empty()
            && leases.get_opt("kubevip-web").await?.is_none()
            && addresses
                .iter()
                .all(|address| world.holders(*address).is_ok_and(|holders| holders.is_empty()));
        Ok(gone.then_some(()))
    })
    .await?;
    println!("nothing left {:.0?} after the deletion", start.elapsed());
    world.lab.down()
}

/// Nobody has a Lease of what has no endpoint, and so no node decides: one says why it is not announced, of `idle` that is
/// ignored then, and of `kept` that is deleted and held by somebody's finalizer. Neither goes on to say so.
async fn nothing_is_said_of_what_is_not_ours(world: &World) -> Result<()> {
    for name in ["idle", "kept"] {
        says(world, name, Some("NoEndpoint"), 5).await.with_context(|| world.logs())?;
        event(world, name, "NoEndpoint", &["no endpoint"]).await?;
        ensure!(events(world, name, "NoEndpoint").await? == 1, "by each node\n{}", world.logs());
    }
    let mut finalizers = world.service("kept").await?.finalizers().to_vec();
    finalizers.push("example.org/kept".to_owned());
    world.patch("kept", json!({ "metadata": { "finalizers": finalizers } })).await?;
    world.delete("kept").await?;
    let ignored = |is: Option<&str>| json!({ "metadata": { "annotations": { IGNORE: is } } });
    world.patch("idle", ignored(Some("true"))).await?;
    for (name, within) in [("idle", 3), ("kept", 5)] {
        says(world, name, None, within).await.with_context(|| world.logs())?;
    }
    world.patch("kept", json!({ "metadata": { "finalizers": null } })).await?;
    world.patch("idle", ignored(None)).await?;
    world.delete("idle").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_no_load_balancer_any_more_gives_its_address_back() -> Result<()> {
    let world = World::up(2, env([])).await?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    // The API server clears `spec.loadBalancerIP` and the status only where the writer asks for it.
    world.patch("web", json!({ "spec": { "type": "ClusterIP" } })).await?;
    eventually("the address given back", GONE_WITHIN, || async {
        let service = world.service("web").await?;
        let clean = !service.annotations().contains_key(ADDRESSES)
            && !service.annotations().contains_key(HOST)
            && service.finalizers().is_empty()
            && ingress(&service).is_empty()
            && world.claims().await?.is_empty()
            && world.holders(address)?.is_empty();
        Ok(clean.then_some(()))
    })
    .await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_is_announced_only_while_an_endpoint_is_ready() -> Result<()> {
    let world = World::up(2, env([])).await?;
    world.expose("web", json!({})).await?;
    let address = world.published("web", 1).await?[0];
    let scale = async |replicas: usize| {
        let api: Api<k8s_openapi::api::apps::v1::Deployment> =
            Api::namespaced(world.client.clone(), "default");
        api.patch(
            "hello",
            &PatchParams::default(),
            &Patch::Merge(json!({ "spec": { "replicas": replicas } })),
        )
        .await
    };
    scale(0).await?;
    eventually("the address withdrawn", 10, || async {
        let withdrawn =
            ingress(&world.service("web").await?).is_empty() && world.holders(address)?.is_empty();
        Ok(withdrawn.then_some(()))
    })
    .await?;
    ensure!(
        annotated(&world.service("web").await?) == [address],
        "the address must stay the Service's"
    );
    scale(1).await?;
    let again = world.published("web", 1).await?;
    ensure!(again == [address], "{again:?}");
    eventually("an answer", 10, || async { Ok(world.curl(address).ok()) }).await?;
    event(&world, "web", "Announced", &["answered for"]).await?;
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_deprecated_field_is_read_where_the_annotation_is_missing() -> Result<()> {
    // Without a CCM: what an old allocator left must be announced.
    let mut world = World::without_berth(2, env([])).await?;
    for node in 0..2 {
        world.start_announcer(node).await?;
    }
    world.deploy("default", "hello", 2)?;
    world.expose("old", json!({ "loadBalancerIP": "10.0.64.77" })).await?;
    let addresses = world.published("old", 1).await?;
    ensure!(addresses[0].to_string() == "10.0.64.77", "{addresses:?}");
    eventually("an answer", 5, || async { Ok(world.curl(addresses[0]).ok()) }).await?;
    tokio::time::timeout(Duration::from_secs(1), world.delete("old")).await??;
    world.lab.down()
}
