//! Which elastic IPs this node should hold. An address waits for its translation: bound before it, the node itself would
//! answer, and reset connections that are the machine's.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use crate::advertise::arp_nd::probe::Probes;
use crate::dataplane::eip::Nat;
use crate::desired::{KEPT, Place, Scene, place_anywhere};
use crate::kernel::{Binding, Host};
use crate::ownership::membership::Holdings;
use crate::source::cluster::{Eip, Name};

/// Adds what is to be bound where membership decides: what this node asks for or has.
pub fn fenced(
    places: &mut BTreeMap<IpAddr, Place>,
    scene: Scene<'_>,
    holdings: &Holdings,
    translated: &Nat,
    probes: &Probes,
    now: Instant,
) {
    for eip in scene.cluster.eips().values() {
        for (address, vmi) in eip.pairs.iter().filter(|(address, _)| holdings.binds(address)) {
            let answers = holdings.held_since(address).is_some();
            put(places, scene, translated, probes, (*address, *vmi), now + KEPT, answers);
        }
    }
}

fn put(
    places: &mut BTreeMap<IpAddr, Place>,
    scene: Scene<'_>,
    translated: &Nat,
    probes: &Probes,
    (address, vmi): (IpAddr, IpAddr),
    until: Instant,
    answers: bool,
) {
    let ready = translated.serves(&address, &vmi) || is_bound(scene.host, &address);
    if let Ok(link) = place_anywhere(scene, address)
        && ready
        && probes.allows(&address)
    {
        let place = Place { link, until, answers, ports: [].into() };
        places.entry(address).or_insert(place);
    }
}

pub(super) fn is_bound(host: &Host, address: &IpAddr) -> bool {
    host.ours.keys().any(|Binding { address: bound, .. }| bound == address)
}

/// Whose turn it is where Leases decide on Services: nothing decides on elastic IPs but `status.node`.
///
/// A node holds what it is named for while it has heard of the API server within the renewal deadline of Leases. A node
/// that is newly named waits until the one before says that it has let go, or for as long as a Lease lasts, by when it
/// has, unless its process was stopped: nothing in the kernel holds the deadline here.
#[derive(Clone, Debug)]
pub struct Turns {
    /// When the API server was last heard.
    heard: Instant,
    /// Since when this node is named.
    named: BTreeMap<Name, Instant>,
}

impl Turns {
    /// Nothing was heard before `now`.
    pub fn new(now: Instant) -> Self {
        Self { heard: now, named: BTreeMap::new() }
    }

    /// Takes in that the API server was heard.
    pub fn hear(&mut self, now: Instant) {
        self.heard = now;
    }

    /// Whether the API server should be asked for a sign of life: this node holds by it and has heard none for `after`.
    pub fn asks(&self, after: Duration, now: Instant) -> bool {
        !self.named.is_empty() && now >= self.heard + after
    }

    /// When [`Turns::asks`] may say something else.
    pub fn deadline(&self, after: Duration) -> Option<Instant> {
        (!self.named.is_empty()).then(|| self.heard + after)
    }

    /// Takes in which bindings name this node.
    pub fn see(&mut self, scene: Scene<'_>, now: Instant) {
        let mine = |eip: &Eip| eip.owner() == Some(scene.node);
        let eips = scene.cluster.eips();
        self.named.retain(|name, _| eips.get(name).is_some_and(mine));
        for (name, _) in eips.iter().filter(|(_, eip)| mine(eip)) {
            self.named.entry(name.clone()).or_insert(now);
        }
    }

    /// Whether it is this node's turn: nobody else says that it holds the addresses, or has had long enough to let go.
    fn has_come(
        &self,
        name: &Name,
        eip: &Eip,
        node: &str,
        patience: Duration,
        now: Instant,
    ) -> bool {
        let other = eip.holder.as_ref().is_some_and(|holder| holder.node != node);
        self.named.get(name).is_some_and(|since| !other || now >= *since + patience)
    }

    /// When somebody else's time to let go is over.
    pub fn due(&self, patience: Duration, now: Instant) -> Option<Instant> {
        self.named.values().map(|since| *since + patience).filter(|due| *due > now).min()
    }
}

/// The elastic IPs that this node is to hold where Leases decide on Services: it is named for them, and it is its turn. A
/// node that is newly named has `patience`.
pub fn due(
    scene: Scene<'_>,
    turns: &Turns,
    patience: Duration,
    now: Instant,
) -> impl Iterator<Item = (IpAddr, IpAddr)> {
    let eips = scene.cluster.eips().iter();
    let come = eips.filter(move |(name, eip)| turns.has_come(name, eip, scene.node, patience, now));
    come.flat_map(|(_, eip)| eip.pairs.iter().copied())
}

