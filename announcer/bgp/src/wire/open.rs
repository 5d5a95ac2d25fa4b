//! Who a speaker is and what it can (RFC 4271 §4.2, RFC 5492).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::frame::{OPEN, UNICAST, message};
use super::input::Input;
use super::notification::Notification;
use crate::prefix::Family;

const VERSION: u8 = 4;

/// The AS of those whose AS does not fit into 16 bits (RFC 6793).
pub(super) const AS_TRANS: u16 = 23456;

/// The one optional parameter that is used.
const CAPABILITIES: u8 = 2;
/// Lengths of two octets follow (RFC 9072).
const EXTENDED: u8 = 255;

const MULTIPROTOCOL: u8 = 1;
const ROUTE_REFRESH: u8 = 2;
const EXTENDED_NEXT_HOP: u8 = 5;
const GRACEFUL_RESTART: u8 = 64;
const FOUR_OCTET_AS: u8 = 65;

/// Flags of graceful restart: R, that it has restarted, and N, that NOTIFICATIONs are survived (RFC 8538 §2).
const RESTARTING: u16 = 0x8000;
const SURVIVES: u16 = 0x4000;
const LONGEST_RESTART: u16 = 0x0fff;
/// Flag of a family there: it was forwarded all the time.
const FORWARDED: u8 = 0x80;

/// Who a speaker is and what it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its AS.
    pub asn: u32,
    /// Seconds of silence after which it gives the session up; 0 for never.
    pub hold_time: u16,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// What it can.
    pub capabilities: Capabilities,
}

/// What a speaker can, of what a session here goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Families of unicast that it speaks; none where it does not say, which means IPv4 (RFC 4760 §8).
    pub families: Option<BTreeSet<Family>>,
    /// Whether AS numbers have four octets.
    pub four_octet_as: bool,
    /// Whether it sends its routes again when asked to.
    pub route_refresh: bool,
    /// Whether IPv4 routes may have an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// What it does about routes when it, or who it speaks to, restarts.
    pub graceful_restart: Option<GracefulRestart>,
}

/// What a speaker says of restarts (RFC 4724 §3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// It has restarted.
    pub restarting: bool,
    /// Routes are kept after a NOTIFICATION, too (RFC 8538).
    pub notification: bool,
    /// Seconds until it is back, at most 4095.
    pub time: u16,
    /// Families of which routes are kept when it restarts, and whether it forwarded all the time.
    pub families: BTreeMap<Family, bool>,
}

impl Open {
    /// Appends it as a message.
    pub fn put(&self, out: &mut Vec<u8>) {
        let mut capabilities = Vec::new();
        self.put_capabilities(&mut capabilities);
        message(out, OPEN, |out| {
            out.push(VERSION);
            out.extend(u16::try_from(self.asn).unwrap_or(AS_TRANS).to_be_bytes());
            out.extend(self.hold_time.to_be_bytes());
            out.extend(self.router_id.octets());
            // All that can be said takes 50 octets.
            let length = u8::try_from(capabilities.len()).unwrap_or(u8::MAX);
            out.extend([length.saturating_add(2), CAPABILITIES, length]);
            out.extend(&capabilities);
        });
    }

    fn put_capabilities(&self, out: &mut Vec<u8>) {
        let can = &self.capabilities;
        for family in can.families.iter().flatten() {
            put(out, MULTIPROTOCOL, &[0, family.afi().to_be_bytes()[1], 0, UNICAST]);
        }
        if can.route_refresh {
            put(out, ROUTE_REFRESH, &[]);
        }
        if can.extended_next_hop {
            put(out, EXTENDED_NEXT_HOP, &[0, 1, 0, UNICAST, 0, 2]);
        }
        if let Some(restart) = &can.graceful_restart {
            put(out, GRACEFUL_RESTART, &restart.octets());
        }
        if can.four_octet_as {
            put(out, FOUR_OCTET_AS, &self.asn.to_be_bytes());
        }
    }

    /// The capabilities for these families alone: data of "Unsupported Capability" (RFC 5492 §5).
    pub(crate) fn wanted(families: &BTreeSet<Family>) -> Vec<u8> {
        let mut out = Vec::new();
        for family in families {
            put(&mut out, MULTIPROTOCOL, &[0, family.afi().to_be_bytes()[1], 0, UNICAST]);
        }
        out
    }
}

