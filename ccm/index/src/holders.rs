//! Owns what follows when a claim changes hands or ends.

use std::net::IpAddr;
use std::time::Duration;

use berth_ipam::{Grant, Owner};

use super::departures::SILENT;
use super::state::State;
use crate::claim::Holder;
use crate::claimant::Id;

/// The claim is gone: the address rests. Who was about to join it asks again.
pub(super) fn unclaim(state: &mut State, address: IpAddr, now: Duration) {
    let Some(claim) = state.cluster.claims.remove(&address) else { return };
    state.touch_showing(address);
    for owner in state.claiming.pending.take(address) {
        if state.adoption.open.contains(address, &owner) {
            state.claiming.pending.insert(address, &owner);
        } else {
            state.cluster.forget(&owner, address);
            state.touch_owner(&owner);
        }
    }
    claim.holders.iter().for_each(|holder| left(state, address, &holder.owner, now));
}

/// The owner does not hold the address any more.
pub(super) fn left(state: &mut State, address: IpAddr, owner: &Owner, now: Duration) {
    state.cluster.release(owner, address, now);
    let silent = if state.departures.left(address, owner) { SILENT } else { Duration::ZERO };
    let ledger = &mut state.cluster.ledger;
    let least = silent.max(state.routers.keep(now));
    let more = least.saturating_sub(ledger.pools().reuse_delay());
    if !more.is_zero() {
        ledger.rest(address, owner.clone(), now + more);
    }
    state.agenda.retry();
    state.touch_owner(owner);
}

/// Records anew who holds a claimed address and with which ports: a lone holder uses the ports that its Service has,
/// sharers those they were let in with. Of many that share it only those are touched of whom that is news.
pub(super) fn regrant(state: &mut State, address: IpAddr) {
    let Some(claim) = state.cluster.claims.get(&address) else { return };
    let alone = claim.holders.len() == 1;
    let known = state.cluster.ledger.claim(address);
    let grants = claim.holders.iter().map(|Holder { owner, sharing, .. }| {
        let claimant = state.cluster.claimants.get(&Id::from(owner)).filter(|_| alone);
        let sharing = match claimant.filter(|claimant| claimant.uid() == owner.uid) {
            Some(claimant) => claimant.sharing().cloned(),
            None => sharing.clone(),
        };
        Grant::new(owner.clone()).sharing(sharing).in_pool(claim.pool.clone())
    });
    let is_news = |grant: &Grant| known.and_then(|all| all.grant(&grant.owner)) != Some(grant);
    let grants: Vec<Grant> = grants.filter(is_news).collect();
    grants.iter().for_each(|grant| _ = state.cluster.forget(&grant.owner, address));
    for grant in grants {
        let Err(conflict) = state.cluster.grant(address, grant.clone()) else { continue };
        // Only who is about to join can be in the way, and has to ask again.
        for owner in &conflict.holders {
            state.abandon(address, owner);
            state.touch_owner(owner);
        }
        if let Err(conflict) = state.cluster.grant(address, grant) {
            tracing::error!("{conflict}, and another has the claim");
        }
    }
}
