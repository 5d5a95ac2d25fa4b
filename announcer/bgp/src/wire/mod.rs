//! Owns how messages become octets and back (RFC 4271 §4). Decoding takes what any peer may send: it refuses by the
//! NOTIFICATION that the peer is owed, it never panics, and it keeps nothing of what a peer sends but what a session
//! goes by: a speaker that takes no routes need not know attributes.

mod frame;
mod input;
mod notification;
mod open;
mod update;

use self::frame::{HEADER, KEEPALIVE, NOTIFICATION, OPEN, ROUTE_REFRESH, UNICAST, UPDATE};
use self::input::Input;
use crate::prefix::Family;

pub use frame::LONGEST;
pub(crate) use frame::keepalive;
pub use notification::{Notification, cease};
pub use open::{Capabilities, GracefulRestart, Open};
pub use update::Update;
pub(crate) use update::{Path, announce, end_of_rib, withdraw};

/// What a peer said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who it is and what it can.
    Open(Open),
    /// Routes, of which none is taken.
    Update(Update),
    /// Why it ends the session.
    Notification(Notification),
    /// That it lives.
    Keepalive,
    /// That it wants all routes of a family again (RFC 2918); none where the family, or what is said of it, is not ours.
    RouteRefresh(Option<Family>),
}

/// Reads the first message of a stream, and tells how many octets it is; nothing where it is not all there yet.
pub fn decode(stream: &[u8]) -> Result<Option<(Message, usize)>, Notification> {
    let Some((header, _)) = stream.split_at_checked(HEADER) else { return Ok(None) };
    if header[..16] != [0xff; 16] {
        return Err(Notification::new(1, 1, &[]));
    }
    let (length, kind) = (u16::from_be_bytes([header[16], header[17]]), header[18]);
    let octets = usize::from(length);
    let fits = match kind {
        OPEN => (29..=LONGEST).contains(&octets),
        UPDATE | ROUTE_REFRESH => (23..=LONGEST).contains(&octets),
        NOTIFICATION => (21..=LONGEST).contains(&octets),
        KEEPALIVE => octets == HEADER,
        other => return Err(Notification::new(1, 3, &[other])),
    };
    if !fits {
        return Err(Notification::new(1, 2, &length.to_be_bytes()));
    }
    let Some(message) = stream.get(..octets) else { return Ok(None) };
    let body = Input::new(&message[HEADER..]);
    let message = match kind {
        OPEN => Message::Open(open::decode(body)?),
        UPDATE => Message::Update(update::decode(body)?),
        NOTIFICATION => Message::Notification(notification::decode(body)),
        ROUTE_REFRESH => Message::RouteRefresh(route_refresh(body)),
        _ => Message::Keepalive,
    };
    Ok(Some((message, octets)))
}

/// Subtypes mark the begin and end of an enhanced refresh (RFC 7313), which is not agreed on, and come with filters (RFC
/// 5291), which are not either.
fn route_refresh(mut body: Input<'_>) -> Option<Family> {
    let (afi, subtype, safi) = (body.u16()?, body.u8()?, body.u8()?);
    Family::from_afi(afi).filter(|_| subtype == 0 && safi == UNICAST && body.is_empty())
}

#[cfg(test)]
mod tests {
    use super::frame::message;
    use super::*;

    fn raw(kind: u8, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        message(&mut out, kind, |out| out.extend(body));
        out
    }

    fn refused(octets: &[u8]) -> (u8, u8, Vec<u8>) {
        let notification = decode(octets).expect_err("it is refused");
        (notification.code, notification.subcode, notification.data)
    }

    #[test]
    fn a_message_is_read_once_it_is_all_there() {
        let keepalive = raw(KEEPALIVE, &[]);
        assert_eq!(keepalive.len(), HEADER);
        for end in 0..HEADER {
            assert_eq!(decode(&keepalive[..end]), Ok(None), "{end}");
        }
        assert_eq!(decode(&keepalive), Ok(Some((Message::Keepalive, HEADER))));
        let two = [keepalive, raw(UPDATE, &[0, 0, 0, 0])].concat();
        assert_eq!(decode(&two), Ok(Some((Message::Keepalive, HEADER))));
        assert!(matches!(decode(&two[HEADER..]), Ok(Some((Message::Update(_), 23)))));
    }

    #[test]
    fn a_wrong_header_is_refused_as_rfc_4271_says() {
        let mut unmarked = raw(KEEPALIVE, &[]);
        unmarked[3] = 0;
        assert_eq!(refused(&unmarked), (1, 1, vec![]));
        assert_eq!(refused(&raw(KEEPALIVE, &[0])), (1, 2, vec![0, 20]));
        assert_eq!(refused(&raw(UPDATE, &[0, 0])), (1, 2, vec![0, 21]));
        assert_eq!(refused(&raw(OPEN, &[4; 9])), (1, 2, vec![0, 28]));
        assert_eq!(refused(&raw(NOTIFICATION, &[6])), (1, 2, vec![0, 20]));
        assert_eq!(refused(&raw(9, &[])), (1, 3, vec![9]));
        let mut long = raw(UPDATE, &[0; 8]);
        long[16..18].copy_from_slice(&4097_u16.to_be_bytes());
        assert_eq!(refused(&long), (1, 2, 4097_u16.to_be_bytes().to_vec()));
    }

    #[test]
    fn a_refresh_of_a_family_that_is_not_spoken_is_passed_over() {
        let refresh = |body: &[u8]| decode(&raw(ROUTE_REFRESH, body)).unwrap().unwrap().0;
        assert_eq!(refresh(&[0, 1, 0, 1]), Message::RouteRefresh(Some(Family::V4)));
        assert_eq!(refresh(&[0, 2, 0, 1]), Message::RouteRefresh(Some(Family::V6)));
        for other in [[0, 2, 1, 1], [0, 2, 0, 128], [0, 25, 0, 70]] {
            assert_eq!(refresh(&other), Message::RouteRefresh(None), "{other:?}");
        }
        assert_eq!(refresh(&[0, 1, 0, 1, 1, 64, 0, 0]), Message::RouteRefresh(None));
    }
}
