//! Owns what is told and what is still to be shown of a claimant. Nothing is said twice.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::eip;
use berth_api::names::condition;
use berth_api::reason;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::claimant::{Claimant, Id};
use crate::report::{About, Report};
use crate::verdicts::Verdicts;
use crate::write::Verdict;

/// What is said.
#[derive(Clone, Debug, Default)]
pub(super) struct Said {
    reports: Vec<Report>,
    /// What was last told of a claimant, so that it is not told again.
    told: BTreeMap<Id, String>,
    /// Verdicts that a claimant's status is still to show.
    pub(super) verdicts: Verdicts,
    /// Claimants that have claimed an address since their own object was last written.
    fresh: BTreeSet<Id>,
    /// Claimants that were told that the API server refuses what is to be written.
    denied: BTreeSet<Id>,
}

impl Said {
    pub(super) fn push(&mut self, report: Report) {
        self.reports.push(report);
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

    pub(super) fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Tells of something that the claimant asked for and does not get.
    pub(super) fn tell(&mut self, claimant: &Claimant, verdict: &Verdict) {
        self.tell_once(claimant, verdict.message.clone(), verdict);
    }

    /// Tells why the claimant gets nothing, once for each reason.
    pub(super) fn tell_reason(&mut self, claimant: &Claimant, verdict: &Verdict) {
        self.tell_once(claimant, verdict.reason.to_owned(), verdict);
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

    /// What was told is over: it would be news again.
    pub(super) fn unsay(&mut self, id: &Id) {
        self.told.remove(id);
    }

    /// Sees to it that the status of the claimant shows the verdict. A Service that has what it wants and never lacked
    /// it needs no condition, which saves a write for each. An EipBinding that has an address shows how it stands in
    /// the same write as the address.
    pub(super) fn judge(&mut self, claimant: &Claimant, verdict: Verdict, has_addresses: bool) {
        let shown = match (claimant, ours(claimant)) {
            (Claimant::Eip(_), _) => has_addresses,
            (_, Some(shown)) => {
                (shown.status == "True") == verdict.allocated && shown.reason == verdict.reason
            }
            (_, None) => verdict.reason == reason::ADDRESS_ALLOCATED,
        };
        if shown {
            self.verdicts.remove(&claimant.id());
        } else {
            self.verdicts.put(claimant.id(), verdict);
        }
    }

    /// The status of the claimant shows its verdict, or is to show none.
    pub(super) fn shown(&mut self, id: &Id) {
        self.verdicts.remove(id);
    }

    /// The claimant has claimed an address.
    pub(super) fn claimed(&mut self, id: Id) {
        self.fresh.insert(id);
    }

    /// Whether the claimant has claimed an address since its own object was last written.
    pub(super) fn is_fresh(&self, id: &Id) -> bool {
        self.fresh.contains(id)
    }

    /// The object of the claimant is written.
    pub(super) fn written(&mut self, id: &Id) {
        self.fresh.remove(id);
    }

    /// The API server refuses what is to be written into the claimant. True if that is news.
    pub(super) fn denied(&mut self, id: &Id) -> bool {
        self.denied.insert(id.clone())
    }

    /// The API server has taken what was to be written.
    pub(super) fn accepted(&mut self, id: &Id) {
        self.denied.remove(id);
    }

    /// The claimant is gone.
    pub(super) fn gone(&mut self, id: &Id) {
        self.verdicts.remove(id);
        self.told.remove(id);
        self.fresh.remove(id);
        self.denied.remove(id);
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
