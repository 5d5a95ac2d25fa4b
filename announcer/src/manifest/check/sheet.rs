//! What is said of a file, line by line, and how that reads.

use std::collections::BTreeMap;
use std::fmt;

use crate::manifest::read::{Is, Node};

/// What a line means here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::manifest) enum Mark {
    /// What it means for kube-vip.
    Same,
    /// More than that, or it is needed no more.
    Better,
    /// Something that Berth does not do yet.
    NotYet,
    /// The account may not do what the announcer does.
    MissingRight,
    /// Something that Berth does not do.
    Refused,
}

impl Mark {
    const ALL: [Self; 5] =
        [Self::Same, Self::Better, Self::NotYet, Self::MissingRight, Self::Refused];

    fn word(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Better => "better",
            Self::NotYet => "not yet",
            Self::MissingRight => "missing right",
            Self::Refused => "refused",
        }
    }
}

/// What is said of some lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manifest) struct Row {
    pub(in crate::manifest) first: usize,
    pub(in crate::manifest) last: usize,
    pub(in crate::manifest) mark: Mark,
    pub(in crate::manifest) text: String,
}

/// What is said of one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manifest) struct Sheet {
    pub(in crate::manifest) title: String,
    pub(in crate::manifest) rows: Vec<Row>,
}

impl Sheet {
    pub(super) fn new(title: String) -> Self {
        Self { title, rows: Vec::new() }
    }

    /// Says something of a key and what is below it.
    pub(super) fn entry(
        &mut self,
        (key, value): &(Node, Node),
        mark: Mark,
        text: impl Into<String>,
    ) {
        self.lines(key.first, value.last.max(key.last), mark, text);
    }

    /// Says something of a piece.
    pub(super) fn node(&mut self, node: &Node, mark: Mark, text: impl Into<String>) {
        self.lines(node.first, node.last, mark, text);
    }

    /// Says something that is missing at a line.
    pub(super) fn at(&mut self, line: usize, mark: Mark, text: impl Into<String>) {
        self.lines(line, line, mark, text);
    }

    fn lines(&mut self, first: usize, last: usize, mark: Mark, text: impl Into<String>) {
        self.rows.push(Row { first, last, mark, text: text.into() });
    }

    /// Says of every line of the object that nothing was said of, that it is what `rest` says.
    pub(super) fn fill(mut self, object: &Node, rest: &str) -> Self {
        let mut lines = Vec::new();
        written(object, &mut lines);
        lines.retain(|line| !self.rows.iter().any(|row| row.first <= *line && *line <= row.last));
        lines.sort_unstable();
        lines.dedup();
        let mut filled: Vec<Row> = Vec::new();
        for line in lines {
            match filled.last_mut() {
                Some(row) if row.last + 1 == line => row.last = line,
                _ => filled.push(Row {
                    first: line,
                    last: line,
                    mark: Mark::Same,
                    text: rest.to_owned(),
                }),
            }
        }
        self.rows.extend(filled);
        self.rows.sort_by_key(|row| (row.first, row.last));
        self
    }
}

/// The lines on which something is written.
fn written(node: &Node, lines: &mut Vec<usize>) {
    match &node.is {
        Is::Map(entries) => entries.iter().for_each(|(key, value)| {
            lines.extend(key.first..=key.last);
            written(value, lines);
        }),
        Is::List(items) if !items.is_empty() => items.iter().for_each(|item| written(item, lines)),
        _ => lines.extend(node.first..=node.last),
    }
}

/// What is said of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::manifest) struct Report {
    pub(in crate::manifest) sheets: Vec<Sheet>,
    /// What is said of no line.
    pub(in crate::manifest) notes: Vec<String>,
}

impl Report {
    /// The exit code: what is worse than a right that is missing comes first.
    pub(in crate::manifest) fn code(&self) -> u8 {
        let has = |mark| self.rows().any(|row| row.mark == mark);
        match () {
            () if has(Mark::Refused) || has(Mark::NotYet) => 1,
            () if has(Mark::MissingRight) => 3,
            () => 0,
        }
    }

    pub(in crate::manifest) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.sheets.iter().flat_map(|sheet| &sheet.rows)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // What is in a file may be anything; a terminal is to be told nothing by it.
        let plain = |text: &str| text.replace(char::is_control, "?");
        for sheet in &self.sheets {
            writeln!(f, "{}", plain(&sheet.title))?;
            for row in &sheet.rows {
                let lines = match row.first == row.last {
                    true => row.first.to_string(),
                    false => format!("{}-{}", row.first, row.last),
                };
                writeln!(f, "{lines:>9}  {:<13}  {}", row.mark.word(), plain(&row.text))?;
            }
        }
        for note in &self.notes {
            writeln!(f, "{}", plain(note))?;
        }
        let mut count: BTreeMap<Mark, usize> = BTreeMap::new();
        self.rows().for_each(|row| *count.entry(row.mark).or_default() += 1);
        let counts = Mark::ALL
            .map(|mark| format!("{} {}", count.get(&mark).copied().unwrap_or(0), mark.word()));
        writeln!(f, "In all: {}", counts.join(", "))
    }
}
