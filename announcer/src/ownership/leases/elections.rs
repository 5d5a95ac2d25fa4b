//! The elections this node takes part in, one for each Lease. Pure: sights and replies go in with the time, requests
//! come out. Gives a Lease back only when it is told that nothing acts on it any more.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use berth_api::election::{Action, Election, Reply, Sight, Timing, cut};
use berth_api::names::label;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::vip::Name;

/// A request about a Lease.
#[derive(Clone, Debug, PartialEq)]
pub enum Request {
    /// What an election asks for.
    Elect(Action),
    /// The same where it makes a holder of this node, which is none: only where nobody goes by membership.
    Acquire(Action),
    /// Delete the Lease if it is still as it was seen: its Service is gone.
    Delete(Box<Lease>),
}

/// The Service whose end is to be the end of a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tied {
    /// Its name; it is in the namespace of the Lease.
    pub(super) name: String,
    /// Its uid.
    pub(super) uid: String,
    /// Another node that says it answers for an address that the Lease decides on.
    pub(super) claimed_by: Option<String>,
}

/// How this node strives for a Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Strife {
    /// The Service that it is tied to.
    pub(super) tied: Option<Tied>,
    /// For how long it is left to others where it is free: here no fence would stand behind it, or the like.
    pub(super) deference: Duration,
}

/// The Leases that are watched, and this node's part in them.
#[derive(Debug)]
pub(super) struct Elections {
    node: String,
    timing: Timing,
    annotations: BTreeMap<String, String>,
    known: BTreeMap<Name, Lease>,
    /// Whether the first list has come in: before that, a Lease that is not known may exist.
    listed: bool,
    /// A Lease that is watched by itself, of which that list knows nothing, and whether it was shown.
    apart: Option<(Name, bool)>,
    elections: BTreeMap<Name, Election>,
    /// Leases that do not exist although another node answers: since when that is so.
    waiting: BTreeMap<Name, Instant>,
    deleting: BTreeSet<Name>,
}

impl Elections {
    /// Takes part in nothing yet. Leases that it creates carry `annotations`.
    pub(super) fn new(node: &str, timing: Timing, annotations: BTreeMap<String, String>) -> Self {
        Self {
            node: node.to_owned(),
            timing,
            annotations,
            known: BTreeMap::new(),
            listed: false,
            apart: None,
            elections: BTreeMap::new(),
            waiting: BTreeMap::new(),
            deleting: BTreeSet::new(),
        }
    }

    /// This node.
    pub(super) fn node(&self) -> &str {
        &self.node
    }

    /// The same, with a Lease that is watched by itself.
    pub(super) fn with_apart(self, lease: Option<Name>) -> Self {
        Self { apart: lease.map(|lease| (lease, false)), ..self }
    }

    /// Takes in what the watch shows of a Lease.
    pub(super) fn observe(&mut self, name: Name, mut sight: Sight, now: Instant) {
        if let Some((apart, shown)) = &mut self.apart {
            *shown |= *apart == name;
        }
        if let Sight::Present(lease) | Sight::Deleted(lease) = &mut sight {
            cut(lease);
        }
        if let Some(election) = self.elections.get_mut(&name) {
            election.observe(sight.clone(), now);
        }
        match sight {
            Sight::Present(lease) => {
                self.known.insert(name, *lease);
            }
            Sight::Absent | Sight::Deleted(_) => {
                self.known.remove(&name);
            }
        }
    }

    /// Takes in that a list is complete: what it does not show does not exist.
    pub(super) fn listed(&mut self, names: &BTreeSet<Name>, now: Instant) {
        self.listed = true;
        let known = self.known.keys().chain(self.elections.keys());
        let is_apart = |name: &Name| self.apart.as_ref().is_some_and(|(apart, _)| apart == name);
        let gone = known.filter(|name| !names.contains(name) && !is_apart(name));
        let gone: Vec<Name> = gone.cloned().collect();
        for name in gone {
            self.observe(name, Sight::Absent, now);
        }
    }

