//! Owns what may happen: small pools around the .255 and .0 of IPv4, and everything owners and users can do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use berth_ipam::{Family, FamilyPolicy, Owner, OwnerKind, Protocol, Sharing, TrafficPolicy};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

/// The namespaces that owners live in. `b` and `c` have a pool of their own only sometimes, and `c` never.
pub(crate) const NAMESPACES: [&str; 4] = ["a", "b", "c", "global"];
pub(crate) const OWNERS: usize = 16;
pub(crate) const LONGEST_DELAY: u64 = 20;

const V4: u32 = 0x0a00_00f8;
const V6: u128 = 0x2001_0db8 << 96;
const SPAN: u32 = 32;

/// Every address that can occur: 10.0.0.248 to 10.0.1.23, and 32 of IPv6.
pub(crate) fn universe() -> impl Iterator<Item = IpAddr> {
    (0..2 * SPAN).map(address)
}

fn address(at: u32) -> IpAddr {
    if at < SPAN {
        IpAddr::V4(Ipv4Addr::from(V4 + at))
    } else {
        IpAddr::V6(Ipv6Addr::from(V6 + u128::from(at - SPAN)))
    }
}

pub(crate) fn owner(number: usize) -> Owner {
    Owner::new(
        [OwnerKind::Service, OwnerKind::EipBinding][number % 2],
        NAMESPACES[number / 2 % NAMESPACES.len()],
        format!("o{number}"),
        format!("u{number}"),
    )
}

/// A few port sets that overlap in part.
pub(crate) fn sharing(ports: Option<u8>) -> Option<Sharing> {
    let ports = ports?;
    let policy = if ports & 8 == 0 { TrafficPolicy::Cluster } else { TrafficPolicy::Local };
    let all = [(Protocol::Tcp, 80), (Protocol::Udp, 80), (Protocol::Tcp, 443)];
    let used = all.into_iter().enumerate().filter(|(bit, _)| ports & (1 << bit) != 0);
    Some(Sharing { ports: used.map(|(_, port)| port).collect(), policy })
}

/// The keys of one scope, as a user means them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Keys {
    /// Inclusive positions in the universe, of one family each.
    pub(crate) ranges: Vec<(u32, u32)>,
    /// A prefix: position of an address in it, and length of the host part in bits.
    pub(crate) prefixes: Vec<(u32, u32)>,
    pub(crate) exclude: Vec<(u32, u32)>,
    pub(crate) drain: Option<Option<(u32, u32)>>,
    pub(crate) quota: Option<u64>,
    pub(crate) overflow: bool,
    pub(crate) allow_share: Option<bool>,
    /// `any` where there is no list, else `pool` where it is empty, else that list.
    pub(crate) pins: Option<Option<Vec<(u32, u32)>>>,
    pub(crate) share_with: Vec<&'static str>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Config {
    /// Of the scopes `global`, `a` and `b`.
    pub(crate) scopes: BTreeMap<&'static str, Keys>,
    pub(crate) descending: bool,
    pub(crate) skip_ends: bool,
    pub(crate) avoid_buggy: Option<bool>,
    pub(crate) reuse_delay: Option<u64>,
    pub(crate) namespace_quota: Option<u64>,
}

impl Config {
    /// The ConfigMap that says this.
    pub(crate) fn data(&self) -> BTreeMap<String, String> {
        let mut data = BTreeMap::new();
        let mut put = |key: String, value: String| _ = data.insert(key, value);
        let ranges =
            |list: &[(u32, u32)]| list.iter().map(|r| range(*r)).collect::<Vec<_>>().join(", ");
        for (name, keys) in &self.scopes {
            if !keys.ranges.is_empty() {
                put(format!("range-{name}"), ranges(&keys.ranges));
            }
            if !keys.prefixes.is_empty() {
                let list = keys.prefixes.iter().map(|p| prefix(*p)).collect::<Vec<_>>();
                put(format!("cidr-{name}"), list.join(","));
            }
            if !keys.exclude.is_empty() {
                put(format!("exclude-{name}"), ranges(&keys.exclude));
            }
            if let Some(drain) = keys.drain {
                put(format!("drain-{name}"), drain.map_or("true".to_owned(), range));
            }
            if let Some(quota) = keys.quota {
                put(format!("quota-{name}"), quota.to_string());
            }
            if keys.overflow {
                put(format!("overflow-{name}"), "global".to_owned());
            }
            if let Some(allowed) = keys.allow_share {
                put(format!("allow-share-{name}"), allowed.to_string());
            }
            if let Some(pins) = &keys.pins {
                let text = match pins.as_deref() {
                    None => "any".to_owned(),
                    Some([]) => "pool".to_owned(),
                    Some(list) => ranges(list),
                };
                put(format!("pins-{name}"), text);
            }
            if !keys.share_with.is_empty() {
                put(format!("share-with-{name}"), keys.share_with.join(","));
            }
        }
        put("search-order".to_owned(), if self.descending { "desc" } else { "asc" }.to_owned());
        put("skip-end-ips-in-cidr".to_owned(), self.skip_ends.to_string());
        if let Some(avoid) = self.avoid_buggy {
            put("avoid-buggy-ips".to_owned(), avoid.to_string());
        }
        if let Some(delay) = self.reuse_delay {
            put("reuse-delay".to_owned(), format!("{delay}s"));
        }
        if let Some(quota) = self.namespace_quota {
            put("namespace-quota".to_owned(), quota.to_string());
        }
        data
    }
}

