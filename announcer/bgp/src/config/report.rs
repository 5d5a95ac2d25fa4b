//! What `berth-announcer check-bgp FILE` says: whom nodes would speak to, and everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;

use super::document::{self, Document};
use super::flaw::{Flaw, MOST_FLAWS, Place};
use super::merge::Config;
use super::peer::{Listen, Speaker};
use crate::policy::{Change, Policy};

/// Ports below this one need a right of their own (`net.ipv4.ip_unprivileged_port_start`).
const UNPRIVILEGED: u16 = 1024;

/// What a file means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// What it gives, as far as it is right.
    pub config: Config,
    /// What is wrong. A ConfigMap with any of it is not used, where there was one before.
    pub flaws: Vec<Flaw>,
    /// What may be wrong, which settings and annotations of nodes decide.
    pub notes: Vec<Flaw>,
}

/// Checks a file: the ConfigMap as a manifest, or the text in it.
pub fn report(file: &str) -> Report {
    let (document, mut flaws) = document::check(file);
    let mut notes = document::strays(file);
    if document.peers.is_empty() && flaws.is_empty() {
        let told = "none is named here: those of settings and of annotations of nodes are all";
        notes.push(Flaw::new("", "peers", Place::Named, told));
    }
    notes.extend(idle(&document));
    let (config, wrong) = Config::of((Speaker::default(), vec![]), document);
    flaws.extend(wrong);
    // Whatever selectors say, these are of each node.
    flaws.extend(config.of_node(&BTreeMap::new()).1);
    notes.extend(config.strangers());
    notes.extend(unsaid(&config.policy));
    Report { config, flaws, notes }
}

/// What is said and comes to nothing.
fn idle(document: &Document) -> Vec<Flaw> {
    let rules = document.policy.rules.iter().enumerate();
    let empty = rules.filter(|(_, rule)| rule.change == Change::default());
    let empty = empty.map(|(number, _)| {
        let told = "it changes nothing; what does are announce, localPref, med, prepend, communities, aggregate";
        Flaw::new(&format!("policy {}", number + 1), "rule", Place::Named, told)
    });
    let third = |of: &str, keepalive: Option<u16>, hold_time: u16| {
        let keepalive = keepalive.filter(|own| hold_time > 0 && *own > hold_time / 3)?;
        let told = format!("a third of holdTime {hold_time} is less, and is what it is");
        Some(Flaw::new(of, "keepalive", Place::Named, told).value(&keepalive.to_string()))
    };
    let hold_time = document.hold_time.unwrap_or(Speaker::default().hold_time);
    let of_peers = document.peers.iter().filter_map(|peer| {
        if peer.keepalive.is_none() && peer.hold_time.is_none() {
            return None;
        }
        let keepalive = peer.keepalive.or(document.keepalive);
        third(&format!("peer {}", peer.name), keepalive, peer.hold_time.unwrap_or(hold_time))
    });
    let low = document.listen.iter().filter(|listen| listen.port < UNPRIVILEGED).map(|listen| {
        let told = format!("below {UNPRIVILEGED} the container needs NET_BIND_SERVICE, which manifests/ does not give it");
        Flaw::new("", "listen", Place::Named, told).value(&listen.port.to_string())
    });
    empty.chain(low).chain(third("", document.keepalive, hold_time)).chain(of_peers).collect()
}

/// Rules by labels that say something which is not said of an aggregate, where there may be one.
fn unsaid(policy: &Policy) -> Vec<Flaw> {
    let aggregates = policy.rules.iter().any(|rule| rule.change.widened.is_some());
    let says = |change: &Change| {
        let Change { local_pref, med, prepend, communities, large_communities, .. } = change;
        local_pref.is_some()
            || med.is_some()
            || prepend.is_some()
            || !communities.is_empty()
            || !large_communities.is_empty()
    };
    let rules = policy.rules.iter().enumerate().filter(|_| aggregates);
    let rules = rules.filter(|(_, rule)| rule.filter.services.is_some() && says(&rule.change));
    let told = "what it says is said of no aggregate, which is of others, too";
    rules
        .map(|(number, _)| {
            Flaw::new(&format!("policy {}", number + 1), "services", Place::Named, told)
        })
        .take(MOST_FLAWS)
        .collect()
}

