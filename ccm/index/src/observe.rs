//! Owns how the index takes in what the watches show. Late, repeated and reordered events change nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_ipam::{Owner, OwnerKind};

use super::adopt::adopt_one;
use super::announced;
use super::holders::{left, regrant, unclaim};
use super::state::State;
use super::version::is_newer;
use crate::claim::{Claim, Holder};
use crate::claimant::{Claimant, Id};
use crate::kubevirt::Vmi;
use crate::write::Object;

/// Takes in a Service or EipBinding. What is older than what is known is passed over.
pub(super) fn apply(state: &mut State, claimant: Claimant, now: Duration) {
    let (id, owner) = (claimant.id(), claimant.owner());
    let concerns = match &claimant {
        Claimant::Service(service) => service.concerns(),
        Claimant::Eip(_) => true,
    };
    if !concerns && !state.cluster.holds_any(&owner) {
        remove_claimant(state, &id, None, now);
        // kube-proxy goes by its status all the same, whoever wrote that.
        state.show(&owner, &claimant);
        return;
    }
    let is_served = claimant.written().is_some();
    match state.cluster.claimants.get(&id) {
        Some(known) if !is_newer(claimant.version(), known.version()) => return,
        Some(known) if known.uid() != claimant.uid() => remove_claimant(state, &id, None, now),
        None if !is_served => state.figures.see(id.clone(), now),
        _ => {}
    }
    if !state.leading && is_served {
        state.figures.forget(&id);
    }
    if let Some(at) = state.traffic.renewed(&id, now) {
        state.agenda.at(at, Object::Claimant(id.clone()));
    }
    state.show(&owner, &claimant);
    if let Claimant::Service(service) = &claimant
        && state.cluster.ledger.select(&owner, service.pods)
        && state.cluster.holds_any(&owner)
    {
        state.agenda.retry();
    }
    let sharing = claimant.sharing().cloned();
    if let Claimant::Service(service) = &claimant {
        announced::hear(state, service, now);
    }
    let before = state.cluster.claimants.insert(id.clone(), claimant);
    state.cluster.stand(&owner);
    state.touch(&id);
    let is_known = before.is_some();
    let has_other_ports = before.is_none_or(|before| before.sharing() != sharing.as_ref());
    for address in state.cluster.held(&owner) {
        state.departures.tie(address, owner.clone());
        if has_other_ports && state.cluster.is_holder(address, &owner) {
            regrant(state, address);
            if is_known {
                // A port may be free for whoever waits for it (metallb#1704).
                state.agenda.retry();
            }
        }
    }
}

/// Takes in that a Service or EipBinding is gone; with a uid, only if it is that one.
pub(super) fn remove_claimant(state: &mut State, id: &Id, uid: Option<&str>, now: Duration) {
    state.hide(id, uid);
    let known = state.cluster.claimants.get(id);
    if known.is_none_or(|known| uid.is_some_and(|uid| known.uid() != uid)) {
        return;
    }
    let Some(claimant) = state.cluster.claimants.remove(id) else { return };
    let owner = claimant.owner();
    state.cluster.ledger.select(&owner, None);
    state.agenda.remove(&(claimant.created(), id.clone()));
    state.departures.stay(id);
    state.said.gone(id);
    state.silences.gone(id);
    state.adoption.gone(id);
    state.figures.forget(id);
    state.traffic.gone(id);
    for address in state.cluster.held(&owner) {
        state.departures.moved(address, id.clone());
        state.adoption.open.remove(address, &owner);
        if state.cluster.is_holder(address, &owner) {
            state.loosen(address, owner.clone(), now);
        } else if !state.traffic.is_busy(&Object::Claim(address)) {
            state.abandon(address, &owner);
        }
    }
    if let Claimant::Eip(binding) = &claimant {
        state.cluster.machines.forget(&binding.key);
        // The next one may serve the machine now.
        state.cluster.lines.leave(&binding.key);
    }
}

