//! What a stop is: the beginning of a restart, or the end. Pure.
//!
//! A process is told to stop, and not why. Whether another one comes is for its DaemonSet to say; whether routers go by it
//! meanwhile, for them.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{NodeSelectorRequirement, NodeSelectorTerm, PodSpec};

use crate::vip::nodes::{Peer, Stay};

/// What the cluster said of the DaemonSet of this process.
#[derive(Clone, Debug)]
pub enum Answer {
    /// It is there.
    There(Box<DaemonSet>),
    /// It is not, or is not shown to this process, and why.
    Gone(String),
    /// Nobody answered in time, and why.
    Silent(String),
}

/// What the stop is, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Another process comes. Routers are told nothing, and all stays as it is.
    Restart,
    /// Nobody knows whether one comes, or none is to be led here: routers are asked to prefer others, and then nothing is left.
    Drain(String),
    /// None comes: the same.
    Uninstall(String),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Restart => f.write_str("restart"),
            Self::Drain(why) => write!(f, "drain: {why}"),
            Self::Uninstall(why) => write!(f, "uninstall: {why}"),
        }
    }
}

impl Ending {
    /// What the stop of the announcer of `node` is, which is this one as the cluster shows it. `keeps` tells whether any router
    /// keeps its routes through a restart.
    pub fn of(asked: &Answer, name: &str, node: Option<&Peer>, keeps: bool) -> Self {
        let set = match asked {
            Answer::There(set) => set,
            Answer::Gone(why) => return Self::Uninstall(why.clone()),
            Answer::Silent(why) => return Self::Drain(why.clone()),
        };
        if set.metadata.deletion_timestamp.is_some() {
            return Self::Uninstall("its DaemonSet is being deleted".to_owned());
        }
        let Some(node) = node else {
            return Self::Drain(format!("there is no Node {name}, or it is not shown"));
        };
        // Who is cordoned by `kubectl drain` keeps the pods of DaemonSets.
        if node.stay == Stay::Emptied {
            return Self::Drain("the node is being emptied".to_owned());
        }
        // Its kernel closes connections as a process that crashes does, and none comes before it is up again.
        if node.shuts_down {
            return Self::Drain("the node is shutting down".to_owned());
        }
        let pod = set.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
        if pod.is_some_and(|pod| !wants(pod, name, &node.labels)) {
            return Self::Uninstall("its DaemonSet wants none on this node".to_owned());
        }
        if pod.is_some_and(speaks_no_more) {
            return Self::Uninstall("its DaemonSet has bgp_enable switched off".to_owned());
        }
        match keeps {
            true => Self::Restart,
            false => Self::Drain("it restarts, and no router keeps routes meanwhile".to_owned()),
        }
    }
}

/// Whether a pod of the DaemonSet is to be on this node. Taints are not looked at: one was there, and whoever wants it gone
/// evicts it by a taint that it does not tolerate, which drains.
fn wants(pod: &PodSpec, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let mut selected = pod.node_selector.iter().flatten();
    let affinity = pod.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = affinity
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    selected.all(|(key, value)| labels.get(key) == Some(value))
        && required.is_none_or(|required| {
            required.node_selector_terms.iter().any(|term| is_met(term, node, labels))
        })
}

/// Whether the next one is told to speak to no router. Where settings come from elsewhere that is not known.
fn speaks_no_more(pod: &PodSpec) -> bool {
    let mut settings = pod.containers.iter().flat_map(|container| container.env.iter().flatten());
    settings.any(|setting| {
        let off = |value: &str| matches!(value, "0" | "f" | "F" | "FALSE" | "false" | "False");
        setting.name == "bgp_enable" && setting.value.as_deref().is_some_and(off)
    })
}

/// A term without any requirement is met by nobody (`NodeSelectorTerm`).
fn is_met(term: &NodeSelectorTerm, node: &str, labels: &BTreeMap<String, String>) -> bool {
    let expressions = term.match_expressions.as_deref().unwrap_or_default();
    let fields = term.match_fields.as_deref().unwrap_or_default();
    let label = |one: &NodeSelectorRequirement| fits(one, labels.get(&one.key).map(String::as_str));
    // The only field that there is.
    let field = |one: &NodeSelectorRequirement| fits(one, Some(node));
    !(expressions.is_empty() && fields.is_empty())
        && expressions.iter().all(label)
        && fields.iter().all(field)
}

