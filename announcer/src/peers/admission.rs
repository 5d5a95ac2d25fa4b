//! Whose datagrams are looked at: to check a tag costs time, and anybody may send. Pure.
//!
//! A peer sends from an internal address of its Node, and from the port of the peers. Where something on the way puts
//! another address in its place, or the node has more than it tells of, it is a stranger until it was heard; then it is
//! known by where it was heard from. Of strangers a few datagrams a second are looked at, of each as many: more than a peer
//! sends until it is heard, and less than would keep this node from anything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use berth_membership::NodeId;

/// Other places of one node that are known: whoever records what it says, and is faster, makes one more.
const PLACES: usize = 4;

/// Strangers that are looked at, and datagrams of each, in one [`WINDOW`].
const STRANGERS: usize = 64;
const OF_EACH: u32 = 64;
const WINDOW: Duration = Duration::from_secs(1);

/// An address and a port.
type Origin = (IpAddr, u16);

/// Who is known.
#[derive(Debug)]
pub(super) struct Admission {
    /// The port of the peers.
    port: u16,
    /// All internal addresses of all peers.
    announced: BTreeSet<IpAddr>,
    /// Where else each peer was heard from, the last one last.
    places: BTreeMap<NodeId, VecDeque<Origin>>,
    /// All of those.
    elsewhere: BTreeSet<Origin>,
    strangers: Strangers,
}

/// Who else has sent in this window.
#[derive(Debug, Default)]
struct Strangers {
    since: Option<Instant>,
    sent: BTreeMap<IpAddr, u32>,
}

impl Admission {
    /// Nobody is known yet.
    pub(super) fn new(port: u16) -> Self {
        let (announced, places, elsewhere) = Default::default();
        Self { port, announced, places, elsewhere, strangers: Strangers::default() }
    }

    /// These are the peers, with all their internal addresses.
    pub(super) fn know<'a>(&mut self, peers: impl IntoIterator<Item = (NodeId, &'a [IpAddr])>) {
        let mut places = std::mem::take(&mut self.places);
        self.announced.clear();
        for (node, addresses) in peers {
            self.announced.extend(addresses);
            self.places.insert(node, places.remove(&node).unwrap_or_default());
        }
        self.collect();
    }

    /// Takes in that a peer made a datagram just now that came from there.
    pub(super) fn heard(&mut self, node: NodeId, from: SocketAddr) {
        let origin = (from.ip(), from.port());
        if self.is_announced(origin) {
            return;
        }
        let Some(places) = self.places.get_mut(&node) else { return };
        if places.contains(&origin) {
            return;
        }
        if places.len() == PLACES {
            places.pop_front();
        }
        places.push_back(origin);
        self.collect();
    }

    fn collect(&mut self) {
        self.elsewhere = self.places.values().flatten().copied().collect();
    }

    /// Whether a datagram that came from there is looked at.
    pub(super) fn admits(&mut self, from: SocketAddr, now: Instant) -> bool {
        let origin = (from.ip(), from.port());
        self.is_announced(origin)
            || self.elsewhere.contains(&origin)
            || self.strangers.admit(origin.0, now)
    }

    fn is_announced(&self, (address, port): Origin) -> bool {
        port == self.port && self.announced.contains(&address)
    }
}

impl Strangers {
    fn admit(&mut self, from: IpAddr, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            self.since = Some(now);
            self.sent.clear();
        }
        if self.sent.len() == STRANGERS && !self.sent.contains_key(&from) {
            return false;
        }
        let sent = self.sent.entry(from).or_default();
        *sent = sent.saturating_add(1);
        *sent <= OF_EACH
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORT: u16 = 2113;
    const B: NodeId = NodeId::from_bits(2);

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn known() -> Admission {
        let mut admission = Admission::new(PORT);
        let b: Vec<IpAddr> = ["192.0.2.2", "2001:db8::2"].map(|a| a.parse().unwrap()).into();
        admission.know([(B, &b[..])]);
        admission
    }

    /// How many of these are looked at, one after the other in the same moment.
    fn admitted(admission: &mut Admission, from: &str, count: u32, now: Instant) -> u32 {
        (0..count).filter(|_| admission.admits(at(from), now)).count().try_into().unwrap()
    }

    #[test]
    fn all_addresses_of_a_peer_are_known_and_strangers_are_looked_at_seldom() {
        let (mut admission, now) = (known(), Instant::now());
        for peer in ["192.0.2.2:2113", "[2001:db8::2]:2113"] {
            assert_eq!(admitted(&mut admission, peer, 1000, now), 1000);
        }
        // A pod that leaves its node by the node's address has another port: that one is the node's own.
        for stranger in ["192.0.2.2:40000", "10.244.0.7:2113"] {
            assert_eq!(admitted(&mut admission, stranger, 1000, now), OF_EACH, "{stranger}");
            assert_eq!(admitted(&mut admission, stranger, 1000, now + WINDOW / 2), 0);
        }
        assert_eq!(admitted(&mut admission, "10.244.0.7:2113", 1000, now + WINDOW), OF_EACH);
        assert_eq!(admitted(&mut admission, "192.0.2.2:2113", 1000, now), 1000);
    }

    #[test]
    fn before_peers_are_known_whoever_sends_as_little_as_one_is_looked_at() {
        let (mut admission, now) = (Admission::new(PORT), Instant::now());
        assert_eq!(admitted(&mut admission, "192.0.2.2:2113", 50, now), 50);
    }

    #[test]
    fn a_peer_is_known_by_where_it_was_heard_from_whoever_else_sends() {
        let (mut admission, now) = (known(), Instant::now());
        let behind_a_router = "198.51.100.7:61013";
        assert_eq!(admitted(&mut admission, behind_a_router, 4, now), 4);
        admission.heard(B, at(behind_a_router));
        for pod in 0..=u8::MAX {
            admitted(&mut admission, &format!("10.244.0.{pod}:2113"), 1, now);
        }
        assert_eq!(admitted(&mut admission, behind_a_router, 1000, now), 1000);
        assert_eq!(admitted(&mut admission, "198.51.100.7:9", 1, now), 1, "its own budget");
        assert_eq!(admitted(&mut admission, "198.51.100.8:9", 1, now), 0, "none is left");
        // It has moved on, and is gone at last.
        (1..=4).for_each(|port| admission.heard(B, at(&format!("198.51.100.7:{port}"))));
        assert_eq!(admission.places[&B].len(), PLACES);
        assert!(!admission.elsewhere.contains(&(at(behind_a_router).ip(), 61013)));
        admission.know([]);
        assert!(admission.elsewhere.is_empty());
        assert_eq!(admitted(&mut admission, "192.0.2.2:2113", 1000, now + WINDOW), OF_EACH);
    }

    #[test]
    fn who_is_no_peer_is_known_by_nothing() {
        let mut admission = known();
        admission.heard(NodeId::from_bits(3), at("198.51.100.7:2113"));
        assert!(admission.elsewhere.is_empty());
    }
}
