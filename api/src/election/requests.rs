//! The requests of a candidate: what it writes, based on what it knows.

use std::time::Instant;

use k8s_openapi::api::coordination::v1::LeaseSpec;

use super::held::version;
use super::{Action, Election, Flight, Known};
use crate::names::annotation;

impl Election {
    pub(super) fn read(&mut self, now: Instant) -> Action {
        self.depart(now, None, false);
        Action::Read
    }

    pub(super) fn create(&mut self, now: Instant) -> Action {
        let mut lease = self.template.clone();
        lease.spec = Some(self.term(None));
        self.depart(now, None, false);
        Action::Create(Box::new(lease))
    }

    pub(super) fn take(&mut self, now: Instant) -> Action {
        let Known::Present { lease, .. } = &self.known else { return Action::Wait(None) };
        let mut lease = lease.clone();
        lease.spec = Some(self.term(lease.spec.as_ref()));
        if let Some(annotations) = &mut lease.metadata.annotations {
            annotations.remove(annotation::LEAVING);
        }
        for (ours, theirs) in [
            (&self.template.metadata.labels, &mut lease.metadata.labels),
            (&self.template.metadata.annotations, &mut lease.metadata.annotations),
        ] {
            if let Some(ours) = ours {
                theirs.get_or_insert_default().extend(ours.clone());
            }
        }
        self.depart(now, version(&lease).map(str::to_owned), false);
        Action::Replace(lease)
    }

    /// Asks the others of the group to go on.
    pub(super) fn ask(&mut self, now: Instant) -> Action {
        let Known::Present { lease, .. } = &self.known else { return Action::Done };
        let mut lease = lease.clone();
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.insert(annotation::LEAVING.to_owned(), String::new());
        lease.spec = Some(self.term(lease.spec.as_ref()));
        self.asked = Some(now);
        self.depart(now, version(&lease).map(str::to_owned), false);
        Action::Replace(lease)
    }

    pub(super) fn give(&mut self, now: Instant) -> Action {
        let Known::Present { lease, .. } = &self.known else { return Action::Done };
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.acquire_time = None;
        spec.renew_time = None;
        self.depart(now, version(&lease).map(str::to_owned), true);
        Action::Replace(lease)
    }

    /// The Lease in our name, after `last`.
    pub(super) fn term(&self, last: Option<&LeaseSpec>) -> LeaseSpec {
        let last = last.cloned().unwrap_or_default();
        let stays = last.holder_identity.as_deref() == Some(&self.identity);
        let transitions = last.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(self.timing.seconds()),
            lease_transitions: Some(if stays {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            acquire_time: last.acquire_time.clone().filter(|_| stays),
            renew_time: None,
            ..last
        }
    }

    pub(super) fn depart(&mut self, now: Instant, version: Option<String>, releases: bool) {
        let known = match &self.known {
            Known::Present { lease, .. } => self::version(lease).map(str::to_owned),
            _ => None,
        };
        self.flight = Some(Flight { sent: now, version, known, releases });
    }
}
