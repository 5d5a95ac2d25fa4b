//! A pool of MetalLB: an IPAddressPool, an AddressPool as it was until 0.14, or an entry of the ConfigMap that it was until
//! 0.12.

use std::collections::{BTreeMap, BTreeSet};

use berth_ipam::{AddressSet, Range, RangeError};
use serde_json::{Value, json};

use super::object::{labels, list, name, switch, title};
use super::reach::{BFD, BGP, Reach};
use super::selector::{self, Selector};
use crate::convert::finding::{Finding, Told, shown};

/// What no namespace can have for a name among our keys.
pub(super) const OF_ALL: &str = "global";

/// A pool.
#[derive(Clone, Debug)]
pub(super) struct Pool {
    /// Kind, namespace and name.
    pub(super) object: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
    /// What it has, as it is written in a key of ours.
    pub(super) entries: Vec<String>,
    pub(super) addresses: AddressSet,
    /// Whether who asks for nothing gets an address of it.
    pub(super) is_automatic: bool,
    pub(super) avoids_buggy: bool,
    /// The namespaces that it is for; none for all.
    pub(super) namespaces: Option<BTreeSet<String>>,
    selectors: Vec<Selector>,
    pub(super) priority: u64,
    pub(super) reach: Reach,
}

impl Pool {
    /// Reads an IPAddressPool or AddressPool, and tells what of it has no counterpart.
    pub(super) fn read(object: &Value, findings: &mut Vec<Finding>) -> Self {
        let (spec, mut told) = (&object["spec"], Told::of(title(object), findings));
        let known = [
            "addresses",
            "autoAssign",
            "avoidBuggyIPs",
            "serviceAllocation",
            "protocol",
            "bgpAdvertisements",
        ];
        told.unknown("spec", spec, &known);
        if !spec["bgpAdvertisements"].is_null() {
            told.undone("spec.bgpAdvertisements", BGP);
        }
        let protocol = &spec["protocol"];
        if !protocol.is_null() && protocol != "layer2" && protocol != "bgp" {
            let says = format!("{} is none: accepted are layer2 and bgp", shown(protocol));
            told.lost("spec.protocol", says);
        }
        let (entries, addresses) = addresses(&spec["addresses"], "spec.addresses", &mut told);
        let mut pool = Self {
            object: title(object),
            name: name(object),
            labels: labels(object),
            entries,
            addresses,
            is_automatic: switch(&spec["autoAssign"], "spec.autoAssign", (true, false), &mut told),
            avoids_buggy: switch(
                &spec["avoidBuggyIPs"],
                "spec.avoidBuggyIPs",
                (false, true),
                &mut told,
            ),
            namespaces: None,
            selectors: Vec::new(),
            priority: 0,
            reach: Reach::by_protocol(spec["protocol"].as_str()),
        };
        pool.allocation(&spec["serviceAllocation"], &mut told);
        pool
    }

    fn allocation(&mut self, allocation: &Value, told: &mut Told<'_>) {
        let path = "spec.serviceAllocation";
        let known = ["priority", "namespaces", "namespaceSelectors", "serviceSelectors"];
        told.unknown(path, allocation, &known);
        // What cannot be read is for nobody rather than for all.
        let filled = |field: &str| match &allocation[field] {
            Value::Array(list) => !list.is_empty(),
            other => !other.is_null(),
        };
        self.priority = allocation["priority"].as_u64().unwrap_or_default();
        if filled("namespaces") || filled("namespaceSelectors") {
            let names = list(&allocation["namespaces"], &format!("{path}.namespaces"), told);
            let names = names.iter().filter_map(|name| Some(name.as_str()?.to_owned()));
            self.namespaces = Some(names.collect());
        }
        match Selector::list(&allocation["namespaceSelectors"]) {
            Some(selectors) => self.selectors = selectors,
            None => told.lost(&format!("{path}.namespaceSelectors"), selector::UNREAD),
        }
        if filled("serviceSelectors") {
            self.is_automatic = false;
            let says = "pools are for namespaces and not for labels of Services: its addresses are for who asks for them";
            told.lost(&format!("{path}.serviceSelectors"), says);
        }
    }

