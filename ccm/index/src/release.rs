//! Owns the way back: wait until the announcer is silent, delete the claim, let the Service go. In this order an
//! address is never given to somebody else while it may still answer for the old Service.

use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::Owner;

use super::state::State;
use crate::claimant::Id;
use crate::service::{Service, Standing};
use crate::write::{Change, Object, Write};

/// What a Service is to do that is to have no address.
pub(super) fn release(state: &mut State, service: &Service, now: Duration) {
    let id = Id::service(&service.key);
    let owner = service.owner();
    state.agenda.wait_no_more(&(service.created, id.clone()));
    state.said.shown(&id);
    let holds = state.cluster.holds_any(&owner);
    // Of another class, or where it asks to be ignored, the finalizer is another controller's, but where the label says that it
    // is ours, or it held what we gave: its user may have taken the label away.
    let was_ours = service.labelled || state.departures.is_leaving(&id);
    let is_marked = match service.standing {
        Standing::Ours => service.has_finalizer(),
        Standing::Ignored => was_ours && service.has_finalizer(),
        Standing::Foreign => {
            service.labelled && service.annotated.is_some() || was_ours && service.has_finalizer()
        }
    };
    if !holds && !is_marked {
        state.departures.stay(&id);
        return;
    }
    let patient = state.departures.leave(id.clone(), now);
    if holds && !service.is_silent() && now < patient {
        state.agenda.at(patient, Object::Claimant(id));
        return;
    }
    if leave_all(state, &owner, now) {
        let finalizers = service.finalizers;
        let is_news = !service.deleting;
        let (addresses, interface) = Default::default();
        let change = Change { addresses, annotates: true, interface, finalizers, is_news };
        let Service { key, uid, version, .. } = service.clone();
        state.traffic.start(Write::PatchService { key, uid, version, change });
    }
}

/// Gives back all that the owner holds. Returns whether it holds nothing any more.
pub(super) fn leave_all(state: &mut State, owner: &Owner, now: Duration) -> bool {
    for address in state.cluster.held(owner) {
        leave(state, address, owner, now);
    }
    !state.cluster.holds_any(owner)
}

/// Gives the address back: by a write where there is a claim.
pub(super) fn leave(state: &mut State, address: IpAddr, owner: &Owner, now: Duration) {
    if state.cluster.is_holder(address, owner) {
        leave_claim(state, address, owner, false, now);
    } else if state.traffic.is_busy(&Object::Claim(address)) {
        state.traffic.queue(address, Id::from(owner));
    } else {
        state.abandon(address, owner);
    }
}

fn leave_claim(state: &mut State, address: IpAddr, owner: &Owner, orphan: bool, now: Duration) {
    let Some(claim) = state.cluster.claims.get(&address) else { return };
    if state.traffic.is_held_up(&Object::Claim(address), now) {
        if !orphan {
            state.traffic.queue(address, Id::from(owner));
        }
        return;
    }
    state.traffic.start(Write::LeaveClaim {
        address,
        uid: claim.uid.clone(),
        version: claim.version.clone(),
        owner: owner.clone(),
        others: claim.others(owner),
        orphan,
    });
}

/// Gives back what is claimed for owners that have not been seen for a while.
pub(super) fn poll_orphans(state: &mut State, now: Duration, slots: usize) {
    let free = slots.saturating_sub(state.traffic.started());
    let lost = state.departures.lost(now);
    let lost = lost.filter(|(address, _)| !state.traffic.is_held_up(&Object::Claim(*address), now));
    let lost: Vec<(IpAddr, Owner)> =
        lost.take(free).map(|(address, owner)| (address, owner.clone())).collect();
    for (address, owner) in lost {
        if state.cluster.is_holder(address, &owner) {
            leave_claim(state, address, &owner, true, now);
        } else {
            state.departures.tie(address, owner);
        }
    }
}
