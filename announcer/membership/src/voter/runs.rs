//! Owns which runs of each node this voter listens to, and how far each has come.
//!
//! Guarantee: of what somebody recorded nothing counts again. A cookie admits one run of one node; a run that is known is
//! heard by its sequence. So a run may be forgotten: whatever carries its cookie admits nothing any more, and one that
//! lives learns another cookie from the next answer, as after this voter's start.

use std::collections::BTreeMap;

use crate::dialect::Said;
use crate::message::Heartbeat;
use crate::name::NodeId;
use crate::placement::mix;

/// So many runs of a node are known, the last heard ones.
const MOST_RUNS: usize = 8;

/// Of so many nodes, the last heard ones. Kubernetes has at most 5,000.
const MOST_NODES: usize = 8_192;

#[derive(Debug)]
struct Run {
    session: u64,
    /// What it was admitted by, and goes on with.
    cookie: u64,
    /// Its latest heartbeat.
    sequence: u64,
}

#[derive(Debug)]
struct Known {
    /// How many heartbeats of whomever had counted when one of this node last did.
    heard: u64,
    /// Of the cookie that admits the next run.
    generation: u64,
    /// The last heard one first.
    runs: Vec<Run>,
}

#[derive(Debug)]
pub(crate) struct Runs {
    secret: u64,
    heard: u64,
    /// The newest generation, whosever it is: none is ever used again.
    newest: u64,
    /// Of the cookies of nodes that are not known.
    strangers: u64,
    nodes: BTreeMap<NodeId, Known>,
}

impl Runs {
    /// Those of a voter that starts now, with a secret that no other run of it had.
    pub(crate) fn new(secret: u64) -> Self {
        Self { secret, heard: 0, newest: 0, strangers: 0, nodes: BTreeMap::new() }
    }

    /// The cookie with which a run of a node is heard.
    pub(crate) fn cookie(&self, node: NodeId, session: u64) -> u64 {
        let Some(known) = self.nodes.get(&node) else {
            return self.ticket(node, self.strangers);
        };
        let run = known.runs.iter().find(|run| run.session == session);
        run.map_or_else(|| self.ticket(node, known.generation), |run| run.cookie)
    }

    /// Takes in a heartbeat, and says to which run of this voter it was sent, and whether after all before it.
    pub(crate) fn hear(&mut self, node: NodeId, heartbeat: &Heartbeat) -> Said {
        let &Heartbeat { session, sequence, cookie, .. } = heartbeat;
        if cookie != self.cookie(node, session) {
            return Said::Elsewhere;
        }
        if !self.nodes.contains_key(&node) {
            self.make_room();
        }
        let (generation, heard, runs) = (self.strangers, self.heard, Vec::new());
        let known = self.nodes.entry(node).or_insert(Known { generation, heard, runs });
        let run = match known.runs.iter().position(|run| run.session == session) {
            Some(at) if sequence <= known.runs[at].sequence => return Said::Here,
            Some(at) => Run { sequence, ..known.runs.remove(at) },
            None => {
                self.newest += 1;
                known.generation = self.newest;
                Run { session, sequence, cookie }
            }
        };
        known.runs.insert(0, run);
        known.runs.truncate(MOST_RUNS);
        self.heard += 1;
        known.heard = self.heard;
        Said::Now
    }

    /// Forgets a node if there are too many. What it was told, and whoever was told that is not known, is void.
    fn make_room(&mut self) {
        if self.nodes.len() < MOST_NODES {
            return;
        }
        let silent = self.nodes.iter().min_by_key(|(_, known)| known.heard).map(|(node, _)| *node);
        if let Some(silent) = silent {
            self.nodes.remove(&silent);
        }
        self.newest += 1;
        self.strangers = self.newest;
    }

