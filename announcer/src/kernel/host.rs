//! The network of this host as values: what is there, and what is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_api::Family;
use berth_api::limits::is_interface_name;

use super::left::Foreign;

/// The protocol number of addresses that kube-vip left behind; we take them over where we own the address.
pub const KUBE_VIP_PROTOCOL: u8 = 248;

/// The network as one look at the kernel shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Host {
    /// Every interface by name.
    pub interfaces: BTreeMap<String, Interface>,
    /// Alternative names of interfaces (`ip link property add altname`), and the name that each stands for.
    pub alternatives: BTreeMap<String, String>,
    /// By the index of an interface that is a port of a bridge, a bond or a team, the index of that.
    pub ports: BTreeMap<u32, u32>,
    /// The interfaces of the best default route of each family, as many as it has next hops on different ones.
    pub default_routes: BTreeMap<Family, Vec<String>>,
    /// The routers of the default routes, by the index of the interface that they are on.
    pub gateways: BTreeMap<u32, BTreeSet<IpAddr>>,
    /// The next hops of all routes, in whichever table, but for those that are ours.
    pub next_hops: BTreeSet<IpAddr>,
    /// The addresses that carry our tag.
    pub ours: BTreeMap<Binding, Lifetime>,
    /// The indexes of the interfaces that carry our tag.
    pub made: BTreeSet<u32>,
    /// The interfaces of VLANs (IEEE 802.1Q), whoever has made them and whatever they are called.
    pub vlans: BTreeMap<Vlan, String>,
    /// The indexes of interfaces on which the kernel drops whatever comes by IPv4: rp_filter is strict there, and no route
    /// leads out of them.
    pub filtered: BTreeSet<u32>,
    /// The indexes of interfaces on which nobody could be answered but who is in a subnet of the node: no route of the
    /// family leads out of them, and none leads further than to such a subnet.
    pub stranded: BTreeSet<(Family, u32)>,
    /// The numbers of other instances that have addresses as we bind them.
    pub others: BTreeSet<u8>,
    /// Whether this kernel keeps no tags, so that addresses of several instances look alike (before Linux 5.18).
    pub untagged: bool,
    /// VLAN interfaces that the kernel would not make, by name, and what it said. No look shows that.
    pub unmade: BTreeMap<String, String>,
    /// Addresses that the fence does not cover, and why. No look shows that.
    pub uncovered: BTreeMap<IpAddr, String>,
    /// Interfaces without a fence on which neighbours ask, and why. No look shows that.
    pub exposed: BTreeMap<String, String>,
}

impl Host {
    /// Whether neighbours ask on the interface with this index and the fence does not stand there.
    pub fn is_exposed(&self, index: u32) -> bool {
        let mut exposed = self.exposed.keys().filter_map(|name| self.interfaces.get(name));
        exposed.any(|interface| interface.index == index)
    }

    /// The interface where none is named: that of the default route, of IPv4 if there is one, else of IPv6.
    pub fn default_route(&self) -> Option<&str> {
        self.default_routes.values().flatten().next().map(String::as_str)
    }

    /// The interface for `address` where none is named: that of a default route, of whichever family, whose subnet has it,
    /// since a router that is heard elsewhere takes no address off its LAN; else of its family's default route, or the other's
    /// where it has none that could be met. Of several next hops those that are up come first, of these the one whose subnet has the address.
    pub fn default_for(&self, address: IpAddr) -> Option<&str> {
        let best = |family| self.best_of(self.default_routes.get(&family)?, address);
        let own = best(Family::of(&address));
        let is_lan = |name: &&str| self.interfaces.get(*name).is_some_and(|all| all.mac.is_some());
        let any = || Family::ALL.into_iter().filter_map(best).find(is_lan);
        let is_default =
            |name: &&str| self.default_routes.values().flatten().any(|own| own == name);
        let is_up = |name: &&str| self.interfaces.get(*name).is_some_and(|all| all.up);
        let subnet = self.connected(address).filter(is_default).filter(is_lan).filter(is_up);
        subnet.or_else(|| own.filter(is_lan)).or_else(any).or(own)
    }

