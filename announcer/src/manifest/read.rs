//! YAML with the line of everything in it. What is read is a file of its user's: bounded all the same, for an alias may stand
//! for a million others.

use std::borrow::Cow;
use std::collections::BTreeMap;

use berth_api::Quoted;
use serde_saphyr::granit_parser::{Event, Parser, ScalarStyle};

/// More than any manifest has.
const MOST: usize = 100_000;
const DEEPEST: usize = 60;

/// A piece of a document, and on which lines it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    pub(super) is: Is,
    pub(super) first: usize,
    pub(super) last: usize,
    /// Whether it is written without quotes, and so may be read as something else than a text.
    plain: bool,
    /// Whether it is a block whose lines are those of the text.
    literal: bool,
}

/// What it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Is {
    /// Keys, with what is below each, in the order of the file.
    Map(Vec<(Node, Node)>),
    /// Entries.
    List(Vec<Node>),
    /// Anything else, as it is written.
    Text(String),
    /// Nothing, as after a key alone.
    Nothing,
}

impl Node {
    /// What is below a key.
    pub(super) fn get(&self, key: &str) -> Option<&Self> {
        self.entry(key).map(|(_, value)| value)
    }

    /// The same with the key itself.
    pub(super) fn entry(&self, key: &str) -> Option<&(Self, Self)> {
        self.entries().iter().find(|(name, _)| name.text() == Some(key))
    }

