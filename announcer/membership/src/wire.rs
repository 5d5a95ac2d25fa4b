//! Owns how messages become octets; how these are read is in `decode`.
//!
//! All numbers are big-endian. A datagram is `"BM" version kind from to body tag`. The tag is HMAC-SHA256 over all before it, from
//! version 2 on with the cluster's incarnation in front (`keyring`). Versions 1 and 2 differ in nothing else. In version 3
//! leases have a length: heartbeats and acks say it, and a view its bounds.
//!
//! Who reads version 3 shows it in the others: it names the last of the voters twice. They are a set, so whoever knows no
//! version 3 reads the same.

use std::net::IpAddr;
use std::time::Duration;

use crate::bounds::BoundsError;
use crate::envelope::{MAGIC, TAG, VERSION_AT};
use crate::journal::{Delta, Item, put_change};
use crate::message::{Ack, Condition, Heartbeat, Message, Refused, Step};
use crate::name::NodeId;
use crate::view::{MOST_PREVIOUS, MOST_VOTERS, View, ViewError, Voters};

/// Of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Version {
    First,
    Second,
    Third,
}

impl Version {
    fn octet(self) -> u8 {
        match self {
            Self::First => 1,
            Self::Second => 2,
            Self::Third => 3,
        }
    }

    /// The version that a datagram claims; the first if it claims none, for whoever reads it to say so.
    pub(crate) fn of(datagram: &[u8]) -> Self {
        match datagram.get(VERSION_AT) {
            Some(2) => Self::Second,
            Some(3) => Self::Third,
            _ => Self::First,
        }
    }
}

/// Where the number of earlier sets stands: a list fixes the view. Whoever knows no lists finds no view here.
pub(crate) const FIXED: u8 = 0xff;

/// Octets of a message that are not items: a bound over every kind, with the largest view and the tag.
pub(crate) const OVERHEAD: usize =
    20 + 40 + 19 + (MOST_PREVIOUS + 1) * (1 + 8 * MOST_VOTERS) + 40 + 40 + TAG;

/// Why a datagram was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatagramError {
    /// It ends in the middle.
    #[error("datagram: truncated")]
    Truncated,
    /// It is longer than its contents.
    #[error("datagram: {0} octets after the end of the message, must be 0")]
    Trailing(usize),
    /// It is of something else.
    #[error("datagram: not of Berth's membership")]
    Foreign,
    /// It was made by another version.
    #[error("datagram: version {0}, must be 1, 2 or 3")]
    Version(u8),
    /// A field has no such value.
    #[error("datagram: {field} {value}, which is unknown")]
    Unknown {
        /// The field.
        field: &'static str,
        /// What stood in it.
        value: u8,
    },
    /// The view is none.
    #[error("datagram: view out of bounds")]
    View,
    /// None of our keys made the tag.
    #[error("datagram: not authentic")]
    Forged,
    /// It is for another node.
    #[error("datagram: for node {0}")]
    Misdirected(NodeId),
    /// It is of a node with another list of members, or with a list where this node has none, or the other way round.
    #[error("datagram: node {0} has another list of members: must be the same on all")]
    OtherMembers(NodeId),
    /// It is of version 1, and the node speaks a later one.
    #[error("datagram: version 1 of node {0}, which speaks a later one")]
    Superseded(NodeId),
    /// It is of version 1, which does not say for which incarnation of the cluster, and answers nothing that this run asked.
    #[error("datagram: version 1 of node {0}, made for another run of this node")]
    Unasked(NodeId),
}

impl From<ViewError> for DatagramError {
    fn from(_: ViewError) -> Self {
        Self::View
    }
}

impl From<BoundsError> for DatagramError {
    fn from(_: BoundsError) -> Self {
        Self::View
    }
}

/// In what a message is written, and what its sender reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tongue {
    pub(crate) version: Version,
    pub(crate) reads: Version,
}

impl Tongue {
    /// Whether the message has to show what the version does not: it says less than its sender could.
    pub(crate) fn is_marked(self) -> bool {
        self.reads == Version::Third && self.version < Version::Third
    }
}

