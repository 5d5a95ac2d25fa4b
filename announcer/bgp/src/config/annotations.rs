//! What a node's annotations say of its peers, with whatever prefix is set: the scheme that Equinix Metal began and others
//! have gone on with. Keys come with and without `bgp-peers-<n>-` before them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::flaw::{Flaw, MOST_FLAWS, Place};
use super::grammar::{AS_ACCEPTED, SWITCH_ACCEPTED, asn, is_peer, switch};
use super::password::{self, Password};
use super::peer::{Distance, FAR, Peer, Remote, RouterId};
use crate::session::RemoteAs;

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeSays {
    /// Its BGP Identifier, which is the address of its first peer's connection.
    pub router_id: Option<RouterId>,
    /// Its peers, each with the node's AS towards it.
    pub peers: Vec<Peer>,
}

/// Reads annotations of a node. While none of them is there nothing is said, and nothing is wrong.
pub fn node_annotations(
    prefix: &str,
    annotations: &BTreeMap<String, String>,
) -> (NodeSays, Vec<Flaw>) {
    let ours = annotations.iter().filter_map(|(key, value)| {
        let key = key.strip_prefix(prefix)?.strip_prefix('/')?;
        let numbered = key.strip_prefix("bgp-peers-").and_then(|rest| rest.split_once('-'));
        match numbered {
            Some((number, name)) => Some(((Some(number.parse::<u32>().ok()?), name), value.trim())),
            None => Some(((None, key), value.trim())),
        }
    });
    let ours: BTreeMap<(Option<u32>, &str), &str> = ours.collect();
    // Others may keep annotations there, too.
    let names = ["node-asn", "peer-asn", "src-ip", "peer-ip", "bgp-pass", "peer-multi-hop"];
    let numbers: BTreeSet<Option<u32>> =
        ours.keys().filter(|(_, name)| names.contains(name)).map(|(number, _)| *number).collect();
    let (mut says, mut flaws) = (NodeSays::default(), Vec::new());
    for number in numbers {
        let mut reader = Reader { prefix, number, ours: &ours, flaws: Vec::new() };
        let (source, peers) = reader.peers().unwrap_or_default();
        if !reader.flaws.is_empty() {
            flaws.extend(reader.flaws.into_iter().take(MOST_FLAWS - flaws.len()));
            continue;
        }
        if let Some(IpAddr::V4(id)) = source {
            says.router_id.get_or_insert(RouterId::Is(id));
        }
        for peer in peers {
            if says.peers.iter().all(|other| other.remote != peer.remote) {
                says.peers.push(peer);
            }
        }
    }
    (says, flaws)
}

struct Reader<'a> {
    prefix: &'a str,
    number: Option<u32>,
    ours: &'a BTreeMap<(Option<u32>, &'a str), &'a str>,
    flaws: Vec<Flaw>,
}

impl<'a> Reader<'a> {
    fn key(&self, name: &str) -> String {
        match self.number {
            Some(number) => format!("{}/bgp-peers-{number}-{name}", self.prefix),
            None => format!("{}/{name}", self.prefix),
        }
    }

