//! What becomes of a Service, as far as this node decides on it.

use std::collections::BTreeSet;
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
    /// Those of them of which it is not known yet whether another host has them.
    pub asked: BTreeSet<IpAddr>,
    /// Whether another announcer decides on it: what its status says is left as it is.
    pub left: bool,
    /// By what right it is said.
    pub voice: Voice,
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
        let here = |address: &IpAddr| wanted.attach(name, *address).is_some_and(Result::is_ok);
        let mut servable = Vec::new();
        for address in &claim.addresses {
            match unserved(claim, address, node) {
                None => servable.push(*address),
                Some(refusal) => verdict.refuse(refusal),
            }
        }
        verdict.announce = servable.iter().filter(|address| here(address)).copied().collect();
        for refusal in wanted.obstacles(name, &servable) {
            verdict.refuse(refusal);
        }
        verdict
    }

    /// Adds a reason, once.
    pub fn refuse(&mut self, refusal: Refusal) {
        if !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
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
