//! What a session is made of, and what every change of it goes through: connections end, and are tried again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use super::cause::Cause;
use super::connection::{Connection, Link, Stage};
use super::parameters::{NextHops, Parameters};
use super::terms::{self, Kept};
use crate::prefix::Family;
use crate::rib::Rib;
use crate::wire::{Notification, cease};

/// The first wait between two attempts to connect; each is twice the one before.
const FIRST_RETRY: Duration = Duration::from_secs(1);

/// A session that lasted for so long ended for a reason of its own, and is tried again at once.
const STABLE: Duration = Duration::from_secs(30);

/// What the driver is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Open a connection to the peer, and say [`connected`](super::Session::connected) or
    /// [`failed`](super::Session::failed).
    Connect(Link),
    /// Send these octets if that is possible without waiting for long, and close. Nothing more is heard of it.
    Close {
        /// Which connection.
        link: Link,
        /// What it is to say.
        last: Vec<u8>,
    },
    /// Let people, and whoever waits, know.
    Tell(Event),
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The session is up.
    Established,
    /// It is not any more.
    Down(Cause),
    /// All routes that the peer has of a family have been there.
    EndOfRib(Family),
    /// Routes of some family lead elsewhere than before, or again, or nowhere any more.
    Moved,
}

/// The session with one peer, decided without I/O: what happened goes in with its time, [`Step`]s, octets and a
/// deadline come out.
///
/// It takes no routes. It announces those that it is given, to a peer with which it has agreed on their family and that
/// they lead somewhere.
#[derive(Debug)]
pub struct Session {
    pub(super) parameters: Parameters,
    pub(super) rib: Rib,
    pub(super) links: BTreeMap<Link, Connection>,
    pub(super) steps: VecDeque<Step>,
    /// The families of which the peer has sent everything.
    pub(super) ended_families: BTreeSet<Family>,
    pub(super) running: bool,
    /// Until when peers may still have routes that an earlier life of this process announced.
    pub(super) restart_until: Option<Instant>,
    /// Whether the session was up before, since when everything was forwarded.
    pub(super) was_up: bool,
    /// A connection that is being opened, and until when it may.
    pub(super) connecting: Option<(Link, Instant)>,
    pub(super) retry: Option<Instant>,
    pub(super) last: Option<(Instant, Cause)>,
    pub(super) changed: Instant,
    attempts: u32,
    numbers: u64,
    random: u64,
}

impl Session {
    pub(super) fn fresh(now: Instant, parameters: Parameters, seed: u64) -> Self {
        Self {
            parameters,
            rib: Rib::default(),
            links: BTreeMap::new(),
            steps: VecDeque::new(),
            ended_families: BTreeSet::new(),
            running: false,
            restart_until: None,
            was_up: false,
            connecting: None,
            retry: None,
            last: None,
            changed: now,
            attempts: 0,
            numbers: 0,
            random: seed,
        }
    }

    pub(super) fn number(&mut self) -> Link {
        self.numbers += 1;
        Link(self.numbers)
    }

    /// Between three quarters and one, another one each time (RFC 4271 §10), by the seed (SplitMix64).
    pub(super) fn jitter(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let part = u32::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap_or(u32::MAX);
        0.75 + 0.25 * f64::from(part) / f64::from(u32::MAX)
    }

    /// A connection is there: this speaker says who it is.
    pub(super) fn greet(&mut self, now: Instant, link: Link, outgoing: bool, next_hops: NextHops) {
        let restarting = self.restart_until.is_some_and(|until| now < until);
        let kept = Kept { restarting, forwarded: restarting || self.was_up };
        let open = terms::open(&self.parameters, kept);
        self.links.insert(link, Connection::new(now, outgoing, next_hops, &open));
    }

    /// Ends a connection, by a reason that the peer is told.
    pub(super) fn refuse(&mut self, now: Instant, link: Link, notification: Notification) {
        self.end(now, link, Some(&notification), Cause::Sent(notification.clone()));
    }

    /// Ends a connection; the session, too, if it was the one that is up.
    pub(super) fn end(
        &mut self,
        now: Instant,
        link: Link,
        say: Option<&Notification>,
        cause: Cause,
    ) {
        let Some(connection) = self.links.remove(&link) else { return };
        let last = match &cause {
            Cause::Received(_) | Cause::NotRead | Cause::Lost(_) => vec![],
            _ => connection.last(say),
        };
        self.steps.push_back(Step::Close { link, last });
        self.settle(now, &connection, cause);
    }

    /// What follows from the end of a connection that is not among the others any more.
    fn settle(&mut self, now: Instant, connection: &Connection, cause: Cause) {
        if connection.stage == Stage::Established {
            self.rib.down();
            self.ended_families.clear();
            self.changed = now;
            self.steps.push_back(Step::Tell(Event::Down(cause.clone())));
            if now.saturating_duration_since(connection.since) >= STABLE {
                self.attempts = 0;
            }
        }
        if !self.is_echo(connection, &cause) {
            self.last = Some((now, cause));
        }
        self.retry_later(now);
    }

    /// Whether a connection only ended since the one before did: who has said why, or was told, hangs up without a word on what
    /// comes for a while.
    fn is_echo(&self, connection: &Connection, cause: &Cause) -> bool {
        let is_mute = connection.stage == Stage::OpenSent && matches!(cause, Cause::Lost(_));
        let said = |cause: &Cause| matches!(cause, Cause::Received(_) | Cause::Sent(_));
        is_mute && self.last.as_ref().is_some_and(|(_, cause)| said(cause))
    }

    /// Closes one of two connections with the same peer (RFC 4271 §6.8): nothing is wrong with it.
    pub(super) fn give_way(&mut self, link: Link) {
        let collision = Notification::cease(cease::COLLISION, "");
        if let Some(connection) = self.links.remove(&link) {
            self.steps.push_back(Step::Close { link, last: connection.last(Some(&collision)) });
        }
    }

    /// Closes a connection that the peer has closed: nothing is wrong with it.
    pub(super) fn drop_link(&mut self, link: Link) {
        if self.links.remove(&link).is_some() {
            self.steps.push_back(Step::Close { link, last: vec![] });
        }
    }

    /// Gives up the connection that is being opened.
    pub(super) fn stop_connecting(&mut self) {
        if let Some((link, _)) = self.connecting.take() {
            self.steps.push_back(Step::Close { link, last: vec![] });
        }
    }

    /// Tries again, later each time; not while there is a connection, for whatever becomes of it comes here again.
    pub(super) fn retry_later(&mut self, now: Instant) {
        let idle = self.connecting.is_none() && self.links.is_empty() && self.retry.is_none();
        if !self.running || !self.parameters.role.connects() || !idle {
            return;
        }
        let longest = self.parameters.connect_retry.max(FIRST_RETRY);
        let wait = FIRST_RETRY.saturating_mul(1 << self.attempts.min(16)).min(longest);
        self.attempts = self.attempts.saturating_add(1);
        self.retry = Some(now + wait.mul_f64(self.jitter()));
    }

    /// Opens a connection, unless the peer has opened one meanwhile.
    pub(super) fn connect(&mut self, now: Instant) {
        self.retry = None;
        if !self.links.is_empty() || self.connecting.is_some() {
            return;
        }
        let link = self.number();
        let longest = self.parameters.connect_retry.max(FIRST_RETRY);
        self.connecting = Some((link, now + longest));
        self.steps.push_back(Step::Connect(link));
    }
}
