//! Owns the way to an address: claim first, then the Service or EipBinding. What is held is kept unless its user asks.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::limits::LONGEST_LIST;
use berth_api::names::annotation;
use berth_api::reason;
use berth_api::{Quoted, address};
use berth_ipam::{
    self as ipam, Allocation, Assigned, Families, Family, Origin, Owner, Refusal, Request, Sharing,
};

use super::adopt::is_conflicted;
use super::agenda::Turn;
use super::aside::shun;
use super::offers::shown;
use super::release::leave;
use super::show::project;
use super::state::State;
use super::traffic::PAUSE;
use super::verdict::{content, judge, refuse, refused as why};
use crate::claim::Basis;
use crate::claimant::Claimant;
use crate::service::Service;
use crate::write::{Object, Verdict};

/// What one pass has found hopeless, so that thousands that wait for the same pool are not worked out one by one.
#[derive(Debug, Default)]
pub(super) struct Hopeless(BTreeMap<(String, String), Verdict>);

impl Hopeless {
    fn key(
        namespace: &str,
        families: &Families,
        sharing: Option<(&Sharing, Option<u64>)>,
    ) -> (String, String) {
        (namespace.to_owned(), format!("{families:?} {sharing:?}"))
    }
}

/// What a claimant is to do that is to have addresses.
pub(super) fn allocate(
    state: &mut State,
    claimant: &Claimant,
    now: Duration,
    hopeless: &mut Hopeless,
) {
    let id = claimant.id();
    state.departures.stay(&id);
    let turn: Turn = (claimant.created(), id);
    let owner = claimant.owner();
    let held: BTreeSet<IpAddr> = state.cluster.ledger.held(&owner).collect();
    if let Some(busy) = held.iter().find(|held| state.traffic.is_busy(&Object::Claim(**held))) {
        state.traffic.queue(*busy, turn.1);
        return;
    }
    let shuns = shun(state, claimant, &owner, &held, now);
    let asking = asking(state, claimant, held.is_empty());
    let mut pins = asking.pins(&held, |new, old| state.cluster.is_newer_claim(new, old, &owner));
    pins.retain(|pin| !shuns.contains(pin));
    if let Claimant::Service(service) = claimant
        && let Some(verdict) = unreadable(service)
    {
        if held.is_empty() && pins.is_empty() {
            return refuse(state, turn, claimant, verdict);
        }
        state.said.tell(claimant, &verdict);
    }
    if is_conflicted(state, claimant, &owner) {
        return;
    }
    let fresh = held.is_empty() && pins.is_empty();
    let may_share = state.cluster.ledger.pools().allows_sharing(&owner.namespace);
    let sharing = claimant.sharing().filter(|_| may_share).map(|own| (own, claimant.pods()));
    let shape = Hopeless::key(&owner.namespace, claimant.families(), sharing);
    // What the owner's former self gave back may be excused of the quota, for it alone.
    let alike = fresh && !state.cluster.ledger.has_rested(&owner);
    if alike && let Some(verdict) = hopeless.0.get(&shape).cloned() {
        return refuse(state, turn, claimant, verdict);
    }
    let asks = pins.iter().any(|pin| !pin.is_unspecified() && !held.contains(pin));
    let request = Request {
        owner: owner.clone(),
        families: claimant.families().clone(),
        pins,
        sharing: claimant.sharing().cloned(),
        current: claimant.current(),
        shuns,
    };
    let mut offered = match claimant {
        Claimant::Service(service) => state.cluster.offers.to(&service.uid, &held),
        Claimant::Eip(_) => BTreeMap::new(),
    };
    match ipam::allocate(&state.cluster.ledger, &request) {
        Ok(allocation) => {
            state.agenda.wait_no_more(&turn);
            let allocation = take_offers(state, request, allocation, &mut offered);
            carry_out(state, claimant, &owner, allocation, &offered, now);
        }
        Err(refusal) => {
            let verdict = why(state, &refusal);
            if alike {
                hopeless.0.insert(shape, verdict.clone());
            }
            match (held.is_empty(), asks) {
                (false, true) => state.said.tell(claimant, &verdict),
                (true, _) | (false, false) => refuse(state, turn, claimant, verdict.clone()),
            }
            if !held.is_empty() {
                let asks = claimant.current();
                offered.retain(|family, _| asks.contains(&family.dhcp_marker()));
                let kept = shown(&offered, &kept(claimant, &held));
                project(state, claimant, &kept, Some(&verdict));
            }
        }
    }
}