    /// What is below several keys, one after another.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Self> {
        path.iter().try_fold(self, |node, key| node.get(key))
    }

    pub(super) fn entries(&self) -> &[(Self, Self)] {
        match &self.is {
            Is::Map(entries) => entries,
            _ => &[],
        }
    }

    pub(super) fn items(&self) -> &[Self] {
        match &self.is {
            Is::List(items) => items,
            _ => &[],
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.is {
            Is::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Nothing, where something was.
    pub(super) fn lines(first: usize, last: usize) -> Self {
        Self { is: Is::Nothing, first, last, plain: false, literal: false }
    }

    /// Whether Kubernetes reads a truth or a number here, where it takes a text alone.
    pub(super) fn is_no_text(&self) -> bool {
        let Is::Text(text) = &self.is else { return false };
        let is_word = ["true", "false", "yes", "no", "on", "off"].contains(&&*text.to_lowercase());
        self.plain && (is_word || text.parse::<f64>().is_ok())
    }

    /// The texts of a list.
    pub(super) fn texts(&self) -> impl Iterator<Item = &str> {
        self.items().iter().filter_map(Self::text)
    }

    fn count(&self) -> usize {
        match &self.is {
            Is::Map(entries) => {
                1 + entries.iter().map(|(_, value)| 1 + value.count()).sum::<usize>()
            }
            Is::List(items) => 1 + items.iter().map(Self::count).sum::<usize>(),
            Is::Text(_) | Is::Nothing => 1,
        }
    }

    /// Documents that stand in it as a text and are about the announcer, such as what somebody writes to a node, each with
    /// the text and its lines.
    pub(super) fn written(&self) -> Vec<(&Self, Vec<Self>)> {
        match &self.is {
            Is::Map(entries) => entries.iter().flat_map(|(_, value)| value.written()).collect(),
            Is::List(items) => items.iter().flat_map(Self::written).collect(),
            Is::Text(text) => self.documents(text).map(|found| (self, found)).into_iter().collect(),
            Is::Nothing => Vec::new(),
        }
    }

    fn documents(&self, text: &str) -> Option<Vec<Self>> {
        let is_about = ["kube-vip", "berth-announcer"].iter().any(|name| text.contains(name));
        if !is_about || !text.contains('\n') || !text.contains("kind") {
            return None;
        }
        let found = documents(text).ok()?;
        let is_object =
            |found: &Self| found.get("kind").is_some() && found.get("metadata").is_some();
        // A block is where its first line is that has something, and its text begins with the empty ones before that.
        let empty = text.chars().take_while(|c| *c == '\n').count();
        let line = |line: usize| match self.literal {
            true => self.first + line.saturating_sub(1 + empty),
            false => self.first,
        };
        found
            .iter()
            .any(is_object)
            .then(|| found.into_iter().map(|one| one.relined(&line)).collect())
    }

    /// The same on other lines, such as where an alias stands.
    fn relined(self, line: &impl Fn(usize) -> usize) -> Self {
        let (first, last) = (line(self.first), line(self.last));
        let is = match self.is {
            Is::Map(entries) => Is::Map(
                entries.into_iter().map(|(k, v)| (k.relined(line), v.relined(line))).collect(),
            ),
            Is::List(items) => Is::List(items.into_iter().map(|item| item.relined(line)).collect()),
            other => other,
        };
        Self { is, first, last, ..self }
    }
}

/// The documents of a file; of a `List`, as kubectl prints several objects, each by itself.
///
/// # Errors
/// What is no YAML, with its line.
pub(super) fn documents(text: &str) -> Result<Vec<Node>, String> {
    let mut reader =
        Reader { parser: Parser::new_from_str(text), anchors: BTreeMap::new(), left: MOST };
    let mut documents = Vec::new();
    while let Some(event) = reader.parser.next_event() {
        let (event, span) = event.map_err(|error| error.to_string())?;
        match event {
            Event::DocumentStart(..) => reader.anchors.clear(),
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd | Event::Comment(..) => {}
            event => {
                let lines = (
                    span.start.line(),
                    last_line(&event, span.start.line(), span.end.line(), span.end.col()),
                );
                documents.push(reader.node(event, lines, 0)?);
            }
        }
    }
    documents.retain(|document| document.is != Is::Nothing);
    Ok(documents)
}

struct Reader<'t> {
    parser: Parser<'t, serde_saphyr::granit_parser::StrInput<'t>>,
    anchors: BTreeMap<usize, Node>,
    left: usize,
}

/// Where something ends. A block begins with its first line that has something, and ends before what comes next.
fn last_line(event: &Event<'_>, first: usize, last: usize, column: usize) -> usize {
    match event {
        Event::Scalar(text, ScalarStyle::Literal, ..) => {
            first + text.trim_matches('\n').matches('\n').count()
        }
        Event::Scalar(_, ScalarStyle::Folded, ..) if column == 0 && last > first => last - 1,
        _ => last,
    }
}

impl Reader<'_> {
    fn next(&mut self, depth: usize) -> Result<Option<Node>, String> {
        loop {
            let Some(event) = self.parser.next_event() else {
                return Err("it ends too early".to_owned());
            };
            let (event, span) = event.map_err(|error| error.to_string())?;
            let lines = (
                span.start.line(),
                last_line(&event, span.start.line(), span.end.line(), span.end.col()),
            );
            return match event {
                Event::Comment(..) => continue,
                Event::SequenceEnd | Event::MappingEnd => Ok(None),
                event => self.node(event, lines, depth).map(Some),
            };
        }
    }

    fn node(
        &mut self,
        event: Event<'_>,
        (first, last): (usize, usize),
        depth: usize,
    ) -> Result<Node, String> {
        let too_much = || format!("line {first}: more than {MOST} pieces, or {DEEPEST} levels");
        self.left = self.left.checked_sub(1).ok_or_else(too_much)?;
        if depth > DEEPEST {
            return Err(too_much());
        }
        let plain = matches!(event, Event::Scalar(_, ScalarStyle::Plain, ..));
        let literal = matches!(event, Event::Scalar(_, ScalarStyle::Literal, ..));
        let (is, anchor) = match event {
            Event::Scalar(text, style, anchor, _) => (scalar(text, style), anchor),
            Event::SequenceStart(_, anchor, _) => {
                let mut items = Vec::new();
                while let Some(item) = self.next(depth + 1)? {
                    items.push(item);
                }
                (Is::List(items), anchor)
            }
            Event::MappingStart(_, anchor, _) => {
                let mut entries: Vec<(Node, Node)> = Vec::new();
                while let Some(key) = self.next(depth + 1)? {
                    let value = self.next(depth + 1)?;
                    let value = value.ok_or_else(|| format!("line {}: a key alone", key.first))?;
                    if entries.iter().any(|(other, _)| other.is == key.is) {
                        let name = key.text().unwrap_or_default();
                        let hint = match name {
                            "apiVersion" | "kind" => {
                                "; between two objects stands a line of its own, ---"
                            }
                            _ => "",
                        };
                        return Err(format!(
                            "line {}: the key {} is there twice{hint}",
                            key.first,
                            Quoted::of(name)
                        ));
                    }
                    entries.push((key, value));
                }
                (Is::Map(entries), anchor)
            }
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                let known = known.ok_or_else(|| format!("line {first}: an alias of nothing"))?;
                self.left = self.left.checked_sub(known.count()).ok_or_else(too_much)?;
                return Ok(known.relined(&|_| first));
            }
            _ => return Err(format!("line {first}: not understood")),
        };
        let last = match &is {
            Is::Map(entries) => entries.iter().map(|(key, value)| key.last.max(value.last)).max(),
            Is::List(items) => items.iter().map(|item| item.last).max(),
            Is::Text(_) => Some(last),
            Is::Nothing => Some(first),
        };
        let node = Node { is, first, last: last.unwrap_or(first).max(first), plain, literal };
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        Ok(node)
    }
}

