//! Who shares an address: MetalLB asks for one key of both, ours for their namespaces. A key is for anybody to write; that an
//! address is shared a status shows, which is MetalLB's to write.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use berth_api::Quoted;

use super::patches::Patch;
use super::pool::{OF_ALL, joined};
use super::service::Service;
use crate::convert::finding::{Finding, Told};

const ANNOTATION: &str = "allow-shared-ip";

/// By namespace, with which others it is to share.
type Keys = BTreeMap<String, BTreeSet<String>>;

/// Keys by which Services that share an address, or may in their namespace, go on.
pub(super) fn keys(
    services: &[Service],
    patches: &[Patch],
    findings: &mut Vec<Finding>,
) -> BTreeMap<String, String> {
    let ours: BTreeSet<_> =
        patches.iter().map(|patch| (patch.namespace.as_str(), patch.name.as_str())).collect();
    let mut groups: BTreeMap<&str, Vec<&Service>> = BTreeMap::new();
    for service in services {
        if let Some((_, key)) = service.says(ANNOTATION).filter(|(_, key)| !key.is_empty()) {
            groups.entry(key).or_default().push(service);
        }
    }
    let mut keys = Keys::new();
    for (key, group) in groups {
        let with = with(&group);
        let count = |wanted: &Service| {
            group.iter().filter(|service| service.namespace == wanted.namespace).count()
        };
        for service in &group {
            let others = with.get(service.namespace.as_str());
            let may = count(service) > 1 || others.is_some();
            if may && service.namespace != OF_ALL && ours.contains(&service.place()) {
                let own = keys.entry(service.namespace.clone()).or_default();
                own.extend(others.into_iter().flatten().map(|name| (*name).to_owned()));
            }
            let mut told = Told::of(service.object.clone(), findings);
            tell(service, key, may.then_some(others), group.len() > count(service), &mut told);
        }
    }
    written(keys)
}

/// By namespace, the others of which a Service shows an address that one of it shows.
fn with<'a>(group: &[&'a Service]) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut at: BTreeMap<IpAddr, BTreeSet<&str>> = BTreeMap::new();
    for service in group {
        for address in &service.shown {
            at.entry(*address).or_default().insert(&service.namespace);
        }
    }
    let mut with: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for names in at.values() {
        for name in names {
            let others = names.iter().copied().filter(|other| other != name);
            let others: BTreeSet<&str> = others.filter(|other| *other != OF_ALL).collect();
            if !others.is_empty() {
                with.entry(*name).or_default().extend(others);
            }
        }
    }
    with
}

/// Says what becomes of the key. `may` is nothing where it lets nobody in, else the other namespaces.
fn tell(
    service: &Service,
    key: &str,
    may: Option<Option<&BTreeSet<&str>>>,
    elsewhere: bool,
    told: &mut Told<'_>,
) {
    let Some((name, _)) = service.says(ANNOTATION) else { return };
    let (field, key) = (format!("metadata.annotations.{name}"), Quoted::of(key));
    let own = service.namespace.as_str();
    if own == OF_ALL {
        let says = "the keys of a namespace of this name are those of all: nothing is said of it";
        return told.lost(&field, format!("{key}: {says}"));
    }
    let others = may.flatten();
    match may {
        None if !elsewhere => {
            told.note(&field, format!("{key}: no other Service here has this key"))
        }
        None => {}
        Some(_) => {
            let among = others.into_iter().flatten().copied().chain([own]);
            let says = format!(
                "{key}: whole namespaces may share, not single Services: from now on each Service of {} may get the address of \
                 another one that has other ports",
                joined(&among.map(str::to_owned).collect())
            );
            told.note(&field, says);
        }
    }
    if elsewhere && others.is_none() {
        let says = "Services of other namespaces have this key and share no address with it: between namespaces only \
                    `share-with-` of both lets them";
        told.lost(&field, format!("{key}: {says}"));
    }
}

fn written(keys: Keys) -> BTreeMap<String, String> {
    let mut written = BTreeMap::new();
    for (name, others) in keys {
        if !others.is_empty() {
            let others: Vec<String> = others.into_iter().collect();
            written.insert(format!("share-with-{name}"), others.join(","));
        }
        written.insert(format!("allow-share-{name}"), "true".to_owned());
    }
    written
}
