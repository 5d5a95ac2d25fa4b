//! Owns which announcers live, as far as their Leases tell ([`berth_api::host`]): one whose Lease has not changed for so
//! long, by our own clock. What hosts write as the time is a text here, and no clocks are compared. A Lease that is gone
//! says nothing: neither that its announcer lives nor that it does not.
//!
//! A watch that hangs shows no change either. So of all announcers nobody says that none lives before a list has shown the
//! same.

use std::collections::BTreeMap;
use std::time::Duration;

use berth_api::names::lease;

/// How long a Lease may stay as it is, which is renewed every 20 s.
pub(super) const GONE: Duration = Duration::from_secs(45);
/// How long an announcer that is back has to say of itself how its addresses stand.
const BACK: Duration = Duration::from_secs(10);
/// Nothing that is written so long after the last renewal is written by who has renewed it.
const SILENT: Duration = Duration::from_secs(25);

/// Whether an announcer lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// It has no Lease: nothing is known of it.
    Untold,
    /// It was not heard for long enough to tell: what was said of it stays.
    Waits,
    /// It lives.
    Lives,
    /// It has not renewed its Lease for [`GONE`].
    Gone,
}

/// The announcers.
#[derive(Clone, Debug, Default)]
pub(super) struct Liveness {
    nodes: BTreeMap<String, Lease>,
    /// The Lease by which one announcer of a cluster announces all, ours or that of kube-vip.
    election: Option<(String, Lease)>,
    /// Whether a list has shown that none lives.
    is_confirmed: bool,
    /// Whether somebody has published an address for a Service after our announcers fell silent.
    is_published: bool,
}

/// A Lease.
#[derive(Clone, Debug)]
struct Lease {
    renewed: String,
    /// Since when it is as it is, by our clock.
    since: Duration,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It was not renewed since we look.
    Unheard,
    /// It was renewed, and its announcer is believed to live from then on.
    Back(Duration),
    Lives,
    Gone,
}

impl Lease {
    fn new(renewed: &str, now: Duration) -> Self {
        Self { renewed: renewed.to_owned(), since: now, state: State::Unheard }
    }

    /// Takes in how it is now. Returns whether that is another.
    fn hear(&mut self, renewed: &str, now: Duration) -> bool {
        if self.renewed == renewed {
            return false;
        }
        renewed.clone_into(&mut self.renewed);
        self.since = now;
        if matches!(self.state, State::Unheard | State::Gone) {
            self.state = State::Back(now + BACK);
        }
        true
    }

    /// Takes in the time. Returns whether it is another since.
    fn advance(&mut self, now: Duration) -> bool {
        let state = match self.state {
            _ if self.since + GONE <= now => State::Gone,
            State::Back(until) if until <= now => State::Lives,
            state => state,
        };
        std::mem::replace(&mut self.state, state) != state
    }

    /// When it may be another.
    fn due(&self) -> Option<Duration> {
        match self.state {
            State::Gone => None,
            State::Back(until) => Some(until.min(self.since + GONE)),
            State::Unheard | State::Lives => Some(self.since + GONE),
        }
    }
}

impl Liveness {
    /// Every clock starts anew, but what is gone stays so: this process has not looked for a while.
    pub(super) fn restart(&mut self, now: Duration) {
        let election = self.election.iter_mut().map(|(_, lease)| lease);
        for lease in self.nodes.values_mut().chain(election) {
            if lease.state != State::Gone {
                lease.since = now;
            }
        }
    }

    /// This process begins to lead: it knows of nobody whether he lives.
    pub(super) fn begin(&mut self, now: Duration) {
        let election = self.election.iter_mut().map(|(_, lease)| lease);
        for lease in self.nodes.values_mut().chain(election) {
            (lease.since, lease.state) = (now, State::Unheard);
        }
        (self.is_confirmed, self.is_published) = (false, false);
    }

    /// The nodes whose Leases are known.
    pub(super) fn nodes(&self) -> impl Iterator<Item = &String> {
        self.nodes.keys()
    }

    /// Takes in the Lease of a node as it is; none when it is gone. Returns whether that may be news.
    pub(super) fn hear(&mut self, node: &str, renewed: Option<&str>, now: Duration) -> bool {
        let is_news = match (renewed, self.nodes.get_mut(node)) {
            (None, _) => self.nodes.remove(node).is_some(),
            (Some(renewed), Some(lease)) => {
                let was = lease.state;
                lease.hear(renewed, now) && was != lease.state
            }
            (Some(renewed), None) => {
                self.nodes.insert(node.to_owned(), Lease::new(renewed, now));
                true
            }
        };
        if !self.all_gone() {
            (self.is_confirmed, self.is_published) = (false, false);
        }
        is_news
    }

