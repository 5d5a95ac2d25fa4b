//! What is told of a session.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::connection::{Connection, Stage};
use super::state::Session;
use crate::prefix::{Family, Prefix};

/// How far a session is (RFC 4271 §8.2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// Nothing is to be done, or it was tried lately.
    Idle,
    /// A connection is being opened.
    Connect,
    /// The peer is waited for.
    Active,
    /// The peer is to say who it is.
    OpenSent,
    /// The peer is to say that it agrees.
    OpenConfirm,
    /// Routes are exchanged.
    Established,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What is told of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// How far it is.
    pub state: State,
    /// Since when it has been up, or has not.
    pub since: Instant,
    /// Why it was not up the last time, and when that was.
    pub last: Option<(Instant, Cause)>,
    /// What has been agreed on, while it is up.
    pub agreed: Option<Agreed>,
}

/// What is told of a session that is up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The peer's AS.
    pub peer_as: u32,
    /// Its BGP Identifier.
    pub peer_id: Ipv4Addr,
    /// After which silence it is given up.
    pub hold: Option<Duration>,
    /// How many routes it has been told, by the families that both speak and of which routes lead somewhere.
    pub told: BTreeMap<Family, usize>,
    /// Families that both speak, and of which no route is announced for want of a next hop.
    pub without_next_hop: BTreeSet<Family>,
    /// Families that are wanted and that the peer does not speak.
    pub refused: BTreeSet<Family>,
    /// Families of which the peer has sent everything.
    pub ended: BTreeSet<Family>,
    /// Seconds for which the peer says to keep routes when it restarts, if it keeps any; nothing where it knows no restarts.
    pub peer_restart: Option<u16>,
}

impl Session {
    /// What is told of it.
    pub fn status(&self) -> Status {
        let best = self.links.values().max_by_key(|connection| connection.stage);
        let state = match best.map(|connection| connection.stage) {
            Some(Stage::Established) => State::Established,
            Some(Stage::OpenConfirm) => State::OpenConfirm,
            Some(Stage::OpenSent) => State::OpenSent,
            None if self.connecting.is_some() => State::Connect,
            None if self.running && self.parameters.role.accepts() => State::Active,
            None => State::Idle,
        };
        let up = best.filter(|connection| connection.stage == Stage::Established);
        Status {
            state,
            since: self.changed,
            last: self.last.clone(),
            agreed: up.and_then(|connection| self.agreed(connection)),
        }
    }

    fn agreed(&self, connection: &Connection) -> Option<Agreed> {
        let terms = connection.terms.as_ref()?;
        Some(Agreed {
            peer_as: terms.peer_as,
            peer_id: terms.peer_id,
            hold: terms.hold,
            told: terms.announced.iter().map(|family| (*family, self.rib.told(*family))).collect(),
            without_next_hop: terms.families.difference(&terms.announced).copied().collect(),
            refused: self.parameters.families.difference(&terms.families).copied().collect(),
            ended: self.ended_families.clone(),
            peer_restart: terms.peer_restart.as_ref().map(|restart| restart.time),
        })
    }

    /// Whether the peer has been told of a route as it is wanted now.
    pub fn knows(&self, prefix: Prefix) -> bool {
        self.rib.knows(prefix)
    }
}
