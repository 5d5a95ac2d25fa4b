//! What `berth-announcer check-bgp FILE` says: whom nodes would speak to, and everything that is wrong.

use std::collections::BTreeMap;
use std::fmt;

use super::document;
use super::flaw::Flaw;
use super::merge::Config;
use super::peer::Speaker;

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
    let (config, wrong) = Config::of((Speaker::default(), vec![]), document);
    flaws.extend(wrong);
    // Whatever selectors say, these are of each node.
    flaws.extend(config.of_node(&BTreeMap::new()).1);
    let notes = config.strangers();
    Report { config, flaws, notes }
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
        assert!(super::report("asn: 65000\n").is_sound());
    }
}
