//! What this node translates, and until when. Make before break: a node to which a VM migrates translates what the
//! VM sends before it is there; one that is named translates both ways before it asks for the address; and one that
//! has released it goes on for a while, because connections and neighbours' caches do. An address that was never in use is
//! translated once it is known that no other host has it.

use std::cell::LazyCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::guest::Own;
use crate::dataplane::eip::{Pair, Stage};
use crate::source::cluster::{Cluster, Eip};
use crate::source::scene::Scene;
use crate::vip::Wanted;

/// How long a node that has released an address goes on translating it.
const DRAIN: Duration = Duration::from_secs(30);

/// The same where the VM has an address of its own from its new node: the old one may soon be somebody else's.
const DRAIN_OLD: Duration = Duration::from_secs(5);

/// How long after it got an address a node takes what the one before sends on: neighbours have learnt by then.
const SETTLE: Duration = Duration::from_secs(10);

/// What this node translates.
#[derive(Clone, Debug, Default)]
pub struct Translations {
    pairs: BTreeMap<IpAddr, Translation>,
}

#[derive(Clone, Copy, Debug)]
struct Translation {
    vmi: IpAddr,
    /// When the node before sends nothing on any more; none while the address is not bound here.
    settles: Option<Instant>,
    /// Whether this node is named for it.
    named: bool,
    /// Whether the VM is migrating to this node.
    expected: bool,
    /// Whether its VM may go on elsewhere at any moment.
    parting: bool,
    /// Whether this node was named for it or had it: connections may go by it here.
    served: bool,
    /// When it ends; none while this node is named for the address or has it bound, or has never been.
    ends: Option<Instant>,
}

impl Translation {
    fn of(vmi: IpAddr) -> Self {
        Self {
            vmi,
            settles: None,
            named: false,
            expected: false,
            parting: false,
            served: false,
            ends: None,
        }
    }

    /// Whether this node has released the address not long ago.
    fn drains(&self, now: Instant) -> bool {
        self.ends.is_some_and(|ends| ends > now)
    }
}

impl Translations {
    /// Takes in what bindings say and what is bound. `is_free` tells which addresses no other host has.
    pub fn see(
        &mut self,
        scene: Scene<'_>,
        all: &Wanted,
        is_free: impl Fn(&IpAddr) -> bool,
        now: Instant,
    ) {
        let wanted = |passes: &dyn Fn(&Eip) -> bool| wanted(scene.cluster, all, passes);
        let mut mine = wanted(&|eip| eip.owner() == Some(scene.node));
        let mut expected = wanted(&|eip| eip.target() == Some(scene.node));
        for translated in [&mut mine, &mut expected] {
            translated.retain(|eip, _| is_free(eip));
        }
        let elsewhere = wanted(&|eip| eip.owner() != Some(scene.node));
        let parting = wanted(&|eip| eip.target().is_some());
        let own = LazyCell::new(|| Own::of(scene));
        self.pairs.retain(|eip, of| {
            (of.named, of.expected) = (mine.contains_key(eip), expected.contains_key(eip));
            of.parting = of.named && parting.contains_key(eip);
            // A Service has it: to translate would be to take its traffic.
            if all.vip(*eip).is_some_and(|vip| vip.leads_to().is_none()) {
                return false;
            }
            // What the node itself says would appear as the elastic IP.
            if own.objection(of.vmi).is_some() {
                return false;
            }
            if of.named || scene.host.has(eip) {
                of.ends = None;
                return true;
            }
            of.settles = None;
            let Some(vmi) = elsewhere.get(eip) else { return false };
            if of.served {
                let drain = if *vmi == of.vmi { DRAIN } else { DRAIN_OLD };
                of.ends.get_or_insert(now + drain);
            }
            of.expected || of.drains(now)
        });
        for (eip, vmi) in expected {
            let of = self.pairs.entry(eip).or_insert(Translation::of(vmi));
            of.expected = true;
            if !of.drains(now) {
                of.vmi = vmi;
            }
        }
        for (eip, vmi) in mine {
            let of = self.pairs.entry(eip).or_insert(Translation::of(vmi));
            (of.vmi, of.named, of.served) = (vmi, true, true);
            of.parting = parting.contains_key(&eip);
            if scene.host.has(&eip) {
                of.settles.get_or_insert(now + SETTLE);
            }
        }
    }

    /// The elastic IPs of this node whose VMs may go on elsewhere at any moment.
    pub fn parting(&self) -> BTreeSet<IpAddr> {
        self.pairs.iter().filter(|(_, of)| of.parting).map(|(eip, _)| *eip).collect()
    }

