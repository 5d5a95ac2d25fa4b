//! Everything that is said, together: the ConfigMap over settings, and what holds only of all of it.

use std::collections::{BTreeMap, BTreeSet};

use super::document::Document;
use super::flaw::{Flaw, MOST_FLAWS, Place};
use super::peer::{Peer, Remote, Speaker};
use super::permits::Permits;
use crate::policy::{Filter, Policy};
use crate::prefix::Family;

/// Peers of one place that are named.
const MOST_NAMES: usize = 4;

/// What a speaker goes by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// What is the same for all peers.
    pub speaker: Speaker,
    /// All peers, of whichever node.
    pub peers: Vec<Peer>,
    /// What is announced to whom, and how.
    pub policy: Policy,
    /// What Services may ask for.
    pub permits: Permits,
    /// What neighbours on the LAN are told of, and no router.
    pub layer2: Vec<Filter>,
}

impl Config {
    /// Puts the ConfigMap over settings. Of two peers with one name the first counts, unless that is one of settings at the same
    /// place.
    pub fn of(settings: (Speaker, Vec<Peer>), document: Document) -> (Self, Vec<Flaw>) {
        let (usual, peers) = settings;
        let speaker = Speaker {
            local_as: document.local_as.unwrap_or(usual.local_as),
            router_id: document.router_id.unwrap_or(usual.router_id),
            hold_time: document.hold_time.unwrap_or(usual.hold_time),
            keepalive: document.keepalive.or(usual.keepalive),
            connect_retry: document.connect_retry.unwrap_or(usual.connect_retry),
            graceful_restart: document.graceful_restart.unwrap_or(usual.graceful_restart),
            listen: document.listen.or(usual.listen),
        };
        let Document { policy, permits, layer2, .. } = document;
        let mut config = Self { speaker, peers: vec![], policy, permits, layer2 };
        let mut flaws = Vec::new();
        let mut names: BTreeMap<String, (bool, Remote)> = BTreeMap::new();
        let peers = peers.into_iter().map(|peer| Peer { of_settings: true, ..peer });
        for peer in peers.chain(document.peers) {
            let is = (peer.of_settings, peer.remote.clone());
            let before = names.insert(peer.name.clone(), is);
            let gives_way = |(of_settings, remote): &(bool, Remote)| {
                *of_settings && !peer.of_settings && *remote == peer.remote
            };
            if !before.as_ref().is_none_or(gives_way) {
                let of = format!("peer {}", peer.name);
                let accepted = "accepted is a name that no other peer has; one of the settings is called by its address";
                flaws.push(Flaw::new(&of, "name", Place::Named, accepted));
                continue;
            }
            if peer.role.accepts() && config.speaker.listen.is_none() {
                let of = format!("peer {}", peer.name);
                let accepted = "accepted is active, for nobody listens: set listen to a port";
                flaws.push(Flaw::new(&of, "connect", Place::Named, accepted));
                continue;
            }
            config.peers.push(peer);
        }
        flaws.truncate(MOST_FLAWS);
        (config, flaws)
    }

    /// Families of which no peer is told anything, of whichever node.
    pub fn unspoken(&self) -> BTreeSet<Family> {
        let spoken: BTreeSet<Family> =
            self.peers.iter().flat_map(|peer| peer.families.iter().copied()).collect();
        Family::ALL.into_iter().filter(|family| !spoken.contains(family)).collect()
    }

    /// Rules and permits that name a peer that is not there: misspelt, or one that a node's annotations bring.
    pub fn strangers(&self) -> Vec<Flaw> {
        let names: BTreeSet<String> = self.peers.iter().map(|peer| peer.name.clone()).collect();
        let mut flaws = Vec::new();
        let mut tell = |of: &str, number: usize, named: &BTreeSet<String>| {
            let room = MOST_FLAWS.saturating_sub(flaws.len());
            for name in named.difference(&names).filter(|name| *name != "*").take(room) {
                let of = format!("{of} {}", number + 1);
                flaws.push(
                    Flaw::new(&of, "peers", Place::Named, "no peer has this name").value(name),
                );
            }
        };
        let rules = self.policy.rules.iter().enumerate();
        rules.for_each(|(number, rule)| tell("policy", number, &rule.filter.peers));
        let permits = self.permits.0.iter().enumerate();
        permits.for_each(|(number, permit)| tell("services", number, &permit.peers));
        flaws
    }

