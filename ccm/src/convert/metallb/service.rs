//! What a Service of type LoadBalancer says to MetalLB, and what it shows.

use std::collections::BTreeMap;
use std::net::IpAddr;

use berth_api::names::class;
use serde_json::Value;

use super::object::{name, strings, title};

/// What MetalLB's annotations begin with, today and before 0.15.
const PREFIXES: [&str; 2] = ["metallb.io/", "metallb.universe.tf/"];

/// A Service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    /// Kind, namespace and name.
    pub(super) object: String,
    pub(super) namespace: String,
    pub(super) name: String,
    annotations: BTreeMap<String, String>,
    /// The class, unless it is one that both programs serve as they are installed.
    pub(super) class: Option<String>,
    /// The deprecated field.
    pub(super) field: Option<String>,
    /// What its status shows, in the order of its families.
    pub(super) shown: Vec<IpAddr>,
}

impl Service {
    /// Reads one; nothing if it has another type.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let spec = &object["spec"];
        if spec["type"] != "LoadBalancer" {
            return None;
        }
        let text =
            |value: &Value| value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
        let ingress = object["status"]["loadBalancer"]["ingress"].as_array().into_iter().flatten();
        let mut shown: Vec<IpAddr> =
            ingress.filter_map(|entry| entry["ip"].as_str()?.parse().ok()).collect();
        let is_v6_first = spec["ipFamilies"][0] == "IPv6";
        shown.sort_by_key(|address| address.is_ipv6() != is_v6_first);
        Some(Self {
            object: title(object),
            namespace: text(&object["metadata"]["namespace"])
                .unwrap_or_else(|| "default".to_owned()),
            name: name(object),
            annotations: strings(&object["metadata"]["annotations"]),
            class: text(&spec["loadBalancerClass"]).filter(|name| *name != class::DEFAULT),
            field: text(&spec["loadBalancerIP"]),
            shown,
        })
    }

    /// Namespace and name.
    pub(super) fn place(&self) -> (&str, &str) {
        (&self.namespace, &self.name)
    }

    /// What MetalLB reads of an annotation, with its whole name: today's name, else the one of before.
    pub(super) fn says(&self, what: &str) -> Option<(String, &str)> {
        PREFIXES.into_iter().find_map(|prefix| {
            let name = format!("{prefix}{what}");
            let value = self.annotations.get(&name)?;
            Some((name, value.as_str()))
        })
    }

    /// Its annotations of MetalLB, without their prefix, and with it.
    pub(super) fn said(&self) -> impl Iterator<Item = (&str, &str)> {
        self.annotations.keys().filter_map(|name| {
            let short = PREFIXES.iter().find_map(|prefix| name.strip_prefix(prefix))?;
            Some((short, name.as_str()))
        })
    }

    /// The addresses that it asks for, with the field that does; the error is an entry that is none.
    pub(super) fn asks(&self) -> Option<(String, Result<Vec<IpAddr>, String>)> {
        let (field, text) = match self.says("loadBalancerIPs") {
            Some((name, text)) => (format!("metadata.annotations.{name}"), text),
            None => ("spec.loadBalancerIP".to_owned(), self.field.as_deref()?),
        };
        let all = text.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let all = all.map(|entry| entry.parse().map_err(|_| entry.to_owned()));
        Some((field, all.collect()))
    }
}
