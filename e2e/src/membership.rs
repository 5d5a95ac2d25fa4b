//! What a lab shows of Berth's fenced membership.

use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;

use crate::get::get;
use crate::world::World;

/// The metrics of the announcer on a node.
pub fn metrics(world: &World, node: usize) -> Result<String> {
    let server = ([127, 0, 0, 1], 2112).into();
    get(&world.lab.node(node).place()?, server, "/metrics", Duration::from_secs(2))
}

/// How often a lease of the announcer on a node has run out since it was started.
pub fn expired(world: &World, node: usize) -> Result<u64> {
    counted(world, node, "owner_changes_total{cause=\"expired\"}")
}

/// How often the announcer on a node has come to answer for an address since it was started.
pub fn won(world: &World, node: usize) -> Result<u64> {
    counted(world, node, "takeover_seconds_count")
}

/// The lease in seconds that the announcer on a node asks for.
pub fn lease(world: &World, node: usize) -> Result<String> {
    said(world, node, "membership_lease_seconds").map(Option::unwrap_or_default)
}

fn counted(world: &World, node: usize, what: &str) -> Result<u64> {
    let count = said(world, node, what)?;
    count.map_or(Ok(0), |count| count.parse().with_context(|| format!("{what} {count}")))
}

fn said(world: &World, node: usize, what: &str) -> Result<Option<String>> {
    let (shown, name) = (metrics(world, node)?, format!("berth_announcer_{what} "));
    let line = shown.lines().find_map(|line| line.strip_prefix(&name));
    Ok(line.map(|value| value.trim().to_owned()))
}

/// Whether each of the first `nodes` nodes sees all of them alive, and as many of them vote as should.
pub async fn is_settled(world: &World, nodes: usize) -> Result<bool> {
    let voters = match nodes {
        0..=2 => nodes,
        3 | 4 => 3,
        _ => 5,
    };
    let leases: Api<Lease> = Api::namespaced(world.client.clone(), "kube-system");
    let view = leases.get_opt("berth-membership").await?.and_then(|lease| lease.spec);
    let names = view.and_then(|spec| spec.holder_identity).unwrap_or_default();
    let live = format!("berth_announcer_membership_live_nodes {nodes}\n");
    let mut settled = names.split(',').count() == voters;
    for node in 0..nodes {
        settled = settled && metrics(world, node)?.contains(&live);
    }
    Ok(settled)
}
