//! Owns the form of [`annotation::PREFERRED_NODES`](crate::names::annotation::PREFERRED_NODES): which nodes should hold
//! the addresses of a Service if they can.

use std::collections::BTreeMap;
use std::str::FromStr;

use crate::short;

/// A node by its name, or all nodes with a label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preference {
    /// `name`.
    Node(String),
    /// `key=value`.
    Label(String, String),
}

/// What is neither a name nor `key=value`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{:?} is neither the name of a node nor `label=value`", short(.0))]
pub struct InvalidPreference(pub String);

impl FromStr for Preference {
    type Err = InvalidPreference;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The characters of names, and of label keys and values (k8s.io/apimachinery/pkg/util/validation).
        let is_word = |word: &str, more: &str| {
            let fits = |c: char| c.is_ascii_alphanumeric() || more.contains(c);
            !word.is_empty() && word.chars().all(fits)
        };
        match text.split_once('=') {
            None if is_word(text, "-.") => Ok(Self::Node(text.to_owned())),
            Some((key, value)) if is_word(key, "-._/") && is_word(value, "-._") => {
                Ok(Self::Label(key.to_owned(), value.to_owned()))
            }
            _ => Err(InvalidPreference(text.to_owned())),
        }
    }
}

impl Preference {
    /// Reads a comma list: what can be read, and what cannot.
    pub fn list(text: &str) -> (Vec<Self>, Vec<InvalidPreference>) {
        let (mut read, mut invalid) = (Vec::new(), Vec::new());
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            match entry.parse() {
                Ok(preference) => read.push(preference),
                Err(error) => invalid.push(error),
            }
        }
        (read, invalid)
    }

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
        let (read, invalid) =
            Preference::list("node-1, topology.kubernetes.io/zone=a,,a=b=c, =a, n/1,rack=");
        let expected = [
            Preference::Node("node-1".to_owned()),
            Preference::Label("topology.kubernetes.io/zone".to_owned(), "a".to_owned()),
        ];
        assert_eq!(read, expected);
        let invalid: Vec<&str> = invalid.iter().map(|invalid| invalid.0.as_str()).collect();
        assert_eq!(invalid, ["a=b=c", "=a", "n/1", "rack="]);
    }

    #[test]
    fn a_node_is_meant_by_its_name_or_by_a_label() {
        let labels = [("rack".to_owned(), "2".to_owned())].into();
        let means = |text: &str| text.parse::<Preference>().unwrap().means("node-1", &labels);
        assert!(means("node-1") && means("rack=2"));
        assert!(!means("node-2") && !means("rack=1") && !means("node-1=2"));
    }
}