fn fits(one: &NodeSelectorRequirement, value: Option<&str>) -> bool {
    let values = one.values.as_deref().unwrap_or_default();
    let is_one = || value.is_some_and(|value| values.iter().any(|one| one == value));
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<i64>().ok());
    let compares = |is_so: fn(i64, i64) -> bool| {
        let bound = number(values.first().map(String::as_str));
        number(value).zip(bound).is_some_and(|(value, bound)| is_so(value, bound))
    };
    match one.operator.as_str() {
        "In" => is_one(),
        "NotIn" => !is_one(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compares(|value, bound| value > bound),
        "Lt" => compares(|value, bound| value < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn there(pod: Value) -> Answer {
        let set = json!({ "spec": {
            "selector": {}, "template": { "spec": pod },
        } });
        Answer::There(Box::new(serde_json::from_value(set).unwrap()))
    }

    fn node(stay: Stay) -> Peer {
        let labels = [("rack", "a"), ("size", "7")];
        let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        Peer { labels, stay, ..Peer::default() }
    }

    fn ending(asked: &Answer) -> Ending {
        Ending::of(asked, "a", Some(&node(Stay::Stays)), true)
    }

    #[test]
    fn another_one_comes_where_its_daemonset_wants_one_here_and_routers_wait_for_it() {
        let plain = there(json!({ "containers": [] }));
        assert_eq!(ending(&plain), Ending::Restart);
        let cordoned = node(Stay::Cordoned);
        assert_eq!(Ending::of(&plain, "a", Some(&cordoned), true), Ending::Restart);
        let emptied = node(Stay::Emptied);
        assert!(matches!(Ending::of(&plain, "a", Some(&emptied), true), Ending::Drain(_)));
        assert!(matches!(Ending::of(&plain, "a", None, true), Ending::Drain(_)));
        let off = Peer { shuts_down: true, ..node(Stay::Stays) };
        assert!(matches!(Ending::of(&plain, "a", Some(&off), true), Ending::Drain(_)));
        let stays = node(Stay::Stays);
        assert!(matches!(Ending::of(&plain, "a", Some(&stays), false), Ending::Drain(_)));
        assert!(matches!(ending(&Answer::Gone("403".to_owned())), Ending::Uninstall(_)));
        assert!(matches!(ending(&Answer::Silent("late".to_owned())), Ending::Drain(_)));
        let Answer::There(mut set) = plain else { unreachable!() };
        let going: DaemonSet = serde_json::from_value(
            json!({ "metadata": { "deletionTimestamp": "2026-01-01T00:00:00Z" } }),
        )
        .unwrap();
        set.metadata = going.metadata;
        assert!(matches!(ending(&Answer::There(set)), Ending::Uninstall(_)));
    }

    #[test]
    fn routers_are_told_where_the_next_one_is_to_speak_to_none() {
        let set = |value: &str| {
            let env = json!([{ "name": "vip_arp", "value": "true" }, { "name": "bgp_enable", "value": value }]);
            ending(&there(json!({ "containers": [{ "name": "berth-announcer", "env": env }] })))
        };
        assert!(matches!(set("false"), Ending::Uninstall(_)));
        assert_eq!(set("true"), Ending::Restart);
    }

    #[test]
    fn none_comes_where_the_daemonset_wants_none_on_this_node() {
        let select = |selector: Value| there(json!({ "containers": [], "nodeSelector": selector }));
        assert_eq!(ending(&select(json!({ "rack": "a" }))), Ending::Restart);
        assert!(matches!(ending(&select(json!({ "rack": "b" }))), Ending::Uninstall(_)));
        let require = |terms: Value| {
            let required = json!({ "nodeSelectorTerms": terms });
            let rule = json!({ "requiredDuringSchedulingIgnoredDuringExecution": required });
            ending(&there(json!({ "containers": [], "affinity": { "nodeAffinity": rule } })))
        };
        let expression = |key: &str, operator: &str, values: &[&str]| json!([{ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] }]);
        for (key, operator, values, is_met) in [
            ("rack", "In", &["b", "a"][..], true),
            ("rack", "In", &["b"], false),
            ("rack", "NotIn", &["b"], true),
            ("none", "NotIn", &["b"], true),
            ("rack", "Exists", &[], true),
            ("none", "Exists", &[], false),
            ("none", "DoesNotExist", &[], true),
            ("size", "Gt", &["6"], true),
            ("size", "Lt", &["7"], false),
            ("rack", "Like", &["a"], false),
        ] {
            let is_restart = require(expression(key, operator, values)) == Ending::Restart;
            assert_eq!(is_restart, is_met, "{key} {operator} {values:?}");
        }
        let field = |name: &str| {
            let field = json!({ "key": "metadata.name", "operator": "In", "values": [name] });
            require(json!([{ "matchFields": [field] }]))
        };
        assert_eq!(field("a"), Ending::Restart);
        assert!(matches!(field("b"), Ending::Uninstall(_)));
        assert!(matches!(require(json!([{}])), Ending::Uninstall(_)));
    }
}
