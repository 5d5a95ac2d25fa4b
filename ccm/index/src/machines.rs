//! Owns what is known of the virtual machines.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::NamespacedName;

use super::showing::Showing;
use super::version::is_newer;
use crate::binding::Binding;
use crate::kubevirt::{Interface, Origin, Vmi};

/// The machines.
#[derive(Clone, Debug, Default)]
pub(super) struct Machines {
    known: BTreeMap<NamespacedName, Vmi>,
    /// Whether the cluster has no such resource.
    absent: bool,
    /// The uid of the machine that an EipBinding was last placed with.
    placed: BTreeMap<NamespacedName, String>,
    /// What each machine that runs shows, or showed last, on its interfaces.
    shows: BTreeMap<NamespacedName, Interfaces>,
    /// The same by address.
    showing: BTreeMap<IpAddr, Showing>,
}

/// Interfaces by name.
type Interfaces = BTreeMap<String, Interface>;

impl Machines {
    /// Takes in a machine and returns whom that concerns: itself if it is news, and the others that show an address which it
    /// shows now or does no more. What is older than what is known is passed over.
    pub(super) fn apply(&mut self, vmi: Vmi) -> BTreeSet<NamespacedName> {
        let (key, known) = (vmi.key.clone(), self.known.get(&vmi.key));
        if known.is_some_and(|known| !is_newer(&vmi.version, &known.version)) {
            return BTreeSet::new();
        }
        let is_news = known.is_none_or(|known| !vmi.is_like(known));
        let is_same = known.is_some_and(|known| known.uid == vmi.uid);
        let former = self.shows.get(&key).filter(|_| is_same);
        let mut concerned = self.show(&key, shows(&vmi, former));
        self.known.insert(key.clone(), vmi);
        match is_news {
            true => concerned.insert(key),
            false => concerned.remove(&key),
        };
        concerned
    }

    /// Takes in that a machine is gone; with a uid, only if it is that one. Returns whom that concerns.
    pub(super) fn remove(
        &mut self,
        key: &NamespacedName,
        uid: Option<&str>,
    ) -> BTreeSet<NamespacedName> {
        let known = self.known.get(key);
        let is_that = known.is_some_and(|known| uid.is_none_or(|uid| known.uid == uid));
        if !is_that {
            return BTreeSet::new();
        }
        self.known.remove(key);
        let mut concerned = self.show(key, Interfaces::new());
        concerned.insert(key.clone());
        concerned
    }

    /// The machine shows this and nothing else. Returns those that show an address of which this is news.
    fn show(&mut self, key: &NamespacedName, shows: Interfaces) -> BTreeSet<NamespacedName> {
        let before = addresses(&self.shows.remove(key).unwrap_or_default());
        let now = addresses(&shows);
        let mut concerned = BTreeSet::new();
        let all: BTreeSet<&IpAddr> = before.keys().chain(now.keys()).collect();
        for address in all.into_iter().filter(|own| before.get(own) != now.get(own)) {
            let showing = self.showing.entry(*address).or_default();
            showing.put(key, now.get(address).copied());
            concerned.extend(showing.concerned().cloned());
            if showing.is_empty() {
                self.showing.remove(address);
            }
        }
        if !shows.is_empty() {
            self.shows.insert(key.clone(), shows);
        }
        concerned
    }

    /// Who shows the address.
    pub(super) fn showing(&self, address: IpAddr) -> Option<&Showing> {
        self.showing.get(&address)
    }

    /// Whether the address that the machine shows is its guest's behind its pod.
    pub(super) fn is_inner(&self, key: &NamespacedName, address: IpAddr) -> bool {
        let shows = self.shows.get(key).into_iter().flatten();
        shows.into_iter().any(|(_, interface)| interface.inner.contains(&address))
    }

    /// Who shows an address that is one of these.
    pub(super) fn showing_any(&self, is_one: impl Fn(IpAddr) -> bool) -> BTreeSet<NamespacedName> {
        let all = self.showing.iter().filter(|(address, _)| is_one(**address));
        all.flat_map(|(_, showing)| showing.all().cloned()).collect()
    }

    /// Whether the cluster has no such resource. Returns whether that is news.
    pub(super) fn set_absent(&mut self, absent: bool) -> bool {
        std::mem::replace(&mut self.absent, absent) != absent
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

    /// The binding is gone.
    pub(super) fn forget(&mut self, binding: &NamespacedName) {
        self.placed.remove(binding);
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

/// What a machine that runs shows on the interfaces of its spec; what only the guest knows others cannot reach. One that
/// shows no address has those that it showed before (`former`): KubeVirt empties the list for a moment when a migration
/// hands over, and what an elastic IP leads to stays meanwhile, too.
fn shows(vmi: &Vmi, former: Option<&Interfaces>) -> Interfaces {
    let named = vmi.interfaces.iter().filter(|interface| !interface.name.is_empty());
    let named = named.filter(|_| vmi.node.is_some());
    let mut shows: Interfaces =
        named.map(|interface| (interface.name.clone(), interface.clone())).collect();
    for (name, before) in former.into_iter().flatten().filter(|_| vmi.node.is_some()) {
        match shows.get_mut(name) {
            Some(interface) if interface.addresses.is_empty() => interface.clone_from(before),
            None if vmi.interfaces.is_empty() => _ = shows.insert(name.clone(), before.clone()),
            _ => {}
        }
    }
    shows
}

/// The addresses of all of them, and where each comes from.
fn addresses(interfaces: &Interfaces) -> BTreeMap<IpAddr, Origin> {
    let mut all = BTreeMap::new();
    for interface in interfaces.values() {
        for address in &interface.addresses {
            let origin = all.entry(*address).or_insert(interface.origin);
            if interface.origin.may_vouch() {
                *origin = interface.origin;
            }
        }
    }
    all
}
