//! Whether the status is true: an address stands there when it answers and not when it does not, and nobody fights over
//! it. Judged by the API server's watch, by frames on the LAN, and by requests of the client.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::pin::pin;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::addresses::Net;
use berth_e2e::pauses;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::events::v1::Event;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;

use berth_e2e::world::{HOST, World, env, eventually, ingress};

use crate::scene::{PATIENCE, Scene, answers_now};

/// A status is empty within this time from when no node answers: it is five seconds until nobody's silence is chance.
const EMPTY: Duration = Duration::from_secs(8);
/// And there again within this time from when they may.
const AGAIN: Duration = Duration::from_secs(5);

/// How many Services appear at once.
const MANY: usize = 20;

#[tokio::test(flavor = "multi_thread")]
async fn each_of_many_addresses_answers_at_the_moment_its_status_appears() -> Result<()> {
    let world = World::up(3, env([])).await?;
    let wire = world.lab.watch()?;
    let seen = tokio::spawn({
        let services = world.services("default");
        async move {
            // Each by itself: endpoints of one family may be known a moment before those of the other.
            let mut seen: BTreeMap<IpAddr, Instant> = BTreeMap::new();
            let mut events = pin!(watcher(services, watcher::Config::default()).applied_objects());
            while seen.len() < MANY * 2 {
                let service: Service = events.try_next().await?.context("the watch ended")?;
                for address in ingress(&service) {
                    seen.entry(address).or_insert_with(Instant::now);
                }
            }
            anyhow::Ok(seen)
        }
    });
    for n in 0..MANY {
        world.expose(&format!("s{n}"), json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
    }
    let seen = tokio::time::timeout(Duration::from_secs(60), seen).await???;
    let record = wire.finish()?;
    for (address, at) in &seen {
        // Announced before, on the wire, which is how another host learns it.
        let first = record.0.iter().find(|sighting| sighting.address == *address);
        let first = first.with_context(|| format!("nobody spoke for {address}"))?.at;
        ensure!(first <= *at, "{address} was shown {:?} before", first - *at);
    }
    // And it answers, also the first request after the sight of it.
    for n in 0..3 {
        let name = format!("late{n}");
        world.expose(&name, json!({ "ipFamilyPolicy": "RequireDualStack" })).await?;
        for address in world.published(&name, 2).await? {
            let asked = Instant::now();
            answers_now(&world, address).await.with_context(|| name.clone())?;
            println!("{address}: answered {:.0?} after its status", asked.elapsed());
        }
    }
    world.lab.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_goes_when_no_node_answers_and_comes_back() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let lab = &scene.world.lab;
    type Do = fn(&berth_e2e::lab::Lab, usize) -> Result<()>;
    let faults: [(&str, Do, Do); 2] = [
        ("cut from the LAN", |lab, i| lab.cut(i, Net::Lan), |lab, i| lab.heal(i, Net::Lan)),
        ("without a link", |lab, i| lab.unplug(i, Net::Lan), |lab, i| lab.plug(i, Net::Lan)),
    ];
    for (what, end, mend) in faults {
        let start = Instant::now();
        (0..scene.nodes).try_for_each(|i| end(lab, i))?;
        eventually("no address in the status", 30, || async {
            let service = scene.world.service("web").await?;
            let host = service.annotations().contains_key(HOST);
            Ok((ingress(&service).is_empty() && !host).then_some(()))
        })
        .await
        .with_context(|| scene.world.logs())?;
        let (empty, told) = (start.elapsed(), format!("all nodes {what}: status empty after"));
        pauses::within(&told, empty, EMPTY, start).with_context(|| scene.world.logs())?;
        let healed = Instant::now();
        (0..scene.nodes).try_for_each(|i| mend(lab, i))?;
        let shown = scene.world.published("web", 2).await?;
        for address in &shown {
            eventually("an answer", 10, || async { Ok(scene.world.curl(*address).ok()) }).await?;
        }
        pauses::within("healed: served again after", healed.elapsed(), AGAIN, healed)
            .with_context(|| scene.world.logs())?;
        ensure!(shown == scene.addresses, "{shown:?}");
        scene.settled().await?;
        scene.one_at_a_time(&scene.wire.so_far(), start)?;
    }
    scene.down()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_writer_of_a_status_is_told_of_and_not_fought() -> Result<()> {
    let scene = Scene::up(3, env([])).await?;
    let (held, start) = (scene.held()?, Instant::now());
    let api: Api<Service> = scene.world.services("default");
    let theirs = json!({
        "metadata": { "annotations": { HOST: "elsewhere" } },
        "status": { "loadBalancer": { "ingress": [{ "ip": "192.0.2.200" }] } },
    });
    let mut fought = 0;
    // It corrects what it sees, as a controller does.
    while start.elapsed() < Duration::from_secs(10) {
        if ingress(&api.get("web").await?) == scene.addresses {
            fought += 1;
            let patch = Patch::Merge(&theirs);
            api.patch_status("web", &PatchParams::default(), &patch).await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    println!("in 10 s the other one had to correct {fought} times");
    scene.moved_times(0, start)?;
    // What moves in a pause of the machine is the next owner's to correct, which begins to count anew.
    let undisturbed = scene.kept_by(&held)? == held.owner;
    let most = if undisturbed { 6 } else { 12 };
    // At 0, 0, 1, 3 and 7 s.
    ensure!((3..=most).contains(&fought), "{fought} times\n{}", scene.world.logs());
    if undisturbed {
        let undone = scene.metrics(held.owner)?;
        let counted = format!("berth_announcer_status_undone_total {fought}\n");
        ensure!(undone.contains(&counted), "not {counted}: {undone}");
    }
    let events: Api<Event> = Api::namespaced(scene.world.client.clone(), "default");
    eventually("an Event", 10, || async {
        let events = events.list(&Default::default()).await?;
        let told = |event: &Event| event.reason.as_deref() == Some("StatusContested");
        Ok(events.iter().any(told).then_some(()))
    })
    .await?;
    // Nobody undoes it any more.
    eventually("the truth again", 20, || async {
        let service = scene.world.service("web").await?;
        Ok((ingress(&service) == scene.addresses).then_some(()))
    })
    .await?;
    tokio::time::sleep(PATIENCE).await;
    scene.kept_by(&held)?;
    scene.down()
}
