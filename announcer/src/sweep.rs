//! Removes what earlier lives have left on this node: of this instance, and of others that do not run. One that is started
//! anew under another name would never come back for it, and its fence would go on silencing addresses that are another's
//! by now. What others have is theirs for as long as they hold their locks.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anyhow::{Context, ensure};
use berth_runtime::supervise::Supervisor;

use crate::dataplane::{self, eip};
use crate::fencing;
use crate::instance::Instance;
use crate::kernel::nftables::shown;
use crate::kernel::{Binding, Door, Host, Kernel, Lifetime};
use crate::locks::{self, WhenTaken};

/// The number of the capability (`linux/capability.h`).
const NET_ADMIN: u32 = 12;

/// How long a start waits for the list of tables: somebody's large transaction may hold the rule set.
const LISTING: Duration = Duration::from_secs(2);

/// That this process may change the network of the node.
///
/// # Errors
/// When it may not, with what it lacks.
pub fn is_permitted() -> anyhow::Result<()> {
    ensure!(
        may_change_the_network(),
        "it may not change the network of this node: it needs root there (CAP_NET_ADMIN)"
    );
    Ok(())
}

/// Removes what is left on this node of the announcer of this name, and of all others that do not run: for where one was
/// killed, and none comes after it. What it is about is gone before its fence is. What serves Services stays where `me` does not.
///
/// # Errors
/// When that announcer runs, the kernel cannot be looked at, or something is left.
pub async fn node(me: &Instance, supervisor: &mut Supervisor) -> anyhow::Result<()> {
    is_permitted()?;
    let (_locks, telling) = locks::take(me, WhenTaken::End).await?;
    let (door, tasks) = Door::open().context("opening a netlink socket")?;
    supervisor.spawn_all(tasks.into_iter().chain([telling]));
    let mut kernel = door.netlink(me);
    let host = kernel.look().await.context("looking at the addresses of this node")?;
    let _alone = match host.untagged {
        true => Some(locks::take_untagged(me)?),
        false => None,
    };
    own(&mut kernel, &host, me, &BTreeSet::new()).await;
    others(&door, &host, me).await;
    let rules = match me.translates() {
        true => eip::sweep(&door, me).await,
        false => Ok(()),
    };
    if let Err(error) = &rules {
        tracing::warn!(error, "rules of elastic IPs are left");
    }
    fencing::remove(me);
    let host = kernel.look().await.context("looking at the addresses of this node")?;
    let tables = tokio::time::timeout(LISTING, tables(&door)).await.unwrap_or_default();
    let is_own =
        |(prefix, name): &(&str, String)| Instance::of_mark(prefix, name).as_ref() == Some(me);
    ensure!(
        !tables.iter().any(is_own),
        "tables of it are left in nftables, which `nft` is to remove"
    );
    let left = host.ours.len() + host.made.len();
    ensure!(left == 0, "{left} addresses and interfaces of it are left, as the log says");
    ensure!(rules.is_ok(), "rules of elastic IPs are left, as the log says");
    Ok(())
}

/// Whether this process has the capability; where the kernel does not say so, it shows when something is changed.
fn may_change_the_network() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let effective = effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    effective.is_none_or(|set| set >> NET_ADMIN & 1 == 1)
}

/// Removes what is left of this instance, before anything else. What is `kept` stays, and its guard: routers may lead it here.
pub async fn own(
    kernel: &mut impl Kernel,
    host: &Host,
    instance: &Instance,
    kept: &BTreeSet<Binding>,
) {
    if kept.is_empty() {
        clear(kernel, host).await;
        return dataplane::remove(instance).await;
    }
    let mut rest = host.clone();
    rest.ours.retain(|binding, _| !kept.contains(binding));
    clear(kernel, &rest).await;
    tracing::info!(
        addresses = kept.len(),
        "what was left stays until it is known what is wanted: routers may lead it here"
    );
}

/// Removes what is left of instances that do not run.
///
/// Of what serves Services and elastic IPs only one that does so disposes: connections of VMs go on by it.
pub async fn others(door: &Door, host: &Host, me: &Instance) {
    for other in left(door, host).await {
        if other == *me || other.translates() && !me.translates() {
            continue;
        }
        // Held until all is gone: one that starts meanwhile waits for that.
        match locks::take_idle(&other, me) {
            Ok(_locks) => sweep(door, &other, me).await,
            Err(error) => tracing::debug!(%error, "what it has stays"),
        }
    }
}

/// Whoever has left something, or has it.
async fn left(door: &Door, host: &Host) -> Vec<Instance> {
    let fences = fencing::left().into_iter().map(|name| ("berth-fence", name));
    let listed = tokio::time::timeout(LISTING, tables(door)).await;
    if listed.is_err() {
        tracing::warn!("nftables are not read in time: tables of instances that do not run stay");
    }
    let tables = listed.unwrap_or_default();
    let named = fences.chain(tables).filter_map(|(prefix, name)| Instance::of_mark(prefix, &name));
    let mut left: BTreeMap<String, Instance> =
        named.map(|instance| (instance.name().to_owned(), instance)).collect();
    for number in &host.others {
        if !left.values().any(|instance| instance.number() == *number) {
            let instance = Instance::numbered(*number);
            left.insert(format!("{}/{number}", instance.name()), instance);
        }
    }
    left.into_values().collect()
}

/// The tables of nftables, each with what stands before a name where it is one of ours.
async fn tables(door: &Door) -> Vec<(&'static str, String)> {
    let mut tables = Vec::new();
    for family in shown::FAMILIES {
        let prefix = if family == shown::NETDEV { "berth-fence" } else { "berth" };
        let names = shown::tables(&door.netfilter, family).await.unwrap_or_default();
        tables.extend(names.into_iter().map(|name| (prefix, name)));
    }
    tables
}

async fn sweep(door: &Door, other: &Instance, me: &Instance) {
    let (name, number) = (other.name(), other.number());
    let is_named = !name.is_empty();
    let mut kernel = door.netlink(other);
    match kernel.look().await {
        // What has the number of this instance is swept already, and where the kernel keeps no tags all of it is.
        Ok(host) if number == me.number() || host.untagged => {}
        Ok(mut host) => {
            host.ours.retain(|_, lifetime| *lifetime != Lifetime::Forever);
            // Without a table of its own beside it a VLAN in such a group may be anybody's.
            host.made.retain(|_| is_named);
            if !clear(&mut kernel, &host).await {
                return tracing::error!(
                    name,
                    number,
                    "what another instance has left stays fenced"
                );
            }
        }
        Err(error) => return tracing::error!(%error, name, number, "cannot sweep"),
    }
    if is_named {
        dataplane::remove(other).await;
        fencing::remove(other);
    }
    if other.translates()
        && let Err(error) = eip::unroute(door, other).await
    {
        tracing::error!(error, name, number, "cannot sweep");
    }
    tracing::info!(name, number, "swept what another instance has left, which does not run");
}

/// Takes off what `host` shows as ours; true if nothing is left of it.
async fn clear(kernel: &mut impl Kernel, host: &Host) -> bool {
    let mut all = true;
    for binding in host.ours.keys() {
        match kernel.remove(*binding).await {
            Ok(()) => tracing::info!(address = %binding.address, "swept"),
            Err(error) => {
                tracing::error!(%error, "cannot sweep");
                all = false;
            }
        }
    }
    for index in &host.made {
        match kernel.remove_link(*index).await {
            Ok(()) => tracing::info!(index, "swept a VLAN interface"),
            Err(error) => {
                tracing::error!(%error, "cannot sweep");
                all = false;
            }
        }
    }
    all
}
