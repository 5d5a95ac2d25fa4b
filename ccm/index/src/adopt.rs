//! Owns the import: addresses that Services and EipBindings already have are claimed for them before any is given out,
//! and whoever was given one that nobody has announced yet asks for it before all others.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::reason;
use berth_ipam::{Family, Owner, names};

use super::agenda::Turn;
use super::state::State;
use super::verdict::{refuse, refused};
use super::vips::MAY_BE_VIPS;
use crate::claim::Basis;
use crate::claimant::{Claimant, Id};
use crate::service::Standing;
use crate::write::{Object, Verdict};

/// Finds the addresses that Services and EipBindings answer at without a claim, by the stock provider or in a restored
/// cluster. No rule of any pool is asked: they are in use, as a status shows, which tenants cannot write. What label
/// and annotation say alone is a wish: it is asked for like any other, before anybody is given what comes next.
pub(super) fn adopt(state: &mut State) {
    state.adoption.clear();
    let claimants = state.cluster.claimants.values();
    let mut served: Vec<Claimant> =
        claimants.filter(|claimant| is_adoptable(claimant)).cloned().collect();
    served.sort_by_key(|claimant| (claimant.created(), claimant.id()));
    for claimant in served {
        let owner = claimant.owner();
        if let Claimant::Service(service) = &claimant
            && !state.cluster.holds_any(&owner)
        {
            state.adoption.note_field(service);
        }
        for address in claimant.answered() {
            let has = |held: IpAddr| Family::of(held) == Family::of(address);
            if state.cluster.ledger.held(&owner).any(has) {
                continue;
            }
            let counts = |name: &str| !name.ends_with(MAY_BE_VIPS);
            match state.cluster.ledger.kept_from_all(address, counts) {
                None => adopt_one(state, &claimant, &owner, address),
                // Of the others it is told when they ask for it.
                Some(refusal) if is_ignored(&claimant) => {
                    let verdict = refused(state, &refusal);
                    state.said.tell(&claimant, &verdict);
                }
                Some(_) => {}
            }
        }
    }
    let claimants = state.cluster.claimants.values();
    let wishes = claimants.filter(|claimant| wishes_for_more(state, claimant));
    let wishes: Vec<Turn> = wishes.map(|claimant| (claimant.created(), claimant.id())).collect();
    wishes.into_iter().for_each(|turn| state.agenda.put_first(turn));
}

/// Holds an address for a claimant that has it already.
pub(super) fn adopt_one(state: &mut State, claimant: &Claimant, owner: &Owner, address: IpAddr) {
    let ledger = &state.cluster.ledger;
    let pools = ledger.pools();
    let pool = pools.locate(&owner.namespace, address).cloned();
    let holders = ledger.claim(address).into_iter().flat_map(|claim| claim.owners());
    let may_share = holders.chain([owner]).all(|owner| pools.allows_sharing(&owner.namespace));
    let sharing = claimant.sharing().filter(|_| may_share).cloned();
    match state.cluster.hold(address, owner, sharing, pool) {
        Ok(()) => {
            state.claiming.pending.insert(address, owner);
            state.adoption.open.insert(address, owner);
        }
        Err(conflict) => {
            state.adoption.conflict(claimant);
            for holder in &conflict.holders {
                if let Some(other) = state.cluster.claimants.get(&Id::from(holder)) {
                    let note =
                        format!("{address} is also the address of {owner}; nothing is moved");
                    state.said.report(other, true, reason::ADDRESS_CONFLICT, note);
                }
            }
        }
    }
}

/// Claims what is still to be claimed.
pub(super) fn poll(state: &mut State, now: Duration, slots: usize) {
    let (adoption, traffic) = (&state.adoption, &state.traffic);
    let open = adoption.open.firsts();
    let open = open.filter(|(address, _)| !traffic.is_held_up(&Object::Claim(*address), now));
    let open: Vec<(IpAddr, Owner)> =
        open.take(slots).map(|(address, owner)| (address, owner.clone())).collect();
    for (address, owner) in open {
        let cluster = &state.cluster;
        let pool = cluster.ledger.pools().locate(&owner.namespace, address).cloned();
        let claimant = cluster.claimants.get(&Id::from(&owner));
        let sharing = claimant.and_then(Claimant::sharing);
        let was_served = matches!(
            claimant,
            Some(Claimant::Service(service)) if service.published.contains(&address)
        );
        let basis = if was_served { Basis::Imported } else { Basis::Given };
        let write = cluster.claim_write(address, &owner, sharing, pool, basis);
        state.traffic.start(write);
    }
}

/// Whether the claimant still has, as at the import, an address that is somebody else's. Then it waits.
pub(super) fn is_conflicted(state: &mut State, claimant: &Claimant, owner: &Owner) -> bool {
    let id = claimant.id();
    if !state.adoption.is_conflicted(claimant) {
        state.adoption.resolve(&id);
        return false;
    }
    let listed = claimant.listed();
    let others = |address: &IpAddr| {
        let claim = state.cluster.ledger.claim(*address);
        let holders = claim.into_iter().flat_map(|claim| claim.owners());
        holders.filter(|holder| *holder != owner).cloned().collect::<Vec<_>>()
    };
    let Some((address, holders)) = listed
        .iter()
        .map(|address| (address, others(address)))
        .find(|(_, holders)| !holders.is_empty())
    else {
        state.adoption.resolve(&id);
        return false;
    };
    let message = format!("{address} is also the address of {}; nothing is moved", names(&holders));
    let verdict = Verdict { allocated: false, reason: reason::ADDRESS_CONFLICT, message };
    refuse(state, (claimant.created(), id), claimant, verdict);
    true
}

fn is_adoptable(claimant: &Claimant) -> bool {
    let service = match claimant {
        Claimant::Service(service) => service,
        Claimant::Eip(binding) => {
            let is_over = binding.deleting && binding.holder.is_none();
            return !is_over && !binding.eips.is_empty();
        }
    };
    match service.standing {
        Standing::Ours => true,
        Standing::Ignored => service.labelled,
        Standing::Foreign => false,
    }
}

fn is_ignored(claimant: &Claimant) -> bool {
    matches!(claimant, Claimant::Service(service) if service.standing == Standing::Ignored)
}

/// Whether it says that it was given an address which it does not hold: the stock provider gave it and nobody has
/// announced it yet, or its user only says so.
fn wishes_for_more(state: &State, claimant: &Claimant) -> bool {
    let Claimant::Service(service) = claimant else { return false };
    let held = state.cluster.held(&service.owner());
    let is_news = |address: &IpAddr| !address.is_unspecified() && !held.contains(address);
    let lists = || claimant.listed().iter().any(is_news);
    service.standing == Standing::Ours && service.labelled && !service.deleting && lists()
}
