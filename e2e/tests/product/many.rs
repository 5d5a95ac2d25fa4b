//! Thousands of EipBindings of one tenant that name one virtual machine, made and deleted together: berth-ccm answers its probe
//! throughout, and serves others. `BERTH_SOAK=1` takes ten thousand.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use berth_e2e::place::Place;
use berth_e2e::vm::{Eips, Vm, install_kubevirt};
use berth_e2e::world::{World, annotated, env, eventually, kubectl};
use futures::stream::{self, StreamExt, TryStreamExt};
use serde_json::json;

use crate::is_soak;

/// How many, and how long all of it may take.
const FEW: (usize, u64) = (400, 60);
const MANY: (usize, u64) = (10_000, 1800);
/// A probe of Kubernetes waits for a second, unless it is told otherwise.
const PROBE: Duration = Duration::from_secs(1);
const EVERY: Duration = Duration::from_millis(100);

/// Asks `/healthz` of berth-ccm until it is told to stop. Gives the longest time that an answer took.
fn probe(place: &Place, stop: &AtomicBool) -> Result<Duration> {
    let ask = || -> Result<Duration> {
        let begun = Instant::now();
        let mut stream = TcpStream::connect_timeout(&"127.0.0.1:8080".parse()?, PROBE)?;
        stream.set_read_timeout(Some(PROBE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Ok(begun.elapsed())
    };
    place.in_network(|| {
        let mut longest = Duration::ZERO;
        while !stop.load(Ordering::Relaxed) {
            longest = longest.max(ask().context("/healthz of berth-ccm")?);
            std::thread::sleep(EVERY);
        }
        Ok(longest)
    })?
}

/// Somebody else is served. Gives how long that took.
async fn serve(world: &World, name: &str) -> Result<Duration> {
    let begun = Instant::now();
    world.expose(name, json!({})).await?;
    eventually("another one is served", 30, || async {
        let has_address = !annotated(&world.service(name).await?).is_empty();
        Ok(has_address.then_some(begun.elapsed()))
    })
    .await
    .with_context(|| world.logs())
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_of_bindings_of_one_machine_hold_up_neither_the_probe_nor_others() -> Result<()> {
    let (count, seconds) = if is_soak() { MANY } else { FEW };
    let mut world = World::without_berth(1, env([])).await?;
    install_kubevirt(&world.lab)?;
    world.pools(json!({ "cidr-global": "10.20.0.0/24", "reuse-delay": "1s" })).await?;
    world.start_ccm().await?;
    kubectl(&world.lab, &["create", "namespace", "mallory"])?;
    let vm = Vm::create(&world.client, "mallory", "vm").await?;
    vm.start("node-1", &["10.244.1.5".parse()?]).await?;
    let eips = Eips::of(&world.client, "mallory");
    eips.create("a", json!({ "vmi": "vm" })).await?;
    eips.shows("a", "a node", |status| status["node"] == "node-1").await?;

    let (stop, place) = (AtomicBool::new(false), world.lab.control_plane());
    let (longest, slowest) = std::thread::scope(|scope| {
        let probing = scope.spawn(|| probe(&place, &stop));
        let work = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(crowd(&world, &eips, &vm, count, seconds))
        });
        stop.store(true, Ordering::Relaxed);
        let probed = probing.join().map_err(|_| anyhow::anyhow!("the probe panicked"))?;
        Ok::<_, anyhow::Error>((probed.with_context(|| world.logs())?, work?))
    })?;
    println!("{count} bindings: an answer took {longest:.0?}, another one's address {slowest:.1?}");
    ensure!(longest < PROBE, "an answer to a probe took {longest:?}");
    world.lab.down()
}

/// They come, their machine moves about, and they go. Gives how long somebody else waited at most.
async fn crowd(
    world: &World,
    eips: &Eips,
    vm: &Vm,
    count: usize,
    seconds: u64,
) -> Result<Duration> {
    let creation = stream::iter(0..count).map(|number| async move {
        eips.create(&format!("b{number}"), json!({ "vmi": "vm" })).await
    });
    let creation = creation.buffer_unordered(16).try_for_each(|()| async { Ok(()) });
    let others = async {
        let mut slowest = Duration::ZERO;
        for number in 0..10 {
            slowest = slowest.max(serve(world, &format!("web-{number}")).await?);
            vm.readdress(&[format!("10.244.1.{}", number + 6).parse()?]).await?;
        }
        Ok::<_, anyhow::Error>(slowest)
    };
    let (created, slowest) = tokio::join!(creation, others);
    created.context("creating them")?;
    let last = format!("b{}", count - 1);
    eventually("the last is told who serves its machine", seconds, || async {
        let status = eips.status(&last).await?;
        Ok((berth_e2e::vm::reason(&status, "Allocated") == "VmiTaken").then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    let after = serve(world, "late").await?;
    // The one that serves it goes first, and each next one has its turn.
    let all = ["delete", "eip", "--all", "--wait=false", "-n", "mallory"];
    let deletion = async { tokio::task::block_in_place(|| kubectl(&world.lab, &all)) };
    deletion.await?;
    let during = serve(world, "last").await?;
    eventually("all are gone", seconds, || async {
        Ok(eips.names().await?.is_empty().then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    Ok(slowest?.max(after).max(during))
}