/// The claimant as it asks: a Service without its deprecated field, where that says what it said when the Service had no address.
/// The annotation was the one then, as with kube-vip, which goes by that alone; only an edit of the field is a request
/// (kube-vip#574, library-charts#650).
fn asking<'c>(state: &mut State, claimant: &'c Claimant, has_none: bool) -> Cow<'c, Claimant> {
    let Claimant::Service(service) = claimant else { return Cow::Borrowed(claimant) };
    if has_none {
        state.adoption.note_field(service);
    }
    match state.adoption.has_noted_field(service) {
        true => Cow::Owned(Claimant::Service(Service { deprecated: None, ..service.clone() })),
        false => Cow::Borrowed(claimant),
    }
}

/// Where DHCP is to find an address, and a node offers the one that it was given, that is asked for as any pin is. What is
/// refused is told, and DHCP goes on. Leaves those of `offered` that are to be had.
fn take_offers(
    state: &State,
    request: Request,
    allocation: Allocation,
    offered: &mut BTreeMap<Family, IpAddr>,
) -> Allocation {
    let by_dhcp = allocation.addresses.iter().filter(|assigned| assigned.origin == Origin::Dhcp);
    let by_dhcp: BTreeSet<Family> = by_dhcp.map(|assigned| Family::of(assigned.address)).collect();
    offered.retain(|family, _| by_dhcp.contains(family));
    if offered.is_empty() {
        return allocation;
    }
    let others = request.pins.iter().filter(|pin| !offered.contains_key(&Family::of(**pin)));
    let pins = others.chain(offered.values()).copied().collect();
    match ipam::allocate(&state.cluster.ledger, &Request { pins, ..request }) {
        Ok(taken) => {
            let has = |address: &IpAddr| taken.addresses.iter().any(|one| one.address == *address);
            offered.retain(|_, address| has(address));
            taken
        }
        Err(refusal) => {
            offered.clear();
            let mut allocation = allocation;
            allocation.refused.push(refusal);
            allocation
        }
    }
}

fn carry_out(
    state: &mut State,
    claimant: &Claimant,
    owner: &Owner,
    allocation: Allocation,
    offered: &BTreeMap<Family, IpAddr>,
    now: Duration,
) {
    let id = claimant.id();
    let Allocation { addresses, released, refused } = allocation;
    for refusal in &refused {
        let verdict = why(state, refusal);
        match refusal {
            // The second family of PreferDualStack: welcome, but nothing to complain about.
            Refusal::PoolExhausted { .. }
            | Refusal::PoolDraining { .. }
            | Refusal::QuotaExceeded { .. }
            | Refusal::FamilyUnavailable { .. }
            | Refusal::NoPool { .. } => {
                let partly = Verdict { allocated: true, ..verdict };
                state.agenda.wait((claimant.created(), id.clone()), partly);
            }
            // It wants ports that another has at the address which it keeps, or more than there is room for.
            Refusal::AddressInUse { address, .. } | Refusal::AddressFull { address, .. }
                if state.cluster.is_holder(*address, owner) =>
            {
                state.said.tell(claimant, &verdict);
                let partly = Verdict { allocated: true, ..verdict };
                state.agenda.wait((claimant.created(), id.clone()), partly);
            }
            _ => state.said.tell(claimant, &verdict),
        }
    }
    let mut whole = true;
    for Assigned { address, origin, pool, .. } in &addresses {
        if *origin == Origin::Dhcp || state.cluster.is_settled(*address, claimant, owner) {
            continue;
        }
        if *origin == Origin::Kept && !state.cluster.fits(*address, claimant, owner) {
            continue;
        }
        whole = false;
        let object = Object::Claim(*address);
        if state.traffic.is_busy(&object) {
            state.traffic.queue(*address, id.clone());
            continue;
        }
        let sharing = claimant.sharing();
        if state.traffic.is_held_up(&object, now)
            || state.cluster.hold(*address, owner, sharing.cloned(), pool.clone()).is_err()
        {
            let again = state.traffic.held_up_until(&object, now).unwrap_or(now + PAUSE);
            state.agenda.at(again, Object::Claimant(id.clone()));
            continue;
        }
        state.claiming.pending.insert(*address, owner);
        let basis = if *origin == Origin::Pinned { Basis::Pinned } else { Basis::Given };
        let write = state.cluster.claim_write(*address, owner, sharing, pool.clone(), basis);
        state.traffic.start(write);
    }
    let addresses: Vec<IpAddr> = addresses.iter().map(|assigned| assigned.address).collect();
    if whole && !project(state, claimant, &shown(offered, &addresses), None) {
        if refused.is_empty() {
            let verdict = content(state, claimant, owner, &addresses);
            judge(state, claimant, verdict);
        }
        for address in released {
            give_back(state, claimant, owner, address, now);
        }
    }
}

