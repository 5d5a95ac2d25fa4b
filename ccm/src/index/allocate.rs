//! Owns the way to an address: claim first, then the Service or EipBinding. What is held is kept unless its user asks.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::address;
use berth_api::names::annotation;
use berth_api::reason;
use berth_ipam::{
    Allocation, Assigned, Families, Family, Origin, Owner, Refusal, Request, Sharing, allocate,
};

use super::{Index, PATIENCE, PAUSE, Turn};
use crate::claimant::{Claimant, Id};
use crate::service::Service;
use crate::write::{Change, Object, Verdict, Write};

/// What one pass has found hopeless, so that thousands that wait for the same pool are not worked out one by one.
#[derive(Debug, Default)]
pub(super) struct Hopeless(BTreeMap<(String, String), Verdict>);

impl Hopeless {
    fn key(namespace: &str, families: &Families, sharing: Option<&Sharing>) -> (String, String) {
        (namespace.to_owned(), format!("{families:?} {sharing:?}"))
    }
}

impl Index {
    pub(super) fn allocate(
        &mut self,
        claimant: &Claimant,
        now: Duration,
        hopeless: &mut Hopeless,
        writes: &mut Vec<Write>,
    ) {
        let id = claimant.id();
        self.leaving.remove(&id);
        let turn: Turn = (claimant.created(), id);
        let owner = claimant.owner();
        let held: BTreeSet<IpAddr> = self.ledger.held(&owner).collect();
        if held.iter().any(|address| self.busy.contains(&Object::Claim(*address))) {
            return;
        }
        let shuns = self.shun(claimant, &owner, &held, now);
        let mut pins = claimant.pins(&held, |new, old| self.is_newer_claim(new, old, &owner));
        pins.retain(|pin| !shuns.contains(pin));
        if let Claimant::Service(service) = claimant
            && let Some(verdict) = unreadable(service)
        {
            if held.is_empty() && pins.is_empty() {
                return self.refuse(turn, claimant, verdict);
            }
            self.tell(claimant, &verdict);
        }
        if self.is_conflicted(claimant, &owner) {
            return;
        }
        let fresh = held.is_empty() && pins.is_empty();
        let may_share = self.ledger.pools().allows_sharing(&owner.namespace);
        let sharing = claimant.sharing().filter(|_| may_share);
        let shape = Hopeless::key(&owner.namespace, claimant.families(), sharing);
        if fresh && let Some(verdict) = hopeless.0.get(&shape).cloned() {
            return self.refuse(turn, claimant, verdict);
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
        match allocate(&self.ledger, &request) {
            Ok(allocation) => {
                self.waiting.remove(&turn);
                self.carry_out(claimant, &owner, allocation, now, writes);
            }
            Err(refusal) => {
                let verdict = self.verdict(&refusal);
                if fresh {
                    hopeless.0.insert(shape, verdict.clone());
                }
                match (held.is_empty(), asks) {
                    (false, true) => self.tell(claimant, &verdict),
                    (true, _) | (false, false) => self.refuse(turn, claimant, verdict.clone()),
                }
                if !held.is_empty() {
                    let keeps = kept(claimant, &held);
                    self.project(claimant, &keeps, Some(&verdict), writes);
                }
            }
        }
    }

    fn carry_out(
        &mut self,
        claimant: &Claimant,
        owner: &Owner,
        allocation: Allocation,
        now: Duration,
        writes: &mut Vec<Write>,
    ) {
        let id = claimant.id();
        let Allocation { addresses, released, refused } = allocation;
        for refusal in &refused {
            let verdict = self.verdict(refusal);
            match refusal {
                // The second family of PreferDualStack: welcome, but nothing to complain about.
                Refusal::PoolExhausted { .. }
                | Refusal::PoolDraining { .. }
                | Refusal::QuotaExceeded { .. } => {
                    let partly = Verdict { allocated: true, ..verdict };
                    _ = self.waiting.insert((claimant.created(), id.clone()), partly);
                }
                Refusal::FamilyUnavailable { .. } | Refusal::NoPool { .. } => {
                    let partly = Verdict { allocated: true, ..verdict };
                    _ = self.waiting.insert((claimant.created(), id.clone()), partly);
                }
                _ => self.tell(claimant, &verdict),
            }
        }
        let mut whole = true;
        for Assigned { address, origin, pool, .. } in &addresses {
            if *origin == Origin::Dhcp || self.is_settled(*address, claimant, owner) {
                continue;
            }
            if *origin == Origin::Kept && !self.fits(*address, claimant, owner) {
                continue;
            }
            whole = false;
            let object = Object::Claim(*address);
            if self.busy.contains(&object) {
                self.queued.entry(*address).or_default().insert(id.clone());
                continue;
            }
            let sharing = claimant.sharing().cloned();
            if self.is_held_up(&object, now)
                || self.hold(*address, owner, sharing, pool.clone()).is_err()
            {
                let again = self.backoff.get(&object).map(|(_, until)| *until);
                let again = again.filter(|until| *until > now).unwrap_or(now + PAUSE);
                self.timers.insert((again, Object::Claimant(id.clone())));
                continue;
            }
            self.set_pending(*address, owner);
            let pinned = *origin == Origin::Pinned;
            let write = self.claim_write(*address, owner, claimant.sharing(), pool.clone(), pinned);
            self.start(write, writes);
        }
        let addresses: Vec<IpAddr> = addresses.iter().map(|assigned| assigned.address).collect();
        if whole && !self.project(claimant, &addresses, None, writes) {
            if refused.is_empty() {
                self.judge(claimant, self.content(claimant, owner, &addresses));
            }
            for address in released {
                self.give_back(claimant, owner, address, now, writes);
            }
        }
    }

    /// Gives back an address that the claimant has moved away from, once the announcer has done so too.
    fn give_back(
        &mut self,
        claimant: &Claimant,
        owner: &Owner,
        address: IpAddr,
        now: Duration,
        writes: &mut Vec<Write>,
    ) {
        let since = *self.moved.entry((address, claimant.id())).or_insert(now);
        if claimant.may_answer_for(address) && now < since + PATIENCE {
            self.timers.insert((since + PATIENCE, Object::Claimant(claimant.id())));
            return;
        }
        if matches!(claimant, Claimant::Eip(_)) && claimant.may_answer_for(address) {
            self.unheard.insert((address, owner.clone()));
        }
        if self.is_holder(address, owner) {
            self.leave_claim(address, owner, false, now, writes);
        } else if !self.busy.contains(&Object::Claim(address)) {
            self.abandon(address, owner);
        }
    }

    /// Writes what differs between the claimant and its addresses. Returns whether anything did. `besides` is what it
    /// asks for and does not get.
    fn project(
        &mut self,
        claimant: &Claimant,
        addresses: &[IpAddr],
        besides: Option<&Verdict>,
        writes: &mut Vec<Write>,
    ) -> bool {
        match claimant {
            Claimant::Service(service) => self.project_service(service, addresses, writes),
            Claimant::Eip(binding) => {
                self.project_eip(claimant, binding, addresses, besides, writes)
            }
        }
    }

    fn project_service(
        &mut self,
        service: &Service,
        addresses: &[IpAddr],
        writes: &mut Vec<Write>,
    ) -> bool {
        let annotated = service.annotation().addresses().eq(addresses.iter().copied());
        let field = service.field().addresses().next() == addresses.first().copied();
        if annotated && field && service.labelled && service.has_finalizer() {
            return false;
        }
        let pools = self.ledger.pools();
        let interface = pools
            .interface(&service.key.namespace)
            .filter(|_| !service.has_interface && !service.is_served());
        let change = Change {
            addresses: addresses.to_vec(),
            interface: interface.map(str::to_owned),
            finalizers: service.finalizers(true),
            is_news: !service.labelled || self.fresh.contains(&Id::service(&service.key)),
        };
        self.start(
            Write::PatchService {
                key: service.key.clone(),
                uid: service.uid.clone(),
                version: service.version.clone(),
                change,
            },
            writes,
        );
        true
    }

    /// Whether the claim says all there is to say: the owner has the address, and the ports it uses there.
    fn is_settled(&self, address: IpAddr, claimant: &Claimant, owner: &Owner) -> bool {
        self.claims.get(&address).is_some_and(|claim| {
            let sharing = claim.holder(owner).map(|holder| &holder.sharing);
            sharing.is_some_and(|sharing| {
                claim.holders.len() == 1 || sharing.as_ref() == claimant.sharing()
            })
        })
    }

    /// Whether the ports that the claimant has now fit beside those of the others at the address.
    fn fits(&self, address: IpAddr, claimant: &Claimant, owner: &Owner) -> bool {
        let grants = self.ledger.claim(address).map(|claim| claim.grants()).unwrap_or_default();
        grants.iter().filter(|grant| grant.owner != *owner).all(|grant| {
            let both = grant.sharing.as_ref().zip(claimant.sharing());
            both.is_some_and(|(theirs, own)| theirs.fits(own))
        })
    }

    fn is_newer_claim(&self, new: IpAddr, old: IpAddr, owner: &Owner) -> bool {
        match (self.claims.get(&new), self.claims.get(&old)) {
            (Some(new), Some(old)) => new.is_newer_than(old, owner),
            // One that is still being made is the newest.
            (None, Some(_)) => true,
            _ => false,
        }
    }

    fn verdict(&self, refusal: &Refusal) -> Verdict {
        let message = match refusal {
            Refusal::NoPool { .. } if self.pools.is_missing() => {
                format!("the ConfigMap {} does not exist; {refusal}", self.pools.name())
            }
            refusal => refusal.to_string(),
        };
        Verdict { allocated: false, reason: refusal.reason(), message }
    }
}

/// What a Service's list has that is no address, for people.
fn unreadable(service: &Service) -> Option<Verdict> {
    let places = [
        (format!("annotation `{}`", annotation::LOADBALANCER_IPS), &service.annotated),
        ("`spec.loadBalancerIP`".to_owned(), &service.deprecated),
    ];
    places.into_iter().find_map(|(place, text)| {
        let text = text.as_deref()?;
        let list = address::List::parse(text);
        let problem = match list.unreadable().next() {
            Some(entry) => format!("`{entry}` is no address"),
            None if list.addresses().next().is_none() && !list.is_empty() => "a host name is no address".to_owned(),
            None => return None,
        };
        let message = format!("{place}: value `{text}` is not accepted: {problem}; accepted are IPv4 and IPv6 addresses, separated by commas");
        Some(Verdict { allocated: false, reason: reason::INVALID_ADDRESS, message })
    })
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
