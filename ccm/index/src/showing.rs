//! Owns who shows an address, by where each has it from.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::NamespacedName;

use crate::kubevirt::Origin;

/// The machines that show one address.
#[derive(Clone, Debug, Default)]
pub(super) struct Showing(BTreeMap<Origin, BTreeSet<NamespacedName>>);

impl Showing {
    /// The machine shows the address, from there, or does not.
    pub(super) fn put(&mut self, key: &NamespacedName, origin: Option<Origin>) {
        self.0.retain(|_, machines| {
            machines.remove(key);
            !machines.is_empty()
        });
        if let Some(origin) = origin {
            self.0.entry(origin).or_default().insert(key.clone());
        }
    }

    /// Where the machine has the address from, if it shows it.
    pub(super) fn origin(&self, key: &NamespacedName) -> Option<Origin> {
        self.0.iter().find(|(_, machines)| machines.contains(key)).map(|(origin, _)| *origin)
    }

    /// The first other machine that has it from such a place.
    pub(super) fn other(
        &self,
        key: &NamespacedName,
        is_from: impl Fn(Origin) -> bool,
    ) -> Option<&NamespacedName> {
        let from = self.0.iter().filter(|(origin, _)| is_from(**origin));
        from.filter_map(|(_, machines)| machines.iter().find(|other| *other != key)).min()
    }

    /// Whose standing one machine more or less, or a claim, may change. An address that three show has none of them, whoever
    /// else may say so, unless KubeVirt vouches for one; nor then, if it does so for three.
    pub(super) fn concerned(&self) -> impl Iterator<Item = &NamespacedName> {
        let few = |is_from: fn(&Origin) -> bool| {
            let from = || self.0.iter().filter(move |(origin, _)| is_from(origin));
            let count: usize = from().map(|(_, machines)| machines.len()).sum();
            from().flat_map(|(_, machines)| machines).take(if count <= 2 { count } else { 0 })
        };
        let vouched = few(|origin| origin.may_vouch()).chain(few(|origin| !origin.by_guest));
        few(|_| true).chain(vouched)
    }

    /// All of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &NamespacedName> {
        self.0.values().flatten()
    }

    /// Whether nobody shows it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
