//! Owns the voter set and where this node stands in it. A standing only moves to higher epochs, and is active only
//! once no earlier voter set can grant anything.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use crate::bounds::Bounds;
use crate::name::NodeId;
use crate::rules::Rules;

/// How many voters a view may have.
pub const MOST_VOTERS: usize = 5;

/// How many earlier voter sets a view may carry.
pub const MOST_PREVIOUS: usize = 4;

/// How many members a list has at least: of two that vote, neither can go on alone.
pub const LEAST_MEMBERS: usize = 3;

/// How many voters a cluster of so many nodes has.
pub fn voters_among(nodes: usize) -> usize {
    match nodes {
        0..=2 => nodes,
        3 | 4 => 3,
        _ => 5,
    }
}

/// A set of voters, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Voters(Vec<NodeId>);

impl Voters {
    /// The set of these nodes.
    ///
    /// # Errors
    /// If it has no node or more than [`MOST_VOTERS`].
    pub fn new(nodes: impl IntoIterator<Item = NodeId>) -> Result<Self, ViewError> {
        let mut nodes: Vec<_> = nodes.into_iter().collect();
        nodes.sort_unstable();
        nodes.dedup();
        if nodes.is_empty() || nodes.len() > MOST_VOTERS {
            return Err(ViewError::Voters(nodes.len()));
        }
        Ok(Self(nodes))
    }

    /// The voters, in order.
    pub fn nodes(&self) -> &[NodeId] {
        &self.0
    }

    /// Whether the node is one of them.
    pub fn contains(&self, node: NodeId) -> bool {
        self.0.contains(&node)
    }

    /// Any two sets of this size have a voter in common.
    pub fn majority(&self) -> usize {
        self.0.len() / 2 + 1
    }

    /// Any set of this size meets every majority.
    pub fn blocking(&self) -> usize {
        self.0.len() - self.majority() + 1
    }
}

/// What the API stores: the voters of an epoch, and the earlier sets that may still have to be sealed. Or what follows
/// from a list of members that never changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    epoch: u64,
    voters: Voters,
    previous: Vec<Voters>,
    /// How long leases are in it.
    bounds: Bounds,
    /// Of the list that this view is fixed by.
    list: Option<ListDigest>,
}

/// Tells lists of members apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ListDigest(pub(crate) u64);

impl ListDigest {
    /// Of members in order (SHA-256, the first eight octets).
    fn of(members: &[NodeId]) -> Self {
        let mut hash = Sha256::new();
        members.iter().for_each(|member| hash.update(member.bits().to_be_bytes()));
        let digest = hash.finalize();
        Self(digest[..8].iter().fold(0, |bits, octet| (bits << 8) | u64::from(*octet)))
    }
}

/// Why something is not a view.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ViewError {
    /// Wrong number of voters.
    #[error("voters: {0} nodes, must be 1 to {MOST_VOTERS}")]
    Voters(usize),
    /// Too many earlier sets.
    #[error("previous: {0} sets, must be at most {MOST_PREVIOUS}")]
    Previous(usize),
    /// The first view has epoch 1.
    #[error("epoch 0: must be at least 1")]
    Epoch,
}

impl View {
    /// A view as it was stored.
    ///
    /// # Errors
    /// The field that is out of bounds.
    pub fn new(epoch: u64, voters: Voters, previous: Vec<Voters>) -> Result<Self, ViewError> {
        if epoch == 0 {
            return Err(ViewError::Epoch);
        }
        if previous.len() > MOST_PREVIOUS {
            return Err(ViewError::Previous(previous.len()));
        }
        Ok(Self { epoch, voters, previous, bounds: Bounds::default(), list: None })
    }

    /// The same with leases within these bounds.
    pub fn within(self, bounds: Bounds) -> Self {
        Self { bounds, ..self }
    }

    /// The view that a list with this digest fixes.
    pub(crate) fn of_list(voters: Voters, list: ListDigest) -> Self {
        Self { epoch: 1, voters, previous: Vec::new(), bounds: Bounds::default(), list: Some(list) }
    }

    /// The same voters, for ever.
    pub(crate) fn forever(self) -> Self {
        match self.list {
            Some(_) => self,
            None => {
                let list = ListDigest::of(&self.voters.0);
                Self::of_list(self.voters, list)
            }
        }
    }

    /// The digest of the list that fixes this view; none if it may be followed by another.
    pub(crate) fn list(&self) -> Option<ListDigest> {
        self.list
    }

    /// Whether no other view ever follows this one.
    pub fn is_fixed(&self) -> bool {
        self.list.is_some()
    }

    /// Whether nodes that stand in these two views may be of one cluster.
    pub(crate) fn goes_with(&self, other: &Self) -> bool {
        let fixed = self.is_fixed() || other.is_fixed();
        !fixed || self == other
    }

