//! The control plane's address where a Lease decides on it: which part this node has in that election, by the health of its
//! own API server. Pure.
//!
//! 1. Who has not been healthy since its process began takes nothing: it may be a node that joins, whose API server is not
//!    there yet. What the Lease says is its own already it goes on with.
//! 2. Healthy, it takes what is free at once, and nothing that another has: nobody preempts.
//! 3. Unhealthy, it leaves what is free to others for as long as a Lease lasts, and takes it then: where all are slow somebody
//!    has to have it.
//! 4. Unhealthy, it gives up what it has while another says that it is healthy, and else keeps it: an address that hops from
//!    one slow server to the next resets every connection, and the load grows by it (OCPBUGS-1257). So it does where all recover
//!    together, and another one's server a moment sooner; and where all become slow together, and it is the first to know.
//! 5. What was said before it fell ill counts for nothing: whoever hangs since then can take nothing back, for it writes through
//!    the server that hangs. Those who are healthy say so again when they hear that another one is not.
//! 6. Who takes it while it is ill has seen for as long as a Lease lasts that nobody did: whoever said all that time that it is
//!    healthy cannot take it, or never said so. It is not given back for such a word, or one word of a node without an announcer
//!    would silence the address again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use berth_api::election::Timing;

use super::health::Standing;
use crate::vip::Name;

/// Who has not renewed its word for so long does not count: it is renewed each 20 s.
const SILENT: Duration = Duration::from_secs(45);

/// For so long the words of a node that did not take what was free count for nothing, unless it says meanwhile that it is ill.
const IN_VAIN: Duration = Duration::from_secs(300);

/// What this node knows of the control plane.
#[derive(Clone, Debug)]
pub struct ControlPlane {
    lease: Name,
    standing: Standing,
    /// Whether the API server of this node was healthy since the process began.
    was_healthy: bool,
    /// Since when it is not.
    ill: Option<Instant>,
    /// How much later another node may find out the same of its own, and tell.
    settling: Duration,
    /// What other nodes say of theirs.
    words: BTreeMap<String, Word>,
    /// Those that have said lately that they are healthy.
    others: BTreeSet<String>,
    /// Whether the Lease was this node's when it was last asked.
    was_mine: bool,
    /// Those that were healthy by their word and did not take what was free, and when that was seen.
    in_vain: BTreeMap<String, Instant>,
}

/// What a node has said of its API server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    is_healthy: bool,
    /// When it was written, as a text that is compared with itself alone.
    renewed: String,
    /// When this process saw that.
    since: Instant,
    /// Since when nothing else was said.
    unchanged: Instant,
}

/// The part of this node in the election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// It has none, and gives back what it has.
    None,
    /// It strives for it, and leaves it to others for so long where it is free.
    After(Duration),
}

impl ControlPlane {
    /// Of which nothing is known yet but the Lease. `settling` is how much later another node may find out the same of its own
    /// API server, and have told it.
    pub fn new(lease: Name, settling: Duration) -> Self {
        Self {
            lease,
            standing: Standing::default(),
            was_healthy: false,
            ill: None,
            settling,
            words: BTreeMap::new(),
            others: BTreeSet::new(),
            was_mine: false,
            in_vain: BTreeMap::new(),
        }
    }

    /// The Lease.
    pub fn lease(&self) -> &Name {
        &self.lease
    }

    /// Takes in what is known of the API server of this node; true if that is news.
    pub fn stands(&mut self, standing: Standing, now: Instant) -> bool {
        self.was_healthy |= standing == Standing::Healthy;
        self.ill = match standing {
            Standing::Healthy | Standing::Unknown => None,
            Standing::Unhealthy | Standing::Recovering => self.ill.or(Some(now)),
        };
        std::mem::replace(&mut self.standing, standing) != standing
    }

    /// Takes in what another node says of its API server, and when it wrote that; nothing if it says nothing any more. True if
    /// this node is to say once more that it is healthy: another one is not any more, and goes by what is said from then on.
    pub fn hear(&mut self, node: String, said: Option<(bool, String)>, now: Instant) -> bool {
        let Some((is_healthy, renewed)) = said else {
            self.words.remove(&node);
            return false;
        };
        if !is_healthy {
            self.in_vain.remove(&node);
        }
        let known = self.words.get(&node);
        let unchanged = known.filter(|known| known.is_healthy == is_healthy);
        let unchanged = unchanged.map_or(now, |known| known.unchanged);
        let was_ill = known.is_some_and(|known| !known.is_healthy);
        let known = known.filter(|known| known.renewed == renewed);
        let since = known.map_or(now, |known| known.since);
        self.words.insert(node, Word { is_healthy, renewed, since, unchanged });
        !is_healthy && !was_ill && self.standing == Standing::Healthy
    }

