//! Why a session ends (RFC 4271 §4.5), with the text of RFC 9003 and the hard form of RFC 8538.

use std::fmt;

use super::frame::{NOTIFICATION, message};
use super::input::Input;

/// Subcodes of Cease that are used here (RFC 4486, RFC 8538).
pub mod cease {
    /// The session is shut down.
    pub const SHUTDOWN: u8 = 2;
    /// The peer is not configured any more.
    pub const DECONFIGURED: u8 = 3;
    /// The session begins again.
    pub const RESET: u8 = 4;
    /// Another connection with this peer is used.
    pub const COLLISION: u8 = 7;
    /// What is in it ends the session for good: routes are not kept (RFC 8538 §3).
    pub const HARD_RESET: u8 = 9;
}

const CEASE: u8 = 6;

/// Octets that a text may have (RFC 9003 §2).
const LONGEST_TEXT: usize = 255;

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notification {
    /// What kind of reason.
    pub code: u8,
    /// Which of that kind.
    pub subcode: u8,
    /// What belongs to it.
    pub data: Vec<u8>,
}

impl Notification {
    /// A reason.
    pub fn new(code: u8, subcode: u8, data: &[u8]) -> Self {
        Self { code, subcode, data: data.to_vec() }
    }

    /// A session is ended on purpose, with as much of a text for people as fits.
    pub fn cease(subcode: u8, text: &str) -> Self {
        let end = (0..=LONGEST_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
        let text = &text[..end.unwrap_or_default()];
        let data = match text {
            "" => vec![],
            text => [&[text.len().try_into().unwrap_or(u8::MAX)][..], text.as_bytes()].concat(),
        };
        Self { code: CEASE, subcode, data }
    }

    /// The same, and routes are not to be kept: for peers that keep them after any other (RFC 8538 §3).
    #[must_use]
    pub fn hard(self) -> Self {
        let data = [&[self.code, self.subcode][..], &self.data].concat();
        Self { code: CEASE, subcode: cease::HARD_RESET, data }
    }

    /// Whether routes are to be dropped though both sides could keep them.
    pub fn is_hard(&self) -> bool {
        (self.code, self.subcode) == (CEASE, cease::HARD_RESET)
    }

    /// Whether another connection of the same two speakers is used.
    pub(crate) fn is_collision(&self) -> bool {
        (self.code, self.subcode) == (CEASE, cease::COLLISION)
    }

    /// What is in a hard one; else itself.
    fn inner(&self) -> Self {
        match (self.is_hard(), self.data.as_slice()) {
            (true, [code, subcode, data @ ..]) => Self::new(*code, *subcode, data),
            _ => self.clone(),
        }
    }

    /// The text for people in it.
    pub fn text(&self) -> Option<String> {
        let Self { code, subcode, data } = self.inner();
        if code != CEASE || !matches!(subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let (length, rest) = data.split_first()?;
        let text = rest.get(..usize::from(*length)).filter(|text| !text.is_empty())?;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    /// Appends it as a message.
    pub fn put(&self, out: &mut Vec<u8>) {
        message(out, NOTIFICATION, |out| {
            out.extend([self.code, self.subcode]);
            out.extend(&self.data);
        });
    }
}

/// A NOTIFICATION is never answered by one: whatever it is, the session is over.
pub(super) fn decode(mut body: Input<'_>) -> Notification {
    let (code, subcode) = (body.u8().unwrap_or_default(), body.u8().unwrap_or_default());
    Notification::new(code, subcode, body.rest())
}

/// Names as RFC 4271, 4486, 6608 and IANA's registry have them.
fn names(code: u8, subcode: u8) -> (&'static str, &'static str) {
    let kinds: (&str, &[&str]) = match code {
        1 => (
            "Message Header Error",
            &["Connection Not Synchronized", "Bad Message Length", "Bad Message Type"],
        ),
        2 => (
            "OPEN Message Error",
            &[
                "Unsupported Version Number",
                "Bad Peer AS",
                "Bad BGP Identifier",
                "Unsupported Optional Parameter",
                "",
                "Unacceptable Hold Time",
                "Unsupported Capability",
            ],
        ),
        3 => (
            "UPDATE Message Error",
            &[
                "Malformed Attribute List",
                "Unrecognized Well-known Attribute",
                "Missing Well-known Attribute",
                "Attribute Flags Error",
                "Attribute Length Error",
                "Invalid ORIGIN Attribute",
                "",
                "Invalid NEXT_HOP Attribute",
                "Optional Attribute Error",
                "Invalid Network Field",
                "Malformed AS_PATH",
            ],
        ),
        4 => ("Hold Timer Expired", &[]),
        5 => (
            "Finite State Machine Error",
            &[
                "Unexpected Message in OpenSent",
                "Unexpected Message in OpenConfirm",
                "Unexpected Message in Established",
            ],
        ),
        CEASE => (
            "Cease",
            &[
                "Maximum Number of Prefixes Reached",
                "Administrative Shutdown",
                "Peer De-configured",
                "Administrative Reset",
                "Connection Rejected",
                "Other Configuration Change",
                "Connection Collision Resolution",
                "Out of Resources",
                "Hard Reset",
                "BFD Down",
            ],
        ),
        7 => ("ROUTE-REFRESH Message Error", &["Invalid Message Length"]),
        8 => ("Send Hold Timer Expired", &[]),
        _ => ("", &[]),
    };
    let name = usize::from(subcode).checked_sub(1).and_then(|at| kinds.1.get(at));
    (kinds.0, name.copied().unwrap_or_default())
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in what is in it is not shown: a peer may put two thousand into one another.
        let wrapped = self.is_hard() && self.data.len() >= 2;
        if wrapped {
            f.write_str("Cease/Hard Reset (")?;
        }
        let Self { code, subcode, .. } = self.inner();
        match names(code, subcode) {
            ("", _) => write!(f, "code {code}, subcode {subcode}")?,
            (kind, "") if subcode == 0 => f.write_str(kind)?,
            (kind, "") => write!(f, "{kind}, subcode {subcode}")?,
            (kind, name) => write!(f, "{kind}/{name}")?,
        }
        if let Some(text) = self.text() {
            write!(f, ": {text:?}")?;
        }
        f.write_str(if wrapped { ")" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Message, decode as decode_message};
    use super::*;

    fn round(notification: &Notification) -> Notification {
        let mut out = Vec::new();
        notification.put(&mut out);
        match decode_message(&out) {
            Ok(Some((Message::Notification(read), length))) if length == out.len() => read,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_reason_for_people_goes_over_the_wire_and_is_shown() {
        let notification = round(&Notification::cease(cease::SHUTDOWN, "node goes: \u{e4}\n"));
        assert_eq!(notification.text().as_deref(), Some("node goes: \u{e4}\n"));
        assert_eq!(
            notification.to_string(),
            "Cease/Administrative Shutdown: \"node goes: \u{e4}\\n\""
        );
        let silent = round(&Notification::cease(cease::DECONFIGURED, ""));
        assert_eq!(silent.to_string(), "Cease/Peer De-configured");
        assert!(silent.data.is_empty());
    }

    #[test]
    fn a_long_reason_is_cut_between_two_characters() {
        let long = Notification::cease(cease::SHUTDOWN, &"\u{e4}".repeat(200));
        assert_eq!(long.data.len(), 255);
        assert_eq!(long.text().unwrap().chars().count(), 127);
    }

    #[test]
    fn a_hard_reset_carries_its_reason() {
        let hard = round(&Notification::cease(cease::SHUTDOWN, "uninstalled").hard());
        assert!(hard.is_hard());
        assert_eq!(hard.data[..2], [6, 2]);
        assert_eq!(hard.text().as_deref(), Some("uninstalled"));
        assert_eq!(
            hard.to_string(),
            "Cease/Hard Reset (Cease/Administrative Shutdown: \"uninstalled\")"
        );
        let nested = Notification::new(6, 9, &[6, 9, 6, 9]);
        assert_eq!(nested.to_string(), "Cease/Hard Reset (Cease/Hard Reset)");
    }

    #[test]
    fn whatever_a_peer_gives_as_a_reason_is_shown() {
        let shown = |code, subcode, data: &[u8]| Notification::new(code, subcode, data).to_string();
        assert_eq!(shown(4, 0, &[]), "Hold Timer Expired");
        assert_eq!(shown(2, 2, &[]), "OPEN Message Error/Bad Peer AS");
        assert_eq!(shown(2, 99, &[]), "OPEN Message Error, subcode 99");
        assert_eq!(shown(77, 3, &[1]), "code 77, subcode 3");
        assert_eq!(shown(6, 2, &[200, b'x']), "Cease/Administrative Shutdown");
        assert_eq!(shown(6, 2, &[1, 0xff]), "Cease/Administrative Shutdown: \"\u{fffd}\"");
    }
}
