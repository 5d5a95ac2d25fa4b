//! What is to be announced, and what stays bound until routers know better. Pure but for the channels.
//!
//! An address is bound before it is announced, and unbound once no router leads anybody here any more. Where this node goes
//! and others stay, routers are asked first to prefer those (RFC 8326), so that there is no moment without a way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_bgp::Announcement;
use tokio::sync::watch;

use super::told::Told;
use crate::vip::nodes::{Notes, Peer};
use crate::vip::{Hold, Holds};

/// How long an address stays bound after the last router was told to forget it: by then it has, and what was under way is here.
const LINGERING: Duration = Duration::from_secs(1);

/// How long routers are asked to prefer others before a route is withdrawn.
const GOING: Duration = Duration::from_secs(1);

/// How long an address is announced here that is another node's now and is not announced there. What comes is sent on for at
/// least as long.
const HANDING: Duration = Duration::from_secs(5);

/// The kernel drops an address that nobody renews for so long.
const KEPT: Duration = Duration::from_secs(60);

/// What is said of routers beside settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The annotations of this node that name any.
    pub notes: Notes,
    /// Its labels, by which the ConfigMap selects nodes.
    pub labels: BTreeMap<String, String>,
    /// The data of the ConfigMap `berth-bgp`; nothing before it was looked for.
    pub data: Option<BTreeMap<String, String>>,
}

/// An address that is bound here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advert {
    /// What is said of it.
    pub announcement: Announcement,
    /// Where routers are to lead it.
    pub way: Way,
}

/// Where routers are to lead an address that is bound here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Here.
    Here,
    /// To others, if there are any that could have it; what still comes is served.
    Elsewhere,
    /// To the one node that has it now.
    Moved {
        /// Whether routers know of it there.
        told: bool,
    },
}

/// What is to be announced, and what stays bound.
#[derive(Debug)]
pub struct Routed {
    orders: watch::Sender<Vec<Announcement>>,
    told: watch::Receiver<Told>,
    said: watch::Sender<Said>,
    /// What routers are to know as of the last round.
    adverts: BTreeMap<IpAddr, Announcement>,
    /// Until when what goes is announced, and where to.
    going: BTreeMap<IpAddr, (Instant, Way)>,
    /// Until when what is known to nobody any more stays bound.
    lingering: BTreeMap<IpAddr, Instant>,
    known: BTreeSet<IpAddr>,
    /// What nobody holds any more: there is nothing here to lead anybody to.
    over: BTreeSet<IpAddr>,
    left_at: Option<Instant>,
}

impl Routed {
    /// Nothing is announced yet.
    pub fn new(
        orders: watch::Sender<Vec<Announcement>>,
        told: watch::Receiver<Told>,
        said: watch::Sender<Said>,
    ) -> Self {
        Self {
            orders,
            told,
            said,
            adverts: BTreeMap::new(),
            going: BTreeMap::new(),
            lingering: BTreeMap::new(),
            known: BTreeSet::new(),
            over: BTreeSet::new(),
            left_at: None,
        }
    }

    /// Takes in what this node is called by, and which peers it names.
    pub fn note(&self, node: &Peer) {
        self.say(|said| {
            said.labels.clone_from(&node.labels);
            said.notes.clone_from(&node.notes);
        });
    }

    /// Takes in what the ConfigMap says.
    pub fn configure(&self, data: BTreeMap<String, String>) {
        self.say(|said| said.data = Some(data));
    }

    fn say(&self, change: impl FnOnce(&mut Said)) {
        self.said.send_if_modified(|known| {
            let before = known.clone();
            change(known);
            *known != before
        });
    }

    /// What is known of the peers.
    pub fn told(&self) -> Told {
        self.told.borrow().clone()
    }

    /// The addresses that some router was told of, as of [`Self::see`].
    pub fn known(&self) -> &BTreeSet<IpAddr> {
        &self.known
    }

    /// Takes in what routers know by now.
    pub fn see(&mut self, now: Instant) {
        let known = self.told.borrow_and_update().known();
        for address in self.known.difference(&known) {
            self.lingering.insert(*address, now + LINGERING);
        }
        self.lingering.retain(|address, until| *until > now && !known.contains(address));
        self.known = known;
    }

