//! Label selectors, as Kubernetes has them (`metav1.LabelSelector`).

use std::collections::{BTreeMap, BTreeSet};

/// Which objects are meant, by their labels. An empty one means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels that are like this.
    pub labels: BTreeMap<String, String>,
    /// What else is to hold.
    pub requirements: Vec<Requirement>,
}

/// What is to hold of one label.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// It is there and is one of these.
    In(String, BTreeSet<String>),
    /// It is not there, or is none of these.
    NotIn(String, BTreeSet<String>),
    /// It is there.
    Exists(String),
    /// It is not there.
    DoesNotExist(String),
}

impl Selector {
    /// Whether an object with these labels is meant.
    pub fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = |key: &str| labels.get(key);
        let holds = |requirement: &Requirement| match requirement {
            Requirement::In(key, values) => value(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => {
                value(key).is_none_or(|value| !values.contains(value))
            }
            Requirement::Exists(key) => value(key).is_some(),
            Requirement::DoesNotExist(key) => value(key).is_none(),
        };
        self.labels.iter().all(|(key, wanted)| value(key) == Some(wanted))
            && self.requirements.iter().all(holds)
    }

    /// Whether it means all.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selector_means_what_it_means_in_kubernetes() {
        let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        let key = |key: &str| key.to_owned();
        let cases = [
            (Requirement::In(key("rack"), values(&["a", "b"])), true),
            (Requirement::In(key("row"), values(&["a"])), false),
            (Requirement::NotIn(key("rack"), values(&["a"])), false),
            (Requirement::NotIn(key("row"), values(&["a"])), true),
            (Requirement::Exists(key("rack")), true),
            (Requirement::DoesNotExist(key("rack")), false),
            (Requirement::DoesNotExist(key("row")), true),
        ];
        for (requirement, expected) in cases {
            let selector = Selector { requirements: vec![requirement], ..Selector::default() };
            assert_eq!(selector.selects(&labels), expected, "{selector:?}");
        }
        assert!(Selector::default().is_all() && Selector::default().selects(&BTreeMap::new()));
        let exact = Selector { labels: labels.clone(), ..Selector::default() };
        assert!(exact.selects(&labels) && !exact.selects(&BTreeMap::new()));
    }
}
