//! Which elastic IPs are in use, so that nobody need be asked for them before this node takes them. Pure.
//!
//! A binding does not say which of its addresses were ever answered for: its holder goes for a moment when a VM
//! migrates. So this node remembers what it has seen. One that was restarted meanwhile takes the addresses of a binding
//! that another node holds to be in use, since to ask a fellow node for what it has would hold the migration up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::source::cluster::{Eip, Name};
use crate::source::scene::Scene;

/// The elastic IPs that are in use: a node has held them since their binding last named none.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    of: BTreeMap<Name, Known>,
    all: BTreeSet<IpAddr>,
}

#[derive(Clone, Debug)]
struct Known {
    uid: String,
    used: BTreeSet<IpAddr>,
}

impl Usage {
    /// Takes in what bindings say and what is bound.
    pub fn see(&mut self, scene: Scene<'_>) {
        let eips = scene.cluster.eips();
        let bound: BTreeSet<IpAddr> = scene.host.ours.keys().map(|ours| ours.address).collect();
        let is_named = |eip: &Eip, uid: &str| eip.uid == uid && eip.owner().is_some();
        self.of.retain(|name, known| eips.get(name).is_some_and(|eip| is_named(eip, &known.uid)));
        for (name, eip) in eips.iter().filter(|(_, eip)| eip.owner().is_some()) {
            let begin = || Known { uid: eip.uid.clone(), used: held_elsewhere(scene, eip) };
            let Known { used, .. } = self.of.entry(name.clone()).or_insert_with(begin);
            // What it had before its addresses were others says nothing of these.
            used.retain(|address| eip.addresses().any(|own| own == *address));
            let is_held = eip.holder.as_ref().is_some_and(|holder| holder.epoch == eip.epoch);
            // What is bound has been asked for, or was in use before this program started.
            used.extend(eip.addresses().filter(|own| is_held || bound.contains(own)));
        }
        self.all = self.of.values().flat_map(|known| &known.used).copied().collect();
    }

    /// Whether an address is in use.
    pub fn has(&self, address: &IpAddr) -> bool {
        self.all.contains(address)
    }
}

/// What a binding has at its first sight, when another node says that it holds it.
fn held_elsewhere(scene: Scene<'_>, eip: &Eip) -> BTreeSet<IpAddr> {
    let elsewhere = eip.holder.as_ref().is_some_and(|holder| holder.node != scene.node);
    eip.addresses().filter(|_| elsewhere).collect()
}

#[cfg(test)]
mod tests {
    use berth_api::conflict::Conflicts;
    use berth_api::eip::EipHolder;

    use super::*;
    use crate::kernel::{Binding, Host, Interface, Lifetime};
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::eip;
    use crate::source::testing::scene;

    const EIP: &str = "192.0.2.1";
    const NEXT: &str = "192.0.2.2";
    const VMI: &str = "10.244.0.4";

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// Node `a`, and what it has seen.
    struct Node {
        cluster: Cluster,
        host: Host,
        usage: Usage,
    }

    impl Node {
        fn new() -> Self {
            let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
            let host = Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() };
            Self { cluster: Cluster::default(), host, usage: Usage::default() }
        }

        fn scene(&self) -> Scene<'_> {
            let (cluster, host) = (&self.cluster, &self.host);
            scene(cluster, host, Some("eth0"))
        }

        /// The binding is like this; gives whether its address is in use.
        fn see(&mut self, eip: Eip) -> bool {
            let address = eip.addresses().next().unwrap();
            self.cluster.apply_eip(Name::new("d", "vm"), eip);
            let mut usage = self.usage.clone();
            usage.see(self.scene());
            self.usage = usage;
            self.usage.has(&address)
        }
    }

    /// A binding that names `node` in `epoch`, and has this holder.
    fn named(node: &str, epoch: i64, holder: Option<(&str, i64)>) -> Eip {
        let holder = holder.map(|(node, epoch)| EipHolder { node: node.to_owned(), epoch });
        Eip { epoch, holder, ..eip(node, &[(EIP, VMI)]) }
    }

    #[test]
    fn what_nobody_ever_held_is_asked_for() {
        let mut node = Node::new();
        assert!(!node.see(named("a", 1, None)));
        assert!(node.see(named("a", 1, Some(("a", 1)))));
    }

    #[test]
    fn a_migration_is_held_up_by_no_question() {
        let mut node = Node::new();
        node.see(named("b", 1, None));
        assert!(node.see(named("b", 1, Some(("b", 1)))));
        assert!(node.see(named("a", 2, Some(("b", 1)))));
        assert!(node.see(named("a", 2, None)), "the node before has let go of it");
        assert!(node.see(named("a", 2, Some(("a", 2)))));
    }

    #[test]
    fn a_machine_that_migrates_while_another_host_has_its_address_is_asked_for_at_its_new_node() {
        let mut node = Node::new();
        assert!(!node.see(named("b", 1, None)));
        let conflicts = Conflicts::parse("192.0.2.1=02:00:00:00:00:09");
        assert!(!node.see(Eip { conflicts, ..named("a", 2, None) }));
    }

    #[test]
    fn another_address_is_asked_for_and_the_machine_goes_on_with_none_of_its_former_ones() {
        let mut node = Node::new();
        node.see(named("a", 1, Some(("a", 1))));
        let other = Eip { epoch: 2, ..eip("a", &[(NEXT, VMI)]) };
        let holder = Some(EipHolder { node: "a".to_owned(), epoch: 1 });
        assert!(!node.see(Eip { holder, ..other }), "the holder was that of the former one");
        assert!(!node.see(named("a", 3, Some(("a", 1)))), "nor is that one known any more");
    }

    #[test]
    fn a_second_address_is_asked_for_beside_one_that_is_in_use() {
        let mut node = Node::new();
        node.see(named("a", 1, Some(("a", 1))));
        let both = eip("a", &[(EIP, VMI), ("2001:db8::1", "fd00:244::4")]);
        let holder = Some(EipHolder { node: "a".to_owned(), epoch: 1 });
        assert!(node.see(Eip { epoch: 2, holder, ..both }));
        assert!(!node.usage.has(&ip("2001:db8::1")));
    }

    #[test]
    fn one_that_named_nobody_meanwhile_is_asked_for_anew() {
        let mut node = Node::new();
        node.see(named("b", 1, Some(("b", 1))));
        node.see(Eip { node: None, ..named("b", 2, Some(("b", 1))) });
        assert!(!node.see(named("a", 3, None)));
        node.see(Eip { node: None, ..named("b", 4, Some(("b", 1))) });
        assert!(node.see(named("a", 5, Some(("b", 1)))), "but not while another node answers");
    }

    #[test]
    fn after_a_restart_what_is_held_or_bound_is_in_use() {
        assert!(Node::new().see(named("a", 2, Some(("a", 2)))));
        assert!(Node::new().see(named("a", 2, Some(("b", 1)))), "it is migrating");
        assert!(!Node::new().see(named("a", 2, Some(("a", 1)))), "it may be another address");
        let mut node = Node::new();
        node.host.ours.insert(Binding { index: 2, address: ip(EIP) }, Lifetime::Forever);
        assert!(node.see(named("a", 2, Some(("a", 1)))));
        let anew = Eip { uid: "another".to_owned(), ..named("a", 1, None) };
        node.host.ours.clear();
        assert!(!node.see(anew), "it has the name of another binding and nothing else of it");
    }
}
