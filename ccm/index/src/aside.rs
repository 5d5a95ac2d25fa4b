//! Owns what follows when another host on the LAN answers for an address, as an announcer has found: it is set aside, and
//! who was given it gets another, at most once a minute. Who asked for this very address keeps it, and waits for that host
//! to go. What is set aside counts against the quota of the namespace of who had it. A node of this cluster may be late to stop
//! answering, which is waited for.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::conflict::MacText;
use berth_api::reason;
use berth_ipam::{Family, Ledger, Owner};

use super::state::State;
use crate::claimant::Claimant;
use crate::write::Object;

/// How long an address is given to nobody after another host was found to answer for it.
pub const ASIDE: Duration = Duration::from_secs(600);

/// Of the addresses that a claimant holds, those that it is to have others in place of. They are set aside: one of each
/// family a minute, or who finds a host at each address in turn would walk through the pool.
pub(super) fn shun(
    state: &mut State,
    claimant: &Claimant,
    owner: &Owner,
    held: &BTreeSet<IpAddr>,
    now: Duration,
) -> Vec<IpAddr> {
    let given = |address: &IpAddr| {
        held.contains(address) && !state.cluster.is_pinned(*address, claimant, owner)
    };
    let (conflicts, id) = (claimant.conflicts(), claimant.id());
    state.fellows.keep(&id, &conflicts.addresses().collect());
    let mut shuns: Vec<IpAddr> = conflicts.addresses().filter(given).collect();
    shuns.retain(|address| {
        // Once: each look at the claimant would put the end off.
        if state.cluster.ledger.aside(*address).is_none() {
            let mac = conflicts.of(address).unwrap_or_default();
            if let Some(again) = state.fellows.waits(&id, *address, mac, now) {
                state.agenda.at(again, Object::Claimant(id.clone()));
                return false;
            }
            if let Err(again) = state.exchanges.begin(&id, Family::of(*address), now) {
                state.agenda.at(again, Object::Claimant(id.clone()));
                return false;
            }
            state.cluster.ledger.set_aside(*address, &owner.namespace, now + ASIDE);
            let node = state.fellows.node(mac).map(|node| format!(" of node {node}"));
            let note = format!(
                "another host, {}{}, answers for {address}: it is given to nobody for {} minutes, and this {} gets \
                 another address",
                MacText(mac),
                node.unwrap_or_default(),
                ASIDE.as_secs() / 60,
                owner.kind
            );
            state.said.report(claimant, true, reason::ADDRESS_SET_ASIDE, note);
        }
        true
    });
    shuns
}

/// Takes in that an address was set aside before this process could see it.
pub(super) fn recall(
    ledger: &mut Ledger,
    address: IpAddr,
    namespace: &str,
    until: Duration,
    now: Duration,
) {
    if ledger.aside(address).is_none() && until > now {
        // A clock that was set back puts nothing off for longer.
        ledger.set_aside(address, namespace, until.min(now + ASIDE));
    }
}