fn range((first, last): (u32, u32)) -> String {
    if first == last {
        address(first).to_string()
    } else {
        format!("{}-{}", address(first), address(last))
    }
}

fn prefix((at, host_bits): (u32, u32)) -> String {
    let bits = if at < SPAN { 32 } else { 128 };
    format!("{}/{}", address(at), bits - host_bits)
}

/// The addresses of a range.
pub(crate) fn listed((first, last): (u32, u32)) -> impl Iterator<Item = IpAddr> {
    (first..=last).map(address)
}

/// The addresses of a prefix, ascending, also those outside the universe.
pub(crate) fn prefix_listed((at, host_bits): (u32, u32)) -> Vec<IpAddr> {
    let size = 1u128 << host_bits;
    match address(at) {
        IpAddr::V4(v4) => {
            let first = u128::from(u32::from(v4)) / size * size;
            (first..first + size).map(|n| Ipv4Addr::from(n as u32).into()).collect()
        }
        IpAddr::V6(v6) => {
            let first = u128::from(v6) / size * size;
            (first..first + size).map(|n| Ipv6Addr::from(n).into()).collect()
        }
    }
}

/// An address, or one that this owner holds: else two rarely meet.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Which {
    At(IpAddr),
    Of(usize),
}

#[derive(Clone, Debug)]
pub(crate) enum Event {
    Configure(Config),
    Ask {
        owner: usize,
        policy: FamilyPolicy,
        first: Family,
        pin: Option<Which>,
        ports: Option<u8>,
        /// It cannot use what it holds and what is set aside.
        exchange: bool,
    },
    Release {
        owner: usize,
    },
    Reserve {
        name: &'static str,
        addresses: BTreeSet<IpAddr>,
    },
    SetAside {
        which: Which,
        namespace: &'static str,
        seconds: u64,
    },
    Wait(u64),
}

fn positions() -> impl Strategy<Value = (u32, u32)> {
    (any::<bool>(), 0..SPAN, 0..8u32).prop_map(|(v6, first, more)| {
        let base = if v6 { SPAN } else { 0 };
        (base + first, base + (first + more).min(SPAN - 1))
    })
}

fn keys() -> impl Strategy<Value = Keys> {
    (
        vec(positions(), 0..3),
        vec((0..2 * SPAN, 0..4u32), 0..3),
        vec(positions(), 0..2),
        option::weighted(0.2, option::weighted(0.8, positions())),
        option::weighted(0.3, 0..6u64),
        any::<bool>(),
        option::weighted(0.8, prop::bool::weighted(0.8)),
        option::weighted(0.3, option::weighted(0.8, vec(positions(), 0..3))),
        subsequence(NAMESPACES.to_vec(), 1..=NAMESPACES.len()),
    )
        .prop_map(
            |(ranges, prefixes, exclude, drain, quota, overflow, allow_share, pins, share_with)| {
                Keys {
                    ranges,
                    prefixes,
                    exclude,
                    drain,
                    quota,
                    overflow,
                    allow_share,
                    pins,
                    share_with,
                }
            },
        )
}

fn config() -> impl Strategy<Value = Config> {
    (
        keys(),
        keys(),
        option::of(keys()),
        any::<(bool, bool)>(),
        option::of(any::<bool>()),
        option::of(0..LONGEST_DELAY),
        option::weighted(0.3, 0..6u64),
    )
        .prop_map(
            |(global, a, b, (descending, skip_ends), avoid_buggy, reuse_delay, quota)| {
                let b = b.map(|b| ("b", b));
                Config {
                    scopes: [("global", global), ("a", a)].into_iter().chain(b).collect(),
                    descending,
                    skip_ends,
                    avoid_buggy,
                    reuse_delay: reuse_delay.or(Some(LONGEST_DELAY)),
                    namespace_quota: quota,
                }
            },
        )
}

fn which() -> impl Strategy<Value = Which> {
    prop_oneof![
        (0..2 * SPAN).prop_map(|at| Which::At(address(at))),
        (0..OWNERS).prop_map(Which::Of)
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let policy = prop_oneof![
        Just(FamilyPolicy::SingleStack),
        Just(FamilyPolicy::PreferDualStack),
        Just(FamilyPolicy::RequireDualStack),
    ];
    let family = prop_oneof![Just(Family::V4), Just(Family::V6)];
    let pin = option::weighted(0.25, which());
    prop_oneof![
        1 => config().prop_map(Event::Configure),
        12 => (0..OWNERS, policy, family, pin, option::of(0..16u8), any::<bool>()).prop_map(
            |(owner, policy, first, pin, ports, exchange)| {
                Event::Ask { owner, policy, first, pin, ports, exchange }
            }
        ),
        2 => (which(), select(&NAMESPACES[..]), 1..LONGEST_DELAY).prop_map(
            |(which, namespace, seconds)| Event::SetAside { which, namespace, seconds }
        ),
        4 => (0..OWNERS).prop_map(|owner| Event::Release { owner }),
        1 => (prop_oneof![Just("node x"), Just("the vip")], vec(positions(), 0..2)).prop_map(
            |(name, ranges)| Event::Reserve {
                name,
                addresses: ranges.into_iter().flat_map(listed).collect()
            }
        ),
        3 => (0..8u64).prop_map(Event::Wait),
    ]
}

/// A configuration, and what happens then.
pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
    (config(), vec(event(), 1..60)).prop_map(|(config, mut events)| {
        events.insert(0, Event::Configure(config));
        events
    })
}
