//! What settings, annotations and the ConfigMap give: the speaker, and its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::password::Password;
use crate::policy::Selector;
use crate::prefix::{Family, Prefix};
use crate::session::{Parameters, RemoteAs, Restart, Role};

/// The port of BGP.
pub const PORT: u16 = 179;

/// TTL of what goes to a peer that is more than one hop away, where nothing is said: kube-vip's.
pub(super) const FAR: u8 = 50;

/// What is the same for all peers, where they do not say otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Speaker {
    /// The own AS.
    pub local_as: u32,
    /// Where the BGP Identifier comes from.
    pub router_id: RouterId,
    /// Seconds of silence after which a peer is given up; 0 for never.
    pub hold_time: u16,
    /// Seconds between signs of life; nothing, or 0, for a third of the hold time.
    pub keepalive: Option<u16>,
    /// The longest wait between two attempts to connect, in seconds.
    pub connect_retry: u16,
    /// Whether routes survive a restart, and for how long.
    pub graceful_restart: Option<Restart>,
    /// Where peers may connect to; nothing where none may.
    pub listen: Option<Listen>,
}

impl Default for Speaker {
    /// As kube-vip without any settings; restarts are survived.
    fn default() -> Self {
        Self {
            local_as: 65000,
            router_id: RouterId::Found,
            hold_time: 30,
            keepalive: Some(10),
            connect_retry: 30,
            graceful_restart: Some(Restart::default()),
            listen: None,
        }
    }
}

/// Where peers may connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    /// The port.
    pub port: u16,
    /// Of the addresses of a node those that are in one of these; without any all of them.
    pub within: Vec<Prefix>,
}

impl Listen {
    /// Whether an address of the node is one of those.
    pub fn is_at(&self, own: IpAddr) -> bool {
        let host = Prefix::host(own);
        let has = |prefix: &Prefix| {
            prefix.family() == host.family() && host.widened(prefix.length()) == *prefix
        };
        self.within.is_empty() || self.within.iter().any(has)
    }
}

/// Where the BGP Identifier comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RouterId {
    /// The lowest IPv4 address of the node's interface; where it has none, 32 bits that its name and the cluster make.
    #[default]
    Found,
    /// It is this.
    Is(Ipv4Addr),
    /// The lowest IPv4 address of this interface.
    Of(String),
}

/// A peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// What people, rules and Services call it: no two have the same.
    pub name: String,
    /// Where it is.
    pub remote: Remote,
    /// Its port.
    pub port: u16,
    /// Its AS.
    pub remote_as: RemoteAs,
    /// The own AS towards it, where that is another one.
    pub local_as: Option<u32>,
    /// The password.
    pub password: Option<Password>,
    /// How far it is.
    pub distance: Distance,
    /// Who connects.
    pub role: Role,
    /// Families that are spoken.
    pub families: BTreeSet<Family>,
    /// The own address of the connection.
    pub source: Option<IpAddr>,
    /// The interface that it goes by.
    pub interface: Option<String>,
    /// Where routes lead.
    pub hops: Hops,
    /// As in [`Speaker`], where that is another one here.
    pub hold_time: Option<u16>,
    /// The same.
    pub keepalive: Option<u16>,
    /// The same.
    pub connect_retry: Option<u16>,
    /// The same; nothing in it where restarts are not survived.
    pub graceful_restart: Option<Option<Restart>>,
    /// Whether it is watched by BFD.
    pub bfd: Option<Bfd>,
    /// The nodes that have it.
    pub nodes: Selector,
    /// Whether it is of settings: where the ConfigMap has one at the same place, that one counts.
    pub of_settings: bool,
}

impl Peer {
    /// A peer of which nothing else is said.
    pub fn new(remote: Remote, remote_as: RemoteAs) -> Self {
        let families = match &remote {
            Remote::Address(address) => BTreeSet::from([Family::of(*address)]),
            Remote::Interface(_) => BTreeSet::from(Family::ALL),
        };
        Self {
            name: remote.to_string(),
            remote,
            port: PORT,
            remote_as,
            local_as: None,
            password: None,
            distance: Distance::default(),
            role: Role::Active,
            families,
            source: None,
            interface: None,
            hops: Hops::default(),
            hold_time: None,
            keepalive: None,
            connect_retry: None,
            graceful_restart: None,
            bfd: None,
            nodes: Selector::default(),
            of_settings: false,
        }
    }

    /// The session with it, for a node with this identifier.
    pub fn parameters(&self, speaker: &Speaker, router_id: Ipv4Addr) -> Parameters {
        let retry = self.connect_retry.unwrap_or(speaker.connect_retry);
        let local_as = self.local_as.unwrap_or(speaker.local_as);
        Parameters {
            families: self.families.clone(),
            role: self.role,
            hold_time: self.hold_time.unwrap_or(speaker.hold_time),
            keepalive: self.keepalive.or(speaker.keepalive).filter(|seconds| *seconds > 0),
            connect_retry: Duration::from_secs(retry.into()),
            graceful_restart: self.graceful_restart.unwrap_or(speaker.graceful_restart),
            ..Parameters::new(local_as, self.remote_as, router_id)
        }
    }

    /// Whether the node with these labels has it.
    pub fn is_of(&self, labels: &BTreeMap<String, String>) -> bool {
        self.nodes.selects(labels)
    }
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Remote {
    /// At this address.
    Address(IpAddr),
    /// The one router on the link of this interface, by its address of the link (unnumbered).
    Interface(String),
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => write!(f, "{address}"),
            Self::Interface(interface) => f.write_str(interface),
        }
    }
}

/// How far a peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Distance {
    /// On the same link, or anywhere in the own AS.
    #[default]
    Near,
    /// At most so many hops away.
    Hops(u8),
    /// At most so many, and nothing is taken that comes from farther away, whoever's address it has (RFC 5082).
    Secured(u8),
}

/// Where routes lead: addresses of the node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hops {
    /// The connection's own address, and of the other family one of the interface that has it.
    #[default]
    Connection,
    /// These.
    Fixed {
        /// Of IPv4 routes.
        v4: Option<Ipv4Addr>,
        /// Of IPv6 routes.
        v6: Option<Ipv6Addr>,
    },
    /// Addresses of the interface that the connection is bound to.
    Interface,
}

/// How a peer is watched (RFC 5880).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bfd {
    /// Milliseconds between two packets that are taken.
    pub receive: u32,
    /// Milliseconds between two that are sent.
    pub transmit: u32,
    /// So many missing ones end it.
    pub multiplier: u8,
}

impl Default for Bfd {
    /// kube-vip's.
    fn default() -> Self {
        Self { receive: 300, transmit: 300, multiplier: 3 }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "peer {}: ", self.name)?;
        match &self.remote {
            Remote::Address(address) => write!(f, "{address}")?,
            Remote::Interface(interface) => write!(f, "the router on {interface}")?,
        }
        match self.role {
            Role::Active => write!(f, ", port {}", self.port)?,
            Role::Passive => f.write_str(", which connects")?,
            Role::Both => write!(f, ", port {}, or it connects", self.port)?,
        }
        write!(f, ", {}", self.remote_as)?;
        let families: Vec<String> = self.families.iter().map(ToString::to_string).collect();
        write!(f, ", {}", families.join(" and "))?;
        f.write_str(if self.password.is_some() { ", with a password" } else { "" })
    }
}