/// The octets of a message, without its tag.
pub(crate) fn encode(tongue: Tongue, from: NodeId, to: NodeId, message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend(MAGIC);
    out.push(tongue.version.octet());
    out.push(match message {
        Message::Heartbeat(_) => 1,
        Message::Ack(_) => 2,
        Message::Hand(_) => 3,
    });
    put_u64s(&[from.bits(), to.bits()], &mut out);
    match message {
        Message::Heartbeat(heartbeat) => put_heartbeat(tongue, heartbeat, &mut out),
        Message::Ack(ack) => put_ack(tongue, ack, &mut out),
        Message::Hand(hand) => {
            out.push(match hand.step {
                Step::Prepare => 0,
                Step::Ready => 1,
                Step::Take => 2,
            });
            put_count(hand.addresses.len(), &mut out);
            hand.addresses.iter().for_each(|address| address.put(&mut out));
        }
    }
    out
}

fn put_u64s(values: &[u64], out: &mut Vec<u8>) {
    values.iter().for_each(|value| out.extend(value.to_be_bytes()));
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

/// In microseconds; 0 is none.
fn put_lease(lease: Option<Duration>, out: &mut Vec<u8>) {
    let micros = lease.map_or(0, |lease| lease.as_micros());
    out.extend(u32::try_from(micros).unwrap_or(u32::MAX).to_be_bytes());
}

fn put_heartbeat(tongue: Tongue, heartbeat: &Heartbeat, out: &mut Vec<u8>) {
    let Heartbeat { session, sequence, cookie, view, active, more, condition, list, reports } =
        heartbeat;
    let Condition { leaving, deaf, over, lease } = *condition;
    put_u64s(&[*session, *sequence, *cookie, *reports], out);
    let flags = u8::from(*active) | u8::from(*more) << 1 | u8::from(leaving) << 2;
    if tongue.version == Version::Third {
        out.push(flags | u8::from(deaf) << 3 | u8::from(over) << 4);
        put_lease(lease, out);
    } else {
        out.push(flags);
    }
    put_view(tongue, view, out);
    put_delta(list, out);
}

fn put_ack(tongue: Tongue, ack: &Ack, out: &mut Vec<u8>) {
    let Ack { session, sequence, cookie, view, active, applied, lease, verdict, reports } = ack;
    put_u64s(&[*session, *sequence, *cookie, *applied], out);
    out.push(u8::from(*active) | u8::from(verdict.is_some()) << 1);
    if tongue.version == Version::Third {
        put_lease(*lease, out);
    }
    put_view(tongue, view, out);
    if let Some(verdict) = verdict {
        put_bound(verdict.after, out);
        put_bound(verdict.through, out);
        put_count(verdict.refused.len(), out);
        for Refused { address, retry_after } in &verdict.refused {
            address.put(out);
            let micros = retry_after.map_or(u128::from(u32::MAX), |after| after.as_micros());
            out.extend(u32::try_from(micros).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
    put_delta(reports, out);
}

fn put_bound(bound: Option<IpAddr>, out: &mut Vec<u8>) {
    match bound {
        None => out.push(0),
        Some(address) => address.put(out),
    }
}

fn put_view(tongue: Tongue, view: &View, out: &mut Vec<u8>) {
    put_u64s(&[view.epoch()], out);
    if tongue.version == Version::Third {
        put_lease(Some(view.bounds().floor()), out);
        put_lease(Some(view.bounds().ceiling()), out);
    }
    match view.list() {
        Some(list) => {
            out.push(FIXED);
            put_u64s(&[list.0], out);
        }
        None => out.push(u8::try_from(view.previous().len()).unwrap_or(FIXED - 1)),
    }
    put_voters(view.voters(), tongue.is_marked(), out);
    view.previous().iter().for_each(|set| put_voters(set, false, out));
}

fn put_voters(set: &Voters, is_marked: bool, out: &mut Vec<u8>) {
    let again = set.nodes().last().filter(|_| is_marked);
    let nodes = set.nodes().iter().chain(again);
    out.push(u8::try_from(nodes.clone().count()).unwrap_or(u8::MAX));
    nodes.for_each(|node| put_u64s(&[node.bits()], out));
}

fn put_delta<K: Item, V: Item>(delta: &Delta<K, V>, out: &mut Vec<u8>) {
    put_u64s(&[delta.base, delta.upto, delta.latest, delta.digest], out);
    put_count(delta.changes.len(), out);
    delta.changes.iter().for_each(|(key, value)| put_change(key, value.as_ref(), out));
}
