//! Owns which view a voter would put in place of its own, and when. Policy only: whatever is proposed, the compare-and-
//! swap and the seal keep it safe.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::Output;
use crate::moment::Moment;
use crate::name::NodeId;
use crate::view::{Standing, View, Voters, voters_among};
use crate::voter::Contact;

/// Silence after which a voter is dropped from a view of three or more.
const DROPPED_AFTER: Duration = Duration::from_millis(1_500);
/// How long a node must have been heard before it becomes a voter.
const STABLE_FOR: Duration = Duration::from_secs(2);
/// How long the others wait for the first voter to propose.
const OTHERS_AFTER: Duration = Duration::from_millis(400);
/// How long a voter that was heard and did not answer is none again, at first; each time it does so twice as long, up to
/// the second. A view that it is in has one vote less than it counts.
const SHUNNED: [Duration; 2] = [Duration::from_secs(4), Duration::from_secs(300)];
/// A voter that has answered for so long in one view is as good as any.
const FORGIVEN_AFTER: Duration = Duration::from_secs(10);

/// What this node proposed, and what it would propose.
#[derive(Debug)]
pub(crate) struct Proposer {
    suspicion: Duration,
    /// The later of this node's start and its adoption of the view.
    since: Moment,
    /// The epoch that a proposal on its way is to follow.
    proposing: Option<u64>,
    wanted_since: Option<Moment>,
    /// Nodes that were heard and did not answer as voters.
    deaf: BTreeMap<NodeId, Deaf>,
}

/// A node that hears nobody, as far as this one can tell.
#[derive(Clone, Copy, Debug)]
struct Deaf {
    /// Until when it is no voter.
    until: Moment,
    times: u32,
}

impl Proposer {
    /// That of a node that starts.
    pub(crate) fn new(suspicion: Duration, now: Moment) -> Self {
        let deaf = BTreeMap::new();
        Self { suspicion, since: now, proposing: None, wanted_since: None, deaf }
    }

    /// The later of this node's start and its adoption of the view.
    pub(crate) fn since(&self) -> Moment {
        self.since
    }

    /// The node went over to a view.
    pub(crate) fn adopted(&mut self, now: Moment) {
        (self.since, self.proposing, self.wanted_since) = (now, None, None);
    }

    /// The view that was to follow this epoch is surely not stored.
    pub(crate) fn not_stored(&mut self, from_epoch: u64) {
        self.proposing = self.proposing.filter(|epoch| *epoch != from_epoch);
    }

    /// The view to propose now, or a voter that turns out to hear nobody, if any.
    pub(crate) fn turn(&mut self, seen: &Seen<'_>) -> Option<Output> {
        if let Some(node) = self.listen(seen) {
            return Some(Output::Deaf { node });
        }
        let situation = self.situation(seen);
        let Some(proposal) = propose(&situation) else {
            self.wanted_since = None;
            return None;
        };
        let since = *self.wanted_since.get_or_insert(seen.now);
        if !proposal.first && seen.now.since(since) < OTHERS_AFTER {
            return None;
        }
        self.put(seen.standing.epoch(), proposal.view)
    }

    /// Notes which voters are heard and do not answer, and which of them do again. Gives one that was not noted before.
    fn listen(&mut self, seen: &Seen<'_>) -> Option<NodeId> {
        let situation = self.situation(seen);
        if !seen.standing.votes() || !situation.is_among_blocking_set() {
            return None;
        }
        let patience = situation.patience();
        let voters = seen.standing.view().voters().nodes();
        // Of two voters one is dropped soon: where it has answered in this view, it may be slow for once.
        let answered = |voter: &NodeId| {
            voters.len() == 2 && seen.answered.get(voter).is_some_and(|at| *at > self.since)
        };
        let is_deaf = |voter: &NodeId| {
            let is_gone = situation.is_gone(*voter, patience);
            situation.is_heard(*voter) && is_gone && !answered(voter)
        };
        let (deaf, others): (Vec<NodeId>, Vec<NodeId>) = voters.iter().copied().partition(is_deaf);
        if seen.now.since(self.since) >= FORGIVEN_AFTER {
            self.deaf.retain(|node, _| !others.contains(node));
        }
        let is_news =
            |node: &&NodeId| self.deaf.get(node).is_none_or(|deaf| deaf.until <= seen.now);
        let node = deaf.iter().find(is_news).copied()?;
        let times = self.deaf.get(&node).map_or(0, |deaf| deaf.times);
        let pause = SHUNNED[0].saturating_mul(1 << times.min(16)).min(SHUNNED[1]);
        self.deaf.insert(node, Deaf { until: seen.now + pause, times: times + 1 });
        Some(node)
    }

