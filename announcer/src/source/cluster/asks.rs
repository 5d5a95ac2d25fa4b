//! What a Service asks to be told to routers of its addresses, and its labels, by which rules of the operator go. Both are
//! wishes of whoever edits it: what comes of them is the operator's to say.

use std::collections::BTreeMap;
use std::sync::Arc;

use berth_api::lean::{Take, strip};
use berth_api::limits::MOST_LABELS;
use berth_api::{Quoted, service};
use berth_bgp::Asked;
use berth_bgp::config::{Flaw, asked, misspelt};
use k8s_openapi::api::core::v1 as core;
use kube::Resource;

use crate::vip::Refusal;

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Asks {
    /// As far as it can be read.
    pub asked: Asked,
    /// What cannot.
    pub wrong: Vec<Refusal>,
}

impl Asks {
    pub(super) fn read(object: &core::Service) -> Arc<Self> {
        let (asked, flaws) = asked(|name| service::annotated(object, name));
        let names = object.metadata.annotations.iter().flatten().map(|(name, _)| name.as_str());
        let flaws = flaws.into_iter().chain(misspelt(names));
        let wrong = flaws.map(|Flaw { field, value, accepted, .. }| {
            let text = Quoted::of(&value.unwrap_or_default());
            Refusal::InvalidBgp { annotation: field, text, accepted }
        });
        Arc::new(Self { asked, wrong: wrong.collect() })
    }

    /// Whether nothing is asked for, and nothing is wrong with that.
    pub fn is_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// The labels of an object that a user makes: the first [`MOST_LABELS`] by their keys, and how many there are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Labels {
    /// Those that are read.
    pub read: Arc<BTreeMap<String, String>>,
    /// All of them.
    pub count: usize,
}

impl<K: Resource> Take<K> for Labels {
    fn take(object: &mut K) -> Self {
        let all = object.meta_mut().labels.as_ref();
        let count = all.map_or(0, BTreeMap::len);
        let read = all.into_iter().flatten().take(MOST_LABELS);
        let read = read.map(|(key, value)| (key.clone(), value.clone())).collect();
        strip(object.meta_mut());
        Self { read: Arc::new(read), count }
    }
}

#[cfg(test)]
mod tests {
    use berth_api::lean::Lean;
    use serde_json::json;

    use super::*;

    #[test]
    fn labels_are_read_up_to_a_limit_and_how_many_there_are_is_known() {
        let labels: BTreeMap<String, &str> =
            (0..500).map(|number| (format!("l{number:03}"), "v")).collect();
        let object = json!({ "metadata": { "labels": labels } });
        let read: Lean<core::Service, Labels> = serde_json::from_value(object).unwrap();
        assert_eq!((read.taken.count, read.taken.read.len()), (500, MOST_LABELS));
        assert_eq!(read.taken.read.get("l000").map(String::as_str), Some("v"));
        assert!(read.object.metadata.labels.is_none_or(|kept| kept.is_empty()));
    }

    #[test]
    fn what_cannot_be_read_of_what_is_asked_for_is_told_with_its_annotation() {
        let annotations = json!({
            "berth.dev/bgp-communities": "65000:100", "berth.dev/bgp-local-pref": "x".repeat(100_000),
        });
        let object = json!({ "metadata": { "annotations": annotations } });
        let asks = Asks::read(&serde_json::from_value(object).unwrap());
        assert_eq!((asks.asked.communities.len(), asks.asked.local_pref), (1, None));
        let [wrong] = &asks.wrong[..] else { panic!("{asks:?}") };
        let note = wrong.note();
        assert!(note.starts_with("berth.dev/bgp-local-pref has \"xxx"), "{note}");
        assert!(note.len() < 300 && !wrong.silences(), "{note}");
        assert!(Asks::read(&core::Service::default()).is_nothing());
    }
}
