//! Owns the way of an EipBinding: finalizer, claim, status; and back: nobody is to answer, nobody answers, claim gone,
//! finalizer gone. Each write of its status says all that berth-ccm has to say there.

use std::net::IpAddr;
use std::time::Duration;

use berth_api::{address, eip, reason};
use berth_ipam::Family;

use super::allocate::Hopeless;
use super::{Index, PATIENCE};
use crate::binding::{Binding, Decided, Stated};
use crate::claimant::{Claimant, Id};
use crate::placement::{Place, Unplaced};
use crate::write::{News, Object, Verdict, Write};

impl Index {
    pub(super) fn decide_eip(
        &mut self,
        claimant: &Claimant,
        binding: &Binding,
        now: Duration,
        hopeless: &mut Hopeless,
        writes: &mut Vec<Write>,
    ) {
        if self.is_ending_eip(binding) {
            return self.release_eip(binding, now, writes);
        }
        // Before there is a claim, so that a binding which goes meanwhile leaves none behind.
        if !binding.has_finalizer() {
            return self.patch_finalizer(binding, true, writes);
        }
        let turn = (binding.created, Id::eip(&binding.key));
        if self.ledger.held(&binding.owner()).next().is_none()
            && let Some(by) = self.rival(binding)
        {
            let refused = Unplaced::Taken { vmi: binding.vmi.clone(), by };
            let (reason, message) = (refused.reason(), refused.to_string());
            return self.refuse(turn, claimant, Verdict { allocated: false, reason, message });
        }
        self.allocate(claimant, now, hopeless, writes);
    }

    /// Whether the binding is to hold no address, or none any longer.
    pub(super) fn is_ending_eip(&self, binding: &Binding) -> bool {
        binding.deleting || !binding.retain && self.is_stopped(binding)
    }

    /// Writes what differs between the binding's status and its addresses, node and machine. Returns whether anything
    /// did. `besides` is what it asks for and does not get.
    pub(super) fn project_eip(
        &mut self,
        claimant: &Claimant,
        binding: &Binding,
        addresses: &[IpAddr],
        besides: Option<&Verdict>,
        writes: &mut Vec<Write>,
    ) -> bool {
        let allocated = match besides {
            Some(Verdict { reason, message, .. }) => {
                let keeps = address::format(addresses.iter().copied());
                let message = format!("{message}; it keeps {keeps}");
                Verdict { allocated: true, reason, message }
            }
            None => self.content(claimant, &binding.owner(), addresses),
        };
        let families: Vec<Family> = addresses.iter().copied().map(Family::of).collect();
        let place = self.placement(binding, &families);
        if let Some(place) = &place {
            self.machines.remember(binding, place.is_ok());
        }
        let decided = decided(binding, addresses, allocated, place.as_ref());
        self.show(binding, decided, place.and_then(Result::err), writes)
    }

    /// Shows that the binding has no address, and why.
    pub(super) fn show_refusal(
        &mut self,
        binding: &Binding,
        verdict: Verdict,
        writes: &mut Vec<Write>,
    ) {
        let decided = match verdict.reason {
            // What it was given in another life stays as it is, until somebody decides.
            reason::ADDRESS_CONFLICT => decided(binding, &binding.eips, verdict, None),
            _ => decided(binding, &[], verdict, None),
        };
        self.show(binding, decided, None, writes);
    }

    fn release_eip(&mut self, binding: &Binding, now: Duration, writes: &mut Vec<Write>) {
        let (id, owner) = (Id::eip(&binding.key), binding.owner());
        self.waiting.remove(&(binding.created, id.clone()));
        self.verdicts.remove(&id);
        let held: Vec<IpAddr> = self.ledger.held(&owner).collect();
        if held.is_empty() && binding.deleting && !binding.has_finalizer() {
            self.leaving.remove(&id);
            return;
        }
        self.machines.remember(binding, false);
        // First of all nobody is to answer any longer.
        if binding.node.is_some() || !binding.vmi_ips.is_empty() {
            let allocated = self.given_all(&owner, &binding.eips);
            let decided = leaving(binding, &binding.eips, allocated);
            self.show(binding, decided, None, writes);
            return;
        }
        let since = *self.leaving.entry(id.clone()).or_insert(now);
        if !held.is_empty() && binding.holder.is_some() && now < since + PATIENCE {
            self.timers.insert((since + PATIENCE, Object::Claimant(id)));
            return;
        }
        if binding.holder.is_some() {
            self.unheard.extend(held.into_iter().map(|address| (address, owner.clone())));
        }
        if !self.leave_all(&owner, now, writes) {
            return;
        }
        if binding.deleting {
            self.patch_finalizer(binding, false, writes);
            return;
        }
        let families = binding.families.wanted();
        let (reason, message) = match self.placement(binding, &families) {
            Some(Err(unplaced)) => (unplaced.reason(), unplaced.to_string()),
            _ => (reason::NOT_ALLOCATED, "it is about to have an address".to_owned()),
        };
        let message = format!("{message}; `retain` is false, so it keeps no address meanwhile");
        let verdict = Verdict { allocated: false, reason, message };
        self.show(binding, leaving(binding, &[], verdict), None, writes);
    }

    fn patch_finalizer(&mut self, binding: &Binding, with_ours: bool, writes: &mut Vec<Write>) {
        let finalizers = binding.finalizers(with_ours);
        let Binding { key, uid, version, .. } = binding.clone();
        self.start(Write::PatchEip { key, uid, version, finalizers }, writes);
    }