    fn best_of<'a>(&self, names: &'a [String], address: IpAddr) -> Option<&'a str> {
        if let [name] = names {
            return Some(name);
        }
        let subnet = self.connected(address);
        let rank = |name: &&String| {
            let interface = self.interfaces.get(*name);
            let is_up = interface.is_some_and(|all| all.mac.is_some() && all.up);
            (is_up, subnet == Some(name.as_str()))
        };
        // Of those that are equal the first one.
        names.iter().rev().max_by_key(rank).map(String::as_str)
    }

    /// The name of the interface of a VLAN: as it is there, whoever has made it, or else as we make it.
    pub fn vlan_name(&self, parent: &str, vlan: Vlan) -> String {
        let name = || Vlan::name(parent, vlan);
        self.vlans.get(&vlan).cloned().unwrap_or_else(name)
    }

    /// The interface of this name, or of this alternative name.
    pub fn interface(&self, name: &str) -> Option<(&str, &Interface)> {
        let name = self.alternatives.get(name).map_or(name, String::as_str);
        self.interfaces.get_key_value(name).map(|(name, interface)| (name.as_str(), interface))
    }

    /// The interface on which the host itself is met by what comes in through `interface`: where that is a port of a
    /// bridge, a bond or a team, the topmost of these. Linux asks no port for an IPv6 address (`ndisc_recv_ns`).
    pub fn met<'a>(&'a self, mut interface: (&'a str, &'a Interface)) -> (&'a str, &'a Interface) {
        // A port of a port of a port is as deep as it goes.
        for _ in 0..3 {
            let Some(above) = self.ports.get(&interface.1.index) else { break };
            let mut all = self.interfaces.iter();
            let Some((name, found)) = all.find(|(_, found)| found.index == *above) else { break };
            interface = (name, found);
        }
        interface
    }

    /// The interfaces, but for those on which a proxy binds what Services have.
    pub fn own_interfaces(&self) -> impl Iterator<Item = (&String, &Interface)> {
        self.interfaces.iter().filter(|(name, _)| !PROXIES.contains(&name.as_str()))
    }

    /// The addresses that are not ours, but for those that a proxy binds for Services.
    pub fn foreign(&self) -> impl Iterator<Item = (&IpAddr, &Foreign)> {
        self.own_interfaces().flat_map(|(_, interface)| &interface.foreign)
    }

    /// Whether an address of ours is bound, on whatever interface.
    pub fn has(&self, address: &IpAddr) -> bool {
        let mut from = Some(0);
        let mut bound = std::iter::from_fn(|| {
            let first = Binding { index: from?, address: Ipv4Addr::UNSPECIFIED.into() };
            let (Binding { index, .. }, _) = self.ours.range(first..).next()?;
            from = index.checked_add(1);
            Some(*index)
        });
        // There are many addresses, and few interfaces.
        bound.any(|index| self.ours.contains_key(&Binding { index, address: *address }))
    }

    /// The interface that has the subnet of `address`, the one with the longest prefix if there are several.
    pub fn connected(&self, address: IpAddr) -> Option<&str> {
        let subnets = self.interfaces.iter().flat_map(|(name, interface)| {
            let foreign = interface.foreign.iter();
            foreign.map(move |(own, foreign)| (foreign.prefix_len, name, *own))
        });
        let connected = subnets.filter(|(length, _, own)| shares_prefix(*own, address, *length));
        connected.map(|(length, name, _)| (length, name.as_str())).max().map(|(_, name)| name)
    }
}

/// Where kube-proxy in its mode `ipvs`, and kube-router, bind the addresses of Services.
const PROXIES: [&str; 2] = ["kube-ipvs0", "kube-dummy-if"];

/// The length of a prefix that has this address only.
pub(super) fn single(address: &IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

/// Whether an address is met beyond its link.
pub fn is_global(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its hardware address, if it is of Ethernet's form.
    pub mac: Option<[u8; 6]>,
    /// Whether it is switched on and has a carrier.
    pub up: bool,
    /// Addresses on it that are not ours, with their prefix lengths.
    pub foreign: BTreeMap<IpAddr, Foreign>,
}

fn shares_prefix(a: IpAddr, b: IpAddr, length: u8) -> bool {
    let (bits, a, b) = match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (32, a.to_bits().into(), b.to_bits().into()),
        (IpAddr::V6(a), IpAddr::V6(b)) => (128, a.to_bits(), b.to_bits()),
        _ => return false,
    };
    let differ: u128 = a ^ b;
    differ.checked_shr(bits - u32::from(length).min(bits)).unwrap_or(0) == 0
}

/// An address bound to an interface: /32 or /128.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binding {
    /// Index of the interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
}

/// A VLAN of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vlan {
    /// Index of the interface.
    pub parent: u32,
    /// Its number (IEEE 802.1Q), from 1 to 4094.
    pub id: u16,
}

