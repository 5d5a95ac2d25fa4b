//! Owns how the index takes in the pools and what is never given out, and what is told of both.

use std::collections::BTreeMap;

use berth_api::reason;
use berth_ipam::AddressSet;

use super::pools::Strayed;
use super::said::ours;
use super::state::State;
use super::vips::{is_of_node, without_vips};
use crate::claimant::Id;

/// Takes in the ConfigMap.
pub(super) fn apply_pools(state: &mut State, uid: String, data: &BTreeMap<String, String>) {
    state.pools.apply(uid, data, &mut state.cluster.ledger);
    state.agenda.retry();
    report_pools(state);
}

/// Takes in that there is no ConfigMap. What it said last stays in force.
pub(super) fn remove_pools(state: &mut State) {
    state.pools.remove();
    state.agenda.retry();
}

/// Keeps addresses from ever being given out, in place of what `name` reserved before.
pub(super) fn reserve(state: &mut State, name: &str, addresses: AddressSet) {
    if !is_of_node(name) {
        return keep(state, name, addresses);
    }
    state.cluster.listed_by_nodes.put(name, &addresses);
    let addresses = without_vips(&addresses, &state.cluster.ledger);
    keep(state, name, addresses);
}

/// Looks again at what Node objects list: other addresses are held than before.
pub(super) fn relist(state: &mut State) {
    for (name, addresses) in state.cluster.listed_by_nodes.all(&state.cluster.ledger) {
        keep(state, &name, addresses);
    }
}

fn keep(state: &mut State, name: &str, addresses: AddressSet) {
    let ledger = &mut state.cluster.ledger;
    if ledger.reservation(name).map_or(addresses.is_empty(), |known| *known == addresses) {
        return;
    }
    // Before everything is known nothing is decided.
    if state.cluster.is_whole() {
        touch_machines(state, name, &addresses);
    }
    state.cluster.ledger.reserve(name, addresses);
    state.agenda.retry();
    report_pools(state);
}

/// The machines that show what `name` reserves now, or will.
fn touch_machines(state: &mut State, name: &str, addresses: &AddressSet) {
    let before = state.cluster.ledger.reservation(name);
    let is_news = |address| {
        addresses.contains(address) || before.is_some_and(|before| before.contains(address))
    };
    let concerned = state.cluster.machines.showing_any(is_news);
    state.touch_machines(&concerned);
}

/// Tells what is wrong with the pools, each thing once, and which addresses have left their pool, or come back to it.
/// They stay with who has them.
pub(super) fn report_pools(state: &mut State) {
    if !state.leading || !state.cluster.is_whole() {
        return;
    }
    let Some(news) = state.pools.news(&state.cluster.ledger) else { return };
    news.into_iter().for_each(|report| state.said.push(report));
    for Strayed { address, owner, note } in state.pools.strayed(&state.cluster.ledger) {
        state.touch_owner(&owner);
        let Some(claimant) = state.cluster.claimants.get(&Id::from(&owner)) else { continue };
        let is_told = ours(claimant).is_some_and(|shown| shown.reason == reason::OUTSIDE_POOL);
        if !is_told && state.pools.stray(address, &owner).is_some() {
            state.said.report(claimant, true, reason::OUTSIDE_POOL, note);
        }
    }
}
