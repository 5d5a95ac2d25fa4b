//! What somebody wrote, in a message: as much of it as helps, in a form that can be mistaken for nothing else. It is the
//! only way for texts of users into notes, conditions and logs.

use std::borrow::Cow;
use std::fmt;

/// The most characters of anything that a user wrote.
const MOST: usize = 64;

/// The most texts of many that are kept.
const FIRST: usize = 3;

/// A text of a user: its first 64 characters, shown between quotes and escaped as by `{:?}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Quoted(Box<str>);

impl Quoted {
    /// Keeps the first 64 characters, and a mark where there are more.
    pub fn of(text: &str) -> Self {
        Self(match text.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &text[..end]).into(),
            None => text.into(),
        })
    }
}

impl fmt::Display for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl fmt::Debug for Quoted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Texts of a user, however many: how many they are, and the first three.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Few {
    first: Vec<Quoted>,
    count: usize,
}

impl Few {
    /// Takes in one more.
    pub fn push(&mut self, text: &str) {
        self.count += 1;
        if self.first.len() < FIRST {
            self.first.push(Quoted::of(text));
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl<'a> FromIterator<&'a str> for Few {
    fn from_iter<I: IntoIterator<Item = &'a str>>(texts: I) -> Self {
        let mut few = Self::default();
        texts.into_iter().for_each(|text| few.push(text));
        few
    }
}

impl fmt::Display for Few {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, text) in self.first.iter().enumerate() {
            write!(f, "{}{text}", if number == 0 { "" } else { ", " })?;
        }
        match self.count - self.first.len() {
            0 => Ok(()),
            rest => write!(f, " and {rest} more"),
        }
    }
}

/// A text whose parts come from others, such as what the API server said: on one line, whatever is in it.
pub fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len());
    for c in text.chars() {
        match c.is_control() {
            true => line.extend(c.escape_debug()),
            false => line.push(c),
        }
    }
    line.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_two_characters_and_a_short_one_stays() {
        let many = "ä".repeat(MOST);
        assert_eq!(Quoted::of(&many).to_string(), format!("\"{many}\""));
        assert_eq!(Quoted::of(&"ä".repeat(1 << 20)).to_string(), format!("\"{many}…\""));
    }

    #[test]
    fn nothing_in_a_quoted_text_ends_a_line_or_the_quotes() {
        let quoted = Quoted::of("a\nb\u{1b}[2J\"\u{202e}").to_string();
        assert_eq!(quoted, r#""a\nb\u{1b}[2J\"\u{202e}""#);
    }

    #[test]
    fn of_many_texts_the_first_three_are_kept_and_the_rest_is_counted() {
        let few = |count: usize| std::iter::repeat_n("x", count).collect::<Few>().to_string();
        assert_eq!((few(1), few(3)), (r#""x""#.to_owned(), r#""x", "x", "x""#.to_owned()));
        assert_eq!(few(51_000), r#""x", "x", "x" and 50997 more"#);
    }

    #[test]
    fn a_text_of_several_lines_becomes_one() {
        assert_eq!(one_line("ä b"), "ä b");
        assert_eq!(one_line("a\n2026 WARN b\r\u{1b}"), r"a\n2026 WARN b\r\u{1b}");
    }
}