    /// Keeps what routers lead here still, or did a moment ago, among what this node holds.
    pub fn linger(&mut self, holds: &mut Holds, now: Instant) {
        let hold = Hold { until: now + KEPT, answers: false, lapses: None };
        let recent = self.known.iter().chain(self.lingering.keys()).chain(self.adverts.keys());
        self.over = recent.filter(|address| !holds.contains_key(address)).copied().collect();
        holds.extend(self.over.iter().map(|address| (*address, hold)));
    }

    /// From now on these are announced, of what is bound here; and none of it once this node leaves.
    pub fn announce(&mut self, bound: BTreeMap<IpAddr, Advert>, now: Instant) {
        let mut next = BTreeMap::new();
        let mut going = BTreeMap::new();
        let leaves = self.left_at.is_some();
        for (address, advert) in bound {
            let Advert { announcement, way } = advert;
            let was = self.adverts.contains_key(&address);
            let is_over = self.over.contains(&address);
            let patience = match way {
                Way::Here if !leaves => {
                    next.insert(address, announcement);
                    continue;
                }
                Way::Moved { told: false } if was && !leaves => HANDING,
                Way::Moved { .. } if was => GOING,
                _ if was && (leaves || !is_over) => GOING,
                _ => continue,
            };
            let until = match self.going.get(&address) {
                Some((until, before)) if *before == way => *until,
                Some((until, _)) => *until.min(&(now + patience)),
                None => now + patience,
            };
            if now < until {
                going.insert(address, (until, way));
                next.insert(address, Announcement { shutting_down: true, ..announcement });
            }
        }
        self.going = going;
        self.adverts = next;
        let orders: Vec<Announcement> = self.adverts.values().cloned().collect();
        self.orders.send_if_modified(|last| {
            let is_news = *last != orders;
            if is_news {
                *last = orders;
            }
            is_news
        });
    }

    /// Announces nothing any more: routers are asked to prefer others first.
    pub fn leave(&mut self, now: Instant) {
        self.left_at.get_or_insert(now);
    }

    /// When something is due although nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let going = self.going.values().map(|(until, _)| *until);
        going.chain(self.lingering.values().copied()).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::advertise::bgp::PeerTold;

    const SECOND: Duration = Duration::from_secs(1);

    struct Scene {
        routed: Routed,
        orders: watch::Receiver<Vec<Announcement>>,
        tell: watch::Sender<Told>,
        start: Instant,
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    impl Scene {
        fn new() -> Self {
            let (order, orders) = watch::channel(Vec::new());
            let (tell, told) = watch::channel(Told::default());
            let said = watch::channel(Said::default()).0;
            Self { routed: Routed::new(order, told, said), orders, tell, start: Instant::now() }
        }

        /// One round: what is held, each with whether routers are to lead it here. Gives what is bound then.
        fn round(&mut self, held: &[(u8, bool)], after: Duration) -> Vec<u8> {
            self.round_with(held, &[], after)
        }

        /// The same, where some of what was held is another node's now, each with whether routers know of it there.
        fn round_with(
            &mut self,
            held: &[(u8, bool)],
            moved: &[(u8, bool)],
            after: Duration,
        ) -> Vec<u8> {
            let now = self.start + after;
            self.routed.see(now);
            let hold = |answers| Hold { until: now, answers, lapses: None };
            let mut holds: Holds =
                held.iter().map(|(last, answers)| (address(*last), hold(*answers))).collect();
            self.routed.linger(&mut holds, now);
            let moved: BTreeMap<IpAddr, bool> =
                moved.iter().map(|(last, told)| (address(*last), *told)).collect();
            let advert = |(own, hold): (&IpAddr, &Hold)| {
                let way = match (moved.get(own), hold.answers) {
                    (Some(told), _) => Way::Moved { told: *told },
                    (None, true) => Way::Here,
                    (None, false) => Way::Elsewhere,
                };
                (*own, Advert { announcement: Announcement::of(*own, "d"), way })
            };
            self.routed.announce(holds.iter().map(advert).collect(), now);
            let last = |own: &IpAddr| match own {
                IpAddr::V4(own) => own.octets()[3],
                IpAddr::V6(_) => 0,
            };
            holds.keys().map(last).collect()
        }

        /// What routers are told, each with whether they are to prefer others.
        fn told(&self) -> Vec<(IpAddr, bool)> {
            self.orders.borrow().iter().map(|one| (one.address, one.shutting_down)).collect()
        }

        /// A router knows what it was told.
        fn learn(&self) {
            let knows = Arc::new(self.orders.borrow().iter().map(|one| one.address).collect());
            let peer = PeerTold { knows, ..PeerTold::default() };
            self.tell.send_replace(Told([("r".to_owned(), peer)].into()));
        }
    }

