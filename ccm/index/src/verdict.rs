//! Owns how a claimant stands, and that it is told.

use std::net::IpAddr;

use berth_api::conflict::MacText;
use berth_api::{address, reason};
use berth_ipam::{Owner, Refusal};

use super::agenda::Turn;
use super::state::State;
use crate::claimant::Claimant;
use crate::write::Verdict;

/// The claimant waits.
pub(super) fn refuse(state: &mut State, turn: Turn, claimant: &Claimant, verdict: Verdict) {
    state.said.tell_reason(claimant, &verdict);
    judge(state, claimant, verdict.clone());
    state.agenda.wait(turn, verdict);
}

/// Sees to it that the status of the claimant shows the verdict.
pub(super) fn judge(state: &mut State, claimant: &Claimant, verdict: Verdict) {
    let has_addresses = state.cluster.holds_any(&claimant.owner());
    state.said.judge(claimant, verdict, has_addresses);
}

/// The claimant has all that it asks for.
pub(super) fn content(
    state: &State,
    claimant: &Claimant,
    owner: &Owner,
    addresses: &[IpAddr],
) -> Verdict {
    waits_for_host(state, claimant, owner).unwrap_or_else(|| given_all(state, owner, addresses))
}

/// The owner has these addresses, whoever else may have them on the LAN.
pub(super) fn given_all(state: &State, owner: &Owner, addresses: &[IpAddr]) -> Verdict {
    let (reason, message) =
        match addresses.iter().find_map(|address| state.pools.stray(*address, owner)) {
            Some(note) => (reason::OUTSIDE_POOL, note.clone()),
            None => (reason::ADDRESS_ALLOCATED, address::format(addresses.iter().copied())),
        };
    Verdict { allocated: true, reason, message }
}

/// What a claimant is told whose address another host has, if it asked for that very one.
fn waits_for_host(state: &State, claimant: &Claimant, owner: &Owner) -> Option<Verdict> {
    let pinned = |address: &IpAddr| state.cluster.is_pinned(*address, claimant, owner);
    let address = claimant.conflicts().addresses().find(pinned)?;
    let mac = MacText(claimant.conflicts().of(&address)?);
    let message = format!(
        "{address} was asked for, and another host, {mac}, answers for it; it is announced once that host is silent"
    );
    Some(Verdict { allocated: true, reason: reason::ADDRESS_CONFLICT, message })
}

/// Why an address is not to be had, for people.
pub(super) fn refused(state: &State, refusal: &Refusal) -> Verdict {
    let message = match refusal {
        Refusal::NoPool { .. } if state.pools.is_missing() => {
            format!("the ConfigMap {} does not exist; {refusal}", state.pools.name())
        }
        refusal => refusal.to_string(),
    };
    Verdict { allocated: false, reason: refusal.reason(), message }
}
