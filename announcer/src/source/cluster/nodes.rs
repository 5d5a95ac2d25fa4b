//! The names of nodes, by which what EndpointSlices say is told: those keep no name, since anybody may write a thousand long ones
//! into each.

use std::collections::{BTreeMap, BTreeSet};

use super::slice::{Site, hash};
use crate::vip::serve::Where;

/// The nodes of the cluster, and this one.
#[derive(Clone, Debug, Default)]
pub struct Nodes(BTreeMap<u64, String>);

impl Nodes {
    /// Takes in that there is a node of this name; true if that is news.
    pub fn apply(&mut self, name: &str) -> bool {
        self.0.insert(hash(name), name.to_owned()).is_none()
    }

    /// Takes in that it is gone.
    pub fn delete(&mut self, name: &str) {
        self.0.remove(&hash(name));
    }

    /// Forgets every node that is not in `kept`.
    pub fn retain(&mut self, kept: &BTreeSet<String>) {
        self.0.retain(|_, name| kept.contains(name));
    }

    /// Adds to `all` where endpoints are. A node that is not known has a name there that no node can have.
    pub(super) fn tell(&self, site: &Site, all: &mut Where) {
        all.any |= site.any;
        let name = |id: u64| self.0.get(&id).cloned().unwrap_or_else(|| format!("?{id:016x}"));
        all.nodes.extend(site.nodes.iter().map(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_told_by_its_name_while_it_is_known_and_each_other_by_one_of_its_own() {
        let mut nodes = Nodes::default();
        let on = |names: &[&str]| {
            let nodes = names.iter().map(|name| (*name).to_owned()).collect();
            Site::of(&Where { any: true, nodes })
        };
        assert!(nodes.apply("a") && nodes.apply("b") && !nodes.apply("a"));
        let told = |nodes: &Nodes| {
            let mut all = Where::default();
            nodes.tell(&on(&["a", "ghost"]), &mut all);
            nodes.tell(&on(&["a", "b", "other"]), &mut all);
            all.nodes
        };
        let told_by = |nodes: &Nodes| {
            let told = told(nodes);
            let known = told.iter().filter(|name| !name.starts_with('?')).cloned();
            (known.collect::<Vec<_>>(), told.len())
        };
        assert_eq!(told_by(&nodes), (vec!["a".to_owned(), "b".to_owned()], 4));
        nodes.delete("b");
        assert_eq!(told_by(&nodes), (vec!["a".to_owned()], 4));
        nodes.retain(&BTreeSet::new());
        assert_eq!(told_by(&nodes), (vec![], 4));
    }
}