    fn situation<'a>(&'a self, seen: &'a Seen<'a>) -> Situation<'a> {
        Situation { seen, suspicion: self.suspicion, since: self.since, deaf: &self.deaf }
    }

    /// Proposes a view, unless another is on its way.
    pub(crate) fn put(&mut self, from_epoch: u64, view: View) -> Option<Output> {
        if self.proposing.is_some() {
            return None;
        }
        self.proposing = Some(from_epoch);
        Some(Output::ProposeView { from_epoch, view })
    }
}

/// What a node sees of the others.
pub(crate) struct Seen<'a> {
    pub(crate) now: Moment,
    pub(crate) me: NodeId,
    pub(crate) standing: &'a Standing,
    pub(crate) contacts: &'a BTreeMap<NodeId, Contact>,
    /// When each voter last answered this node.
    pub(crate) answered: BTreeMap<NodeId, Moment>,
    pub(crate) leaving: bool,
}

/// What a proposal is made from.
struct Situation<'a> {
    seen: &'a Seen<'a>,
    suspicion: Duration,
    since: Moment,
    deaf: &'a BTreeMap<NodeId, Deaf>,
}

/// A view this node would propose, and whether it is the first in line to do so.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Proposal {
    view: View,
    first: bool,
}

/// The view that should follow, if it differs.
fn propose(situation: &Situation<'_>) -> Option<Proposal> {
    let Seen { now, me, standing, leaving, .. } = *situation.seen;
    let voters = standing.view().voters();
    if !standing.votes() || !situation.is_among_blocking_set() {
        return None;
    }
    let patience = situation.patience();
    let mut keep: Vec<_> = voters
        .nodes()
        .iter()
        .copied()
        .filter(|voter| !situation.is_gone(*voter, patience))
        .collect();
    let first = keep.first() == Some(&me);
    keep.retain(|voter| *voter != me || !leaving);
    let stable = situation.seen.contacts.iter().filter(|(node, contact)| {
        let heard = now.since(contact.last) <= situation.suspicion;
        // Whoever was dropped a moment ago is not taken back for the last that was heard of it.
        let dropped = standing.view().previous().iter().any(|set| set.contains(**node));
        let since = if dropped { contact.since.max(situation.since) } else { contact.since };
        let lasting = now.since(since) >= STABLE_FOR && !contact.leaving;
        let shunned = situation.deaf.get(node).is_some_and(|deaf| now < deaf.until);
        heard && lasting && !shunned && !voters.contains(**node)
    });
    let stable: Vec<_> = stable.map(|(node, _)| *node).collect();
    let target = voters_among(keep.len() + stable.len());
    let mut next = keep;
    next.truncate(target);
    next.extend(stable.into_iter().take(target - next.len()));
    let view = standing.next(Voters::new(next).ok()?)?;
    Some(Proposal { view, first })
}

