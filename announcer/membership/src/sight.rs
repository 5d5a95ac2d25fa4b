//! Owns what voters report: who is alive and who holds what. Placement builds on it; safety never does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::journal::{Applied, Replica};
use crate::message::{Ack, Report, Stage, Subject};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::view::View;

#[derive(Debug)]
struct Reporter {
    cookie: u64,
    sequence: u64,
    heard: Moment,
    replica: Replica<Subject, Report>,
}

/// The reports of the voters.
#[derive(Debug)]
pub(crate) struct Sight {
    me: NodeId,
    suspicion: Duration,
    reporters: BTreeMap<NodeId, Reporter>,
    clear: bool,
    live: BTreeSet<NodeId>,
    fresh: Vec<NodeId>,
    changed: BTreeSet<IpAddr>,
    changed_nodes: bool,
}

impl Sight {
    pub(crate) fn new(me: NodeId, suspicion: Duration) -> Self {
        Self {
            me,
            suspicion,
            reporters: BTreeMap::new(),
            clear: false,
            live: BTreeSet::new(),
            fresh: Vec::new(),
            changed: BTreeSet::new(),
            changed_nodes: false,
        }
    }

    /// The version of a voter's reports that is here.
    pub(crate) fn version(&self, voter: NodeId) -> u64 {
        self.reporters.get(&voter).map_or(0, |reporter| reporter.replica.applied())
    }

    /// Takes what came with an ack to this node.
    pub(crate) fn note(&mut self, now: Moment, from: NodeId, ack: &Ack) {
        let (cookie, sequence) = (ack.cookie, ack.sequence);
        let empty = || Reporter { cookie, sequence, heard: now, replica: Replica::new() };
        let reporter = self.reporters.entry(from).or_insert_with(empty);
        if reporter.sequence > ack.sequence {
            return;
        }
        if reporter.cookie != ack.cookie {
            *reporter = empty();
            self.changed_nodes = true;
        }
        if sequence > reporter.sequence {
            (reporter.sequence, reporter.heard) = (sequence, now);
        }
        let before = reporter.replica.is_complete();
        match reporter.replica.apply(&ack.reports) {
            Applied::Gap if reporter.replica.is_diverged() => *reporter = empty(),
            Applied::Gap | Applied::Known => {}
            Applied::Newer => {
                for (subject, _) in &ack.reports.changes {
                    match subject {
                        Subject::Node(_) => self.changed_nodes = true,
                        Subject::Address(address) => _ = self.changed.insert(*address),
                    }
                }
            }
        }
        self.changed_nodes |=
            before != self.reporters.get(&from).is_some_and(|one| one.replica.is_complete());
    }

    /// Says anew who is alive, from the voters that were heard lately. Returns whether anything about nodes changed.
    pub(crate) fn refresh(&mut self, now: Moment, view: &View) -> bool {
        let heard = |voter: &&NodeId| {
            let reporter = self.reporters.get(voter);
            reporter.is_some_and(|one| {
                one.replica.is_complete() && now.since(one.heard) <= self.suspicion
            })
        };
        let fresh: Vec<_> = view.voters().nodes().iter().filter(heard).copied().collect();
        if fresh == self.fresh && !self.changed_nodes {
            return false;
        }
        self.changed_nodes = false;
        let needed = view.voters().majority();
        let mut votes: BTreeMap<NodeId, usize> = BTreeMap::new();
        for (subject, _) in fresh.iter().flat_map(|voter| self.reporters[voter].replica.iter()) {
            if let Subject::Node(node) = subject {
                *votes.entry(*node).or_default() += 1;
            }
        }
        self.clear = fresh.len() >= needed;
        self.live =
            votes.into_iter().filter(|(_, count)| *count >= needed).map(|(node, _)| node).collect();
        self.fresh = fresh;
        true
    }

    /// Another view has other reporters.
    pub(crate) fn adopted(&mut self) {
        self.changed_nodes = true;
    }

    /// The addresses that reports changed since the last call.
    pub(crate) fn take_changed(&mut self) -> BTreeSet<IpAddr> {
        std::mem::take(&mut self.changed)
    }

    /// Whether a majority answered lately and everything it reports is here.
    pub(crate) fn is_clear(&self) -> bool {
        self.clear
    }

    /// The nodes that a majority has heard lately.
    pub(crate) fn live(&self) -> &BTreeSet<NodeId> {
        &self.live
    }

    /// Another live node that is reported with this address at this stage.
    pub(crate) fn others(&self, address: IpAddr, stage: Stage) -> impl Iterator<Item = NodeId> {
        let subject = Subject::Address(address);
        self.fresh.iter().filter_map(move |voter| {
            match self.reporters[voter].replica.get(&subject) {
                Some(Report::Promised { node, stage: reported })
                    if *reported == stage && *node != self.me && self.live.contains(node) =>
                {
                    Some(*node)
                }
                _ => None,
            }
        })
    }
}