fn scalar(text: Cow<'_, str>, style: ScalarStyle) -> Is {
    match &*text {
        "" | "~" | "null" if style == ScalarStyle::Plain => Is::Nothing,
        _ => Is::Text(text.into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Node {
        let mut documents = documents(text).unwrap();
        assert_eq!(documents.len(), 1, "{documents:?}");
        documents.remove(0)
    }

    #[test]
    fn each_piece_knows_its_lines() {
        let pod = only(
            "# about\nkind: Pod\nspec:\n  args:\n    - manager\n    - --arp\n  env: [{name: a,\n    value: b}]\n",
        );
        let lines = |path: &[&str]| pod.at(path).map(|node| (node.first, node.last)).unwrap();
        assert_eq!(lines(&["kind"]), (2, 2));
        assert_eq!(pod.entry("spec").unwrap().0.first, 3);
        assert_eq!(lines(&["spec", "args"]), (5, 6));
        assert_eq!(pod.at(&["spec", "args"]).unwrap().items()[1].first, 6);
        let entry = &pod.at(&["spec", "env"]).unwrap().items()[0];
        assert_eq!(entry.entry("value").unwrap().0.first, 8);
        let block = only("a: |\n  one\n  two\nb: c\n");
        assert_eq!((block.get("a").unwrap().last, block.get("b").unwrap().first), (3, 4));
    }

    #[test]
    fn documents_without_anything_are_none_and_an_alias_is_what_it_stands_for() {
        assert_eq!(documents("---\n# nothing\n---\n").unwrap(), []);
        let both = documents("---\na: &x [1, 2]\nb: *x\n---\nc: d\n").unwrap();
        assert_eq!(both[0].get("b").unwrap().texts().collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(both[0].get("b").unwrap().items()[0].first, 3);
        assert_eq!(both[1].get("c").unwrap().text(), Some("d"));
    }

    #[test]
    fn what_stands_in_a_text_is_found_on_its_lines() {
        let outer = only(
            "files:\n- content: |\n\n    # kube-vip\n    kind: Pod\n    metadata: {}\n- content: |\n    kube-vip is a word\n- a: \"kind: Pod\\nmetadata: {name: kube-vip}\\n\"\n",
        );
        let written = outer.written();
        let lines: Vec<_> =
            written.iter().map(|(text, found)| (text.first, text.last, found[0].first)).collect();
        assert_eq!(lines, [(4, 6, 5), (9, 9, 9)]);
    }

    #[test]
    fn what_is_no_yaml_or_without_end_is_told_with_its_line() {
        for text in ["a: [b\n", "a: b\na: c\n", "a: *x\n", "a: {{ .Values.b }}: c\n"] {
            assert!(documents(text).is_err(), "{text}");
        }
        let mut laughs = "a: &a [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for (one, next) in ('a'..'i').zip('b'..='i') {
            laughs.push_str(&format!(
                "{next}: &{next} [{}]\n",
                vec![format!("*{one}"); 10].join(", ")
            ));
        }
        assert!(documents(&laughs).unwrap_err().contains("more than"));
        let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
        assert!(documents(&deep).is_err());
    }
}
