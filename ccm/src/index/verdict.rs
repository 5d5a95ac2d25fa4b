//! Owns what is said of a claimant: its condition, its Events. Nothing is said twice.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::names::condition;
use berth_api::{address, eip, reason};
use berth_ipam::Owner;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{Index, Turn};
use crate::claimant::Claimant;
use crate::report::{About, Report};
use crate::write::{Object, Verdict, Write};

impl Verdict {
    /// The claimant has these addresses.
    pub(super) fn allocated(addresses: &[IpAddr]) -> Self {
        let message = address::format(addresses.iter().copied());
        Self { allocated: true, reason: reason::ADDRESS_ALLOCATED, message }
    }
}

impl Index {
    /// The claimant waits.
    pub(super) fn refuse(&mut self, turn: Turn, claimant: &Claimant, verdict: Verdict) {
        self.tell_once(claimant, verdict.reason.to_owned(), &verdict);
        self.judge(claimant, verdict.clone());
        self.waiting.insert(turn, verdict);
    }

    /// Tells of something that the claimant asked for and does not get.
    pub(super) fn tell(&mut self, claimant: &Claimant, verdict: &Verdict) {
        self.tell_once(claimant, verdict.message.clone(), verdict);
    }

    fn tell_once(&mut self, claimant: &Claimant, what: String, verdict: &Verdict) {
        let id = claimant.id();
        let shown = ours(claimant)
            .is_some_and(|shown| shown.status == "False" && shown.reason == verdict.reason);
        let known = self.told.get(&id);
        if known == Some(&what) || known.is_none() && shown && what == verdict.reason {
            return;
        }
        self.told.insert(id, what);
        self.report(claimant, true, verdict.reason, verdict.message.clone());
    }

    pub(super) fn report(
        &mut self,
        claimant: &Claimant,
        is_warning: bool,
        reason: &'static str,
        note: String,
    ) {
        let about = About::Claimant(claimant.id(), claimant.uid().to_owned());
        self.reports.push(Report { about, is_warning, reason, note });
    }

    /// The claimant has all that it asks for.
    pub(super) fn content(
        &self,
        claimant: &Claimant,
        owner: &Owner,
        addresses: &[IpAddr],
    ) -> Verdict {
        self.waits_for_host(claimant, owner).unwrap_or_else(|| self.given_all(owner, addresses))
    }

    /// The owner has these addresses, whoever else may have them on the LAN.
    pub(super) fn given_all(&self, owner: &Owner, addresses: &[IpAddr]) -> Verdict {
        let stray = |address: &IpAddr| self.strays.get(&(*address, owner.clone()));
        match addresses.iter().find_map(stray) {
            Some(note) => {
                let (reason, message) = (reason::OUTSIDE_POOL, note.clone());
                Verdict { allocated: true, reason, message }
            }
            None => Verdict::allocated(addresses),
        }
    }

    /// Sees to it that the status of the claimant shows the verdict. A Service that has what it wants and never lacked
    /// it needs no condition, which saves a write for each. An EipBinding that has an address shows how it stands in
    /// the same write as the address.
    pub(super) fn judge(&mut self, claimant: &Claimant, verdict: Verdict) {
        let shown = match (claimant, ours(claimant)) {
            (Claimant::Eip(_), _) => self.ledger.held(&claimant.owner()).next().is_some(),
            (_, Some(shown)) => {
                (shown.status == "True") == verdict.allocated && shown.reason == verdict.reason
            }
            (_, None) => verdict.reason == reason::ADDRESS_ALLOCATED,
        };
        if shown {
            self.verdicts.remove(&claimant.id());
        } else {
            self.verdicts.insert(claimant.id(), verdict);
        }
    }

    /// Writes verdicts when nobody waits for an address.
    pub(super) fn poll_verdicts(&mut self, now: Duration, slots: usize, writes: &mut Vec<Write>) {
        if !self.dirty.is_empty() || !self.ending.is_empty() {
            return;
        }
        let free = slots.saturating_sub(writes.len());
        let open = self
            .verdicts
            .keys()
            .filter(|id| !self.is_held_up(&Object::Claimant((*id).clone()), now));
        let ids: Vec<_> = open.take(free).cloned().collect();
        for id in ids {
            let (Some(claimant), Some(verdict)) =
                (self.claimants.get(&id), self.verdicts.get(&id).cloned())
            else {
                self.verdicts.remove(&id);
                continue;
            };
            let service = match claimant {
                Claimant::Service(service) => service,
                Claimant::Eip(binding) => {
                    let binding = binding.clone();
                    self.verdicts.remove(&id);
                    self.show_refusal(&binding, verdict, writes);
                    continue;
                }
            };
            let others = service
                .conditions
                .iter()
                .filter(|other| other.type_ != condition::ADDRESS_ALLOCATED);
            let write = Write::PatchStatus {
                uid: service.uid.clone(),
                version: service.version.clone(),
                key: service.key.clone(),
                others: others.cloned().collect(),
                verdict,
            };
            self.start(write, writes);
        }
    }
}

/// The condition, as the claimant shows it.
pub(super) fn ours(claimant: &Claimant) -> Option<&Condition> {
    match claimant {
        Claimant::Service(service) => {
            service.conditions.iter().find(|shown| shown.type_ == condition::ADDRESS_ALLOCATED)
        }
        Claimant::Eip(binding) => binding.condition(eip::condition::ALLOCATED),
    }
}
