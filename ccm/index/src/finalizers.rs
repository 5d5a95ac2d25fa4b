//! Owns what is kept of `metadata.finalizers`: ours, and that there are others. A user may write a hundred thousand.

use berth_api::eip::condition::ANNOUNCED;
use berth_api::eip::{self, EipBinding};
use berth_api::lean::{Take, strip};
use berth_api::limits::MOST_PORTS;
use berth_api::names::{condition, finalizer};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// How many an API server merges well: its strategic merge compares each with each
/// (k8s.io/apimachinery/pkg/util/strategicpatch, `deduplicateScalars`).
const CROWD: u32 = 64;

/// The finalizers of an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Finalizers {
    /// Where ours is in the list, counted from zero.
    pub ours: Option<u32>,
    /// How many there are besides.
    pub others: u32,
}

impl Finalizers {
    fn read(metadata: &ObjectMeta, ours: &str) -> Self {
        let all = metadata.finalizers.as_deref().unwrap_or_default();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let ours = all.iter().position(|name| name == ours).map(count);
        Self { ours, others: count(all.len()) - u32::from(ours.is_some()) }
    }

    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.ours.is_none() && self.others == 0
    }

    /// Whether there are more than an API server merges well.
    pub fn is_crowd(self) -> bool {
        self.others > CROWD
    }

    /// The same with ours, or without.
    pub fn with(self, ours: bool) -> Self {
        Self { ours: ours.then_some(self.ours.unwrap_or(self.others)), ..self }
    }
}

impl Take<Service> for Finalizers {
    fn take(object: &mut Service) -> Self {
        // One more than it may have to share its addresses.
        if let Some(ports) = object.spec.as_mut().and_then(|spec| spec.ports.as_mut()) {
            cut(ports, MOST_PORTS + 1);
        }
        if let Some(shown) = object.status.as_mut().and_then(|status| status.conditions.as_mut()) {
            let read =
                [condition::ADDRESS_ALLOCATED, condition::ANNOUNCED, condition::ADDRESS_CONFLICT];
            shown.retain(|shown| read.contains(&shown.type_.as_str()));
            // Each type once, as the API server sees to.
            cut(shown, read.len());
        }
        let seen = Self::read(&object.metadata, finalizer::LOAD_BALANCER_CLEANUP);
        strip(&mut object.metadata);
        seen
    }
}

impl Take<EipBinding> for Finalizers {
    fn take(object: &mut EipBinding) -> Self {
        let by = object.status.as_ref().and_then(|status| status.node.as_deref());
        let is_told = by.is_some_and(|node| eip::says(&object.metadata, node, ANNOUNCED));
        if let Some(status) = &mut object.status {
            let ours = [eip::condition::ALLOCATED, eip::condition::READY];
            status.conditions.retain(|shown| {
                let is_theirs = is_told && shown.type_ == ANNOUNCED && shown.status == "False";
                is_theirs || ours.contains(&shown.type_.as_str())
            });
            cut(&mut status.conditions, ours.len() + 1);
        }
        let seen = Self::read(&object.metadata, eip::finalizer::RELEASE);
        strip(&mut object.metadata);
        seen
    }
}

fn cut<T>(list: &mut Vec<T>, most: usize) {
    list.truncate(most);
    list.shrink_to_fit();
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn of_an_elastic_ip_only_the_word_of_the_announcer_of_its_node_is_kept_and_only_that_it_does_not_answer()
     {
        let kept = |node: &str, status: &str| {
            let condition = |kind: &str| {
                json!({
                    "type": kind, "status": status, "reason": "X", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                })
            };
            let conditions = ["Bound", "Announced", "Ready"].map(condition);
            let by =
                json!({ "f:status": { "f:conditions": { "k:{\"type\":\"Announced\"}": {} } } });
            let mut object = serde_json::from_value(json!({
                "apiVersion": "berth.dev/v1alpha1", "kind": "EipBinding",
                "metadata": { "name": "vm", "managedFields": [
                    { "manager": "berth-announcer-a", "subresource": "status", "fieldsV1": by },
                ] },
                "spec": { "vmi": "vm" },
                "status": { "node": node, "conditions": conditions },
            }))
            .unwrap();
            Finalizers::take(&mut object);
            let EipBinding { status, metadata, .. } = object;
            let managers = metadata.managed_fields.unwrap_or_default();
            assert!(managers.iter().all(|manager| manager.fields_v1.is_none()));
            let conditions = status.unwrap().conditions.into_iter();
            conditions.map(|shown| shown.type_).collect::<Vec<_>>()
        };
        assert_eq!(kept("a", "False"), ["Announced", "Ready"]);
        assert_eq!(kept("a", "True"), ["Ready"]);
        assert_eq!(kept("b", "False"), ["Ready"], "it is of the node before");
    }
}