    /// The peers of the node with these labels. One of the ConfigMap takes the place of one of settings at its address. Two that are at one place, reached the same way, collide there, and so do two at
    /// one address that connect: none of them is spoken to, for nobody could tell which is meant.
    pub fn of_node(&self, labels: &BTreeMap<String, String>) -> (Vec<&Peer>, Vec<Flaw>) {
        let of_node = || self.peers.iter().filter(|peer| peer.is_of(labels));
        let said = of_node().filter(|peer| !peer.of_settings).map(|peer| &peer.remote);
        let said: BTreeSet<&Remote> = said.collect();
        let all = || of_node().filter(|peer| !peer.of_settings || !said.contains(&peer.remote));
        let mut places: BTreeMap<_, Vec<&Peer>> = BTreeMap::new();
        for peer in all() {
            places.entry((&peer.remote, peer.port, peer.source)).or_default().push(peer);
        }
        let mut connecting: BTreeMap<_, Vec<&Peer>> = BTreeMap::new();
        for peer in all().filter(|peer| peer.role.accepts()) {
            connecting.entry(&peer.remote).or_default().push(peer);
        }
        let (mut collide, mut told) = (BTreeSet::new(), BTreeSet::new());
        let mut flaws = Vec::new();
        for alike in places.values().chain(connecting.values()).filter(|alike| alike.len() > 1) {
            let names: Vec<&str> = alike.iter().map(|peer| peer.name.as_str()).collect();
            collide.extend(names.iter().copied());
            if told.insert(names) && flaws.len() < MOST_FLAWS {
                flaws.push(collision(alike));
            }
        }
        let mut peers: Vec<&Peer> = all().filter(|peer| !collide.contains(&*peer.name)).collect();
        peers.sort_by(|one, other| one.name.cmp(&other.name));
        (peers, flaws)
    }
}

/// That these peers of one node cannot be told apart.
fn collision(alike: &[&Peer]) -> Flaw {
    let names: Vec<&str> = alike.iter().take(MOST_NAMES).map(|peer| peer.name.as_str()).collect();
    let more = alike.len() - names.len();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let of = format!("peers {}{more}", names.join(" and "));
    let differ = match alike.iter().all(|peer| peer.role.accepts()) {
        true => "nodes that differ: who connects is known by its address alone",
        false => "nodes that differ, or sources",
    };
    let accepted =
        format!("both are of this node and at {}: accepted are {differ}", alike[0].remote);
    Flaw::new(&of, "nodes", Place::Named, accepted)
}

#[cfg(test)]
mod tests {
    use super::super::{check, peers};
    use super::*;

    fn config(list: &str, document: &str) -> (Config, Vec<String>) {
        let (peers, wrong) = peers(list);
        let (document, also) = check(document);
        assert_eq!((wrong, also), (vec![], vec![]));
        let (config, flaws) = Config::of((Speaker::default(), peers), document);
        (config, flaws.iter().map(ToString::to_string).collect())
    }

