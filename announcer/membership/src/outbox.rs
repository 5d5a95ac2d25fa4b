//! Owns what a turn leaves to be done, in its order: above all the kernel is muted before anything behind is sent.

use std::net::IpAddr;

use crate::event::Output;
use crate::keyring::Keyring;
use crate::message::Message;
use crate::name::NodeId;
use crate::rules::Rules;
use crate::wire::DatagramError;

#[derive(Debug)]
pub(crate) struct Outbox {
    me: NodeId,
    keyring: Keyring,
    rules: Rules,
    out: Vec<Output>,
    /// Only without the rule that the kernel is muted first.
    late: Vec<Output>,
}

impl Outbox {
    /// What a node has to do first of all: silence what an earlier run left armed.
    pub(crate) fn new(me: NodeId, keyring: Keyring, rules: Rules) -> Self {
        Self { me, keyring, rules, out: vec![Output::MuteAll], late: Vec::new() }
    }

    pub(crate) fn me(&self) -> NodeId {
        self.me
    }

    pub(crate) fn rules(&self) -> Rules {
        self.rules
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.out.is_empty()
    }

    /// The message in a datagram for this node, and its sender.
    pub(crate) fn open(&self, datagram: &[u8]) -> Result<(NodeId, Message), DatagramError> {
        self.keyring.open(self.me, datagram)
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.out.push(output);
    }

    pub(crate) fn extend(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.out.extend(outputs);
    }

    pub(crate) fn send(&mut self, to: NodeId, message: &Message) {
        let datagram = self.keyring.seal(self.me, to, message);
        self.out.push(Output::Send { to, datagram });
    }

    pub(crate) fn mute(&mut self, address: IpAddr) {
        let out = if self.rules.mute_first() { &mut self.out } else { &mut self.late };
        out.push(Output::Mute { address });
    }

    /// All of it; nothing is left.
    pub(crate) fn take(&mut self) -> Vec<Output> {
        let mut out = std::mem::take(&mut self.out);
        out.append(&mut self.late);
        out
    }
}
