//! The cluster's own networks, where VMs are met under their own addresses.

use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;

/// Networks of pods, by node, and of Services, by the object that names them.
#[derive(Clone, Debug, Default)]
pub struct Networks {
    pods: BTreeMap<String, Vec<IpNetwork>>,
    services: BTreeMap<String, Vec<IpNetwork>>,
    pods_listed: bool,
    services_listed: bool,
}

impl Networks {
    /// Takes in the networks of a node's pods.
    pub fn pods(&mut self, node: String, networks: Vec<IpNetwork>) {
        self.pods.insert(node, networks);
    }

    /// Takes in the networks of an object for Services; none if it is gone.
    pub fn services(&mut self, name: String, networks: Vec<IpNetwork>) {
        self.services.insert(name, networks);
    }

    /// Takes in that these are all the nodes.
    pub fn pods_listed(&mut self, nodes: &BTreeSet<String>) {
        self.pods_listed = true;
        self.pods.retain(|node, _| nodes.contains(node));
    }

    /// Takes in that these are all the objects for Services.
    pub fn services_listed(&mut self, names: &BTreeSet<String>) {
        self.services_listed = true;
        self.services.retain(|name, _| names.contains(name));
    }

    /// All of them, once they are known. A network within another is left out: a set would refuse neither, but a change
    /// of nodes then changes nothing.
    pub fn all(&self) -> Option<BTreeSet<IpNetwork>> {
        let known = self.pods_listed && self.services_listed;
        let all: BTreeSet<IpNetwork> =
            self.pods.values().chain(self.services.values()).flatten().copied().collect();
        let widest = |network: &&IpNetwork| {
            let holds = |other: &IpNetwork| {
                other.prefix() < network.prefix() && other.contains(network.ip())
            };
            !all.iter().any(holds)
        };
        known.then(|| all.iter().filter(widest).copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_known_when_both_kinds_are_and_those_within_others_are_left_out() {
        let mut networks = Networks::default();
        networks.pods("a".to_owned(), vec!["10.244.0.0/24".parse().unwrap()]);
        networks.pods("b".to_owned(), vec!["10.244.1.0/24".parse().unwrap()]);
        networks.pods_listed(&["a".to_owned(), "b".to_owned()].into());
        assert_eq!(networks.all(), None);
        networks.services("kubernetes".to_owned(), vec!["10.96.0.0/12".parse().unwrap()]);
        networks.services_listed(&["kubernetes".to_owned()].into());
        assert_eq!(networks.all().unwrap().len(), 3);
        networks.services("wide".to_owned(), vec!["10.244.0.0/16".parse().unwrap()]);
        networks.pods_listed(&["a".to_owned()].into());
        let shown: Vec<String> = networks.all().unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(shown, ["10.96.0.0/12", "10.244.0.0/16"]);
    }
}
