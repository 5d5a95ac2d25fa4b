//! Three versions of the wire, and two incarnations of a cluster with one key.

use std::time::Duration;

use berth_membership::{DatagramError, Input, Keyring, NodeId, Output, Request, View, Voters};

use crate::cluster::{ADDRESS, Cluster, KEY, Recorded, ids, keys, sender};

const NAMES: [&str; 3] = ["a", "b", "c"];

/// The keys of a node that knows version 1 only.
fn former() -> Keyring {
    Keyring::former([KEY]).unwrap()
}

/// The keys of a node that knows versions 1 and 2.
fn second() -> Keyring {
    keys("one").without_third()
}

fn view(epoch: u64, voters: &[&str]) -> Input<'static> {
    Input::View(View::new(epoch, Voters::new(ids(voters)).unwrap(), Vec::new()).unwrap())
}

fn all(epoch: u64) -> Input<'static> {
    view(epoch, &NAMES)
}

fn version(datagram: &[u8]) -> u8 {
    datagram[2]
}

fn is_hand(datagram: &[u8]) -> bool {
    datagram[3] == 3
}

impl Cluster {
    fn of(keyring: &Keyring, epoch: u64) -> Self {
        let mut cluster = Self::new();
        for name in NAMES {
            cluster.start_with(keyring.clone(), name, all(epoch));
        }
        cluster
    }

    /// Two seconds in which the address goes round.
    fn live(&mut self) {
        for _ in 0..20 {
            self.run(Duration::from_millis(100));
            for owner in self.owners() {
                self.tell(owner, Input::HandOver { address: ADDRESS.parse().unwrap() });
            }
        }
    }

    /// What a node makes of a datagram that somebody sends to it. It is done by nobody.
    fn show(&mut self, to: NodeId, datagram: &[u8]) -> Vec<Output> {
        let now = self.now;
        self.nodes.get_mut(&to).unwrap().handle(now, Input::Datagram(datagram))
    }

    fn epochs(&self) -> Vec<u64> {
        self.nodes.values().filter_map(|node| Some(node.view()?.0.epoch())).collect()
    }
}

