//! How long nodes are granted what they have, and what is said when one ends or hears nobody.

use std::time::Duration;

use berth_membership::{Bounds, Input, Keyring, NodeId, Parameters, View, Voters};

use crate::cluster::{Cluster, ids, keys, sender};

const NAMES: [&str; 3] = ["a", "b", "c"];
const MILLI: Duration = Duration::from_millis(1);

fn all() -> Input<'static> {
    Input::View(View::new(1, Voters::new(ids(&NAMES)).unwrap(), Vec::new()).unwrap())
}

fn cluster(keyrings: [Keyring; 3]) -> Cluster {
    let mut cluster = Cluster::new();
    for (name, keyring) in NAMES.into_iter().zip(keyrings) {
        cluster.start_with(keyring, name, all());
    }
    cluster
}

fn third() -> Keyring {
    keys("one")
}

fn second() -> Keyring {
    keys("one").without_third()
}

impl Cluster {
    fn owner(&self) -> NodeId {
        let owners = self.owners();
        assert_eq!(owners.len(), 1);
        owners[0]
    }

    /// How long the owner would go on answering if nobody answered it any more.
    fn lease(&self) -> Duration {
        let (_, until) = self.armed[&self.owner()];
        until.since(self.now)
    }

    fn name(&self, of: NodeId) -> &'static str {
        NAMES.into_iter().find(|name| NodeId::of(name) == of).unwrap()
    }

    /// How long it takes until another node has the address.
    fn taken_from(&mut self, owner: NodeId) -> Duration {
        let start = self.now;
        while self.owners().iter().all(|other| *other == owner) {
            assert!(self.now.since(start) < MILLI * 2_000);
            self.run(MILLI);
        }
        self.now.since(start)
    }
}

#[test]
fn where_nobody_is_late_leases_become_short_and_a_crash_is_over_soon() {
    let mut cluster = cluster([third(), third(), third()]);
    cluster.run(MILLI * 1_500);
    assert!((MILLI * 250..MILLI * 350).contains(&cluster.lease()), "{:?}", cluster.lease());
    for (after, lease, over) in [(6_000, 200, 230), (110_000, 100, 130)] {
        cluster.run(MILLI * after);
        let (least, most) = (MILLI * (lease - 35), MILLI * (lease + 5));
        assert!((least..most).contains(&cluster.lease()), "{:?}", cluster.lease());
        let owner = cluster.owner();
        let name = cluster.name(owner);
        cluster.stop(name);
        let took = cluster.taken_from(owner);
        assert!(took < MILLI * over, "{took:?}");
        cluster.start_with(third(), name, all());
        cluster.run(MILLI * 1_000);
    }
}

#[test]
fn twice_as_many_heartbeats_go_at_most() {
    let beats = |cluster: &mut Cluster| {
        cluster.recorded.clear();
        cluster.run(MILLI * 1_000);
        cluster.recorded.len()
    };
    let mut former = cluster([second(), second(), second()]);
    former.run(MILLI * 2_000);
    let mut short = cluster([third(), third(), third()]);
    short.run(MILLI * 120_000);
    let (former, short) = (beats(&mut former), beats(&mut short));
    println!("{former} datagrams a second, {short} with short leases");
    assert!(short <= 2 * former + 12, "{former} {short}");
}

#[test]
fn beside_voters_that_know_one_lease_an_owner_counts_that() {
    let mut cluster = cluster([third(), second(), second()]);
    cluster.run(MILLI * 2_000);
    let (a, address) = (NodeId::of("a"), crate::cluster::ADDRESS.parse().unwrap());
    if cluster.owner() != a {
        let owner = cluster.owner();
        cluster.tell(owner, Input::HandOver { address });
        cluster.run(MILLI * 500);
    }
    cluster.run(MILLI * 10_000);
    if cluster.owner() == a {
        assert!(cluster.lease() > MILLI * 290, "{:?}", cluster.lease());
    }
    assert!(cluster.nodes[&a].lease() <= MILLI * 200, "it would do with less");
    let owner = cluster.owner();
    let name = cluster.name(owner);
    cluster.stop(name);
    let took = cluster.taken_from(owner);
    let promise = Parameters::default().promise();
    assert!(took > promise - MILLI * 60 && took < promise + MILLI * 60, "{took:?}");
}

#[test]
fn who_says_that_it_has_ended_is_replaced_at_once_and_says_it_of_no_other_run() {
    let mut cluster = cluster([third(), third(), third()]);
    cluster.run(MILLI * 2_000);
    let owner = cluster.owner();
    let name = cluster.name(owner);
    let farewells = cluster.nodes[&owner].farewells();
    assert_eq!(farewells.len(), 2);
    assert!(farewells.iter().all(|(to, datagram)| *to != owner && sender(datagram) == owner));
    cluster.stop(name);
    for (to, datagram) in &farewells {
        cluster.tell(*to, Input::Datagram(datagram));
    }
    let took = cluster.taken_from(owner);
    assert!(took < MILLI * 80, "{took:?}");

    cluster.start_with(third(), name, all());
    cluster.run(MILLI * 3_000);
    let successor = cluster.owner();
    for _ in 0..100 {
        for (to, datagram) in &farewells {
            cluster.tell(*to, Input::Datagram(datagram));
        }
        cluster.run(MILLI * 20);
        assert_eq!(cluster.owner(), successor);
        let live: Vec<usize> = cluster.nodes.values().map(|node| node.live().count()).collect();
        assert_eq!(live, [3, 3, 3]);
    }
}

#[test]
fn bounds_that_a_former_voter_left_out_of_a_view_are_there_once_it_is_read() {
    let mut cluster = cluster([third(), second(), second()]);
    cluster.run(MILLI * 2_000);
    let [a, b, _] = NAMES.map(NodeId::of);
    let bounds = Bounds::new(MILLI * 350, MILLI * 350).unwrap();
    let voters = Voters::new(ids(&NAMES)).unwrap();
    let next = View::new(2, voters.clone(), vec![voters]).unwrap().within(bounds);
    cluster.tell(b, Input::View(next.clone()));
    cluster.run(MILLI * 200);
    let stands = |cluster: &Cluster| cluster.nodes[&a].view().unwrap().0.clone();
    assert_eq!((stands(&cluster).epoch(), stands(&cluster).bounds()), (2, Bounds::default()));
    cluster.tell(a, Input::View(next.clone()));
    assert_eq!(stands(&cluster), next);
    cluster.run(MILLI * 10_000);
    assert_eq!(cluster.nodes[&a].lease(), MILLI * 350);
    assert_eq!(stands(&cluster), next);
}