impl Vlan {
    /// The name that we give to the interface of a VLAN: as `ip link add link eth0 name eth0.5 type vlan id 5` has it, and
    /// that of a parent with a long name by the parent's index, since Linux takes 15 octets.
    pub fn name(parent: &str, vlan: Self) -> String {
        let name = format!("{parent}.{}", vlan.id);
        match is_interface_name(&name) {
            true => name,
            false => format!("v{}.{}", vlan.parent, vlan.id),
        }
    }
}

/// Until when the kernel keeps an address by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifetime {
    /// It drops the address at this moment, give or take a second, whatever has become of this program.
    Until(Instant),
    /// It keeps the address for ever.
    Forever,
}

impl Lifetime {
    /// Whole seconds left at `now`, rounded down and at least one, as the kernel counts them; `None` for ever.
    pub fn seconds(self, now: Instant) -> Option<u32> {
        let Self::Until(end) = self else { return None };
        let left = end.saturating_duration_since(now).as_secs().max(1);
        Some(u32::try_from(left).unwrap_or(u32::MAX - 1))
    }

    /// True if this is more than `slack` short of `wanted`, or keeps an address longer than wanted.
    pub fn is_stale(self, wanted: Self, slack: Duration) -> bool {
        match (self, wanted) {
            (Self::Until(has), Self::Until(wants)) => has + slack < wants || has > wants + ROUNDING,
            (has, wants) => has != wants,
        }
    }
}

/// The kernel counts in seconds and rounds what it shows.
const ROUNDING: Duration = Duration::from_secs(2);

/// One port of an address that kube-proxy serves: what the guard drops while kube-proxy does not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// The address.
    pub address: IpAddr,
    /// IP protocol number.
    pub protocol: u8,
    /// Port number.
    pub port: u16,
}

/// What is to be guarded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// The ports that Services serve.
    pub ports: BTreeSet<Port>,
    /// The addresses whose ports others may take as well, and where what asks for one may be led.
    pub doubted: BTreeMap<IpAddr, BTreeSet<IpAddr>>,
}

impl From<BTreeSet<Port>> for Guarded {
    fn from(ports: BTreeSet<Port>) -> Self {
        Self { ports, ..Self::default() }
    }
}

/// What is known of the guard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Guard {
    /// Not known yet, or lost.
    Unknown,
    /// This host cannot have one, and why: addresses are bound without it.
    Unavailable(Arc<str>),
    /// This is guarded.
    Holds(Guarded),
}

/// One thing to do in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Takes an address off an interface.
    Remove(Binding),
    /// Guards exactly this.
    Guard(Guarded),
    /// Puts an address on an interface, or gives it a new lifetime there.
    Bind(Binding, Lifetime),
    /// Makes the interface of this name for a VLAN.
    MakeVlan(String, Vlan),
    /// Removes an interface that we have made.
    RemoveLink(u32),
}

/// Why the kernel did not do a step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Looking at the network failed.
    #[error("reading {what} from the kernel: {source}")]
    Read {
        /// What was read.
        what: &'static str,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
    /// An address could not be put on an interface or taken off.
    #[error("{verb} {address} on interface {index}: {source}")]
    Address {
        /// `binding` or `removing`.
        verb: &'static str,
        /// The address.
        address: IpAddr,
        /// Index of the interface.
        index: u32,
        /// The kernel's answer.
        source: rtnetlink::Error,
    },
}

/// Why the kernel did not make or remove an interface.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It cannot.
    #[error("this kernel makes no VLAN interfaces: its module 8021q is not loaded")]
    NoVlans,
    /// It would not.
    #[error(transparent)]
    Refused(#[from] rtnetlink::Error),
}

/// The kernel as the writer of addresses sees it.
#[allow(async_fn_in_trait)] // used by one task only, so nobody needs the future to be `Send` by contract
pub trait Kernel {
    /// Looks at the network.
    async fn look(&mut self) -> Result<Host, Error>;
    /// Puts an address on an interface or renews its lifetime. Idempotent.
    async fn bind(&mut self, binding: Binding, lifetime: Lifetime) -> Result<(), Error>;
    /// Takes an address off an interface. Idempotent: what is not there is off.
    async fn remove(&mut self, binding: Binding) -> Result<(), Error>;
    /// Makes the interface of this name for a VLAN, with our tag, switched on.
    async fn make_vlan(&mut self, name: &str, vlan: Vlan) -> Result<(), LinkError>;
    /// Removes an interface. Idempotent.
    async fn remove_link(&mut self, index: u32) -> Result<(), LinkError>;
}
