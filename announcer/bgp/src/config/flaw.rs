//! What is wrong with what somebody wrote: of which peer, in which field, where, and what would be right.

use std::fmt;

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
        let end = value.char_indices().nth(MOST).map(|(end, _)| end);
        self.value = Some(end.map_or(value.to_owned(), |end| format!("{}\u{2026}", &value[..end])));
        self
    }
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
}
