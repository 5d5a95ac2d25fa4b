//! What the roles of a file give, against what is needed.

use super::sheet::{Mark, Sheet};
use crate::manifest::read::Node;
use crate::manifest::rights::{Place, Right};

/// A role that is bound to an account, and where that holds.
pub(super) struct Bound<'n> {
    pub(super) role: &'n Node,
    place: Place,
}

impl<'n> Bound<'n> {
    /// A role as it is where it is bound for all namespaces.
    pub(super) fn everywhere(role: &'n Node) -> Self {
        Self { role, place: Place::Everywhere }
    }
}

/// What an object says that it is.
pub(super) fn kind(object: &Node) -> &str {
    object.get("kind").and_then(Node::text).unwrap_or_default()
}

pub(super) fn name(object: &Node) -> &str {
    object.at(&["metadata", "name"]).and_then(Node::text).unwrap_or_default()
}

pub(super) fn namespace(object: &Node) -> Option<&str> {
    object.at(&["metadata", "namespace"]).and_then(Node::text)
}

/// The roles of a file that are bound to an account.
pub(super) fn bound<'n>(objects: &[&'n Node], account: &str, home: &str) -> Vec<Bound<'n>> {
    let mut all = Vec::new();
    for binding in objects.iter().filter(|object| kind(object).ends_with("RoleBinding")) {
        let text = |node: &Node, key: &str| node.get(key).and_then(Node::text).map(str::to_owned);
        let is_it = |subject: &Node| {
            let elsewhere = text(subject, "namespace").is_some_and(|namespace| namespace != home);
            text(subject, "kind").as_deref() == Some("ServiceAccount")
                && text(subject, "name").as_deref() == Some(account)
                && !elsewhere
        };
        if !binding.get("subjects").map(Node::items).unwrap_or_default().iter().any(is_it) {
            continue;
        }
        let Some(reference) = binding.get("roleRef") else { continue };
        let (wanted, named) = (text(reference, "kind"), text(reference, "name"));
        let at = namespace(binding).unwrap_or(home);
        let is_role = |object: &&&Node| {
            wanted.as_deref() == Some(kind(object))
                && named.as_deref() == Some(name(object))
                && (kind(object) == "ClusterRole" || namespace(object).unwrap_or(home) == at)
        };
        let place = match kind(binding) {
            "ClusterRoleBinding" => Place::Everywhere,
            _ => Place::Namespace(at.to_owned()),
        };
        all.extend(objects.iter().find(is_role).map(|role| Bound { role, place }));
    }
    all
}

/// Says of each rule of a role what it is needed for, and of no other line.
pub(super) fn rules(sheet: &mut Sheet, role: &Node, needed: &[Right]) {
    for rule in role.get("rules").map(Node::items).unwrap_or_default() {
        let list = |key: &str| rule.get(key).map(|list| list.texts().collect::<Vec<_>>());
        let (resources, verbs) =
            (list("resources").unwrap_or_default(), list("verbs").unwrap_or_default());
        let uses = |resource: &str, verb: &str| {
            let is_it = |right: &&Right| {
                (resource == "*" || right.resource == resource)
                    && (verb == "*" || right.verbs.contains(&verb))
                    && list("apiGroups").is_some_and(|groups| {
                        groups.iter().any(|group| *group == "*" || *group == right.group)
                    })
            };
            needed.iter().any(|right| is_it(&right))
        };
        let stands_in = |resource: &str, verb: &str| {
            needed.iter().flat_map(|right| right.instead).any(|way| *way == (verb, resource))
        };
        let (mut used, mut second, mut idle) = (Vec::new(), Vec::new(), Vec::new());
        for resource in &resources {
            for verb in &verbs {
                let to = match (uses(resource, verb), stands_in(resource, verb)) {
                    (true, _) => &mut used,
                    (false, true) => &mut second,
                    (false, false) => &mut idle,
                };
                to.push(format!("{verb} {resource}"));
            }
        }
        let parts = [
            ("needed", &used),
            ("needed where a better right is not given", &second),
            ("not needed", &idle),
        ];
        let told = parts.iter().filter(|(_, list)| !list.is_empty());
        let told: Vec<_> =
            told.map(|(what, list)| format!("{what}: {}", list.join(", "))).collect();
        let (mark, text) = match used.is_empty() && second.is_empty() {
            true => (Mark::Better, told.join("; ")),
            false => (Mark::Same, told.join("; ")),
        };
        sheet.node(rule, mark, text);
    }
}

/// The rights that the roles do not give, each with the verbs that are missing.
pub(super) fn missing<'r>(
    bound: &[Bound<'_>],
    needed: &'r [Right],
) -> Vec<(&'r Right, Vec<&'r str>)> {
    let gives = |right: &Right, verb: &str| bound.iter().any(|bound| given(bound, right, verb));
    needed
        .iter()
        .map(|right| {
            let verbs = right.verbs.iter().copied();
            (right, verbs.filter(|verb| !gives(right, verb)).collect::<Vec<_>>())
        })
        .filter(|(_, verbs)| !verbs.is_empty())
        .collect()
}

fn given(bound: &Bound<'_>, right: &Right, verb: &str) -> bool {
    let holds = bound.place == Place::Everywhere || bound.place == right.place;
    let rules = bound.role.get("rules").map(Node::items).unwrap_or_default();
    holds
        && rules.iter().any(|rule| {
            let has = |key: &str, wanted: &str| {
                let list = rule.get(key);
                list.is_some_and(|list| list.texts().any(|text| text == wanted || text == "*"))
            };
            let names = rule.get("resourceNames").map(|names| names.texts().collect::<Vec<_>>());
            let named =
                names.is_none_or(|names| right.name.is_some_and(|name| names.contains(&name)));
            has("apiGroups", right.group)
                && has("resources", right.resource)
                && has("verbs", verb)
                && named
        })
}

/// How a right is given, and what is lost without it.
pub(super) fn told(right: &Right, verbs: &[&str]) -> String {
    right.plain().rule(verbs)
}
