//! Owns what is known of the cluster: who wants addresses, who has which, and where machines are. Only says what follows
//! from that; writes and tells nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_api::{address, eip, reason};
use berth_ipam::{Conflict, Family, Grant, Ledger, Owner, OwnerKind, Scope, Sharing};

use super::lines::Lines;
use super::machines::Machines;
use super::offers::Offers;
use super::source::Source;
use super::vips::Listed;
use crate::binding::Binding;
use crate::claim::{Basis, Claim, Holder};
use crate::claimant::{Claimant, Id};
use crate::placement::{Place, Unplaced, place};
use crate::write::Write;

/// The cluster as far as addresses go.
#[derive(Clone, Debug, Default)]
pub(super) struct Cluster {
    /// The pools and who holds what, or will once a write that it needs is done.
    pub(super) ledger: Ledger,
    pub(super) claimants: BTreeMap<Id, Claimant>,
    pub(super) claims: BTreeMap<IpAddr, Claim>,
    pub(super) machines: Machines,
    /// Which of its bindings serves each machine.
    pub(super) lines: Lines,
    pub(super) offers: Offers,
    pub(super) listed_by_nodes: Listed,
    listed: BTreeSet<Source>,
}

impl Cluster {
    /// A source has been listed in full.
    pub(super) fn listed(&mut self, source: Source) {
        self.listed.insert(source);
    }

    /// Whether the source has been listed in full.
    pub(super) fn is_listed(&self, source: Source) -> bool {
        self.listed.contains(&source)
    }

    /// Whether every source has been listed.
    pub(super) fn is_whole(&self) -> bool {
        Source::REQUIRED.iter().all(|source| self.listed.contains(source))
    }

    /// What the owner holds, or will.
    pub(super) fn held(&self, owner: &Owner) -> Vec<IpAddr> {
        self.ledger.held(owner).collect()
    }

    /// Whether the owner holds anything, or will.
    pub(super) fn holds_any(&self, owner: &Owner) -> bool {
        self.ledger.held(owner).next().is_some()
    }

    /// Records that the owner holds the address, or will once a write that it needs is done.
    ///
    /// # Errors
    /// When others hold the address and the owner does not fit beside them; nothing changes then.
    pub(super) fn hold(
        &mut self,
        address: IpAddr,
        owner: &Owner,
        sharing: Option<Sharing>,
        pool: Option<Scope>,
    ) -> Result<(), Conflict> {
        self.grant(address, Grant::new(owner.clone()).sharing(sharing).in_pool(pool))
    }

    /// The same of a grant that is whole.
    ///
    /// # Errors
    /// When others hold the address and the owner does not fit beside them; nothing changes then.
    pub(super) fn grant(&mut self, address: IpAddr, grant: Grant) -> Result<(), Conflict> {
        let owner = grant.owner.clone();
        self.ledger.insert(address, grant)?;
        self.stand(&owner);
        Ok(())
    }

    /// The owner does not hold the address after all. Returns whether it did.
    pub(super) fn forget(&mut self, owner: &Owner, address: IpAddr) -> bool {
        let was_held = self.ledger.forget(owner, address);
        self.stand(owner);
        was_held
    }

    /// The owner has given the address back, which rests from now on.
    pub(super) fn release(&mut self, owner: &Owner, address: IpAddr, now: Duration) {
        self.ledger.release(owner, address, now);
        self.stand(owner);
    }

    /// A binding that has come to hold something, or to hold nothing, stands elsewhere in line.
    pub(super) fn stand(&mut self, owner: &Owner) {
        if owner.kind != OwnerKind::EipBinding {
            return;
        }
        let has_addresses = self.holds_any(owner);
        if let Some(Claimant::Eip(binding)) = self.claimants.get(&Id::from(owner))
            && binding.uid == owner.uid
        {
            self.lines.stand(binding, has_addresses);
        }
    }

    /// Whether the owner holds the address according to its claim.
    pub(super) fn is_holder(&self, address: IpAddr, owner: &Owner) -> bool {
        self.claims.get(&address).is_some_and(|claim| claim.holder(owner).is_some())
    }

    /// Whether the holder of a claim has not shown up.
    pub(super) fn is_owner_unseen(&self, owner: &Owner) -> bool {
        let seen = self.claimants.get(&Id::from(owner));
        owner.kind != OwnerKind::VipProxy && seen.is_none_or(|seen| seen.uid() != owner.uid)
    }

    /// Whether the claimant is to hold no address, or none any longer.
    pub(super) fn is_ending(&self, claimant: &Claimant) -> bool {
        match claimant {
            Claimant::Service(service) => service.is_ending(),
            Claimant::Eip(binding) => self.is_ending_eip(binding),
        }
    }

    /// The same of an EipBinding.
    pub(super) fn is_ending_eip(&self, binding: &Binding) -> bool {
        binding.deleting || !binding.retain && self.is_stopped(binding)
    }

    /// Whether the claimant asked for this very address. Of a Service its claim knows: what was given is written where
    /// users ask.
    pub(super) fn is_pinned(&self, address: IpAddr, claimant: &Claimant, owner: &Owner) -> bool {
        match claimant {
            Claimant::Service(_) => {
                self.claims.get(&address).is_some_and(|claim| claim.is_pinned(owner))
            }
            Claimant::Eip(binding) => binding.pin == Some(address),
        }
    }

    /// Whether the claim says all there is to say: the owner has the address, and the ports it uses there.
    pub(super) fn is_settled(&self, address: IpAddr, claimant: &Claimant, owner: &Owner) -> bool {
        self.claims.get(&address).is_some_and(|claim| {
            let sharing = claim.holder(owner).map(|holder| &holder.sharing);
            sharing.is_some_and(|sharing| {
                claim.holders.len() == 1 || sharing.as_ref() == claimant.sharing()
            })
        })
    }

