//! Owns what the pool ConfigMap says, and what was told of it. A bad edit, or none at all, changes nothing that is
//! assigned.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::reason;
use berth_api::{NamespacedName, Quoted};
use berth_ipam::{Crossing, KeyError, Ledger, Owner, Pools};

use super::vips::may_be_vips;
use crate::report::{About, Report};

/// The ConfigMap.
#[derive(Clone, Debug, Default)]
pub(super) struct PoolMap {
    name: Option<NamespacedName>,
    uid: Option<String>,
    errors: Vec<KeyError>,
    unknown: Vec<String>,
    /// Keys with an empty list, and what it says.
    empty: Vec<(String, &'static str)>,
    /// What is told of networks that are named by an address inside them.
    host_bits: Vec<String>,
    told: BTreeSet<String>,
    /// Addresses outside of their pool, and what is told of them.
    strays: BTreeMap<(IpAddr, Owner), String>,
}

/// What is told of addresses that namespaces share which may not share them any more.
fn crossings(ledger: &Ledger) -> Option<String> {
    let all = ledger.crossings();
    let first = all.iter().take(3).map(|Crossing { address, namespaces }| {
        let (few, rest) = namespaces.split_at(namespaces.len().min(3));
        let more =
            if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
        format!("{address} of {}{more}", few.join(", "))
    });
    let first: Vec<String> = first.collect();
    let rest = all.len() - first.len();
    let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
    (!all.is_empty()).then(|| {
        format!(
            "namespaces share addresses that do not name each other: {}{more}; they keep them, and nobody joins from another \
             namespace; accepted is `share-with-<namespace>` of each with the others in it",
            first.join("; ")
        )
    })
}

/// What is told, one text for each key, of networks that are named by an address inside them.
fn host_bits(data: &BTreeMap<String, String>) -> Vec<String> {
    let mut of_keys: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (key, entry, network) in Pools::with_host_bits(data) {
        of_keys.entry(key).or_default().push(format!("{entry} is all of {network}"));
    }
    let told = |(key, entries): (&str, Vec<String>)| {
        let rest = entries.len().saturating_sub(3);
        let more = if rest == 0 { String::new() } else { format!(" and {rest} more") };
        let first = entries[..entries.len() - rest].join(", ");
        format!(
            "key {}: {first}{more}; where no more than what begins at that address was meant, write a range, such as \
             192.0.2.10-192.0.2.20",
            Quoted::of(key)
        )
    };
    of_keys.into_iter().map(told).collect()
}

/// An address that has left its pool since this was last asked, or has come back to it.
pub(super) struct Strayed {
    pub(super) address: IpAddr,
    pub(super) owner: Owner,
    /// What is told of it.
    pub(super) note: String,
}

impl PoolMap {
    pub(super) fn new(name: NamespacedName) -> Self {
        Self { name: Some(name), ..Self::default() }
    }

    pub(super) fn is_missing(&self) -> bool {
        self.uid.is_none()
    }

    pub(super) fn name(&self) -> String {
        self.name.as_ref().map(NamespacedName::to_string).unwrap_or_default()
    }

    /// Takes in the ConfigMap.
    pub(super) fn apply(
        &mut self,
        uid: String,
        data: &BTreeMap<String, String>,
        ledger: &mut Ledger,
    ) {
        self.uid = Some(uid);
        self.errors = ledger.update_pools(data);
        self.unknown = Pools::unknown_keys(data).into_iter().map(str::to_owned).collect();
        let empty = Pools::empty_keys(data).into_iter();
        self.empty = empty.map(|(key, says)| (key.to_owned(), says)).collect();
        self.host_bits = host_bits(data);
    }

    /// Takes in that there is none.
    pub(super) fn remove(&mut self) {
        self.uid = None;
        self.told.clear();
    }

    /// The keys that are not accepted.
    pub(super) fn invalid_keys(&self) -> usize {
        self.errors.len()
    }

    /// What is wrong with the pools and was not told yet; nothing at all where there is no ConfigMap.
    pub(super) fn news(&mut self, ledger: &Ledger) -> Option<Vec<Report>> {
        let about = About::Pools(self.name.clone()?, self.uid.clone()?);
        let wrong = self.problems(ledger);
        let news = wrong.iter().filter(|(_, note)| !self.told.contains(note));
        let news = news.map(|(reason, note)| Report {
            about: about.clone(),
            is_warning: true,
            reason,
            note: note.clone(),
        });
        let news = news.collect();
        self.told = wrong.into_iter().map(|(_, note)| note).collect();
        Some(news)
    }

    fn problems(&self, ledger: &Ledger) -> Vec<(&'static str, String)> {
        let errors = self.errors.iter().map(|error| (reason::INVALID_KEY, error.to_string()));
        let unknown = self.unknown.iter().map(|key| {
            let note = format!(
                "key {} means nothing to Berth and is passed over: is it misspelt?",
                Quoted::of(key)
            );
            (reason::UNKNOWN_KEY, note)
        });
        let empty = self.empty.iter().map(|(key, says)| {
            (reason::EMPTY_KEY, format!("key {} is an empty list: {says}", Quoted::of(key)))
        });
        let host_bits = self.host_bits.iter().map(|note| (reason::HOST_BITS, note.clone()));
        let unusable = ledger.unusable_overlaps();
        let overlaps =
            ledger.reserved_overlaps(may_be_vips).into_iter().chain(unusable).map(|overlap| {
                let pools: Vec<_> = overlap.pools.iter().map(ToString::to_string).collect();
                let ranges: Vec<_> =
                    overlap.addresses.iter().map(|range| range.to_string()).collect();
                let (pools, ranges) = (pools.join(", "), ranges.join(","));
                let note = format!(
                    "{ranges} in {pools} belongs to {}; it is never given out",
                    overlap.reservation
                );
                (reason::RESERVED_OVERLAP, note)
            });
        let crossings = crossings(ledger).into_iter().map(|note| (reason::SHARED_ACROSS, note));
        errors
            .chain(unknown)
            .chain(empty)
            .chain(host_bits)
            .chain(overlaps)
            .chain(crossings)
            .collect()
    }

    /// Which addresses have left their pool since this was last asked, or have come back to it.
    pub(super) fn strayed(&mut self, ledger: &Ledger) -> Vec<Strayed> {
        let before = std::mem::take(&mut self.strays);
        for stray in ledger.strays() {
            let (address, pool, kind) = (stray.address, stray.pool, stray.owner.kind);
            let note = format!("{address} is no longer in {pool}; the {kind} keeps it");
            self.strays.insert((address, stray.owner), note);
        }
        let after = &self.strays;
        let changed = |(stray, _): &(&(IpAddr, Owner), &String)| {
            before.contains_key(stray) != after.contains_key(stray)
        };
        let changed = before.iter().chain(after).filter(changed);
        let strayed = changed.map(|((address, owner), note)| Strayed {
            address: *address,
            owner: owner.clone(),
            note: note.clone(),
        });
        strayed.collect()
    }

    /// What is told of an address that is outside of its pool.
    pub(super) fn stray(&self, address: IpAddr, owner: &Owner) -> Option<&String> {
        self.strays.get(&(address, owner.clone()))
    }
}
