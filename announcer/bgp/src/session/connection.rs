//! One connection with a peer: octets in and out, its timers, how far it is. A peer may have two for a moment (RFC 4271
//! §6.8).

use std::time::{Duration, Instant};

use super::parameters::NextHops;
use super::terms::Terms;
use crate::wire::{self, LONGEST, Message, Notification, Open};

/// Until the peer has said who it is (RFC 4271 §8.2.2).
const INITIAL_HOLD: Duration = Duration::from_secs(4 * 60);

/// A connection, as driver and session both name it. No two of a session ever have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Link(pub(super) u64);

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    OpenSent,
    OpenConfirm,
    Established,
}

#[derive(Debug)]
pub(super) struct Connection {
    /// Whether this speaker opened it.
    pub(super) outgoing: bool,
    pub(super) next_hops: NextHops,
    pub(super) stage: Stage,
    pub(super) since: Instant,
    /// Once there are any.
    pub(super) terms: Option<Terms>,
    inbox: Vec<u8>,
    /// Octets of `inbox` that have been read.
    read: usize,
    outbox: Vec<u8>,
    /// Octets of `outbox` that the peer's TCP has.
    written: usize,
    hold: Option<Instant>,
    keepalive: Option<Instant>,
    send_hold: Option<Instant>,
}

/// What a timer asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    /// The peer was silent for too long.
    Hold,
    /// A sign of life.
    Keepalive,
    /// The peer reads nothing.
    SendHold,
}

impl Connection {
    pub(super) fn new(now: Instant, outgoing: bool, next_hops: NextHops, open: &Open) -> Self {
        let mut outbox = Vec::new();
        open.put(&mut outbox);
        let hold = now + INITIAL_HOLD;
        Self {
            outgoing,
            next_hops,
            stage: Stage::OpenSent,
            since: now,
            terms: None,
            inbox: Vec::new(),
            read: 0,
            outbox,
            written: 0,
            hold: Some(hold),
            keepalive: None,
            // Nothing is agreed on: who reads not even the OPEN is given up with who sends none.
            send_hold: Some(hold),
        }
    }

    pub(super) fn receive(&mut self, octets: &[u8]) {
        self.inbox.extend(octets);
    }

    /// The next message, once it is all there.
    pub(super) fn next_message(&mut self) -> Result<Option<Message>, Notification> {
        let Some((message, length)) = wire::decode(&self.inbox[self.read..])? else {
            self.inbox.drain(..self.read);
            self.read = 0;
            return Ok(None);
        };
        self.read += length;
        Ok(Some(message))
    }

    /// The peer has said who it is, and is who it should be.
    pub(super) fn agree(&mut self, now: Instant, terms: Terms, jitter: f64) {
        self.stage = Stage::OpenConfirm;
        self.since = now;
        self.hold = terms.hold.map(|hold| now + hold);
        self.send_hold = terms.send_hold.filter(|_| !self.is_written()).map(|hold| now + hold);
        self.terms = Some(terms);
        self.say_alive(now, jitter);
    }

    pub(super) fn establish(&mut self, now: Instant) {
        self.stage = Stage::Established;
        self.since = now;
    }

    /// The peer has said something.
    pub(super) fn heard(&mut self, now: Instant) {
        let hold = self.terms.as_ref().and_then(|terms| terms.hold);
        self.hold = hold.map(|hold| now + hold);
    }

    /// Sends a sign of life, and sets the time of the next one, of which a part of up to a quarter is left out (RFC 4271
    /// §10).
    pub(super) fn say_alive(&mut self, now: Instant, jitter: f64) {
        let Some(terms) = &self.terms else { return };
        self.keepalive = terms.hold.map(|_| now + terms.keepalive.mul_f64(jitter));
        self.send(now, wire::keepalive);
    }

    /// Appends what `write` writes to what is to be sent.
    pub(super) fn send(&mut self, now: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        let idle = self.is_written();
        write(&mut self.outbox);
        if idle && !self.is_written() {
            self.send_hold = self.send_hold_from(now);
        }
    }

    fn send_hold_from(&self, now: Instant) -> Option<Instant> {
        let hold = self.terms.as_ref().map_or(Some(INITIAL_HOLD), |terms| terms.send_hold);
        hold.map(|hold| now + hold)
    }

    /// What is to be sent.
    pub(super) fn output(&self) -> &[u8] {
        &self.outbox[self.written..]
    }

    pub(super) fn is_written(&self) -> bool {
        self.written == self.outbox.len()
    }

    /// The first `count` octets of it were taken.
    pub(super) fn written(&mut self, now: Instant, count: usize) {
        if count == 0 {
            return;
        }
        self.written = self.outbox.len().min(self.written + count);
        self.send_hold = if self.is_written() { None } else { self.send_hold_from(now) };
        if self.is_written() || self.written > 16 * LONGEST {
            self.outbox.drain(..self.written);
            self.written = 0;
        }
    }

    /// What is left to be sent, and a reason.
    pub(super) fn last(&self, notification: Option<&Notification>) -> Vec<u8> {
        let mut last = self.output().to_vec();
        if let Some(notification) = notification {
            notification.put(&mut last);
        }
        last
    }

    /// A timer that has run out.
    pub(super) fn due(&self, now: Instant) -> Option<Due> {
        let timers = [
            (self.hold, Due::Hold),
            (self.send_hold, Due::SendHold),
            (self.keepalive, Due::Keepalive),
        ];
        let out = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        timers.into_iter().find(|(at, _)| out(*at)).map(|(_, due)| due)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.hold, self.send_hold, self.keepalive].into_iter().flatten().min()
    }
}