    /// Whether the ports that the claimant has now fit beside those of the others at the address, and have room there.
    pub(super) fn fits(&self, address: IpAddr, claimant: &Claimant, owner: &Owner) -> bool {
        let claim = self.ledger.claim(address);
        let grants = claim.map(|claim| claim.grants()).unwrap_or_default();
        let has_room = claim.is_none_or(|claim| claim.room(owner, claimant.sharing()).is_ok());
        if grants.len() > 1 && !has_room {
            return false;
        }
        grants.iter().filter(|grant| grant.owner != *owner).all(|grant| {
            let both = grant.sharing.as_ref().zip(claimant.sharing());
            both.is_some_and(|(theirs, own)| theirs.fits(own))
        })
    }

    /// Whether the owner came to `new` later than to `old`.
    pub(super) fn is_newer_claim(&self, new: IpAddr, old: IpAddr, owner: &Owner) -> bool {
        match (self.claims.get(&new), self.claims.get(&old)) {
            (Some(new), Some(old)) => new.is_newer_than(old, owner),
            // One that is still being made is the newest.
            (None, Some(_)) => true,
            _ => false,
        }
    }

    /// The write that makes the owner a holder: a claim of its own, or its part of one.
    pub(super) fn claim_write(
        &self,
        address: IpAddr,
        owner: &Owner,
        sharing: Option<&Sharing>,
        pool: Option<Scope>,
        basis: Basis,
    ) -> Write {
        let owner = owner.clone();
        let Some(claim) = self.claims.get(&address) else {
            return Write::CreateClaim { address, owner, pool, basis };
        };
        let grants = self.ledger.claim(address);
        let others = claim.others(&owner).into_iter().map(|holder| {
            let grant = grants.and_then(|grants| grants.grant(&holder.owner));
            let sharing = grant.and_then(|grant| grant.sharing.clone());
            Holder { sharing: sharing.or(holder.sharing), ..holder }
        });
        let others: Vec<Holder> = others.collect();
        let came = claim.holders.iter().position(|holder| holder.owner == owner);
        let came = came.map(|at| (at, claim.holders[at].since));
        let pinned = (basis == Basis::Pinned).then(|| owner.uid.clone());
        // Whoever has left asks for nothing: else an address that Services come to and leave has a text that grows for ever.
        let still = claim.pinned.iter().filter(|uid| {
            **uid == owner.uid || others.iter().any(|holder| holder.owner.uid == **uid)
        });
        Write::JoinClaim {
            address,
            uid: claim.uid.clone(),
            version: claim.version.clone(),
            sharing: sharing.cloned().unwrap_or_default(),
            pinned: still.cloned().chain(pinned).collect(),
            others,
            came,
            owner,
        }
    }

    /// The addresses and where they are from, for people.
    pub(super) fn given(&self, addresses: &[IpAddr]) -> String {
        let pool = addresses.iter().find_map(|address| self.claims.get(address)?.pool.as_ref());
        let from = pool.map(|pool| format!(" from {pool}")).unwrap_or_default();
        format!("{}{from}", address::format(addresses.iter().copied()))
    }

    /// Where the addresses of these families belong that the binding has, as far as that is known.
    pub(super) fn placement(
        &self,
        binding: &Binding,
        families: &[Family],
    ) -> Option<Result<Place, Unplaced>> {
        if !self.is_listed(Source::Machines) {
            return None;
        }
        let vmi = || binding.vmi.clone();
        if let Some(by) = self.rival(binding) {
            return Some(Err(Unplaced::Taken { vmi: vmi(), by }));
        }
        let Some(machine) = self.machines.get(&binding.vmi) else {
            let absent = self.machines.is_absent();
            return Some(Err(if absent {
                Unplaced::NoKubeVirt
            } else {
                Unplaced::NotFound(vmi())
            }));
        };
        let objection = |address| self.objection(&binding.vmi, address);
        let placed = place(families, binding.interface.as_deref(), machine, objection);
        let known = self.machines.was_placed(binding, machine);
        match (placed, &machine.node) {
            // KubeVirt empties the list of interfaces for a moment when a migration hands over, and a guest agent
            // that restarts shows none either. The machine still is the one that has these addresses.
            (Err(Unplaced::NoAddress(_)), Some(node))
                if known && binding.vmi_ips.len() == families.len() =>
            {
                let (node, target) = (node.clone(), machine.target.clone());
                let objection = binding.vmi_ips.iter().find_map(|address| objection(*address));
                let placed = Place { node, target, addresses: binding.vmi_ips.clone() };
                Some(objection.map_or(Ok(placed), Err))
            }
            (placed, _) => Some(placed),
        }
    }

    /// Whether the machine is known not to be at work.
    fn is_stopped(&self, binding: &Binding) -> bool {
        let families = binding.families.wanted();
        matches!(
            self.placement(binding, &families),
            Some(Err(Unplaced::NotFound(_) | Unplaced::NotRunning { .. }))
        )
    }

    /// The other binding that serves the machine.
    pub(super) fn rival(&self, binding: &Binding) -> Option<NamespacedName> {
        self.lines.rival(binding, self.holds_any(&binding.owner())).cloned()
    }

    /// How many EipBindings there are, by how they stand: `Ready`, or the reason why not.
    pub(super) fn bindings(&self) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for claimant in self.claimants.values() {
            let Claimant::Eip(binding) = claimant else { continue };
            let state = match binding.condition(eip::condition::READY) {
                Some(shown) if shown.status == "True" => eip::condition::READY.to_owned(),
                Some(shown) => shown.reason.clone(),
                None => reason::NOT_ALLOCATED.to_owned(),
            };
            *counts.entry(state).or_default() += 1;
        }
        counts
    }
}