    fn text(&self, name: &'a str) -> Option<&'a str> {
        self.ours.get(&(self.number, name)).copied().filter(|text| !text.is_empty())
    }

    fn read<T>(
        &mut self,
        name: &'a str,
        accepted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        let text = self.text(name)?;
        let value = read(text);
        if value.is_none() {
            let flaw = Flaw::new("", &self.key(name), Place::Named, accepted);
            self.flaws.push(if name == "bgp-pass" { flaw } else { flaw.value(text) });
        }
        value
    }

    fn needed<T>(
        &mut self,
        name: &'a str,
        accepted: &str,
        read: impl Fn(&str) -> Option<T>,
    ) -> Option<T> {
        if self.text(name).is_none() {
            self.flaws.push(Flaw::new(
                "",
                &self.key(name),
                Place::Named,
                format!("it is missing; {accepted}"),
            ));
        }
        self.read(name, accepted, read)
    }

    fn peers(&mut self) -> Option<(Option<IpAddr>, Vec<Peer>)> {
        let local_as = self.needed("node-asn", AS_ACCEPTED, asn);
        let remote_as = self.needed("peer-asn", AS_ACCEPTED, asn);
        let address =
            |text: &str| text.trim().parse::<IpAddr>().ok().filter(|address| is_peer(*address));
        let source = self.needed("src-ip", "accepted is an address of the node", address);
        let list = |text: &str| text.split(',').map(address).collect::<Option<Vec<IpAddr>>>();
        let accepted = "accepted are addresses of hosts, with commas between them";
        let addresses = self.needed("peer-ip", accepted, list);
        let password = self.text("bgp-pass").is_some().then(|| {
            self.read("bgp-pass", password::ACCEPTED_BASE64, |text| {
                Password::text(std::str::from_utf8(&base64(text)?).ok()?)
            })
        });
        let far = self.read("peer-multi-hop", SWITCH_ACCEPTED, switch);
        let (local_as, remote_as, source) = (local_as?, remote_as?, source?);
        let peers = addresses?.into_iter().map(|address| {
            let mut peer = Peer::new(Remote::Address(address), RemoteAs::Is(remote_as));
            peer.local_as = Some(local_as);
            peer.source = Some(source).filter(|source| source.is_ipv4() == address.is_ipv4());
            peer.password = password.clone().flatten();
            if far == Some(true) {
                peer.distance = Distance::Hops(FAR);
            }
            peer
        });
        Some((Some(source), peers.collect()))
    }
}

/// The octets of a text in base64 (RFC 4648 §4), with or without the padding; nothing where it is none.
fn base64(text: &str) -> Option<Vec<u8>> {
    let (mut bits, mut count, mut octets) = (0_u32, 0, Vec::new());
    for c in text.trim_end_matches('=').bytes() {
        let six = match c {
            b'A'..=b'Z' => c - b'A',
            b'a'..=b'z' => c - b'a' + 26,
            b'0'..=b'9' => c - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        (bits, count) = ((bits << 6 | u32::from(six)) & 0xffff, count + 6);
        if count >= 8 {
            count -= 8;
            octets.push((bits >> count & 0xff) as u8);
        }
    }
    (count != 6).then_some(octets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (NodeSays, Vec<String>) {
        let pairs =
            pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let (says, flaws) = node_annotations("metal.example.com", &pairs);
        (says, flaws.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_node_says_who_its_peers_are_with_and_without_numbers() {
        for form in ["", "bgp-peers-0-"] {
            let key = |name: &str| format!("metal.example.com/{form}{name}");
            let (says, flaws) = read(&[
                (&key("node-asn"), "65000"),
                (&key("peer-asn"), "65530"),
                (&key("src-ip"), "10.0.0.5"),
                (&key("peer-ip"), "169.254.255.1, 169.254.255.2"),
                (&key("bgp-pass"), "c2VjcmV0"),
                (&key("network"), "private"),
                ("other.example.com/node-asn", "x"),
            ]);
            assert!(flaws.is_empty(), "{flaws:?}");
            assert_eq!(says.router_id, Some(RouterId::Is("10.0.0.5".parse().unwrap())));
            assert_eq!(says.peers.len(), 2);
            let peer = &says.peers[1];
            assert_eq!((peer.local_as, peer.remote_as), (Some(65000), RemoteAs::Is(65530)));
            assert_eq!(peer.source, Some("10.0.0.5".parse().unwrap()));
            assert_eq!(peer.password, Password::text("secret"));
        }
    }

    #[test]
    fn numbered_peers_are_several_and_a_wrong_one_costs_no_other() {
        let (says, flaws) = read(&[
            ("metal.example.com/bgp-peers-0-node-asn", "65000"),
            ("metal.example.com/bgp-peers-0-peer-asn", "65530"),
            ("metal.example.com/bgp-peers-0-src-ip", "10.0.0.5"),
            ("metal.example.com/bgp-peers-0-peer-ip", "169.254.255.1"),
            ("metal.example.com/bgp-peers-1-node-asn", "65000"),
            ("metal.example.com/bgp-peers-1-peer-asn", "0"),
            ("metal.example.com/bgp-peers-1-src-ip", "10.0.0.5"),
            ("metal.example.com/bgp-peers-1-bgp-pass", "hunter2hunter2!"),
        ]);
        assert_eq!(says.peers.len(), 1);
        assert_eq!(flaws.len(), 3, "{flaws:?}");
        assert!(
            flaws[0].starts_with("metal.example.com/bgp-peers-1-peer-asn \"0\": accepted"),
            "{flaws:?}"
        );
        assert!(
            flaws[1].starts_with("metal.example.com/bgp-peers-1-peer-ip: it is missing"),
            "{flaws:?}"
        );
        assert!(!flaws[2].contains("hunter2"), "{flaws:?}");
    }

    #[test]
    fn a_node_without_annotations_is_waited_for() {
        let nothing = (NodeSays::default(), vec![]);
        assert_eq!(read(&[]), nothing);
        assert_eq!(
            read(&[("metal.example.com/network", "private"), ("metal.example.comx/node-asn", "1")]),
            nothing
        );
    }

    #[test]
    fn base64_is_as_rfc_4648_has_it() {
        for (text, octets) in
            [("", ""), ("Zg==", "f"), ("Zm8=", "fo"), ("Zm9v", "foo"), ("Zm9vYg", "foob")]
        {
            assert_eq!(base64(text).as_deref(), Some(octets.as_bytes()), "{text}");
        }
        assert_eq!(base64("////"), Some(vec![0xff; 3]));
        for wrong in ["Z", "Zm9vY", "Zm 9", "Zm9\u{e4}"] {
            assert_eq!(base64(wrong), None, "{wrong}");
        }
    }
}