/// Takes in a claim.
pub(super) fn apply_claim(state: &mut State, claim: Claim, now: Duration) {
    let address = claim.address;
    match state.cluster.claims.get(&address) {
        _ if state.claiming.is_buried(&claim.uid) => return,
        Some(known) if !is_newer(&claim.version, &known.version) => return,
        Some(known) if known.uid != claim.uid => unclaim(state, address, now),
        _ => {}
    }
    let Changed { gone, owners, has_others } = changed(state.cluster.claims.get(&address), &claim);
    gone.iter().for_each(|owner| left(state, address, owner, now));
    if has_others {
        state.agenda.retry();
    }
    let (came, missed): (Vec<_>, Vec<_>) = state
        .claiming
        .pending
        .take(address)
        .into_iter()
        .partition(|owner| claim.holder(owner).is_some());
    came.iter().for_each(|owner| state.said.claimed(Id::from(owner)));
    missed.iter().for_each(|owner| _ = state.cluster.forget(owner, address));
    state.cluster.claims.insert(address, claim);
    state.touch_showing(address);
    regrant(state, address);
    for owner in &owners {
        state.adoption.open.remove(address, owner);
        if state.cluster.is_owner_unseen(owner) {
            state.loosen(address, owner.clone(), now);
        }
        state.touch_owner(owner);
    }
    for owner in &missed {
        if state.adoption.open.remove(address, owner)
            && let Some(claimant) = state.cluster.claimants.get(&Id::from(owner)).cloned()
        {
            adopt_one(state, &claimant, owner, address);
        }
        state.touch_owner(owner);
    }
}

/// Of whom a claim says something else than before.
struct Changed {
    /// They do not hold the address any more.
    gone: Vec<Owner>,
    /// They hold it, or otherwise than before. Of the others nothing follows: thousands may share an address.
    owners: Vec<Owner>,
    /// Whether one of them uses other ports than before: some may have become free.
    has_others: bool,
}

fn changed(known: Option<&Claim>, claim: &Claim) -> Changed {
    let by_owner = |claim: &Claim| -> BTreeMap<Owner, Holder> {
        claim.holders.iter().map(|holder| (holder.owner.clone(), holder.clone())).collect()
    };
    let (before, now) = (known.map(by_owner).unwrap_or_default(), by_owner(claim));
    let gone = before.keys().filter(|owner| !now.contains_key(owner)).cloned();
    let is_alone = |holders: &BTreeMap<_, _>| holders.len() == 1;
    let is_other = |owner: &Owner, holder: &Holder| before.get(owner) != Some(holder);
    let all = is_alone(&before) != is_alone(&now);
    let pins = |owner: &Owner| known.is_some_and(|known| known.is_pinned(owner));
    let owners = now.iter().filter(|(owner, holder)| {
        all || is_other(owner, holder) || pins(owner) != claim.is_pinned(owner)
    });
    let owners: Vec<Owner> = owners.map(|(owner, _)| owner.clone()).collect();
    let has_others =
        owners.iter().any(|owner| before.get(owner).is_some_and(|b| Some(b) != now.get(owner)));
    Changed { gone: gone.collect(), owners, has_others }
}

/// Takes in that a claim is gone, if it is that one.
pub(super) fn remove_claim(state: &mut State, address: IpAddr, uid: &str, now: Duration) {
    state.claiming.unbury(uid);
    if state.cluster.claims.get(&address).is_none_or(|known| known.uid != uid) {
        return;
    }
    if state.traffic.is_busy(&Object::Claim(address)) {
        // Our own write is still without an answer. Until it has one nobody can be given the address.
        state.claiming.end(uid);
    } else {
        unclaim(state, address, now);
    }
}

/// Takes in all that a node offers.
pub(super) fn apply_offers(state: &mut State, node: &str, offers: BTreeSet<(String, IpAddr)>) {
    let news = state.cluster.offers.apply(node, offers);
    if news.is_empty() {
        return;
    }
    let claimants = state.cluster.claimants.iter();
    let touched = claimants.filter(|(_, claimant)| news.contains(claimant.uid()));
    let touched: Vec<Id> = touched.map(|(id, _)| id.clone()).collect();
    touched.iter().for_each(|id| state.touch(id));
}

/// Takes in a virtual machine. What is older than what is known is passed over.
pub(super) fn apply_machine(state: &mut State, vmi: Vmi) {
    let concerned = state.cluster.machines.apply(vmi);
    state.touch_machines(&concerned);
}

/// Takes in that a virtual machine is gone; with a uid, only if it is that one.
pub(super) fn remove_machine(state: &mut State, key: &NamespacedName, uid: Option<&str>) {
    let concerned = state.cluster.machines.remove(key, uid);
    state.touch_machines(&concerned);
}

/// Takes in whether the cluster has virtual machines at all. `is_first` says that nothing was known of it before.
pub(super) fn machines_absent(state: &mut State, absent: bool, is_first: bool) {
    if state.cluster.machines.set_absent(absent) || is_first {
        let bindings = state.cluster.claimants.keys().filter(|id| id.kind == OwnerKind::EipBinding);
        let bindings: Vec<Id> = bindings.cloned().collect();
        bindings.iter().for_each(|id| state.touch(id));
    }
}
