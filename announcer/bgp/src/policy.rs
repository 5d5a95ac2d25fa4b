//! What each peer is to know of what is announced, and how: rules in order, and what Services were allowed to ask for.

mod selector;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use crate::attributes::{Attributes, Community, LargeCommunity, MOST_PREPENDS};
use crate::prefix::{Family, Prefix};
use crate::rib::Routes;

pub use selector::{Requirement, Selector};

/// An address that this node announces, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The address.
    pub address: IpAddr,
    /// The pool that it is of, by the namespace in its keys (`global`, too); empty where that is not known.
    pub pool: String,
    /// The namespace of its Service or binding.
    pub namespace: String,
    /// The labels of its Service; nothing where it is none's.
    pub labels: Option<Arc<BTreeMap<String, String>>>,
    /// What that asks for, as far as it may.
    pub asked: Asked,
    /// MULTI_EXIT_DISC, whatever rules say: less is preferred (RFC 4271 §5.1.4). For what is at one node at a time, so that of
    /// two that announce it for a moment each router prefers the right one.
    pub med: Option<u32>,
    /// Whether other nodes may announce what this one does and not it: then no prefix stands for it, which would lead there.
    pub is_alone: bool,
    /// Whether this node is about to withdraw it.
    pub shutting_down: bool,
}

impl Announcement {
    /// An address of which nothing else is said.
    pub fn of(address: IpAddr, namespace: &str) -> Self {
        Self {
            address,
            pool: String::new(),
            namespace: namespace.to_owned(),
            labels: None,
            asked: Asked::default(),
            med: None,
            is_alone: false,
            shutting_down: false,
        }
    }
}

/// What the annotations of a Service ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// More communities.
    pub communities: BTreeSet<Community>,
    /// More large communities.
    pub large_communities: BTreeSet<LargeCommunity>,
    /// Another preference.
    pub local_pref: Option<u32>,
    /// These peers alone, by their names.
    pub peers: Option<BTreeSet<String>>,
}

/// What a rule is about. Nothing said means any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Peers, by their names.
    pub peers: BTreeSet<String>,
    /// Pools, by the namespace in their keys.
    pub pools: BTreeSet<String>,
    /// Namespaces of Services and bindings.
    pub namespaces: BTreeSet<String>,
    /// Services, by their labels, and nothing else.
    pub services: Option<Selector>,
}

impl Filter {
    /// Whether it is about this address and this peer.
    pub fn takes(&self, peer: &str, announcement: &Announcement) -> bool {
        let Announcement { pool, namespace, labels, .. } = announcement;
        among(&self.peers, peer) && self.covers(pool, namespace, labels.as_deref())
    }

    /// Whether it is about an address of this pool and namespace, and of a Service with these labels, whatever peers it names.
    pub fn covers(
        &self,
        pool: &str,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
    ) -> bool {
        let selects = |selector: &Selector| labels.is_some_and(|labels| selector.selects(labels));
        among(&self.pools, pool)
            && among(&self.namespaces, namespace)
            && self.services.as_ref().is_none_or(selects)
    }
}

/// Whether a name is one of these, or none is said.
fn among(names: &BTreeSet<String>, name: &str) -> bool {
    names.is_empty() || names.contains(name)
}

/// What a rule changes. What it does not say stays as earlier rules have it; communities are added to theirs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Whether it is announced at all.
    pub announce: Option<bool>,
    /// LOCAL_PREF.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// How often the own AS is repeated.
    pub prepend: Option<u8>,
    /// More communities.
    pub communities: BTreeSet<Community>,
    /// More large communities.
    pub large_communities: BTreeSet<LargeCommunity>,
    /// A prefix in place of the address.
    pub widened: Option<Widened>,
}

/// How long the prefix is that stands for all addresses in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Widened {
    /// Of IPv4.
    pub v4: u8,
    /// Of IPv6.
    pub v6: u8,
}

impl Default for Widened {
    fn default() -> Self {
        Self { v4: Family::V4.bits(), v6: Family::V6.bits() }
    }
}

/// A rule.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// What it is about.
    pub filter: Filter,
    /// What it changes.
    pub change: Change,
}

/// Rules, in order. Without any, each peer is told of each address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// The rules.
    pub rules: Vec<Rule>,
}

