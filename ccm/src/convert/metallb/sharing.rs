//! Who shares an address: MetalLB asks for one key of both, ours for their namespaces.

use std::collections::{BTreeMap, BTreeSet};

use berth_api::Quoted;

use super::patches::Patch;
use super::pool::list;
use super::service::Service;
use crate::convert::finding::{Finding, Told};

const ANNOTATION: &str = "allow-shared-ip";

/// Keys by which Services that share an address, or may, go on.
pub(super) fn keys(
    services: &[Service],
    patches: &[Patch],
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, String> {
    let is_ours = |service: &&Service| {
        patches
            .iter()
            .any(|patch| (patch.namespace.as_str(), patch.name.as_str()) == service.place())
    };
    let mut groups: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    for service in services {
        if let Some((_, key)) = service.says(ANNOTATION).filter(|(_, key)| !key.is_empty()) {
            groups.entry(key).or_default().push(service);
        }
    }
    let mut allowed: BTreeSet<&str> = BTreeSet::new();
    let mut with: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (key, group) in groups {
        let among: BTreeSet<&str> =
            group.iter().map(|service| service.namespace.as_str()).collect();
        let is_shared = group.len() > 1;
        for service in &group {
            let mut told = Told::of(service.object.clone(), findings);
            let Some((name, _)) = service.says(ANNOTATION) else { continue };
            let says = match is_shared {
                false => format!("{}: no other Service here has this key", Quoted::of(key)),
                true => format!(
                    "{}: whole namespaces may share, not single Services: from now on each Service of {} may get the address of \
                     another one that has other ports",
                    Quoted::of(key),
                    list(&among.iter().map(|name| (*name).to_owned()).collect())
                ),
            };
            told.note(&format!("metadata.annotations.{name}"), says);
        }
        if !is_shared || !group.iter().any(is_ours) {
            continue;
        }
        for namespace in &among {
            allowed.insert(namespace);
            let others = among.iter().copied().filter(|other| other != namespace);
            with.entry(namespace).or_default().extend(others);
        }
    }
    let allowed =
        allowed.into_iter().map(|name| (format!("allow-share-{name}"), "true".to_owned()));
    let with = with.into_iter().filter(|(_, others)| !others.is_empty());
    let with = with.map(|(name, others)| {
        let others: Vec<&str> = others.into_iter().collect();
        (format!("share-with-{name}"), others.join(","))
    });
    allowed.chain(with).collect()
}
