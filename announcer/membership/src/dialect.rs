//! Owns in which version of the wire each node is spoken to, and what is taken of one that speaks version 1. Nodes of both
//! versions go together while a cluster is updated, and back (docs/decisions/0022).
//!
//! Guarantee: of version 1 nothing is looked at, save a hand, that was not made for this run of this node; so nothing that
//! was recorded in another incarnation of the cluster.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::message::Message;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::wire::{DatagramError, Version};

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
            Version::Second => random & !MARKED | MARK,
        }
    }

    /// Takes in a sign of life. True if it shows for the first time that its sender knows version 1 only.
    pub(crate) fn hear(
        &mut self,
        now: Moment,
        from: NodeId,
        version: Version,
        message: &Message,
    ) -> bool {
        if self.newest == Version::First {
            return false;
        }
        let reads = match message {
            Message::Heartbeat(heartbeat) if is_marked(heartbeat.session) => Version::Second,
            _ => version,
        };
        let before = self.known.insert(from, Known { at: now, reads });
        reads == Version::First && before.is_none_or(|known| known.reads == Version::Second)
    }

    /// Whether a message is taken.
    pub(crate) fn takes(
        &self,
        now: Moment,
        from: NodeId,
        version: Version,
        said: Said,
    ) -> Result<(), DatagramError> {
        let outdated = self.newest == Version::Second && version == Version::First;
        match said {
            Said::Now => Ok(()),
            _ if !outdated => Ok(()),
            _ if self.reads_second(from).is_some_and(|at| now.since(at) < SPOKEN_FOR) => {
                Err(DatagramError::Superseded(from))
            }
            Said::Here => Ok(()),
            Said::Elsewhere => Err(DatagramError::Unasked(from)),
        }
    }

    /// The version in which a message is said to a node.
    pub(crate) fn version(&self, now: Moment, to: NodeId, message: &Message) -> Version {
        let reads = match message {
            Message::Ack(ack) => is_marked(ack.session),
            // Another program may have taken the place of one that is silent. Either reads this.
            Message::Heartbeat(_) => {
                self.reads_second(to).is_some_and(|at| now.since(at) <= self.suspicion)
            }
            Message::Hand(_) => self.reads_second(to).is_some(),
        };
        if reads { self.newest } else { Version::First }
    }

    /// When a node was last heard, if it reads version 2.
    fn reads_second(&self, node: NodeId) -> Option<Moment> {
        let known = self.known.get(&node).filter(|known| known.reads == Version::Second);
        known.map(|known| known.at)
    }
}

fn is_marked(session: u64) -> bool {
    session & MARKED == MARK
}
