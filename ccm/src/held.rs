//! Owns the claims of a cluster that lets this program have none there ([decision 32]): who holds which address, in memory. What an
//! API server does with [`IPAddress`] objects is done here in the same way. Pure.
//!
//! [decision 32]: ../../../docs/decisions/0032-claims-in-memory-where-the-role-has-none.md

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use berth_index::Source;
use berth_index::claim::{Claim, Holder};
use berth_index::intake::Change;
use berth_index::write::Outcome;
use k8s_openapi::api::networking::v1::IPAddress;

/// So long the account has been known to the cluster, and claims refused, before they are held here: what is held here knows of
/// none that the cluster has.
const DOUBT: Duration = Duration::from_secs(10);

/// Whether the cluster holds claims. An API server that has just begun refuses what its roles grant, so a refusal counts only
/// beside something that was granted.
#[derive(Debug, Default)]
pub struct Doubt {
    /// Since when claims may not be listed.
    refused: Option<Instant>,
    /// Since when Services may.
    granted: Option<Instant>,
}

impl Doubt {
    /// Takes in what a watch shows.
    pub fn take(&mut self, change: &Change, now: Instant) {
        match change {
            Change::Absent(Source::Claims) => _ = self.refused.get_or_insert(now),
            Change::Listed(Source::Claims) => self.refused = None,
            Change::Listed(Source::Services) => _ = self.granted.get_or_insert(now),
            _ => {}
        }
    }

    /// Whether it surely does not.
    pub fn is_over(&self, now: Instant) -> bool {
        let for_long = |since: Option<Instant>| since.is_some_and(|since| now >= since + DOUBT);
        for_long(self.refused) && for_long(self.granted)
    }
}

/// The claims that are held here. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Held(Arc<Mutex<Option<Claims>>>);

#[derive(Debug, Default)]
struct Claims {
    all: BTreeMap<IpAddr, Claim>,
    /// The number of the last change.
    version: u64,
}

impl Claims {
    fn next(&mut self) -> String {
        self.version += 1;
        self.version.to_string()
    }
}

impl Held {
    /// From here on claims are held here.
    pub fn begin(&self) {
        self.lock().get_or_insert_default();
    }

    /// Whether they are.
    pub fn has_begun(&self) -> bool {
        self.lock().is_some()
    }

    /// Makes a claim at this time, in seconds since 1970, unless there is one of the address. None where the cluster has them.
    pub fn create(&self, object: &IPAddress, now: i64) -> Option<Outcome> {
        let mut held = self.lock();
        let claims = held.as_mut()?;
        let Some(mut claim) = Claim::read(object) else { return Some(Outcome::Taken(None)) };
        if let Some(there) = claims.all.get(&claim.address) {
            return Some(Outcome::Taken(Some(there.clone())));
        }
        claim.version = claims.next();
        claim.uid = format!("held-{}", claim.version);
        claim.holders.iter_mut().for_each(|holder| holder.since = now);
        claims.all.insert(claim.address, claim.clone());
        Some(Outcome::Claimed(claim))
    }

    /// Leaves the address to these holders, who may be none, if its claim is still as it was seen. None where the cluster has
    /// the claims.
    pub fn change(
        &self,
        address: IpAddr,
        uid: &str,
        version: &str,
        holders: &[Holder],
        pinned: Option<&BTreeSet<String>>,
    ) -> Option<Outcome> {
        let mut held = self.lock();
        let claims = held.as_mut()?;
        let next = claims.next();
        let Some(claim) = claims.all.get_mut(&address).filter(|claim| claim.uid == uid) else {
            return Some(Outcome::Released);
        };
        if claim.version != version {
            return Some(Outcome::Taken(Some(claim.clone())));
        }
        if holders.is_empty() {
            claims.all.remove(&address);
            return Some(Outcome::Released);
        }
        claim.version = next;
        claim.holders = holders.to_vec();
        if let Some(pinned) = pinned.filter(|pinned| !pinned.is_empty()) {
            claim.pinned.clone_from(pinned);
        }
        Some(Outcome::Claimed(claim.clone()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Claims>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use berth_index::claim::{self, Basis};
    use berth_ipam::{Owner, OwnerKind, Scope};

    use super::*;

    fn owner(name: &str) -> Owner {
        Owner::new(OwnerKind::Service, "shop", name, format!("uid of {name}"))
    }

    fn address() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn object(name: &str) -> IPAddress {
        claim::object(address(), &owner(name), Some(&Scope::Global), Basis::Given)
    }

    fn held() -> Held {
        let held = Held::default();
        held.begin();
        held
    }

    fn claimed(outcome: Option<Outcome>) -> Claim {
        match outcome {
            Some(Outcome::Claimed(claim)) => claim,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_refusal_counts_where_something_else_was_granted_and_for_a_while() {
        let begin = Instant::now();
        let over = |changes: &[Change], after: Duration| {
            let mut doubt = Doubt::default();
            changes.iter().for_each(|change| doubt.take(change, begin));
            doubt.is_over(begin + after)
        };
        let (refused, listed) = (Change::Absent(Source::Claims), Change::Listed(Source::Claims));
        let granted = Change::Listed(Source::Services);
        assert!(!over(std::slice::from_ref(&refused), 10 * DOUBT));
        assert!(!over(std::slice::from_ref(&granted), 10 * DOUBT));
        let both = [refused.clone(), granted.clone()];
        assert!(over(&both, DOUBT) && !over(&both, DOUBT / 2));
        assert!(!over(&[refused, granted, listed], 10 * DOUBT));
    }

    #[test]
    fn nothing_is_held_here_where_the_cluster_has_the_claims() {
        let held = Held::default();
        assert!(held.create(&object("web"), 7).is_none() && !held.has_begun());
        assert!(held.change(address(), "uid", "1", &[], None).is_none());
    }

    #[test]
    fn one_address_is_claimed_once() {
        let held = held();
        let claim = claimed(held.create(&object("web"), 7));
        assert_eq!((claim.holders[0].since, claim.pool.clone()), (7, Some(Scope::Global)));
        let second = held.clone().create(&object("api"), 8);
        assert!(matches!(second, Some(Outcome::Taken(Some(there))) if there == claim));
    }

    #[test]
    fn a_claim_is_changed_only_as_it_was_seen() {
        let held = held();
        let claim = claimed(held.create(&object("web"), 7));
        let two: Vec<Holder> = ["web", "api"]
            .map(|name| Holder { owner: owner(name), sharing: None, since: 7 })
            .into();
        let change = |claim: &Claim, holders: &[Holder]| {
            held.change(address(), &claim.uid, &claim.version, holders, None)
        };
        let joined = claimed(change(&claim, &two));
        assert_eq!((joined.holders.len(), &joined.uid), (2, &claim.uid));
        let late = change(&claim, &[]);
        assert!(matches!(late, Some(Outcome::Taken(Some(there))) if there == joined));
        assert!(matches!(change(&joined, &[]), Some(Outcome::Released)));
        assert!(matches!(change(&joined, &[]), Some(Outcome::Released)), "it is gone");
        let anew = claimed(held.create(&object("api"), 9));
        assert_ne!(anew.uid, claim.uid);
        assert!(matches!(change(&joined, &[]), Some(Outcome::Released)), "that one is gone");
        assert!(matches!(held.create(&object("web"), 9), Some(Outcome::Taken(Some(_)))));
    }
}
