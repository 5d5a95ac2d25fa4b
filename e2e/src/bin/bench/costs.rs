//! What the programs cost: memory, and requests in a time in which nothing happens.

use std::time::Duration;

use anyhow::Result;
use berth_e2e::apiserver_metrics::{Requests, RequestsOf};
use berth_e2e::process::Process;
use berth_e2e::world::World;

/// How long the cluster is watched at rest.
const REST: Duration = Duration::from_secs(60);
/// How long after the last address in a status it is at rest: Events and kube-proxy follow at their own pace.
pub(super) const SETTLES: Duration = Duration::from_secs(20);

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
