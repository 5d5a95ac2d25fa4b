//! What somebody on the LAN recorded of a node, over more of its runs than anybody remembers.

use std::time::Duration;

use berth_membership::{Input, Keyring, NodeId, View, Voters};

use crate::cluster::{Cluster, KEY, Recorded, ids, keys, sender};

const RUNS: usize = 20;
const MILLIS: Duration = Duration::from_millis(1);

/// Three nodes, the view of which is stored, and what was recorded of one of them.
struct Scene {
    cluster: Cluster,
    keys: Keyring,
    stored: View,
    /// All heartbeats of each run.
    runs: Vec<Vec<Recorded>>,
    /// How long each run took to be heard by both others, in milliseconds.
    waited: Vec<u64>,
}

fn others() -> [NodeId; 2] {
    ["a", "c"].map(NodeId::of)
}

/// The keys of a node that knows both versions of the wire, and of one that knows the first only.
fn both() -> [Keyring; 2] {
    [keys("one"), Keyring::former([KEY]).unwrap()]
}

fn replayed() -> NodeId {
    NodeId::of("b")
}

impl Scene {
    /// The voters go on while one of the nodes is started again and again. Every other of its runs says that it leaves.
    fn new(keys: Keyring) -> Self {
        let stored = View::new(1, Voters::new(ids(&["a", "b", "c"])).unwrap(), vec![]).unwrap();
        let (cluster, runs, waited) = (Cluster::new(), Vec::new(), Vec::new());
        let mut scene = Self { cluster, keys, stored, runs, waited };
        ["a", "c"].into_iter().for_each(|name| scene.start(name));
        scene.run(Duration::from_secs(1));
        for run in 0..RUNS {
            scene.cluster.stop("b");
            scene.run(30 * MILLIS);
            scene.cluster.recorded.clear();
            scene.cluster.heard.clear();
            scene.start("b");
            scene.waited.push(0);
            while !others().iter().all(|voter| scene.hear_it(*voter)) {
                scene.run(MILLIS);
                scene.waited[run] += 1;
                assert!(scene.waited[run] < 1_000, "run {run}");
            }
            scene.run(300 * MILLIS);
            if run % 2 == 0 && run + 1 < RUNS {
                scene.cluster.tell(replayed(), Input::Leave);
                scene.run(100 * MILLIS);
            }
            let heartbeat =
                |(_, datagram): &Recorded| sender(datagram) == replayed() && datagram[3] == 1;
            scene.runs.push(scene.cluster.recorded.drain(..).filter(heartbeat).collect());
        }
        scene
    }

    fn start(&mut self, name: &str) {
        let keys = if name == "b" { self.keys.clone() } else { keys("one") };
        self.cluster.start_with(keys, name, Input::View(self.stored.clone()));
    }

    fn hear_it(&self, voter: NodeId) -> bool {
        self.cluster.heard.contains(&(voter, replayed()))
    }

    /// Goes on, a millisecond after the other, and stores what is proposed.
    fn run(&mut self, span: Duration) {
        for _ in 0..span.as_millis() {
            self.cluster.run(MILLIS);
            for (by, from_epoch, view) in std::mem::take(&mut self.cluster.proposed) {
                if from_epoch == self.stored.epoch() {
                    self.stored = view;
                }
                self.cluster.tell(by, Input::View(self.stored.clone()));
                self.cluster.tell(by, Input::NotStored { from_epoch });
            }
        }
    }

    /// One heartbeat of a run to each voter, as late in the run as may be the first time, then the one before.
    fn replay(&mut self, run: usize, round: usize) {
        for voter in others() {
            let mut to_it = self.runs[run].iter().rev().filter(|(to, _)| *to == voter);
            let Some((_, datagram)) = to_it.nth(round) else { continue };
            self.cluster.tell(voter, Input::Datagram(&datagram.clone()));
        }
    }

    fn live(&self, voter: NodeId) -> bool {
        self.cluster.nodes[&voter].live().any(|node| node == replayed())
    }
}

#[test]
fn a_dead_node_is_not_kept_alive_by_what_was_recorded_of_its_runs() {
    for (together, keys) in [12, RUNS].into_iter().flat_map(|n| both().map(|keys| (n, keys))) {
        let mut scene = Scene::new(keys);
        assert!(others().iter().all(|voter| scene.live(*voter)));
        scene.cluster.stop("b");
        scene.run(MILLIS);
        scene.cluster.heard.clear();
        for step in 0..200 {
            scene.replay(step % together, step / together % 3);
            scene.run(40 * MILLIS);
            for voter in others() {
                assert!(!scene.hear_it(voter), "of {together} runs, step {step}");
                assert!(step < 10 || !scene.live(voter), "of {together} runs, step {step}");
            }
            let voters = scene.stored.voters();
            assert!(step < 60 || !voters.contains(replayed()), "of {together} runs, step {step}");
        }
        assert_eq!(scene.stored.epoch(), 2, "it was replaced once, and stayed away");
        assert!(scene.cluster.owners().len() == 1 && scene.cluster.owners() != [replayed()]);
    }
}

#[test]
fn a_node_that_was_started_often_is_heard_whatever_was_recorded_of_it() {
    for keys in both() {
        let mut scene = Scene::new(keys);
        let (first, last) = (scene.waited[0], *scene.waited.iter().max().unwrap());
        assert!(last <= first + 1, "no start takes longer: {:?}", scene.waited);
        for step in 0..200 {
            scene.replay(step % RUNS, step / RUNS % 3);
            scene.run(20 * MILLIS);
            assert!(others().iter().all(|voter| scene.live(*voter)), "step {step}");
            assert_eq!(scene.cluster.owners().len(), 1, "step {step}");
        }
        assert_eq!(scene.stored.epoch(), 1);
    }
}