impl GracefulRestart {
    fn octets(&self) -> Vec<u8> {
        let flag = |set, bit| if set { bit } else { 0 };
        let word = flag(self.restarting, RESTARTING)
            | flag(self.notification, SURVIVES)
            | self.time.min(LONGEST_RESTART);
        let mut out = word.to_be_bytes().to_vec();
        for (family, forwarded) in &self.families {
            out.extend(family.afi().to_be_bytes());
            out.extend([UNICAST, if *forwarded { FORWARDED } else { 0 }]);
        }
        out
    }

    fn read(mut value: Input<'_>) -> Option<Self> {
        let word = value.u16()?;
        let mut restart = Self {
            restarting: word & RESTARTING != 0,
            notification: word & SURVIVES != 0,
            time: word & LONGEST_RESTART,
            families: BTreeMap::new(),
        };
        while !value.is_empty() {
            let (afi, safi, flags) = (value.u16()?, value.u8()?, value.u8()?);
            if let (Some(family), UNICAST) = (Family::from_afi(afi), safi) {
                restart.families.insert(family, flags & FORWARDED != 0);
            }
        }
        Some(restart)
    }
}

fn put(out: &mut Vec<u8>, code: u8, value: &[u8]) {
    out.extend([code, u8::try_from(value.len()).unwrap_or(u8::MAX)]);
    out.extend(value);
}

/// Malformed, and nothing that says more (RFC 4271 §6.2).
fn malformed() -> Notification {
    Notification::new(2, 0, &[])
}

pub(super) fn decode(mut body: Input<'_>) -> Result<Open, Notification> {
    if body.u8() != Some(VERSION) {
        return Err(Notification::new(2, 1, &[0, VERSION]));
    }
    let mut fixed = || Some((body.u16()?, body.u16()?, body.u32()?, body.u8()?));
    let (asn, hold_time, router_id, length) = fixed().ok_or_else(malformed)?;
    let long = length == EXTENDED && body.rest().first() == Some(&EXTENDED);
    let mut parameters = if long {
        body.u8().and_then(|_| body.counted(true)).ok_or_else(malformed)?
    } else {
        body.take(length.into()).ok_or_else(malformed)?
    };
    if !body.is_empty() {
        return Err(malformed());
    }
    let mut capabilities = Capabilities::default();
    let mut four_octets = None;
    while !parameters.is_empty() {
        let kind = parameters.u8().ok_or_else(malformed)?;
        let mut value = parameters.counted(long).ok_or_else(malformed)?;
        if kind != CAPABILITIES {
            return Err(Notification::new(2, 4, &[]));
        }
        while !value.is_empty() {
            let mut next = || Some((value.u8()?, value.counted(false)?));
            let (code, value) = next().ok_or_else(malformed)?;
            capability(&mut capabilities, &mut four_octets, code, value).ok_or_else(malformed)?;
        }
    }
    let asn = four_octets.unwrap_or_else(|| asn.into());
    Ok(Open { asn, hold_time, router_id: Ipv4Addr::from_bits(router_id), capabilities })
}