/// Adds what is to be bound where Leases decide on Services. `hold` is how long the API server's silence is borne, and
/// `patience` how long a node that is newly named waits.
pub fn leased(
    places: &mut BTreeMap<IpAddr, Place>,
    scene: Scene<'_>,
    turns: &Turns,
    translated: &Nat,
    probes: &Probes,
    (hold, patience): (Duration, Duration),
    now: Instant,
) {
    let until = turns.heard + hold;
    if until <= now {
        return;
    }
    for pair in due(scene, turns, patience, now) {
        put(places, scene, translated, probes, pair, until, true);
    }
}

#[cfg(test)]
mod tests {
    use berth_api::eip::EipHolder;
    use berth_membership::{Cause, NodeId};

    use super::*;
    use crate::dataplane::eip::{Pair, Stage};
    use crate::kernel::{Interface, Lifetime};
    use crate::ownership::membership::Told;
    use crate::source::cluster::Cluster;
    use crate::source::cluster::testing::eip;

    const EIP: &str = "192.0.2.1";
    const VMI: &str = "10.244.0.4";
    const HOLD: Duration = Duration::from_secs(3);
    const PATIENCE: Duration = Duration::from_secs(5);

    fn host() -> Host {
        let eth0 = Interface { index: 2, mac: Some([2; 6]), up: true, foreign: [].into() };
        Host { interfaces: [("eth0".to_owned(), eth0)].into(), ..Host::default() }
    }

    fn translated(vmi: &str) -> Nat {
        let pair = Pair { vmi: vmi.parse().unwrap(), stage: Stage::Held };
        Nat { pairs: [(EIP.parse().unwrap(), pair)].into(), ..Nat::default() }
    }

    fn cluster(node: &str, holder: Option<&str>) -> Cluster {
        let mut cluster = Cluster::default();
        let holder = holder.map(|node| EipHolder { node: node.to_owned(), epoch: 1 });
        cluster.apply_eip(Name::new("d", "vm"), Eip { holder, ..eip(node, &[(EIP, VMI)]) });
        cluster
    }

    fn by_membership(host: &Host, nat: &Nat, told: &[Told]) -> BTreeMap<IpAddr, Place> {
        let (cluster, now) = (cluster("a", None), Instant::now());
        let scene = Scene { cluster: &cluster, host, node: "a", interface: Some("eth0") };
        let mut holdings = Holdings::new(NodeId::of("a"), true, now);
        told.iter().for_each(|told| holdings.take(told, now));
        let mut places = BTreeMap::new();
        fenced(&mut places, scene, &holdings, nat, &Probes::default(), now);
        places
    }

    #[test]
    fn an_address_is_bound_when_it_is_asked_for_and_translated_and_not_before() {
        let prepare = [Told::Prepare { address: EIP.parse().unwrap(), first: false }];
        assert!(by_membership(&host(), &translated(VMI), &[]).is_empty());
        assert!(by_membership(&host(), &Nat::default(), &prepare).is_empty());
        assert!(by_membership(&host(), &translated("10.244.0.48"), &prepare).is_empty());
        let bound = by_membership(&host(), &translated(VMI), &prepare);
        assert!(bound.values().all(|place| !place.answers) && bound.len() == 1);
        let (address, cause) = (EIP.parse().unwrap(), Cause::First);
        let holds = [Told::Holds { address, cause, took: Duration::ZERO }];
        let held = by_membership(&host(), &translated(VMI), &holds);
        assert!(held.values().all(|place| place.answers) && held.len() == 1);
    }

    #[test]
    fn what_is_bound_stays_when_its_translation_is_lost_for_a_moment() {
        let (address, cause) = (EIP.parse().unwrap(), Cause::First);
        let holds = [Told::Holds { address, cause, took: Duration::ZERO }];
        let mut host = host();
        host.ours.insert(Binding { index: 2, address }, Lifetime::Forever);
        assert_eq!(by_membership(&host, &Nat::default(), &holds).len(), 1);
    }

    /// What node `a` holds by Leases, so long after it was first named and last heard the API server.
    fn by_leases(cluster: &Cluster, named: Duration, heard: Duration) -> usize {
        let (host, start) = (host(), Instant::now());
        let scene = Scene { cluster, host: &host, node: "a", interface: Some("eth0") };
        let mut turns = Turns::new(start);
        turns.see(scene, start);
        turns.hear(start + named.saturating_sub(heard));
        let mut places = BTreeMap::new();
        let (nat, times) = (translated(VMI), (HOLD, PATIENCE));
        leased(&mut places, scene, &turns, &nat, &Probes::default(), times, start + named);
        places.len()
    }

    #[test]
    fn by_leases_a_node_waits_for_the_one_before_and_falls_silent_without_the_api_server() {
        let second = Duration::from_secs(1);
        assert_eq!(by_leases(&cluster("a", None), second, second), 1);
        assert_eq!(by_leases(&cluster("b", None), second, second), 0);
        assert_eq!(by_leases(&cluster("a", Some("b")), second, Duration::ZERO), 0, "b has it yet");
        assert_eq!(by_leases(&cluster("a", Some("b")), PATIENCE, Duration::ZERO), 1);
        assert_eq!(by_leases(&cluster("a", Some("a")), second * 9, HOLD), 0, "it hears nothing");
    }
}