    /// Takes in who announces all Services, by the Lease of the election, and when he renewed it. Returns whether that may
    /// be news.
    pub(super) fn elect(&mut self, elected: Option<(&str, &str)>, now: Duration) -> bool {
        let was_strange = self.is_stranger_elected();
        match (elected, &mut self.election) {
            (None, election) => *election = None,
            (Some((holder, renewed)), Some((known, lease))) => {
                lease.hear(renewed, now);
                holder.clone_into(known);
            }
            (Some((holder, renewed)), election) => {
                *election = Some((holder.to_owned(), Lease::new(renewed, now)));
            }
        }
        was_strange != self.is_stranger_elected()
    }

    /// An address that is a Service's was published for it. Returns whether that is news of who lives.
    pub(super) fn published(&mut self, now: Duration) -> bool {
        let is_news = !self.is_published && self.is_silent(now);
        self.is_published |= is_news;
        is_news
    }

    /// Whether whatever is written now is none of our announcers' words, as far as they renew Leases.
    fn is_silent(&self, now: Duration) -> bool {
        let newest = self.nodes.values().map(|lease| lease.since).max();
        newest.is_some_and(|newest| newest + SILENT <= now)
    }

    /// The same of what names this node, or no node.
    pub(super) fn is_silent_at(&self, node: Option<&str>, now: Duration) -> bool {
        let lease = node.and_then(|node| self.nodes.get(node));
        lease.map_or_else(|| self.is_silent(now), |lease| lease.since + SILENT <= now)
    }

    /// Takes in the time. Returns whether anything else is known by it.
    pub(super) fn advance(&mut self, now: Duration) -> bool {
        let election = self.election.iter_mut().map(|(_, lease)| lease);
        let leases = self.nodes.values_mut().chain(election);
        // All of them, and not up to the first of which it is news.
        leases.filter_map(|lease| lease.advance(now).then_some(())).count() > 0
    }

    /// When anything else may be known although nothing happens.
    pub(super) fn deadline(&self) -> Option<Duration> {
        let election = self.election.iter().map(|(_, lease)| lease);
        self.nodes.values().chain(election).filter_map(Lease::due).min()
    }

    /// Whether a list is to show that none lives, as the watch says.
    pub(super) fn doubts(&self) -> bool {
        self.all_gone() && !self.is_confirmed
    }

    /// A list has shown the Leases: they are as they were.
    pub(super) fn confirm(&mut self) -> bool {
        let is_news = self.doubts();
        self.is_confirmed |= is_news;
        is_news
    }

    /// Whether the announcer of the node lives.
    pub(super) fn of(&self, node: &str) -> Life {
        match self.nodes.get(node).map(|lease| lease.state) {
            None => Life::Untold,
            Some(State::Lives) => Life::Lives,
            Some(State::Gone) if !self.doubts() => Life::Gone,
            Some(_) => Life::Waits,
        }
    }

    /// Whether any announcer lives.
    pub(super) fn of_all(&self) -> Life {
        let lives = || self.nodes.values().any(|lease| lease.state == State::Lives);
        match self.all_gone() {
            _ if self.nodes.is_empty() => Life::Untold,
            true if self.doubts() => Life::Waits,
            true => Life::Gone,
            false if lives() => Life::Lives,
            false => Life::Waits,
        }
    }

    /// Whether another program announces Services: one of kube-vip beside this half of Berth, say.
    pub(super) fn is_stranger_there(&self) -> bool {
        self.is_published || self.is_stranger_elected()
    }

    fn is_stranger_elected(&self) -> bool {
        self.election.as_ref().is_some_and(|(holder, lease)| {
            let is_renewed = matches!(lease.state, State::Back(_) | State::Lives);
            is_renewed && !holder.is_empty() && holder != lease::MEMBERS
        })
    }

