//! Where routes lead: addresses of this host, as they come and go. Pure, but for the look at them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use berth_bgp::config::Hops;
use berth_bgp::{Family, NextHops};

use super::place;

/// How long what is gone counts, where nothing takes its place: who sets up an interface anew takes all off it for a moment.
const PATIENCE: Duration = Duration::from_secs(5);

/// The addresses of IPv6 with their flags, as `if6_seq_show` of the kernel writes them.
const FLAGS: &str = "/proc/thread-self/net/if_inet6";

/// Of linux/if_addr.h.
const TEMPORARY: u8 = 0x01;
const OPTIMISTIC: u8 = 0x04;
const FAILED: u8 = 0x08;
const DEPRECATED: u8 = 0x20;
const TENTATIVE: u8 = 0x40;

/// Addresses by the names of interfaces, those first that are to be preferred.
pub(super) type Addresses = Vec<(String, IpAddr)>;

/// The addresses of this host that routes could lead to.
pub(super) fn look() -> io::Result<Addresses> {
    // A host without IPv6 has no such file.
    let flags = std::fs::read_to_string(FLAGS).unwrap_or_default();
    Ok(usable(place::addresses()?, &flags))
}

/// Without those that nobody may answer for yet, and with those last that go some day.
fn usable(mut all: Addresses, flags: &str) -> Addresses {
    let flagged: BTreeMap<Ipv6Addr, u8> = flags.lines().filter_map(flag).collect();
    let of = |own: &IpAddr| match own {
        IpAddr::V4(_) => 0,
        IpAddr::V6(own) => flagged.get(own).copied().unwrap_or_default(),
    };
    all.retain(|(_, own)| {
        let flags = of(own);
        flags & FAILED == 0 && (flags & TENTATIVE == 0 || flags & OPTIMISTIC != 0)
    });
    all.sort_by_key(|(_, own)| of(own) & (DEPRECATED | TEMPORARY) != 0);
    all
}

/// Address and flags of `fe80..01 02 40 20 80 eth0`: all but the name in hexadecimal.
fn flag(line: &str) -> Option<(Ipv6Addr, u8)> {
    let mut words = line.split_whitespace();
    let address = u128::from_str_radix(words.next()?, 16).ok()?;
    let flags = u8::from_str_radix(words.nth(3)?, 16).ok()?;
    Some((address.into(), flags))
}

/// The addresses of this host, and those that were its own a moment ago.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Own {
    /// Those that it has.
    pub(super) all: Addresses,
    /// Those that are gone, and until when they count.
    pub(super) gone: BTreeMap<(String, IpAddr), Instant>,
}

impl Own {
    /// Takes in what is there now. Tells whether anything is another than before.
    pub(super) fn see(&mut self, all: Addresses, now: Instant) -> bool {
        let before = self.clone();
        for own in &before.all {
            self.gone.entry(own.clone()).or_insert(now + PATIENCE);
        }
        self.all = all;
        self.gone.retain(|own, until| *until > now && !self.all.contains(own));
        *self != before
    }

    /// When what is gone counts no more.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.gone.values().min().copied()
    }
}

/// Where routes lead by a connection with this own end, which have led to `before`: what is there still stays. `vips` are not the
/// node's own.
pub(super) fn next_hops(
    (hops, interface): (Hops, Option<&str>),
    end: SocketAddr,
    before: NextHops,
    own: &Own,
    vips: &BTreeSet<IpAddr>,
) -> NextHops {
    let end = end.ip();
    let known = || own.all.iter().chain(own.gone.keys());
    let of_end = || known().find(|(_, own)| *own == end).map(|(on, _)| on.as_str());
    let named = match hops {
        Hops::Fixed { v4, v6 } => return NextHops { v4, v6, link_local: None },
        Hops::Connection => of_end(),
        Hops::Interface => interface.or_else(of_end),
    };
    let pick = |family: Family, before: Option<IpAddr>| {
        if hops == Hops::Connection && Family::of(end) == family && leads(&end) {
            return Some(end);
        }
        let fits = |(on, own): &&(String, IpAddr)| {
            Some(on.as_str()) == named
                && Family::of(*own) == family
                && leads(own)
                && !vips.contains(own)
        };
        let mut all = own.all.iter().filter(fits).map(|(_, own)| *own);
        let is = |own: &IpAddr| Some(*own) == before;
        let gone = || own.gone.keys().filter(fits).map(|(_, own)| *own).find(is);
        all.clone().find(is).or_else(|| all.next()).or_else(gone)
    };
    let v4 = |own| match own {
        IpAddr::V4(own) => Some(own),
        IpAddr::V6(_) => None,
    };
    let v6 = |own| match own {
        IpAddr::V6(own) => Some(own),
        IpAddr::V4(_) => None,
    };
    // By a link whose ends need no other addresses both families go by that of the link alone (RFC 8950 for IPv4).
    let by_link = hops == Hops::Connection && is_of_a_link(&end);
    NextHops {
        v4: pick(Family::V4, before.v4.map(IpAddr::from)).filter(|_| !by_link).and_then(v4),
        v6: pick(Family::V6, before.v6.map(IpAddr::from)).filter(|_| !by_link).and_then(v6),
        link_local: Some(end).filter(is_of_a_link).and_then(v6),
    }
}