    #[test]
    fn what_is_gone_is_withdrawn_at_once_and_stays_bound_until_routers_have_had_time() {
        let mut scene = Scene::new();
        assert_eq!(scene.round(&[(1, true), (2, true)], Duration::ZERO), [1, 2]);
        assert_eq!(scene.told(), [(address(1), false), (address(2), false)]);
        scene.learn();
        assert_eq!(scene.round(&[(2, true)], SECOND), [1, 2], "a router leads it here still");
        assert_eq!(
            scene.told(),
            [(address(2), false)],
            "it has no endpoint: there is nobody to lead to"
        );
        assert_eq!(
            scene.round(&[(2, true)], SECOND * 9),
            [1, 2],
            "who does not read is waited for"
        );
        scene.learn();
        assert_eq!(scene.round(&[(2, true)], SECOND * 9), [1, 2], "packets may be under way");
        assert_eq!(scene.routed.deadline(), Some(scene.start + SECOND * 9 + LINGERING));
        assert_eq!(scene.round(&[(2, true)], SECOND * 9 + LINGERING), [2]);
    }

    #[test]
    fn where_others_stay_routers_are_asked_to_prefer_them_before_it_is_withdrawn() {
        let mut scene = Scene::new();
        scene.round(&[(1, true)], Duration::ZERO);
        scene.learn();
        scene.round(&[(1, false)], SECOND);
        assert_eq!(scene.told(), [(address(1), true)]);
        assert_eq!(scene.routed.deadline(), Some(scene.start + SECOND + GOING));
        scene.round(&[(1, false)], SECOND + GOING);
        assert_eq!(scene.told(), []);
        scene.learn();
        assert_eq!(scene.round(&[(1, false)], SECOND * 30), [1], "what still comes is served");
        assert_eq!(scene.told(), [], "it is not announced anew");
        scene.round(&[(1, true)], SECOND * 31);
        assert_eq!(scene.told(), [(address(1), false)]);
    }

    #[test]
    fn what_moves_to_another_node_is_announced_until_it_is_announced_there() {
        let mut scene = Scene::new();
        scene.round(&[(1, true), (2, true)], Duration::ZERO);
        scene.learn();
        let moved = |told| [(1, told), (2, false)];
        scene.round_with(&[], &moved(false), SECOND);
        assert_eq!(scene.told(), [(address(1), true), (address(2), true)]);
        scene.round_with(&[], &moved(true), SECOND * 2);
        assert_eq!(scene.told().len(), 2, "not every router may know by now");
        assert_eq!(scene.routed.deadline(), Some(scene.start + SECOND * 2 + GOING));
        scene.round_with(&[], &moved(true), SECOND * 2 + GOING);
        assert_eq!(scene.told(), [(address(2), true)]);
        scene.round_with(&[], &moved(false), SECOND + HANDING);
        assert_eq!(scene.told(), [], "nobody says that it is announced there, and it is not here");
        scene.learn();
        scene.round(&[(1, true)], SECOND * 9);
        assert_eq!(scene.told(), [(address(1), false)], "it has come back");
    }

    #[test]
    fn a_node_that_leaves_withdraws_all_of_it_and_then_has_nothing() {
        let mut scene = Scene::new();
        scene.round(&[(1, true)], Duration::ZERO);
        scene.learn();
        scene.routed.leave(scene.start + SECOND);
        assert_eq!(scene.round(&[], SECOND), [1]);
        assert_eq!(scene.told(), [(address(1), true)]);
        scene.round(&[], SECOND + GOING);
        assert_eq!(scene.told(), []);
        scene.learn();
        assert_eq!(scene.round(&[], SECOND * 3), [1]);
        assert!(scene.round(&[], SECOND * 3 + LINGERING).is_empty());
    }

    #[test]
    fn a_node_that_leaves_without_a_session_waits_for_nobody() {
        let mut scene = Scene::new();
        scene.round(&[(1, true)], Duration::ZERO);
        scene.routed.leave(scene.start);
        scene.round(&[], Duration::ZERO);
        scene.round(&[], GOING);
        assert!(scene.round(&[], GOING).is_empty());
    }
}