    fn all_gone(&self) -> bool {
        !self.nodes.is_empty() && self.nodes.values().all(|lease| lease.state == State::Gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// Announcers of these nodes that live at 20 s.
    fn alive<const N: usize>(nodes: [&str; N]) -> Liveness {
        let mut liveness = Liveness::default();
        liveness.begin(at(0));
        for node in nodes {
            liveness.hear(node, Some("0"), at(0));
            liveness.hear(node, Some("1"), at(10));
        }
        liveness.advance(at(20));
        liveness
    }

    #[test]
    fn who_has_not_renewed_its_lease_for_45_s_is_gone() {
        let mut liveness = alive(["a", "b"]);
        assert_eq!(liveness.deadline(), Some(at(55)));
        liveness.hear("b", Some("2"), at(30));
        assert!(!liveness.advance(at(54)) && liveness.advance(at(55)));
        assert_eq!([liveness.of("a"), liveness.of("b")], [Life::Gone, Life::Lives]);
        assert_eq!((liveness.of_all(), liveness.of("c")), (Life::Lives, Life::Untold));
    }

    #[test]
    fn that_none_lives_is_said_when_a_list_shows_it_too() {
        let mut liveness = alive(["a", "b"]);
        liveness.advance(at(60));
        assert!(liveness.doubts());
        assert_eq!((liveness.of_all(), liveness.of("a")), (Life::Waits, Life::Waits));
        assert!(liveness.confirm() && !liveness.confirm());
        assert_eq!((liveness.of_all(), liveness.of("a")), (Life::Gone, Life::Gone));

        let mut hung = alive(["a", "b"]);
        hung.advance(at(60));
        hung.hear("a", Some("9"), at(60));
        assert!(!hung.confirm(), "the list showed that one lives");
        assert_eq!((hung.of_all(), hung.of("b")), (Life::Waits, Life::Gone));
    }

    #[test]
    fn who_is_back_has_ten_seconds_to_speak_for_itself() {
        let mut liveness = alive(["a"]);
        liveness.advance(at(60));
        liveness.confirm();
        assert!(liveness.hear("a", Some("2"), at(100)));
        assert_eq!(liveness.of_all(), Life::Waits);
        assert_eq!(liveness.deadline(), Some(at(110)));
        assert!(liveness.advance(at(110)));
        assert_eq!(liveness.of_all(), Life::Lives);
    }

    #[test]
    fn whoever_begins_to_lead_knows_of_nobody_whether_he_lives() {
        let mut liveness = alive(["a"]);
        liveness.advance(at(60));
        liveness.confirm();
        liveness.begin(at(200));
        assert_eq!(liveness.of_all(), Life::Waits);
        assert!(!liveness.advance(at(244)) && liveness.advance(at(245)));
        assert!(liveness.doubts());
    }

    #[test]
    fn a_new_list_starts_clocks_anew_and_brings_nobody_back() {
        let mut liveness = alive(["a", "b"]);
        liveness.hear("b", Some("2"), at(30));
        liveness.advance(at(60));
        liveness.restart(at(70));
        assert_eq!([liveness.of("a"), liveness.of("b")], [Life::Gone, Life::Lives]);
        assert!(!liveness.advance(at(114)) && liveness.advance(at(115)));
    }

    #[test]
    fn a_lease_that_is_deleted_says_nothing() {
        let mut liveness = alive(["a"]);
        liveness.advance(at(60));
        liveness.confirm();
        assert!(liveness.hear("a", None, at(61)));
        assert_eq!((liveness.of("a"), liveness.of_all()), (Life::Untold, Life::Untold));
    }

    #[test]
    fn a_stranger_that_is_elected_or_publishes_lives() {
        let mut liveness = alive(["a"]);
        liveness.advance(at(60));
        liveness.confirm();
        assert!(!liveness.elect(Some(("worker-1", "0")), at(60)), "it may be one that was left");
        assert!(liveness.elect(Some(("worker-1", "1")), at(62)) && liveness.is_stranger_there());
        assert!(liveness.advance(at(107)) && !liveness.is_stranger_there());
        liveness.elect(Some((lease::MEMBERS, "2")), at(108));
        assert!(!liveness.is_stranger_there(), "that is our own announcers'");

        liveness.published(at(109));
        assert!(liveness.is_stranger_there());
        liveness.hear("a", Some("2"), at(110));
        assert!(!liveness.is_stranger_there(), "our own are back");
        liveness.published(at(134));
        assert!(!liveness.is_stranger_there(), "they may have done so");
        liveness.published(at(135));
        assert!(liveness.is_stranger_there());
    }
}
