//! In which order statuses are written, of which only so many are under way at a time. Pure.

use std::collections::BTreeMap;

use super::status::Update;
use crate::vip::Name;

/// What takes an address of others out comes first, then who announces what, and last what is said of it.
pub(super) fn by_turns(updates: Vec<Update>) -> Vec<Update> {
    let kind = |update: &Update| match (update.takes_out, &update.publication) {
        (true, _) => 0,
        (false, Some(_)) => 1,
        (false, None) => 2,
    };
    in_turn(updates, kind, |update| &update.name)
}

/// Those of the smaller kind first, and of each the namespaces take turns: thousands of one, which a single edit there may
/// change, keep nobody else waiting.
pub(super) fn in_turn<T>(
    writes: Vec<T>,
    kind: impl Fn(&T) -> u8,
    name: impl Fn(&T) -> &Name,
) -> Vec<T> {
    let mut counts: BTreeMap<(u8, String), usize> = BTreeMap::new();
    let mut turn = |write: &T| {
        let kind = kind(write);
        let count = counts.entry((kind, name(write).namespace.clone())).or_default();
        *count += 1;
        (kind, *count)
    };
    let mut turns: Vec<_> = writes.into_iter().map(|write| (turn(&write), write)).collect();
    turns.sort_by_key(|(turn, _)| *turn);
    turns.into_iter().map(|(_, write)| write).collect()
}

#[cfg(test)]
mod tests {
    use super::super::status::Publication;
    use super::*;

    fn update(name: &str, takes_out: bool, publishes: bool) -> Update {
        let (namespace, name) = name.split_once('/').unwrap();
        let publication = Publication { vip_host: None, ingress: Vec::new() };
        Update {
            publication: publishes.then_some(publication),
            takes_out,
            ..Update::of(Name::new(namespace, name), "uid", "1")
        }
    }

    #[test]
    fn what_is_another_s_goes_out_before_thousands_are_told_something_and_namespaces_take_turns() {
        let mut updates: Vec<Update> =
            (0..2000).map(|n| update(&format!("a/{n:04}"), false, n == 1500)).collect();
        updates.extend([
            update("m/thief", true, true),
            update("shop/told", false, false),
            update("shop/web", false, true),
            update("z/thief", true, true),
        ]);
        let order: Vec<String> =
            by_turns(updates).into_iter().map(|update| update.name.to_string()).collect();
        let first = ["m/thief", "z/thief", "a/1500", "shop/web", "a/0000", "shop/told", "a/0001"];
        assert_eq!(order[..7], first);
        assert_eq!(order.len(), 2004);
    }
}