    /// The view of a cluster that has none yet.
    pub fn first(node: NodeId) -> Self {
        let (voters, bounds) = (Voters(vec![node]), Bounds::default());
        Self { epoch: 1, voters, previous: Vec::new(), bounds, list: None }
    }

    /// How long leases are that its voters grant.
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// The number of this view; each view differs from the one before by one.
    pub fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Who grants addresses in this epoch.
    pub fn voters(&self) -> &Voters {
        &self.voters
    }

    /// The voter sets that must be sealed before this view is active.
    pub fn previous(&self) -> &[Voters] {
        &self.previous
    }
}

/// What changed by a message or a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) adopted: bool,
    pub(crate) activated: bool,
}

/// Where this node stands: its view, whether that is active, and which epochs it knows others to have reached.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    me: NodeId,
    view: View,
    active: bool,
    direct: bool,
    reached: BTreeMap<NodeId, u64>,
    rules: Rules,
}

impl Standing {
    pub(crate) fn new(me: NodeId, view: View, rules: Rules) -> Self {
        let reached = [(me, view.epoch)].into();
        let mut standing = Self { me, view, active: false, direct: false, reached, rules };
        standing.active = standing.is_sealed();
        standing
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.view.epoch
    }

    pub(crate) fn is_active(&self) -> bool {
        self.active
    }

    pub(crate) fn votes(&self) -> bool {
        self.view.voters.contains(self.me)
    }

    /// Whether a node is known to have reached this epoch.
    pub(crate) fn reached(&self, node: NodeId) -> bool {
        self.reached.get(&node).is_some_and(|epoch| *epoch >= self.view.epoch)
    }

    /// Takes a view over if it is newer. This alone seals the older view here: nothing is granted in it any more.
    pub(crate) fn adopt(&mut self, view: &View) -> Change {
        if view.epoch <= self.view.epoch || !view.goes_with(&self.view) {
            return Change::default();
        }
        self.direct = self.active && view.epoch == self.view.epoch + 1;
        self.view = view.clone();
        self.reached.insert(self.me, view.epoch);
        self.active = self.is_sealed();
        Change { adopted: true, activated: self.active }
    }

    /// Takes the bounds of leases as they are stored with this view: who heard of it from a node that knows one lease only heard
    /// of none, and they may be edited. A grant lasts for what its voter says, so no two nodes need have the same ones.
    pub(crate) fn read(&mut self, view: &View) {
        if view.epoch == self.view.epoch && view.goes_with(&self.view) {
            self.view.bounds = view.bounds;
        }
    }

    /// Notes the epoch a node is at, as it said itself, and whether it knows its view to be active.
    pub(crate) fn witness(&mut self, node: NodeId, view: &View, active: bool) -> Change {
        let mut change = self.adopt(view);
        let reached = self.reached.entry(node).or_default();
        *reached = view.epoch.max(*reached);
        let told = active && view.epoch == self.view.epoch;
        if !self.active && (told || self.is_sealed()) {
            self.active = true;
            change.activated = true;
        }
        change
    }

    /// Whether the table of this voter holds every promise that may still bind, so that claims need not wait.
    ///
    /// In a view of at most two voters each lease needs every voter, so one that was there from an active view on has
    /// seen all of them.
    pub(crate) fn knows_every_promise(&self) -> bool {
        let [only] = self.view.previous.as_slice() else { return false };
        let small = only.0.len() <= 2 && only.contains(self.me);
        small && (self.direct || !self.rules.two_voter_conditions())
    }

    /// The view that would follow with these voters: it names every set that may not be sealed. None if it would be
    /// the same, would name too many, or if none ever follows.
    pub(crate) fn next(&self, voters: Voters) -> Option<View> {
        if self.view.is_fixed() {
            return None;
        }
        let settled = self.active || !self.rules.pending_previous();
        let mut previous = if settled { Vec::new() } else { self.view.previous.clone() };
        if !previous.contains(&self.view.voters) {
            previous.push(self.view.voters.clone());
        }
        let view = View::new(self.view.epoch + 1, voters, previous).ok()?.within(self.view.bounds);
        (view.voters != self.view.voters).then_some(view)
    }

