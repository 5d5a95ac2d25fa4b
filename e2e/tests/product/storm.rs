//! Who shares an address and takes the port of another keeps it by no edits of its own, not by so many that nobody else's write
//! comes between. Judged by the API server, and by whose pod answers a client.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use berth_e2e::membership;
use berth_e2e::world::{World, eventually, ingress};
use futures::StreamExt;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::shown::{Client, GAP, NODES, PROXY, expose, gone, patch, ports, shares, shown, up};

/// So many edits are under way at a time: with eight, a write of a node comes between.
const AT_ONCE: usize = 48;

/// Edits one Service as fast as the API server takes it.
struct Storm {
    ends: Arc<AtomicBool>,
    count: Arc<AtomicU64>,
}

impl Storm {
    fn of(world: &World, name: (&'static str, &'static str)) -> Self {
        let (ends, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        for _ in 0..AT_ONCE {
            let (services, ends, count) = (world.services(name.0), ends.clone(), count.clone());
            tokio::spawn(async move {
                while !ends.load(Ordering::Relaxed) {
                    let edit = count.fetch_add(1, Ordering::Relaxed).to_string();
                    let edit = json!({ "metadata": { "annotations": { "example.com/n": edit } } });
                    let edit = kube::api::Patch::Merge(edit);
                    let _ = services.patch(name.1, &Default::default(), &edit).await;
                }
            });
        }
        Self { ends, count }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
    }
}

/// Alice and mallory share an address.
async fn both() -> Result<(World, IpAddr)> {
    let world = up(&[]).await?;
    eventually("all nodes take part", 30, || async {
        Ok(membership::is_settled(&world, NODES).await?.then_some(()))
    })
    .await?;
    let address = shares(&world).await?;
    Ok((world, address))
}

/// How long after the edit a watch, such as kube-proxy's, showed that a Service has no address any more.
fn watched(world: &World, name: (&str, &str), edit: Instant) -> JoinHandle<Duration> {
    let only = watcher::Config::default().fields(&format!("metadata.name={}", name.1));
    let mut events =
        watcher(world.services(name.0), only).default_backoff().applied_objects().boxed();
    tokio::spawn(async move {
        while let Some(service) = events.next().await {
            if service.is_ok_and(|service| ingress(&service).is_empty()) {
                break;
            }
        }
        edit.elapsed()
    })
}

/// By when after the edit the other's pod answered last.
fn drawn(client: Client, edit: Instant) -> Result<Duration> {
    let answers = client.answers()?;
    let others = answers.iter().filter(|(_, body)| body.contains("evil"));
    let (count, last) = others.fold((0, edit), |(count, _), (at, _)| (count + 1, *at));
    println!(
        "of {} answers {count} were the other's, the last {:.1?} after the edit",
        answers.len(),
        last - edit
    );
    Ok(last - edit)
}

#[tokio::test(flavor = "multi_thread")]
async fn who_edits_its_service_without_end_keeps_no_port_of_another_by_it() -> Result<()> {
    let (world, address) = both().await?;
    let own = ("mallory", "own");
    expose(&world, own, 81, Some(address)).await?;
    ensure!(shown(&world, own).await? == address);
    tokio::time::sleep(PROXY * 2).await;
    let client = Client::of(world.lab.outside(), address);
    let storm = Storm::of(&world, own);
    tokio::time::sleep(PROXY).await;
    let edit = Instant::now();
    let watched = watched(&world, own, edit);
    patch(&world, own, ports(80)).await?;
    let took = gone(&world, own, address, 30).await;
    println!(
        "out after {took:?}, {} edits in {:.1?}",
        storm.count.load(Ordering::Relaxed),
        edit.elapsed() + PROXY
    );
    tokio::time::sleep(PROXY * 4).await;
    let drawn = drawn(client, edit)?;
    drop(storm);
    let (took, watched) = (took?, watched.await?);
    println!("a watch showed it {watched:.2?} after the edit");
    ensure!(
        took <= GAP && drawn <= GAP * 2,
        "{drawn:?}, a watch showed it after {watched:?}\n{}",
        world.logs()
    );
    world.lab.down()
}
