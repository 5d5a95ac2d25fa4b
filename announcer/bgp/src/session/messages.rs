//! What a peer says, and what becomes of the session by it (RFC 4271 §8).

use std::time::{Duration, Instant};

use super::cause::Cause;
use super::connection::{Link, Stage};
use super::state::{Event, Session, Step};
use super::terms;
use crate::wire::{Message, Notification, Open};

/// A connection that collides with a session younger than this was on its way when that came up. Later, the peer has
/// lost the session, and begins anew.
const YOUNG: Duration = Duration::from_secs(5);

impl Session {
    /// Octets of the peer's have arrived.
    pub fn received(&mut self, now: Instant, link: Link, octets: &[u8]) {
        if let Some(connection) = self.links.get_mut(&link) {
            connection.receive(octets);
        }
        while let Some(connection) = self.links.get_mut(&link) {
            match connection.next_message() {
                Ok(None) => return,
                Ok(Some(message)) => self.hear(now, link, message),
                Err(notification) => self.refuse(now, link, notification),
            }
        }
    }

    fn hear(&mut self, now: Instant, link: Link, message: Message) {
        let several = self.links.len() > 1;
        let Some(connection) = self.links.get_mut(&link) else { return };
        match (connection.stage, message) {
            // The peer has chosen the other one.
            (_, Message::Notification(said)) if said.is_collision() && several => {
                self.drop_link(link);
            }
            (_, Message::Notification(said)) => self.end(now, link, None, Cause::Received(said)),
            (Stage::OpenSent, Message::Open(open)) => self.opened(now, link, &open),
            (Stage::OpenConfirm, Message::Keepalive) => self.establish(now, link),
            (Stage::Established, Message::Keepalive) => connection.heard(now),
            (Stage::Established, Message::Update(update)) => {
                connection.heard(now);
                if let Some(family) = update.end_of_rib
                    && self.ended_families.insert(family)
                {
                    self.steps.push_back(Step::Tell(Event::EndOfRib(family)));
                }
            }
            (Stage::Established, Message::RouteRefresh(family)) => {
                connection.heard(now);
                if let Some(family) = family {
                    self.rib.refresh(family);
                }
            }
            // RFC 6608.
            (Stage::OpenSent, _) => self.refuse(now, link, Notification::new(5, 1, &[])),
            (Stage::OpenConfirm, _) => self.refuse(now, link, Notification::new(5, 2, &[])),
            (Stage::Established, _) => self.refuse(now, link, Notification::new(5, 3, &[])),
        }
    }

    fn opened(&mut self, now: Instant, link: Link, open: &Open) {
        let Some(connection) = self.links.get(&link) else { return };
        let terms = match terms::agree(&self.parameters, connection.next_hops, open) {
            Ok(terms) => terms,
            Err(notification) => return self.refuse(now, link, notification),
        };
        if self.collides(now, link, open) {
            return self.give_way(link);
        }
        let jitter = self.jitter();
        if let Some(connection) = self.links.get_mut(&link) {
            connection.agree(now, terms, jitter);
        }
    }

    /// Whether a connection gives way to another one of the same peer; if not, the other ones do that are as far (RFC 4271
    /// §6.8).
    fn collides(&mut self, now: Instant, link: Link, open: &Open) -> bool {
        let Some(connection) = self.links.get(&link) else { return true };
        let own = (self.parameters.router_id, self.parameters.local_as);
        // RFC 6286 §2.3 for the case that both have the same identifier.
        let own_stays = own > (open.router_id, open.asn);
        let stays = connection.outgoing == own_stays;
        let others: Vec<Link> = self.links.keys().copied().filter(|other| *other != link).collect();
        for other in others {
            let Some(before) = self.links.get(&other) else { continue };
            let age = now.saturating_duration_since(before.since);
            let restarts = before.terms.as_ref().is_some_and(|terms| terms.peer_restart.is_some());
            match before.stage {
                Stage::OpenSent => {}
                Stage::OpenConfirm if stays => self.give_way(other),
                // RFC 4724 §4.2: a peer that keeps routes and opens another connection has lost this one.
                Stage::Established if restarts && age >= YOUNG => {
                    let cause = Cause::Lost("the peer has opened another".to_owned());
                    self.end(now, other, None, cause);
                }
                Stage::OpenConfirm | Stage::Established => return true,
            }
        }
        false
    }

    fn establish(&mut self, now: Instant, link: Link) {
        let Some(connection) = self.links.get_mut(&link) else { return };
        connection.establish(now);
        connection.heard(now);
        let Some(terms) = &connection.terms else { return };
        let families = terms.families.iter().copied();
        self.rib.up(families, terms.announced.clone(), terms.peer_restart.is_some());
        self.ended_families.clear();
        let others: Vec<Link> = self.links.keys().copied().filter(|other| *other != link).collect();
        others.into_iter().for_each(|other| self.give_way(other));
        self.stop_connecting();
        (self.retry, self.was_up, self.changed) = (None, true, now);
        self.steps.push_back(Step::Tell(Event::Established));
    }
}