/// Whether a route can lead to an address from beyond its host and its link.
fn leads(own: &IpAddr) -> bool {
    !own.is_loopback() && !is_of_a_link(own)
}

fn is_of_a_link(own: &IpAddr) -> bool {
    matches!(own, IpAddr::V6(own) if own.is_unicast_link_local())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[(&str, &str)]) -> Addresses {
        all.iter().map(|(on, own)| ((*on).to_owned(), own.parse().unwrap())).collect()
    }

    fn v6(text: &str) -> Option<Ipv6Addr> {
        Some(text.parse().unwrap())
    }

    const V4: (&str, &str) = ("eth0", "192.0.2.11");

    /// By a session over IPv4.
    fn by(own: &Own, before: NextHops) -> NextHops {
        let end = "192.0.2.11:179".parse().unwrap();
        next_hops(
            (Hops::Connection, None),
            end,
            before,
            own,
            &["2001:db8::99".parse().unwrap()].into(),
        )
    }

    #[test]
    fn who_is_not_there_yet_or_goes_some_day_is_no_next_hop_while_another_is() {
        let flags = "20010db8000000000000000000000001 02 40 00 c0 eth0
20010db8000000000000000000000002 02 40 00 08 eth0
20010db8000000000000000000000003 02 40 00 21 eth0
20010db8000000000000000000000004 02 40 00 80 eth0
20010db8000000000000000000000005 02 40 00 44 eth0
";
        let all = ["::1", "::2", "::3", "::4", "::5"].map(|last| format!("2001:db8{last}"));
        let all: Vec<(&str, &str)> = all.iter().map(|own| ("eth0", own.as_str())).collect();
        let told = usable(addresses(&all), flags);
        let told: Vec<String> = told.iter().map(|(_, own)| own.to_string()).collect();
        assert_eq!(told, ["2001:db8::4", "2001:db8::5", "2001:db8::3"]);
    }

    #[test]
    fn routes_lead_to_what_comes_later_and_stay_with_what_is_there() {
        let mut own = Own::default();
        let now = Instant::now();
        assert!(own.see(addresses(&[V4, ("eth1", "2001:db8::7"), ("eth0", "fe80::1")]), now));
        let none = by(&own, NextHops::default());
        assert_eq!((none.v4, none.v6), (Some([192, 0, 2, 11].into()), None));
        own.see(addresses(&[V4, ("eth0", "2001:db8::99"), ("eth0", "2001:db8::5")]), now);
        let first = by(&own, none);
        assert_eq!(first.v6, v6("2001:db8::5"), "and not to the address of a Service");
        own.see(addresses(&[V4, ("eth0", "2001:db8::2"), ("eth0", "2001:db8::5")]), now);
        assert_eq!(by(&own, first), first, "nothing is wrong with that");
        own.see(addresses(&[V4, ("eth0", "2001:db8::2")]), now);
        assert_eq!(by(&own, first).v6, v6("2001:db8::2"), "at once");
    }

    #[test]
    fn what_is_gone_for_a_moment_counts_and_not_for_longer() {
        let mut own = Own::default();
        let now = Instant::now();
        let both = addresses(&[V4, ("eth0", "2001:db8::5")]);
        own.see(both.clone(), now);
        let before = by(&own, NextHops::default());
        assert!(own.see(addresses(&[V4]), now));
        assert_eq!(by(&own, before), before);
        assert!(!own.see(addresses(&[V4]), now + PATIENCE / 2), "nothing new");
        assert_eq!(own.deadline(), Some(now + PATIENCE));
        assert!(own.see(addresses(&[V4]), now + PATIENCE));
        assert_eq!(by(&own, before).v6, None);
        own.see(both, now + PATIENCE);
        assert_eq!((by(&own, before), own.deadline()), (before, None));
    }
}
