//! Owns reading a ConfigMap out of a file as people keep it: YAML of one or many documents, or what kubectl prints. A
//! value that the API server would not take is never passed over.

use std::collections::BTreeMap;

use berth_api::{NamespacedName, limits};
use berth_ipam::KeyError;
use serde_json::{Map, Value};

/// The ConfigMap of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Its name, and its namespace if the file says one.
    pub name: String,
    /// Its namespace, if the file says one.
    pub namespace: Option<String>,
    /// Its data, as text.
    pub data: BTreeMap<String, String>,
    /// The keys whose values are no text, so that the API server refuses the ConfigMap.
    pub not_text: Vec<KeyError>,
}

/// How many objects are named of a file that has none of those that are wanted.
const NAMED: usize = 10;

/// Why there is no ConfigMap to look at.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// The text is not readable.
    #[error("it is neither YAML nor JSON: {0}")]
    Unreadable(String),
    /// Other objects, or none.
    #[error("it has no ConfigMap, but {0}")]
    NoConfigMap(String),
    /// Several ConfigMaps, none of which is the one of the pools.
    #[error("it has the ConfigMaps {found}, and none of them is {wanted}")]
    Several {
        /// Their names.
        found: String,
        /// The one that would have been taken.
        wanted: NamespacedName,
    },
    /// More than one that could be meant: the same twice, or one name in several namespaces.
    #[error(
        "it has several ConfigMaps that could be meant, {0}: leave one in it, or say by KUBEVIP_NAMESPACE which"
    )]
    Twice(String),
    /// `data` is a list or a text.
    #[error(
        "ConfigMap {name}: field `data`: {found} is not accepted; accepted is a mapping of keys to text"
    )]
    NoMapping {
        /// Its name.
        name: String,
        /// What is there.
        found: String,
    },
}

/// Finds the ConfigMap in the text: the only one, or else the one that is `wanted`, in whatever namespace unless that is
/// `in_namespace`. One without a namespace fits any.
///
/// # Errors
/// When there is none to look at.
pub fn read(
    text: &str,
    wanted: &NamespacedName,
    in_namespace: bool,
) -> Result<Manifest, ManifestError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| ManifestError::Unreadable(error.to_string()))?;
    let objects: Vec<&Value> = documents.iter().flat_map(items).collect();
    let maps: Vec<&Value> =
        objects.iter().copied().filter(|object| object["kind"] == "ConfigMap").collect();
    if let [only] = maps[..] {
        return manifest(only);
    }
    let has_name = |map: &&&Value| map["metadata"]["name"] == *wanted.name;
    let is_wanted = |map: &&&Value| {
        let namespace = map["metadata"]["namespace"].as_str();
        has_name(map) && namespace.is_none_or(|namespace| namespace == wanted.namespace)
    };
    let elsewhere = !in_namespace && !maps.iter().any(|map| is_wanted(&map));
    let fits = |map: &&&Value| is_wanted(map) || elsewhere && has_name(map);
    let fitting: Vec<&Value> = maps.iter().filter(fits).copied().collect();
    match fitting[..] {
        [map] => manifest(map),
        [_, _, ..] => Err(ManifestError::Twice(listed(&fitting))),
        [] if maps.is_empty() => Err(ManifestError::NoConfigMap(listed(&objects))),
        [] => Err(ManifestError::Several { found: listed(&maps), wanted: wanted.clone() }),
    }
}

/// The objects of a document: those of a List, as kubectl prints several, or itself.
pub(crate) fn items(document: &Value) -> Vec<&Value> {
    match document {
        Value::Null => Vec::new(),
        Value::Object(_)
            if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) =>
        {
            document["items"].as_array().into_iter().flatten().collect()
        }
        _ => vec![document],
    }
}

fn manifest(map: &Value) -> Result<Manifest, ManifestError> {
    let name = full_name(map);
    let empty = Map::new();
    let values = match &map["data"] {
        Value::Object(values) => values,
        Value::Null => &empty,
        other => return Err(ManifestError::NoMapping { name, found: format!("`{other}`") }),
    };
    let (mut data, mut not_text) = (BTreeMap::new(), Vec::new());
    for (key, value) in values {
        let text = match value {
            Value::String(text) => text.clone(),
            // Kubernetes reads a missing value as an empty one.
            Value::Null => String::new(),
            other => {
                not_text.push(KeyError {
                    key: key.clone(),
                    value: other.to_string(),
                    problem: "it is no text, and the API server refuses the whole ConfigMap"
                        .to_owned(),
                    accepted: "the value in quotes",
                });
                other.to_string()
            }
        };
        data.insert(key.clone(), text);
    }
    let namespace = map["metadata"]["namespace"].as_str().filter(|name| limits::is_namespace(name));
    Ok(Manifest { name, namespace: namespace.map(str::to_owned), data, not_text })
}

fn full_name(object: &Value) -> String {
    let metadata = &object["metadata"];
    let name = metadata["name"].as_str().unwrap_or("without a name");
    metadata["namespace"]
        .as_str()
        .map_or(name.to_owned(), |namespace| format!("{namespace}/{name}"))
}

