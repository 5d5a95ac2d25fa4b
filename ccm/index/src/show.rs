//! Owns that Services and EipBindings show what was decided. Each write of the status of an EipBinding says all that
//! berth-ccm has to say there.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::{address, eip, reason};
use berth_ipam::Family;

use super::decided::decided;
use super::state::State;
use super::traffic::PAUSE;
use super::verdict::content;
use crate::binding::{Binding, Decided};
use crate::claimant::{Claimant, Id};
use crate::placement::Unplaced;
use crate::service::Service;
use crate::write::{Change, News, Object, Verdict, Write};

/// Writes what differs between the claimant and its addresses. Returns whether anything did. `besides` is what it
/// asks for and does not get.
pub(super) fn project(
    state: &mut State,
    claimant: &Claimant,
    addresses: &[IpAddr],
    besides: Option<&Verdict>,
) -> bool {
    match claimant {
        Claimant::Service(service) => project_service(state, service, addresses),
        Claimant::Eip(binding) => project_eip(state, claimant, binding, addresses, besides),
    }
}

fn project_service(state: &mut State, service: &Service, addresses: &[IpAddr]) -> bool {
    let annotated = service.annotation().addresses().eq(addresses.iter().copied())
        || service.is_served_by_field(addresses);
    let field = service.field().addresses().next() == addresses.first().copied();
    if annotated && field && service.labelled && service.has_finalizer() {
        return false;
    }
    let pools = state.cluster.ledger.pools();
    // Of who was served before, whoever gave it the address has decided; a status of another provider's says nothing of that.
    let is_served =
        service.labelled || addresses.iter().any(|address| service.published.contains(address));
    let interface =
        pools.interface(&service.key.namespace).filter(|_| !service.has_interface && !is_served);
    let change = Change {
        addresses: addresses.to_vec(),
        annotates: !annotated,
        interface: interface.map(str::to_owned),
        finalizers: service.finalizers,
        is_news: !service.labelled || state.said.is_fresh(&Id::service(&service.key)),
    };
    let Service { key, uid, version, .. } = service.clone();
    state.traffic.start(Write::PatchService { key, uid, version, change });
    true
}

fn project_eip(
    state: &mut State,
    claimant: &Claimant,
    binding: &Binding,
    addresses: &[IpAddr],
    besides: Option<&Verdict>,
) -> bool {
    let allocated = match besides {
        Some(Verdict { reason, message, .. }) => {
            let keeps = address::format(addresses.iter().copied());
            let message = format!("{message}; it keeps {keeps}");
            Verdict { allocated: true, reason, message }
        }
        None => content(state, claimant, &binding.owner(), addresses),
    };
    let families: Vec<Family> = addresses.iter().copied().map(Family::of).collect();
    let place = state.cluster.placement(binding, &families);
    if let Some(place) = &place {
        state.cluster.machines.remember(binding, place.is_ok());
    }
    let decided = decided(binding, addresses, allocated, place.as_ref(), &state.liveness);
    show(state, binding, decided, place.and_then(Result::err))
}

/// Starts the write if the status says anything else. Returns whether it does.
pub(super) fn show(
    state: &mut State,
    binding: &Binding,
    decided: Decided,
    unplaced: Option<Unplaced>,
) -> bool {
    if binding.shows(&decided) {
        return false;
    }
    let news = news(state, binding, &decided, unplaced);
    let Binding { key, uid, version, .. } = binding.clone();
    state.traffic.start(Write::ApplyEip { key, uid, version, decided, news });
    true
}

/// What is worth telling once this is written.
fn news(
    state: &State,
    binding: &Binding,
    decided: &Decided,
    unplaced: Option<Unplaced>,
) -> Vec<News> {
    let mut news = Vec::new();
    let mut tell = |is_warning, reason, note| news.push(News { is_warning, reason, note });
    if binding.eips != decided.eips {
        if decided.eips.is_empty() {
            let note = address::format(binding.eips.iter().copied());
            tell(false, reason::ADDRESS_RELEASED, note);
        } else {
            tell(false, reason::ADDRESS_ALLOCATED, state.cluster.given(&decided.eips));
        }
    }
    if let (Some(from), Some(to)) = (&binding.node, &decided.node)
        && from != to
    {
        tell(false, reason::MOVED, format!("from {from} to {to}"));
    }
    let shown = binding.condition(eip::condition::READY).map(|shown| shown.reason.as_str());
    let [_, ready] = &decided.conditions;
    if ready.reason == reason::NO_ANNOUNCER && shown != Some(&*ready.reason) {
        tell(true, reason::NO_ANNOUNCER, ready.message.clone());
    }
    if let Some(unplaced) = unplaced.filter(|unplaced| shown != Some(unplaced.reason())) {
        tell(unplaced.is_warning(), unplaced.reason(), unplaced.to_string());
    }
    news
}

/// Writes verdicts when nobody waits for an address, and looks at no more of them than `turns`, of which it leaves the rest.
pub(super) fn poll_verdicts(state: &mut State, now: Duration, slots: usize, turns: &mut usize) {
    while state.agenda.is_empty() && state.traffic.started() < slots && *turns > 0 {
        let Some(id) = state.said.verdicts.next() else { return };
        *turns -= 1;
        show_verdict(state, &id, now);
    }
}

/// Writes a verdict that is late, if it is its turn among those who wait for addresses. Returns whether it was.
pub(super) fn poll_late(state: &mut State, now: Duration) -> bool {
    let late = state.said.verdicts.next_late(now);
    late.is_some_and(|id| {
        show_verdict(state, &id, now);
        true
    })
}

fn show_verdict(state: &mut State, id: &Id, now: Duration) {
    let object = Object::Claimant(id.clone());
    if state.traffic.is_held_up(&object, now) {
        let until = state.traffic.held_up_until(&object, now).unwrap_or(now + PAUSE);
        return state.said.verdicts.park(id, until);
    }
    let claimant = state.cluster.claimants.get(id);
    match claimant.zip(state.said.verdicts.of(id).cloned()) {
        Some((Claimant::Service(service), verdict)) => {
            state.traffic.start(patch_status(service, verdict));
            state.said.verdicts.park(id, now + PAUSE);
        }
        Some((Claimant::Eip(binding), verdict)) => {
            let binding = binding.clone();
            state.said.shown(id);
            show_refusal(state, &binding, verdict);
        }
        None => state.said.shown(id),
    }
}

fn patch_status(service: &Service, verdict: Verdict) -> Write {
    Write::PatchStatus {
        uid: service.uid.clone(),
        version: service.version.clone(),
        key: service.key.clone(),
        verdict,
    }
}

/// Shows that the binding has no address, and why.
fn show_refusal(state: &mut State, binding: &Binding, verdict: Verdict) {
    let decided = match verdict.reason {
        // What it was given in another life stays as it is, until somebody decides.
        reason::ADDRESS_CONFLICT => decided(binding, &binding.eips, verdict, None, &state.liveness),
        _ => decided(binding, &[], verdict, None, &state.liveness),
    };
    show(state, binding, decided, None);
}