    /// Takes in which nodes say anything at all.
    pub fn heard(&mut self, nodes: &BTreeSet<String>) {
        self.words.retain(|node, _| nodes.contains(node));
        self.in_vain.retain(|node, _| nodes.contains(node));
    }

    /// When what others have said counts.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        self.ill.map(|since| since + self.settling).filter(|due| *due > now)
    }

    /// Takes in whether the Lease is this node's. Where it became that while this node is ill it was nobody's for as long as a Lease
    /// lasts.
    pub fn holds(&mut self, is_mine: bool, timing: Timing, now: Instant) {
        let was_mine = std::mem::replace(&mut self.was_mine, is_mine);
        if is_mine && !was_mine && self.ill.is_some() {
            let had_time =
                |word: &Word| word.is_healthy && now >= word.unchanged + timing.duration();
            let idle = self.words.iter().filter(|(_, word)| had_time(word));
            self.in_vain.extend(idle.map(|(node, _)| (node.clone(), now)));
        }
    }

    /// Goes by what was said lately, and since this node fell ill: a node that is gone says nothing any more, nor does one that
    /// hangs. Nor does anything count before all have had time to find out that they are as slow as this one.
    pub fn look(&mut self, me: &str, now: Instant) {
        if self.deadline(now).is_some() {
            self.others.clear();
            return;
        }
        self.in_vain.retain(|_, seen| now < *seen + IN_VAIN);
        let (ill, in_vain) = (self.ill, &self.in_vain);
        let is_fresh = |node: &str, word: &Word| {
            let is_later = ill.is_none_or(|ill| word.since >= ill);
            let counts = word.is_healthy && node != me && !in_vain.contains_key(node);
            counts && is_later && now < word.since + SILENT
        };
        let fresh = self.words.iter().filter(|(node, word)| is_fresh(node, word));
        self.others = fresh.map(|(node, _)| node.clone()).collect();
    }

    /// What is known of the API server of this node.
    pub(super) fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether it is not known to be ill.
    pub(super) fn is_well(&self) -> bool {
        self.ill.is_none()
    }

    /// Whether it was healthy since the process began.
    pub(super) fn was_healthy(&self) -> bool {
        self.was_healthy
    }

    /// Those that have said since this node fell ill that they are healthy, as of [`Self::look`].
    pub(super) fn others(&self) -> &BTreeSet<String> {
        &self.others
    }

    /// Those but `me` whose last word is that they are healthy, and who were not silent while others spoke.
    pub(super) fn recent<'a>(&'a self, me: &'a str) -> impl Iterator<Item = &'a str> {
        let newest = self.words.values().map(|word| word.since).max();
        let is_recent = move |word: &Word| newest.is_none_or(|newest| newest < word.since + SILENT);
        let recent = self
            .words
            .iter()
            .filter(move |(node, word)| word.is_healthy && *node != me && is_recent(word));
        recent.map(|(node, _)| node.as_str())
    }

    /// The part of this node, to whom the Lease `is_mine` by what it says. Where the fence does not stand, or an address has
    /// no place, others go first in any case (`is_poor`).
    pub fn part(&self, is_mine: bool, is_poor: bool, timing: Timing) -> Part {
        let poor = if is_poor { timing.retry() } else { Duration::ZERO };
        match self.standing {
            Standing::Healthy => Part::After(poor),
            Standing::Unhealthy if is_mine && !self.others.is_empty() => Part::None,
            Standing::Unhealthy | Standing::Recovering if is_mine || self.was_healthy => {
                Part::After(timing.duration() + poor)
            }
            Standing::Unknown if is_mine => Part::After(poor),
            Standing::Unhealthy | Standing::Recovering | Standing::Unknown => Part::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing::DEFAULT;
    const AT_ONCE: Part = Part::After(Duration::ZERO);

    const SETTLING: Duration = Duration::from_secs(5);

    fn of(standings: &[Standing]) -> ControlPlane {
        let (lease, now) = (Name::new("kube-system", "plndr-cp-lock"), Instant::now());
        let mut of = ControlPlane::new(lease, SETTLING);
        standings.iter().for_each(|standing| _ = of.stands(*standing, now));
        of
    }

    /// The parts of a node that does not have it, and of one that has.
    fn parts(of: &ControlPlane) -> [Part; 2] {
        [false, true].map(|is_mine| of.part(is_mine, false, TIMING))
    }

    #[test]
    fn a_node_that_joins_takes_nothing_before_its_own_api_server_is_healthy() {
        assert_eq!(parts(&of(&[]))[0], Part::None);
        assert_eq!(parts(&of(&[Standing::Unhealthy]))[0], Part::None, "it was never healthy");
        assert_eq!(parts(&of(&[Standing::Unhealthy, Standing::Healthy]))[0], AT_ONCE);
    }

    #[test]
    fn what_the_lease_says_is_its_own_a_node_goes_on_with_after_a_restart() {
        assert_eq!(parts(&of(&[]))[1], AT_ONCE);
        assert!(matches!(parts(&of(&[Standing::Unhealthy]))[1], Part::After(_)));
    }

    #[test]
    fn an_unhealthy_node_yields_only_while_another_says_that_it_is_healthy() {
        let last = Part::After(TIMING.duration());
        let mut slow = of(&[Standing::Healthy, Standing::Unhealthy]);
        assert_eq!(parts(&slow), [last, last], "all are slow: who has it keeps it");
        let start = Instant::now() + SETTLING;
        slow.hear("b".to_owned(), Some((true, "1".to_owned())), start);
        slow.hear("a".to_owned(), Some((true, "1".to_owned())), start);
        slow.look("a", start);
        assert_eq!(parts(&slow), [last, Part::None]);
        slow.hear("b".to_owned(), Some((true, "1".to_owned())), start + SILENT / 2);
        slow.look("a", start + SILENT);
        assert_eq!(parts(&slow), [last, last], "it is gone, or its own word is all there is");
        slow.hear("b".to_owned(), Some((true, "2".to_owned())), start + SILENT);
        slow.look("a", start + SILENT);
        assert_eq!(parts(&slow), [last, Part::None]);
        slow.heard(&["a".to_owned()].into());
        slow.look("a", start + SILENT);
        assert_eq!(parts(&slow), [last, last]);
        slow.hear("b".to_owned(), Some((false, "3".to_owned())), start + SILENT);
        slow.look("a", start + SILENT);
        assert_eq!(parts(&slow), [last, last], "it is slow as well");
        slow.hear("b".to_owned(), Some((true, "4".to_owned())), start + SILENT);
        slow.look("a", start + SILENT);
        slow.stands(Standing::Recovering, start);
        assert_eq!(parts(&slow), [last, last], "all recover together, and b a moment sooner");
        slow.stands(Standing::Healthy, start);
        assert_eq!(parts(&slow), [AT_ONCE, AT_ONCE]);
    }

    #[test]
    fn where_all_become_slow_together_the_first_to_know_waits_until_the_others_do() {
        let start = Instant::now();
        let mut slow = of(&[Standing::Healthy]);
        let say = |slow: &mut ControlPlane, is_healthy, word: &str| {
            slow.hear("b".to_owned(), Some((is_healthy, word.to_owned())), start);
        };
        say(&mut slow, true, "1");
        slow.stands(Standing::Unhealthy, start);
        let due = start + SETTLING;
        assert_eq!(slow.deadline(start), Some(due));
        slow.look("a", due - Duration::from_millis(1));
        assert_eq!(parts(&slow)[1], Part::After(TIMING.duration()), "b may not know it yet");
        say(&mut slow, false, "2");
        slow.look("a", due);
        assert_eq!(parts(&slow)[1], Part::After(TIMING.duration()));
        say(&mut slow, true, "3");
        slow.stands(Standing::Recovering, due);
        slow.stands(Standing::Unhealthy, due);
        slow.look("a", due);
        assert_eq!(parts(&slow)[1], Part::None, "it is not healthy since then");
    }

    #[test]
    fn what_was_said_before_a_node_fell_ill_counts_for_nothing_until_it_is_said_again() {
        let start = Instant::now();
        let mut slow = of(&[Standing::Healthy]);
        slow.hear("b".to_owned(), Some((true, "1".to_owned())), start);
        let ill = start + SILENT / 2;
        slow.stands(Standing::Unhealthy, ill);
        let due = ill + SETTLING;
        slow.look("a", due);
        assert_eq!(parts(&slow)[1], Part::After(TIMING.duration()), "b may hang since then");
        // A watch that begins anew shows the same.
        slow.hear("b".to_owned(), Some((true, "1".to_owned())), due);
        slow.look("a", due);
        assert_eq!(parts(&slow)[1], Part::After(TIMING.duration()));
        slow.hear("b".to_owned(), Some((true, "2".to_owned())), due);
        slow.look("a", due);
        assert_eq!(parts(&slow)[1], Part::None);
    }

    #[test]
    fn what_nobody_takes_is_given_back_once_and_not_for_the_same_word_again() {
        let start = Instant::now();
        let (last, due) = (Part::After(TIMING.duration()), start + SETTLING);
        let taken = due + TIMING.duration();
        let say = |slow: &mut ControlPlane, is_healthy, word: &str, now| {
            slow.hear("b".to_owned(), Some((is_healthy, word.to_owned())), now);
            slow.look("a", now);
        };
        // Whether it had it before makes no difference: two that are ill would hand it to and fro.
        for had_it in [true, false] {
            let mut slow = of(&[Standing::Healthy]);
            slow.holds(had_it, TIMING, start);
            slow.stands(Standing::Unhealthy, start);
            say(&mut slow, true, "1", due);
            assert_eq!(parts(&slow)[1], Part::None, "b says that it is healthy");
            slow.holds(false, TIMING, due);
            say(&mut slow, true, "2", taken);
            slow.holds(true, TIMING, taken);
            slow.look("a", taken);
            assert_eq!(parts(&slow)[1], last, "and did not take it");
            slow.holds(true, TIMING, taken + SILENT / 2);
            say(&mut slow, true, "3", taken + SILENT / 2);
            assert_eq!(parts(&slow)[1], last, "it says the same all the time");
            say(&mut slow, false, "4", taken + SILENT / 2);
            say(&mut slow, true, "5", taken + SILENT / 2);
            assert_eq!(parts(&slow)[1], Part::None, "it is healthy again");
        }
        let mut slow = of(&[Standing::Healthy]);
        slow.stands(Standing::Unhealthy, start);
        say(&mut slow, true, "1", due);
        slow.holds(true, TIMING, taken);
        say(&mut slow, true, "2", taken);
        assert_eq!(parts(&slow)[1], last);
        say(&mut slow, true, "3", taken + IN_VAIN);
        assert_eq!(parts(&slow)[1], Part::None, "it may be able to by now");
    }

    #[test]
    fn who_became_healthy_just_now_had_no_time_to_take_it() {
        let start = Instant::now();
        let mut slow = of(&[Standing::Healthy]);
        slow.stands(Standing::Unhealthy, start);
        let taken = start + SETTLING + TIMING.duration();
        slow.hear("b".to_owned(), Some((true, "1".to_owned())), taken - TIMING.retry());
        slow.holds(true, TIMING, taken);
        slow.look("a", taken);
        assert_eq!(parts(&slow)[1], Part::None);
    }

    #[test]
    fn who_is_healthy_says_so_again_when_another_falls_ill_and_once_each_time() {
        let now = Instant::now();
        let mut healthy = of(&[Standing::Healthy]);
        let mut hear = |is_healthy, renewed: &str| {
            healthy.hear("b".to_owned(), Some((is_healthy, renewed.to_owned())), now)
        };
        let asked = [(true, "1"), (false, "2"), (false, "3"), (true, "4"), (false, "5")];
        let asked = asked.map(|(is_healthy, renewed)| hear(is_healthy, renewed));
        assert_eq!(asked, [false, true, false, false, true]);
        assert!(!healthy.hear("b".to_owned(), None, now));
        let mut ill = of(&[Standing::Healthy, Standing::Unhealthy]);
        assert!(
            !ill.hear("b".to_owned(), Some((false, "1".to_owned())), now),
            "it has nothing to say"
        );
    }

    #[test]
    fn where_no_fence_stands_others_go_first() {
        let healthy = of(&[Standing::Healthy]);
        assert_eq!(healthy.part(false, true, TIMING), Part::After(TIMING.retry()));
    }

    #[test]
    fn only_what_changes_is_news() {
        let (mut healthy, now) = (of(&[]), Instant::now());
        assert!(healthy.stands(Standing::Healthy, now) && !healthy.stands(Standing::Healthy, now));
    }
}
