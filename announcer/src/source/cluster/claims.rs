//! Which objects hold which addresses, as the claims say, and whether that decides. Nobody with rights in namespaces alone
//! writes those.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::claim::{ClaimPolicy, Holder};
use berth_api::service::Port;

use crate::kernel::Left;
use crate::vip::Name;

/// The claims that were shown.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    policy: ClaimPolicy,
    /// By address, who holds it.
    holders: BTreeMap<IpAddr, Holders>,
    /// Those that were somebody's before there were claims.
    imports: BTreeSet<IpAddr>,
    /// The pools that they are of.
    pools: BTreeMap<IpAddr, Box<str>>,
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

/// Who holds an address: thousands may.
#[derive(Clone, Debug, Default)]
struct Holders {
    /// Their uids, and how many came to before each.
    turns: BTreeMap<String, usize>,
    /// The names of those that share it, by the same number.
    names: BTreeMap<usize, Name>,
    /// Whose each port is of those that share it, by the same number.
    ports: BTreeMap<Port, usize>,
}

impl Holders {
    fn of(all: Vec<Holder>) -> Self {
        let mut holders = Self::default();
        let is_shared = all.len() > 1;
        for (at, holder) in all.into_iter().enumerate() {
            // Of one that is named twice the first counts.
            let turn = *holders.turns.entry(holder.uid).or_insert(at);
            if let Some((name, ports)) = holder.shares.filter(|_| is_shared) {
                holders.names.entry(turn).or_insert(name);
                ports.into_iter().for_each(|port| _ = holders.ports.entry(port).or_insert(turn));
            }
        }
        holders
    }
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
        self.holders.get(address)?.turns.get(uid).copied()
    }

    /// Where claims decide: of those that share the address with the object of this uid, one that was given a port there
    /// which is among these, and that port. kube-proxy would lead what comes for it to either.
    pub fn in_the_way(&self, address: &IpAddr, uid: &str, ports: &[Port]) -> Option<(&Name, Port)> {
        self.all_in_the_way(address, uid, ports).next()
    }

    /// The same of each such port.
    pub fn all_in_the_way<'a, 'b>(
        &'a self,
        address: &IpAddr,
        uid: &str,
        ports: &'b [Port],
    ) -> impl Iterator<Item = (&'a Name, Port)> + use<'a, 'b> {
        let holders = self.holders.get(address).filter(|_| self.decide());
        let both = holders.and_then(|holders| Some((holders, holders.turns.get(uid)?)));
        both.into_iter().flat_map(move |(holders, own)| {
            ports.iter().filter_map(move |port| {
                let holder = holders.ports.get(port).filter(|holder| *holder != own)?;
                Some((holders.names.get(holder)?, *port))
            })
        })
    }

    /// Whether anybody of another namespace shares the address.
    pub fn is_shared_beyond(&self, address: &IpAddr, namespace: &str) -> bool {
        let mut names = self.holders.get(address).into_iter().flat_map(|all| all.names.values());
        names.any(|name| name.namespace != namespace)
    }

    /// Where claims decide: whether the object of this uid shares the address.
    pub fn shares(&self, address: &IpAddr, uid: &str) -> bool {
        let holders = self.holders.get(address).filter(|_| self.decide());
        holders.is_some_and(|holders| holders.turns.len() > 1 && holders.turns.contains_key(uid))
    }

    /// Whether it is known what is to be served, and that is what claims name.
    pub fn are_known(&self) -> bool {
        self.decide() && self.unknown().is_none()
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
    pub fn left(&self, address: &IpAddr) -> Left {
        match self.decide() {
            false => Left::Marked,
            true if self.imports.contains(address) => Left::Surely,
            true => Left::Never,
        }
    }

    /// Takes in who holds the address of this name, and whether since before there were claims.
    pub fn apply(&mut self, name: &str, holders: Vec<Holder>, is_imported: bool) {
        if let Ok(address) = name.parse() {
            self.holders.insert(address, Holders::of(holders));
            match is_imported {
                true => self.imports.insert(address),
                false => self.imports.remove(&address),
            };
        }
    }

    /// Takes in which pool the address of this name is of, if of any.
    pub fn pooled(&mut self, name: &str, pool: Option<String>) {
        let Ok(address) = name.parse() else { return };
        match pool {
            Some(pool) => self.pools.insert(address, pool.into()),
            None => self.pools.remove(&address),
        };
    }

    /// The pool that an address is of, as its claim says; nothing where claims do not decide.
    pub fn pool(&self, address: &IpAddr) -> Option<&str> {
        self.pools.get(address).filter(|_| self.decide()).map(|pool| &**pool)
    }

    /// Takes in that nobody does.
    pub fn delete(&mut self, name: &str) {
        if let Ok(address) = name.parse() {
            self.holders.remove(&address);
            self.imports.remove(&address);
            self.pools.remove(&address);
        }
    }

    /// Takes in that these are all claims.
    pub fn listed(&mut self, kept: &BTreeSet<String>) {
        self.listed = true;
        self.holders.retain(|address, _| kept.contains(&address.to_string()));
        self.imports.retain(|address| self.holders.contains_key(address));
        self.pools.retain(|address, _| self.holders.contains_key(address));
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

    fn uids() -> Vec<Holder> {
        vec![Holder::alone("one")]
    }

    #[test]
    fn a_port_at_a_shared_address_is_who_was_given_it_and_in_the_way_of_the_others() {
        use berth_api::service::Protocol::{Tcp, Udp};
        let port = |protocol, number| Port { protocol, number };
        let sharer = |name: &str, ports: &[Port]| Holder {
            uid: name.to_owned(),
            shares: Some((Name::new("d", name), ports.to_vec())),
        };
        let mut claims = Claims::new(ClaimPolicy::Required);
        let (web, dns) = (port(Tcp, 80), port(Udp, 80));
        claims.apply("192.0.2.1", vec![sharer("web", &[web]), sharer("dns", &[dns])], false);
        let by = |claims: &Claims, uid, ports: &[Port]| {
            let found = claims.in_the_way(&address(), uid, ports);
            found.map(|(name, port)| (name.name.clone(), port))
        };
        assert_eq!(by(&claims, "dns", &[dns, port(Tcp, 81)]), None, "its own, and nobody's");
        assert_eq!(by(&claims, "dns", &[dns, web]), Some(("web".to_owned(), web)));
        assert_eq!(by(&claims, "web", &[dns]), Some(("dns".to_owned(), dns)));
        assert!(claims.shares(&address(), "web") && !claims.shares(&address(), "other"));
        claims.apply("192.0.2.1", vec![sharer("web", &[web])], false);
        assert_eq!(by(&claims, "web", &[dns, web]), None, "it is alone there");
        let mut ignored = Claims::default();
        ignored.apply("192.0.2.1", vec![sharer("web", &[web]), sharer("dns", &[dns])], false);
        assert_eq!(by(&ignored, "dns", &[web]), None, "where claims do not matter");
    }

    #[test]
    fn who_is_named_has_the_address_until_the_claim_is_gone() {
        assert!(Claims::default().grant(&address(), "any"), "where claims do not matter");
        let mut claims = Claims::new(ClaimPolicy::Required);
        assert!(!claims.grant(&address(), "one") && claims.unknown().is_some(), "not yet");
        claims.apply("192.0.2.1", uids(), false);
        assert!(claims.grant(&address(), "one") && !claims.grant(&address(), "two"));
        claims.pooled("192.0.2.1", Some("shop".to_owned()));
        assert_eq!(claims.pool(&address()), Some("shop"));
        claims.delete("192.0.2.1");
        assert_eq!(claims.pool(&address()), None);
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
        claims.pooled("192.0.2.1", Some("shop".to_owned()));
        assert_eq!(claims.pool(&address()), None, "what decides on nothing says nothing");
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
