//! Owns the way of an EipBinding: finalizer, claim, status; and back: nobody is to answer, nobody answers, claim gone,
//! finalizer gone.

use std::time::Duration;

use berth_api::NamespacedName;
use berth_api::reason;

use super::allocate::{Hopeless, allocate};
use super::decided::leaving;
use super::release::leave_all;
use super::show::show;
use super::state::State;
use super::verdict::{given_all, judge};
use crate::binding::Binding;
use crate::claimant::{Claimant, Id};
use crate::placement::Unplaced;
use crate::write::{Object, Verdict, Write};

/// What an EipBinding is to do next.
pub(super) fn decide(
    state: &mut State,
    claimant: &Claimant,
    binding: &Binding,
    now: Duration,
    hopeless: &mut Hopeless,
) {
    if state.cluster.is_ending_eip(binding) {
        return release(state, binding, now);
    }
    if !state.cluster.holds_any(&binding.owner())
        && let Some(by) = state.cluster.rival(binding)
    {
        return taken(state, claimant, binding, by);
    }
    // Before there is a claim, so that a binding which goes meanwhile leaves none behind.
    if !binding.has_finalizer() {
        return patch_finalizer(state, binding, true);
    }
    allocate(state, claimant, now, hopeless);
}

/// Another one serves its machine. It waits for nothing that becomes free, but for its turn.
fn taken(state: &mut State, claimant: &Claimant, binding: &Binding, by: NamespacedName) {
    state.agenda.wait_no_more(&(binding.created, Id::eip(&binding.key)));
    let refused = Unplaced::Taken { vmi: binding.vmi.clone(), by };
    let (reason, message) = (refused.reason(), refused.to_string());
    let verdict = Verdict { allocated: false, reason, message };
    state.said.tell_reason(claimant, &verdict);
    judge(state, claimant, verdict);
}

fn release(state: &mut State, binding: &Binding, now: Duration) {
    let (id, owner) = (Id::eip(&binding.key), binding.owner());
    state.agenda.wait_no_more(&(binding.created, id.clone()));
    state.said.shown(&id);
    let held = state.cluster.held(&owner);
    if held.is_empty() && binding.deleting && !binding.has_finalizer() {
        state.departures.stay(&id);
        return;
    }
    state.cluster.machines.remember(binding, false);
    // First of all nobody is to answer any longer.
    if binding.node.is_some() || !binding.vmi_ips.is_empty() {
        let allocated = given_all(state, &owner, &binding.eips);
        show(state, binding, leaving(binding, &binding.eips, allocated, &state.liveness), None);
        return;
    }
    let patient = state.departures.leave(id.clone(), now);
    if !held.is_empty() && binding.holder.is_some() && now < patient {
        state.agenda.at(patient, Object::Claimant(id));
        return;
    }
    if binding.holder.is_some() {
        held.into_iter().for_each(|address| state.departures.unheard(address, owner.clone()));
    }
    if !leave_all(state, &owner, now) {
        return;
    }
    if binding.deleting {
        patch_finalizer(state, binding, false);
        return;
    }
    let families = binding.families.wanted();
    let (reason, message) = match state.cluster.placement(binding, &families) {
        Some(Err(unplaced)) => (unplaced.reason(), unplaced.to_string()),
        _ => (reason::NOT_ALLOCATED, "it is about to have an address".to_owned()),
    };
    let message = format!("{message}; `retain` is false, so it keeps no address meanwhile");
    let verdict = Verdict { allocated: false, reason, message };
    show(state, binding, leaving(binding, &[], verdict, &state.liveness), None);
}

fn patch_finalizer(state: &mut State, binding: &Binding, with_ours: bool) {
    let Binding { key, uid, version, finalizers, .. } = binding.clone();
    state.traffic.start(Write::PatchEip { key, uid, version, finalizers, with_ours });
}