/// What a node sent that spoke all versions, all but the third, or version 1 only.
fn recordings() -> [(&'static str, Vec<Recorded>); 3] {
    let keyrings = [("all", keys("one")), ("version 2", second()), ("version 1", former())];
    keyrings.map(|(what, keyring)| {
        let mut cluster = Cluster::of(&keyring, 7);
        cluster.live();
        assert!(cluster.recorded.iter().any(|(_, datagram)| is_hand(datagram)));
        (what, cluster.recorded)
    })
}

#[test]
fn one_key_in_two_incarnations_is_two_clusters_that_do_not_hear_each_other() {
    let mut cluster = Cluster::new();
    cluster.start_with(keys("one"), "a", all(3));
    cluster.start_with(keys("one"), "b", all(3));
    cluster.start_with(keys("two"), "c", all(9));
    cluster.run(Duration::from_secs(4));
    let [a, b, c] = NAMES.map(NodeId::of);
    assert_eq!(cluster.heard, [(a, b), (b, a)].into());
    assert!(cluster.owners().len() == 1 && cluster.owners() != [c], "{:?}", cluster.owners());
    assert!(cluster.nodes.iter().all(|(id, node)| {
        node.view().map(|(view, _)| view.epoch()) == Some(if *id == c { 9 } else { 3 })
    }));
    for node in [a, b, c] {
        assert!(cluster.refused.contains(&(node, DatagramError::Forged)), "{node}");
    }
}

#[test]
fn nothing_that_was_recorded_in_another_incarnation_is_looked_at() {
    for (what, recorded) in recordings() {
        let mut cluster = Cluster::new();
        // Sessions and cookies come of the time here.
        cluster.now = cluster.now + Duration::from_millis(7);
        for name in NAMES {
            cluster.start_with(keys("two"), name, all(1));
        }
        // They have not met yet: a hand of version 1 may be of anybody. It is advice.
        let at_start = recorded.iter().filter(|(_, datagram)| !is_hand(datagram));
        let strange = |output: &Output| {
            !matches!(output, Output::Refused(_) | Output::Send { .. } | Output::MuteAll)
        };
        for (to, datagram) in at_start {
            let outputs = cluster.show(*to, datagram);
            assert!(!outputs.iter().any(strange), "{what}, at start: {outputs:?}");
        }
        cluster.run(Duration::from_secs(2));
        for (to, datagram) in &recorded {
            // A node says what it has to say by itself; what follows is only of the datagram.
            cluster.run(Duration::from_millis(1));
            let now = cluster.now;
            let node = cluster.nodes.get_mut(to).unwrap();
            node.poll(now);
            let outputs = cluster.show(*to, datagram);
            let refused = |output: &Output| matches!(output, Output::Refused(_));
            let greeted = version(datagram) == 1 && outputs.len() == 1;
            assert!(outputs.iter().any(refused) || greeted, "{what}: {outputs:?}");
            assert!(!outputs.iter().any(strange), "{what}: {outputs:?}");
        }
        assert_eq!(cluster.epochs(), [1; 3], "{what}");
    }
}

#[test]
fn no_view_that_was_taken_away_comes_back_by_what_was_recorded_in_it() {
    for (what, recorded) in recordings() {
        let mut cluster = Cluster::new();
        cluster.now = cluster.now + Duration::from_millis(7);
        for name in NAMES {
            cluster.start_with(keys("one"), name, all(1));
        }
        for _ in 0..2 {
            for (to, datagram) in &recorded {
                cluster.show(*to, datagram);
            }
            assert_eq!(cluster.epochs(), [1; 3], "{what}");
            cluster.run(Duration::from_secs(2));
        }
        assert_eq!((cluster.epochs(), cluster.owners().len()), (vec![1; 3], 1), "{what}");
    }
}

#[test]
fn a_node_that_speaks_version_2_is_not_spoken_for_by_what_it_said_in_version_1() {
    let [a, b, _] = NAMES.map(NodeId::of);
    let mut cluster = Cluster::of(&former(), 1);
    cluster.stop("b");
    cluster.start_with(keys("one"), "b", all(1));
    cluster.run(Duration::from_millis(100));
    cluster.recorded.clear();
    // By some key one of them hands it to the other.
    for key in 0..32 {
        for node in NAMES.map(NodeId::of) {
            let request = Request { key, candidates: ids(&NAMES), ..Request::default() };
            cluster.tell(node, Input::Request { address: ADDRESS.parse().unwrap(), request });
        }
        cluster.live();
        let handed = |(to, said): &Recorded| *to == b && sender(said) == a && is_hand(said);
        if cluster.recorded.iter().any(handed) {
            break;
        }
    }
    let recorded = std::mem::take(&mut cluster.recorded);
    let of_a: Vec<_> = recorded
        .into_iter()
        .filter(|(to, datagram)| *to == b && sender(datagram) == a)
        .map(|(_, datagram)| datagram)
        .collect();
    cluster.stop("a");
    cluster.start_with(keys("one"), "a", all(1));
    cluster.run(Duration::from_secs(1));
    for datagram in &of_a {
        let outputs = cluster.show(b, datagram);
        assert!(outputs.contains(&Output::Refused(DatagramError::Superseded(a))), "{outputs:?}");
    }
    // It went back to version 1, or is gone: nobody knows, and its hands are taken again.
    cluster.stop("a");
    let hand = of_a.iter().find(|datagram| is_hand(datagram)).unwrap();
    for (after, taken) in [(1_900, false), (200, true)] {
        cluster.run(Duration::from_millis(after));
        let outputs = cluster.show(b, hand);
        let refused = outputs.contains(&Output::Refused(DatagramError::Superseded(a)));
        assert_eq!(refused, !taken, "{outputs:?}");
    }
}

#[test]
fn nodes_speak_the_newest_version_that_both_know_once_they_have_met_and_nobody_is_sent_another() {
    let [a, b, c] = NAMES.map(NodeId::of);
    for (keyring, newest) in [(keys("one"), 3), (second(), 2)] {
        let mut cluster = Cluster::of(&keyring, 1);
        cluster.run(Duration::from_millis(100));
        cluster.recorded.clear();
        cluster.live();
        let spoken = |(_, datagram): &Recorded| {
            // What is handed over is said as well in version 2.
            version(datagram) == if is_hand(datagram) { 2 } else { newest }
        };
        assert!(cluster.recorded.iter().all(spoken));
        assert_eq!((&cluster.refused, &cluster.former), (&vec![], &vec![]));
    }
    let mut cluster = Cluster::of(&keys("one"), 1);
    cluster.run(Duration::from_millis(100));
    cluster.live();

    for name in ["b", "c"] {
        cluster.stop(name);
        cluster.run(Duration::from_millis(126));
        cluster.recorded.clear();
        cluster.start_with(former(), name, all(1));
        cluster.live();
        let to_it = |(to, _): &&Recorded| *to == NodeId::of(name);
        assert!(cluster.recorded.iter().filter(to_it).all(|(_, datagram)| version(datagram) == 1));
    }
    let false_alarm =
        |(by, error): &(NodeId, DatagramError)| *by != a && *error == DatagramError::Forged;
    assert!(!cluster.refused.iter().any(false_alarm), "{:?}", cluster.refused);
    assert_eq!(cluster.former, [(c, b), (a, b), (a, c)], "each is told of once");
    assert_eq!(cluster.owners().len(), 1);
}

#[test]
fn a_node_that_goes_back_to_an_earlier_version_is_heard_as_soon_as_one_that_restarts() {
    // With a vote itself, or among those who listen only, a node hears of it in another way.
    for (voters, earlier) in
        [&NAMES[..], &["c"]].into_iter().flat_map(|voters| [(voters, former()), (voters, second())])
    {
        let [a, _, c] = NAMES.map(NodeId::of);
        let back = |keyring: Keyring, down: u64| {
            let mut cluster = Cluster::new();
            for name in NAMES {
                cluster.start_with(keys("one"), name, view(1, voters));
            }
            cluster.run(Duration::from_secs(3));
            cluster.stop("c");
            cluster.run(Duration::from_millis(down));
            cluster.heard.clear();
            cluster.start_with(keyring, "c", view(1, voters));
            let mut waited = 0;
            while ![(a, c), (c, a)].iter().all(|pair| cluster.heard.contains(pair)) {
                cluster.run(Duration::from_millis(1));
                waited += 1;
                assert!(waited < 1_000, "after {down} ms: {:?}", cluster.heard);
            }
            waited
        };
        for down in [0, 1, 20, 60, 100, 125, 200, 1_000, 1_999, 3_000] {
            let (restarted, went_back) = (back(keys("one"), down), back(earlier.clone(), down));
            println!("of {}, after {down} ms: {restarted}, {went_back} ms", voters.len());
            // A voter that starts grants nothing for longer than that.
            assert!(went_back < 200 && (down < 125 || went_back <= restarted + 1));
        }
    }
}

#[test]
fn nodes_that_know_version_3_find_each_other_among_those_that_do_not() {
    let [a, b, c] = NAMES.map(NodeId::of);
    let mut cluster = Cluster::new();
    cluster.start_with(keys("one"), "a", all(1));
    cluster.start_with(second(), "b", all(1));
    cluster.start_with(keys("one"), "c", all(1));
    cluster.live();
    cluster.recorded.clear();
    cluster.live();
    assert_eq!((&cluster.refused, &cluster.former), (&vec![], &vec![]));
    let third = |(_, datagram): &&Recorded| version(datagram) == 3;
    let between: Vec<_> = cluster.recorded.iter().filter(third).collect();
    assert!(between.iter().all(|(to, datagram)| *to != b && sender(datagram) != b));
    for pair in [(a, c), (c, a)] {
        assert!(between.iter().any(|(to, datagram)| (sender(datagram), *to) == pair));
    }
    let former = cluster.recorded.iter().filter(|(to, _)| *to == b);
    assert!(former.clone().all(|(_, datagram)| version(datagram) == 2));
}
