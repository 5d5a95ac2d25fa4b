//! Routes: as many in a message as fit, and of what a peer sends the end of its table alone.

use std::net::{Ipv4Addr, Ipv6Addr};

use super::frame::{HEADER, LONGEST, UNICAST, UPDATE, message};
use super::input::Input;
use super::notification::Notification;
use super::open::AS_TRANS;
use crate::attributes::{Attributes, MOST_COMMUNITIES, MOST_PREPENDS};
use crate::prefix::{Family, Prefix};

const ORIGIN: u8 = 1;
const AS_PATH: u8 = 2;
const NEXT_HOP: u8 = 3;
const MULTI_EXIT_DISC: u8 = 4;
const LOCAL_PREF: u8 = 5;
const COMMUNITIES: u8 = 8;
const MP_REACH_NLRI: u8 = 14;
const MP_UNREACH_NLRI: u8 = 15;
const AS4_PATH: u8 = 17;
const LARGE_COMMUNITIES: u8 = 32;

const WELL_KNOWN: u8 = 0x40;
const OPTIONAL: u8 = 0x80;
const TRANSITIVE: u8 = 0xc0;
/// The length has two octets.
const LONG: u8 = 0x10;

/// A segment that is a sequence of AS numbers.
const AS_SEQUENCE: u8 = 2;

const DEFAULT_LOCAL_PREF: u32 = 100;

/// Octets of an UPDATE without withdrawn routes, attributes and prefixes.
const EMPTY: usize = HEADER + 4;

/// What a session goes by of a peer's UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Update {
    /// The family of which all routes have been sent (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
}

/// Where what is lost in it would be is not known any more: that alone ends a session. Whatever else is malformed costs
/// the routes that it is about (RFC 7606), and none is taken.
pub(super) fn decode(mut body: Input<'_>) -> Result<Update, Notification> {
    let mut parts = || Some((body.counted(true)?, body.counted(true)?));
    let (withdrawn, attributes) = parts().ok_or_else(|| Notification::new(3, 1, &[]))?;
    if !withdrawn.is_empty() || !body.is_empty() {
        return Ok(Update { end_of_rib: None });
    }
    let end_of_rib = if attributes.is_empty() { Some(Family::V4) } else { only_an_end(attributes) };
    Ok(Update { end_of_rib })
}

/// The family of an MP_UNREACH_NLRI without routes that nothing follows.
fn only_an_end(mut attributes: Input<'_>) -> Option<Family> {
    let (flags, kind) = (attributes.u8()?, attributes.u8()?);
    let mut value = attributes.counted(flags & LONG != 0)?;
    let (afi, safi) = (value.u16()?, value.u8()?);
    let is_end =
        kind == MP_UNREACH_NLRI && safi == UNICAST && value.is_empty() && attributes.is_empty();
    Family::from_afi(afi).filter(|_| is_end)
}

/// What a session adds to the attributes of each route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    /// The own AS.
    pub(crate) asn: u32,
    /// Whether the peer is of another AS.
    pub(crate) external: bool,
    /// Whether the peer reads AS numbers of four octets.
    pub(crate) four_octets: bool,
    /// The next hop of IPv4 routes.
    pub(crate) v4: Option<Ipv4Addr>,
    /// The next hop of IPv6 routes, and of those of IPv4 without one of their own: one address, or the global one and
    /// the one of the link (RFC 2545 §3).
    pub(crate) v6: Vec<Ipv6Addr>,
    /// Whether IPv4 routes may have that one (RFC 8950).
    pub(crate) extended: bool,
}

impl Path {
    /// Whether there is a next hop for routes of a family.
    pub(crate) fn leads(&self, family: Family) -> bool {
        match family {
            Family::V4 => self.v4.is_some() || (self.extended && !self.v6.is_empty()),
            Family::V6 => !self.v6.is_empty(),
        }
    }

    /// The next hop where prefixes stand at the end of the message, as before RFC 4760.
    fn plain(&self, family: Family) -> Option<Ipv4Addr> {
        self.v4.filter(|_| family == Family::V4)
    }

