//! The session with one peer (RFC 4271 §8): what happened goes in with its time; steps, octets and a deadline come out.

mod cause;
mod connection;
mod edit;
mod messages;
mod parameters;
mod state;
mod status;
mod terms;

use std::sync::Arc;
use std::time::Instant;

pub use self::cause::{Cause, Stop};
pub use self::connection::Link;
use self::connection::{Due, Stage};
pub use self::parameters::{NextHops, Parameters, RemoteAs, Restart, Role};
pub use self::state::{Event, Session, Step};
pub use self::status::{Agreed, State, Status};
use crate::attributes::Attributes;
use crate::prefix::Prefix;
use crate::rib::Routes;
use crate::wire::{LONGEST, Notification, cease};

/// Octets that may wait for the peer beside what its TCP has: what is wanted changes meanwhile, and only the last word
/// is worth sending.
const WAITING: usize = 8 * LONGEST;

impl Session {
    /// A session that does nothing yet. The seed is to be another one for each session and each life of the process.
    pub fn new(now: Instant, parameters: Parameters, seed: u64) -> Self {
        Self::fresh(now, parameters, seed)
    }

    /// Begins. `restarted` is until when peers may still have what an earlier life of this process announced and what was
    /// forwarded all the time since.
    pub fn start(&mut self, now: Instant, restarted: Option<Instant>) {
        if self.running {
            return;
        }
        self.running = true;
        self.restart_until = restarted;
        if self.parameters.role.connects() {
            self.retry = Some(now);
        }
        self.poll(now);
    }

    /// Ends.
    pub fn stop(&mut self, now: Instant, stop: &Stop) {
        self.running = false;
        self.retry = None;
        self.stop_connecting();
        let links: Vec<Link> = self.links.keys().copied().collect();
        for link in links {
            match self.farewell(link, stop) {
                Some(notification) => self.refuse(now, link, notification),
                None if *stop == Stop::Reset => self.end(now, link, None, Cause::Edited),
                None => self.end(now, link, None, Cause::Restart),
            }
        }
    }

    /// What a peer is told at the end; nothing where it is to keep the routes.
    fn farewell(&self, link: Link, stop: &Stop) -> Option<Notification> {
        let terms = self.links.get(&link).and_then(|connection| connection.terms.as_ref());
        let keeps = self.parameters.graceful_restart.is_some()
            && terms.is_some_and(|terms| terms.peer_restart.is_some());
        let notification = match stop {
            Stop::Restart => return None,
            Stop::Reset if keeps => return None,
            Stop::Reset => Notification::cease(cease::RESET, ""),
            Stop::Shutdown(reason) => Notification::cease(cease::SHUTDOWN, reason),
            Stop::Removed => Notification::cease(cease::DECONFIGURED, ""),
        };
        let hard = terms.is_some_and(|terms| terms.survives_notifications);
        Some(if hard { notification.hard() } else { notification })
    }

    /// From now on these routes are to be announced, and no others.
    pub fn set_routes(&mut self, routes: Routes) {
        self.rib.replace(routes);
    }

    /// From now on this route is to be announced, or none for the prefix.
    pub fn set_route(&mut self, prefix: Prefix, attributes: Option<Arc<Attributes>>) {
        self.rib.set(prefix, attributes);
    }

    /// A connection that was to be opened is there.
    pub fn connected(&mut self, now: Instant, link: Link, next_hops: NextHops) {
        match self.connecting {
            Some((expected, _)) if expected == link => {
                self.connecting = None;
                self.greet(now, link, true, next_hops);
            }
            _ => self.steps.push_back(Step::Close { link, last: vec![] }),
        }
    }

    /// A connection that was to be opened cannot be.
    pub fn failed(&mut self, now: Instant, link: Link, cause: Cause) {
        if self.connecting.is_some_and(|(expected, _)| expected == link) {
            self.connecting = None;
            self.last = Some((now, cause));
            self.retry_later(now);
        }
    }

    /// The peer has opened a connection; nothing where that is not wanted, and it is to be closed.
    pub fn accepted(&mut self, now: Instant, next_hops: NextHops) -> Option<Link> {
        if !self.running || !self.parameters.role.accepts() {
            return None;
        }
        // A peer opens one at a time: it knows nothing any more of one that it opened before.
        let earlier = self.links.iter().filter(|(_, connection)| {
            !connection.outgoing && connection.stage != Stage::Established
        });
        let earlier: Vec<Link> = earlier.map(|(link, _)| *link).collect();
        earlier.into_iter().for_each(|link| self.give_way(link));
        let link = self.number();
        self.greet(now, link, false, next_hops);
        Some(link)
    }

    /// A connection is closed, by the peer or because it broke.
    pub fn closed(&mut self, now: Instant, link: Link, why: &str) {
        self.end(now, link, None, Cause::Lost(why.to_owned()));
    }

    /// What is to be sent on a connection now; the driver says how much of it was [`written`](Self::written).
    pub fn output(&mut self, now: Instant, link: Link) -> &[u8] {
        let Some(connection) = self.links.get_mut(&link) else { return &[] };
        if connection.stage == Stage::Established
            && let Some(path) = connection.terms.as_ref().map(|terms| terms.path.clone())
        {
            let mut more = true;
            while more && connection.output().len() < WAITING {
                connection.send(now, |out| more = self.rib.next(&path, out));
            }
        }
        connection.output()
    }

    /// The peer's TCP has taken so many octets of what is to be sent.
    pub fn written(&mut self, now: Instant, link: Link, count: usize) {
        if let Some(connection) = self.links.get_mut(&link) {
            connection.written(now, count);
        }
        if self.is_told() {
            self.restart_until = None;
        }
    }

    /// Whether the peer has been told everything that is wanted.
    pub fn is_told(&self) -> bool {
        let up = self.links.values().find(|connection| connection.stage == Stage::Established);
        up.is_some_and(|connection| connection.is_written()) && self.rib.is_told()
    }

    /// What the driver is to do next.
    pub fn next_step(&mut self) -> Option<Step> {
        self.steps.pop_front()
    }

    /// When [`poll`](Self::poll) is due; nothing where only the peer or the driver can bring anything new.
    pub fn deadline(&self) -> Option<Instant> {
        let connecting = self.connecting.map(|(_, until)| until);
        let timers = self.links.values().filter_map(|connection| connection.deadline());
        timers.chain(connecting).chain(self.retry).min()
    }

    /// Does what is due.
    pub fn poll(&mut self, now: Instant) {
        let due = |(link, connection): (&Link, &connection::Connection)| {
            Some((*link, connection.due(now)?))
        };
        while let Some((link, due)) = self.links.iter().find_map(due) {
            match due {
                Due::Hold => self.refuse(now, link, Notification::new(4, 0, &[])),
                Due::SendHold => self.end(now, link, None, Cause::NotRead),
                Due::Keepalive => {
                    let jitter = self.jitter();
                    if let Some(connection) = self.links.get_mut(&link) {
                        connection.say_alive(now, jitter);
                    }
                }
            }
        }
        if self.connecting.is_some_and(|(_, until)| until <= now) {
            self.stop_connecting();
            self.last = Some((now, Cause::NoAnswer));
            self.retry_later(now);
        }
        if self.retry.is_some_and(|retry| retry <= now) {
            self.connect(now);
        }
    }
}