    /// Adds the namespaces that its selectors mean.
    pub(super) fn select_namespaces(
        &mut self,
        all: &BTreeMap<String, BTreeMap<String, String>>,
        findings: &mut Vec<Finding>,
    ) {
        let Some(namespaces) = &mut self.namespaces else { return };
        let mut told = Told::of(self.object.clone(), findings);
        let field = "spec.serviceAllocation.namespaceSelectors";
        let selected = all
            .iter()
            .filter(|(_, labels)| self.selectors.iter().any(|selector| selector.selects(labels)));
        let selected: BTreeSet<String> = selected.map(|(name, _)| name.clone()).collect();
        if !self.selectors.is_empty() {
            match selected.len() {
                0 => told.lost(
                    field,
                    "it selects no Namespace that was given: give them too (`kubectl get namespaces -o yaml`)",
                ),
                _ => told.note(
                    field,
                    format!(
                        "pools are for namespaces by name: it is for {} now, and for none that comes later",
                        joined(&selected)
                    ),
                ),
            }
        }
        namespaces.extend(selected);
        if namespaces.remove(OF_ALL) {
            let says = "the keys of a namespace of this name are those of all: it is left out";
            told.lost("spec.serviceAllocation.namespaces", says);
        }
    }
}

/// Names as a message has them.
pub(super) fn joined(names: &BTreeSet<String>) -> String {
    names.iter().map(String::as_str).collect::<Vec<_>>().join(", ")
}

/// The pools of the ConfigMap of before, and what of it has no counterpart.
pub(super) fn of_config_map(object: &Value, findings: &mut Vec<Finding>) -> Vec<Pool> {
    let text = object["data"]["config"].as_str().unwrap_or_default();
    let mut told = Told::of(title(object), findings);
    let config: Value = match serde_saphyr::from_str(text) {
        Ok(config) => config,
        Err(error) => {
            let error = error.to_string();
            let first = error.lines().next().unwrap_or_default();
            told.lost("data.config", format!("it is no YAML: {first}"));
            return Vec::new();
        }
    };
    for (field, value) in config.as_object().into_iter().flatten() {
        match field.as_str() {
            "address-pools" => {}
            "peers" | "bgp-communities" => told.undone(&format!("data.config.{field}"), BGP),
            "bfd-profiles" => told.lost(&format!("data.config.{field}"), BFD),
            _ => told.lost(
                &format!("data.config.{field}"),
                format!("it has no counterpart; it is {}", shown(value)),
            ),
        }
    }
    let listed = list(&config["address-pools"], "data.config.address-pools", &mut told);
    let pools: Vec<Value> = listed.iter().map(|pool| as_object(object, pool)).collect();
    pools.iter().map(|pool| Pool::read(pool, findings)).collect()
}

/// What fields of an entry of the ConfigMap are called in an AddressPool.
const NAMES: [(&str, &str); 4] = [
    ("auto-assign", "autoAssign"),
    ("avoid-buggy-ips", "avoidBuggyIPs"),
    ("bgp-advertisements", "bgpAdvertisements"),
    ("name", ""),
];

/// Names the field of an entry as the ConfigMap has it.
pub(super) fn as_before(finding: &mut Finding) {
    if !finding.object.starts_with("ConfigMap ") {
        return;
    }
    let Some(field) = finding.field.strip_prefix("spec.") else { return };
    let found = NAMES.iter().find(|(_, new)| *new == field).map(|(old, _)| *old);
    finding.field = format!("data.config.address-pools.{}", found.unwrap_or(field));
}

/// An entry of the ConfigMap as the AddressPool that MetalLB 0.13 makes of it.
fn as_object(map: &Value, entry: &Value) -> Value {
    let mut spec = serde_json::Map::new();
    for (field, value) in entry.as_object().into_iter().flatten() {
        let renamed = NAMES.iter().find(|(old, _)| old == field).map(|(_, new)| *new);
        let field = renamed.unwrap_or(field);
        if !field.is_empty() {
            spec.insert(field.to_owned(), value.clone());
        }
    }
    json!({
        "of": title(map),
        "metadata": { "name": entry["name"] },
        "spec": spec,
    })
}

/// The addresses of a pool, as our keys have them and as a set.
fn addresses(value: &Value, field: &str, told: &mut Told<'_>) -> (Vec<String>, AddressSet) {
    let (mut entries, mut set) = (Vec::new(), AddressSet::new());
    let accepted = "accepted are a prefix, FIRST-LAST and an address";
    for entry in list(value, field, told) {
        let text: String =
            entry.as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().concat();
        match text.parse::<Range>() {
            Ok(range) => {
                set.insert(range);
                entries.push(text);
            }
            Err(RangeError::Unreadable(_)) => {
                told.lost(field, format!("{} is none: {accepted}", shown(entry)));
            }
            Err(RangeError::Reversed(_)) => {
                told.lost(field, format!("{} ends below its first address", shown(entry)));
            }
            Err(RangeError::MixedFamilies(_)) => {
                told.lost(
                    field,
                    format!("{} begins in one family and ends in the other", shown(entry)),
                );
            }
        }
    }
    if entries.is_empty() {
        told.lost(field, "it has no address");
    }
    (entries, set)
}
