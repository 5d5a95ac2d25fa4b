//! YAML with the line of everything in it, and no more of it than a configuration needs: what stands for something else
//! (aliases) is refused, so what is read is never more than what is written.

use std::collections::BTreeSet;

use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle, StrInput};

use super::flaw::{Flaw, Place};

/// Levels that one may be in another.
const DEEPEST: usize = 20;

/// A piece of a document, and the line where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) is: Is,
    pub(super) line: usize,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Is {
    /// Keys, with what is below each.
    Map(Vec<(Node, Node)>),
    /// Entries.
    List(Vec<Node>),
    /// Anything else, as it is written.
    Text(String),
    /// Nothing, as after a key alone.
    Nothing,
}

impl Node {
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        let Is::Map(entries) = &self.is else { return None };
        entries.iter().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.is {
            Is::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn place(&self) -> Place {
        Place::Line(self.line)
    }
}

/// The one document of a text; nothing where it is empty.
pub(super) fn read(text: &str) -> Result<Option<Node>, Flaw> {
    let mut reader = Reader { parser: Parser::new_from_str(text) };
    let mut document = None;
    while let Some((event, line)) = reader.event()? {
        match event {
            Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(..)
            | Event::DocumentEnd => {}
            event if document.is_none() => document = Some(reader.node(event, line, 0)?),
            _ => return Err(flaw(line, "accepted is one document")),
        }
    }
    Ok(document.filter(|document| document.is != Is::Nothing))
}

fn flaw(line: usize, accepted: impl Into<String>) -> Flaw {
    Flaw::new("", "YAML", Place::Line(line), accepted)
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
}

impl<'t> Reader<'t> {
    fn event(&mut self) -> Result<Option<(Event<'t>, usize)>, Flaw> {
        loop {
            let Some(event) = self.parser.next_event() else { return Ok(None) };
            match event {
                Ok((Event::Comment(..), _)) => {}
                Ok((event, span)) => return Ok(Some((event, span.start.line()))),
                Err(error) => return Err(flaw(error.marker().line(), error.info())),
            }
        }
    }

    /// What comes next below a list or map; nothing at its end.
    fn next(&mut self, line: usize, depth: usize) -> Result<Option<Node>, Flaw> {
        match self.event()? {
            None => Err(flaw(line, "it ends too early")),
            Some((Event::SequenceEnd | Event::MappingEnd, _)) => Ok(None),
            Some((event, line)) => self.node(event, line, depth).map(Some),
        }
    }

    fn node(&mut self, event: Event<'_>, line: usize, depth: usize) -> Result<Node, Flaw> {
        if depth > DEEPEST {
            return Err(flaw(line, format!("accepted are {DEEPEST} levels")));
        }
        let is = match event {
            Event::Scalar(text, style, ..) => match &*text {
                "" | "~" | "null" if style == ScalarStyle::Plain => Is::Nothing,
                _ => Is::Text(text.into_owned()),
            },
            Event::SequenceStart(..) => {
                let mut items = Vec::new();
                while let Some(item) = self.next(line, depth + 1)? {
                    items.push(item);
                }
                Is::List(items)
            }
            Event::MappingStart(..) => Is::Map(self.entries(line, depth + 1)?),
            Event::Alias(..) => return Err(flaw(line, "aliases are not accepted: write it out")),
            _ => return Err(flaw(line, "not understood")),
        };
        Ok(Node { is, line })
    }

    fn entries(&mut self, line: usize, depth: usize) -> Result<Vec<(Node, Node)>, Flaw> {
        let mut entries: Vec<(Node, Node)> = Vec::new();
        // Looked up, for a map may be as long as the whole text.
        let mut names = BTreeSet::new();
        while let Some(key) = self.next(line, depth)? {
            let Some(name) = key.text() else {
                return Err(flaw(key.line, "accepted is a name as a key"));
            };
            if !names.insert(name.to_owned()) {
                return Err(flaw(key.line, "it is there twice").value(name));
            }
            let value = self.next(key.line, depth)?.ok_or_else(|| flaw(key.line, "a key alone"))?;
            entries.push((key, value));
        }
        Ok(entries)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_piece_knows_its_line() {
        let node = read("# about\npeers:\n- name: a\n  port: 179\nasn:\n").unwrap().unwrap();
        let Is::List(peers) = &node.get("peers").unwrap().is else { panic!("{node:?}") };
        assert_eq!(
            peers[0].get("port").unwrap(),
            &Node { is: Is::Text("179".to_owned()), line: 4 }
        );
        assert_eq!(node.get("asn").unwrap().is, Is::Nothing);
        assert_eq!(read("# nothing\n"), Ok(None));
        assert_eq!(read(""), Ok(None));
    }

    #[test]
    fn what_is_no_document_or_stands_for_another_is_refused_with_its_line() {
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        for (text, line) in [
            ("a: b\na: c\n", 2),
            ("a: &x [1]\nb: *x\n", 2),
            ("a: 1\n---\nb: 2\n", 3),
            ("a:\n  [b]: c\n", 2),
            (&deep, 1),
        ] {
            let flaw = read(text).unwrap_err();
            assert_eq!(flaw.place, Place::Line(line), "{text}: {flaw}");
        }
        assert!(read("a: [b\n").is_err());
    }
}
