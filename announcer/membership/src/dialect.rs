//! Owns in which version of the wire each node is spoken to, and what is taken of one that speaks version 1. Nodes of all
//! versions go together while a cluster is updated, and back (docs/decisions/0022, 0033).
//!
//! Guarantee: of version 1 nothing is looked at, save a hand, that was not made for this run of this node; so nothing that
//! was recorded in another incarnation of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::Message;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::wire::{DatagramError, Tongue, Version};

/// The session of a run that speaks version 2 ends so. For one that does not know of it, a session is a number.
const MARK: u64 = 0x0042_4d32;
const MARKED: u64 = 0xff_ffff;

/// Who was heard in version 2 is heard in version 1 by what only it can say now, until it was silent for so long. A voter
/// that is silent for 1.5 s is replaced, so nobody is there then who could be spoken for.
const SPOKEN_FOR: Duration = Duration::from_secs(2);

/// To whom something was said, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// To another run of this node, or to another node that had its name.
    Elsewhere,
    /// To this run, or there is no telling.
    Here,
    /// To this run, and after all that was heard before: a sign of life.
    Now,
}

/// What the last sign of life of a node showed.
#[derive(Clone, Copy, Debug)]
struct Known {
    at: Moment,
    /// The newest version that it reads.
    reads: Version,
}

#[derive(Debug)]
pub(crate) struct Dialect {
    /// The newest version that this node reads.
    newest: Version,
    suspicion: Duration,
    known: BTreeMap<NodeId, Known>,
}

impl Dialect {
    pub(crate) fn new(newest: Version, suspicion: Duration) -> Self {
        Self { newest, suspicion, known: BTreeMap::new() }
    }

    /// A session out of a random number.
    pub(crate) fn session(&self, random: u64) -> u64 {
        match self.newest {
            Version::First => random,
            Version::Second | Version::Third => random & !MARKED | MARK,
        }
    }

    /// Takes in a sign of life. True if it shows for the first time that its sender knows version 1 only.
    pub(crate) fn hear(
        &mut self,
        now: Moment,
        from: NodeId,
        tongue: Tongue,
        message: &Message,
    ) -> bool {
        if self.newest == Version::First {
            return false;
        }
        let reads = match message {
            Message::Heartbeat(heartbeat) => read_by(heartbeat.session, tongue),
            Message::Ack(_) | Message::Hand(_) => tongue.reads,
        };
        let before = self.known.insert(from, Known { at: now, reads });
        reads == Version::First && before.is_none_or(|known| known.reads > Version::First)
    }

    /// Whether a message is taken.
    pub(crate) fn takes(
        &self,
        now: Moment,
        from: NodeId,
        version: Version,
        said: Said,
    ) -> Result<(), DatagramError> {
        let outdated = self.newest > Version::First && version == Version::First;
        match said {
            Said::Now => Ok(()),
            _ if !outdated => Ok(()),
            _ if self.newer(from).is_some_and(|known| now.since(known.at) < SPOKEN_FOR) => {
                Err(DatagramError::Superseded(from))
            }
            Said::Here => Ok(()),
            Said::Elsewhere => Err(DatagramError::Unasked(from)),
        }
    }

    /// The version in which a heartbeat is sent to a node. Another program may have taken the place of one that is silent. Each
    /// reads the first one.
    pub(crate) fn of_heartbeat(&self, now: Moment, to: NodeId) -> Version {
        let known = self.newer(to).filter(|known| now.since(known.at) <= self.suspicion);
        known.map_or(Version::First, |known| known.reads.min(self.newest))
    }

    /// The version in which a heartbeat of this session is answered that was written so.
    pub(crate) fn of_ack(&self, session: u64, tongue: Tongue) -> Version {
        read_by(session, tongue).min(self.newest)
    }

    /// The version in which a node is handed something: the second one says all of it.
    pub(crate) fn of_hand(&self, to: NodeId) -> Version {
        self.newer(to).map_or(Version::First, |_| Version::Second.min(self.newest))
    }

    /// Whether a node was last heard to read version 3.
    pub(crate) fn reads_third(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| known.reads == Version::Third)
    }

    /// What is known of a node that reads more than version 1.
    fn newer(&self, node: NodeId) -> Option<&Known> {
        self.known.get(&node).filter(|known| known.reads > Version::First)
    }
}

/// What the sender of a heartbeat of this session reads that was written so.
fn read_by(session: u64, tongue: Tongue) -> Version {
    if is_marked(session) { tongue.reads.max(Version::Second) } else { tongue.reads }
}

fn is_marked(session: u64) -> bool {
    session & MARKED == MARK
}
