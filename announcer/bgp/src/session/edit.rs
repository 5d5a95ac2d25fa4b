//! What a session is to be is edited, or where its routes lead is another place, while it is up.

use std::time::Instant;

use super::cause::Stop;
use super::connection::{Connection, Link, Stage};
use super::parameters::{NextHops, Parameters};
use super::state::{Event, Session, Step};
use super::terms;

impl Session {
    /// From now on the session is to be like this. It begins anew where that is not what was agreed on; and routes are kept meanwhile
    /// by a peer that can. Where there is no connection one is tried at once: how the peer is reached may be another way as well.
    pub fn reconfigure(&mut self, now: Instant, parameters: Parameters) {
        let begins_anew =
            self.links.values().any(|link| !stands(link, &self.parameters, &parameters));
        if begins_anew {
            let running = self.running;
            self.stop(now, &Stop::Reset);
            self.parameters = parameters;
            if running {
                let restarted = self.restart_until;
                self.start(now, restarted);
            }
            return;
        }
        self.parameters = parameters;
        self.follow_timers(now);
    }

    /// Takes in what no peer has been told: how long to wait, and who connects.
    fn follow_timers(&mut self, now: Instant) {
        for connection in self.links.values_mut() {
            if let Some(terms) = &mut connection.terms {
                let hold = terms.hold.unwrap_or_default();
                terms.keepalive = terms::keepalive(&self.parameters, hold);
            }
        }
        if self.links.is_empty() {
            self.stop_connecting();
            let connects = self.running && self.parameters.role.connects();
            self.retry = connects.then_some(now);
        }
        self.poll(now);
    }

    /// From now on the node has these addresses for what goes by a connection. The session stays, and the peer is told.
    pub fn set_next_hops(&mut self, link: Link, next_hops: NextHops) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        if connection.next_hops == next_hops {
            return;
        }
        connection.next_hops = next_hops;
        let stage = connection.stage;
        let Some(terms) = &mut connection.terms else { return };
        let before = terms.announced.clone();
        let moved = terms.lead(next_hops);
        let is_news = !moved.is_empty() || terms.announced != before;
        if stage == Stage::Established && is_news {
            self.rib.lead(terms.announced.clone(), &moved);
            self.steps.push_back(Step::Tell(Event::Moved));
        }
    }
}

/// Whether a connection is as it would be by other parameters: nothing that the peer was told, or was asked for, is another thing.
fn stands(connection: &Connection, before: &Parameters, after: &Parameters) -> bool {
    let peer = connection.terms.as_ref().map(|terms| terms.peer_as);
    let is_peer = match peer {
        Some(peer) => after.remote_as.is(peer, after.local_as),
        None => before.remote_as == after.remote_as,
    };
    let untold = Parameters {
        remote_as: before.remote_as,
        role: before.role,
        keepalive: before.keepalive,
        connect_retry: before.connect_retry,
        ..after.clone()
    };
    is_peer && untold == *before
}
