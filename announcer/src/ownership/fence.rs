//! What the fence is told whoever decides on owners: which addresses to cover, and where. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::context::Context;
use crate::vip::Vip;

/// What the fence is to do, in the order in which it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// Fence exactly these addresses.
    Cover(BTreeSet<IpAddr>),
    /// Fence exactly these interfaces.
    Attach(BTreeSet<String>),
    /// Look whether the fence still stands.
    Inspect,
    /// Every address of ours is covered: a predecessor's fence may go.
    Settle,
}

/// Where the fence does not stand, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uncovered {
    /// By address: this node is not to have it.
    pub addresses: BTreeMap<IpAddr, String>,
    /// By the name of an interface on which neighbours ask: there this node lets every other one go first.
    pub interfaces: BTreeMap<String, String>,
}

/// What the fence was told.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Whether it knows that every address is covered.
    settled: bool,
    covered: BTreeSet<IpAddr>,
    attached: BTreeSet<String>,
}

impl Outline {
    /// Fences these interfaces.
    pub(super) fn attach(&mut self, interfaces: BTreeSet<String>) -> Option<Fencing> {
        let is_news = interfaces != self.attached;
        self.attached.clone_from(&interfaces);
        is_news.then_some(Fencing::Attach(interfaces))
    }

    /// What is bound anywhere may answer anywhere, so every address that is wanted is covered on every node; and what is
    /// bound here stays covered until it is unbound. But not the node's own, whoever asks for it: the node would be gone
    /// from the LAN, and another one would find its address free. Nor what another instance answers for on this node, and
    /// what is `anothers` to answer for.
    pub(super) fn cover(
        &mut self,
        context: Context<'_>,
        anothers: impl Fn(&IpAddr, &Vip) -> bool,
    ) -> Vec<Fencing> {
        let bound = context.host.ours.keys().map(|binding| binding.address);
        let wanted = context
            .all
            .addressed()
            .filter(|(address, vip)| !context.all.own.contains(address) && !anothers(address, vip));
        let wanted = wanted.map(|(address, _)| address);
        let covered: BTreeSet<IpAddr> = wanted.chain(bound).collect();
        let mut told = Vec::new();
        if covered != self.covered || !self.settled {
            told.push(Fencing::Cover(covered.clone()));
            self.covered = covered;
        }
        if !std::mem::replace(&mut self.settled, true) {
            told.push(Fencing::Settle);
        }
        told
    }

    /// Whether an address is covered.
    pub(super) fn covers(&self, address: &IpAddr) -> bool {
        self.covered.contains(address)
    }
}
