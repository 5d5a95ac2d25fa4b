//! What becomes of a Service, as far as this node decides on it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::conflict::Conflicts;

use berth_api::NamespacedName as Name;

use super::serve::Why;
use super::{Claim, Refusal, Wanted};

/// By what right a node says what becomes of a Service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Voice {
    /// It decides on it.
    #[default]
    Decides,
    /// The same, and what it says has lasted.
    Lasts,
    /// Nobody decides: it says so where nobody has said anything, and nothing else.
    Bystander,
}

/// What becomes of one Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// The addresses to announce, in the order of the Service.
    pub announce: Vec<IpAddr>,
    /// Why others are not announced.
    pub refusals: Vec<Refusal>,
    /// Which addresses each of them is about; all where that is not known.
    pub about: BTreeMap<Refusal, BTreeSet<IpAddr>>,
    /// Those to announce of which it is not known yet whether another host has them.
    pub asked: BTreeSet<IpAddr>,
    /// Whether another announcer decides on it: what its status says is left as it is.
    pub left: bool,
    /// By what right it is said.
    pub voice: Voice,
    /// Where several nodes announce it at once: its addresses that any node could. Each may write the same of them then.
    pub shared: Option<BTreeSet<IpAddr>>,
}

impl Verdict {
    /// What becomes of a Service all of whose addresses are for `node` to have.
    pub fn whole(wanted: &Wanted, name: &Name, claim: &Claim, node: &str) -> Self {
        let mut verdict = Self::default();
        if !claim.ours {
            return verdict;
        }
        verdict.refusals.extend(claim.remarks.iter().cloned());
        if claim.addresses.is_empty() {
            return verdict;
        }
        for address in &claim.addresses {
            match (unserved(claim, address, node), wanted.attach(name, *address)) {
                (Some(refusal), _) => verdict.refuse_at(*address, refusal),
                (None, Some(Err(refusal))) => verdict.refuse_at(*address, refusal.clone()),
                (None, Some(Ok(_))) => verdict.announce.push(*address),
                (None, None) => {}
            }
        }
        verdict
    }

    /// Adds a reason, once.
    pub fn refuse(&mut self, refusal: Refusal) {
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    /// Adds a reason, once, why this address is not announced.
    pub fn refuse_at(&mut self, address: IpAddr, refusal: Refusal) {
        self.about.entry(refusal.clone()).or_default().insert(address);
        self.refuse(refusal);
    }

    /// Puts others in the place of reasons.
    pub fn exchange(&mut self, other: impl Fn(&Refusal) -> Option<Refusal>) {
        for refusal in &mut self.refusals {
            let Some(new) = other(refusal) else { continue };
            if let Some(about) = self.about.remove(refusal) {
                self.about.entry(new.clone()).or_default().extend(about);
            }
            *refusal = new;
        }
    }

    /// The addresses that another host has.
    pub fn conflicts(&self) -> Conflicts {
        self.refusals.iter().filter_map(Refusal::conflict).collect()
    }
}

/// Why traffic for an address of a Service finds nothing on `node`; nothing if it does.
pub fn unserved(claim: &Claim, address: &IpAddr, node: &str) -> Option<Refusal> {
    let why = claim.serving(address).why_not(node)?;
    Some(match (why, claim.apart.get(address).or_else(|| claim.follows.get(address))) {
        (Why::NoLocalEndpoint, Some(by)) => {
            Refusal::NotServedTogether { address: *address, by: by.clone() }
        }
        (Why::NoLocalEndpoint, None) => Refusal::NoLocalEndpoint { node: node.to_owned() },
        (Why::EndpointWithoutNode, _) => Refusal::EndpointWithoutNode,
        _ => Refusal::NoEndpoint,
    })
}
