//! Owns what is known of the virtual machines, and who of several EipBindings serves one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_ipam::Family;

use super::observe::is_newer;
use super::{Index, Source};
use crate::binding::Binding;
use crate::claimant::{Claimant, Id};
use crate::kubevirt::Vmi;
use crate::placement::{Place, Unplaced, place};
use crate::service::Key;

/// The machines.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines {
    known: BTreeMap<Key, Vmi>,
    /// Whether the cluster has no such resource.
    absent: bool,
    /// The EipBindings of each machine, whether it exists or not.
    bound: BTreeMap<Key, BTreeSet<Key>>,
    /// The uid of the machine that an EipBinding was last placed with.
    placed: BTreeMap<Key, String>,
}

impl Machines {
    pub(super) fn bind(&mut self, binding: &Binding) {
        self.bound.entry(binding.vmi.clone()).or_default().insert(binding.key.clone());
    }

    /// The binding is placed with the machine that runs now, or with none.
    pub(super) fn remember(&mut self, binding: &Binding, is_placed: bool) {
        match self.known.get(&binding.vmi).filter(|_| is_placed) {
            Some(vmi) => _ = self.placed.insert(binding.key.clone(), vmi.uid.clone()),
            None => _ = self.placed.remove(&binding.key),
        }
    }
}

impl Index {
    /// Takes in a virtual machine. What is older than what is known is passed over.
    pub fn apply_machine(&mut self, vmi: Vmi) {
        let key = vmi.key.clone();
        let known = self.machines.known.get(&key);
        if known.is_some_and(|known| !is_newer(&vmi.version, &known.version)) {
            return;
        }
        let is_news = known.is_none_or(|known| !vmi.is_like(known));
        self.machines.known.insert(key.clone(), vmi);
        if is_news {
            self.touch_bound(&key);
        }
    }

    /// Takes in that a virtual machine is gone; with a uid, only if it is that one.
    pub fn remove_machine(&mut self, key: &Key, uid: Option<&str>) {
        let known = self.machines.known.get(key);
        if known.is_some_and(|known| uid.is_none_or(|uid| known.uid == uid)) {
            self.machines.known.remove(key);
            self.touch_bound(key);
        }
    }

    /// Takes in that the cluster has no resource of this source: there is nothing to wait for.
    pub fn absent(&mut self, source: Source, now: Duration) {
        self.listed(source, now);
        if source == Source::Machines {
            self.machines.absent = true;
            self.machines_changed();
        }
    }

    /// The machines, for a list that starts again: whatever it does not have is gone.
    pub fn known_machines(&self) -> BTreeSet<Key> {
        self.machines.known.keys().cloned().collect()
    }

    /// How often an elastic IP went from one node to another, by a write of this process.
    pub fn moves(&self) -> u64 {
        self.moves
    }

    pub(super) fn machines_listed(&mut self) {
        self.machines.absent = false;
        self.machines_changed();
    }

    fn machines_changed(&mut self) {
        let bound: Vec<Key> = self.machines.bound.keys().cloned().collect();
        bound.iter().for_each(|vmi| self.touch_bound(vmi));
    }

    pub(super) fn unbind(&mut self, binding: &Binding) {
        self.machines.placed.remove(&binding.key);
        if let Some(bound) = self.machines.bound.get_mut(&binding.vmi) {
            bound.remove(&binding.key);
            if bound.is_empty() {
                self.machines.bound.remove(&binding.vmi);
            }
        }
        // The next one may serve the machine now.
        self.touch_bound(&binding.vmi);
    }

    fn touch_bound(&mut self, vmi: &Key) {
        let bound: Vec<Key> = self.machines.bound.get(vmi).into_iter().flatten().cloned().collect();
        bound.iter().for_each(|key| self.touch_id(&Id::eip(key)));
    }

    /// Where the addresses of these families belong that the binding has, as far as that is known.
    pub(super) fn placement(
        &self,
        binding: &Binding,
        families: &[Family],
    ) -> Option<Result<Place, Unplaced>> {
        if !self.listed.contains(&Source::Machines) {
            return None;
        }
        let vmi = || binding.vmi.clone();
        if let Some(by) = self.rival(binding) {
            return Some(Err(Unplaced::Taken { vmi: vmi(), by }));
        }
        let Some(machine) = self.machines.known.get(&binding.vmi) else {
            let absent = self.machines.absent;
            return Some(Err(if absent {
                Unplaced::NoKubeVirt
            } else {
                Unplaced::NotFound(vmi())
            }));
        };
        let placed = place(families, binding.interface.as_deref(), machine);
        let known = self.machines.placed.get(&binding.key) == Some(&machine.uid);
        match (placed, &machine.node) {
            // KubeVirt empties the list of interfaces for a moment when a migration hands over, and a guest agent
            // that restarts shows none either. The machine still is the one that has these addresses.
            (Err(Unplaced::NoAddress(_)), Some(node))
                if known && binding.vmi_ips.len() == families.len() =>
            {
                let (node, target) = (node.clone(), machine.target.clone());
                Some(Ok(Place { node, target, addresses: binding.vmi_ips.clone() }))
            }
            (placed, _) => Some(placed),
        }
    }

    /// Whether the machine is known not to be at work.
    pub(super) fn is_stopped(&self, binding: &Binding) -> bool {
        let families = binding.families.wanted();
        matches!(
            self.placement(binding, &families),
            Some(Err(Unplaced::NotFound(_) | Unplaced::NotRunning { .. }))
        )
    }

    /// The other binding that serves the machine: one that has an address before one that has none, since what is
    /// given is not taken away; then the older one.
    pub(super) fn rival(&self, binding: &Binding) -> Option<Key> {
        let rank = |binding: &Binding| {
            let holds = self.ledger.held(&binding.owner()).next().is_some();
            (!holds, binding.created, binding.key.clone())
        };
        let others = self.machines.bound.get(&binding.vmi)?.iter();
        let others = others.filter(|key| **key != binding.key);
        let others = others.filter_map(|key| match self.claimants.get(&Id::eip(key))? {
            // One that is on its way and has let go of all is nobody's rival.
            Claimant::Eip(other) => {
                let (has_none, created, key) = rank(other);
                (!other.deleting || !has_none).then_some((has_none, created, key))
            }
            Claimant::Service(_) => None,
        });
        let first = others.min()?;
        (first < rank(binding)).then_some(first.2)
    }
}
