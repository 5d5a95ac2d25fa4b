//! Owns which addresses of before there were claims are still to be claimed, and whose are somebody else's.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::pairs::Pairs;
use crate::claimant::{Claimant, Id};
use crate::service::Service;

/// The import.
#[derive(Clone, Debug, Default)]
pub(super) struct Adoption {
    /// Addresses that served Services had when this process began to lead, still to be claimed.
    pub(super) open: Pairs,
    /// Those that had an address of somebody else when this process began to lead, and how they had it written.
    conflicted: BTreeMap<Id, Option<String>>,
    /// What the deprecated field of a Service said beside its annotation while it had no address: no edit, which is a request.
    fields: BTreeMap<Id, String>,
}

impl Adoption {
    /// The import starts again.
    pub(super) fn clear(&mut self) {
        self.open.clear();
        self.conflicted.clear();
    }

    /// The claimant has an address that is somebody else's.
    pub(super) fn conflict(&mut self, claimant: &Claimant) {
        self.conflicted.insert(claimant.id(), claimant.written());
    }

    /// Whether the claimant still has written what it had then.
    pub(super) fn is_conflicted(&self, claimant: &Claimant) -> bool {
        self.conflicted.get(&claimant.id()) == Some(&claimant.written())
    }

    /// The claimant has no address of somebody else.
    pub(super) fn resolve(&mut self, id: &Id) {
        self.conflicted.remove(id);
    }

    /// The Service has no address yet. What its annotation asks for is what it gets, whatever the field says besides.
    pub(super) fn note_field(&mut self, service: &Service) {
        let asked: Vec<IpAddr> = service.annotation().addresses().collect();
        let is_rival = |said: IpAddr| {
            let of_family = asked.iter().any(|own| own.is_ipv4() == said.is_ipv4());
            of_family && !asked.contains(&said)
        };
        if let Some(text) = &service.deprecated
            && service.field().addresses().any(is_rival)
        {
            self.fields.insert(Id::service(&service.key), text.clone());
        }
    }

    /// Whether the field says still what it said then.
    pub(super) fn has_noted_field(&mut self, service: &Service) -> bool {
        let id = Id::service(&service.key);
        let is_noted =
            self.fields.get(&id).is_some_and(|text| service.deprecated.as_ref() == Some(text));
        if !is_noted {
            self.fields.remove(&id);
        }
        is_noted
    }

    /// The claimant is gone.
    pub(super) fn gone(&mut self, id: &Id) {
        self.resolve(id);
        self.fields.remove(id);
    }
}
