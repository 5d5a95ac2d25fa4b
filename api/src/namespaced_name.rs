//! Owns the name of an object that is in a namespace.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Namespace and name, as `types.NamespacedName` of k8s.io/apimachinery. Shown as `namespace/name`.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespacedName {
    /// The namespace; empty for an object that is in none.
    pub namespace: String,
    /// The name.
    pub name: String,
}

impl NamespacedName {
    /// The object `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The name in an object's metadata. What is missing there is empty.
    pub fn of(metadata: &ObjectMeta) -> Self {
        let text = |field: &Option<String>| field.clone().unwrap_or_default();
        Self { namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }

    /// The same, if both are there, as on any object in a namespace that an API server shows.
    pub fn read(metadata: &ObjectMeta) -> Option<Self> {
        Some(Self { namespace: metadata.namespace.clone()?, name: metadata.name.clone()? })
    }
}

impl fmt::Display for NamespacedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_object_with_both_has_a_namespaced_name() {
        let mut metadata = ObjectMeta { name: Some("web".to_owned()), ..Default::default() };
        assert_eq!(NamespacedName::read(&metadata), None);
        assert_eq!(NamespacedName::of(&metadata), NamespacedName::new("", "web"));
        metadata.namespace = Some("shop".to_owned());
        let name = NamespacedName::read(&metadata).unwrap();
        assert_eq!(
            (name.to_string(), &name),
            ("shop/web".to_owned(), &NamespacedName::of(&metadata))
        );
    }
}
