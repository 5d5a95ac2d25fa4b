//! Owns what follows from the outcome of a write.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::reason;
use berth_ipam::{Owner, OwnerKind};

use super::configure::reserve;
use super::holders::unclaim;
use super::observe::{apply, apply_claim, remove_claimant};
use super::state::State;
use super::traffic::PAUSE;
use crate::claimant::{Claimant, Id};
use crate::write::{Change, News, Object, Outcome, Silence, Write};

/// How long to leave an address alone that another controller has.
const FOREIGN: Duration = Duration::from_secs(600);

/// Takes in what became of a write.
pub(super) fn settle(state: &mut State, write: &Write, outcome: Outcome, now: Duration) {
    let object = write.object();
    state.traffic.end(&object);
    match &outcome {
        // A server that says when to come back is not asked to wait for longer each time.
        Outcome::Throttled(pause) => hold_up(state, object, 1, *pause, now),
        Outcome::Unknown(_) => back_off(state, object, now),
        Outcome::Refused(why) => {
            refused(state, object, now);
            tell_refused(state, write, why);
        }
        _ => state.traffic.resume(&object),
    }
    match write {
        Write::CreateClaim { address, owner, .. } => {
            settle_claim(state, *address, None, owner, outcome, now);
        }
        Write::JoinClaim { address, uid, owner, .. } => {
            settle_claim(state, *address, Some(uid), owner, outcome, now);
        }
        Write::LeaveClaim { address, uid, owner, .. } => {
            settle_leave(state, *address, uid, owner, outcome, now);
        }
        Write::PatchService { key, uid, version, change } => {
            if let Outcome::Claimant(claimant) = &outcome {
                patched(state, claimant, change, now);
            }
            settle_claimant(state, &Id::service(key), Some(uid), version, outcome, now);
        }
        Write::PatchStatus { key, uid, version, .. } => {
            let id = Id::service(key);
            if let Outcome::Claimant(_) = &outcome {
                state.said.shown(&id);
            }
            settle_claimant(state, &id, Some(uid), version, outcome, now);
        }
        Write::PatchAnnounced { key, uid, version, silence } => {
            let id = Id::service(key);
            if let Outcome::Claimant(service) = &outcome {
                state.silences.said(&id);
                if let Some(Silence { reason, message, is_news: true }) = silence {
                    state.said.report(service, true, reason, message.clone());
                }
            }
            settle_claimant(state, &id, Some(uid), version, outcome, now);
        }
        Write::ListHosts => {
            if let Outcome::Hosts(leases) = &outcome {
                heard(state, leases, now);
            }
        }
        Write::PatchEip { key, uid, version, .. } => {
            settle_claimant(state, &Id::eip(key), Some(uid), version, outcome, now);
        }
        Write::ApplyEip { key, uid, version, decided, news } => {
            if let Outcome::Claimant(claimant) = &outcome {
                applied(state, claimant, !decided.eips.is_empty(), news, now);
            }
            settle_claimant(state, &Id::eip(key), Some(uid), version, outcome, now);
        }
        Write::Read { id } => settle_claimant(state, id, None, "", outcome, now),
    }
    if let Object::Claim(address) = write.object() {
        if let Some(claim) = state.cluster.claims.get(&address)
            && state.claiming.has_ended(&claim.uid)
        {
            unclaim(state, address, now);
        }
        // Who has the address, or wants it, may have waited for this write, whoever it was for.
        state.traffic.take_queue(address).iter().for_each(|id| state.touch(id));
    }
}

/// The owner was to come to hold the address: in a claim of its own, or in the one with this uid.
fn settle_claim(
    state: &mut State,
    address: IpAddr,
    joined: Option<&str>,
    owner: &Owner,
    outcome: Outcome,
    now: Duration,
) {
    match outcome {
        // Did the ledger hold it for somebody else, the claim now ends that.
        Outcome::Claimed(claim) | Outcome::Taken(Some(claim)) => apply_claim(state, claim, now),
        Outcome::Taken(None) => {
            state.adoption.open.remove(address, owner);
            state.abandon(address, owner);
            state.claiming.leave_to_others(address, now + FOREIGN);
            state.agenda.at(now + FOREIGN, Object::Claim(address));
            reserve_foreign(state);
        }
        Outcome::Released => {
            joined.into_iter().for_each(|uid| bury(state, address, uid, now));
        }
        Outcome::Throttled(_) | Outcome::Unknown(_) if !state.cluster.is_owner_unseen(owner) => {}
        Outcome::Refused(_) => {
            // Whoever gets the address next may be accepted.
            state.traffic.resume(&Object::Claim(address));
            state.adoption.open.remove(address, owner);
            state.abandon(address, owner);
            refused(state, Object::Claimant(Id::from(owner)), now);
        }
        _ => {
            if !state.cluster.is_holder(address, owner) {
                state.abandon(address, owner);
            }
        }
    }
    state.touch_owner(owner);
}

fn settle_leave(
    state: &mut State,
    address: IpAddr,
    uid: &str,
    owner: &Owner,
    outcome: Outcome,
    now: Duration,
) {
    match outcome {
        Outcome::Released => bury(state, address, uid, now),
        Outcome::Claimed(claim) | Outcome::Taken(Some(claim)) => apply_claim(state, claim, now),
        // It is left loose, and so asked for again.
        Outcome::Claimant(claimant) if is_over(state, &claimant) => {}
        Outcome::Claimant(claimant) => {
            state.departures.tie(address, owner.clone());
            apply(state, *claimant, now);
        }
        _ => {}
    }
    state.touch_owner(owner);
}

