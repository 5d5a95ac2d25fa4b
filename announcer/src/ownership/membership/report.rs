//! What becomes of Services where membership decides on each address, as far as this node reports on them. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_api::Few;
use berth_membership::NodeId;

use super::super::context::Context;
use super::holdings::{Holdings, Tenure};
use crate::vip::nodes::Peers;
use crate::vip::serve::{Ask, Lives, Reach, Why, serve};
use crate::vip::{Attach, Claim, Name, Refusal, Verdict, Voice, Wanted, unserved};

/// How long a Service waits for its second address before it publishes the first alone.
const TOGETHER: Duration = Duration::from_secs(2);

/// What becomes of the Services on which this node reports. `taken` tells which addresses another host has, `peers` which
/// nodes there are.
pub(super) fn verdicts(
    context: Context<'_>,
    peers: &Peers,
    holdings: &Holdings,
    taken: &dyn Fn(&IpAddr) -> bool,
    now: Instant,
) -> BTreeMap<Name, Verdict> {
    let services = context.wanted.services.iter();
    let judged = services.filter_map(|(name, claim)| {
        let case = Case { context, peers, holdings, now, name, claim };
        Some((name.clone(), case.judge(taken)?))
    });
    judged.collect()
}

/// One Service, and what this node knows of it.
struct Case<'a> {
    context: Context<'a>,
    peers: &'a Peers,
    holdings: &'a Holdings,
    now: Instant,
    name: &'a Name,
    claim: &'a Claim,
}