impl Policy {
    /// What a peer is to know of these announcements. Where several are in one prefix, it has the communities of all, and
    /// the rest of the lowest address among those that do not go; it goes with the last of them. What one of them says of
    /// itself, by its labels or by what it asks for, is not said of what is of others, too.
    pub fn routes<'a>(
        &self,
        peer: &str,
        announcements: impl IntoIterator<Item = &'a Announcement>,
    ) -> Routes {
        let mut all: Vec<&Announcement> = announcements.into_iter().collect();
        all.sort_by_key(|announcement| (announcement.shutting_down, announcement.address));
        let mut merged: BTreeMap<Prefix, (Attributes, bool)> = BTreeMap::new();
        for announcement in all {
            let Some(Decided { prefix, attributes, .. }) = self.decide(peer, announcement) else {
                continue;
            };
            let going = announcement.shutting_down;
            let (first, all_go) =
                merged.entry(prefix).or_insert_with(|| (attributes.clone(), going));
            *all_go &= going;
            first.communities.extend(attributes.communities);
            first.large_communities.extend(attributes.large_communities);
        }
        let mut shared: BTreeSet<Arc<Attributes>> = BTreeSet::new();
        let mut share = |attributes: Attributes| {
            if let Some(known) = shared.get(&attributes) {
                return Arc::clone(known);
            }
            let new = Arc::new(attributes);
            shared.insert(Arc::clone(&new));
            new
        };
        let going = |(prefix, (attributes, goes)): (Prefix, (Attributes, bool))| {
            (prefix, share(if goes { attributes.shutting_down() } else { attributes }))
        };
        merged.into_iter().map(going).collect()
    }

    /// What of what is asked for at this address a peer is not told, since what rules say leaves no room for it.
    pub fn left_out(&self, peer: &str, announcement: &Announcement) -> LeftOut {
        self.decide(peer, announcement).map(|decided| decided.left_out).unwrap_or_default()
    }

    /// What a peer is to know of one address, before others in the same prefix are looked at; nothing where it is to know
    /// nothing.
    fn decide(&self, peer: &str, announcement: &Announcement) -> Option<Decided> {
        let asked = &announcement.asked;
        if asked.peers.as_ref().is_some_and(|peers| !peers.contains(peer)) {
            return None;
        }
        let rules = || self.rules.iter().filter(|rule| rule.filter.takes(peer, announcement));
        let (mut announce, mut widened) = (true, Widened::default());
        for Rule { change, .. } in rules() {
            announce = change.announce.unwrap_or(announce);
            widened = change.widened.unwrap_or(widened);
        }
        let length = match announcement.address {
            IpAddr::V4(_) => widened.v4,
            IpAddr::V6(_) => widened.v6,
        };
        let host = Prefix::host(announcement.address);
        let prefix = if announcement.is_alone { host } else { host.widened(length) };
        let is_own = prefix == host;
        let mut attributes = Attributes::default();
        for Rule { change, .. } in rules().filter(|rule| is_own || rule.filter.services.is_none()) {
            attributes.local_pref = change.local_pref.or(attributes.local_pref);
            attributes.med = change.med.or(attributes.med);
            attributes.prepend = change.prepend.unwrap_or(attributes.prepend).min(MOST_PREPENDS);
            attributes.communities.extend(&change.communities);
            attributes.large_communities.extend(&change.large_communities);
        }
        let mut left_out = LeftOut::default();
        if is_own {
            attributes.med = announcement.med.or(attributes.med);
            attributes.local_pref = asked.local_pref.or(attributes.local_pref);
            let left = attributes.ask(&asked.communities, &asked.large_communities);
            (left_out.communities, left_out.large_communities) = left;
        }
        announce.then_some(Decided { prefix, attributes, left_out })
    }
}

/// What is decided of one address.
struct Decided {
    prefix: Prefix,
    attributes: Attributes,
    left_out: LeftOut,
}

/// What is asked for and not told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Communities.
    pub communities: BTreeSet<Community>,
    /// Large communities.
    pub large_communities: BTreeSet<LargeCommunity>,
}

impl LeftOut {
    /// Whether it is nothing.
    pub fn is_nothing(&self) -> bool {
        self.communities.is_empty() && self.large_communities.is_empty()
    }

    /// Adds what another peer is not told.
    pub fn extend(&mut self, other: &Self) {
        self.communities.extend(&other.communities);
        self.large_communities.extend(&other.large_communities);
    }
}

#[cfg(test)]
mod tests;