    /// What is to be in the kernel.
    pub fn pairs(&self, now: Instant) -> BTreeMap<IpAddr, Pair> {
        let stage = |of: &Translation| match (of.ends, of.settles) {
            (Some(ends), _) if ends > now => Stage::Draining,
            (Some(_), _) => Stage::Expected,
            (None, _) if of.expected && !of.served => Stage::Expected,
            (None, _) if !of.named => Stage::Leaving,
            (None, Some(settles)) if settles <= now => Stage::Held,
            (None, _) => Stage::Coming,
        };
        self.pairs.iter().map(|(eip, of)| (*eip, Pair { vmi: of.vmi, stage: stage(of) })).collect()
    }

    /// When something ends or settles after `now`.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let all = self.pairs.values().flat_map(|of| [of.ends, of.settles]);
        all.flatten().filter(|at| *at > now).min()
    }
}

/// By elastic IP, the VM's address, of bindings that pass and belong somewhere, but for what another claimant has.
fn wanted(
    cluster: &Cluster,
    all: &Wanted,
    passes: &dyn Fn(&Eip) -> bool,
) -> BTreeMap<IpAddr, IpAddr> {
    let passing = cluster.eips().iter().filter(|(_, eip)| eip.owner().is_some() && passes(eip));
    let pairs = passing.flat_map(|(name, eip)| eip.pairs.iter().map(move |pair| (name, *pair)));
    let own = pairs.filter(|(name, (eip, _))| !all.lost.contains_key(&((*name).clone(), *eip)));
    own.map(|(_, pair)| pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::{Binding, Foreign, Host, Interface, Lifetime};
    use crate::source::cluster::testing::{eip, service};
    use crate::source::cluster::{Ingress, Name, Service};
    use crate::source::testing::{scene, seen};

    const EIP: &str = "192.0.2.1";
    const VMI: &str = "10.244.0.4";

    struct Node {
        cluster: Cluster,
        host: Host,
        translations: Translations,
        taken: bool,
    }

    impl Node {
        fn new() -> Self {
            let (cluster, host) = (Cluster::default(), Host::default());
            let translations = Translations::default();
            let mut node = Self { cluster, host, translations, taken: false };
            node.name("a", VMI);
            node
        }

        fn name(&mut self, node: &str, vmi: &str) {
            self.cluster.apply_eip(Name::new("d", "vm"), eip(node, &[(EIP, vmi)]));
        }

        /// The VM is on one node and migrates to another.
        fn migrate(&mut self, node: &str, target: &str) {
            let target = Some(target.to_owned());
            let eip = Eip { target, ..eip(node, &[(EIP, VMI)]) };
            self.cluster.apply_eip(Name::new("d", "vm"), eip);
        }

        fn bind(&mut self) {
            let binding = Binding { index: 2, address: EIP.parse().unwrap() };
            self.host.ours.insert(binding, Lifetime::Forever);
        }

        /// What node `a` translates to, and how far it is with it.
        fn see(&mut self, now: Instant) -> Option<(String, Stage)> {
            let (cluster, host) = (&self.cluster, &self.host);
            let scene = scene(cluster, host, Some("eth0"));
            let wanted = seen(cluster, host, Some("eth0"));
            self.translations.see(scene, &wanted, |_| !self.taken, now);
            let pairs = self.translations.pairs(now);
            pairs.values().next().map(|pair| (pair.vmi.to_string(), pair.stage))
        }
    }

    fn is(stage: Stage) -> Option<(String, Stage)> {
        Some((VMI.to_owned(), stage))
    }

    #[test]
    fn a_node_translates_when_it_is_named_and_until_some_time_after_it_let_go() {
        let (mut node, now) = (Node::new(), Instant::now());
        assert_eq!(node.see(now), is(Stage::Coming), "before it has the address");
        node.bind();
        assert_eq!(node.see(now), is(Stage::Coming), "the node before may send on");
        assert_eq!(node.translations.deadline(now), Some(now + SETTLE));
        let now = now + SETTLE;
        assert_eq!(node.see(now), is(Stage::Held));
        node.name("b", VMI);
        assert_eq!(node.see(now), is(Stage::Leaving), "it has it still");
        node.host.ours.clear();
        assert_eq!(node.see(now), is(Stage::Draining));
        assert_eq!(node.translations.deadline(now), Some(now + DRAIN));
        assert_eq!(node.see(now + DRAIN / 2), is(Stage::Draining));
        assert_eq!(node.see(now + DRAIN), None);
    }

    #[test]
    fn an_address_that_another_host_has_is_not_translated() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.taken = true;
        assert_eq!(node.see(now), None);
        node.taken = false;
        assert_eq!(node.see(now), is(Stage::Coming), "that host is gone");
    }

    #[test]
    fn what_a_service_has_is_not_translated_and_not_any_more() {
        let (mut node, now) = (Node::new(), Instant::now());
        assert_eq!(node.see(now), is(Stage::Coming));
        let published = Ingress::vip(EIP.parse().unwrap(), &[]);
        let older = Service { published: vec![published], ..service(&[EIP]) };
        node.cluster.apply_service(Name::new("d", "web"), older);
        node.bind();
        assert_eq!(node.see(now), None, "it is bound for the Service");
    }

    #[test]
    fn what_becomes_an_address_of_the_node_is_translated_no_more_and_the_elastic_ip_is_lost() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.bind();
        assert_eq!(node.see(now), is(Stage::Coming));
        let own = Foreign { prefix_len: 24, ..Foreign::default() };
        let foreign = [(VMI.parse().unwrap(), own)].into();
        let eth1 = Interface { index: 3, mac: None, up: true, foreign };
        node.host.interfaces.insert("eth1".to_owned(), eth1);
        assert_eq!(node.see(now), None, "though it is bound still");
        let wanted = seen(&node.cluster, &node.host, Some("eth0"));
        let lost = &wanted.lost[&(Name::new("d", "vm"), EIP.parse().unwrap())];
        assert_eq!(lost.reason(), "VmiAddressReserved");
        assert!(wanted.vip(EIP.parse().unwrap()).is_none());
        node.host.interfaces.clear();
        assert_eq!(node.see(now), is(Stage::Coming), "it is the VM's alone again");
    }

    #[test]
    fn a_machine_that_comes_back_is_translated_anew() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.see(now);
        node.name("b", VMI);
        assert_eq!(node.see(now), is(Stage::Draining));
        node.name("a", VMI);
        assert_eq!(node.see(now), is(Stage::Coming));
        node.name("a", "10.244.0.48");
        assert_eq!(node.see(now), Some(("10.244.0.48".to_owned(), Stage::Coming)));
    }

    #[test]
    fn a_target_translates_before_the_machine_is_there_and_a_failed_migration_leaves_nothing() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.name("b", VMI);
        node.translations = Translations::default();
        assert_eq!(node.see(now), None);
        node.migrate("b", "a");
        assert_eq!(node.see(now), is(Stage::Expected));
        assert!(node.translations.parting().is_empty(), "it is not here yet");
        node.name("b", VMI);
        assert_eq!(node.see(now), None, "it failed");
        node.migrate("b", "a");
        node.see(now);
        node.name("a", VMI);
        assert_eq!(node.see(now), is(Stage::Coming));
        node.name("c", VMI);
        assert_eq!(node.see(now), is(Stage::Draining), "neighbours may have been told already");
    }

    #[test]
    fn a_machine_that_may_leave_is_known_to_and_is_served_as_before() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.bind();
        node.see(now);
        node.migrate("a", "b");
        assert_eq!(node.see(now + SETTLE), is(Stage::Held));
        assert_eq!(node.translations.parting(), [EIP.parse().unwrap()].into());
        node.name("a", VMI);
        node.see(now + SETTLE);
        assert!(node.translations.parting().is_empty(), "it failed");
    }

    #[test]
    fn a_machine_on_its_way_back_finds_what_drains_and_what_is_expected() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.see(now);
        node.migrate("b", "a");
        assert_eq!(node.see(now), is(Stage::Draining));
        assert_eq!(node.see(now + DRAIN), is(Stage::Expected));
        node.name("a", VMI);
        assert_eq!(node.see(now + DRAIN), is(Stage::Coming));
    }

    #[test]
    fn an_address_that_may_soon_be_somebody_elses_is_led_to_for_a_moment_only() {
        let (mut node, now) = (Node::new(), Instant::now());
        node.see(now);
        node.name("b", "10.244.1.9");
        assert_eq!(node.see(now), is(Stage::Draining));
        assert_eq!(node.see(now + DRAIN_OLD), None);
    }

    #[test]
    fn nothing_drains_for_a_binding_that_is_gone_or_names_nobody() {
        for gone in [true, false] {
            let (mut node, now) = (Node::new(), Instant::now());
            node.bind();
            node.see(now);
            match gone {
                true => node.cluster.delete_eip(&Name::new("d", "vm")),
                false => {
                    let nobody =
                        crate::source::cluster::Eip { node: None, ..eip("a", &[(EIP, VMI)]) };
                    node.cluster.apply_eip(Name::new("d", "vm"), nobody);
                }
            }
            assert_eq!(node.see(now), is(Stage::Leaving), "it is bound still");
            node.host.ours.clear();
            assert_eq!(node.see(now), None);
        }
    }
}
