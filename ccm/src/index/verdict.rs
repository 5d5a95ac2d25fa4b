//! Owns what is said of a Service: its condition, its Events. Nothing is said twice.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::names::condition;
use berth_api::{address, reason};
use berth_ipam::Owner;

use super::{Index, Turn};
use crate::report::{About, Report};
use crate::service::Service;
use crate::write::{Object, Verdict, Write};

impl Verdict {
    /// The Service has these addresses.
    pub(super) fn allocated(addresses: &[IpAddr]) -> Self {
        let message = address::format(addresses.iter().copied());
        Self { allocated: true, reason: reason::ADDRESS_ALLOCATED, message }
    }
}

impl Index {
    /// The Service waits.
    pub(super) fn refuse(&mut self, turn: Turn, service: &Service, verdict: Verdict) {
        self.tell_once(service, verdict.reason.to_owned(), &verdict);
        self.judge(service, verdict.clone());
        self.waiting.insert(turn, verdict);
    }

    /// Tells of something that the Service asked for and does not get.
    pub(super) fn tell(&mut self, service: &Service, verdict: &Verdict) {
        self.tell_once(service, verdict.message.clone(), verdict);
    }

    fn tell_once(&mut self, service: &Service, what: String, verdict: &Verdict) {
        let shown = ours(service)
            .is_some_and(|shown| shown.status == "False" && shown.reason == verdict.reason);
        let known = self.told.get(&service.key);
        if known == Some(&what) || known.is_none() && shown && what == verdict.reason {
            return;
        }
        self.told.insert(service.key.clone(), what);
        self.report(service, true, verdict.reason, verdict.message.clone());
    }

    pub(super) fn report(
        &mut self,
        service: &Service,
        is_warning: bool,
        reason: &'static str,
        note: String,
    ) {
        let about = About::Service(service.key.clone(), service.uid.clone());
        self.reports.push(Report { about, is_warning, reason, note });
    }

    /// The Service has all that it asks for.
    pub(super) fn content(
        &self,
        service: &Service,
        owner: &Owner,
        addresses: &[IpAddr],
    ) -> Verdict {
        if let Some(verdict) = self.waits_for_host(service, owner) {
            return verdict;
        }
        let stray = |address: &IpAddr| self.strays.get(&(*address, owner.clone()));
        match addresses.iter().find_map(stray) {
            Some(note) => {
                let (reason, message) = (reason::OUTSIDE_POOL, note.clone());
                Verdict { allocated: true, reason, message }
            }
            None => Verdict::allocated(addresses),
        }
    }

    /// Sees to it that the status of the Service shows the verdict. One that has what it wants and never lacked it
    /// needs no condition, which saves a write for each.
    pub(super) fn judge(&mut self, service: &Service, verdict: Verdict) {
        let shown = match ours(service) {
            Some(shown) => {
                (shown.status == "True") == verdict.allocated && shown.reason == verdict.reason
            }
            None => verdict.reason == reason::ADDRESS_ALLOCATED,
        };
        if shown {
            self.verdicts.remove(&service.key);
        } else {
            self.verdicts.insert(service.key.clone(), verdict);
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
            .filter(|key| !self.is_held_up(&Object::Service((*key).clone()), now));
        let keys: Vec<_> = open.take(free).cloned().collect();
        for key in keys {
            let (Some(service), Some(verdict)) = (self.services.get(&key), self.verdicts.get(&key))
            else {
                self.verdicts.remove(&key);
                continue;
            };
            let others = service
                .conditions
                .iter()
                .filter(|other| other.type_ != condition::ADDRESS_ALLOCATED);
            let write = Write::PatchStatus {
                uid: service.uid.clone(),
                version: service.version.clone(),
                verdict: verdict.clone(),
                others: others.cloned().collect(),
                key,
            };
            self.start(write, writes);
        }
    }
}

/// The condition, as the Service shows it.
pub(super) fn ours(
    service: &Service,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    service.conditions.iter().find(|shown| shown.type_ == condition::ADDRESS_ALLOCATED)
}
