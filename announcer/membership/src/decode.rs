//! Owns how octets become messages. It takes what any peer may send: it refuses, it never panics. How they are written is in
//! `wire`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use crate::bounds::Bounds;
use crate::envelope::{MAGIC, VERSIONS};
use crate::journal::Delta;
use crate::message::{
    Ack, Condition, Hand, Heartbeat, Message, Refused, Report, Stage, Step, Subject, Verdict,
};
use crate::name::NodeId;
use crate::view::{ListDigest, View, Voters};
use crate::wire::{DatagramError, FIXED, Tongue, Version};

/// What a datagram says, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) from: NodeId,
    pub(crate) to: NodeId,
    pub(crate) tongue: Tongue,
    pub(crate) message: Message,
}

/// What these octets say.
pub(crate) fn decode(octets: &[u8]) -> Result<Opened, DatagramError> {
    let version = Version::of(octets);
    let mut input = Input { octets, version, reads: version };
    if input.array()? != MAGIC {
        return Err(DatagramError::Foreign);
    }
    let said = input.u8()?;
    if !(VERSIONS.0..=VERSIONS.1).contains(&said) {
        return Err(DatagramError::Version(said));
    }
    let kind = input.u8()?;
    let (from, to) = (input.node()?, input.node()?);
    let message = match kind {
        1 => Message::Heartbeat(input.heartbeat()?),
        2 => Message::Ack(input.ack()?),
        3 => Message::Hand(input.hand()?),
        value => return Err(DatagramError::Unknown { field: "kind", value }),
    };
    if !input.octets.is_empty() {
        return Err(DatagramError::Trailing(input.octets.len()));
    }
    let tongue = Tongue { version, reads: input.reads };
    Ok(Opened { from, to, tongue, message })
}

/// What is left to read, in which version, and what its sender reads as far as that has shown.
struct Input<'a> {
    octets: &'a [u8],
    version: Version,
    reads: Version,
}

impl Input<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DatagramError> {
        let (head, rest) = self.octets.split_first_chunk().ok_or(DatagramError::Truncated)?;
        self.octets = rest;
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

    fn lease(&mut self) -> Result<Option<Duration>, DatagramError> {
        let micros = u32::from_be_bytes(self.array()?);
        Ok((micros != 0).then(|| Duration::from_micros(micros.into())))
    }

    fn bounds(&mut self) -> Result<Bounds, DatagramError> {
        if self.version < Version::Third {
            return Ok(Bounds::default());
        }
        let (floor, ceiling) = (self.lease()?, self.lease()?);
        Ok(Bounds::new(floor.unwrap_or_default(), ceiling.unwrap_or_default())?)
    }

    /// The set, and whether it names a node twice.
    fn voters(&mut self) -> Result<(Voters, bool), DatagramError> {
        let count = self.u8()?;
        let nodes: Result<Vec<_>, _> = (0..count).map(|_| self.node()).collect();
        let voters = Voters::new(nodes?)?;
        let is_marked = voters.nodes().len() < usize::from(count);
        Ok((voters, is_marked))
    }

    /// Those who vote now: whoever reads version 3 shows it there.
    fn current(&mut self) -> Result<Voters, DatagramError> {
        let (voters, is_marked) = self.voters()?;
        if is_marked {
            self.reads = Version::Third;
        }
        Ok(voters)
    }

    fn view(&mut self) -> Result<View, DatagramError> {
        let (epoch, bounds, previous) = (self.u64()?, self.bounds()?, self.u8()?);
        if previous == FIXED {
            let list = ListDigest(self.u64()?);
            let view = View::of_list(self.current()?, list);
            return if view.epoch() == epoch { Ok(view) } else { Err(DatagramError::View) };
        }
        let voters = self.current()?;
        let previous: Result<Vec<_>, _> =
            (0..previous).map(|_| self.voters().map(|(voters, _)| voters)).collect();
        Ok(View::new(epoch, voters, previous?)?.within(bounds))
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
        let [active, more, leaving, deaf, over] = match self.version {
            Version::Third => self.flags()?,
            _ => {
                self.flags().map(|[active, more, leaving]| [active, more, leaving, false, false])?
            }
        };
        let lease = if self.version == Version::Third { self.lease()? } else { None };
        let condition = Condition { leaving, deaf, over, lease };
        let view = self.view()?;
        let list = self.delta(Self::address, Self::stage)?;
        Ok(Heartbeat { session, sequence, cookie, view, active, more, condition, list, reports })
    }

    fn ack(&mut self) -> Result<Ack, DatagramError> {
        let (session, sequence, cookie, applied) =
            (self.u64()?, self.u64()?, self.u64()?, self.u64()?);
        let [active, judged] = self.flags()?;
        let lease = if self.version == Version::Third { self.lease()? } else { None };
        let view = self.view()?;
        let verdict = if judged { Some(self.verdict()?) } else { None };
        let reports = self.delta(Self::subject, Self::report)?;
        Ok(Ack { session, sequence, cookie, view, active, applied, lease, verdict, reports })
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
