//! Owns what is known of the virtual machines, and which EipBindings are for each.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::NamespacedName;

use super::version::is_newer;
use crate::binding::Binding;
use crate::kubevirt::Vmi;

/// The machines.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines {
    known: BTreeMap<NamespacedName, Vmi>,
    /// Whether the cluster has no such resource.
    absent: bool,
    /// The EipBindings of each machine, whether it exists or not.
    bound: BTreeMap<NamespacedName, BTreeSet<NamespacedName>>,
    /// The uid of the machine that an EipBinding was last placed with.
    placed: BTreeMap<NamespacedName, String>,
}

impl Machines {
    /// Takes in a machine and returns whether that is news. What is older than what is known is passed over.
    pub(super) fn apply(&mut self, vmi: Vmi) -> bool {
        let known = self.known.get(&vmi.key);
        if known.is_some_and(|known| !is_newer(&vmi.version, &known.version)) {
            return false;
        }
        let is_news = known.is_none_or(|known| !vmi.is_like(known));
        self.known.insert(vmi.key.clone(), vmi);
        is_news
    }

    /// Takes in that a machine is gone; with a uid, only if it is that one. Returns whether it was there.
    pub(super) fn remove(&mut self, key: &NamespacedName, uid: Option<&str>) -> bool {
        let known = self.known.get(key);
        let is_that = known.is_some_and(|known| uid.is_none_or(|uid| known.uid == uid));
        is_that && self.known.remove(key).is_some()
    }

    pub(super) fn set_absent(&mut self, absent: bool) {
        self.absent = absent;
    }

    pub(super) fn is_absent(&self) -> bool {
        self.absent
    }

    pub(super) fn get(&self, key: &NamespacedName) -> Option<&Vmi> {
        self.known.get(key)
    }

    pub(super) fn names(&self) -> BTreeSet<NamespacedName> {
        self.known.keys().cloned().collect()
    }

    pub(super) fn bind(&mut self, binding: &Binding) {
        self.bound.entry(binding.vmi.clone()).or_default().insert(binding.key.clone());
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        self.placed.remove(&binding.key);
        if let Some(bound) = self.bound.get_mut(&binding.vmi) {
            bound.remove(&binding.key);
            if bound.is_empty() {
                self.bound.remove(&binding.vmi);
            }
        }
    }

    /// The EipBindings of a machine.
    pub(super) fn bound_to(&self, vmi: &NamespacedName) -> impl Iterator<Item = &NamespacedName> {
        self.bound.get(vmi).into_iter().flatten()
    }

    /// The machines that have EipBindings, whether they exist or not.
    pub(super) fn wanted(&self) -> impl Iterator<Item = &NamespacedName> {
        self.bound.keys()
    }

    /// The binding is placed with the machine that runs now, or with none.
    pub(super) fn remember(&mut self, binding: &Binding, is_placed: bool) {
        match self.known.get(&binding.vmi).filter(|_| is_placed) {
            Some(vmi) => _ = self.placed.insert(binding.key.clone(), vmi.uid.clone()),
            None => _ = self.placed.remove(&binding.key),
        }
    }

    /// Whether the binding was last placed with this very machine.
    pub(super) fn was_placed(&self, binding: &Binding, machine: &Vmi) -> bool {
        self.placed.get(&binding.key) == Some(&machine.uid)
    }
}