    /// Strives for exactly the Leases in `wanted`. What is held and not wanted is given back, or deleted where `obsolete`, once `idle` says that nothing acts on it.
    pub(super) fn strive(
        &mut self,
        wanted: &BTreeMap<Name, Strife>,
        idle: impl Fn(&Name) -> bool,
        obsolete: impl Fn(&Name) -> bool,
        now: Instant,
    ) {
        self.waiting.retain(|name, _| wanted.contains_key(name));
        for (name, Strife { tied, deference }) in wanted {
            if let Some(election) = self.elections.get_mut(name) {
                election.defer(*deference);
                continue;
            }
            if !self.is_shown(name) || self.must_wait(name, tied, now) {
                continue;
            }
            let mut election =
                Election::new(self.template(name, tied.as_ref()), &self.node, self.timing);
            election.defer(*deference);
            let lease = self.known.get(name);
            election
                .observe(lease.map_or(Sight::Absent, |l| Sight::Present(Box::new(l.clone()))), now);
            self.elections.insert(name.clone(), election);
        }
        let unwanted: Vec<Name> =
            self.elections.keys().filter(|name| !wanted.contains_key(name)).cloned().collect();
        for name in unwanted.into_iter().filter(|name| idle(name)) {
            if obsolete(&name) {
                self.elections.remove(&name);
            } else if let Some(election) = self.elections.get_mut(&name) {
                election.release();
            }
        }
        for (name, lease) in &self.known {
            if !self.elections.contains_key(name) && self.is_left_behind(lease) && obsolete(name) {
                self.deleting.insert(name.clone());
            }
        }
    }

    /// Whether it is known if there is such a Lease.
    fn is_shown(&self, name: &Name) -> bool {
        match &self.apart {
            Some((apart, shown)) if apart == name => *shown,
            _ => self.listed,
        }
    }

    /// Whether to wait before creating a Lease: another node answers, on a Lease that was deleted or under a name that
    /// changed. It has seen that no later than its own hold ends.
    fn must_wait(&mut self, name: &Name, tied: &Option<Tied>, now: Instant) -> bool {
        let claimed = tied.as_ref().and_then(|tied| tied.claimed_by.as_ref());
        if claimed.is_none() || self.known.contains_key(name) {
            self.waiting.remove(name);
            return false;
        }
        let since = *self.waiting.entry(name.clone()).or_insert(now);
        now < since + self.timing.duration()
    }

    /// Whether a Lease is one of ours that this node held last, or that nobody holds.
    fn is_left_behind(&self, lease: &Lease) -> bool {
        let labels = lease.metadata.labels.as_ref();
        let ours = labels.and_then(|labels| labels.get(label::MANAGED_BY));
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        ours.is_some_and(|value| value == label::BERTH)
            && holder.is_none_or(|holder| holder.is_empty() || holder == self.node)
    }

    /// Until when this node holds a Lease, and when the kernel is to fall silent, if it holds it now.
    pub(super) fn holds_until(&self, name: &Name, now: Instant) -> Option<(Instant, Instant)> {
        let election = self.elections.get(name)?;
        Some((election.holds_until(now)?, election.lapses_at(now)?))
    }

    /// Who holds a Lease, as far as that was seen.
    pub(super) fn holder(&self, name: &Name) -> Option<&str> {
        self.known.get(name)?.spec.as_ref()?.holder_identity.as_deref()
    }

    /// Whether a Lease was acquired again since it was made, as far as that was seen.
    pub(super) fn has_moved(&self, name: &Name) -> bool {
        let spec = self.known.get(name).and_then(|lease| lease.spec.as_ref());
        spec.and_then(|spec| spec.lease_transitions).is_some_and(|transitions| transitions > 1)
    }

    /// Whether nobody holds a Lease, as far as that was seen.
    pub(super) fn is_free(&self, name: &Name) -> bool {
        self.is_shown(name) && self.holder(name).is_none_or(str::is_empty)
    }

