//! Pools as keys of the ConfigMap.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_ipam::{Range, Scope};

use super::pool::Pool;
use crate::convert::finding::{Finding, Told};

/// What a scope has.
#[derive(Default)]
struct Share<'a> {
    /// Pools that give to who asks for nothing.
    automatic: Vec<&'a Pool>,
    /// Pools that give to who asks.
    asked: Vec<&'a Pool>,
}

/// The keys of pools, whichever way they are announced.
pub(super) fn of(pools: &[Pool], findings: &mut Vec<Finding>) -> BTreeMap<String, String> {
    let pools: Vec<&Pool> = pools.iter().collect();
    let mut shares: BTreeMap<Scope, Share<'_>> = BTreeMap::new();
    shares.insert(Scope::Global, Share::default());
    for pool in &pools {
        for scope in scopes(pool) {
            let share = shares.entry(scope).or_default();
            match pool.is_automatic {
                true => share.automatic.push(pool),
                false => share.asked.push(pool),
            }
        }
    }
    let mut keys = BTreeMap::new();
    let of_all = shares.remove(&Scope::Global).unwrap_or_default();
    pool_keys(&mut keys, &Scope::Global, &of_all, findings);
    keys.insert("pins-global".to_owned(), pins(of_all.asked.iter().copied()));
    for (scope, share) in &shares {
        pool_keys(&mut keys, scope, share, findings);
        let name = scope.name();
        // MetalLB goes on to the pools of all where those of the namespace have no address left.
        if !share.automatic.is_empty() && !of_all.automatic.is_empty() {
            keys.insert(format!("overflow-{name}"), "global".to_owned());
        }
        if !share.asked.is_empty() {
            let asked = share.asked.iter().chain(&of_all.asked).copied();
            keys.insert(format!("pins-{name}"), pins(asked));
        }
    }
    keys.insert("avoid-buggy-ips".to_owned(), avoids_buggy(&pools, findings).to_string());
    told_of_order(&pools, &shares, findings);
    keys
}

fn scopes(pool: &Pool) -> Vec<Scope> {
    match &pool.namespaces {
        None => vec![Scope::Global],
        Some(names) => names.iter().map(|name| Scope::of(name)).collect(),
    }
}

fn pool_keys(
    keys: &mut BTreeMap<String, String>,
    scope: &Scope,
    share: &Share<'_>,
    findings: &mut Vec<Finding>,
) {
    let entries = share.automatic.iter().flat_map(|pool| &pool.entries);
    let (prefixes, ranges): (Vec<&String>, Vec<&String>) =
        entries.partition(|entry| entry.contains('/'));
    for (kind, entries) in [("cidr", prefixes), ("range", ranges)] {
        if !entries.is_empty() {
            keys.insert(format!("{kind}-{}", scope.name()), joined(entries));
        }
    }
    let interfaces: BTreeSet<_> =
        share.automatic.iter().map(|pool| pool.reach.interface.as_ref()).collect();
    match interfaces.into_iter().collect::<Vec<_>>()[..] {
        [Some(one)] => _ = keys.insert(format!("interface-{}", scope.name()), one.clone()),
        [] | [None] => {}
        _ => {
            for pool in share.automatic.iter().filter(|pool| pool.reach.interface.is_some()) {
                let says = format!(
                    "{scope} has pools that are announced on others: what it gives from now on is announced on the interface of \
                     its subnet, or as `kube-vip.io/serviceInterface` of the Service says"
                );
                Told::of(pool.object.clone(), findings)
                    .lost("interfaces of its advertisement", says);
            }
        }
    }
}

/// What may be asked for beside what the pools of the namespace have: MetalLB gives nothing that no pool has.
fn pins<'a>(asked: impl Iterator<Item = &'a Pool>) -> String {
    let entries: Vec<&String> = asked.flat_map(|pool| &pool.entries).collect();
    if entries.is_empty() { "pool".to_owned() } else { joined(entries) }
}

fn joined(entries: Vec<&String>) -> String {
    entries.into_iter().map(String::as_str).collect::<Vec<_>>().join(",")
}

/// One key is about all pools. Where they differ nobody gets what one of them keeps back.
fn avoids_buggy(pools: &[&Pool], findings: &mut Vec<Finding>) -> bool {
    let given: Vec<_> = pools.iter().filter(|pool| pool.is_automatic).collect();
    let buggy = |pool: &&&&Pool| pool.addresses.iter().any(has_buggy);
    if !given.iter().any(|pool| pool.avoids_buggy) {
        return false;
    }
    for pool in given.iter().filter(|pool| !pool.avoids_buggy).filter(buggy) {
        let says = "another pool avoids addresses that end in .0 and .255, and `avoid-buggy-ips` is about all: those of this \
                    one are for who asks for them";
        Told::of(pool.object.clone(), findings).lost("spec.avoidBuggyIPs", says);
    }
    true
}

/// Whether an IPv4 address in it ends in .0 or .255.
fn has_buggy(range: Range) -> bool {
    let (IpAddr::V4(first), IpAddr::V4(last)) = (range.first(), range.last()) else { return false };
    let next = u32::from(first).div_ceil(256).checked_mul(256);
    let ends_block = |address: u32| address % 256 == 255;
    next.is_some_and(|next| next <= u32::from(last))
        || ends_block(u32::from(first))
        || ends_block(u32::from(last))
}

/// Which pool comes first is not said by anything but the addresses.
fn told_of_order(
    pools: &[&Pool],
    shares: &BTreeMap<Scope, Share<'_>>,
    findings: &mut Vec<Finding>,
) {
    for pool in pools.iter().filter(|pool| pool.priority != 0) {
        let says = format!(
            "{}: the pools of a namespace come before those of all (`overflow-`), and among them the lowest address comes first \
             (`search-order`)",
            pool.priority
        );
        Told::of(pool.object.clone(), findings).lost("spec.serviceAllocation.priority", says);
    }
    let mut by_address: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (scope, share) in shares {
        for pool in &share.automatic {
            by_address.entry(&pool.object).or_default().insert(scope.name());
        }
    }
    for (object, names) in by_address.into_iter().filter(|(_, names)| names.len() > 1) {
        let names = names.into_iter().collect::<Vec<_>>().join(", ");
        let says = format!(
            "each of {names} has a key with its addresses. An address is still given once, and `berth-ccm check` calls that an \
             overlap"
        );
        Told::of(object.to_owned(), findings).note("spec.serviceAllocation.namespaces", says);
    }
}