impl Report {
    /// Whether nothing is wrong.
    pub fn is_sound(&self) -> bool {
        self.flaws.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for peer in &self.config.peers {
            let some = if peer.nodes.is_all() { "" } else { ", of some nodes" };
            writeln!(f, "{peer}{some}")?;
        }
        if let Some(Listen { port, within }) = &self.config.speaker.listen {
            let within: Vec<String> = within.iter().map(ToString::to_string).collect();
            let at = if within.is_empty() { "every address".to_owned() } else { within.join(", ") };
            writeln!(f, "listening: port {port}, at {at}, on nodes with a peer that connects")?;
        }
        let (rules, permits) = (self.config.policy.rules.len(), self.config.permits.0.len());
        let layer2 = self.config.layer2.len();
        writeln!(
            f,
            "rules: {rules}; what Services may ask for: {permits}; what is on the LAN: {layer2}"
        )?;
        self.notes.iter().try_for_each(|note| writeln!(f, "note: {note}"))?;
        self.flaws.iter().try_for_each(|flaw| writeln!(f, "wrong: {flaw}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_right_and_comes_to_nothing_is_noted() {
        let notes = |file: &str| {
            let report = super::report(file);
            assert!(report.is_sound(), "{report}");
            report.notes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
        };
        let peer = "peers: [{address: 192.0.2.1, asn: 65001}]\n";
        assert_eq!(notes(peer), "");
        for (file, told) in [
            ("", "peers: none is named here"),
            (&format!("{peer}listen: 179\n"), "listen \"179\": below 1024 the container needs"),
            (
                &format!("{peer}policy: [{{pools: [global]}}]\n"),
                "policy 1, rule: it changes nothing",
            ),
            (
                &format!("{peer}holdTime: 3\nkeepalive: 20\n"),
                "keepalive \"20\": a third of holdTime 3 is less",
            ),
            (
                "peers: [{name: a, address: 192.0.2.1, asn: 65001, keepalive: 11}]\n",
                "peer a, keepalive \"11\": a third of holdTime 30",
            ),
        ] {
            let said = notes(file);
            assert!(said.starts_with(told) && !said.contains('\n'), "{file}: {said}");
        }
        assert_eq!(notes(&format!("{peer}keepalive: 0\n")), "", "a third, whatever that is");
        let manifest =
            "kind: ConfigMap\nmetadata: {name: berth-bpg, namespace: default}\ndata: {}\n";
        assert_eq!(
            notes(manifest),
            "metadata.name on line 2 \"berth-bpg\": announcers read berth-bgp, and no other\n\
             metadata.namespace on line 2 \"default\": announcers read it in cp_namespace, kube-system where that is not set\n\
             data on line 3: config.yaml is not there\n\
             peers: none is named here: those of settings and of annotations of nodes are all"
        );
    }

    #[test]
    fn a_file_is_shown_as_what_it_means_with_all_that_is_wrong() {
        let file = "
peers:
- {name: tor, address: 192.0.2.1, asn: 65001, password: {secret: tor}, nodes: {matchLabels: {rack: a}}}
- {name: one, address: 192.0.2.2, asn: internal}
- {name: two, address: 192.0.2.2, asn: external}
- {name: bad, address: 192.0.2.3, asn: x}
policy:
- {peers: [tor, core], localPref: 200}
";
        let report = report(file);
        assert!(!report.is_sound());
        let expected = "\
peer tor: 192.0.2.1, port 179, AS 65001, IPv4, with a password, of some nodes
peer one: 192.0.2.2, port 179, the own AS, IPv4
peer two: 192.0.2.2, port 179, any AS but the own, IPv4
rules: 1; what Services may ask for: 0; what is on the LAN: 0
note: policy 1, peers \"core\": no peer has this name
wrong: peer 4 (bad), asn on line 6 \"x\": accepted is a whole number from 1 to 4294967295, external, internal
wrong: peers one and two, nodes: both are of this node and at 192.0.2.2: accepted are nodes that differ, or sources
";
        assert_eq!(report.to_string(), expected);
        let report = super::report(
            "listen: {port: 1790, addresses: [192.0.2.0/24]}\npeers: [{address: 192.0.2.1, asn: 1, connect: passive}]\n",
        );
        let expected = "\
peer 192.0.2.1: 192.0.2.1, which connects, AS 1, IPv4
listening: port 1790, at 192.0.2.0/24, on nodes with a peer that connects
";
        assert!(report.to_string().starts_with(expected), "{report}");
    }

    #[test]
    fn that_an_aggregate_has_nothing_of_a_rule_by_labels_is_noted() {
        let file = "
peers: [{address: 192.0.2.1, asn: 65001}]
policy:
- {aggregate: {ipv4: 24}}
- {services: {matchLabels: {tier: gold}}, announce: false}
- {services: {matchLabels: {tier: gold}}, med: 5}
";
        let report = report(file);
        assert!(report.is_sound());
        let notes = |report: &Report| -> Vec<String> {
            let notes = report.notes.iter().map(ToString::to_string);
            notes.filter(|note| note.contains("aggregate")).collect()
        };
        let told =
            "policy 3, services: what it says is said of no aggregate, which is of others, too";
        assert_eq!(notes(&report), [told]);
        let without = super::report(&file.replace("- {aggregate: {ipv4: 24}}\n", ""));
        assert!(without.is_sound() && notes(&without).is_empty());
    }
}