    fn is_sealed(&self) -> bool {
        let sealed = |set: &Voters| {
            set.0.iter().filter(|node| self.reached(**node)).count() >= set.blocking()
        };
        !self.rules.seal() || self.view.previous.iter().all(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voters(nodes: &[u64]) -> Voters {
        Voters::new(nodes.iter().map(|n| NodeId::from_bits(*n))).unwrap()
    }

    fn view(epoch: u64, nodes: &[u64], previous: &[&[u64]]) -> View {
        View::new(epoch, voters(nodes), previous.iter().map(|set| voters(set)).collect()).unwrap()
    }

    fn id(bits: u64) -> NodeId {
        NodeId::from_bits(bits)
    }

    #[test]
    fn every_blocking_set_meets_every_majority() {
        for (n, majority, blocking) in [(1, 1, 1), (2, 2, 1), (3, 2, 2), (4, 3, 2), (5, 3, 3)] {
            let set = voters(&(1..=n).collect::<Vec<_>>());
            assert_eq!((set.majority(), set.blocking()), (majority, blocking));
            assert!(set.majority() + set.blocking() > set.nodes().len());
        }
    }

    #[test]
    fn a_view_is_active_once_a_blocking_set_of_each_earlier_set_reached_it() {
        let mut standing = Standing::new(id(1), view(1, &[1, 2, 3], &[]), Rules::default());
        assert!(standing.is_active());
        let next = view(2, &[1, 4], &[&[1, 2, 3], &[5]]);
        assert_eq!(standing.adopt(&next), Change { adopted: true, activated: false });
        assert_eq!(standing.witness(id(2), &next, false), Change::default());
        assert!(!standing.is_active(), "the set of node 5 is not sealed");
        assert_eq!(
            standing.witness(id(5), &next, false),
            Change { adopted: false, activated: true }
        );
    }

    #[test]
    fn an_old_epoch_seals_nothing_and_a_word_from_the_same_epoch_activates() {
        let mut standing = Standing::new(id(4), view(2, &[4], &[&[1]]), Rules::default());
        assert_eq!(standing.witness(id(1), &view(1, &[1], &[]), true), Change::default());
        let word = standing.witness(id(3), &view(2, &[4], &[&[1]]), true);
        assert_eq!(word, Change { adopted: false, activated: true });
    }

    #[test]
    fn only_a_direct_step_out_of_a_small_active_view_knows_every_promise() {
        let pair = view(1, &[1, 2], &[]);
        let mut direct = Standing::new(id(1), pair.clone(), Rules::default());
        direct.adopt(&view(2, &[1], &[&[1, 2]]));
        assert!(direct.is_active() && direct.knows_every_promise());
        let mut skipped = Standing::new(id(1), pair, Rules::default());
        skipped.adopt(&view(3, &[1], &[&[1, 2]]));
        assert!(skipped.is_active() && !skipped.knows_every_promise());
        let mut inactive = Standing::new(id(1), view(1, &[1, 2], &[&[7, 8, 9]]), Rules::default());
        inactive.adopt(&view(2, &[1], &[&[1, 2]]));
        assert!(!inactive.knows_every_promise());
    }

    #[test]
    fn a_view_proposed_from_an_inactive_one_carries_the_sets_that_are_not_sealed() {
        let standing = Standing::new(id(1), view(2, &[1, 2], &[&[7, 8, 9]]), Rules::default());
        let next = standing.next(voters(&[2])).unwrap();
        assert_eq!(
            (next.epoch(), next.previous()),
            (3, &[voters(&[7, 8, 9]), voters(&[1, 2])][..])
        );
        let active = Standing::new(id(1), view(1, &[1, 2], &[]), Rules::default());
        assert_eq!(active.next(voters(&[2])).unwrap().previous(), [voters(&[1, 2])]);
        assert_eq!(active.next(voters(&[2, 1])), None);
    }

    #[test]
    fn a_view_that_a_list_fixes_is_followed_by_no_other_and_goes_with_none() {
        let fixed = |voters: &[u64]| view(1, voters, &[]).forever();
        assert_eq!(fixed(&[3, 1, 2]), fixed(&[1, 2, 3]));
        let mut standing = Standing::new(id(1), fixed(&[1, 2, 3]), Rules::default());
        assert!(standing.is_active());
        assert_eq!(standing.next(voters(&[1])), None);
        let stored = view(9, &[1], &[]);
        assert_eq!(standing.witness(id(1), &stored, true), Change::default());
        let (list, same) = (fixed(&[1, 2, 3]), view(1, &[1, 2, 3], &[]));
        assert!(!list.goes_with(&fixed(&[1, 2, 4])) && !list.goes_with(&same));
        assert!(!same.goes_with(&list) && list.goes_with(&list.clone()));
        assert!(same.goes_with(&view(2, &[7], &[])));
    }

    #[test]
    fn what_is_no_view_is_refused_with_the_bound() {
        assert_eq!(Voters::new([]).unwrap_err().to_string(), "voters: 0 nodes, must be 1 to 5");
        let sets = vec![voters(&[1]); 5];
        assert_eq!(View::new(3, voters(&[1]), sets), Err(ViewError::Previous(5)));
        assert_eq!(View::new(0, voters(&[1]), vec![]), Err(ViewError::Epoch));
    }
}
