//! Owns what a turn leaves to be done, in its order: above all the kernel is muted before anything behind is sent.

use std::net::IpAddr;

use crate::decode::Opened;
use crate::dialect::Dialect;
use crate::event::Output;
use crate::keyring::Keyring;
use crate::message::{Ack, Hand, Heartbeat, Message};
use crate::moment::Moment;
use crate::name::NodeId;
use crate::rules::Rules;
use crate::wire::{DatagramError, Tongue, Version};

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

    /// What a datagram for this node says.
    pub(crate) fn open(&self, datagram: &[u8]) -> Result<Opened, DatagramError> {
        self.keyring.open(self.me, datagram)
    }

    pub(crate) fn push(&mut self, output: Output) {
        self.out.push(output);
    }

    pub(crate) fn extend(&mut self, outputs: impl IntoIterator<Item = Output>) {
        self.out.extend(outputs);
    }

    pub(crate) fn beat(&mut self, now: Moment, to: NodeId, heartbeat: Heartbeat) {
        let version = self.dialect.of_heartbeat(now, to);
        self.send(version, to, &Message::Heartbeat(heartbeat));
    }

    /// Whether a heartbeat to a node would say less than that one is known to read.
    pub(crate) fn says_less(&self, now: Moment, to: NodeId) -> bool {
        let newest = self.keyring.newest() == Version::Third && self.dialect.reads_third(to);
        newest && self.dialect.of_heartbeat(now, to) < Version::Third
    }

    pub(crate) fn beat_in_full(&mut self, to: NodeId, heartbeat: Heartbeat) {
        self.send(Version::Third, to, &Message::Heartbeat(heartbeat));
    }

    /// Answers a heartbeat that was written so.
    pub(crate) fn answer(&mut self, to: NodeId, tongue: Tongue, ack: Ack) {
        let version = self.dialect.of_ack(ack.session, tongue);
        self.send(version, to, &Message::Ack(ack));
    }

    pub(crate) fn hand(&mut self, to: NodeId, hand: Hand) {
        self.send(self.dialect.of_hand(to), to, &Message::Hand(hand));
    }

    fn send(&mut self, version: Version, to: NodeId, message: &Message) {
        let datagram = self.keyring.seal(version, self.me, to, message);
        self.out.push(Output::Send { to, datagram });
    }

    /// The datagram that tells a node of the end of this one; none if it would not understand it.
    pub(crate) fn farewell(&self, to: NodeId, heartbeat: Heartbeat) -> Option<Vec<u8>> {
        let message = Message::Heartbeat(heartbeat);
        let version = Version::Third;
        let is_read = self.keyring.newest() == version && self.dialect.reads_third(to);
        is_read.then(|| self.keyring.seal(version, self.me, to, &message))
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
