//! What is to be announced, and what stays bound until routers know better. Pure but for the channels.
//!
//! An address is bound before it is announced, and unbound once no router leads anybody here any more. Where this node goes
//! and others stay, routers are asked first to prefer those (RFC 8326), so that there is no moment without a way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use berth_bgp::Announcement;
use tokio::sync::watch;

use super::ending::Ending;
use super::kept::Kept;
use super::pace::Pace;
use super::told::Told;
use crate::vip::nodes::{Notes, Peer};
use crate::vip::{Hold, Holds};

/// How long an address stays bound after the last router was told to forget it: by then it has, and what was under way is here.
const LINGERING: Duration = Duration::from_secs(1);

/// How long routers are asked to prefer others before a route is withdrawn: another node announces what it did not have before
/// once kube-proxy there leads on, a second later.
const GOING: Duration = Duration::from_secs(2);

/// How long an address is announced here that is another node's now and is not announced there. What comes is sent on for at
/// least as long.
const HANDING: Duration = Duration::from_secs(5);

/// The kernel drops an address that nobody renews once no router can lead it here any more, and this much later.
const SPARE: Duration = Duration::from_secs(60);

/// What is said of routers beside settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The annotations of this node that name any.
    pub notes: Notes,
    /// Its labels, by which the ConfigMap selects nodes.
    pub labels: BTreeMap<String, String>,
    /// Whether these are known.
    pub is_node_known: bool,
    /// The data of the ConfigMap `berth-bgp`; nothing before it was looked for.
    pub data: Option<BTreeMap<String, String>>,
}

/// What the speaker is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Orders {
    /// What routers are to be told; nothing before that is known: sessions wait, since who is told everything else forgets what
    /// is not among it.
    pub announcements: Option<Vec<Announcement>>,
    /// Until when routers may go by what an earlier life told them; all of it is here still.
    pub restarted: Option<Instant>,
    /// What it is when nothing is ordered any more.
    pub ending: Ending,
}

impl Default for Orders {
    /// Nothing is known. Who ends without a word comes again.
    fn default() -> Self {
        Self { announcements: None, restarted: None, ending: Ending::Restart }
    }
}

impl Orders {
    /// The addresses that routers are to be told.
    pub fn vips(&self) -> BTreeSet<IpAddr> {
        self.announcements.iter().flatten().map(|order| order.address).collect()
    }
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
    orders: watch::Sender<Orders>,
    told: watch::Receiver<Told>,
    said: watch::Sender<Said>,
    /// Tells that the addresses of the host may be others.
    looks: watch::Sender<()>,
    /// What an earlier life has left.
    kept: Kept,
    /// What routers are to know as of the last round.
    adverts: BTreeMap<IpAddr, Announcement>,
    pace: Pace,
    /// Until when what goes is announced, and where to.
    going: BTreeMap<IpAddr, (Instant, Way)>,
    /// Until when what is known to nobody any more stays bound.
    lingering: BTreeMap<IpAddr, Instant>,
    known: BTreeSet<IpAddr>,
    /// What nobody holds any more: there is nothing here to lead anybody to.
    over: BTreeSet<IpAddr>,
    left_at: Option<Instant>,
    /// How long the kernel is to keep an address that nobody renews.
    lasts: Duration,
}

impl Routed {
    /// Nothing is announced yet. `kept` is what an earlier life has left.
    pub fn new(
        orders: watch::Sender<Orders>,
        told: watch::Receiver<Told>,
        said: watch::Sender<Said>,
        kept: Kept,
    ) -> Self {
        Self {
            orders,
            told,
            said,
            looks: watch::channel(()).0,
            kept,
            adverts: BTreeMap::new(),
            pace: Pace::default(),
            going: BTreeMap::new(),
            lingering: BTreeMap::new(),
            known: BTreeSet::new(),
            over: BTreeSet::new(),
            left_at: None,
            lasts: SPARE,
        }
    }

    /// The same, which tells here whenever the addresses of the host may be others.
    pub fn looking(self, looks: watch::Sender<()>) -> Self {
        Self { looks, ..self }
    }

    /// The network of this host was looked at anew: routes may lead to other addresses of it.
    pub fn looked(&self) {
        self.looks.send_replace(());
    }

