//! Rules, and what Services may ask for, as the ConfigMap has them.

use super::super::permits::{Pattern, Permit};
use super::super::yaml::{Is, Node};
use super::fields::Fields;
use super::names::is_namespace;
use crate::attributes::{CommunityError, MOST_PREPENDS};
use crate::policy::{Change, Filter, Rule, Widened};
use crate::prefix::Family;

/// All, where that is a word: of what is permitted. Of what a rule is about it is to say nothing.
const ALL: &str = "*";

const OF_NAMESPACES: &str = "accepted are names of namespaces; for all leave it out";
const OF_POOLS: &str = "accepted are global and names of namespaces; for all leave it out";
const OF_PEERS: &str = "accepted are names of peers; for all leave it out";
const TO_NAMESPACES: &str = "accepted are names of namespaces, or \"*\" for all";
const TO_PEERS: &str = "accepted are names of peers, or \"*\" for all";

/// A rule that is wrong in any part is none: half of it might announce what the other half was to keep back.
pub(super) fn rule(fields: &mut Fields, node: &Node) -> Option<Rule> {
    let known = [
        "peers",
        "pools",
        "namespaces",
        "services",
        "announce",
        "localPref",
        "med",
        "prepend",
        "communities",
        "aggregate",
        "description",
    ];
    if !fields.map("rule", node, &known) {
        return None;
    }
    let peers = fields.names(node, "peers", OF_PEERS, |name| name != ALL);
    let filter = Filter { peers, ..filter(fields, node) };
    let (communities, large_communities) = fields.communities(node);
    let change = Change {
        announce: fields.switch(node, "announce"),
        local_pref: fields.number(node, "localPref", 0, u32::MAX),
        med: fields.number(node, "med", 0, u32::MAX),
        prepend: fields.number(node, "prepend", 0, MOST_PREPENDS),
        communities,
        large_communities,
        widened: widened(fields, node),
    };
    fields.flaws.is_empty().then_some(Rule { filter, change })
}

/// What neighbours on the LAN are told of.
pub(super) fn on_lan(fields: &mut Fields, node: &Node) -> Option<Filter> {
    if !fields.map("filter", node, &["pools", "namespaces", "services", "description"]) {
        return None;
    }
    let filter = filter(fields, node);
    fields.flaws.is_empty().then_some(filter)
}

/// What something is about, whoever is told of it.
fn filter(fields: &mut Fields, node: &Node) -> Filter {
    Filter {
        peers: Default::default(),
        pools: fields.names(node, "pools", OF_POOLS, is_namespace),
        namespaces: fields.names(node, "namespaces", OF_NAMESPACES, is_namespace),
        services: fields.selector(node, "services"),
    }
}

fn widened(fields: &mut Fields, node: &Node) -> Option<Widened> {
    let value = fields.get(node, "aggregate")?;
    let usual = Widened::default();
    fields.below("aggregate", value, &["ipv4", "ipv6"], |fields| Widened {
        v4: fields.number(value, "ipv4", 1, Family::V4.bits()).unwrap_or(usual.v4),
        v6: fields.number(value, "ipv6", 1, Family::V6.bits()).unwrap_or(usual.v6),
    })
}

/// What Services of some namespaces may ask for.
pub(super) fn permit(fields: &mut Fields, node: &Node) -> Option<Permit> {
    if !fields.map("services", node, &["namespaces", "communities", "localPref", "peers"]) {
        return None;
    }
    let is_said = fields.get(node, "namespaces").is_some();
    let namespaces =
        fields.names(node, "namespaces", TO_NAMESPACES, |name| name == ALL || is_namespace(name));
    if !is_said || namespaces.is_empty() && fields.flaws.is_empty() {
        fields.missing("namespaces", node, TO_NAMESPACES);
    }
    let mut communities = Vec::new();
    for (text, item) in fields.texts(node, "communities") {
        match Pattern::read(text) {
            Some(pattern) => communities.push(pattern),
            None => {
                let accepted =
                    format!("{CommunityError}; or all of an AS, as 65000:* or 65000:*:*");
                fields.wrong("communities", item, accepted);
            }
        }
    }
    let local_pref = fields.get(node, "localPref").and_then(|value| {
        if !matches!(value.is, Is::Map(_)) {
            fields.wrong("localPref", value, "accepted are bounds: {min: NUMBER, max: NUMBER}");
            return None;
        }
        let (least, most) = fields.below("localPref", value, &["min", "max"], |fields| {
            let least = fields.number(value, "min", 0, u32::MAX).unwrap_or(0);
            (least, fields.number(value, "max", 0, u32::MAX).unwrap_or(u32::MAX))
        })?;
        if least > most {
            let accepted =
                format!("min {least} is more than max {most}: no preference is between them");
            fields.wrong("localPref", value, accepted);
        }
        Some(least..=most)
    });
    let peers = fields.names(node, "peers", TO_PEERS, |name| !name.is_empty());
    let permit = Permit { namespaces, communities, local_pref, peers };
    fields.flaws.is_empty().then_some(permit)
}