    /// The requests to send now, and when to ask again.
    pub(super) fn poll(&mut self, now: Instant) -> (Vec<(Name, Request)>, Option<Instant>) {
        let mut requests = Vec::new();
        let waits = self.waiting.values().map(|since| *since + self.timing.duration());
        let mut wake: Option<Instant> = waits.filter(|due| *due > now).min();
        let mut done = Vec::new();
        for (name, election) in &mut self.elections {
            match election.poll(now) {
                Action::Wait(until) => {
                    // The end of a hold is a moment to act on as well.
                    let ends = [until, election.holds_until(now), wake];
                    wake = ends.into_iter().flatten().min();
                }
                Action::Done => done.push(name.clone()),
                action if election.acquires(&action, now) => {
                    requests.push((name.clone(), Request::Acquire(action)));
                }
                action => requests.push((name.clone(), Request::Elect(action))),
            }
        }
        for name in done {
            self.elections.remove(&name);
        }
        for name in std::mem::take(&mut self.deleting) {
            if let Some(lease) = self.known.remove(&name) {
                requests.push((name, Request::Delete(Box::new(lease))));
            }
        }
        (requests, wake)
    }

    /// Takes in what became of a request of an election.
    pub(super) fn replied(&mut self, name: &Name, mut reply: Reply, now: Instant) {
        if let Reply::Written(lease) | Reply::Found(Some(lease)) = &mut reply {
            cut(lease);
            self.known.insert(name.clone(), (**lease).clone());
        }
        if let Some(election) = self.elections.get_mut(name) {
            election.replied(reply, now);
        }
    }

    /// Whether this node takes part in no election.
    pub(super) fn is_idle(&self) -> bool {
        self.elections.is_empty()
    }

    /// The Elections that this node holds.
    pub(super) fn holding(&self, now: Instant) -> BTreeSet<Name> {
        let held = self.elections.iter().filter(|(_, e)| e.holds_until(now).is_some());
        held.map(|(name, _)| name.clone()).collect()
    }

    fn template(&self, name: &Name, tied: Option<&Tied>) -> Lease {
        // The garbage collector deletes the Lease with its Service even if no announcer is left to do it.
        let owner = |tied: &Tied| OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            name: tied.name.clone(),
            uid: tied.uid.clone(),
            ..Default::default()
        };
        let annotations = Some(self.annotations.clone()).filter(|some| !some.is_empty());
        let metadata = ObjectMeta {
            namespace: Some(name.namespace.clone()),
            name: Some(name.name.clone()),
            labels: Some([(label::MANAGED_BY.to_owned(), label::BERTH.to_owned())].into()),
            annotations,
            owner_references: tied.map(|tied| vec![owner(tied)]),
            ..Default::default()
        };
        Lease { metadata, spec: None }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn name() -> Name {
        Name::new("d", "kubevip-web")
    }

    fn strive_for(tied: Option<Tied>) -> BTreeMap<Name, Strife> {
        [(name(), Strife { tied, deference: Duration::ZERO })].into()
    }

    fn stored(mut lease: Lease, version: &str) -> Box<Lease> {
        lease.metadata.resource_version = Some(version.to_owned());
        Box::new(lease)
    }

