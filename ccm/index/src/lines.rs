//! Owns in which order the EipBindings of each machine serve it: one that has an address before one that has none, since
//! what is given is not taken away; then the older one. The first serves it, and the others ask nothing of the machine: a
//! change costs the same whether there are two or ten thousand.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::NamespacedName;

use crate::binding::Binding;

/// Where a binding stands: whether it has no address, when it was made, and its name.
type Rank = (bool, i64, NamespacedName);

/// The bindings of machines, whether these exist or not.
#[derive(Clone, Debug, Default)]
pub(super) struct Lines {
    by_machine: BTreeMap<NamespacedName, BTreeSet<Rank>>,
    /// By binding, its machine and where it stands.
    places: BTreeMap<NamespacedName, (NamespacedName, Rank)>,
    /// Who has come to be the first, or is so no more, since this was last asked.
    news: BTreeSet<NamespacedName>,
}

impl Lines {
    /// The binding has addresses, or none. One that is on its way and has let go of all stands in no line.
    pub(super) fn stand(&mut self, binding: &Binding, has_addresses: bool) {
        let place = (binding.vmi.clone(), rank(binding, has_addresses));
        let stands = has_addresses || !binding.deleting;
        if self.places.get(&binding.key) == Some(&place).filter(|_| stands) {
            return;
        }
        self.remove(&binding.key);
        if stands {
            let (vmi, rank) = place.clone();
            self.places.insert(binding.key.clone(), place);
            self.change(&vmi, |line| line.insert(rank));
        }
    }

    /// The binding is gone.
    pub(super) fn leave(&mut self, key: &NamespacedName) {
        self.remove(key);
        self.news.remove(key);
    }

    fn remove(&mut self, key: &NamespacedName) {
        if let Some((vmi, rank)) = self.places.remove(key) {
            self.change(&vmi, |line| line.remove(&rank));
        }
    }

    fn change(&mut self, vmi: &NamespacedName, change: impl FnOnce(&mut BTreeSet<Rank>) -> bool) {
        let line = self.by_machine.entry(vmi.clone()).or_default();
        let first = |line: &BTreeSet<Rank>| line.first().map(|(.., key)| key.clone());
        let before = first(line);
        change(line);
        let after = first(line);
        if line.is_empty() {
            self.by_machine.remove(vmi);
        }
        if before != after {
            self.news.extend(before.into_iter().chain(after));
        }
    }

    /// Who serves the machine, or would.
    pub(super) fn first(&self, vmi: &NamespacedName) -> Option<&NamespacedName> {
        self.by_machine.get(vmi)?.first().map(|(.., key)| key)
    }

    /// The other binding that serves the machine of this one, which has addresses, or none.
    pub(super) fn rival(&self, binding: &Binding, has_addresses: bool) -> Option<&NamespacedName> {
        let first = self.by_machine.get(&binding.vmi)?.first()?;
        let is_other = first.2 != binding.key && *first < rank(binding, has_addresses);
        is_other.then_some(&first.2)
    }

    /// Who has come to be the first, or is so no more, since this was last asked: they are to be looked at.
    pub(super) fn take_news(&mut self) -> BTreeSet<NamespacedName> {
        std::mem::take(&mut self.news)
    }
}

fn rank(binding: &Binding, has_addresses: bool) -> Rank {
    (!has_addresses, binding.created, binding.key.clone())
}
