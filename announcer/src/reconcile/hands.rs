//! Does in the kernel what the plan says. What the kernel refuses is tried again, ever more slowly, and holds up nothing
//! else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::desired::Desired;
use crate::backoff::Backoff;
use crate::dataplane::Dataplane;
use crate::kernel::{Binding, Host, Kernel, Step, Vlan};
use crate::metrics::{Metrics, cause};
use crate::vip::{Refusal, Wanted};

/// After a refusal the kernel is looked at again.
const AGAIN: Duration = Duration::from_secs(1);

/// What does in the kernel what the plan says.
pub(super) struct Hands<K> {
    pub(super) kernel: K,
    metrics: Metrics,
    /// What the kernel refused, and what it said.
    refused: BTreeMap<Binding, String>,
    /// What it said last of each binding that it has not done since, whoever is to have the address meanwhile.
    said: BTreeMap<Binding, String>,
    bindings: Backoff<Binding>,
    vlans: Backoff<String>,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Performed {
    /// Whether other addresses are bound than before.
    pub(super) changed: bool,
    /// Whether something is refused that was not before: another node had better have it.
    pub(super) refused: bool,
    /// How soon the kernel should be looked at.
    pub(super) look: Option<Duration>,
}

impl<K: Kernel> Hands<K> {
    pub(super) fn new(kernel: K, metrics: Metrics) -> Self {
        let second = Duration::from_secs(1);
        Self {
            kernel,
            metrics,
            refused: BTreeMap::new(),
            said: BTreeMap::new(),
            bindings: Backoff::new(second / 4, second * 10),
            vlans: Backoff::new(second, second * 60),
        }
    }

    /// The addresses that the kernel does not take.
    pub(super) fn refused(&self) -> BTreeSet<IpAddr> {
        self.refused.keys().map(|binding| binding.address).collect()
    }

    /// The addresses that it would not bind when it was last asked to.
    pub(super) fn unbound(&self) -> BTreeSet<IpAddr> {
        self.said.keys().map(|binding| binding.address).collect()
    }

    /// What it said of them.
    pub(super) fn errors(&self) -> BTreeMap<IpAddr, String> {
        let errors = self.refused.iter();
        errors.map(|(binding, error)| (binding.address, error.clone())).collect()
    }

    /// Adds what the kernel refused to what becomes of Services. A node that cannot bind one of two addresses lets that go
    /// and speaks for the Service all the same. What another announcer decides on is not this node's to bind.
    pub(super) fn note(&mut self, desired: &mut Desired, wanted: &Wanted, node: &str) {
        self.said.retain(|binding, _| wanted.vip(binding.address).is_some());
        let said: BTreeMap<IpAddr, &String> =
            self.said.iter().map(|(binding, error)| (binding.address, error)).collect();
        let verdicts = desired.verdicts.iter_mut().filter(|(_, verdict)| !verdict.left);
        for (name, verdict) in verdicts.filter(|_| !said.is_empty()) {
            let claimed = wanted.services.get(name).map_or(&[][..], |claim| &claim.addresses);
            for address in claimed {
                let Some(error) = said.get(address) else { continue };
                let (node, address, error) = (node.to_owned(), *address, (*error).clone());
                verdict.refuse_at(address, Refusal::NotBound { node, address, error });
            }
        }
    }

    /// Forgets VLANs that are not wanted any more.
    pub(super) fn keep_vlans(&mut self, host: &mut Host, wanted: &BTreeMap<String, Vlan>) {
        self.vlans.retain(|name| wanted.contains_key(name));
        host.unmade.retain(|name, _| wanted.contains_key(name));
    }

    /// When something is tried again.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        [self.bindings.deadline(now), self.vlans.deadline(now)].into_iter().flatten().min()
    }

