//! Fields of a document, each looked at once; what is wrong is collected.

use std::collections::{BTreeMap, BTreeSet};
use std::str::FromStr;

use super::super::flaw::{Flaw, MOST_FLAWS};
use super::super::peer::{Listen, PORT};
use super::super::settings::hold_time;
use super::super::yaml::{Is, Node};
use super::names;
use crate::attributes::{Community, CommunityError, LargeCommunity, MOST_COMMUNITIES};
use crate::policy::{Requirement, Selector};
use crate::prefix::Prefix;
use crate::session::Restart;

pub(super) struct Fields {
    of: String,
    /// The keys above those that are looked at, each with a dot behind it.
    within: String,
    pub(super) flaws: Vec<Flaw>,
}

const SWITCH: &str = "accepted are true and false";

impl Fields {
    pub(super) fn of(of: &str) -> Self {
        Self { of: of.to_owned(), within: String::new(), flaws: Vec::new() }
    }

    /// From here on it is known whose they are.
    pub(super) fn called(&mut self, name: &str) {
        self.of = format!("{} ({name})", self.of);
    }

    pub(super) fn note(&mut self, flaw: Flaw) {
        if self.flaws.len() < MOST_FLAWS {
            self.flaws.push(flaw);
        }
    }

    pub(super) fn wrong(&mut self, field: &str, node: &Node, accepted: impl Into<String>) {
        let flaw = self.flaw(field, node, accepted);
        self.note(match node.text() {
            Some(text) => flaw.value(text),
            None => flaw,
        });
    }

    /// Something that was not said.
    pub(super) fn missing(&mut self, field: &str, node: &Node, accepted: &str) {
        self.say(field, node, format!("it is missing; {accepted}"));
    }

    /// Something of which what stands there is not shown.
    pub(super) fn say(&mut self, field: &str, node: &Node, accepted: impl Into<String>) {
        let flaw = self.flaw(field, node, accepted);
        self.note(flaw);
    }

    fn flaw(&self, field: &str, node: &Node, accepted: impl Into<String>) -> Flaw {
        Flaw::new(&self.of, &format!("{}{field}", self.within), node.place(), accepted)
    }

    /// Whether it has keys, and which of them are none.
    pub(super) fn map(&mut self, field: &str, node: &Node, known: &[&str]) -> bool {
        let Is::Map(entries) = &node.is else {
            self.wrong(field, node, format!("accepted are keys: {}", known.join(", ")));
            return false;
        };
        let of = self.within.strip_suffix('.').map(|above| format!(" of {above}"));
        for (key, _) in entries {
            if !key.text().is_some_and(|key| known.contains(&key)) {
                let field = format!("key{}", of.as_deref().unwrap_or_default());
                let accepted = format!("accepted are {}", known.join(", "));
                let flaw = Flaw::new(&self.of, &field, key.place(), accepted);
                self.note(flaw.value(key.text().unwrap_or_default()));
            }
        }
        true
    }

    /// What is read of the keys below a key, which all errors there name; nothing where it has none.
    pub(super) fn below<T>(
        &mut self,
        field: &str,
        node: &Node,
        known: &[&str],
        read: impl FnOnce(&mut Self) -> T,
    ) -> Option<T> {
        if !matches!(node.is, Is::Map(_)) {
            self.map(field, node, known);
            return None;
        }
        let above = self.within.len();
        self.within.push_str(&format!("{field}."));
        self.map(field, node, known);
        let result = read(self);
        self.within.truncate(above);
        Some(result)
    }

