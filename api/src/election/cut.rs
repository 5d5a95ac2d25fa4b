//! A Lease that users have made large is kept without most of it, and made whole again before it is written.

use k8s_openapi::api::coordination::v1::Lease;

use super::held::version;
use crate::lean::Take;
use crate::names::{annotation, label};

/// The most octets of a Lease that is kept whole.
const LARGEST: usize = 4096;

/// The most octets of an identity; one that is cut off is nobody's.
const LONGEST: usize = 254;

/// On a Lease in memory, never on one that is stored: it was cut.
const CUT: &str = "berth.dev/cut";

/// Cuts each Lease as it is decoded.
#[derive(Clone, Copy, Debug)]
pub struct Cut;

impl Take<Lease> for Cut {
    fn take(object: &mut Lease) -> Self {
        cut(object);
        Self
    }
}

/// Leaves of a large Lease what an election reads.
pub fn cut(lease: &mut Lease) {
    let metadata = &mut lease.metadata;
    metadata.managed_fields = None;
    let owners = metadata.owner_references.iter().flatten();
    let owners =
        owners.flat_map(|owner| [&owner.api_version, &owner.kind, &owner.name, &owner.uid]);
    let maps = [&metadata.labels, &metadata.annotations].into_iter().flatten().flatten();
    let maps = maps.flat_map(|(key, value)| [key, value]);
    let spec = lease.spec.iter();
    let spec =
        spec.flat_map(|spec| [&spec.holder_identity, &spec.preferred_holder, &spec.strategy]);
    let texts = metadata.finalizers.iter().flatten().chain(owners).chain(maps);
    // With what a text costs besides.
    let octets = texts.chain(spec.flatten()).map(|text| text.len() + size_of::<String>());
    if octets.sum::<usize>() <= LARGEST {
        return;
    }
    metadata.finalizers = None;
    metadata.owner_references = None;
    let managed = metadata.labels.take().and_then(|mut labels| labels.remove(label::MANAGED_BY));
    metadata.labels = managed
        .filter(|value| value == label::BERTH)
        .map(|value| [(label::MANAGED_BY.to_owned(), value)].into());
    let leaving = metadata.annotations.take().filter(|all| all.contains_key(annotation::LEAVING));
    let kept = leaving.map(|_| annotation::LEAVING).into_iter().chain([CUT]);
    metadata.annotations = Some(kept.map(|key| (key.to_owned(), String::new())).collect());
    if let Some(spec) = &mut lease.spec {
        (spec.preferred_holder, spec.strategy) = (None, None);
        if let Some(identity) = spec.holder_identity.as_mut().filter(|text| text.len() > LONGEST) {
            let mut ends = (0..=LONGEST).rev();
            identity.truncate(ends.find(|end| identity.is_char_boundary(*end)).unwrap_or(0));
            identity.shrink_to_fit();
        }
    }
}

/// Whether it has to be made whole before it is written.
pub fn is_cut(lease: &Lease) -> bool {
    lease.metadata.annotations.as_ref().is_some_and(|all| all.contains_key(CUT))
}

/// What is to be written in place of `found`, given the same for the Lease that was cut; `None` if it has changed since.
pub fn whole(lease: Lease, mut found: Lease) -> Option<Lease> {
    if version(&lease) != version(&found) || lease.metadata.uid != found.metadata.uid {
        return None;
    }
    let labels = lease.metadata.labels.unwrap_or_default();
    found.metadata.labels.get_or_insert_default().extend(labels);
    let mut annotations = lease.metadata.annotations.unwrap_or_default();
    annotations.remove(CUT);
    let theirs = found.metadata.annotations.get_or_insert_default();
    theirs.remove(annotation::LEAVING);
    theirs.extend(annotations);
    let last = found.spec.unwrap_or_default();
    found.spec = lease.spec.map(|mut spec| {
        (spec.preferred_holder, spec.strategy) = (last.preferred_holder, last.strategy);
        spec
    });
    found.metadata.managed_fields = None;
    Some(found)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn lease(finalizers: usize, more: Value) -> Lease {
        let finalizers: Vec<_> = (0..finalizers).map(|n| format!("a/{n:06}")).collect();
        let mut lease = json!({
            "metadata": {
                "name": "kubevip-web",
                "uid": "u",
                "resourceVersion": "7",
                "finalizers": finalizers,
                "labels": { "app.kubernetes.io/managed-by": "berth", "team": "shop" },
                "annotations": { "example.org/x": "y", "berth.dev/leaving": "" },
                "ownerReferences": [{ "apiVersion": "v1", "kind": "Service", "name": "web", "uid": "s" }],
            },
            "spec": { "holderIdentity": "a", "strategy": "OldestEmulationVersion" },
        });
        for (key, value) in more.as_object().unwrap() {
            lease["spec"][key] = value.clone();
        }
        serde_json::from_value(lease).unwrap()
    }

    #[test]
    fn a_lease_of_ordinary_size_stays_whole_and_a_large_one_costs_little() {
        let ordinary = lease(3, json!({}));
        let mut same = ordinary.clone();
        cut(&mut same);
        assert_eq!((same, is_cut(&ordinary)), (ordinary, false));
        let long = "x".repeat(1_400_000);
        for mut large in [
            lease(127_000, json!({})),
            lease(0, json!({ "holderIdentity": long })),
            lease(0, json!({ "preferredHolder": long })),
        ] {
            cut(&mut large);
            let kept = serde_json::to_string(&large).unwrap().len();
            assert!(is_cut(&large) && kept < 600, "{kept}");
        }
    }

    #[test]
    fn what_was_cut_off_is_written_back_and_a_change_is_not_overwritten() {
        let stored = lease(127_000, json!({}));
        let mut seen = stored.clone();
        cut(&mut seen);
        seen.spec.as_mut().unwrap().holder_identity = Some("b".to_owned());
        seen.metadata.annotations.as_mut().unwrap().remove(annotation::LEAVING);
        let mut expected = stored.clone();
        expected.spec.as_mut().unwrap().holder_identity = Some("b".to_owned());
        expected.metadata.annotations.as_mut().unwrap().remove(annotation::LEAVING);
        assert_eq!(whole(seen.clone(), stored.clone()), Some(expected));
        let mut changed = stored;
        changed.metadata.resource_version = Some("8".to_owned());
        assert_eq!(whole(seen, changed), None);
    }
}