impl Case<'_> {
    /// What becomes of it, if this node decides on that: who has its first address does, or was granted it and finds that
    /// another host answers for it. Before the grant that may be a fellow node, which was faster.
    fn judge(&self, taken: &dyn Fn(&IpAddr) -> bool) -> Option<Verdict> {
        let Self { holdings, now, claim, .. } = *self;
        let first = claim.servable().next().filter(|_| claim.ours);
        let placed = |address: &IpAddr| self.attach(address).is_some_and(Result::is_ok);
        let Some(first) = first.filter(|_| claim.addresses.iter().any(placed)) else {
            return self.unplaced(first);
        };
        let taken = |address: &IpAddr| holdings.is_granted(address) && taken(address);
        let since = holdings.held_since(first);
        if since.is_none() && !taken(first) {
            return self.orphaned(first).or_else(|| self.given_up(&claim.addresses));
        }
        let waits = since.is_some_and(|since| now < since + TOGETHER);
        let mut verdict = self.begin(Voice::Decides);
        for address in &claim.addresses {
            match self.attach(address) {
                Some(Err(refusal)) => verdict.refuse_at(*address, refusal.clone()),
                // The other family has an endpoint, or whoever had it first is served elsewhere. An endpoint that has only left
                // this node is followed by the address, but where its namespace has no say in that.
                _ if claim.serving(address).is_empty()
                    || claim.apart.contains_key(address)
                    || claim.follows.contains_key(address)
                        && !claim.serving(address).has(self.context.node) =>
                {
                    let why = unserved(claim, address, self.context.node);
                    why.into_iter().for_each(|why| verdict.refuse_at(*address, why));
                }
                _ => {
                    let held = matches!(holdings.tenure(address), Some(Tenure::Held(_)));
                    if held || taken(address) || waits {
                        verdict.announce.push(*address);
                    } else if holdings.is_orphan(address) {
                        verdict.refuse_at(*address, self.nobody(address));
                    }
                }
            }
        }
        Some(verdict)
    }

    /// What becomes of it where this node could have none of its addresses for it, or nobody could.
    fn unplaced(&self, first: Option<&IpAddr>) -> Option<Verdict> {
        let Self { holdings, now, name, claim, .. } = *self;
        let Context { wanted, node, .. } = self.context;
        // Held for those that share it, not for this one.
        let of_others = |address: &IpAddr| {
            let Some(vip) = wanted.vip(*address) else { return false };
            let refused =
                matches!(self.attach(address), Some(Err(refusal)) if !refusal.is_of_another());
            (refused && vip.attach(node).is_some())
                || (first.is_none() && vip.wants.iter().any(|want| !want.serving.is_empty()))
        };
        let held = |address: &IpAddr| holdings.tenure(address).is_some() && !of_others(address);
        let busy = claim.own().any(held);
        let rest = || {
            let rest = claim.addresses.iter().filter(|address| !of_others(address));
            rest.copied().collect::<Vec<_>>()
        };
        let host = claim.host.as_deref();
        let is_gone = host.is_some_and(|host| !holdings.is_live(NodeId::of(host)));
        // One that can be had is cleared by whoever gets it.
        let speaks = !(claim.ours && busy)
            && (first.is_none_or(|first| is_gone && holdings.is_orphan(first)) || host.is_none())
            && match paused(wanted, name, claim).filter(|_| host.is_none()) {
                Some(address) if !holdings.is_orphan(address) => holdings.tenure(address).is_some(),
                _ => holdings.speaks_for(name, host, now),
            };
        match (speaks, first) {
            (true, Some(first)) => {
                let voice = if holdings.is_orphan(first) { Voice::Lasts } else { Voice::Decides };
                Some(self.explained(first, voice))
            }
            (true, None) => Some(Verdict::whole(wanted, name, claim, node)),
            (false, _) => self.given_up(&rest()),
        }
    }

    /// What becomes of it where no node has its first address and it names none that lives: one of those that do says so.
    fn orphaned(&self, first: &IpAddr) -> Option<Verdict> {
        let Self { holdings, now, name, claim, .. } = *self;
        let host = claim.host.as_deref();
        let is_gone = host.is_none_or(|host| !holdings.is_live(NodeId::of(host)));
        let speaks = is_gone && holdings.is_orphan(first) && holdings.speaks_for(name, host, now);
        speaks.then(|| self.explained(first, Voice::Lasts))
    }

    /// Why no node has its first address, as far as this one can tell, nor the other: what it lacks itself is no cause where
    /// it could not serve it anyway.
    fn explained(&self, first: &IpAddr, voice: Voice) -> Verdict {
        let mut verdict = self.begin(voice);
        for address in &self.claim.addresses {
            let here = self.claim.serving(address).has(self.context.node);
            let why = match self.attach(address) {
                Some(Err(refusal)) if refusal.is_of_object() || here => Some(refusal.clone()),
                _ => self.unserved_anywhere(address),
            };
            let nobody = || self.holdings.is_orphan(address).then(|| self.nobody(address));
            why.or_else(nobody).into_iter().for_each(|why| verdict.refuse_at(*address, why));
        }
        if !verdict.refusals.iter().any(Refusal::silences) {
            verdict.refuse_at(*first, self.nobody(first));
        }
        verdict
    }

    /// What becomes of it where it says that this node announces it, when this node has not for a while and nobody came after
    /// it: nobody answers, or only for those that share its address. Where it names no node and no majority answers, whoever
    /// finds that says so.
    fn given_up(&self, addresses: &[IpAddr]) -> Option<Verdict> {
        let Self { holdings, now, claim, .. } = *self;
        let voice = match claim.host.as_deref() {
            Some(host) if host == self.context.node => Voice::Lasts,
            None if !holdings.is_clear() && !claim.addresses.is_empty() => Voice::Bystander,
            _ => return None,
        };
        let is_silent = match voice {
            // Who decides meanwhile is waited for before it is said.
            Voice::Bystander => holdings.has_none(addresses),
            _ => holdings.is_silent(addresses, now),
        };
        if !claim.ours || !is_silent {
            return None;
        }
        let mut verdict = self.begin(voice);
        for address in &claim.addresses {
            let why = match self.attach(address) {
                Some(Err(refusal)) => Some(refusal.clone()),
                _ => self.unserved_anywhere(address),
            };
            verdict.refuse_at(*address, why.unwrap_or_else(|| self.nobody(address)));
        }
        verdict.refusals.iter().any(Refusal::silences).then_some(verdict)
    }

    fn begin(&self, voice: Voice) -> Verdict {
        Verdict { refusals: self.claim.remarks.to_vec(), voice, ..Verdict::default() }
    }

    fn attach(&self, address: &IpAddr) -> Option<&Result<Attach, Refusal>> {
        self.context.wanted.attach(self.name, *address)
    }

    /// Why traffic for an address of it finds nothing on any node; nothing if it does on one.
    fn unserved_anywhere(&self, address: &IpAddr) -> Option<Refusal> {
        let why = unserved(self.claim, address, self.context.node);
        why.filter(|why| !matches!(why, Refusal::NoLocalEndpoint { .. }))
    }

    /// Why no node has an address that is wanted, as far as it is no matter of this node.
    fn nobody(&self, address: &IpAddr) -> Refusal {
        let Self { peers, holdings, claim, .. } = *self;
        let (serving, lives, me) =
            (claim.serving(address), Lives::Known(holdings.live()), self.context.node);
        let serves = serve(Ask { serving, nodes: Some(peers), lives, me, reach: Reach::Good });
        match serves.nobody {
            Some(Why::NoLiveNode) if holdings.is_clear() => {
                Refusal::NoLiveNode { could: serves.ranks.keys().copied().collect() }
            }
            _ => {
                let live = |name: &&str| holdings.is_live(NodeId::of(name));
                let unheard = holdings.unheard();
                let could = match unheard.is_empty() {
                    true => serves.ranks.keys().copied().filter(live).collect(),
                    false => Few::default(),
                };
                let had = claim.host.as_deref() == Some(me);
                Refusal::NotGranted { node: me.to_owned(), had, unheard, could }
            }
        }
    }
}

/// The address that a Service waits for as its namespace pauses there. Who has that tells of it: others may have missed what it
/// pauses for, which is over in a moment.
fn paused<'a>(wanted: &Wanted, name: &Name, claim: &'a Claim) -> Option<&'a IpAddr> {
    let pauses = |address: &IpAddr| {
        matches!(wanted.attach(name, *address), Some(Err(Refusal::Paused { .. })))
    };
    claim.addresses.iter().find(|address| pauses(address))
}

#[cfg(test)]
mod tests;