    /// No two generations of a node have the same one: mixing is a bijection. It need not withstand guessing: whoever guesses
    /// one cannot sign with it.
    fn ticket(&self, node: NodeId, generation: u64) -> u64 {
        mix(self.secret ^ mix(node.bits() ^ mix(generation)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use crate::message::{Condition, Stage};
    use crate::view::View;

    const NODE: NodeId = NodeId::from_bits(2);

    /// What a run says, and what was recorded of it.
    struct Process {
        node: NodeId,
        session: u64,
        sequence: u64,
        cookie: u64,
        recorded: Vec<Heartbeat>,
    }

    impl Process {
        fn of(node: NodeId, session: u64) -> Self {
            // The clock of a host that was rebooted begins anew.
            Self { node, session, sequence: 1_000 - session, cookie: 0, recorded: Vec::new() }
        }

        fn new(session: u64) -> Self {
            Self::of(NODE, session)
        }

        /// Sends a heartbeat, and learns the cookie from the answer.
        fn beat(&mut self, runs: &mut Runs) -> Said {
            self.sequence += 1;
            let list = Journal::<_, Stage>::new(8).deltas(0, usize::MAX, 1).remove(0);
            let heartbeat = Heartbeat {
                session: self.session,
                sequence: self.sequence,
                cookie: self.cookie,
                view: View::first(self.node),
                active: true,
                more: false,
                condition: Condition::default(),
                list,
                reports: 0,
            };
            let said = runs.hear(self.node, &heartbeat);
            self.recorded.push(heartbeat);
            self.cookie = runs.cookie(self.node, self.session);
            said
        }

        /// Starts, and is heard by its second heartbeat.
        fn start(&mut self, runs: &mut Runs) {
            assert_eq!([self.beat(runs), self.beat(runs)], [Said::Elsewhere, Said::Now]);
        }
    }

    fn replay(runs: &mut Runs, process: &Process) {
        for heartbeat in &process.recorded {
            assert_ne!(runs.hear(process.node, heartbeat), Said::Now, "{heartbeat:?}");
        }
    }

    #[test]
    fn nothing_that_was_recorded_of_any_number_of_runs_is_a_sign_of_life() {
        let mut runs = Runs::new(7);
        let mut all: Vec<_> = (1..=20).map(Process::new).collect();
        for at in 0..all.len() {
            all[at].start(&mut runs);
            assert_eq!(all[at].beat(&mut runs), Said::Now);
            all.iter().for_each(|process| replay(&mut runs, process));
        }
        (0..3).flat_map(|_| &all).for_each(|process| replay(&mut runs, process));
        (0..3).flat_map(|_| all.iter().rev()).for_each(|process| replay(&mut runs, process));
        assert_eq!(all[19].beat(&mut runs), Said::Now, "and the one that lives goes on");
        assert_eq!(runs.nodes[&NODE].runs.len(), MOST_RUNS);
    }

    #[test]
    fn runs_that_overlap_are_both_heard_and_keep_their_cookies() {
        let mut runs = Runs::new(7);
        let mut old = Process::new(1);
        old.start(&mut runs);
        let cookie = old.cookie;
        let mut former = Vec::new();
        for session in 2..=20 {
            let mut new = Process::new(session);
            new.start(&mut runs);
            for _ in 0..3 {
                assert_eq!([old.beat(&mut runs), new.beat(&mut runs)], [Said::Now; 2]);
                former.iter().chain([&old, &new]).for_each(|process| replay(&mut runs, process));
            }
            former.push(new);
        }
        assert_eq!(old.cookie, cookie);
    }

    #[test]
    fn a_run_that_was_forgotten_while_it_stood_still_is_heard_after_one_exchange() {
        let mut runs = Runs::new(7);
        let mut old = Process::new(1);
        old.start(&mut runs);
        let mut later: Vec<_> = (2..=10).map(Process::new).collect();
        later.iter_mut().for_each(|process| process.start(&mut runs));
        assert_eq!([old.beat(&mut runs), old.beat(&mut runs)], [Said::Elsewhere, Said::Now]);
        assert_eq!(later[8].beat(&mut runs), Said::Now);
        later.iter().chain([&old]).for_each(|process| replay(&mut runs, process));
    }

    #[test]
    fn what_never_arrived_is_void_once_a_later_run_is_heard() {
        let mut runs = Runs::new(7);
        let (mut first, mut second) = (Process::new(1), Process::new(2));
        first.beat(&mut runs);
        second.start(&mut runs);
        assert_eq!([first.beat(&mut runs), first.beat(&mut runs)], [Said::Elsewhere, Said::Now]);
    }

    #[test]
    fn a_node_that_was_forgotten_is_as_unknown_as_what_was_recorded_of_it() {
        let mut runs = Runs::new(7);
        let mut all: Vec<_> =
            (0..=MOST_NODES as u64).map(|node| Process::of(NodeId::from_bits(node), 1)).collect();
        all.iter_mut().for_each(|process| process.start(&mut runs));
        assert_eq!(runs.nodes.len(), MOST_NODES);
        all.iter().for_each(|process| replay(&mut runs, process));
        assert_eq!([all[0].beat(&mut runs), all[0].beat(&mut runs)], [Said::Elsewhere, Said::Now]);
        all.iter().for_each(|process| replay(&mut runs, process));
    }

    #[test]
    fn who_never_had_the_cookie_takes_no_room() {
        let mut runs = Runs::new(7);
        for node in 0..100 {
            let mut process = Process::of(NodeId::from_bits(node), 1);
            assert_eq!(process.beat(&mut runs), Said::Elsewhere);
        }
        assert!(runs.nodes.is_empty());
    }
}
