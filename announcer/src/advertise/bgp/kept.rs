//! What an earlier life of this process has left bound, which routers may lead here still. It stays as it is until it is known what is
//! wanted, or the kernel drops it, which is as long as a router may go by it. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::kernel::{Binding, Host, Lifetime};

/// How long elastic IPs are waited for where all else is known: an account may not see them, and many are listed slowly.
const PATIENCE: Duration = Duration::from_secs(15);

/// What was left, each with when the kernel drops it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    addresses: BTreeMap<IpAddr, Instant>,
    /// Since when it is known what is wanted.
    known_since: Option<Instant>,
    /// Whether routers are told by now.
    has_begun: bool,
}

impl Kept {
    /// What the host has of it on the interfaces where routers lead addresses.
    pub fn of(host: &Host, interfaces: &[&str]) -> (Self, BTreeSet<Binding>) {
        let indices = interfaces.iter().filter_map(|name| Some(host.interface(name)?.1.index));
        let indices: BTreeSet<u32> = indices.collect();
        let left = host.ours.iter().filter_map(|(binding, lifetime)| match lifetime {
            Lifetime::Until(until) if indices.contains(&binding.index) => Some((*binding, *until)),
            _ => None,
        });
        let left: BTreeMap<Binding, Instant> = left.collect();
        let addresses = left.iter().map(|(binding, until)| (binding.address, *until)).collect();
        (Self { addresses, ..Self::default() }, left.into_keys().collect())
    }

    /// Takes in whether it is known what Services want, and what elastic IPs do. Gives whether nothing was left, or routers can be
    /// told now what is wanted of it.
    pub(super) fn see(&mut self, known: bool, eips_known: bool, now: Instant) -> bool {
        self.addresses.retain(|_, until| *until > now);
        if known {
            self.known_since.get_or_insert(now);
        }
        let is_known = self.known_since.is_some_and(|since| eips_known || now >= since + PATIENCE);
        self.has_begun |= is_known || self.addresses.is_empty();
        self.has_begun
    }

    /// Whether all is to stay as it was left: it is not known yet what is wanted.
    pub(super) fn waits(&self) -> bool {
        !self.has_begun && !self.addresses.is_empty()
    }

    /// Nothing of it matters any more: routers know what is wanted. Gives what it was.
    pub(super) fn end(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.addresses).into_keys().collect()
    }

    /// The addresses.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &IpAddr> {
        self.addresses.keys()
    }

    /// Whether an address is among them.
    pub(super) fn has(&self, address: &IpAddr) -> bool {
        self.addresses.contains_key(address)
    }

    /// When the last of it is gone.
    pub fn until(&self) -> Option<Instant> {
        self.addresses.values().max().copied()
    }

    /// When something is due although nothing happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let patient = self.known_since.map(|since| since + PATIENCE).filter(|_| self.waits());
        self.addresses.values().copied().chain(patient).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Interface;

    fn host() -> Host {
        let eth0 = Interface { index: 2, mac: None, up: true, foreign: [].into() };
        Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    #[test]
    fn what_is_where_routers_lead_addresses_is_kept_until_it_is_known_what_is_wanted() {
        let (mut host, now) = (host(), Instant::now());
        let index = 2;
        let until = now + SECOND * 60;
        for (index, last, lifetime) in [
            (index, 1, Lifetime::Until(until)),
            (index, 2, Lifetime::Forever),
            (index + 1, 3, Lifetime::Until(until)),
        ] {
            host.ours.insert(Binding { index, address: address(last) }, lifetime);
        }
        let lo = Interface { index: 1, mac: None, up: true, foreign: [].into() };
        host.interfaces.insert("lo".to_owned(), lo);
        let v6 = Binding { index: 1, address: "2001:db8::1".parse().unwrap() };
        let mut both = host.clone();
        both.ours.insert(v6, Lifetime::Until(until));
        assert_eq!(
            Kept::of(&both, &["eth0", "lo"]).1,
            [v6, Binding { index, address: address(1) }].into()
        );
        let (mut kept, bindings) = Kept::of(&host, &["eth0"]);
        assert_eq!(bindings, [Binding { index, address: address(1) }].into());
        assert_eq!((kept.until(), kept.deadline()), (Some(until), Some(until)));
        assert!(!kept.see(false, false, now) && kept.waits());
        assert!(!kept.see(true, false, now) && kept.waits(), "elastic IPs are not known");
        assert_eq!(kept.deadline(), Some(now + PATIENCE));
        let mut other = kept.clone();
        assert!(other.see(true, true, now) && !other.waits() && other.has(&address(1)));
        assert!(kept.see(true, false, now + PATIENCE), "they may not be shown at all");
        assert!(kept.see(false, false, now + PATIENCE), "what began goes on");
        assert_eq!(kept.end(), [address(1)].into());
        assert_eq!(kept.until(), None);
    }

    #[test]
    fn what_the_kernel_has_dropped_is_waited_for_no_longer() {
        let now = Instant::now();
        let mut kept = Kept { addresses: [(address(1), now + SECOND)].into(), ..Kept::default() };
        assert!(!kept.see(false, false, now));
        assert!(kept.see(false, false, now + SECOND) && !kept.waits());
        assert!(Kept::default().see(false, false, now), "nothing was left");
        assert_eq!(Kept::of(&host(), &["eth7"]).0, Kept::default());
    }
}
