//! Owns what the pool ConfigMap says. A bad edit, or none at all, changes nothing that is assigned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::reason;
use berth_ipam::{KeyError, Owner, Pools};

use super::Index;
use super::verdict::ours;
use crate::claimant::Id;
use crate::report::{About, Report};
use crate::service::Key;

/// The ConfigMap.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    name: Option<Key>,
    uid: Option<String>,
    errors: Vec<KeyError>,
    unknown: Vec<String>,
    told: BTreeSet<String>,
}

impl State {
    pub(super) fn new(name: Key) -> Self {
        Self { name: Some(name), ..Self::default() }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.uid.is_none()
    }

    pub(super) fn name(&self) -> String {
        self.name.as_ref().map(Key::to_string).unwrap_or_default()
    }
}

impl Index {
    /// Takes in the ConfigMap.
    pub fn apply_pools(&mut self, uid: String, data: &BTreeMap<String, String>) {
        self.pools.uid = Some(uid);
        self.pools.errors = self.ledger.update_pools(data);
        self.pools.unknown = Pools::unknown_keys(data).into_iter().map(str::to_owned).collect();
        self.retry = true;
        self.report_pools();
    }

    /// Takes in that there is no ConfigMap. What it said last stays in force.
    pub fn remove_pools(&mut self) {
        self.pools.uid = None;
        self.pools.told.clear();
        self.retry = true;
    }

    /// The keys that are not accepted.
    pub fn invalid_keys(&self) -> usize {
        self.pools.errors.len()
    }

    /// Tells what is wrong with the pools, each thing once.
    pub(super) fn report_pools(&mut self) {
        let (Some(name), Some(uid)) = (self.pools.name.clone(), self.pools.uid.clone()) else {
            return;
        };
        if !self.leading || !self.is_whole() {
            return;
        }
        let mut wrong: Vec<(&'static str, String)> = Vec::new();
        wrong
            .extend(self.pools.errors.iter().map(|error| (reason::INVALID_KEY, error.to_string())));
        wrong.extend(self.pools.unknown.iter().map(|key| {
            (
                reason::UNKNOWN_KEY,
                format!("key `{key}` means nothing to Berth and is passed over: is it misspelt?"),
            )
        }));
        let unusable = self.ledger.unusable_overlaps();
        wrong.extend(self.ledger.reserved_overlaps().into_iter().chain(unusable).map(|overlap| {
            let pools: Vec<_> = overlap.pools.iter().map(ToString::to_string).collect();
            let ranges: Vec<_> = overlap.addresses.iter().map(|range| range.to_string()).collect();
            let (pools, ranges) = (pools.join(", "), ranges.join(","));
            let note = format!(
                "{ranges} in {pools} belongs to {}; it is never given out",
                overlap.reservation
            );
            (reason::RESERVED_OVERLAP, note)
        }));
        let about = About::Pools(name, uid);
        for (reason, note) in &wrong {
            if !self.pools.told.contains(note) {
                let report =
                    Report { about: about.clone(), is_warning: true, reason, note: note.clone() };
                self.reports.push(report);
            }
        }
        self.pools.told = wrong.into_iter().map(|(_, note)| note).collect();
        self.report_strays();
    }

    /// Tells which addresses have left their pool, or come back to it. They stay with who has them.
    fn report_strays(&mut self) {
        let before = std::mem::take(&mut self.strays);
        for stray in self.ledger.strays() {
            let (address, pool, kind) = (stray.address, stray.pool, stray.owner.kind);
            let note = format!("{address} is no longer in {pool}; the {kind} keeps it");
            self.strays.insert((address, stray.owner), note);
        }
        let after = self.strays.clone();
        let changed = |(stray, _): &(&(IpAddr, Owner), &String)| {
            before.contains_key(stray) != after.contains_key(stray)
        };
        for ((address, owner), note) in before.iter().chain(&after).filter(changed) {
            self.touch(owner);
            let Some(claimant) = self.claimants.get(&Id::from(owner)).cloned() else { continue };
            let is_told = ours(&claimant).is_some_and(|shown| shown.reason == reason::OUTSIDE_POOL);
            if !is_told && after.contains_key(&(*address, owner.clone())) {
                self.report(&claimant, true, reason::OUTSIDE_POOL, note.clone());
            }
        }
    }
}