    const RACKS: &str = "
asn: 65010
peers:
- {name: a, address: 192.0.2.1, asn: 65001, source: 192.0.2.11, nodes: {matchLabels: {rack: a}}}
- {name: b, address: 192.0.2.1, asn: 65002, nodes: {matchLabels: {rack: b}}}
- {name: c, address: 192.0.2.1, asn: 65003, nodes: {matchLabels: {row: c}}}
";

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn one_address_is_a_different_peer_on_each_node() {
        let (config, flaws) = config("192.0.2.99:65099", RACKS);
        assert!(flaws.is_empty(), "{flaws:?}");
        assert_eq!(config.speaker.local_as, 65010);
        let names = |pairs: &[(&str, &str)]| {
            let (peers, flaws) = config.of_node(&labels(pairs));
            let names: Vec<String> = peers.iter().map(|peer| peer.name.clone()).collect();
            (names, flaws.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(
            names(&[("rack", "a")]),
            (vec!["192.0.2.99".to_owned(), "a".to_owned()], vec![])
        );
        assert_eq!(names(&[("rack", "b")]).0, ["192.0.2.99", "b"]);
        assert_eq!(names(&[]).0, ["192.0.2.99"]);
        let (both, flaws) = names(&[("rack", "b"), ("row", "c")]);
        assert_eq!(both, ["192.0.2.99"], "neither of the two, and the other one all the same");
        assert!(
            flaws[0].starts_with("peers b and c, nodes: both are of this node and at 192.0.2.1"),
            "{flaws:?}"
        );
        assert_eq!(
            names(&[("rack", "a"), ("row", "c")]).0,
            ["192.0.2.99", "a", "c"],
            "from two sources"
        );
    }

    #[test]
    fn a_router_that_settings_name_as_well_is_the_one_of_the_configmap_where_that_has_it() {
        for name in ["name: tor, ", ""] {
            let document = format!(
                "peers:\n- {{{name}address: 192.0.2.1, asn: 65001, nodes: {{matchLabels: {{rack: a}}}}}}\n"
            );
            let (config, flaws) = config("192.0.2.1:65099,192.0.2.2:65001", &document);
            assert!(flaws.is_empty(), "{flaws:?}");
            assert_eq!(config.unspoken(), BTreeSet::from([Family::V6]));
            let of_node = |rack: &str| {
                let labels = labels(&[("rack", rack)]);
                let (peers, flaws) = config.of_node(&labels);
                assert!(flaws.is_empty(), "{flaws:?}");
                peers.iter().map(|peer| format!("{}", peer.remote_as)).collect::<Vec<_>>()
            };
            assert_eq!(of_node("b"), ["AS 65099", "AS 65001"], "not of this node");
            let mut there = of_node("a");
            there.sort();
            assert_eq!(there, ["AS 65001", "AS 65001"]);
        }
    }

    #[test]
    fn of_two_at_one_address_that_connect_neither_is_spoken_to() {
        let document = "
listen: {port: 1790, addresses: [192.0.2.0/24]}
peers:
- {name: a, address: 192.0.2.1, asn: 65001, connect: both, source: 192.0.2.11}
- {name: b, address: 192.0.2.1, asn: 65001, connect: passive, port: 1790}
- {name: c, address: 192.0.2.1, asn: 65001, port: 1791}
";
        let (config, flaws) = config("", document);
        assert!(flaws.is_empty(), "{flaws:?}");
        let (peers, flaws) = config.of_node(&labels(&[]));
        assert_eq!(peers.iter().map(|peer| &*peer.name).collect::<Vec<_>>(), ["c"]);
        let [flaw] = &flaws[..] else { panic!("{flaws:?}") };
        assert!(flaw.to_string().contains("by its address alone"), "{flaw}");
        let listen = config.speaker.listen.unwrap();
        assert!(listen.is_at("192.0.2.7".parse().unwrap()));
        assert!(!listen.is_at("192.0.3.7".parse().unwrap()));
        assert!(!listen.is_at("2001:db8::7".parse().unwrap()));
    }

    #[test]
    fn names_are_unique_and_rules_name_peers_that_are_there() {
        let document = "
peers:
- {address: 192.0.2.1, asn: 65001}
- {name: p, address: 192.0.2.2, asn: external, connect: passive}
policy:
- {peers: [192.0.2.1, nobody], localPref: 200}
services:
- {namespaces: [\"*\"], peers: [\"*\", noone]}
";
        let (config, flaws) = config("192.0.2.1:65099,192.0.2.1:65098", document);
        assert_eq!(flaws.len(), 2, "{flaws:?}");
        assert!(
            flaws[0].starts_with("peer 192.0.2.1, name: accepted is a name that no other"),
            "of two of settings: {flaws:?}"
        );
        assert!(flaws[1].starts_with("peer p, connect: accepted is active"), "{flaws:?}");
        let strangers: Vec<String> = config.strangers().iter().map(ToString::to_string).collect();
        assert_eq!(
            strangers,
            [
                "policy 1, peers \"nobody\": no peer has this name",
                "services 1, peers \"noone\": no peer has this name"
            ]
        );
    }
}
