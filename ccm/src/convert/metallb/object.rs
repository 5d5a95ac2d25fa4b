//! What every object has.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::convert::finding::{Told, shown};

/// The group of its API; empty for that of Services and ConfigMaps.
pub(super) fn group(object: &Value) -> &str {
    let version = object["apiVersion"].as_str().unwrap_or_default();
    version.split_once('/').map_or("", |(group, _)| group)
}

/// Whether MetalLB, which runs in the namespace `home`, has it: a file of one's own may name no namespace.
pub(super) fn is_in(object: &Value, home: &str) -> bool {
    object["metadata"]["namespace"].as_str().is_none_or(|namespace| namespace == home)
}

/// Its name.
pub(super) fn name(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap_or("without a name").to_owned()
}

/// The entries of a list; what is none is told, and has none.
pub(super) fn list<'v>(value: &'v Value, field: &str, told: &mut Told<'_>) -> &'v [Value] {
    match value {
        Value::Array(entries) => entries,
        Value::Null => &[],
        other => {
            told.lost(field, format!("{} is not read: accepted is a list", shown(other)));
            &[]
        }
    }
}

/// Whether it is true; what is neither true nor false is told, and is what `unread` says.
pub(super) fn switch(
    value: &Value,
    field: &str,
    (unset, unread): (bool, bool),
    told: &mut Told<'_>,
) -> bool {
    match value {
        Value::Bool(is) => *is,
        Value::Null => unset,
        other => {
            let says =
                format!("{} is taken for {unread}: accepted are true and false", shown(other));
            told.lost(field, says);
            unread
        }
    }
}

/// Kind, namespace and name, on one line whatever is in them. Of an entry of a ConfigMap, that one and its own name.
pub(super) fn title(object: &Value) -> String {
    if let Some(map) = object["of"].as_str() {
        return format!("{map}, pool {}", name(object)).replace(char::is_control, "?");
    }
    let kind = object["kind"].as_str().unwrap_or_default();
    let namespace = object["metadata"]["namespace"].as_str();
    let namespace = namespace.map(|namespace| format!("{namespace}/")).unwrap_or_default();
    format!("{kind} {namespace}{}", name(object))
}

/// The strings of a mapping.
pub(super) fn strings(value: &Value) -> BTreeMap<String, String> {
    let members = value.as_object().into_iter().flatten();
    members.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

/// Its labels.
pub(super) fn labels(object: &Value) -> BTreeMap<String, String> {
    strings(&object["metadata"]["labels"])
}
