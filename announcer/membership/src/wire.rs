//! Owns how messages become octets and back. Decoding takes what any peer may send: it refuses, it never panics.
//!
//! All numbers are big-endian. A datagram is `"BM" version kind from to body tag`. The versions differ in the tag alone:
//! HMAC-SHA256 over all before it, in version 2 with the cluster's incarnation in front (`keyring`).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::envelope::{MAGIC, TAG, VERSION_AT, VERSIONS};
use crate::journal::{Delta, Item, put_change};
use crate::message::{
    Ack, Hand, Heartbeat, Message, Refused, Report, Stage, Step, Subject, Verdict,
};
use crate::name::NodeId;
use crate::view::{ListDigest, MOST_PREVIOUS, MOST_VOTERS, View, ViewError, Voters};

/// Of the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    First,
    Second,
}

impl Version {
    fn octet(self) -> u8 {
        match self {
            Self::First => VERSIONS.0,
            Self::Second => VERSIONS.1,
        }
    }

    /// The version that a datagram claims; the first if it claims none, for whoever reads it to say so.
    pub(crate) fn of(datagram: &[u8]) -> Self {
        match datagram.get(VERSION_AT) {
            Some(version) if *version == VERSIONS.1 => Self::Second,
            _ => Self::First,
        }
    }
}

/// Where the number of earlier sets stands: a list fixes the view. Whoever knows no lists finds no view here.
const FIXED: u8 = 0xff;

/// Octets of a message that are not items: a bound over every kind, with the largest view and the tag.
pub(crate) const OVERHEAD: usize =
    20 + 40 + 11 + (MOST_PREVIOUS + 1) * (1 + 8 * MOST_VOTERS) + 40 + 40 + TAG;

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
    #[error("datagram: version {0}, must be 1 or 2")]
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
    /// It is of version 1, and the node speaks version 2.
    #[error("datagram: version 1 of node {0}, which speaks version 2")]
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

