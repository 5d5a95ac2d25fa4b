//! Rules, and what Services may ask for, as the ConfigMap has them.

use super::super::permits::{Pattern, Permit};
use super::super::yaml::{Is, Node};
use super::fields::Fields;
use crate::attributes::{CommunityError, MOST_PREPENDS};
use crate::policy::{Change, Filter, Rule, Widened};
use crate::prefix::Family;

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
    let filter = Filter { peers: fields.names(node, "peers"), ..filter(fields, node) };
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
        pools: fields.names(node, "pools"),
        namespaces: fields.names(node, "namespaces"),
        services: fields.selector(node, "services"),
    }
}

fn widened(fields: &mut Fields, node: &Node) -> Option<Widened> {
    let value = fields.get(node, "aggregate")?;
    if !fields.map("aggregate", value, &["ipv4", "ipv6"]) {
        return None;
    }
    let usual = Widened::default();
    Some(Widened {
        v4: fields.number(value, "ipv4", 1, Family::V4.bits()).unwrap_or(usual.v4),
        v6: fields.number(value, "ipv6", 1, Family::V6.bits()).unwrap_or(usual.v6),
    })
}

/// What Services of some namespaces may ask for.
pub(super) fn permit(fields: &mut Fields, node: &Node) -> Option<Permit> {
    if !fields.map("services", node, &["namespaces", "communities", "localPref", "peers"]) {
        return None;
    }
    let namespaces = fields.names(node, "namespaces");
    if namespaces.is_empty() {
        fields.missing("namespaces", node, "accepted are names of namespaces, or \"*\" for all");
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
        let map = matches!(value.is, Is::Map(_)) && fields.map("localPref", value, &["min", "max"]);
        if !map {
            fields.wrong("localPref", value, "accepted are bounds: {min: NUMBER, max: NUMBER}");
            return None;
        }
        let least = fields.number(value, "min", 0, u32::MAX).unwrap_or(0);
        let most = fields.number(value, "max", 0, u32::MAX).unwrap_or(u32::MAX);
        Some(least..=most)
    });
    let permit = Permit { namespaces, communities, local_pref, peers: fields.names(node, "peers") };
    fields.flaws.is_empty().then_some(permit)
}