    /// Node `a`, which has just taken the Lease of the Service `d/web`.
    fn holder(now: Instant) -> Elections {
        let mut leases = Elections::new("a", Timing::DEFAULT, BTreeMap::new());
        leases.listed(&BTreeSet::new(), now);
        let tied = Tied { name: "web".to_owned(), uid: "uid".to_owned(), claimed_by: None };
        leases.strive(&strive_for(Some(tied)), |_| true, |_| false, now);
        let (mut requests, _) = leases.poll(now);
        let Some((_, Request::Acquire(Action::Create(lease)))) = requests.pop() else { panic!() };
        let owner = &lease.metadata.owner_references.as_ref().unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("Service", "uid"));
        leases.replied(&name(), Reply::Written(stored(*lease, "1")), now);
        let lapses = leases.holds_until(&name(), now).unwrap().1;
        assert_eq!(lapses, now + Timing::DEFAULT.lapse());
        assert!(leases.holds_until(&name(), now).is_some());
        leases
    }

    #[test]
    fn nothing_is_asked_for_before_the_first_list() {
        let now = Instant::now();
        let mut leases = Elections::new("a", Timing::DEFAULT, BTreeMap::new());
        leases.strive(&strive_for(None), |_| true, |_| false, now);
        assert!(leases.poll(now).0.is_empty());
    }

    #[test]
    fn a_lease_that_is_watched_by_itself_is_asked_for_once_it_was_shown_and_no_list_hides_it() {
        let now = Instant::now();
        let leases = Elections::new("a", Timing::DEFAULT, BTreeMap::new());
        let mut leases = leases.with_apart(Some(name()));
        leases.listed(&BTreeSet::new(), now);
        leases.strive(&strive_for(None), |_| true, |_| false, now);
        assert!(leases.poll(now).0.is_empty(), "the list has no word of it");
        leases.observe(name(), Sight::Absent, now);
        leases.strive(&strive_for(None), |_| true, |_| false, now);
        let (mut requests, _) = leases.poll(now);
        let Some((_, Request::Acquire(Action::Create(lease)))) = requests.pop() else { panic!() };
        leases.replied(&name(), Reply::Written(stored(*lease, "1")), now);
        leases.listed(&BTreeSet::new(), now);
        assert!(leases.holds_until(&name(), now).is_some());
        assert!(leases.poll(now).0.is_empty(), "nor is it read");
    }

    #[test]
    fn a_lease_is_kept_until_nothing_acts_on_it_and_then_given_back() {
        let now = Instant::now();
        let mut leases = holder(now);
        leases.strive(&BTreeMap::new(), |_| false, |_| false, now);
        assert!(leases.holds_until(&name(), now).is_some());
        leases.strive(&BTreeMap::new(), |_| true, |_| false, now);
        assert!(leases.holds_until(&name(), now).is_none());
        let (requests, _) = leases.poll(now);
        let [(_, Request::Elect(Action::Replace(lease)))] = &requests[..] else { panic!() };
        assert_eq!(lease.spec.as_ref().unwrap().holder_identity, None);
        leases.replied(&name(), Reply::Written(stored((**lease).clone(), "2")), now);
        leases.poll(now);
        assert!(leases.is_idle());
    }

    #[test]
    fn the_lease_of_a_service_that_is_gone_is_deleted_as_it_was_seen() {
        let now = Instant::now();
        let mut leases = holder(now);
        leases.strive(&BTreeMap::new(), |_| true, |_| true, now);
        let (requests, _) = leases.poll(now);
        let [(_, Request::Delete(lease))] = &requests[..] else { panic!("{requests:?}") };
        assert_eq!(lease.metadata.resource_version.as_deref(), Some("1"));
        assert!(leases.holds_until(&name(), now).is_none());
    }

    #[test]
    fn a_lease_that_does_not_exist_although_another_node_answers_is_not_created_at_once() {
        let now = Instant::now();
        let mut leases = Elections::new("a", Timing::DEFAULT, BTreeMap::new());
        leases.listed(&BTreeSet::new(), now);
        let claimed_by = Some("b".to_owned());
        let tied = Tied { name: "web".to_owned(), uid: "uid".to_owned(), claimed_by };
        let wanted = strive_for(Some(tied));
        leases.strive(&wanted, |_| true, |_| false, now);
        let end = now + Duration::from_secs(15);
        assert_eq!(leases.poll(now), (Vec::new(), Some(end)));
        leases.strive(&wanted, |_| true, |_| false, end);
        assert_eq!(leases.poll(end).0.len(), 1);
    }

    #[test]
    fn a_lease_of_another_node_or_another_program_is_never_deleted() {
        let now = Instant::now();
        let mut leases = Elections::new("b", Timing::DEFAULT, BTreeMap::new());
        let made = holder(now).known.remove(&name()).unwrap();
        leases.listed(&[name()].into(), now);
        leases.observe(name(), Sight::Present(Box::new(made)), now);
        leases.strive(&BTreeMap::new(), |_| true, |_| true, now);
        assert!(leases.poll(now).0.is_empty());
    }

    #[test]
    fn a_hold_that_is_not_renewed_ends_and_this_node_is_no_holder_any_more() {
        let now = Instant::now();
        let leases = holder(now);
        let end = now + Duration::from_secs(10);
        assert!(leases.holds_until(&name(), now).is_some());
        assert_eq!(leases.holds_until(&name(), end), None);
    }
}