/// The octets of a message, without its tag.
pub(crate) fn encode(version: Version, from: NodeId, to: NodeId, message: &Message) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    out.extend(MAGIC);
    out.push(version.octet());
    out.push(match message {
        Message::Heartbeat(_) => 1,
        Message::Ack(_) => 2,
        Message::Hand(_) => 3,
    });
    put_u64s(&[from.bits(), to.bits()], &mut out);
    match message {
        Message::Heartbeat(heartbeat) => put_heartbeat(heartbeat, &mut out),
        Message::Ack(ack) => put_ack(ack, &mut out),
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

/// The message in these octets, its sender and whom it is for.
pub(crate) fn decode(octets: &[u8]) -> Result<(NodeId, NodeId, Message), DatagramError> {
    let mut input = Input(octets);
    if input.array()? != MAGIC {
        return Err(DatagramError::Foreign);
    }
    match input.u8()? {
        1 | 2 => {}
        other => return Err(DatagramError::Version(other)),
    }
    let kind = input.u8()?;
    let (from, to) = (input.node()?, input.node()?);
    let message = match kind {
        1 => Message::Heartbeat(input.heartbeat()?),
        2 => Message::Ack(input.ack()?),
        3 => Message::Hand(input.hand()?),
        value => return Err(DatagramError::Unknown { field: "kind", value }),
    };
    if input.0.is_empty() {
        Ok((from, to, message))
    } else {
        Err(DatagramError::Trailing(input.0.len()))
    }
}

fn put_u64s(values: &[u64], out: &mut Vec<u8>) {
    values.iter().for_each(|value| out.extend(value.to_be_bytes()));
}

fn put_count(count: usize, out: &mut Vec<u8>) {
    out.extend(u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes());
}

fn put_heartbeat(heartbeat: &Heartbeat, out: &mut Vec<u8>) {
    let Heartbeat { session, sequence, cookie, view, active, more, leaving, list, reports } =
        heartbeat;
    put_u64s(&[*session, *sequence, *cookie, *reports], out);
    out.push(u8::from(*active) | u8::from(*more) << 1 | u8::from(*leaving) << 2);
    put_view(view, out);
    put_delta(list, out);
}

fn put_ack(ack: &Ack, out: &mut Vec<u8>) {
    let Ack { session, sequence, cookie, view, active, applied, verdict, reports } = ack;
    put_u64s(&[*session, *sequence, *cookie, *applied], out);
    out.push(u8::from(*active) | u8::from(verdict.is_some()) << 1);
    put_view(view, out);
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

fn put_view(view: &View, out: &mut Vec<u8>) {
    put_u64s(&[view.epoch()], out);
    match view.list() {
        Some(list) => {
            out.push(FIXED);
            put_u64s(&[list.0], out);
        }
        None => out.push(u8::try_from(view.previous().len()).unwrap_or(FIXED - 1)),
    }
    for set in [view.voters()].into_iter().chain(view.previous()) {
        out.push(u8::try_from(set.nodes().len()).unwrap_or(u8::MAX));
        set.nodes().iter().for_each(|node| put_u64s(&[node.bits()], out));
    }
}

fn put_delta<K: Item, V: Item>(delta: &Delta<K, V>, out: &mut Vec<u8>) {
    put_u64s(&[delta.base, delta.upto, delta.latest, delta.digest], out);
    put_count(delta.changes.len(), out);
    delta.changes.iter().for_each(|(key, value)| put_change(key, value.as_ref(), out));
}

/// What is left to read.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DatagramError> {
        let (head, rest) = self.0.split_first_chunk().ok_or(DatagramError::Truncated)?;
        self.0 = rest;
        Ok(*head)
    }

    fn u8(&mut self) -> Result<u8, DatagramError> {
        Ok(self.array::<1>()?[0])
    }

    fn u64(&mut self) -> Result<u64, DatagramError> {
        Ok(u64::from_be_bytes(self.array()?))
    }

    fn node(&mut self) -> Result<NodeId, DatagramError> {
        Ok(NodeId::from_bits(self.u64()?))
    }

    /// A list with its length in front. Its room is not reserved before its items were seen.
    fn list<T>(
        &mut self,
        item: impl Fn(&mut Self) -> Result<T, DatagramError>,
    ) -> Result<Vec<T>, DatagramError> {
        let count = u16::from_be_bytes(self.array()?);
        (0..count).map(|_| item(self)).collect()
    }

    fn address_of(&mut self, family: u8) -> Result<IpAddr, DatagramError> {
        match family {
            4 => Ok(Ipv4Addr::from(self.array::<4>()?).into()),
            6 => Ok(Ipv6Addr::from(self.array::<16>()?).into()),
            value => Err(DatagramError::Unknown { field: "family", value }),
        }
    }

    fn address(&mut self) -> Result<IpAddr, DatagramError> {
        let family = self.u8()?;
        self.address_of(family)
    }

    fn bound(&mut self) -> Result<Option<IpAddr>, DatagramError> {
        match self.u8()? {
            0 => Ok(None),
            family => self.address_of(family).map(Some),
        }
    }

    fn stage(&mut self) -> Result<Stage, DatagramError> {
        match self.u8()? {
            0 => Ok(Stage::Claim),
            1 => Ok(Stage::Held),
            value => Err(DatagramError::Unknown { field: "stage", value }),
        }
    }

    fn subject(&mut self) -> Result<Subject, DatagramError> {
        match self.u8()? {
            0 => self.node().map(Subject::Node),
            family => self.address_of(family).map(Subject::Address),
        }
    }

    fn report(&mut self) -> Result<Report, DatagramError> {
        match self.u8()? {
            0 => Ok(Report::Heard),
            1 => Ok(Report::Promised { node: self.node()?, stage: self.stage()? }),
            value => Err(DatagramError::Unknown { field: "report", value }),
        }
    }

    fn flags<const N: usize>(&mut self) -> Result<[bool; N], DatagramError> {
        let value = self.u8()?;
        if value >> N != 0 {
            return Err(DatagramError::Unknown { field: "flags", value });
        }
        Ok(std::array::from_fn(|bit| value >> bit & 1 != 0))
    }

    fn voters(&mut self) -> Result<Voters, DatagramError> {
        let count = self.u8()?;
        let nodes: Result<Vec<_>, _> = (0..count).map(|_| self.node()).collect();
        Ok(Voters::new(nodes?)?)
    }

    fn view(&mut self) -> Result<View, DatagramError> {
        let (epoch, previous) = (self.u64()?, self.u8()?);
        if previous == FIXED {
            let list = ListDigest(self.u64()?);
            let view = View::of_list(self.voters()?, list);
            return if view.epoch() == epoch { Ok(view) } else { Err(DatagramError::View) };
        }
        let voters = self.voters()?;
        let previous: Result<Vec<_>, _> = (0..previous).map(|_| self.voters()).collect();
        Ok(View::new(epoch, voters, previous?)?)
    }

    fn delta<K, V>(
        &mut self,
        key: impl Fn(&mut Self) -> Result<K, DatagramError>,
        value: impl Fn(&mut Self) -> Result<V, DatagramError>,
    ) -> Result<Delta<K, V>, DatagramError> {
        let (base, upto, latest, digest) = (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let changes = self.list(|input| {
            let key = key(input)?;
            match input.u8()? {
                0 => Ok((key, None)),
                1 => Ok((key, Some(value(input)?))),
                value => Err(DatagramError::Unknown { field: "presence", value }),
            }
        })?;
        Ok(Delta { base, upto, latest, digest, changes })
    }

    fn heartbeat(&mut self) -> Result<Heartbeat, DatagramError> {
        let (session, sequence, cookie, reports) =
            (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let [active, more, leaving] = self.flags()?;
        let view = self.view()?;
        let list = self.delta(Self::address, Self::stage)?;
        Ok(Heartbeat { session, sequence, cookie, view, active, more, leaving, list, reports })
    }

    fn ack(&mut self) -> Result<Ack, DatagramError> {
        let (session, sequence, cookie, applied) =
            (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let [active, judged] = self.flags()?;
        let view = self.view()?;
        let verdict = if judged { Some(self.verdict()?) } else { None };
        let reports = self.delta(Self::subject, Self::report)?;
        Ok(Ack { session, sequence, cookie, view, active, applied, verdict, reports })
    }

    fn verdict(&mut self) -> Result<Verdict, DatagramError> {
        let (after, through) = (self.bound()?, self.bound()?);
        let refused = self.list(|input| {
            let address = input.address()?;
            let micros = u32::from_be_bytes(input.array()?);
            let retry_after = (micros != u32::MAX).then(|| Duration::from_micros(micros.into()));
            Ok(Refused { address, retry_after })
        })?;
        Ok(Verdict { after, through, refused })
    }

    fn hand(&mut self) -> Result<Hand, DatagramError> {
        let step = match self.u8()? {
            0 => Step::Prepare,
            1 => Step::Ready,
            2 => Step::Take,
            value => return Err(DatagramError::Unknown { field: "step", value }),
        };
        Ok(Hand { step, addresses: self.list(Self::address)? })
    }
}
