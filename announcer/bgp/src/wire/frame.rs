//! What every message begins with (RFC 4271 §4.1).

/// Octets of a message at most: longer ones (RFC 8654) are never agreed on.
pub const LONGEST: usize = 4096;

/// Octets before the body: marker, length, type.
pub(super) const HEADER: usize = 19;

pub(super) const OPEN: u8 = 1;
pub(super) const UPDATE: u8 = 2;
pub(super) const NOTIFICATION: u8 = 3;
pub(super) const KEEPALIVE: u8 = 4;
pub(super) const ROUTE_REFRESH: u8 = 5;

/// The one kind of routes in a family that is spoken.
pub(super) const UNICAST: u8 = 1;

/// Appends a message; its length is written when `body` has appended the rest.
pub(super) fn message(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend([0xff; 16]);
    out.extend([0, 0, kind]);
    body(out);
    let length = u16::try_from(out.len() - start).unwrap_or(u16::MAX);
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

/// Appends a KEEPALIVE.
pub(crate) fn keepalive(out: &mut Vec<u8>) {
    message(out, KEEPALIVE, |_| {});
}