    /// Does the steps, and keeps `host` as the kernel is by then.
    pub(super) async fn perform(
        &mut self,
        steps: Vec<Step>,
        host: &mut Host,
        desired: &Desired,
        dataplane: &Dataplane,
        now: Instant,
    ) -> Performed {
        let mut outcome = Performed::default();
        for step in steps {
            match step {
                Step::Guard(guarded) => dataplane.unserved.want(guarded),
                Step::Remove(binding) if self.bindings.is_due(&binding, now) => {
                    let done = self.kernel.remove(binding).await.map_err(|e| e.to_string());
                    if self.count("remove", binding, done, &mut outcome, now) {
                        tracing::info!(address = %binding.address, "no longer holding");
                        host.ours.remove(&binding);
                        outcome.changed = true;
                    }
                }
                Step::Bind(binding, lifetime) if self.bindings.is_due(&binding, now) => {
                    let renewal = host.ours.contains_key(&binding);
                    let done = self.kernel.bind(binding, lifetime).await.map_err(|e| e.to_string());
                    let step = if renewal { "renew" } else { "bind" };
                    if self.count(step, binding, done, &mut outcome, now) {
                        if !renewal {
                            tracing::info!(address = %binding.address, index = binding.index, "holding");
                            outcome.changed = true;
                        }
                        host.ours.insert(binding, lifetime);
                    }
                }
                Step::MakeVlan(name, vlan) if self.vlans.is_due(&name, now) => {
                    self.make_vlan(name, vlan, host, &mut outcome, now).await;
                }
                Step::RemoveLink(index) => match self.kernel.remove_link(index).await {
                    Ok(()) => {
                        tracing::info!(index, "the VLAN interface is not needed any more");
                        host.made.remove(&index);
                        host.interfaces.retain(|_, interface| interface.index != index);
                        self.metrics.steps.get_or_create(&cause("remove_vlan")).inc();
                        outcome.changed = true;
                    }
                    Err(error) => tracing::error!(index, %error, "a VLAN interface stays"),
                },
                Step::Remove(_) | Step::Bind(..) | Step::MakeVlan(..) => {}
            }
        }
        let planned = |binding: &Binding| {
            host.ours.contains_key(binding) || desired.addresses.contains_key(&binding.address)
        };
        self.refused.retain(|binding, _| planned(binding));
        self.metrics.addresses.set(host.ours.len().try_into().unwrap_or(i64::MAX));
        outcome
    }

    async fn make_vlan(
        &mut self,
        name: String,
        vlan: Vlan,
        host: &mut Host,
        outcome: &mut Performed,
        now: Instant,
    ) {
        match self.kernel.make_vlan(&name, vlan).await {
            Ok(()) => {
                tracing::info!(name, id = vlan.id, "made the VLAN interface");
                self.metrics.steps.get_or_create(&cause("make_vlan")).inc();
                outcome.look = Some(Duration::ZERO);
            }
            Err(error) => {
                self.metrics.kernel_errors.get_or_create(&cause("make_vlan")).inc();
                let error = error.to_string();
                if host.unmade.insert(name.clone(), error.clone()).as_ref() != Some(&error) {
                    tracing::error!(name, error, "cannot make the VLAN interface");
                    (outcome.refused, outcome.changed) = (true, true);
                }
                self.vlans.again(name, now);
            }
        }
    }

    /// Counts a step; true if the kernel did it.
    fn count(
        &mut self,
        step: &'static str,
        binding: Binding,
        done: Result<(), String>,
        outcome: &mut Performed,
        now: Instant,
    ) -> bool {
        match done {
            Ok(()) => {
                self.metrics.steps.get_or_create(&cause(step)).inc();
                self.refused.remove(&binding);
                self.said.retain(|said, _| said.address != binding.address);
                true
            }
            Err(error) => {
                self.metrics.kernel_errors.get_or_create(&cause(step)).inc();
                self.bindings.again(binding, now);
                outcome.look = Some(outcome.look.map_or(AGAIN, |look| look.min(AGAIN)));
                if self.said.insert(binding, error.clone()).as_ref() != Some(&error) {
                    tracing::error!("{error}");
                }
                if self.refused.get(&binding) != Some(&error) {
                    self.refused.insert(binding, error);
                    outcome.refused = true;
                }
                false
            }
        }
    }
}
