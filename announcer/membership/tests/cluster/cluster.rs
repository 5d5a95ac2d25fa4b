//! Owns nodes on one virtual clock, whose datagrams all arrive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use berth_membership::{
    DatagramError, Input, Keyring, Moment, Node, NodeId, Output, Parameters, Request, View,
};

pub(crate) const ADDRESS: &str = "192.0.2.1";
pub(crate) const KEY: &[u8] = b"thirty-two octets from a Secret!";
const LATENCY: Duration = Duration::from_micros(200);

pub(crate) fn ids(names: &[&str]) -> Vec<NodeId> {
    names.iter().map(|name| NodeId::of(name)).collect()
}

/// The keys of a node that knows both versions of the wire.
pub(crate) fn keys(incarnation: &str) -> Keyring {
    Keyring::new(incarnation, [KEY]).unwrap()
}

/// A datagram, and to whom it was sent.
pub(crate) type Recorded = (NodeId, Vec<u8>);

pub(crate) fn sender(datagram: &[u8]) -> NodeId {
    NodeId::from_bits(u64::from_be_bytes(datagram[4..12].try_into().unwrap()))
}

/// Nodes on one virtual clock, and datagrams between them that all arrive.
pub(crate) struct Cluster {
    pub(crate) now: Moment,
    pub(crate) nodes: BTreeMap<NodeId, Node>,
    travelling: Vec<(Moment, NodeId, Vec<u8>)>,
    /// All that was ever sent.
    pub(crate) recorded: Vec<Recorded>,
    /// Since when each was first armed, and until when it is.
    pub(crate) armed: BTreeMap<NodeId, (Moment, Moment)>,
    /// Who has got ready to answer, or does.
    pub(crate) ready: BTreeSet<NodeId>,
    pub(crate) refused: Vec<(NodeId, DatagramError)>,
    pub(crate) left: Vec<NodeId>,
    /// Who heard whom, and who was told of whom that it speaks version 1.
    pub(crate) heard: BTreeSet<(NodeId, NodeId)>,
    pub(crate) former: Vec<(NodeId, NodeId)>,
    /// Who proposed which view to follow which epoch.
    pub(crate) proposed: Vec<(NodeId, u64, View)>,
}

impl Cluster {
    pub(crate) fn new() -> Self {
        let (nodes, travelling) = (BTreeMap::new(), Vec::new());
        let (armed, refused, left) = (BTreeMap::new(), Vec::new(), Vec::new());
        let now = Moment::from_nanos(1_000_000_000);
        let (recorded, heard, former) = (Vec::new(), BTreeSet::new(), Vec::new());
        let (proposed, ready) = (Vec::new(), BTreeSet::new());
        Self {
            ready,
            now,
            nodes,
            travelling,
            recorded,
            armed,
            refused,
            left,
            heard,
            former,
            proposed,
        }
    }

    /// A process that never ran before, as far as anybody can tell it.
    pub(crate) fn start(&mut self, name: &str, first: Input<'_>) {
        self.start_with(keys(""), name, first);
    }

    /// The same with these keys.
    pub(crate) fn start_with(&mut self, keyring: Keyring, name: &str, first: Input<'_>) {
        let id = NodeId::of(name);
        let seed = id.bits() ^ self.now.nanos();
        let node = Node::new(id, Parameters::default(), keyring, seed, self.now).unwrap();
        self.nodes.insert(id, node);
        let candidates = self.nodes.keys().copied().collect();
        let request = Request { candidates, ..Request::default() };
        self.tell(id, first);
        self.tell(id, Input::Request { address: ADDRESS.parse().unwrap(), request });
    }

    pub(crate) fn stop(&mut self, name: &str) {
        self.nodes.remove(&NodeId::of(name));
        self.armed.remove(&NodeId::of(name));
    }

    pub(crate) fn tell(&mut self, to: NodeId, input: Input<'_>) {
        let now = self.now;
        let Some(node) = self.nodes.get_mut(&to) else { return };
        let outputs = node.handle(now, input);
        self.perform(to, outputs);
    }

    fn perform(&mut self, id: NodeId, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, datagram } => {
                    self.recorded.push((to, datagram.clone()));
                    self.travelling.push((self.now + LATENCY, to, datagram));
                }
                Output::Prepare { address, .. } => {
                    self.ready.insert(id);
                    self.tell(id, Input::Prepared { address });
                }
                Output::Discard { .. } => _ = self.ready.remove(&id),
                Output::Arm { deadline, .. } => {
                    self.armed.entry(id).or_insert((self.now, deadline)).1 = deadline;
                }
                Output::Mute { .. } | Output::MuteAll => {
                    self.ready.remove(&id);
                    self.armed.remove(&id);
                }
                Output::Refused(error) => self.refused.push((id, error)),
                Output::ProposeView { from_epoch, view } => {
                    let fixed = self.nodes[&id].view().is_some_and(|(view, _)| view.is_fixed());
                    assert!(!fixed, "{id} proposes {view:?}");
                    self.proposed.push((id, from_epoch, view));
                }
                Output::Heard { node } => _ = self.heard.insert((id, node)),
                Output::Former { node } => self.former.push((id, node)),
                Output::Left => self.left.push(id),
                _ => {}
            }
        }
    }

    pub(crate) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        loop {
            let arrives = self.travelling.iter().map(|(at, ..)| *at).min();
            let due = self.nodes.values().map(Node::deadline).min();
            let next = arrives.into_iter().chain(due).min().unwrap().max(self.now);
            if next > end {
                return self.now = end;
            }
            self.now = next;
            let (now, later): (Vec<_>, Vec<_>) =
                self.travelling.drain(..).partition(|(at, ..)| *at <= next);
            self.travelling = later;
            for (_, to, datagram) in now {
                self.tell(to, Input::Datagram(&datagram));
            }
            for id in self.nodes.keys().copied().collect::<Vec<_>>() {
                let Some(node) = self.nodes.get_mut(&id).filter(|node| node.deadline() <= next)
                else {
                    continue;
                };
                let outputs = node.poll(next);
                self.perform(id, outputs);
            }
        }
    }

    pub(crate) fn owners(&self) -> Vec<NodeId> {
        let answers = self.armed.iter().filter(|(_, (_, until))| *until > self.now);
        answers.map(|(id, _)| *id).collect()
    }
}
