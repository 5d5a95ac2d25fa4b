//! `upgrade FOLDER`: from the programs in FOLDER, those of another commit, to these and back, node by node, with a client on
//! every address. Fails if two nodes answer for an address, if a client waits for longer than a takeover may take, or if
//! anything that was served is served no more.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;

use berth_e2e::membership;
use berth_e2e::pauses;
use berth_e2e::probe::{Manner, Probe};
use berth_e2e::wire::{Asker, Record, Watch};
use berth_e2e::world::{Env, World, by_lease, env, eventually, ingress};

const NODES: usize = 3;
const SERVICES: usize = 4;
/// How often the client connects.
const PROBE: Duration = Duration::from_millis(10);
/// How often the client asks who has an address.
const ASK: Duration = Duration::from_millis(5);
/// Who is heard again within this time was there in between.
const QUIET: Duration = Duration::from_millis(100);
/// For so long nobody may answer: as in a takeover.
const LIMIT: Duration = Duration::from_secs(1);
/// Whoever answered without a right to would have done so by then.
const PATIENCE: Duration = Duration::from_secs(3);

#[tokio::main]
async fn main() -> Result<()> {
    let folder = std::env::args().nth(1).context("usage: upgrade FOLDER")?;
    let before = PathBuf::from(folder);
    for name in ["berth-ccm", "berth-announcer"] {
        ensure!(before.join(name).is_file(), "{}: no {name} there", before.display());
    }
    pauses::watch();
    for (how, environment) in [("by membership", env([])), ("by one Lease", by_lease())] {
        there_and_back(how, &environment, &before).await.with_context(|| how.to_owned())?;
    }
    Ok(())
}

/// One client of an address, and one who asks for it on the LAN.
struct Client {
    address: IpAddr,
    probe: Probe,
    asker: Asker,
}

async fn there_and_back(how: &str, environment: &Env, before: &Path) -> Result<()> {
    let mut world = World::without_berth(NODES + 1, environment.clone()).await?;
    world.pools(json!({ "range-global": berth_e2e::world::POOL })).await?;
    world.use_programs_of(Some(before));
    world.start_ccm().await?;
    for node in 0..NODES {
        world.start_announcer(node).await?;
    }
    world.deploy("default", "hello", 2)?;
    let by_members = environment.is_empty();
    let mut clients = Vec::new();
    for number in 0..SERVICES {
        let name = format!("web{number}");
        world.expose(&name, json!({})).await?;
        let address = world.published(&name, 1).await?[0];
        eventually("an answer", 20, || async { Ok(world.curl(address).ok()) }).await?;
        let target = SocketAddr::new(address, 80);
        let probe = Probe::start(&world.lab.outside(), target, PROBE, Manner::NewConnections)?;
        clients.push(Client { address, probe, asker: world.lab.ask(address, ASK)? });
    }
    steady(&world, by_members).await?;
    let (wire, start) = (world.lab.watch()?, Instant::now());
    for (way, folder) in [("there", None), ("back", Some(before))] {
        world.use_programs_of(folder);
        let begun = Instant::now();
        world.ccm()?.terminate(Duration::from_secs(10))?;
        world.start_ccm().await?;
        for node in 0..NODES {
            let name = world.lab.node(node).name().to_owned();
            world.announcer(&name)?.terminate(Duration::from_secs(15))?;
            world.start_announcer(node).await?;
            steady(&world, by_members).await.with_context(|| format!("{way}: {name}"))?;
        }
        tokio::time::sleep(PATIENCE).await;
        judge(&world, &wire, &clients, begun).with_context(|| format!("{how}, {way}"))?;
    }
    for (number, client) in clients.iter().enumerate() {
        let (name, address) = (format!("web{number}"), client.address);
        let shown = ingress(&world.service(&name).await?);
        ensure!(shown == [address], "{how}: {name} shows {shown:?}, not {address}");
    }
    let addresses: Vec<IpAddr> = clients.iter().map(|client| client.address).collect();
    let mut longest = Duration::ZERO;
    for client in clients {
        client.asker.finish()?;
        let report = client.probe.finish()?;
        longest = longest.max(report.longest_gap);
        report.answered_within(LIMIT).with_context(|| format!("{how}: {}", client.address))?;
    }
    let record = wire.finish()?;
    let moves: usize = addresses.iter().map(|address| record.moves(*address, start).len()).sum();
    println!(
        "{how}: there and back in {:.0?}, {moves} moves of {SERVICES} addresses, the longest gap of a client {longest:.0?}",
        start.elapsed()
    );
    world.lab.down()
}

/// Waits until all nodes take part and each address has one holder.
async fn steady(world: &World, by_members: bool) -> Result<()> {
    eventually("all nodes take part", 40, || async {
        Ok((!by_members || membership::is_settled(world, NODES).await?).then_some(()))
    })
    .await
    .with_context(|| world.logs())?;
    for number in 0..SERVICES {
        let name = format!("web{number}");
        let address = world.published(&name, 1).await?[0];
        let held = || async { Ok((world.holders(address)?.len() == 1).then_some(())) };
        eventually("one holder", 40, held).await.with_context(|| world.logs())?;
    }
    Ok(())
}

/// Since then each address was answered for by one machine at a time.
fn judge(world: &World, wire: &Watch, clients: &[Client], since: Instant) -> Result<()> {
    let record = wire.so_far();
    for client in clients {
        let said = record.since(client.address, since);
        ensure!(!said.is_empty(), "{}: nobody answered", client.address);
        let spans =
            || format!("{}: {:?}\n{}", client.address, record.spans(client.address), world.logs());
        let together = Record(said).overlaps(client.address, QUIET);
        ensure!(together.is_empty(), "two answered: {}", spans());
    }
    Ok(())
}
