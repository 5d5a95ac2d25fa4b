//! When this node writes what each node may: one does, normally, and the others find it done. Pure.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::status::Update;
use crate::ownership::turn;
use crate::source::cluster::Name;

/// Within this time each node has its turn, which differs from object to object.
const SPREAD: Duration = Duration::from_millis(800);

/// What each node may write, and since when it is to be written.
#[derive(Debug)]
pub(super) struct Turns {
    node: String,
    due: BTreeMap<Name, Instant>,
}

impl Turns {
    /// Nothing is to be written yet.
    pub(super) fn of(node: &str) -> Self {
        Self { node: node.to_owned(), due: BTreeMap::new() }
    }

    /// Takes in what is to be written now.
    pub(super) fn see(&mut self, updates: &[Update], now: Instant) {
        let mut before = std::mem::take(&mut self.due);
        for Update { name, waits, .. } in updates {
            let Some(waits) = *waits else { continue };
            let due = before.remove(name);
            let due = due.unwrap_or_else(|| now + waits + turn(&self.node, name, SPREAD));
            self.due.insert(name.clone(), due);
        }
    }

    /// Whether an update may be written.
    pub(super) fn is_due(&self, update: &Update, now: Instant) -> bool {
        update.waits.is_none() || self.due.get(&update.name).is_some_and(|due| *due <= now)
    }

    /// When the next one may.
    pub(super) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.due.values().copied().filter(|due| *due > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(name: &Name, waits: Option<Duration>) -> Update {
        Update { waits, ..Update::of(name.clone(), "uid", "1") }
    }

    /// When a node writes what each may, counted from when that is known.
    fn turn_of(node: &str, name: &Name) -> Duration {
        let (mut turns, now) = (Turns::of(node), Instant::now());
        let update = update(name, Some(Duration::ZERO));
        turns.see(std::slice::from_ref(&update), now);
        let due = turns.deadline(now).unwrap_or(now);
        assert!(turns.is_due(&update, due) && (due == now || !turns.is_due(&update, now)));
        due - now
    }

    #[test]
    fn of_many_nodes_one_writes_before_the_others_and_not_the_same_for_each_object() {
        // What one has written the others see by then, and those that write nevertheless are refused it.
        let seen = Duration::from_millis(50);
        let nodes: Vec<String> = (0..5).map(|node| format!("node{node}")).collect();
        let (mut writes, mut firsts) = (0, std::collections::BTreeSet::new());
        for number in 0..200 {
            let name = Name::new("shop", format!("web-{number}"));
            let turns: Vec<Duration> = nodes.iter().map(|node| turn_of(node, &name)).collect();
            assert!(turns.iter().all(|turn| *turn < SPREAD));
            let first = *turns.iter().min().unwrap();
            writes += turns.iter().filter(|turn| **turn < first + seen).count();
            firsts.insert(turns.iter().position(|turn| *turn == first));
        }
        assert!(writes < 200 * 3 / 2, "{writes} writes for 200 objects by 5 nodes");
        assert_eq!(firsts.len(), nodes.len());
    }

    #[test]
    fn a_turn_does_not_begin_anew_while_the_same_is_to_be_written_and_whoever_decides_has_none() {
        let (mut turns, now) = (Turns::of("a"), Instant::now());
        let (name, second) = (Name::new("d", "web"), Duration::from_secs(1));
        let waits = update(&name, Some(second * 3));
        turns.see(std::slice::from_ref(&waits), now);
        let due = turns.deadline(now).unwrap();
        assert!((now + second * 3..now + second * 4).contains(&due));
        let other = Update { version: "2".to_owned(), ..waits.clone() };
        turns.see(std::slice::from_ref(&other), now + second);
        assert_eq!(turns.deadline(now + second), Some(due));
        assert!(turns.is_due(&update(&name, None), now));
        turns.see(&[], now + second * 2);
        assert_eq!(turns.deadline(now), None, "another node has written it");
        turns.see(std::slice::from_ref(&waits), now + second * 2);
        assert_eq!(turns.deadline(now), Some(due + second * 2), "that is something else");
    }
}
