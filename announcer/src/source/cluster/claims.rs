//! Which objects hold which addresses, as the claims say. Nobody with rights in namespaces alone writes those.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// The claims that were shown, where they decide.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// By address, the uids of those who hold it; none where claims do not matter.
    holders: Option<BTreeMap<IpAddr, BTreeSet<String>>>,
}

impl Claims {
    /// None yet, and only what one names is served.
    pub fn required() -> Self {
        Self { holders: Some(BTreeMap::new()) }
    }

    /// Whether the object of this uid may have the address.
    pub fn grant(&self, address: &IpAddr, uid: &str) -> bool {
        let Some(holders) = &self.holders else { return true };
        holders.get(address).is_some_and(|holders| holders.contains(uid))
    }

    /// Whether only what a claim names is served.
    pub fn are_required(&self) -> bool {
        self.holders.is_some()
    }

    /// Takes in who holds the address of this name.
    pub fn apply(&mut self, name: &str, uids: BTreeSet<String>) {
        if let (Some(holders), Ok(address)) = (&mut self.holders, name.parse()) {
            holders.insert(address, uids);
        }
    }

    /// Takes in that nobody does.
    pub fn delete(&mut self, name: &str) {
        if let (Some(holders), Ok(address)) = (&mut self.holders, name.parse()) {
            holders.remove(&address);
        }
    }

    /// Forgets every claim that is not in `kept`: a new list did not show it.
    pub fn retain(&mut self, kept: &BTreeSet<String>) {
        if let Some(holders) = &mut self.holders {
            holders.retain(|address, _| kept.contains(&address.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_named_has_the_address_until_the_claim_is_gone() {
        let (address, uids) = ("192.0.2.1".parse().unwrap(), BTreeSet::from(["one".to_owned()]));
        assert!(Claims::default().grant(&address, "any"), "where claims do not matter");
        let mut claims = Claims::required();
        assert!(!claims.grant(&address, "one"), "not yet");
        claims.apply("192.0.2.1", uids.clone());
        assert!(claims.grant(&address, "one") && !claims.grant(&address, "two"));
        claims.delete("192.0.2.1");
        assert!(!claims.grant(&address, "one"));
        claims.apply("192.0.2.1", uids.clone());
        claims.apply("2001:db8::1", uids);
        claims.retain(&["2001:db8::1".to_owned()].into());
        assert!(
            !claims.grant(&address, "one") && claims.grant(&"2001:db8::1".parse().unwrap(), "one")
        );
    }
}