    fn put_attributes(
        &self,
        out: &mut Vec<u8>,
        attributes: &Attributes,
        next_hop: Option<Ipv4Addr>,
    ) {
        put(out, WELL_KNOWN, ORIGIN, &[0]);
        let times = if self.external { 1 + attributes.prepend.min(MOST_PREPENDS) } else { 0 };
        let path = |asn: &[u8]| match times {
            0 => vec![],
            times => [&[AS_SEQUENCE, times][..], &asn.repeat(times.into())].concat(),
        };
        let short = u16::try_from(self.asn);
        if self.four_octets {
            put(out, WELL_KNOWN, AS_PATH, &path(&self.asn.to_be_bytes()));
        } else {
            put(out, WELL_KNOWN, AS_PATH, &path(&short.unwrap_or(AS_TRANS).to_be_bytes()));
        }
        if let Some(next_hop) = next_hop {
            put(out, WELL_KNOWN, NEXT_HOP, &next_hop.octets());
        }
        if let Some(med) = attributes.med {
            put(out, OPTIONAL, MULTI_EXIT_DISC, &med.to_be_bytes());
        }
        if !self.external {
            let preference = attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
            put(out, WELL_KNOWN, LOCAL_PREF, &preference.to_be_bytes());
        }
        let communities = attributes.sent().into_iter();
        let communities: Vec<u8> =
            communities.flat_map(|community| community.0.to_be_bytes()).collect();
        if !communities.is_empty() {
            put(out, TRANSITIVE, COMMUNITIES, &communities);
        }
        if !self.four_octets && short.is_err() && times > 0 {
            put(out, TRANSITIVE, AS4_PATH, &path(&self.asn.to_be_bytes()));
        }
        let large = attributes.large_communities.iter().take(MOST_COMMUNITIES);
        let large: Vec<u8> = large
            .flat_map(|large| [large.0, large.1, large.2])
            .flat_map(u32::to_be_bytes)
            .collect();
        if !large.is_empty() {
            put(out, TRANSITIVE, LARGE_COMMUNITIES, &large);
        }
    }
}

fn put(out: &mut Vec<u8>, flags: u8, kind: u8, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.extend([flags, kind, length]),
        Err(_) => put_long(out, flags, kind, value.len()),
    }
    out.extend(value);
}

fn put_long(out: &mut Vec<u8>, flags: u8, kind: u8, length: usize) {
    out.extend([flags | LONG, kind]);
    put_length(out, length);
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend(u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes());
}

/// How many of these prefixes fit into so many octets.
fn fitting(prefixes: &[Prefix], mut room: usize) -> usize {
    let fits = |prefix: &&Prefix| match room.checked_sub(prefix.octets()) {
        Some(left) => {
            room = left;
            true
        }
        None => false,
    };
    prefixes.iter().take_while(fits).count()
}

/// Appends an UPDATE that announces as many of `prefixes`, all of one family, as fit into it; tells how many that are.
pub(crate) fn announce(
    out: &mut Vec<u8>,
    path: &Path,
    attributes: &Attributes,
    family: Family,
    prefixes: &[Prefix],
) -> usize {
    let plain = path.plain(family);
    let mut common = Vec::new();
    path.put_attributes(&mut common, attributes, plain);
    if plain.is_some() {
        let count = fitting(prefixes, LONGEST - EMPTY - common.len());
        message(out, UPDATE, |out| {
            put_length(out, 0);
            put_length(out, common.len());
            out.extend(&common);
            prefixes[..count].iter().for_each(|prefix| prefix.put(out));
        });
        return count;
    }
    let mut reach = family.afi().to_be_bytes().to_vec();
    reach.extend([UNICAST, u8::try_from(16 * path.v6.len()).unwrap_or(u8::MAX)]);
    path.v6.iter().for_each(|next_hop| reach.extend(next_hop.octets()));
    reach.push(0);
    let count = fitting(prefixes, LONGEST - EMPTY - 4 - reach.len() - common.len());
    prefixes[..count].iter().for_each(|prefix| prefix.put(&mut reach));
    message(out, UPDATE, |out| {
        put_length(out, 0);
        put_length(out, 4 + reach.len() + common.len());
        // The first of all (RFC 7606 §5.1): what is malformed behind it costs these routes alone.
        put_long(out, OPTIONAL, MP_REACH_NLRI, reach.len());
        out.extend(&reach);
        out.extend(&common);
    });
    count
}

/// Appends an UPDATE that withdraws as many of `prefixes`, all of one family, as fit into it; tells how many that are.
pub(crate) fn withdraw(
    out: &mut Vec<u8>,
    path: &Path,
    family: Family,
    prefixes: &[Prefix],
) -> usize {
    if path.plain(family).is_some() {
        let count = fitting(prefixes, LONGEST - EMPTY);
        let mut withdrawn = Vec::new();
        prefixes[..count].iter().for_each(|prefix| prefix.put(&mut withdrawn));
        message(out, UPDATE, |out| {
            put_length(out, withdrawn.len());
            out.extend(&withdrawn);
            put_length(out, 0);
        });
        return count;
    }
    let count = fitting(prefixes, LONGEST - EMPTY - 7);
    put_unreachable(out, family, &prefixes[..count]);
    count
}

/// Appends the mark behind all routes of a family (RFC 4724 §2).
pub(crate) fn end_of_rib(out: &mut Vec<u8>, family: Family) {
    match family {
        Family::V4 => message(out, UPDATE, |out| out.extend([0; 4])),
        Family::V6 => put_unreachable(out, family, &[]),
    }
}

fn put_unreachable(out: &mut Vec<u8>, family: Family, prefixes: &[Prefix]) {
    let mut value = family.afi().to_be_bytes().to_vec();
    value.push(UNICAST);
    prefixes.iter().for_each(|prefix| prefix.put(&mut value));
    message(out, UPDATE, |out| {
        put_length(out, 0);
        put_length(out, 4 + value.len());
        put_long(out, OPTIONAL, MP_UNREACH_NLRI, value.len());
        out.extend(&value);
    });
}

#[cfg(test)]
mod tests;
