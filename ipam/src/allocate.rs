//! Owns the decision which addresses an owner has. The same pools, ledger and request always give the same answer,
//! and an address that is held never moves unless the owner asks.

use std::net::IpAddr;

use crate::grant::{Claim, Grant, Owner, OwnerKind};
use crate::keys::{Pins, Scope};
use crate::ledger::Ledger;
use crate::pools::Pool;
use crate::range::Family;
use crate::request::{Allocation, Assigned, FamilyPolicy, Origin, Refusal, Request};
use crate::shown::shown;

/// Decides which addresses the owner is to have.
///
/// # Errors
/// When nothing is to be written: the owner gets nothing new and keeps what it holds, if anything. The refusal says
/// why. With `RequireDualStack` that is so as soon as one family is refused.
pub fn allocate(ledger: &Ledger, request: &Request) -> Result<Allocation, Refusal> {
    let wanted = request.families.wanted();
    let (shunned, held) = ledger.held(&request.owner).partition(|a| request.shuns.contains(a));
    let mut decision =
        Decision { ledger, request, held, shunned, budget: budget(ledger, &request.owner) };
    let mut addresses = Vec::new();
    let mut refused = Vec::new();
    for family in &wanted {
        let (assigned, refusal) = decision.family(*family);
        addresses.extend(assigned);
        refused.extend(refusal);
    }
    let lenient = request.families.policy == FamilyPolicy::PreferDualStack && !addresses.is_empty();
    if !lenient && !refused.is_empty() {
        return Err(refused.swap_remove(0));
    }
    let unwanted =
        |pin: &&IpAddr| !wanted.contains(&Family::of(**pin)) && !decision.held.contains(pin);
    if let Some(pin) = request.pins.iter().find(unwanted) {
        let family = Family::of(*pin);
        let refusal = Refusal::FamilyUnavailable {
            family,
            why: format!("{pin} is asked for, and {}", uses(&request.owner, &wanted)),
        };
        if !request.pins.iter().any(|pin| wanted.contains(&Family::of(*pin))) {
            return Err(refusal);
        }
        refused.push(refusal);
    }
    let kept = |address: &IpAddr| addresses.iter().any(|assigned| assigned.address == *address);
    let all = ledger.held(&request.owner);
    let released = all.filter(|address| !kept(address)).collect();
    Ok(Allocation { addresses, released, refused })
}

/// The families that whoever asks has, and where that is said.
fn uses(owner: &Owner, wanted: &[Family]) -> String {
    let families: Vec<String> = wanted.iter().map(Family::to_string).collect();
    let field = match owner.kind {
        OwnerKind::Service | OwnerKind::VipProxy => "spec.ipFamilies",
        OwnerKind::EipBinding => "spec.families",
    };
    format!(
        "{owner} has {} alone, by its `{field}`: ask for an address of that family, or add the other one there",
        families.join(" and ")
    )
}

/// How many more addresses the owner's namespace may hold; `None` without a quota. Of each family one address does not
/// count that rests since the owner, or its former self of that name, gave it back: else who moves, or is made anew,
/// would be locked out by it.
fn budget(ledger: &Ledger, owner: &Owner) -> Option<i128> {
    let quota = ledger.pools().quota(&owner.namespace)?;
    let rests = |family: &Family| ledger.own_rests(owner, *family).next().is_some();
    let excused = Family::ALL.iter().filter(|family| rests(family)).count();
    let counted = ledger.counted_in(&owner.namespace).total();
    Some(i128::from(quota) - i128::from(counted) + excused as i128)
}

struct Decision<'a> {
    ledger: &'a Ledger,
    request: &'a Request,
    /// What the owner holds and may go on using.
    held: Vec<IpAddr>,
    /// What it holds and cannot use.
    shunned: Vec<IpAddr>,
    budget: Option<i128>,
}

