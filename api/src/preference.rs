//! Owns the form of [`annotation::PREFERRED_NODES`](crate::names::annotation::PREFERRED_NODES): which nodes should hold
//! the addresses of a Service if they can.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::Few;
use crate::limits::{MOST_PREFERENCES, is_label_key, is_label_value, is_node_name};

/// A node by its name, or all nodes with a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preference {
    /// `name`.
    Node(String),
    /// `key=value`.
    Label(String, String),
}

/// What is neither a name nor `key=value`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither the name of a node nor `label=value`")]
pub struct InvalidPreference;

impl FromStr for Preference {
    type Err = InvalidPreference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            None if is_node_name(text) => Ok(Self::Node(text.to_owned())),
            Some((key, value)) if is_label_key(key) && is_label_value(value) => {
                Ok(Self::Label(key.to_owned(), value.to_owned()))
            }
            _ => Err(InvalidPreference),
        }
    }
}

/// What a list of preferences says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Preferences {
    /// The first [`MOST_PREFERENCES`] of those that can be read.
    pub read: Vec<Preference>,
    /// How many there are besides.
    pub more: usize,
    /// Those that cannot be read.
    pub invalid: Few,
}

impl Preferences {
    /// Reads a comma list.
    pub fn parse(text: &str) -> Self {
        let mut list = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.parse() {
                Ok(_) if list.read.len() == MOST_PREFERENCES => list.more += 1,
                Ok(preference) => list.read.push(preference),
                Err(InvalidPreference) => list.invalid.push(entry),
            }
        }
        list
    }
}

impl Preference {
    /// Whether it means a node with this name and these labels.
    pub fn means(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        match self {
            Self::Node(node) => node == name,
            Self::Label(key, value) => labels.get(key) == Some(value),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_labels_are_told_apart_and_what_is_neither_hides_no_other() {
        let list =
            Preferences::parse("node-1, topology.kubernetes.io/zone=a,,a=b=c, =a, n/1,rack=");
        let expected = [
            Preference::Node("node-1".to_owned()),
            Preference::Label("topology.kubernetes.io/zone".to_owned(), "a".to_owned()),
        ];
        assert_eq!((&list.read[..], list.more), (&expected[..], 0));
        assert_eq!(list.invalid.to_string(), r#""a=b=c", "=a", "n/1" and 1 more"#);
    }

    #[test]
    fn of_very_many_sixteen_are_kept_and_the_others_are_counted() {
        let list = Preferences::parse(&"a,".repeat(131_000));
        assert_eq!((list.read.len(), list.more), (16, 131_000 - 16));
        let list = Preferences::parse(&"!a,".repeat(87_000));
        assert_eq!((list.read.len(), list.invalid), (0, vec!["!a"; 87_000].into_iter().collect()));
        let long = "a".repeat(254);
        assert_eq!(Preferences::parse(&format!("{long},a={long},{long}=a")).read, []);
    }

    #[test]
    fn a_node_is_meant_by_its_name_or_by_a_label() {
        let labels = [("rack".to_owned(), "2".to_owned())].into();
        let means = |text: &str| text.parse::<Preference>().unwrap().means("node-1", &labels);
        assert!(means("node-1") && means("rack=2"));
        assert!(!means("node-2") && !means("rack=1") && !means("node-1=2"));
    }
}