    /// Starts the write if the status says anything else. Returns whether it does.
    fn show(
        &mut self,
        binding: &Binding,
        decided: Decided,
        unplaced: Option<Unplaced>,
        writes: &mut Vec<Write>,
    ) -> bool {
        if binding.shows(&decided) {
            return false;
        }
        let news = self.news(binding, &decided, unplaced);
        let Binding { key, uid, version, .. } = binding.clone();
        self.start(Write::ApplyEip { key, uid, version, decided, news }, writes);
        true
    }

    /// What is worth telling once this is written.
    fn news(&self, binding: &Binding, decided: &Decided, unplaced: Option<Unplaced>) -> Vec<News> {
        let mut news = Vec::new();
        let mut tell = |is_warning, reason, note| news.push(News { is_warning, reason, note });
        if binding.eips != decided.eips {
            if decided.eips.is_empty() {
                let note = address::format(binding.eips.iter().copied());
                tell(false, reason::ADDRESS_RELEASED, note);
            } else {
                tell(false, reason::ADDRESS_ALLOCATED, self.given(&decided.eips));
            }
        }
        if let (Some(from), Some(to)) = (&binding.node, &decided.node)
            && from != to
        {
            tell(false, reason::MOVED, format!("from {from} to {to}"));
        }
        let shown = binding.condition(eip::condition::READY).map(|shown| shown.reason.as_str());
        if let Some(unplaced) = unplaced.filter(|unplaced| shown != Some(unplaced.reason())) {
            tell(unplaced.is_warning(), unplaced.reason(), unplaced.to_string());
        }
        news
    }

    /// How many EipBindings there are, by how they stand: `Ready`, or the reason why not.
    pub fn bindings(&self) -> std::collections::BTreeMap<String, u64> {
        let mut counts = std::collections::BTreeMap::new();
        for claimant in self.claimants.values() {
            let Claimant::Eip(binding) = claimant else { continue };
            let state = match binding.condition(eip::condition::READY) {
                Some(shown) if shown.status == "True" => eip::condition::READY.to_owned(),
                Some(shown) => shown.reason.clone(),
                None => reason::NOT_ALLOCATED.to_owned(),
            };
            *counts.entry(state).or_default() += 1;
        }
        counts
    }
}

/// All that the status is to say. What is not known about the machine stays as it is.
fn decided(
    binding: &Binding,
    eips: &[IpAddr],
    allocated: Verdict,
    place: Option<&Result<Place, Unplaced>>,
) -> Decided {
    let unplaced = place.and_then(|place| place.as_ref().err());
    let why = unplaced.map(|unplaced| (unplaced.reason(), unplaced.to_string()));
    let named = match place {
        _ if eips.is_empty() => Named::default(),
        Some(Ok(Place { node, target, addresses })) => {
            Named { node: Some(node.clone()), target: target.clone(), vmi_ips: addresses.clone() }
        }
        Some(Err(_)) => Named::default(),
        None => Named {
            node: binding.node.clone(),
            target: binding.target.clone(),
            vmi_ips: binding.vmi_ips.clone(),
        },
    };
    finish(binding, eips, named, allocated, why)
}

/// Who is to do what for it.
#[derive(Default)]
struct Named {
    node: Option<String>,
    target: Option<String>,
    vmi_ips: Vec<IpAddr>,
}

/// The same for one whose addresses nobody is to answer for any longer.
fn leaving(binding: &Binding, eips: &[IpAddr], allocated: Verdict) -> Decided {
    let why = match binding.deleting {
        true => (reason::RELEASING, "it is being deleted".to_owned()),
        false => (reason::VMI_NOT_RUNNING, "its machine does not run".to_owned()),
    };
    finish(binding, eips, Named::default(), allocated, Some(why))
}

/// Counts the epoch and concludes how it stands. `why` is the reason for which there is no node.
fn finish(
    binding: &Binding,
    eips: &[IpAddr],
    Named { node, target, vmi_ips }: Named,
    allocated: Verdict,
    why: Option<(&'static str, String)>,
) -> Decided {
    let stated = |kind, holds, reason, message| {
        let shown = binding.condition(kind).filter(|shown| (shown.status == "True") == holds);
        let since = shown.map(|shown| shown.last_transition_time.0);
        Stated { kind, holds, reason, message, since }
    };
    let Verdict { allocated: holds, reason, message } = allocated;
    let allocated = stated(eip::condition::ALLOCATED, holds, reason, message);
    let ready = |holds, reason, message| stated(eip::condition::READY, holds, reason, message);
    let mut decided = Decided {
        eips: eips.to_vec(),
        node,
        target,
        vmi_ips,
        epoch: None,
        generation: binding.generation,
        conditions: [allocated, ready(false, reason::NOT_ALLOCATED, String::new())],
    };
    decided.epoch = binding.next_epoch(&decided);
    let is_held = binding.holder.as_ref().is_some_and(|holder| {
        Some(&holder.node) == decided.node.as_ref() && Some(holder.epoch) == decided.epoch
    });
    decided.conditions[1] = match (&decided.node, why) {
        (_, Some((reason, message))) => ready(false, reason, message),
        (_, None) if decided.eips.is_empty() || !holds => {
            ready(false, reason::NOT_ALLOCATED, "it has no address".to_owned())
        }
        (Some(node), None) if is_held => {
            ready(true, reason::HELD, format!("node {node} answers for it"))
        }
        (Some(node), None) => {
            ready(false, reason::AWAITING_NODE, format!("node {node} does not answer for it yet"))
        }
        (None, None) => {
            ready(false, reason::VMI_NOT_FOUND, "no virtual machine was seen yet".to_owned())
        }
    };
    decided
}
