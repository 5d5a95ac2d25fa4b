//! Owns the short words that the scenarios are written in.
#![allow(dead_code)]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{
    Allocation, Families, Family, FamilyPolicy, Grant, Ledger, Owner, OwnerKind, Protocol, Refusal,
    Request, Sharing, TrafficPolicy, allocate,
};

pub(crate) fn data(keys: &[(&str, &str)]) -> BTreeMap<String, String> {
    keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

pub(crate) fn ledger(keys: &[(&str, &str)]) -> Ledger {
    let mut ledger = Ledger::new();
    assert_eq!(ledger.update_pools(&data(keys)), []);
    ledger
}

/// Replaces the whole ConfigMap.
pub(crate) fn edit(ledger: &mut Ledger, keys: &[(&str, &str)]) {
    assert_eq!(ledger.update_pools(&data(keys)), []);
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// The Service of that namespace and name, written `shop/web`.
pub(crate) fn service(name: &str) -> Owner {
    let (namespace, rest) = name.split_once('/').unwrap();
    Owner::new(OwnerKind::Service, namespace, rest, format!("uid-of-{name}"))
}

pub(crate) fn single(name: &str) -> Request {
    Request::new(service(name), Families::single(Family::V4))
}

pub(crate) fn single_v6(name: &str) -> Request {
    Request::new(service(name), Families::single(Family::V6))
}

pub(crate) fn dual(name: &str, policy: FamilyPolicy) -> Request {
    Request::new(service(name), Families::new(policy, Family::ALL))
}

pub(crate) fn pinned(request: Request, pins: &[&str]) -> Request {
    Request { pins: pins.iter().map(|pin| ip(pin)).collect(), ..request }
}

pub(crate) fn listening(request: Request, ports: &[(Protocol, u16)]) -> Request {
    let sharing =
        Sharing { ports: ports.iter().copied().collect(), policy: TrafficPolicy::Cluster };
    Request { sharing: Some(sharing), ..request }
}

/// Decides, and records what was decided as the controller would.
pub(crate) fn give(ledger: &mut Ledger, request: &Request) -> Result<Vec<String>, Refusal> {
    give_at(ledger, request, Duration::ZERO).map(|allocation| shown(&allocation))
}

pub(crate) fn give_at(
    ledger: &mut Ledger,
    request: &Request,
    now: Duration,
) -> Result<Allocation, Refusal> {
    let allocation = allocate(ledger, request)?;
    for assigned in &allocation.addresses {
        let grant = Grant::new(request.owner.clone())
            .sharing(request.sharing.clone())
            .in_pool(assigned.pool.clone());
        ledger.insert(assigned.address, grant).unwrap();
    }
    for address in &allocation.released {
        assert!(ledger.release(&request.owner, *address, now));
    }
    Ok(allocation)
}

/// The owner gives back all it holds.
pub(crate) fn release_all(ledger: &mut Ledger, owner: &Owner, now: Duration) {
    let held: Vec<IpAddr> = ledger.held(owner).collect();
    held.iter().for_each(|address| assert!(ledger.release(owner, *address, now)));
}

pub(crate) fn shown(allocation: &Allocation) -> Vec<String> {
    allocation.addresses.iter().map(|assigned| assigned.address.to_string()).collect()
}

/// The reason of a refusal.
pub(crate) fn reason<T: std::fmt::Debug>(answer: Result<T, Refusal>) -> &'static str {
    answer.unwrap_err().reason()
}

pub(crate) fn held(ledger: &Ledger, name: &str) -> Vec<String> {
    ledger.held(&service(name)).map(|address| address.to_string()).collect()
}