/// Whether it is gone by now: the watch may have shown that before this answer came, and shows it no more.
fn is_over(state: &State, claimant: &Claimant) -> bool {
    claimant.is_gone() || state.endings.has(&claimant.id().key.namespace, claimant.uid())
}

/// The claim with this uid is gone, which the watch may already have shown, or will.
fn bury(state: &mut State, address: IpAddr, uid: &str, now: Duration) {
    if state.cluster.claims.get(&address).is_some_and(|claim| claim.uid == uid) {
        state.claiming.bury(uid);
        unclaim(state, address, now);
    }
}

fn settle_claimant(
    state: &mut State,
    id: &Id,
    uid: Option<&str>,
    version: &str,
    outcome: Outcome,
    now: Duration,
) {
    let known = state.cluster.claimants.get(id);
    match outcome {
        Outcome::Claimant(claimant) if is_over(state, &claimant) => {
            remove_claimant(state, id, Some(claimant.uid()), now);
        }
        Outcome::Claimant(claimant) => {
            state.said.accepted(id);
            apply(state, *claimant, now);
        }
        Outcome::Missing => remove_claimant(state, id, uid, now),
        // The watch brings the newer version in a moment; if not, it is read.
        Outcome::Conflict if known.is_some_and(|known| known.version() == version) => {
            state.traffic.outdated(id, version);
            hold_up(state, Object::Claimant(id.clone()), 0, PAUSE, now);
        }
        _ => {}
    }
    state.touch(id);
}

/// The Leases of announcers are like this, as a list shows.
fn heard(state: &mut State, leases: &[(String, String)], now: Duration) {
    let listed: BTreeSet<&String> = leases.iter().map(|(node, _)| node).collect();
    let gone: Vec<String> =
        state.liveness.nodes().filter(|node| !listed.contains(node)).cloned().collect();
    for (node, renewed) in leases {
        state.liveness.hear(node, Some(renewed), now);
    }
    gone.iter().for_each(|node| _ = state.liveness.hear(node, None, now));
    state.liveness.confirm();
    state.silences.hear_at_once();
}

/// The Service now has these addresses, or none. The watch may have shown it before the answer came.
fn patched(state: &mut State, service: &Claimant, change: &Change, now: Duration) {
    let addresses = &change.addresses;
    served(state, &service.id(), !addresses.is_empty(), now);
    match (change.is_news, addresses.is_empty()) {
        (false, _) => {}
        (true, true) => {
            let note = "the Service is not, or not any more, one that Berth serves".to_owned();
            state.said.report(service, false, reason::ADDRESS_RELEASED, note);
        }
        (true, false) => {
            let note = state.cluster.given(addresses);
            state.said.report(service, false, reason::ADDRESS_ALLOCATED, note);
        }
    }
}

/// The status of the EipBinding now says what was decided.
fn applied(
    state: &mut State,
    binding: &Claimant,
    has_addresses: bool,
    news: &[News],
    now: Duration,
) {
    let id = binding.id();
    state.said.shown(&id);
    served(state, &id, has_addresses, now);
    for News { is_warning, reason, note } in news {
        match *reason {
            reason::ADDRESS_ALLOCATED => state.said.unsay(&id),
            reason::MOVED => state.figures.moved(),
            _ => {}
        }
        state.said.report(binding, *is_warning, reason, note.clone());
    }
}

/// What was decided about the addresses of this claimant is written: it has some, or none.
fn served(state: &mut State, id: &Id, has_addresses: bool, now: Duration) {
    let is_service = id.kind == OwnerKind::Service;
    if is_service {
        state.said.unsay(id);
    }
    match has_addresses {
        true => state.figures.serve(id, now),
        // What is written to an EipBinding may also be why it has none.
        false if is_service => state.figures.forget(id),
        false => {}
    }
    state.said.written(id);
    if !has_addresses {
        state.departures.stay(id);
    }
}

/// Waits before the object is written again: longer after each failure in a row.
fn back_off(state: &mut State, object: Object, now: Duration) {
    let until = state.traffic.back_off(object.clone(), now);
    state.agenda.at(until, object);
}

/// Waits much longer, as the API server will refuse it again.
fn refused(state: &mut State, object: Object, now: Duration) {
    let until = state.traffic.refused(object.clone(), now);
    state.agenda.at(until, object);
}

/// Tells the object that was to be written, or whose claim was, why that is not done: once, until something is.
fn tell_refused(state: &mut State, write: &Write, why: &str) {
    let id = match (write, write.object()) {
        (_, Object::Claimant(id)) => id,
        (Write::CreateClaim { owner, .. } | Write::JoinClaim { owner, .. }, _) => Id::from(owner),
        _ => return,
    };
    let Some(claimant) = state.cluster.claimants.get(&id).cloned() else { return };
    if state.said.denied(&id) {
        let note =
            format!("the API server refuses: {write}: {why}; it is tried again ever more rarely");
        state.said.report(&claimant, true, reason::WRITE_REFUSED, note);
    }
}

/// Waits for so long before the object is written again.
fn hold_up(state: &mut State, object: Object, tries: u32, pause: Duration, now: Duration) {
    let until = state.traffic.pause(object.clone(), tries, pause, now);
    state.agenda.at(until, object);
}

/// Looks again at an address that another controller has, once it was left alone for long enough.
pub(super) fn expire_foreign(state: &mut State, address: IpAddr, now: Duration) {
    if state.claiming.is_over(address, now) {
        reserve_foreign(state);
    }
}

fn reserve_foreign(state: &mut State) {
    let set = state.claiming.of_others();
    reserve(state, "an IPAddress of another controller", set);
}