impl Decision<'_> {
    /// What the owner is to have of one family, and what it is refused.
    fn family(&mut self, family: Family) -> (Option<Assigned>, Vec<Refusal>) {
        let pin = self.request.pins.iter().copied().find(|pin| Family::of(*pin) == family);
        let current = self.current(family, pin);
        let found = match (current, pin) {
            (Some(current), Some(pin)) if pin != current => self.pinned(pin),
            (Some(current), _) => return self.keep(current, None),
            (None, Some(pin)) => self.pinned(pin),
            (None, None) => self.automatic(family),
        };
        let shunned = || self.shunned.iter().copied().find(|a| Family::of(*a) == family);
        let replaces = current.or_else(shunned);
        let charged = found.and_then(|assigned| self.charge(family, assigned, replaces));
        match (charged, current) {
            (Ok(assigned), _) => (Some(assigned), Vec::new()),
            (Err(refusal), Some(current)) => self.keep(current, Some(refusal)),
            (Err(refusal), None) => (None, vec![refusal]),
        }
    }

    /// What the owner has of the family now. After a move that was cut short there may be two claims.
    fn current(&self, family: Family, pin: Option<IpAddr>) -> Option<IpAddr> {
        let held = || self.held.iter().copied().filter(|address| Family::of(*address) == family);
        let marker = family.dhcp_marker();
        held()
            .find(|address| Some(*address) == pin)
            .or_else(|| held().find(|address| self.request.current.contains(address)))
            .or_else(|| held().next())
            .or_else(|| self.request.current.contains(&marker).then_some(marker))
    }

    /// Leaves the owner what it has, and says if it now wants ports there that a sharer has, or more than there is room for.
    fn keep(&self, address: IpAddr, refusal: Option<Refusal>) -> (Option<Assigned>, Vec<Refusal>) {
        let owner = &self.request.owner;
        let Some(claim) = self.ledger.claim(address) else {
            return (
                Some(Assigned { address, origin: Origin::Dhcp, pool: None, shared: false }),
                refusal.into_iter().collect(),
            );
        };
        let sharing = self.request.sharing.as_ref();
        let holders = claim.in_the_way(owner, sharing);
        let clash = || claim.grant(holders.first()?)?.clash(sharing);
        let clash = clash();
        let crowded = (!holders.is_empty()).then_some(Refusal::AddressInUse {
            address,
            holders,
            clash: clash.map(Box::new),
            partners: None,
        });
        let pool = claim.grant(owner).and_then(|grant| grant.pool.clone());
        let shared = claim.grants().len() > 1;
        let full = || claim.room(owner, sharing).err().filter(|_| shared);
        let crowded = crowded.or_else(|| full().map(|why| Refusal::AddressFull { address, why }));
        let kept = Assigned { address, origin: Origin::Kept, pool, shared };
        (Some(kept), refusal.into_iter().chain(crowded).collect())
    }

    /// The address that the user asked for, in a pool or outside.
    fn pinned(&self, address: IpAddr) -> Result<Assigned, Refusal> {
        let Decision { ledger, request, .. } = self;
        let (pools, namespace) = (ledger.pools(), request.owner.namespace.as_str());
        if address.is_unspecified() {
            dhcp(&request.owner, Family::of(address))?;
            return Ok(Assigned { address, origin: Origin::Dhcp, pool: None, shared: false });
        }
        let reserved = |by: String| Err(Refusal::AddressReserved { address, by });
        // Who asks to share a VIP is let in: kubelets list those that a node has bound as addresses of the node.
        if let Some(refusal) = ledger.kept_from_all(address, |_| true) {
            return Err(refusal);
        }
        if let Some(error) = pools.invalid_for(namespace) {
            return Err(Refusal::InvalidPool { scope: Scope::of(namespace), error: error.clone() });
        }
        if let Some(scope) = pools.excluded_by(namespace, address) {
            return reserved(format!("key `exclude-{}`", scope.name()));
        }
        if let Some(other) = self.foreign_pool(address) {
            return reserved(other.to_string());
        }
        let pool = pools.locate(namespace, address);
        self.allowed(address, pool)?;
        let draining = pool.filter(|scope| {
            pools.pool(scope).is_some_and(|pool| pool.draining().contains(address))
        });
        if let Some(scope) = draining {
            return Err(Refusal::PoolDraining {
                scope: scope.clone(),
                family: Family::of(address),
            });
        }
        let shared = self.join(address)?;
        if let Some((until, owner)) = ledger.resting(address)
            && !owner.same_name(&request.owner)
        {
            return Err(Refusal::AddressResting { address, owner: owner.clone(), until });
        }
        if let Some(by) = ledger.shown_by_another(address, &request.owner) {
            return Err(Refusal::AddressShown { address, by: by.clone() });
        }
        Ok(Assigned { address, origin: Origin::Pinned, pool: pool.cloned(), shared })
    }

    /// Whether the namespace may ask for the address, which is in this pool of those that serve it.
    fn allowed(&self, address: IpAddr, pool: Option<&Scope>) -> Result<(), Refusal> {
        let namespace = &self.request.owner.namespace;
        let Some((scope, pins)) = self.ledger.pools().pins(namespace) else { return Ok(()) };
        let listed = match pins {
            Err(error) => {
                let (scope, error) = (Scope::of(namespace), error.clone());
                return Err(Refusal::InvalidPool { scope, error });
            }
            Ok(Pins::Any) => return Ok(()),
            Ok(Pins::Pool(listed)) => listed,
        };
        if pool.is_some() || listed.contains(address) {
            return Ok(());
        }
        let key = format!("pins-{}", scope.name());
        let mut accepted = "addresses of a pool that serves the namespace".to_owned();
        if !listed.is_empty() {
            let listed: Vec<String> = listed.iter().map(|range| range.to_string()).collect();
            accepted.extend([" and `", &shown(&listed.join(",")), "`"]);
        }
        Err(Refusal::AddressNotAllowed { address, key, accepted })
    }

    /// Whether others hold the address already, if it may be had at all.
    fn join(&self, address: IpAddr) -> Result<bool, Refusal> {
        let Some(claim) = self.ledger.claim(address) else { return Ok(false) };
        let (pools, request) = (self.ledger.pools(), self.request);
        let (owner, sharing) = (&request.owner, request.sharing.as_ref());
        let others = claim.grants().iter().filter(|grant| grant.owner != *owner);
        let in_the_way = others.filter(|grant| {
            !grant.fits(sharing) || !pools.may_share(&owner.namespace, &grant.owner.namespace)
        });
        let in_the_way: Vec<&Grant> = in_the_way.collect();
        if in_the_way.is_empty() && claim.grant(owner).is_none() && !self.together(claim) {
            let holders = claim.owners().cloned().collect();
            return Err(Refusal::NotServedTogether { address, holders });
        }
        if in_the_way.is_empty() {
            let room = claim.room(owner, sharing);
            return room.map(|()| true).map_err(|why| Refusal::AddressFull { address, why });
        }
        let mut others = in_the_way.iter().map(|grant| &grant.owner.namespace);
        let other = others.find(|other| **other != owner.namespace);
        let other = other.filter(|_| in_the_way.iter().all(|grant| grant.fits(sharing)));
        let partners = other.map(|other| (owner.namespace.clone(), other.clone()));
        let may_share = |grant: &&&Grant| pools.may_share(&owner.namespace, &grant.owner.namespace);
        let mut clashing = in_the_way.iter().filter(may_share);
        let clash = clashing.find_map(|grant| grant.clash(sharing)).map(Box::new);
        let holders = in_the_way.iter().map(|grant| grant.owner.clone()).collect();
        Err(Refusal::AddressInUse { address, holders, clash, partners })
    }

    /// Whether one node can serve the owner together with all who hold the address. Who has it already stays.
    fn together(&self, claim: &Claim) -> bool {
        let Request { owner, sharing, .. } = self.request;
        let selections = &self.ledger.selections;
        sharing.as_ref().is_none_or(|sharing| selections.together(owner, sharing, claim))
    }

    /// The pool of another namespace that has the address, if neither a pool that serves this one nor the global
    /// pool has it too.
    fn foreign_pool(&self, address: IpAddr) -> Option<&Scope> {
        let members = &self.ledger.free.region(self.ledger.free.locate(address)?).members;
        let open = |scope: &Scope| {
            *scope == Scope::Global || *scope == Scope::of(&self.request.owner.namespace)
        };
        members.first().filter(|_| !members.iter().any(open))
    }

    /// The next address of the pools that serve the namespace.
    fn automatic(&self, family: Family) -> Result<Assigned, Refusal> {
        let pools = self.ledger.pools();
        let namespace = self.request.owner.namespace.as_str();
        if let Some(error) = pools.invalid_for(namespace) {
            return Err(Refusal::InvalidPool { scope: Scope::of(namespace), error: error.clone() });
        }
        let mut first_refusal = None;
        for (scope, pool) in pools.serving(namespace) {
            match self.next_of(scope, pool, family) {
                Ok(assigned) => return Ok(assigned),
                Err(refusal) => _ = first_refusal.get_or_insert(refusal),
            }
        }
        Err(first_refusal.unwrap_or_else(|| Refusal::NoPool { namespace: namespace.to_owned() }))
    }

    fn next_of(&self, scope: &Scope, pool: &Pool, family: Family) -> Result<Assigned, Refusal> {
        let Decision { ledger, request, .. } = self;
        let order = ledger.pools().order();
        let found = |address, origin, shared| {
            Ok(Assigned { address, origin, pool: Some(scope.clone()), shared })
        };
        if let Some(error) = pool.invalid() {
            return Err(Refusal::InvalidPool { scope: scope.clone(), error: error.clone() });
        }
        if pool.is_dhcp(family) {
            dhcp(&request.owner, family)?;
            return found(family.dhcp_marker(), Origin::Dhcp, false);
        }
        if let Some(sharing) = &request.sharing {
            let among = ledger.pools().sharing_with(&request.owner.namespace);
            let regions = ledger.free.offers(scope, family);
            let has_room = |claim: &Claim| {
                claim.room(&request.owner, Some(sharing)).is_ok() && self.together(claim)
            };
            let usable = |address| {
                ledger.is_offerable(address)
                    && ledger.claim(address).is_none_or(has_room)
                    && ledger.shown_by_another(address, &request.owner).is_none()
            };
            if let Some(address) = ledger.sharers.find(regions, &among, sharing, order, usable) {
                return found(address, Origin::Pool, true);
            }
        }
        if let Some(address) = ledger.free.next(scope, family, order) {
            return found(address, Origin::Pool, false);
        }
        let scope = scope.clone();
        if !pool.addresses().has(family) {
            return Err(Refusal::FamilyUnavailable {
                family,
                why: format!("{scope} has no {family} address"),
            });
        }
        if !pool.offered().has(family) && pool.draining().has(family) {
            return Err(Refusal::PoolDraining { scope, family });
        }
        let resting = ledger.usage(&scope, family).resting;
        Err(Refusal::PoolExhausted { scope, family, resting })
    }

    /// Counts the address against the quota, unless it counts already. What it replaces goes on counting while it rests,
    /// but for the one of the owner's that is excused ([`budget`]).
    fn charge(
        &mut self,
        family: Family,
        assigned: Assigned,
        replaces: Option<IpAddr>,
    ) -> Result<Assigned, Refusal> {
        let Decision { ledger, request: Request { owner, .. }, .. } = self;
        let (pools, namespace) = (ledger.pools(), &owner.namespace);
        let (Some(budget), Some(quota)) = (self.budget, pools.quota(namespace)) else {
            return Ok(assigned);
        };
        let known = ledger.counts(assigned.address, namespace);
        let cost = !(known || assigned.origin == Origin::Dhcp);
        let left = replaces.filter(|address| !ledger.is_aside_for(*address, namespace));
        let left = left.and_then(|address| ledger.claim(address));
        let mine = |owner: &&Owner| owner.namespace == *namespace;
        let rests = left.is_some_and(|claim| claim.grants().len() == 1);
        let drops = left.is_some_and(|claim| claim.owners().filter(mine).count() == 1) && !rests;
        let own = || ledger.own_rests(owner, family);
        let was_excused = own().next().is_some();
        let is_excused = rests || own().any(|address| address != assigned.address);
        let [cost, drops, was_excused, is_excused] =
            [cost, drops, was_excused, is_excused].map(i128::from);
        let after = budget - cost + drops + is_excused - was_excused;
        if after < budget && after < 0 {
            return Err(Refusal::QuotaExceeded {
                namespace: namespace.clone(),
                counted: ledger.counted_in(namespace),
                quota,
                key: pools.quota_key(namespace),
            });
        }
        self.budget = Some(after);
        Ok(assigned)
    }
}

/// Refuses DHCP to elastic IPs: nobody asks a server for them.
fn dhcp(owner: &Owner, family: Family) -> Result<(), Refusal> {
    let asks = owner.kind != OwnerKind::EipBinding;
    let why =
        || format!("{} asks for DHCP, and elastic IPs come out of pools", family.dhcp_marker());
    asks.then_some(()).ok_or_else(|| Refusal::FamilyUnavailable { family, why: why() })
}
