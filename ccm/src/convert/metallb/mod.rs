//! MetalLB's objects as ours: pools and advertisements become the ConfigMap, Services keep what they have. Pure: the same
//! objects, in whatever order, become the same.
//!
//! | module | owns |
//! |---|---|
//! | `object` | what every object has |
//! | `pool` | pools, in either form that MetalLB has had |
//! | `reach` | how and where a pool is announced |
//! | `selector` | label selectors |
//! | `keys` | pools as keys of the ConfigMap |
//! | `service` | what a Service says and shows |
//! | `patches` | what keeps it so |
//! | `sharing` | who shares an address |

mod keys;
mod object;
mod patches;
mod pool;
mod reach;
mod selector;
mod service;
mod sharing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::finding::{Finding, Told};
use crate::check::manifest::listed;
use object::{group, is_in, labels, name, title};
pub use patches::Patch;
use pool::Pool;
use reach::Advertisement;
use service::Service;

/// What MetalLB's objects are here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conversion {
    /// The data of the ConfigMap.
    pub keys: BTreeMap<String, String>,
    /// What keeps Services as they are, by namespace and name.
    pub patches: Vec<Patch>,
    /// What is to be said, what is lost first.
    pub findings: Vec<Finding>,
}

/// Why there is nothing to convert.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// There is no pool.
    #[error(
        "it has no pool of MetalLB (IPAddressPool or AddressPool of metallb.io, or the ConfigMap `config` of before) in the namespace \
         {home}, but {others}; {elsewhere} of them may be MetalLB's in other namespaces (`--namespace`)"
    )]
    NoPool {
        /// Where they were looked for.
        home: String,
        /// What it has, by kind and name.
        others: String,
        /// Of those, how many would be MetalLB's if that ran elsewhere.
        elsewhere: usize,
    },
}

/// Converts them. MetalLB reads its own objects in the namespace where it runs and nowhere else, so nobody makes pools by
/// writing them into another one.
///
/// # Errors
/// When there is no pool among them.
pub fn convert(objects: &[&Value], home: &str) -> Result<Conversion, ConvertError> {
    let mut findings = Vec::new();
    let (mut pools, mut advertisements, mut services) = (Vec::new(), Vec::new(), Vec::new());
    let mut namespaces = BTreeMap::new();
    let (mut others, mut elsewhere) = (BTreeSet::new(), 0);
    for object in objects {
        let kind = object["kind"].as_str().unwrap_or_default();
        let is_own = is_in(object, home);
        match (group(object), kind) {
            ("metallb.io", kind) if kind.ends_with("Status") || kind.ends_with("State") => {}
            ("metallb.io", _) if !is_own => {
                elsewhere += 1;
                let says =
                    format!("MetalLB in {home} does not read it (`--namespace`): it is left out");
                Told::of(title(object), &mut findings).lost("metadata.namespace", says);
            }
            ("metallb.io", "IPAddressPool" | "AddressPool") => {
                pools.push(Pool::read(object, &mut findings));
            }
            ("metallb.io", "L2Advertisement" | "BGPAdvertisement") => {
                advertisements.push(Advertisement::read(object, &mut findings));
            }
            ("metallb.io", _) => other_kind(object, &mut findings),
            ("", "ConfigMap") if is_own && !object["data"]["config"].is_null() => {
                pools.extend(pool::of_config_map(object, &mut findings));
            }
            ("", "ConfigMap") if !object["data"]["config"].is_null() => {
                elsewhere += 1;
                others.insert(kind.to_owned());
            }
            ("", "Service") => services.extend(Service::read(object)),
            ("", "Namespace") => _ = namespaces.insert(name(object), labels(object)),
            _ => _ = others.insert(kind.to_owned()),
        }
    }
    if pools.is_empty() {
        let (home, others) = (home.to_owned(), listed(objects));
        return Err(ConvertError::NoPool { home, others, elsewhere });
    }
    pools.sort_by(|a, b| a.object.cmp(&b.object));
    advertisements.sort_by(|a, b| a.object.cmp(&b.object));
    services.sort_by(|a, b| a.place().cmp(&b.place()));
    for pool in &mut pools {
        pool.select_namespaces(&namespaces, &mut findings);
        let about = reach::Subject { object: &pool.object, name: &pool.name, labels: &pool.labels };
        pool.reach = reach::of(about, &pool.reach, &advertisements, &mut findings);
    }
    let mut keys = keys::of(&pools, &mut findings);
    let patches = patches::of(&services, &pools, &mut findings);
    keys.extend(sharing::keys(&services, &patches, &mut findings));
    if !others.is_empty() {
        let kinds: Vec<&str> = others.iter().map(String::as_str).collect();
        let says = format!("nothing of them is read: {}", kinds.join(", "));
        Told::of("objects of other kinds".to_owned(), &mut findings).note("", says);
    }
    findings.iter_mut().for_each(pool::as_before);
    findings.sort();
    findings.dedup();
    Ok(Conversion { keys, patches, findings })
}

/// What MetalLB has besides, all of it for BGP or for its operator.
fn other_kind(object: &Value, findings: &mut Vec<Finding>) {
    let mut told = Told::of(title(object), findings);
    match object["kind"].as_str().unwrap_or_default() {
        "BGPPeer" | "Community" => told.undone("", reach::BGP),
        "BFDProfile" => told.lost("", reach::BFD),
        "MetalLB" => {
            told.note("", "how its operator installs it; nothing of it is about addresses")
        }
        _ => told.lost("", "it has no counterpart"),
    }
}
