//! Owns that a Service is told when nobody announces it: no announcer lives, or not the one that had it, or none has said
//! anything of it for a minute. What announcers say in the same condition stays, but for the word of those who live no more.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::eip;
use berth_api::names::{annotation, condition, label};
use berth_api::reason;
use berth_ipam::Family;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::liveness::{GONE, Life};
use super::silences::Silences;
use super::state::State;
use crate::claimant::{Claimant, Id};
use crate::service::{Service, Standing};
use crate::write::{Object, Silence, Write};

/// How long a Service may have its addresses before somebody says who announces them.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the condition is to say.
enum Word {
    /// What it says.
    Stays,
    /// Nothing of ours.
    Nothing,
    Says(Silence),
}

/// This process begins to lead.
pub(super) fn begin(state: &mut State, now: Duration) {
    state.liveness.begin(now);
    state.silences = Silences::default();
}

/// Takes in what a Service says of who announces it, before it is known.
pub(super) fn hear(state: &mut State, service: &Service, now: Duration) {
    let id = Id::service(&service.key);
    let Some(Claimant::Service(before)) = state.cluster.claimants.get(&id) else { return };
    let (host, published) = (&service.host, &service.published);
    if (&before.host, &before.published) == (host, published) {
        return;
    }
    // Only controllers write a status.
    let owner = service.owner();
    let mut gained = published.iter().filter(|address| !before.published.contains(address));
    let has_gained = gained.any(|address| state.cluster.is_holder(*address, &owner));
    let is_anothers = !service.is_silent() && state.liveness.is_silent_at(host.as_deref(), now);
    state.silences.is_of_others(&id, is_anothers);
    if has_gained && state.liveness.published(now) {
        state.silences.hear_at_once();
    }
}

/// Looks at all again if other announcers live than before.
pub(super) fn wake(state: &mut State, now: Duration) {
    if state.liveness.advance(now) {
        state.silences.hear();
    }
    if !state.silences.begin_review(now) {
        return;
    }
    let claimants = std::mem::take(&mut state.cluster.claimants);
    for (id, claimant) in &claimants {
        match claimant {
            Claimant::Service(service) => judge(state, service, now),
            Claimant::Eip(binding) => {
                let ready = binding.condition(eip::condition::READY);
                let is_told = ready.is_some_and(|shown| shown.reason == reason::NO_ANNOUNCER);
                let node = binding.node.as_deref();
                let is_news = match node.map_or(Life::Untold, |node| state.liveness.of(node)) {
                    Life::Gone => !is_told,
                    Life::Waits => false,
                    Life::Untold | Life::Lives => is_told,
                };
                if is_news {
                    state.agenda.at(now, Object::Claimant(id.clone()));
                }
            }
        }
    }
    state.cluster.claimants = claimants;
}

/// Sees to it that the Service is told.
pub(super) fn judge(state: &mut State, service: &Service, now: Duration) {
    let id = Id::service(&service.key);
    let shown = service.condition(condition::ANNOUNCED);
    let open = match word(state, &id, service, now) {
        Word::Says(silence) if !says(shown, &silence) => Some(Some(silence)),
        // What is being deleted is gone with our finalizer, unless another one holds it.
        Word::Nothing
            if service.says_silence() && !(service.deleting && service.has_finalizer()) =>
        {
            Some(None)
        }
        _ => None,
    };
    state.silences.open(id, open);
}

fn says(shown: Option<&Condition>, silence: &Silence) -> bool {
    shown.is_some_and(|shown| {
        (shown.status.as_str(), shown.reason.as_str(), &shown.message)
            == ("False", silence.reason, &silence.message)
    })
}

