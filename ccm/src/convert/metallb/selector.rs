//! Label selectors, as Kubernetes reads them (`metav1.LabelSelector`).

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// What is said where one cannot be read.
pub(super) const UNREAD: &str = "a selector cannot be read: accepted is a list of matchLabels and matchExpressions, whose operators are In, NotIn, Exists and \
     DoesNotExist";

/// What labels have to be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Selector(Vec<(String, Want)>);

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Want {
    In(BTreeSet<String>),
    NotIn(BTreeSet<String>),
    Exists,
    Absent,
}

impl Selector {
    /// Reads one; nothing where an operator is none. An empty one selects everything.
    pub(super) fn read(value: &Value) -> Option<Self> {
        let mut wants = Vec::new();
        for (key, value) in value["matchLabels"].as_object().into_iter().flatten() {
            wants.push((key.clone(), Want::In([value.as_str()?.to_owned()].into())));
        }
        for expression in value["matchExpressions"].as_array().into_iter().flatten() {
            let values = expression["values"].as_array().into_iter().flatten();
            let values = values.filter_map(|value| Some(value.as_str()?.to_owned())).collect();
            let want = match expression["operator"].as_str()? {
                "In" => Want::In(values),
                "NotIn" => Want::NotIn(values),
                "Exists" => Want::Exists,
                "DoesNotExist" => Want::Absent,
                _ => return None,
            };
            wants.push((expression["key"].as_str()?.to_owned(), want));
        }
        Some(Self(wants))
    }

    /// Reads a list of them, each of which is enough; nothing where one cannot be read.
    pub(super) fn list(value: &Value) -> Option<Vec<Self>> {
        match value {
            Value::Array(entries) => entries.iter().map(Self::read).collect(),
            Value::Null => Some(Vec::new()),
            _ => None,
        }
    }

    /// Whether it selects an object with these labels.
    pub(super) fn selects(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|(key, want)| {
            let value = labels.get(key);
            match want {
                Want::In(values) => value.is_some_and(|value| values.contains(value)),
                Want::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
                Want::Exists => value.is_some(),
                Want::Absent => value.is_none(),
            }
        })
    }

    /// The same nodes as `label=value`, each of which is enough; nothing where that cannot be said so.
    pub(super) fn preferences(&self) -> Option<Vec<String>> {
        match &self.0[..] {
            [(key, Want::In(values))] => {
                Some(values.iter().map(|value| format!("{key}={value}")).collect())
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn selects(selector: Value, labels: &[(&str, &str)]) -> bool {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Selector::read(&selector).unwrap().selects(&labels.collect())
    }

    #[test]
    fn a_selector_selects_as_kubernetes_says() {
        let zone = |operator: &str| json!({ "matchExpressions": [{ "key": "zone", "operator": operator, "values": ["a", "b"] }] });
        assert!(selects(json!({}), &[]));
        assert!(selects(json!({ "matchLabels": { "zone": "a" } }), &[("zone", "a"), ("x", "y")]));
        assert!(!selects(json!({ "matchLabels": { "zone": "a", "x": "z" } }), &[("zone", "a")]));
        assert!(selects(zone("In"), &[("zone", "b")]) && !selects(zone("In"), &[]));
        assert!(selects(zone("NotIn"), &[]) && !selects(zone("NotIn"), &[("zone", "b")]));
        assert!(selects(zone("Exists"), &[("zone", "c")]) && !selects(zone("Exists"), &[]));
        assert!(selects(zone("DoesNotExist"), &[]));
        assert_eq!(Selector::read(&zone("Near")), None);
    }
}
