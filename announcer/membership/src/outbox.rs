//! Owns what a turn leaves to be done, in its order: above all the kernel is muted before anything behind is sent.

use std::net::IpAddr;

use crate::dialect::Dialect;
use crate::event::Output;
use crate::keyring::Keyring;
use crate::message::Message;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::rules::Rules;
use crate::wire::{DatagramError, Version};

#[derive(Debug)]
pub(crate) struct Outbox {
    me: NodeId,
    keyring: Keyring,
    dialect: Dialect,
    rules: Rules,
    out: Vec<Output>,
    /// Only without the rule that the kernel is muted first.
    late: Vec<Output>,
}

impl Outbox {
    /// What a node has to do first of all: silence what an earlier run left armed.
    pub(crate) fn new(me: NodeId, keyring: Keyring, dialect: Dialect, rules: Rules) -> Self {
        Self { me, keyring, dialect, rules, out: vec![Output::MuteAll], late: Vec::new() }
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

    /// How other nodes are spoken to.
    pub(crate) fn dialect(&mut self) -> &mut Dialect {
        &mut self.dialect
    }

    /// The message in a datagram for this node, its sender and version.
    pub(crate) fn open(
        &self,
        datagram: &[u8],
    ) -> Result<(NodeId, Version, Message), DatagramError> {
        self.keyring.open(self.me, datagram)
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.out.push(output);
    }

    pub(crate) fn extend(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.out.extend(outputs);
    }

    pub(crate) fn send(&mut self, now: Moment, to: NodeId, message: &Message) {
        let version = self.dialect.version(now, to, message);
        let datagram = self.keyring.seal(version, self.me, to, message);
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
