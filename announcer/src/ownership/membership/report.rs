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
use crate::vip::{Claim, Name, Refusal, Verdict, Voice, Wanted, unserved};

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
        Some((name.clone(), judge(context, peers, name, claim, holdings, taken, now)?))
    });
    judged.collect()
}

/// What becomes of a Service, if this node decides on that: who has its first address does, or was granted it and finds
/// that another host answers for it. Before the grant that may be a fellow node, which was faster.
fn judge(
    context: Context<'_>,
    peers: &Peers,
    name: &Name,
    claim: &Claim,
    holdings: &Holdings,
    taken: &dyn Fn(&IpAddr) -> bool,
    now: Instant,
) -> Option<Verdict> {
    let Context { wanted, node, .. } = context;
    let first = claim.servable().next().filter(|_| claim.ours);
    let placed = |address: &IpAddr| wanted.attach(name, *address).is_some_and(Result::is_ok);
    let Some(first) = first.filter(|_| claim.addresses.iter().any(placed)) else {
        // Held for those that share it, not for this one.
        let of_others = |address: &IpAddr| {
            let Some(vip) = wanted.vip(*address) else { return false };
            let refused = matches!(wanted.attach(name, *address), Some(Err(refusal)) if !refusal.is_of_another());
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
        return match (speaks, first) {
            (true, Some(first)) => {
                let voice = if holdings.is_orphan(first) { Voice::Lasts } else { Voice::Decides };
                Some(Verdict { voice, ..explained(context, peers, name, claim, first, holdings) })
            }
            (true, None) => Some(Verdict::whole(wanted, name, claim, node)),
            (false, _) => given_up(context, peers, name, claim, holdings, &rest(), now),
        };
    };
    let taken = |address: &IpAddr| holdings.is_granted(address) && taken(address);
    let since = holdings.held_since(first);
    if since.is_none() && !taken(first) {
        return orphaned(context, peers, name, claim, first, holdings, now)
            .or_else(|| given_up(context, peers, name, claim, holdings, &claim.addresses, now));
    }
    let waits = since.is_some_and(|since| now < since + TOGETHER);
    let mut verdict = Verdict { refusals: claim.remarks.to_vec(), ..Verdict::default() };
    for address in &claim.addresses {
        match wanted.attach(name, *address) {
            Some(Err(refusal)) => verdict.refuse(refusal.clone()),
            // The other family has an endpoint, or whoever had it first is served elsewhere. An endpoint that has only left
            // this node is followed by the address, but where its namespace has no say in that.
            _ if claim.serving(address).is_empty()
                || claim.apart.contains_key(address)
                || claim.follows.contains_key(address) && !claim.serving(address).has(node) =>
            {
                unserved(claim, address, node).into_iter().for_each(|why| verdict.refuse(why));
            }
            _ => {
                let held = matches!(holdings.tenure(address), Some(Tenure::Held(_)));
                if held || taken(address) || waits {
                    verdict.announce.push(*address);
                } else if holdings.is_orphan(address) {
                    verdict.refuse(nobody(context, peers, claim, address, holdings));
                }
            }
        }
    }
    Some(verdict)
}

/// The address that a Service waits for as its namespace pauses there. Who has that tells of it: others may have missed what it
/// pauses for, which is over in a moment.
fn paused<'a>(wanted: &Wanted, name: &Name, claim: &'a Claim) -> Option<&'a IpAddr> {
    let pauses = |address: &IpAddr| {
        matches!(wanted.attach(name, *address), Some(Err(Refusal::Paused { .. })))
    };
    claim.addresses.iter().find(|address| pauses(address))
}

/// What becomes of a Service whose first address no node has, where it names none that lives: one of those that do says so.
fn orphaned(
    context: Context<'_>,
    peers: &Peers,
    name: &Name,
    claim: &Claim,
    first: &IpAddr,
    holdings: &Holdings,
    now: Instant,
) -> Option<Verdict> {
    let host = claim.host.as_deref();
    let is_gone = host.is_none_or(|host| !holdings.is_live(NodeId::of(host)));
    if !is_gone || !holdings.is_orphan(first) || !holdings.speaks_for(name, host, now) {
        return None;
    }
    let verdict = explained(context, peers, name, claim, first, holdings);
    Some(Verdict { voice: Voice::Lasts, ..verdict })
}

/// Why no node has the first address of a Service, as far as this one can tell: what it lacks itself is no cause where it could
/// not serve it anyway.
fn explained(
    context: Context<'_>,
    peers: &Peers,
    name: &Name,
    claim: &Claim,
    first: &IpAddr,
    holdings: &Holdings,
) -> Verdict {
    let me = context.node;
    let mut verdict = Verdict { refusals: claim.remarks.to_vec(), ..Verdict::default() };
    for address in &claim.addresses {
        match context.wanted.attach(name, *address) {
            Some(Err(refusal)) if refusal.is_of_object() || claim.serving(address).has(me) => {
                verdict.refuse(refusal.clone());
            }
            _ => unserved(claim, address, me)
                .filter(|refusal| !matches!(refusal, Refusal::NoLocalEndpoint { .. }))
                .into_iter()
                .for_each(|refusal| verdict.refuse(refusal)),
        }
    }
    if !verdict.refusals.iter().any(Refusal::silences) {
        verdict.refuse(nobody(context, peers, claim, first, holdings));
    }
    verdict
}

/// Why no node has an address that is wanted, as far as it is no matter of this node.
fn nobody(
    context: Context<'_>,
    peers: &Peers,
    claim: &Claim,
    address: &IpAddr,
    holdings: &Holdings,
) -> Refusal {
    let (serving, lives, me) =
        (claim.serving(address), Lives::Known(holdings.live()), context.node);
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

/// What becomes of a Service that says this node announces it, when this node has not for a while and nobody came after
/// it: nobody answers, or only for those that share its address. Where it names no node and no majority answers, whoever
/// finds that says so.
fn given_up(
    context: Context<'_>,
    peers: &Peers,
    name: &Name,
    claim: &Claim,
    holdings: &Holdings,
    addresses: &[IpAddr],
    now: Instant,
) -> Option<Verdict> {
    let voice = match claim.host.as_deref() {
        Some(host) if host == context.node => Voice::Lasts,
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
    let mut verdict = Verdict { refusals: claim.remarks.to_vec(), voice, ..Verdict::default() };
    for refusal in context.wanted.obstacles(name, &claim.addresses) {
        verdict.refuse(refusal);
    }
    if !verdict.refusals.iter().any(Refusal::silences) {
        let first = claim.servable().next().or(claim.addresses.first())?;
        verdict.refuse(nobody(context, peers, claim, first, holdings));
    }
    Some(verdict)
}

#[cfg(test)]
mod tests;
