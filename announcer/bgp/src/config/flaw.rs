//! What is wrong with what somebody wrote: of which peer, in which field, where, and what would be right.

use std::fmt;
use std::net::IpAddr;

/// The most characters of a value that are shown.
const MOST: usize = 64;

/// Flaws of one text that are told: whoever has mended these is told of the rest.
pub(super) const MOST_FLAWS: usize = 100;

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flaw {
    /// Of whom: `peer 192.0.2.1`, `policy 3`; empty where it is about all.
    pub of: String,
    /// In which field.
    pub field: String,
    /// Where.
    pub place: Place,
    /// What stands there, as much of it as helps; nothing where it is a password, or where nothing stands.
    pub value: Option<String>,
    /// What is accepted.
    pub accepted: String,
}

/// Where something stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At this character, counted from 1.
    Character(usize),
    /// On this line, counted from 1.
    Line(usize),
    /// Where its name says.
    Named,
}

impl Flaw {
    pub(super) fn new(of: &str, field: &str, place: Place, accepted: impl Into<String>) -> Self {
        let (of, field) = (of.to_owned(), field.to_owned());
        Self { of, field, place, value: None, accepted: accepted.into() }
    }

    /// The same with what stands there.
    #[must_use]
    pub(super) fn value(mut self, value: &str) -> Self {
        if self.place_is_of_a_peer() && may_have_a_password(value) {
            let hidden = "what stands there is not shown, for it may have a password in it";
            self.accepted = format!("{hidden}; {}", self.accepted);
            return self;
        }
        let end = value.char_indices().nth(MOST).map(|(end, _)| end);
        self.value = Some(end.map_or(value.to_owned(), |end| format!("{}\u{2026}", &value[..end])));
        self
    }

    /// Whether it is where the ConfigMap has a peer, and somebody may put one as settings have it.
    fn place_is_of_a_peer(&self) -> bool {
        let field = self.field.rsplit('.').next().unwrap_or_default();
        matches!(self.place, Place::Line(_)) && PEER.contains(&field)
    }
}

/// Fields of the ConfigMap in which a peer stands as settings have it where somebody has taken it from there, password and all.
const PEER: [&str; 19] = [
    "peers",
    "peer",
    "name",
    "address",
    "interface",
    "asn",
    "localAsn",
    "port",
    "connect",
    "multihop",
    "ttlSecurity",
    "families",
    "source",
    "sourceInterface",
    "nextHop",
    "holdTime",
    "keepalive",
    "connectRetry",
    "secret",
];

/// Whether this is more than an address, by its colons: in settings a password comes behind one.
fn may_have_a_password(value: &str) -> bool {
    let address = value.split('%').next().unwrap_or_default();
    let address = address.trim_matches(['[', ']']);
    value.contains(':') && address.parse::<IpAddr>().is_err()
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.of.is_empty() {
            write!(f, "{}, ", self.of)?;
        }
        f.write_str(&self.field)?;
        match self.place {
            Place::Character(at) => write!(f, " at character {at}")?,
            Place::Line(line) => write!(f, " on line {line}")?,
            Place::Named => {}
        }
        if let Some(value) = &self.value {
            write!(f, " {value:?}")?;
        }
        write!(f, ": {}", self.accepted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flaw_says_whose_it_is_and_where_and_shows_no_more_than_helps() {
        let flaw = Flaw::new("peer 192.0.2.1", "AS", Place::Character(11), "accepted is a number");
        assert_eq!(flaw.to_string(), "peer 192.0.2.1, AS at character 11: accepted is a number");
        let long = flaw.value(&"\u{e4}\n".repeat(1 << 16)).to_string();
        assert!(long.contains(r#""ä\nä"#) && long.len() < 400, "{long}");
        let line = Flaw::new("", "peers", Place::Line(3), "x");
        assert_eq!(line.to_string(), "peers on line 3: x");
    }

    #[test]
    fn a_peer_as_settings_have_it_is_not_shown_where_the_map_has_one() {
        let told = |field: &str, value: &str| {
            Flaw::new("", field, Place::Line(1), "x").value(value).to_string()
        };
        for field in ["peers", "peer", "address", "asn", "peer.address", "name", "port", "source"] {
            for value in ["192.0.2.1:65001:SEKRIT", "[fd00::1]:65001:SEKRIT", "65001:SEKRIT"] {
                let told = told(field, value);
                assert!(!told.contains("SEKRIT") && told.contains("is not shown"), "{told}");
            }
        }
        for value in ["fe80::1", "fe80::1%eth0", "192.0.2.999", "x"] {
            assert!(told("address", value).contains(value), "{value}");
        }
        assert!(told("communities", "65001:x").contains("65001:x"));
    }
}
