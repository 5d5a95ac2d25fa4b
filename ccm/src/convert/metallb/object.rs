//! What every object has.

use std::collections::BTreeMap;

use serde_json::Value;

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

/// Kind, namespace and name.
pub(super) fn title(object: &Value) -> String {
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
