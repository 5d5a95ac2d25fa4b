//! Which objects hold which addresses, as the claims say, and whether that decides. Nobody with rights in namespaces alone
//! writes those.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::claim::ClaimPolicy;

/// The claims that were shown.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    policy: ClaimPolicy,
    /// By address, the uids of those who hold it, and how many came to before each: thousands may share one.
    holders: BTreeMap<IpAddr, BTreeMap<String, usize>>,
    /// Those that were somebody's before there were claims.
    imports: BTreeSet<IpAddr>,
    /// Whether all claims were shown.
    listed: bool,
    /// Whether they may not be read, or there is no such resource.
    denied: bool,
    /// Whether berth-ccm has claimed all that there was.
    imported: bool,
    /// Whether it is known if it has.
    asked: bool,
    /// Whether it had when this process began: then nothing is served before the claims are known.
    had_imported: bool,
}

impl Claims {
    /// None were shown yet.
    pub fn new(policy: ClaimPolicy) -> Self {
        Self { policy, ..Self::default() }
    }

    /// Whether the object of this uid may have the address.
    pub fn grant(&self, address: &IpAddr, uid: &str) -> bool {
        !self.decide() || self.turn(address, uid).is_some()
    }

    /// How many came to hold the address before the object of this uid, if it holds it.
    pub fn turn(&self, address: &IpAddr, uid: &str) -> Option<usize> {
        self.holders.get(address)?.get(uid).copied()
    }

    /// Whether only what a claim names is served.
    pub fn decide(&self) -> bool {
        match self.policy {
            ClaimPolicy::Required => true,
            ClaimPolicy::Ignored => false,
            ClaimPolicy::Imported => self.imported && self.listed,
        }
    }

    /// Why it is not known yet what may be served; nothing if it is.
    pub fn unknown(&self) -> Option<&'static str> {
        const CLAIMS: &str = "IPAddresses are not listed yet";
        match self.policy {
            ClaimPolicy::Ignored => None,
            ClaimPolicy::Required => (!self.listed).then_some(CLAIMS),
            ClaimPolicy::Imported if !self.asked => Some("berth-ccm's Lease is not listed yet"),
            ClaimPolicy::Imported => {
                (self.had_imported && !self.listed && !self.denied).then_some(CLAIMS)
            }
        }
    }

    /// Whether there are any of this address.
    pub fn are_of(&self, address: &IpAddr) -> bool {
        self.holders.contains_key(address)
    }

    /// Whether an announcer of before may have left the address on a node. Where claims do not decide nothing says that it
    /// has not.
    pub fn may_be_left(&self, address: &IpAddr) -> bool {
        !self.decide() || self.imports.contains(address)
    }

    /// Takes in who holds the address of this name, and whether since before there were claims.
    pub fn apply(&mut self, name: &str, uids: Vec<String>, is_imported: bool) {
        if let Ok(address) = name.parse() {
            // Of one that is named twice the first counts.
            let turns = uids.into_iter().enumerate().rev().map(|(turn, uid)| (uid, turn));
            self.holders.insert(address, turns.collect());
            match is_imported {
                true => self.imports.insert(address),
                false => self.imports.remove(&address),
            };
        }
    }

    /// Takes in that nobody does.
    pub fn delete(&mut self, name: &str) {
        if let Ok(address) = name.parse() {
            self.holders.remove(&address);
            self.imports.remove(&address);
        }
    }

    /// Takes in that these are all claims.
    pub fn listed(&mut self, kept: &BTreeSet<String>) {
        self.listed = true;
        self.holders.retain(|address, _| kept.contains(&address.to_string()));
        self.imports.retain(|address| self.holders.contains_key(address));
    }

    /// Takes in that they may not be read.
    pub fn denied(&mut self) {
        self.denied = true;
    }

    /// Takes in whether berth-ccm says that all there was is claimed.
    pub fn imported(&mut self, is_complete: bool) {
        self.imported = is_complete;
    }

    /// Takes in that its Lease was shown, if there is one.
    pub fn asked(&mut self) {
        if !std::mem::replace(&mut self.asked, true) {
            self.had_imported = self.imported;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address() -> IpAddr {
        "192.0.2.1".parse().unwrap()
    }

    fn uids() -> Vec<String> {
        vec!["one".to_owned()]
    }

    #[test]
    fn who_is_named_has_the_address_until_the_claim_is_gone() {
        assert!(Claims::default().grant(&address(), "any"), "where claims do not matter");
        let mut claims = Claims::new(ClaimPolicy::Required);
        assert!(!claims.grant(&address(), "one") && claims.unknown().is_some(), "not yet");
        claims.apply("192.0.2.1", uids(), false);
        assert!(claims.grant(&address(), "one") && !claims.grant(&address(), "two"));
        claims.delete("192.0.2.1");
        assert!(!claims.grant(&address(), "one"));
        claims.apply("192.0.2.1", uids(), false);
        claims.apply("2001:db8::1", uids(), false);
        claims.listed(&["2001:db8::1".to_owned()].into());
        assert!(claims.unknown().is_none() && !claims.grant(&address(), "one"));
        assert!(claims.grant(&"2001:db8::1".parse().unwrap(), "one"));
    }

    #[test]
    fn where_nothing_is_set_claims_decide_once_all_that_there_was_is_claimed() {
        let mut claims = Claims::new(ClaimPolicy::Imported);
        assert!(claims.unknown().is_some(), "not before the Lease was asked");
        claims.asked();
        assert!(claims.unknown().is_none() && claims.grant(&address(), "any"), "a stock provider");
        claims.imported(true);
        assert!(claims.unknown().is_none() && claims.grant(&address(), "any"), "it goes on");
        claims.listed(&BTreeSet::new());
        assert!(claims.unknown().is_none() && !claims.grant(&address(), "any"));
        claims.imported(false);
        assert!(
            claims.unknown().is_none() && claims.grant(&address(), "any"),
            "it was uninstalled"
        );
        claims.imported(true);
        assert!(
            claims.unknown().is_none() && claims.decide(),
            "and is back: claims were watched meanwhile"
        );

        let mut restarted = Claims::new(ClaimPolicy::Imported);
        restarted.imported(true);
        restarted.asked();
        assert!(restarted.unknown().is_some(), "not before the claims are known");
        restarted.listed(&BTreeSet::new());
        assert!(restarted.unknown().is_none() && restarted.decide());
    }

    #[test]
    fn where_claims_may_not_be_read_they_are_ignored_until_they_may() {
        let mut claims = Claims::new(ClaimPolicy::Imported);
        claims.imported(true);
        claims.asked();
        claims.denied();
        assert!(claims.unknown().is_none() && claims.grant(&address(), "any"));
        claims.listed(&BTreeSet::new());
        assert!(claims.decide());
    }
}