/// Gives back an address that the claimant has moved away from, once the announcer has done so too.
fn give_back(
    state: &mut State,
    claimant: &Claimant,
    owner: &Owner,
    address: IpAddr,
    now: Duration,
) {
    let patient = state.departures.move_away(address, claimant.id(), now);
    if claimant.may_answer_for(address) && now < patient {
        state.agenda.at(patient, Object::Claimant(claimant.id()));
        return;
    }
    if matches!(claimant, Claimant::Eip(_)) && claimant.may_answer_for(address) {
        state.departures.unheard(address, owner.clone());
    }
    leave(state, address, owner, now);
}

/// What a Service's list has that is no address, for people.
fn unreadable(service: &Service) -> Option<Verdict> {
    let places = [
        (format!("annotation `{}`", annotation::LOADBALANCER_IPS), &service.annotated),
        ("`spec.loadBalancerIP`".to_owned(), &service.deprecated),
    ];
    let found = places.iter().find_map(|(place, text)| {
        let text = text.as_deref()?;
        let list = address::List::parse(text);
        let problem = match list.unreadable().next() {
            Some(entry) => format!("{} is no address", Quoted::of(entry)),
            None if list.addresses().next().is_none() && !list.is_empty() => {
                "a host name is no address".to_owned()
            }
            None => return None,
        };
        let text = Quoted::of(text);
        Some(format!("{place}: value {text} is not accepted: {problem}"))
    });
    let found = found.or_else(|| {
        let count = Some(service.left_out).filter(|count| *count > 0)?;
        let (annotated, deprecated) = (&places[0].0, &places[1].0);
        Some(format!(
            "{annotated} or {deprecated}: {count} entries are passed over, for it has more than {LONGEST_LIST} octets"
        ))
    })?;
    let message = format!("{found}; accepted are IPv4 and IPv6 addresses, separated by commas");
    Some(Verdict { allocated: false, reason: reason::INVALID_ADDRESS, message })
}

/// The addresses that a claimant keeps: one of each family, in order; of two, the one that it has written.
fn kept(claimant: &Claimant, held: &BTreeSet<IpAddr>) -> Vec<IpAddr> {
    let annotated: Vec<IpAddr> =
        claimant.current().into_iter().filter(|address| held.contains(address)).collect();
    let all = || annotated.iter().chain(held).copied();
    let first = claimant.families().wanted().first().copied().unwrap_or(Family::V4);
    [first, first.other()]
        .into_iter()
        .filter_map(|family| all().find(|address| Family::of(*address) == family))
        .collect()
}
