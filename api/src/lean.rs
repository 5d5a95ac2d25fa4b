//! Objects of which only what is read stays, from the moment each is decoded: a page of a list, or the answer to a write,
//! holds whole no more than one of them. A user may write a megabyte and a half into one, and decoded a list of short
//! texts is seven times as large.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube_core::Resource;
use serde::{Deserialize, Deserializer};

use crate::names::label;

/// The labels that are read.
const LABELS: [&str; 3] = [label::IMPLEMENTATION, label::PROXY_NAME, label::HEADLESS];

/// How an object is cut down, and what is taken of it before.
pub trait Take<K>: Sized {
    /// Takes it, and leaves what is read of the object besides.
    fn take(object: &mut K) -> Self;
}

impl<K: Resource> Take<K> for () {
    fn take(object: &mut K) {
        strip(object.meta_mut());
    }
}

/// Leaves of the metadata what is read of objects that users make: not finalizers, owners, most labels and the fields of
/// managers.
pub fn strip(metadata: &mut ObjectMeta) {
    metadata.finalizers = None;
    metadata.owner_references = None;
    if let Some(labels) = &mut metadata.labels {
        labels.retain(|key, _| LABELS.contains(&key.as_str()));
    }
    for manager in metadata.managed_fields.iter_mut().flatten() {
        manager.fields_v1 = None;
    }
}

/// An object as far as it is read, and what was taken of the rest. It cannot be written back.
#[derive(Clone, Debug)]
pub struct Lean<K, T = ()> {
    /// The object.
    pub object: K,
    /// What was taken.
    pub taken: T,
}

impl<K: Resource, T: Take<K>> From<K> for Lean<K, T> {
    fn from(mut object: K) -> Self {
        let taken = T::take(&mut object);
        Self { object, taken }
    }
}

impl<'de, K: Deserialize<'de> + Resource, T: Take<K>> Deserialize<'de> for Lean<K, T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        K::deserialize(deserializer).map(Self::from)
    }
}

impl<K: Resource, T> Resource for Lean<K, T> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        self.object.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.object.meta_mut()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::coordination::v1::Lease;
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_user_fills_with_more_than_a_megabyte_is_dropped_when_it_is_decoded() {
        let finalizers: Vec<_> = (0..127_000).map(|n| format!("a/{n:06}")).collect();
        let labels: std::collections::BTreeMap<_, _> =
            (0..60_000).map(|n| (format!("a{n:06}"), "")).collect();
        let owner = json!({ "apiVersion": "v1", "kind": "A", "name": "a", "uid": "a" });
        let lease = json!({
            "metadata": {
                "namespace": "shop",
                "name": "web",
                "finalizers": finalizers,
                "labels": labels,
                "ownerReferences": vec![owner; 20_000],
                "managedFields": [{ "manager": "kubectl", "fieldsV1": { "f:metadata": { "f:finalizers": finalizers } } }],
            },
            "spec": { "holderIdentity": "a" },
        });
        let page = json!({
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "LeaseList",
            "metadata": {},
            "items": [lease],
        })
        .to_string();
        assert!(page.len() > 1_400_000, "{}", page.len());
        let list: kube_core::ObjectList<Lean<Lease>> = serde_json::from_str(&page).unwrap();
        let kept = format!("{list:?}").len();
        assert!(kept < 2_000, "{kept}");
        let lease = &list.items[0].object;
        assert_eq!(lease.spec.as_ref().unwrap().holder_identity.as_deref(), Some("a"));
        assert_eq!(
            lease.metadata.managed_fields.as_ref().unwrap()[0].manager.as_deref(),
            Some("kubectl")
        );
    }
}
