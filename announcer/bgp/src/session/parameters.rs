//! What a session is to be. As long as it stays the same, the session stays up, whatever else is edited.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::prefix::Family;

/// What a session is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameters {
    /// The own AS towards this peer.
    pub local_as: u32,
    /// The AS that the peer has to have.
    pub remote_as: RemoteAs,
    /// The own BGP Identifier: not 0, and another one on each node.
    pub router_id: Ipv4Addr,
    /// Families to speak, at least one.
    pub families: BTreeSet<Family>,
    /// Who opens the connection.
    pub role: Role,
    /// Seconds of silence after which a peer is given up, at most; 0 for never, else 3 or more.
    pub hold_time: u16,
    /// Seconds between signs of life, where a third of what is agreed on is not less.
    pub keepalive: Option<u16>,
    /// How long octets may wait for the peer to read; 8 minutes or twice the hold time where nothing is said (RFC 9687).
    pub send_hold: Option<Duration>,
    /// The longest wait between two attempts to connect, and for an answer.
    pub connect_retry: Duration,
    /// Whether, and for how long, the peer keeps routes while this speaker restarts.
    pub graceful_restart: Option<Restart>,
    /// Whether IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
}

impl Parameters {
    /// What is usual, for what has to be said.
    pub fn new(local_as: u32, remote_as: RemoteAs, router_id: Ipv4Addr) -> Self {
        Self {
            local_as,
            remote_as,
            router_id,
            families: BTreeSet::from(Family::ALL),
            role: Role::Both,
            hold_time: 90,
            keepalive: None,
            send_hold: None,
            connect_retry: Duration::from_secs(30),
            graceful_restart: Some(Restart::default()),
            extended_next_hop: true,
        }
    }
}

/// The AS that a peer has to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RemoteAs {
    /// This one.
    Is(u32),
    /// The own one.
    Internal,
    /// Any but the own one.
    External,
}

impl RemoteAs {
    /// Whether a peer of this AS is the right one.
    pub fn is(self, asn: u32, local: u32) -> bool {
        match self {
            Self::Is(expected) => asn == expected,
            Self::Internal => asn == local,
            Self::External => asn != local && asn != 0,
        }
    }
}

impl fmt::Display for RemoteAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Is(asn) => write!(f, "AS {asn}"),
            Self::Internal => f.write_str("the own AS"),
            Self::External => f.write_str("any AS but the own"),
        }
    }
}

/// Who opens the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// This speaker alone.
    Active,
    /// The peer alone.
    Passive,
    /// Whoever is first.
    #[default]
    Both,
}

impl Role {
    /// Whether this speaker connects.
    pub fn connects(self) -> bool {
        self != Self::Passive
    }

    /// Whether it takes a connection of the peer's.
    pub fn accepts(self) -> bool {
        self != Self::Active
    }
}

/// How routes survive a restart of this speaker (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// Seconds until this speaker is back, at most 4095.
    pub time: u16,
    /// Whether they also survive a NOTIFICATION (RFC 8538).
    pub notification: bool,
}

impl Default for Restart {
    /// A node that dies says nothing, so that its hold time runs out: with `notification` its routes would stay for as long
    /// again as a restart takes.
    fn default() -> Self {
        Self { time: 120, notification: false }
    }
}

/// Where routes lead: addresses of this node that the peer reaches by this connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NextHops {
    /// Of IPv4 routes.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6 routes.
    pub v6: Option<Ipv6Addr>,
    /// The address of the link, where the peer is on it: told beside the one above, or alone where there is none.
    pub link_local: Option<Ipv6Addr>,
}
