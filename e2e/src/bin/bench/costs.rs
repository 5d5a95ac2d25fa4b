//! What the programs cost: memory, and requests in a time in which nothing happens.

use std::time::Duration;

use anyhow::{Context, Result};
use berth_e2e::apiserver_metrics::{Requests, RequestsOf};
use berth_e2e::node::Node;
use berth_e2e::process::Process;
use berth_e2e::world::World;

/// How long the cluster is watched at rest.
const REST: Duration = Duration::from_secs(60);
/// How long after the last address in a status it is at rest: Events and kube-proxy follow at their own pace.
pub(super) const SETTLES: Duration = Duration::from_secs(20);

/// How long after 150 Services came its leases are as short as they get: they are as long as may be for four minutes, and shorten
/// over two (docs/failover.md).
pub(super) const SHORTENS: Duration = Duration::from_secs(400);

/// What an announcer has used up since its node and itself were started.
pub(super) struct Used {
    /// Seconds of a processor.
    processor: f64,
    /// UDP datagrams that its node has sent: nothing else there sends any.
    datagrams: u64,
}

impl Used {
    /// What the announcer on each node has used up so far.
    pub(super) fn by_each(world: &World) -> Result<Vec<Self>> {
        let nodes = world.lab.nodes().iter().zip(world.announcers());
        nodes.map(|(node, (_, process))| Self::by(node, process)).collect()
    }

    fn by(node: &Node, process: &Process) -> Result<Self> {
        let counters = node.exec(["cat", "/proc/net/snmp", "/proc/net/snmp6"])?;
        let mut rows = counters.lines().filter_map(|line| line.strip_prefix("Udp:"));
        let (names, values) = (rows.next().context("no Udp:")?, rows.next().context("no Udp:")?);
        let mut columns = names.split_whitespace().zip(values.split_whitespace());
        let sent = columns.find(|(name, _)| *name == "OutDatagrams");
        let sent6 = counters.lines().find_map(|line| line.strip_prefix("Udp6OutDatagrams"));
        let datagrams = [sent.map(|(_, sent)| sent), sent6.map(str::trim)]
            .into_iter()
            .flatten()
            .map(str::parse::<u64>)
            .sum::<Result<u64, _>>()?;
        Ok(Self { processor: process.processor_time()?.as_secs_f64(), datagrams })
    }
}

/// What was used up in the time at rest.
pub(super) fn used_at_rest(world: &World, before: &[Used], after: &[Used]) -> Result<()> {
    println!("\n| announcer on | of a processor | datagrams a second | asks for leases of, s |");
    println!("|---|---|---|---|");
    for (index, (before, after)) in before.iter().zip(after).enumerate() {
        println!(
            "| {} | {:.2} % | {:.1} | {} |",
            world.lab.node(index).name(),
            (after.processor - before.processor) / REST.as_secs_f64() * 100.0,
            a_second(after.datagrams - before.datagrams),
            berth_e2e::membership::lease(world, index)?,
        );
    }
    Ok(())
}

/// The memory of a process that is resident.
pub(super) fn mebibytes(process: &Process) -> Result<f64> {
    Ok(process.resident_bytes()? as f64 / f64::from(1 << 20))
}

/// What all clients, and each of these, ask for while nothing happens.
pub(super) async fn spent_at_rest<const N: usize>(
    world: &World,
    counted: [RequestsOf; N],
) -> Result<(Requests, [u64; N])> {
    let (before, mut spent) = (Requests::read(&world.client).await?, [0; N]);
    for (spent, counted) in spent.iter_mut().zip(counted) {
        *spent = counted.read(&world.client).await?;
    }
    tokio::time::sleep(REST).await;
    for (spent, counted) in spent.iter_mut().zip(counted) {
        *spent = counted.read(&world.client).await? - *spent;
    }
    Ok((Requests::read(&world.client).await?.since(&before), spent))
}

/// What was asked for in the time at rest.
pub(super) fn by_verb(spent: &Requests) {
    println!("| verb | resource | a second |\n|---|---|---|");
    for (verb, resource, count) in spent.iter() {
        println!("| {verb} | {resource} | {:.2} |", a_second(count));
    }
}

/// So many in the time at rest, a second.
pub(super) fn a_second(count: u64) -> f64 {
    count as f64 / REST.as_secs_f64()
}
