//! Why other members are not heard, for people: told once for each, and by readiness while no majority answers. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use berth_membership::{Moment, NodeId};

/// Senders that are told of: anybody may send with any address.
const MOST: usize = 64;

/// A sender is told of again after this.
const AGAIN: Duration = Duration::from_secs(300);

/// What was heard longer ago than this is no reason any more.
const LATELY: Duration = Duration::from_secs(10);

/// What came of others.
#[derive(Debug, Default)]
pub(super) struct Others {
    /// When a member was last heard.
    heard: Option<Moment>,
    /// Those whose datagrams are not authentic.
    forgers: BTreeMap<IpAddr, Forger>,
    /// When nodes with another list of members were last heard, and their names.
    strangers: BTreeMap<NodeId, (Moment, String)>,
}

#[derive(Debug)]
struct Forger {
    told: Moment,
    last: Moment,
}

impl Others {
    /// A member was heard.
    pub(super) fn heard(&mut self, now: Moment) {
        self.heard = Some(now);
    }

    /// A datagram is not authentic. True if that is to be told.
    pub(super) fn forged(&mut self, from: IpAddr, now: Moment) -> bool {
        if let Some(forger) = self.forgers.get_mut(&from) {
            forger.last = now;
            let is_due = now.since(forger.told) >= AGAIN;
            if is_due {
                forger.told = now;
            }
            return is_due;
        }
        if self.forgers.len() == MOST {
            self.forgers.retain(|_, forger| now.since(forger.told) < AGAIN);
        }
        let is_room = self.forgers.len() < MOST;
        if is_room {
            self.forgers.insert(from, Forger { told: now, last: now });
        }
        is_room
    }

    /// A node has another list of members. True if that is to be told.
    pub(super) fn other_list(&mut self, node: NodeId, name: &str, now: Moment) -> bool {
        self.strangers.insert(node, (now, name.to_owned())).is_none()
    }

    /// Why no majority answers, as far as that shows.
    pub(super) fn why(&self, now: Moment) -> String {
        let lately = |at: Moment| now.since(at) < LATELY;
        let stranger = self.strangers.values().find(|(last, _)| lately(*last));
        let forger = self.forgers.iter().find(|(_, forger)| lately(forger.last));
        let why = match (stranger, forger) {
            (Some((_, name)), _) => format!(": {}", list(name)),
            (None, Some((from, _))) => format!(": {}", key(from)),
            (None, None) if self.heard.is_none_or(|at| !lately(at)) => {
                ": heard of no other member".to_owned()
            }
            (None, None) => String::new(),
        };
        format!("no majority of voters answers this node{why}")
    }
}

/// What is said of a sender whose datagrams are not authentic.
pub(super) fn key(from: &IpAddr) -> String {
    format!("what {from} sends is not authentic: another key, or a Secret made anew?")
}

/// What is said of a node with another list of members.
pub(super) fn list(name: &str) -> String {
    format!("{name} has another list of members, which must be the same on all, and is not heard")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(seconds: u64) -> Moment {
        Moment::from_nanos(0) + Duration::from_secs(seconds)
    }

    #[test]
    fn a_sender_with_another_key_is_told_of_once_and_again_after_five_minutes() {
        let (mut others, from) = (Others::default(), IpAddr::from([192, 0, 2, 13]));
        assert!(others.forged(from, after(0)));
        assert!((1..300).all(|second| !others.forged(from, after(second))));
        assert!(others.forged(from, after(300)));
    }

    #[test]
    fn who_sends_with_many_addresses_is_told_of_seldom_and_hides_nobody_for_long() {
        let mut others = Others::default();
        let told = (0..=255).filter(|last| others.forged([192, 0, 2, *last].into(), after(0)));
        assert_eq!(told.count(), MOST);
        assert!(!others.forged([203, 0, 113, 1].into(), after(299)));
        assert!(others.forged([203, 0, 113, 1].into(), after(300)));
    }

    #[test]
    fn readiness_says_why_no_majority_answers() {
        let mut others = Others::default();
        let is = |others: &Others, now, why: &str| {
            assert_eq!(others.why(now), format!("no majority of voters answers this node{why}"));
        };
        is(&others, after(0), ": heard of no other member");
        others.forged([192, 0, 2, 13].into(), after(0));
        is(
            &others,
            after(1),
            ": what 192.0.2.13 sends is not authentic: another key, or a Secret made anew?",
        );
        assert!(others.other_list(NodeId::of("node-b"), "node-b", after(1)));
        assert!(!others.other_list(NodeId::of("node-b"), "node-b", after(2)));
        assert!(others.why(after(2)).contains(": node-b has another list of members"));
        others.heard(after(20));
        is(&others, after(20), "");
        is(&others, after(40), ": heard of no other member");
    }
}
