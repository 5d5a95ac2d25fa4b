//! Whether this node may have the control plane's address where members decide on it: by the health of its own API server. Pure but
//! for the word to whoever asks that.
//!
//! 1. Who is healthy asks for what nobody has, and for nothing that another has: nobody preempts.
//! 2. Who is not healthy asks for nothing, unless nobody has had it for a while and it was healthy once: where all are slow somebody
//!    has to have it. Who has not been healthy since its process began asks for nothing.
//! 3. Who has it and is not healthy offers it to another. That one takes it if it is healthy, and its API server answers well what it
//!    is asked after the offer: whoever is as slow as this one does not, so where all are slow nothing moves, and nothing that was
//!    said before counts (decision 34). No API server is needed for it, nor waited for but the taker's own.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use berth_membership::{NodeId, Request};
use tokio::sync::Notify;

use super::super::health::{Heard, Standing};
use super::exchange::MembershipEvent;
use crate::vip::nodes::Peer;

/// Behind every other.
const LAST: u8 = u8::MAX;

/// What this node knows of its API server.
#[derive(Debug, Default)]
pub struct Fitness {
    heard: Heard,
    /// Whether it was healthy since the process began.
    was_healthy: bool,
    /// Since when it is offered what another has.
    offered: BTreeMap<IpAddr, Instant>,
    /// The control plane's addresses.
    addresses: Vec<IpAddr>,
    ask: Arc<Notify>,
}

impl Fitness {
    /// Of which nothing is known yet. Whoever asks the API server is told by `ask` to do so at once.
    pub fn new(addresses: Vec<IpAddr>, ask: Arc<Notify>) -> Self {
        Self { addresses, ask, ..Self::default() }
    }

    /// A peer as it is met: a kubelet may have taken an address of the control plane for its node's, and that leads to whoever has
    /// it now.
    pub(super) fn meets(&self, mut peer: Peer) -> Peer {
        peer.addresses.retain(|address| !self.addresses.contains(address));
        peer
    }

    /// Takes in what is known of the API server; true if something may come of it.
    pub(super) fn hear(&mut self, heard: Heard) -> bool {
        self.was_healthy |= heard.standing == Standing::Healthy;
        let before = std::mem::replace(&mut self.heard, heard);
        before.standing != heard.standing || before.good != heard.good && !self.offered.is_empty()
    }

    /// Takes in what the driver told.
    pub(super) fn take(&mut self, told: &MembershipEvent, now: Instant) {
        match told {
            MembershipEvent::Prepare { address, handed: true, .. } => {
                self.offered.insert(*address, now);
                self.ask.notify_one();
            }
            MembershipEvent::Prepare { address, .. }
            | MembershipEvent::Holds { address, .. }
            | MembershipEvent::Lost { address, .. }
            | MembershipEvent::Discard(address) => _ = self.offered.remove(address),
            _ => {}
        }
    }

    /// What of a request is this node's, which asks for the address already, or `has` it, or nobody has had it for a while.
    /// Whether a node is emptied says nothing of its API server.
    pub(super) fn suit(&self, me: NodeId, request: Request, has: bool, is_orphan: bool) -> Request {
        let Self { heard: Heard { standing, .. }, was_healthy, .. } = self;
        let may = match standing {
            Standing::Healthy => true,
            Standing::Unhealthy | Standing::Recovering => has || *was_healthy && is_orphan,
            Standing::Unknown => has,
        };
        let candidates = request.candidates.into_iter().filter(|node| may || *node != me).collect();
        let offers = has && *standing == Standing::Unhealthy;
        let tiers = offers.then_some((me, LAST)).into_iter().collect();
        Request { candidates, tiers, moves: offers, ..request }
    }

    /// Whether this node may say that it is ready for an address: what another one offers while it is healthy, once its own API
    /// server has answered well since. One good answer makes nobody healthy: two that are slow by turns would hand it back and forth.
    pub(super) fn vouches(&self, address: &IpAddr) -> bool {
        let Heard { standing, good } = self.heard;
        let is_healthy = standing == Standing::Healthy;
        let since = |offered: &Instant| is_healthy && good.is_some_and(|good| good >= *offered);
        self.offered.get(address).is_none_or(since)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(standings: &[Standing]) -> Fitness {
        let mut fitness = Fitness::default();
        for standing in standings {
            fitness.hear(Heard { standing: *standing, good: None });
        }
        fitness
    }

    fn me() -> NodeId {
        NodeId::of("a")
    }

    /// Whether it is a candidate for what is free, for what nobody has had for a while, and for what it has; and whether it offers
    /// that.
    fn part(fitness: &Fitness) -> ([bool; 3], bool) {
        let request = |has, is_orphan| {
            let candidates = ["a", "b"].map(NodeId::of).to_vec();
            let tiers = [(me(), 4)].into();
            let emptied = Request { candidates, tiers, moves: true, ..Request::default() };
            fitness.suit(me(), emptied, has, is_orphan)
        };
        let may = |request: Request| request.candidates.contains(&me());
        let held = request(true, false);
        assert_eq!(held.moves, held.tiers.contains_key(&me()), "it offers it to who is before it");
        assert!(!request(false, true).moves);
        let free = may(request(false, false));
        ([free, may(request(false, true)), may(held.clone())], held.moves)
    }

    #[test]
    fn who_is_healthy_asks_and_whoever_is_not_offers_what_it_has() {
        let [healthy, ill, back] = [Standing::Healthy, Standing::Unhealthy, Standing::Recovering];
        for (standings, may, offers) in [
            (&[][..], [false, false, true], false),
            (&[healthy], [true, true, true], false),
            (&[ill], [false, false, true], true),
            (&[healthy, ill], [false, true, true], true),
            (&[healthy, ill, back], [false, true, true], false),
            (&[healthy, ill, back, healthy], [true, true, true], false),
        ] {
            assert_eq!(part(&of(standings)), (may, offers), "{standings:?}");
        }
    }

    #[test]
    fn what_is_offered_is_taken_once_its_own_server_has_answered_what_it_was_asked_since() {
        let (mut fitness, start) = (of(&[Standing::Healthy]), Instant::now());
        let address: IpAddr = [192, 0, 2, 1].into();
        let at = |millis| start + Duration::from_millis(millis);
        let answers = |fitness: &mut Fitness, good| {
            fitness.hear(Heard { standing: Standing::Healthy, good: Some(good) })
        };
        assert!(!answers(&mut fitness, at(0)), "nothing comes of it");
        assert!(fitness.vouches(&address), "nobody has it");
        let offer = |handed| MembershipEvent::Prepare { address, first: false, handed };
        fitness.take(&offer(true), at(10));
        assert!(!fitness.vouches(&address));
        assert!(answers(&mut fitness, at(9)) && !fitness.vouches(&address));
        assert!(answers(&mut fitness, at(11)) && fitness.vouches(&address));
        for standing in [Standing::Unhealthy, Standing::Recovering] {
            fitness.hear(Heard { standing, good: Some(at(12)) });
            assert!(!fitness.vouches(&address), "one good answer of a slow one: {standing:?}");
        }
        answers(&mut fitness, at(13));
        fitness.take(&MembershipEvent::Discard(address), at(20));
        fitness.take(&offer(true), at(30));
        assert!(!fitness.vouches(&address), "each offer is answered by itself");
        fitness.take(&offer(false), at(40));
        assert!(fitness.vouches(&address), "its holder is gone");
    }
}