    /// Takes in what this node is called by, and which peers it names.
    pub fn note(&self, node: &Peer) {
        self.say(|said| {
            said.labels.clone_from(&node.labels);
            said.notes.clone_from(&node.notes);
            said.is_node_known = true;
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

    /// Whether an address is to be announced, as of the last round.
    pub fn announces(&self, address: &IpAddr) -> bool {
        self.adverts.contains_key(address) && !self.going.contains_key(address)
    }

    /// Those that another node has by now, and that routers may lead here still.
    pub fn moved(&self) -> impl Iterator<Item = IpAddr> {
        let moved = self.going.iter().filter(|(_, (_, way))| matches!(way, Way::Moved { .. }));
        moved.map(|(address, _)| *address)
    }

    /// Takes in what routers know by now, and whether it is known what Services want, and elastic IPs. As soon as it is, sessions
    /// begin.
    pub fn see(&mut self, wanted: [bool; 2], now: Instant) {
        let told = self.told.borrow_and_update().clone();
        let known = told.known();
        if self.kept.see(wanted[0], wanted[1], now) && told.is_complete() {
            let ended = self.kept.end();
            self.lingering.extend(ended.into_iter().map(|address| (address, now + LINGERING)));
        }
        let left = self.kept.until().map(|until| until.saturating_duration_since(now));
        self.lasts = (told.keeps() + SPARE).max(left.unwrap_or_default());
        for address in self.known.difference(&known) {
            self.lingering.insert(*address, now + LINGERING);
        }
        self.lingering.retain(|address, until| *until > now && !known.contains(address));
        self.known = known;
    }

    /// How long the kernel is to keep an address that nobody renews: as long as routers may lead it here, and longer.
    pub fn lasts(&self) -> Duration {
        self.lasts
    }

    /// Whether all is to stay as an earlier life left it.
    pub fn waits(&self) -> bool {
        self.kept.waits()
    }

    /// Whether an earlier life has left an address, which routers may have led here all the time.
    pub fn is_kept(&self, address: &IpAddr) -> bool {
        self.kept.has(address)
    }

    /// Keeps what routers lead here still, or did a moment ago, among what this node holds.
    pub fn linger(&mut self, holds: &mut Holds, now: Instant) {
        let hold = Hold { until: now + self.lasts, answers: false, lapses: None };
        let recent = self.known.iter().chain(self.lingering.keys()).chain(self.adverts.keys());
        let recent = recent.chain(self.kept.addresses());
        self.over = recent.filter(|address| !holds.contains_key(address)).copied().collect();
        holds.extend(self.over.iter().map(|address| (*address, hold)));
    }

    /// From now on these are announced, of what is bound here; and none of it once this node leaves.
    pub fn announce(&mut self, bound: BTreeMap<IpAddr, Advert>, now: Instant) {
        if self.kept.waits() {
            return;
        }
        let mut next = BTreeMap::new();
        let mut going = BTreeMap::new();
        let leaves = self.left_at.is_some();
        self.pace.begin(now);
        for (address, advert) in bound {
            let Advert { announcement, way } = advert;
            let was = self.adverts.contains_key(&address) || self.kept.has(&address);
            let is_over = self.over.contains(&address);
            let patience = match way {
                Way::Here if !leaves => {
                    let before = self.adverts.get(&address);
                    next.insert(address, self.pace.say(before, announcement, now));
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
        let announcements: Vec<Announcement> = self.adverts.values().cloned().collect();
        let restarted = self.kept.until();
        self.orders.send_if_modified(|orders| {
            let is_first = orders.announcements.is_none();
            if is_first {
                orders.restarted = restarted;
            }
            let is_news = is_first || orders.announcements.as_ref() != Some(&announcements);
            if is_news {
                orders.announcements = Some(announcements);
            }
            is_news
        });
    }

    /// Ends. But for a restart nothing is announced any more: routers are asked to prefer others first.
    pub fn leave(&mut self, ending: Ending, now: Instant) {
        if ending != Ending::Restart {
            self.left_at.get_or_insert(now);
            if self.kept.waits() {
                // Whatever is wanted of it, none of it is any more.
                let left = self.kept.end().into_iter();
                self.lingering.extend(left.map(|address| (address, now + LINGERING)));
            }
        }
        // It matters to nobody before nothing more is ordered.
        self.orders.send_if_modified(|orders| {
            orders.ending = ending;
            false
        });
    }

    /// When something is due although nothing happens.
    pub fn deadline(&self) -> Option<Instant> {
        let going = self.going.values().map(|(until, _)| *until);
        let waiting = self.kept.deadline().into_iter().chain(self.pace.deadline());
        going.chain(self.lingering.values().copied()).chain(waiting).min()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::advertise::bgp::PeerTold;
    use crate::kernel::{Binding, Host, Interface, Lifetime};

    const SECOND: Duration = Duration::from_secs(1);

    fn drained() -> Ending {
        Ending::Drain("it is emptied".to_owned())
    }

    struct Scene {
        routed: Routed,
        orders: watch::Receiver<Orders>,
        tell: watch::Sender<Told>,
        start: Instant,
    }

    fn address(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    impl Scene {
        fn new() -> Self {
            Self::after(&[], Instant::now())
        }

        /// An earlier life has left these, for a minute.
        fn after(left: &[u8], start: Instant) -> Self {
            let (order, orders) = watch::channel(Orders::default());
            let (tell, told) = watch::channel(Told::default());
            let said = watch::channel(Said::default()).0;
            let lo = Interface { index: 1, mac: None, up: true, foreign: [].into() };
            let binding = |last: &u8| Binding { index: 1, address: address(*last) };
            let lifetime = Lifetime::Until(start + SECOND * 60);
            let host = Host {
                interfaces: [("lo".to_owned(), lo)].into(),
                ours: left.iter().map(|last| (binding(last), lifetime)).collect(),
                ..Host::default()
            };
            let (kept, bindings) = Kept::of(&host, &["lo"]);
            assert_eq!(bindings.len(), left.len());
            Self { routed: Routed::new(order, told, said, kept), orders, tell, start }
        }

        /// One round: what is held, each with whether routers are to lead it here. Gives what is bound then.
        fn round(&mut self, held: &[(u8, bool)], after: Duration) -> Vec<u8> {
            self.round_of(true, held, &[], after)
        }

        /// The same, where some of what was held is another node's now, each with whether routers know of it there.
        fn round_with(
            &mut self,
            held: &[(u8, bool)],
            moved: &[(u8, bool)],
            after: Duration,
        ) -> Vec<u8> {
            self.round_of(true, held, moved, after)
        }

        fn round_of(
            &mut self,
            known: bool,
            held: &[(u8, bool)],
            moved: &[(u8, bool)],
            after: Duration,
        ) -> Vec<u8> {
            let now = self.start + after;
            self.routed.see([known; 2], now);
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
            let orders = self.orders.borrow();
            let all = orders.announcements.iter().flatten();
            all.map(|one| (one.address, one.shutting_down)).collect()
        }

        /// A router knows what it was told.
        fn learn(&self) {
            let knows = Arc::new(self.orders.borrow().vips());
            let keeps = SECOND * 150;
            let peer = PeerTold { knows, is_complete: true, keeps, ..PeerTold::default() };
            let peers = [("r".to_owned(), peer)].into();
            self.tell.send_replace(Told { peers, ..Told::default() });
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
        scene.routed.leave(drained(), scene.start + SECOND);
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
        scene.routed.leave(drained(), scene.start);
        scene.round(&[], Duration::ZERO);
        scene.round(&[], GOING);
        assert!(scene.round(&[], GOING).is_empty());
    }

    #[test]
    fn what_was_left_stays_until_it_is_known_what_is_wanted_and_no_session_begins_before() {
        let mut scene = Scene::after(&[1, 2], Instant::now());
        assert_eq!(scene.round_of(false, &[], &[], SECOND), [1, 2]);
        assert!(scene.routed.waits() && scene.orders.borrow().announcements.is_none());
        assert_eq!(
            scene.round(&[(1, true)], SECOND * 2),
            [1, 2],
            "routers lead the other one here"
        );
        assert_eq!(scene.told(), [(address(1), false)], "and are to know that it is gone");
        assert_eq!(scene.orders.borrow().restarted, Some(scene.start + SECOND * 60));
        assert!(!scene.routed.waits() && scene.routed.is_kept(&address(2)));
        scene.learn();
        assert_eq!(scene.round(&[(1, true)], SECOND * 3), [1, 2], "packets may be under way");
        assert_eq!(scene.round(&[(1, true)], SECOND * 3 + LINGERING), [1]);
        assert_eq!(
            scene.routed.lasts(),
            SECOND * 210,
            "as long as a router goes by it, and a minute"
        );
    }

    #[test]
    fn what_was_left_goes_when_no_router_leads_it_here_any_more_although_nothing_is_known() {
        let mut scene = Scene::after(&[1], Instant::now());
        assert_eq!(scene.round_of(false, &[], &[], SECOND * 59), [1]);
        assert_eq!(scene.routed.deadline(), Some(scene.start + SECOND * 60));
        assert!(scene.round_of(false, &[], &[], SECOND * 60).is_empty());
        assert_eq!(scene.orders.borrow().announcements, Some(Vec::new()), "sessions begin anew");
        assert_eq!(scene.orders.borrow().restarted, None, "nothing is kept");
    }

    #[test]
    fn at_a_restart_routers_are_told_nothing_and_who_ends_without_a_word_comes_again() {
        let mut scene = Scene::new();
        scene.round(&[(1, true)], Duration::ZERO);
        assert_eq!(scene.orders.borrow().ending, Ending::Restart);
        scene.learn();
        scene.routed.leave(drained(), scene.start);
        assert_eq!(scene.orders.borrow().ending, drained());
        let mut scene = Scene::new();
        scene.round(&[(1, true)], Duration::ZERO);
        scene.routed.leave(Ending::Restart, scene.start);
        scene.round(&[(1, true)], SECOND);
        assert_eq!(scene.told(), [(address(1), false)]);
    }
}