/// Notes a capability; what is not known is passed over (RFC 5492 §3), of what comes twice the last counts.
fn capability(
    can: &mut Capabilities,
    asn: &mut Option<u32>,
    code: u8,
    mut value: Input<'_>,
) -> Option<()> {
    match code {
        MULTIPROTOCOL => {
            let (afi, _, safi) = (value.u16()?, value.u8()?, value.u8()?);
            let families = can.families.get_or_insert_default();
            families.extend(Family::from_afi(afi).filter(|_| safi == UNICAST));
        }
        ROUTE_REFRESH => can.route_refresh = true,
        EXTENDED_NEXT_HOP => {
            while !value.is_empty() {
                let (afi, safi, next_hop) = (value.u16()?, value.u16()?, value.u16()?);
                can.extended_next_hop |= (afi, safi, next_hop) == (1, UNICAST.into(), 2);
            }
        }
        GRACEFUL_RESTART => can.graceful_restart = Some(GracefulRestart::read(value)?),
        FOUR_OCTET_AS => {
            *asn = Some(value.u32()?);
            can.four_octet_as = true;
        }
        _ => {}
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::super::{Message, decode as decode_message};
    use super::*;

    fn full() -> Open {
        let families = BTreeSet::from(Family::ALL);
        let restart = GracefulRestart {
            restarting: true,
            notification: true,
            time: 120,
            families: BTreeMap::from([(Family::V4, true), (Family::V6, false)]),
        };
        Open {
            asn: 4_200_000_001,
            hold_time: 90,
            router_id: Ipv4Addr::new(192, 0, 2, 1),
            capabilities: Capabilities {
                families: Some(families),
                four_octet_as: true,
                route_refresh: true,
                extended_next_hop: true,
                graceful_restart: Some(restart),
            },
        }
    }

    fn octets(open: &Open) -> Vec<u8> {
        let mut out = Vec::new();
        open.put(&mut out);
        out
    }

    fn read(octets: &[u8]) -> Result<Open, (u8, u8)> {
        match decode_message(octets) {
            Ok(Some((Message::Open(open), _))) => Ok(open),
            Err(notification) => Err((notification.code, notification.subcode)),
            other => panic!("{other:?}"),
        }
    }

    /// An OPEN with these optional parameters, their length in front.
    fn with(parameters: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, OPEN, |out| {
            out.extend([4, 0xfd, 0xe8, 0, 90, 192, 0, 2, 1]);
            out.extend(parameters);
        });
        out
    }

    #[test]
    fn what_a_speaker_says_of_itself_is_read_as_it_was_written() {
        assert_eq!(read(&octets(&full())), Ok(full()));
        let plain = Open { asn: 65000, capabilities: Capabilities::default(), ..full() };
        assert_eq!(read(&octets(&plain)), Ok(plain));
    }

    #[test]
    fn an_as_that_does_not_fit_is_the_one_for_that_in_the_old_field() {
        assert_eq!(octets(&full())[20..22], AS_TRANS.to_be_bytes());
    }

    #[test]
    fn capabilities_come_in_one_parameter_or_in_several_and_with_long_lengths() {
        let short = with(&[12, 2, 6, 1, 4, 0, 1, 0, 1, 2, 2, 2, 0]);
        let long = with(&[255, 255, 0, 15, 2, 0, 6, 1, 4, 0, 1, 0, 1, 2, 0, 3, 2, 0, 99]);
        assert_eq!(read(&long), Err((2, 0)), "a capability without its length");
        let long = with(&[255, 255, 0, 14, 2, 0, 6, 1, 4, 0, 1, 0, 1, 2, 0, 2, 2, 0]);
        assert_eq!(read(&short), read(&long));
        let open = read(&short).unwrap();
        assert_eq!((open.asn, open.hold_time), (65000, 90));
        assert_eq!(open.capabilities.families, Some(BTreeSet::from([Family::V4])));
        assert!(open.capabilities.route_refresh && !open.capabilities.four_octet_as);
    }

    #[test]
    fn what_is_not_known_is_passed_over_and_the_last_of_two_counts() {
        let odd = [2, 21, 73, 1, 7, 64, 2, 0x80, 1, 64, 6, 0, 9, 0, 1, 1, 0x80, 1, 4, 0, 25, 0, 70];
        let open = read(&with(&[&[23][..], &odd].concat())).unwrap();
        assert_eq!(open.capabilities.families, Some(BTreeSet::new()), "families, but none of ours");
        let restart = open.capabilities.graceful_restart.unwrap();
        assert_eq!((restart.restarting, restart.time), (false, 9));
        assert_eq!(restart.families, BTreeMap::from([(Family::V4, true)]));
    }

    #[test]
    fn a_wrong_open_is_refused_as_rfc_4271_says() {
        let mut version = octets(&full());
        version[19] = 3;
        assert_eq!(read(&version), Err((2, 1)));
        assert_eq!(read(&with(&[3, 1, 1, 0])), Err((2, 4)), "authentication, which is no more");
        for wrong in
            [&[1][..], &[0, 0], &[2, 2, 1], &[3, 2, 1, 1], &[4, 2, 2, 65, 0], &[5, 2, 3, 1, 1, 0]]
        {
            assert_eq!(read(&with(wrong)), Err((2, 0)), "{wrong:?}");
        }
    }
}