impl Situation<'_> {
    /// How long a voter may be silent before it is dropped.
    fn patience(&self) -> Duration {
        match self.seen.standing.view().voters().nodes().len() {
            2 => self.suspicion,
            _ => DROPPED_AFTER,
        }
    }

    /// Whether a node was heard lately.
    fn is_heard(&self, node: NodeId) -> bool {
        let contact = self.seen.contacts.get(&node);
        contact.is_some_and(|contact| self.seen.now.since(contact.last) <= self.suspicion)
    }

    /// Whether this node and voters that lately were heard, answered and stand where it stands meet every majority. Who
    /// hears the others and is not heard would else drop them all.
    fn is_among_blocking_set(&self) -> bool {
        let Seen { now, me, standing, .. } = self.seen;
        let voters = standing.view().voters();
        let lately = |last: Moment| now.since(last) <= self.suspicion;
        let here = |voter: &&NodeId| {
            let heard = self.is_heard(**voter);
            let answered = self.seen.answered.get(voter).is_some_and(|last| lately(*last));
            *voter == me || (heard && answered && standing.reached(**voter))
        };
        voters.nodes().iter().filter(here).count() >= voters.blocking()
    }

    /// Whether a voter was not heard, or did not answer, for so long.
    fn is_gone(&self, voter: NodeId, patience: Duration) -> bool {
        let long_ago = |last: Option<Moment>| {
            self.seen.now.since(self.since.max(last.unwrap_or_default())) > patience
        };
        let Seen { me, contacts, answered, .. } = self.seen;
        let heard = contacts.get(&voter).map(|contact| contact.last);
        voter != *me && (long_ago(heard) || long_ago(answered.get(&voter).copied()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parameters::Parameters;
    use crate::rules::Rules;

    const NOW: Moment = Moment::from_nanos(60_000_000_000);

    fn id(bits: u64) -> NodeId {
        NodeId::from_bits(bits)
    }

    fn ago(millis: u64) -> Moment {
        Moment::from_nanos(NOW.nanos() - millis * 1_000_000)
    }

    /// What node `me` of view `voters` proposes; `heard` has for each node how long ago it was heard and since when.
    fn proposed(
        me: u64,
        voters: &[u64],
        heard: &[(u64, u64, u64)],
        leaving: bool,
    ) -> Option<(Vec<u64>, bool)> {
        let contacts = heard.iter().map(|(node, last, since)| (*node, *last, *since, false));
        proposed_among(me, voters, &contacts.collect::<Vec<_>>(), leaving)
    }

    /// The same where some of those that were heard may be about to stop.
    fn proposed_among(
        me: u64,
        voters: &[u64],
        heard: &[(u64, u64, u64, bool)],
        leaving: bool,
    ) -> Option<(Vec<u64>, bool)> {
        proposed_after(me, View::new(7, of(voters), vec![]).unwrap(), heard, leaving, 30_000)
    }

    fn of(voters: &[u64]) -> Voters {
        Voters::new(voters.iter().map(|n| id(*n))).unwrap()
    }

    /// The same in a view that was adopted so long ago.
    fn proposed_after(
        me: u64,
        view: View,
        heard: &[(u64, u64, u64, bool)],
        leaving: bool,
        adopted: u64,
    ) -> Option<(Vec<u64>, bool)> {
        let mut standing = Standing::new(id(me), view.clone(), Rules::default());
        let contact = |(node, last, since, leaving): &(u64, u64, u64, bool)| {
            (
                id(*node),
                Contact {
                    last: ago(*last),
                    since: ago(*since),
                    leaving: *leaving,
                    ..Contact::default()
                },
            )
        };
        let contacts: BTreeMap<_, _> = heard.iter().map(contact).collect();
        contacts.keys().for_each(|node| _ = standing.witness(*node, &view, true));
        let answered = contacts.iter().map(|(node, contact)| (*node, contact.last)).collect();
        let seen = Seen {
            now: NOW,
            me: id(me),
            standing: &standing,
            contacts: &contacts,
            answered,
            leaving,
        };
        let suspicion = Parameters::default().suspicion;
        let deaf = BTreeMap::new();
        let situation = Situation { seen: &seen, suspicion, since: ago(adopted), deaf: &deaf };
        let proposal = propose(&situation)?;
        assert_eq!(proposal.view.epoch(), 8);
        Some((
            proposal.view.voters().nodes().iter().map(|node| node.bits()).collect(),
            proposal.first,
        ))
    }

    #[test]
    fn a_silent_voter_is_replaced_by_a_stable_node() {
        let heard = [(1, 10, 9_000), (2, 20, 9_000), (3, 1_600, 9_000), (4, 30, 9_000)];
        assert_eq!(proposed(1, &[1, 2, 3], &heard, false), Some((vec![1, 2, 4], true)));
        assert_eq!(
            proposed(2, &[1, 2, 3], &heard, false),
            Some((vec![1, 2, 4], false)),
            "second in line"
        );
        let young = [(1, 10, 9_000), (2, 20, 9_000), (3, 1_600, 9_000), (4, 30, 900)];
        assert_eq!(proposed(1, &[1, 2, 3], &young, false), Some((vec![1, 2], true)));
    }

    #[test]
    fn a_node_that_is_about_to_stop_does_not_become_a_voter_again() {
        let heard = |stops| [(1, 10, 9_000, false), (2, 20, 9_000, false), (3, 30, 9_000, stops)];
        let proposed = |stops| proposed_among(1, &[1, 2], &heard(stops), false);
        assert_eq!(proposed(false), Some((vec![1, 2, 3], true)));
        assert_eq!(proposed(true), None);
    }

    #[test]
    fn a_node_that_was_dropped_is_not_taken_back_for_the_last_that_was_heard_of_it() {
        let heard = [(1, 0, 9_000, false), (2, 110, 9_000, false)];
        let after = |adopted| {
            let view = View::new(7, of(&[1]), vec![of(&[1, 2])]).unwrap();
            proposed_after(1, view, &heard, false, adopted)
        };
        assert_eq!(after(5), None);
        assert_eq!(after(2_100), Some((vec![1, 2], true)), "it has been heard for long again");
    }

    /// What node 1 of nodes 1, 2 and 3 proposes at `now`, where node 3 is heard throughout and answers or not.
    fn turn(proposer: &mut Proposer, voters: &[u64], answers: bool, now: Moment) -> Vec<u64> {
        let view = View::new(7, of(voters), vec![]).unwrap();
        let mut standing = Standing::new(id(1), view.clone(), Rules::default());
        let contact = Contact { last: now, since: ago(60_000), ..Contact::default() };
        let contacts: BTreeMap<_, _> = [1, 2, 3].map(|node| (id(node), contact)).into();
        contacts.keys().for_each(|node| _ = standing.witness(*node, &view, true));
        let mut answered: BTreeMap<_, _> = [1, 2, 3].map(|node| (id(node), now)).into();
        if !answers {
            answered.remove(&id(3));
        }
        let (standing, contacts) = (&standing, &contacts);
        let seen = Seen { now, me: id(1), standing, contacts, answered, leaving: false };
        match proposer.turn(&seen) {
            Some(Output::ProposeView { view, .. }) => {
                view.voters().nodes().iter().map(|node| node.bits()).collect()
            }
            Some(Output::Deaf { node }) => vec![node.bits()],
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_voter_that_is_heard_and_does_not_answer_is_one_again_ever_more_seldom_and_is_forgiven() {
        let second = Duration::from_secs(1);
        let mut proposer = Proposer::new(Parameters::default().suspicion, ago(30_000));
        let mut now = NOW;
        for pause in [4, 8, 16, 32, 64, 128, 256, 300, 300] {
            assert_eq!(turn(&mut proposer, &[1, 2, 3], false, now), [3], "it is told");
            assert_eq!(turn(&mut proposer, &[1, 2, 3], false, now), [1, 2]);
            proposer.adopted(now);
            assert!(turn(&mut proposer, &[1, 2], true, now + second * (pause - 1)).is_empty());
            now = now + second * pause;
            assert_eq!(turn(&mut proposer, &[1, 2], true, now), [1, 2, 3]);
            proposer.adopted(now);
            now = now + second * 2;
        }
        now = now + FORGIVEN_AFTER;
        assert!(turn(&mut proposer, &[1, 2, 3], true, now).is_empty());
        now = now + second * 20;
        assert_eq!(turn(&mut proposer, &[1, 2, 3], false, now), [3]);
        assert_eq!(turn(&mut proposer, &[1, 2, 3], false, now), [1, 2]);
        proposer.adopted(now);
        assert_eq!(turn(&mut proposer, &[1, 2], true, now + second * 4), [1, 2, 3]);
    }

    #[test]
    fn of_two_voters_the_survivor_goes_alone_soon() {
        assert_eq!(
            proposed(2, &[1, 2], &[(2, 0, 9_000), (1, 130, 9_000)], false),
            Some((vec![2], true))
        );
        assert_eq!(proposed(2, &[1, 2], &[(2, 0, 9_000), (1, 100, 9_000)], false), None);
    }

    #[test]
    fn a_minority_proposes_nothing() {
        assert_eq!(
            proposed(1, &[1, 2, 3], &[(1, 0, 9_000), (2, 5_000, 9_000), (3, 5_000, 9_000)], false),
            None
        );
    }

    #[test]
    fn voters_follow_the_number_of_nodes() {
        let nodes = |n: u64| (1..=n).map(|node| (node, 10, 9_000)).collect::<Vec<_>>();
        assert_eq!(proposed(1, &[1], &nodes(2), false), Some((vec![1, 2], true)));
        assert_eq!(proposed(1, &[1, 2], &nodes(3), false), Some((vec![1, 2, 3], true)));
        assert_eq!(proposed(1, &[1, 2, 3], &nodes(4), false), None);
        assert_eq!(proposed(1, &[1, 2, 3], &nodes(9), false), Some((vec![1, 2, 3, 4, 5], true)));
        assert_eq!(proposed(1, &[1, 2, 3, 4, 5], &nodes(9), false), None);
    }

    #[test]
    fn who_leaves_proposes_a_view_without_itself() {
        let heard = [(1, 10, 9_000), (2, 20, 9_000), (3, 10, 9_000)];
        assert_eq!(proposed(1, &[1, 2, 3], &heard, true), Some((vec![2, 3], true)));
        assert_eq!(proposed(1, &[1], &[(1, 0, 9_000)], true), None, "the last one cannot");
        assert_eq!(proposed(1, &[1], &[(1, 0, 9_000), (2, 0, 9_000)], true), Some((vec![2], true)));
    }
}