    /// What is below a key, unless that is nothing.
    pub(super) fn get<'n>(&self, node: &'n Node, key: &str) -> Option<&'n Node> {
        node.get(key).filter(|value| value.is != Is::Nothing)
    }

    pub(super) fn read<T>(
        &mut self,
        node: &Node,
        key: &str,
        accepted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let value = self.get(node, key)?;
        let parsed = value.text().and_then(read);
        if parsed.is_none() {
            self.wrong(key, value, accepted);
        }
        parsed
    }

    pub(super) fn parsed<T: FromStr>(
        &mut self,
        node: &Node,
        key: &str,
        accepted: &str,
    ) -> Option<T> {
        self.read(node, key, accepted, |text| text.parse().ok())
    }

    pub(super) fn number<T>(&mut self, node: &Node, key: &str, least: T, most: T) -> Option<T>
    where
        T: FromStr + PartialOrd + Copy + std::fmt::Display,
    {
        let accepted = format!("accepted is a whole number from {least} to {most}");
        self.read(node, key, &accepted, |text| {
            text.parse().ok().filter(|number| (least..=most).contains(number))
        })
    }

    pub(super) fn switch(&mut self, node: &Node, key: &str) -> Option<bool> {
        self.parsed(node, key, SWITCH)
    }

    pub(super) fn hold_time(&mut self, node: &Node) -> Option<u16> {
        self.read(node, "holdTime", "accepted are seconds: 0 for never, or 3 to 65535", hold_time)
    }

    /// `false` or `off`, or how long.
    pub(super) fn restart(&mut self, node: &Node) -> Option<Option<Restart>> {
        let value = self.get(node, "gracefulRestart")?;
        match value.text() {
            Some("false" | "off") => return Some(None),
            Some("true" | "on") => return Some(Some(Restart::default())),
            Some(_) => {
                self.wrong(
                    "gracefulRestart",
                    value,
                    "accepted are true, false, off, and keys: time, notification",
                );
                return None;
            }
            None => {}
        }
        let usual = Restart::default();
        self.below("gracefulRestart", value, &["time", "notification"], |fields| {
            Some(Restart {
                time: fields.number(value, "time", 1, 4095).unwrap_or(usual.time),
                notification: fields.switch(value, "notification").unwrap_or(usual.notification),
            })
        })
    }

    /// A port, or that with addresses.
    pub(super) fn listen(&mut self, node: &Node) -> Option<Listen> {
        let value = self.get(node, "listen")?;
        if value.text().is_some() {
            let port = self.number(node, "listen", 1, u16::MAX)?;
            return Some(Listen { port, within: Vec::new() });
        }
        let listen = self.below("listen", value, &["port", "addresses"], |fields| {
            let mut within = Vec::new();
            for (text, item) in fields.texts(value, "addresses") {
                let prefix = text.parse().or_else(|_| text.parse().map(Prefix::host));
                match prefix {
                    Ok(prefix) => within.push(prefix),
                    Err(_) => {
                        fields.wrong("addresses", item, "accepted are addresses and prefixes")
                    }
                }
            }
            let port = match fields.get(value, "port") {
                Some(_) => fields.number(value, "port", 1, u16::MAX)?,
                None => PORT,
            };
            Some(Listen { port, within })
        });
        listen.flatten()
    }

    /// The entries of a list.
    pub(super) fn items<'n>(&mut self, node: &'n Node, key: &str) -> &'n [Node] {
        match self.get(node, key) {
            None => &[],
            Some(Node { is: Is::List(items), .. }) => items,
            Some(other) => {
                self.wrong(key, other, "accepted is a list");
                &[]
            }
        }
    }

    /// The texts of a list.
    pub(super) fn texts<'n>(&mut self, node: &'n Node, key: &str) -> Vec<(&'n str, &'n Node)> {
        let mut texts = Vec::new();
        for item in self.items(node, key) {
            match item.text() {
                Some(text) => texts.push((text, item)),
                None => self.wrong(key, item, "accepted is a text"),
            }
        }
        texts
    }

    /// The texts of a list that are names of this kind.
    pub(super) fn names(
        &mut self,
        node: &Node,
        key: &str,
        accepted: &str,
        is_name: impl Fn(&str) -> bool,
    ) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        for (text, item) in self.texts(node, key) {
            match is_name(text) {
                true => _ = names.insert(text.to_owned()),
                false => self.wrong(key, item, accepted),
            }
        }
        names
    }

    /// Communities of either kind.
    pub(super) fn communities(
        &mut self,
        node: &Node,
    ) -> (BTreeSet<Community>, BTreeSet<LargeCommunity>) {
        let (mut communities, mut large) = (BTreeSet::new(), BTreeSet::new());
        for (text, item) in self.texts(node, "communities") {
            match (text.parse::<Community>(), text.parse::<LargeCommunity>()) {
                (Ok(community), _) => _ = communities.insert(community),
                (_, Ok(community)) => _ = large.insert(community),
                _ => self.wrong("communities", item, CommunityError.to_string()),
            }
        }
        if communities.len().max(large.len()) > MOST_COMMUNITIES {
            self.wrong(
                "communities",
                node,
                format!("accepted are {MOST_COMMUNITIES} of each kind"),
            );
        }
        (communities, large)
    }

    /// A label selector.
    pub(super) fn selector(&mut self, node: &Node, key: &str) -> Option<Selector> {
        let value = self.get(node, key)?;
        self.below(key, value, &["matchLabels", "matchExpressions"], |fields| {
            let mut selector = Selector { labels: fields.labels(value), ..Selector::default() };
            for item in fields.items(value, "matchExpressions") {
                let known = ["key", "operator", "values"];
                let read = |fields: &mut Self| fields.requirement(item);
                let requirement = fields.below("matchExpressions", item, &known, read);
                selector.requirements.extend(requirement.flatten());
            }
            selector
        })
    }

    fn labels(&mut self, node: &Node) -> BTreeMap<String, String> {
        let mut labels = BTreeMap::new();
        let Some(value) = self.get(node, "matchLabels") else { return labels };
        let Is::Map(entries) = &value.is else {
            self.wrong("matchLabels", value, "accepted are labels, as keys with values");
            return labels;
        };
        for (label, wanted) in entries {
            let text = if wanted.is == Is::Nothing { Some("") } else { wanted.text() };
            match (label.text(), text) {
                (Some(key), _) if !names::is_label_key(key) => {
                    self.wrong("matchLabels", label, names::LABEL_KEY);
                }
                (Some(key), Some(text)) if names::is_label_value(text) => {
                    labels.insert(key.to_owned(), text.to_owned());
                }
                _ => self.wrong("matchLabels", wanted, names::LABEL_VALUE),
            }
        }
        labels
    }

    fn requirement(&mut self, node: &Node) -> Option<Requirement> {
        if self.get(node, "key").is_none() {
            self.missing("key", node, names::LABEL_KEY);
        }
        let is_key = |text: &str| Some(text.to_owned()).filter(|key| names::is_label_key(key));
        let key = self.read(node, "key", names::LABEL_KEY, is_key)?;
        let values = self.names(node, "values", names::LABEL_VALUE, names::is_label_value);
        let accepted = "accepted are In and NotIn with values, Exists and DoesNotExist without";
        let operator =
            self.read(node, "operator", accepted, |text| match (text, values.is_empty()) {
                ("In", false) => Some(Requirement::In(key.clone(), values.clone())),
                ("NotIn", false) => Some(Requirement::NotIn(key.clone(), values.clone())),
                ("Exists", true) => Some(Requirement::Exists(key.clone())),
                ("DoesNotExist", true) => Some(Requirement::DoesNotExist(key.clone())),
                _ => None,
            });
        if self.get(node, "operator").is_none() {
            self.missing("operator", node, accepted);
        }
        operator
    }
}
