//! Owns what follows when another host on the LAN answers for an address, as an announcer has found: it is set aside, and
//! who was given it gets another. Who asked for this very address keeps it, and waits for that host to go.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::conflict::MacText;
use berth_api::reason;
use berth_ipam::Owner;

use super::Index;
use crate::claimant::Claimant;
use crate::write::Verdict;

/// How long an address is given to nobody after another host was found to answer for it.
pub const ASIDE: Duration = Duration::from_secs(600);

impl Index {
    /// Of the addresses that a claimant holds, those that it is to have others in place of. They are set aside.
    pub(super) fn shun(
        &mut self,
        claimant: &Claimant,
        owner: &Owner,
        held: &BTreeSet<IpAddr>,
        now: Duration,
    ) -> Vec<IpAddr> {
        let given =
            |address: &IpAddr| held.contains(address) && !self.is_pinned(*address, claimant, owner);
        let conflicts = claimant.conflicts();
        let shuns: Vec<IpAddr> = conflicts.addresses().filter(given).collect();
        for address in &shuns {
            // Once: each look at the claimant would put the end off.
            if self.ledger.aside(*address).is_none() {
                self.ledger.set_aside(*address, now + ASIDE);
                let mac = conflicts.of(address).unwrap_or_default();
                let note = format!(
                    "another host, {}, answers for {address}: it is given to nobody for {} minutes, and this {} gets \
                     another address",
                    MacText(mac),
                    ASIDE.as_secs() / 60,
                    owner.kind
                );
                self.report(claimant, true, reason::ADDRESS_SET_ASIDE, note);
            }
        }
        shuns
    }

    /// Takes in that an address was set aside before this process could see it.
    pub fn set_aside(&mut self, address: IpAddr, until: Duration, now: Duration) {
        if self.ledger.aside(address).is_none() && until > now {
            // A clock that was set back puts nothing off for longer.
            self.ledger.set_aside(address, until.min(now + ASIDE));
        }
    }

    /// What a claimant is told whose address another host has, if it asked for that very one.
    pub(super) fn waits_for_host(&self, claimant: &Claimant, owner: &Owner) -> Option<Verdict> {
        let pinned = |address: &IpAddr| self.is_pinned(*address, claimant, owner);
        let address = claimant.conflicts().addresses().find(pinned)?;
        let mac = MacText(claimant.conflicts().of(&address)?);
        let message = format!(
            "{address} was asked for, and another host, {mac}, answers for it; it is announced once that host is silent"
        );
        Some(Verdict { allocated: true, reason: reason::ADDRESS_CONFLICT, message })
    }

    /// Whether the claimant asked for this very address. Of a Service its claim knows: what was given is written where
    /// users ask.
    fn is_pinned(&self, address: IpAddr, claimant: &Claimant, owner: &Owner) -> bool {
        match claimant {
            Claimant::Service(_) => {
                self.claims.get(&address).is_some_and(|claim| claim.is_pinned(owner))
            }
            Claimant::Eip(binding) => binding.pin == Some(address),
        }
    }
}