fn word(state: &mut State, id: &Id, service: &Service, now: Duration) -> Word {
    if service.standing != Standing::Ours || service.deleting || !is_given(state, service) {
        state.silences.end(id);
        return Word::Nothing;
    }
    let (liveness, host) = (&state.liveness, service.host.as_deref());
    let shown = service.condition(condition::ANNOUNCED);
    let is_told =
        service.says_silence() && shown.is_some_and(|shown| shown.reason == reason::NO_ANNOUNCER);
    let lives = [liveness.of_all(), host.map_or(Life::Untold, |host| liveness.of(host))];
    let is_announced = liveness.is_stranger_there() || state.silences.has_others(id);
    if lives.contains(&Life::Waits) && is_told && !is_announced {
        return Word::Stays;
    }
    if lives.contains(&Life::Gone) && !is_announced {
        state.silences.end(id);
        let host = host.filter(|_| lives[0] != Life::Gone);
        let (message, is_news) = (no_announcer(host), !is_told);
        return Word::Says(Silence { reason: reason::NO_ANNOUNCER, message, is_news });
    }
    let awaited = awaited(service);
    let is_silent = service.is_silent() || awaited.is_some();
    if !is_silent || shown.is_some() && !service.says_silence() {
        state.silences.end(id);
        return Word::Nothing;
    }
    let since = state.silences.begin(id, now);
    if since + PATIENCE <= now || service.says_silence() && !is_told {
        let is_news = !service.says_silence() || is_told;
        let (reason, message) = (reason::UNANNOUNCED, unannounced(awaited));
        return Word::Says(Silence { reason, message, is_news });
    }
    state.agenda.at(since + PATIENCE, Object::Claimant(id.clone()));
    Word::Nothing
}

/// Whether it has addresses that somebody is to announce, or is to find by DHCP.
fn is_given(state: &State, service: &Service) -> bool {
    let owner = service.owner();
    let mut held = state.cluster.ledger.held(&owner);
    held.any(|address| state.cluster.is_holder(address, &owner)) || awaited(service).is_some()
}

/// What stands for an address that DHCP is to find, while the status shows none of that family.
fn awaited(service: &Service) -> Option<IpAddr> {
    let has = |family| service.published.iter().any(|shown| Family::of(*shown) == family);
    let list = service.annotation();
    let mut markers = list.addresses().filter(|address| address.is_unspecified());
    markers.find(|marker| service.labelled && !has(Family::of(*marker)))
}

/// That no announcer lives, or not the one of the node that the Service names.
fn no_announcer(host: Option<&str>) -> String {
    let (seconds, all) = (GONE.as_secs(), label::HOST);
    match host {
        Some(host) => format!(
            "`{}` names node {host}, whose announcer has not renewed its Lease for {seconds} s: see to its pod there",
            annotation::VIP_HOST
        ),
        None => format!(
            "no announcer lives: of the Leases with the label {all} none was renewed for {seconds} s: see to the DaemonSet \
             berth-announcer and its pods; if another program announces, delete these Leases"
        ),
    }
}

/// That nobody has said anything of its addresses, or found the one that DHCP is to find.
fn unannounced(awaited: Option<IpAddr>) -> String {
    let (seconds, host) = (PATIENCE.as_secs(), annotation::VIP_HOST);
    match awaited {
        Some(marker) => format!(
            "{marker} asks for DHCP, and for {seconds} s no announcer has published an address that a server gave: those \
             of Berth ask none yet"
        ),
        None => format!(
            "it has had its addresses for {seconds} s, and no announcer has said anything of them: neither `{host}` nor \
             the status is written; its Events and the announcers may say more"
        ),
    }
}

/// Writes what is to be said when nobody waits for anything else, and looks at no more than `turns`, of which it leaves the
/// rest.
pub(super) fn poll(state: &mut State, now: Duration, slots: usize, turns: &mut usize) {
    if state.liveness.doubts() && !state.traffic.is_held_up(&Object::Hosts, now) {
        state.traffic.start(Write::ListHosts);
    }
    if state.agenda.is_empty() {
        say(state, now, slots, turns);
    }
}

/// Writes one where none was written for a while: who has work done without end would keep all others untold.
pub(super) fn poll_late(state: &mut State, now: Duration, slots: usize) {
    if state.silences.are_late(now) {
        say(state, now, slots, &mut 1);
    }
}

fn say(state: &mut State, now: Duration, slots: usize, turns: &mut usize) {
    let may = |id: &Id| !state.traffic.is_held_up(&Object::Claimant(id.clone()), now);
    for id in state.silences.in_turn(*turns, may) {
        if state.traffic.started() >= slots {
            return;
        }
        *turns -= 1;
        let Some(Claimant::Service(service)) = state.cluster.claimants.get(&id) else {
            state.silences.gone(&id);
            continue;
        };
        let Service { key, uid, version, .. } = service.clone();
        let silence = state.silences.is_open(&id).cloned();
        state.silences.has_turn(&id, now);
        state.traffic.start(Write::PatchAnnounced { key, uid, version, silence });
    }
}