/// Objects by kind and name, as a message has them.
pub(crate) fn listed(objects: &[&Value]) -> String {
    if objects.is_empty() {
        return "nothing at all".to_owned();
    }
    let named = |object: &&Value| match object["kind"].as_str() {
        Some("ConfigMap") => full_name(object),
        Some(kind) => format!("{kind} {}", full_name(object)),
        None => "something without a kind".to_owned(),
    };
    let more = match objects.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    objects.iter().take(NAMED).map(named).collect::<Vec<_>>().join(", ") + &more
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted() -> NamespacedName {
        NamespacedName { namespace: "kube-system".to_owned(), name: "kubevip".to_owned() }
    }

    fn data(text: &str) -> BTreeMap<String, String> {
        read(text, &wanted(), true).unwrap().data
    }

    const POOLS: &str = "
apiVersion: v1
kind: ConfigMap
metadata:
  name: kubevip
  namespace: kube-system
data:
  cidr-global: 192.0.2.0/24,2001:db8::/112   # both families
  range-shop: '198.51.100.10-198.51.100.20'
";

    fn pools() -> BTreeMap<String, String> {
        [
            ("cidr-global", "192.0.2.0/24,2001:db8::/112"),
            ("range-shop", "198.51.100.10-198.51.100.20"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
    }

    #[test]
    fn the_only_configmap_is_taken_whatever_its_name() {
        let manifest =
            read(POOLS, &NamespacedName { namespace: "a".to_owned(), name: "b".to_owned() }, true)
                .unwrap();
        assert_eq!(manifest.name, "kube-system/kubevip");
        assert_eq!((manifest.data, manifest.not_text), (pools(), Vec::new()));
    }

    #[test]
    fn of_many_documents_the_pools_are_found() {
        let others = "kind: Secret\nmetadata: {name: s}\n---\nkind: ConfigMap\nmetadata: {name: other}\ndata: {a: b}\n---";
        assert_eq!(data(&format!("---\n{others}{POOLS}---\n")), pools());
        let own = POOLS.replace("namespace: kube-system", "namespace: berth");
        let both = format!("---\n{others}{own}");
        let found = read(&both, &wanted(), false).unwrap();
        assert_eq!((found.data, found.namespace.as_deref()), (pools(), Some("berth")));
        assert!(read(&both, &wanted(), true).is_err());
        let twice = format!("{POOLS}---{POOLS}");
        let told = Err(ManifestError::Twice("kube-system/kubevip, kube-system/kubevip".to_owned()));
        assert_eq!(read(&twice, &wanted(), true), told);
        let elsewhere = format!("{own}---{}", own.replace("namespace: berth", "namespace: lan"));
        let told = Err(ManifestError::Twice("berth/kubevip, lan/kubevip".to_owned()));
        assert_eq!(read(&elsewhere, &wanted(), false), told);
    }

    #[test]
    fn what_kubectl_prints_is_read() {
        let object = serde_json::json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": pools(),
            "metadata": { "name": "kubevip", "namespace": "kube-system", "resourceVersion": "7", "managedFields": [] },
        });
        assert_eq!(data(&serde_json::to_string_pretty(&object).unwrap()), pools());
        let other = serde_json::json!({ "kind": "ConfigMap", "metadata": { "name": "kubevip", "namespace": "a" } });
        let list =
            serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [other, object] });
        assert_eq!(data(&list.to_string()), pools());
    }

    #[test]
    fn a_value_that_is_no_text_is_named_for_the_api_server_refuses_it() {
        let text = "kind: ConfigMap\nmetadata: {name: kubevip}\ndata:\n  quota-a: 20\n  allow-share-a: yes\n  cidr-a:\n";
        let manifest = read(text, &wanted(), true).unwrap();
        let named: Vec<_> = manifest
            .not_text
            .iter()
            .map(|error| (error.key.as_str(), error.value.as_str()))
            .collect();
        assert_eq!(named, [("allow-share-a", "true"), ("quota-a", "20")]);
        assert_eq!(manifest.data["quota-a"], "20");
        assert_eq!(manifest.data["cidr-a"], "");
    }

    #[test]
    fn what_cannot_be_looked_at_is_said() {
        let problem = |text: &str| read(text, &wanted(), true).unwrap_err().to_string();
        assert_eq!(problem("# nothing\n"), "it has no ConfigMap, but nothing at all");
        assert_eq!(
            problem("kind: Pod\nmetadata: {name: web}\n"),
            "it has no ConfigMap, but Pod web"
        );
        assert_eq!(problem("[1, 2]"), "it has no ConfigMap, but something without a kind");
        let two = "kind: ConfigMap\nmetadata: {name: a}\n---\nkind: ConfigMap\nmetadata: {name: b, namespace: c}\n";
        assert_eq!(
            problem(two),
            "it has the ConfigMaps a, c/b, and none of them is kube-system/kubevip"
        );
        let list = "kind: ConfigMap\nmetadata: {name: kubevip}\ndata: [a]\n";
        assert_eq!(
            problem(list),
            r#"ConfigMap kubevip: field `data`: `["a"]` is not accepted; accepted is a mapping of keys to text"#
        );
        for text in ["kind: ConfigMap\ndata: {cidr-a: 1, cidr-a: 2}\n", "a: [b\n", "{ \"kind\": "] {
            assert!(
                problem(text).starts_with("it is neither YAML nor JSON: "),
                "{text}: {}",
                problem(text)
            );
        }
    }
}
