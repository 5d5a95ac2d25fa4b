//! Who may serve an address, and who had better: one pure function, for every way of announcing. What comes of it in every
//! case is in docs/serving.md, which its test writes.

#[cfg(test)]
mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use berth_membership::NodeId;

use super::nodes::{Peers, Stay};

/// Where traffic for an address may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Traffic {
    /// From any node to any endpoint.
    Cluster,
    /// To endpoints of the same node only (`externalTrafficPolicy: Local`).
    Local,
    /// Anywhere, whether or not there is an endpoint: a Service says so, or the operator names the address.
    Anyhow,
    /// To the one node that the object names, which has the VM; nobody while it names none.
    Named(Option<String>),
}

/// Where endpoints are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Where {
    /// Whether there is one at all; it need not be on a node.
    pub any: bool,
    /// The nodes that have one.
    pub nodes: BTreeSet<String>,
}

impl Where {
    /// Takes in more of them.
    pub fn extend(&mut self, more: &Self) {
        self.any |= more.any;
        self.nodes.extend(more.nodes.iter().cloned());
    }
}

/// The endpoints of a Service, of one family.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Endpoints {
    /// Those that are ready.
    pub ready: Where,
    /// Those that are being ended and serve until then: kube-proxy leads to them where none is ready (KEP-1669).
    pub serving: Where,
}

/// What of an object says who could serve its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serving {
    /// Where its traffic may go.
    pub traffic: Traffic,
    /// Where that ends.
    pub endpoints: Endpoints,
}

impl Serving {
    /// Nobody could.
    pub fn nobody() -> Self {
        Self::of(Traffic::Named(None))
    }

    /// What has no endpoints.
    pub fn of(traffic: Traffic) -> Self {
        Self { traffic, endpoints: Endpoints::default() }
    }

    /// Whether `node` could, whatever is known of it besides.
    pub fn has(&self, node: &str) -> bool {
        match &self.traffic {
            Traffic::Local => self.sides().any(|side| side.nodes.contains(node)),
            Traffic::Named(named) => named.as_deref() == Some(node),
            Traffic::Cluster | Traffic::Anyhow => self.is_everywhere(),
        }
    }

    /// Whether nobody could.
    pub fn is_empty(&self) -> bool {
        match &self.traffic {
            Traffic::Local => self.sides().all(|side| side.nodes.is_empty()),
            Traffic::Named(named) => named.is_none(),
            Traffic::Cluster | Traffic::Anyhow => !self.is_everywhere(),
        }
    }

    /// Whether every node could.
    pub fn is_everywhere(&self) -> bool {
        match self.traffic {
            Traffic::Anyhow => true,
            Traffic::Cluster => self.sides().any(|side| side.any),
            Traffic::Local | Traffic::Named(_) => false,
        }
    }

    /// Whether this is the node that the object names.
    pub fn is_named(&self, node: &str) -> bool {
        matches!(&self.traffic, Traffic::Named(Some(named)) if named == node)
    }

    /// The nodes that could; nothing for all of them.
    pub fn nodes(&self) -> Option<BTreeSet<&str>> {
        match &self.traffic {
            Traffic::Local => {
                let nodes = self.sides().flat_map(|side| &side.nodes);
                Some(nodes.map(String::as_str).collect())
            }
            Traffic::Named(named) => Some(named.as_deref().into_iter().collect()),
            Traffic::Cluster | Traffic::Anyhow if self.is_everywhere() => None,
            Traffic::Cluster | Traffic::Anyhow => Some(BTreeSet::new()),
        }
    }

    /// Why `node` could not; nothing if it could.
    pub fn why_not(&self, node: &str) -> Option<Why> {
        match &self.traffic {
            _ if self.has(node) => None,
            Traffic::Named(_) => Some(Why::Elsewhere),
            Traffic::Local if !self.is_empty() => Some(Why::NoLocalEndpoint),
            Traffic::Local if self.sides().any(|side| side.any) => Some(Why::EndpointWithoutNode),
            _ => Some(Why::NoEndpoint),
        }
    }

    fn sides(&self) -> impl Iterator<Item = &Where> {
        [&self.endpoints.ready, &self.endpoints.serving].into_iter()
    }
}

/// The same for addresses of each family: an EndpointSlice is of one.
#[derive(Clone, Debug, PartialEq)]
pub struct ByFamily {
    /// Of IPv4.
    pub v4: Arc<Serving>,
    /// Of IPv6.
    pub v6: Arc<Serving>,
}

impl ByFamily {
    /// The one of an address.
    pub fn of(&self, address: &IpAddr) -> &Arc<Serving> {
        if address.is_ipv4() { &self.v4 } else { &self.v6 }
    }
}

/// Who lives and runs an announcer.
#[derive(Clone, Copy, Debug)]
pub enum Lives<'a> {
    /// These, as a majority of nodes sees it.
    Known(&'a BTreeSet<NodeId>),
    /// It is not known: the election finds out.
    Unknown,
}

/// How well this node reaches those who ask for the address. Only it knows: others count as `Good`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// It has the place for it.
    Good,
    /// No fence stands there, or the interface came back only lately.
    Poor,
    /// It has no place for it, or the kernel does not take it.
    None,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What the object says.
    pub serving: &'a Serving,
    /// The nodes there are; nothing where they may not be looked at.
    pub nodes: Option<&'a Peers>,
    /// Which of them live.
    pub lives: Lives<'a>,
    /// This node.
    pub me: &'a str,
    /// What it reaches.
    pub reach: Reach,
}

/// How late a node's turn is: the smaller goes first. Nobody is left out for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// It is being emptied.
    pub emptied: bool,
    /// What it has are endpoints that are being ended, and its traffic goes to no other.
    pub leaving: bool,
    /// It is cordoned, and its traffic finds an endpoint from anywhere.
    pub cordoned: bool,
    /// It does not reach it well.
    pub poor: bool,
}

impl Rank {
    /// What stands before who had the address last.
    pub fn tier(self) -> u8 {
        u8::from(self.emptied) << 2 | u8::from(self.leaving) << 1 | u8::from(self.cordoned)
    }

    /// Whether who has the address gives it to a live node of a lower tier. Who is cordoned keeps what it has.
    pub fn moves(self) -> bool {
        self.emptied || self.leaving
    }

    /// The worse of both, where one node is to serve two.
    pub fn and(self, other: Self) -> Self {
        Self {
            emptied: self.emptied || other.emptied,
            leaving: self.leaving || other.leaving,
            cordoned: self.cordoned || other.cordoned,
            poor: self.poor || other.poor,
        }
    }
}

/// Why a node may not serve an address, or nobody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// No endpoint is ready anywhere, nor serves until it ends.
    NoEndpoint,
    /// There are endpoints, on other nodes, and traffic may go to those of the same node only.
    NoLocalEndpoint,
    /// There are endpoints, on no node, and traffic may go to those of the same node only.
    EndpointWithoutNode,
    /// The object names another node, or none.
    Elsewhere,
    /// This node is none of the cluster's.
    NoNode,
    /// This node has no place for it.
    OutOfReach,
    /// None of those who could is seen to live.
    NoLiveNode,
}

/// Who may serve an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Serves<'a> {
    /// Those who may, whether or not they live: what is known of that may be late.
    pub ranks: BTreeMap<&'a str, Rank>,
    /// Why this node may not.
    pub here: Option<Why>,
    /// Why nobody does, as far as that is known here.
    pub nobody: Option<Why>,
}

impl Serves<'_> {
    /// Whether another node's turn is before that of `node`.
    pub fn is_beaten(&self, node: &str) -> bool {
        let mine = self.ranks.get(node).map(|rank| rank.tier());
        mine.is_some_and(|mine| self.ranks.values().any(|rank| rank.tier() < mine))
    }
}

/// Who may serve an address.
///
/// 1. Ready endpoints decide. Endpoints that are being ended and still serve count where none is ready: anywhere, or with
///    `Local` on a node, which then goes after those with ready ones.
/// 2. No node is left out for being cordoned or emptied: it goes later, and so the last one that lives has its turn.
/// 3. To be cordoned is to go later where traffic finds an endpoint from anywhere, and nothing else.
/// 4. The one node that an object names is that, whatever it is.
/// 5. Who lives takes nobody out. A node without an announcer never lives.
/// 6. What this node cannot reach it may not serve. What others cannot reach they know.
pub fn serve<'a>(ask: Ask<'a>) -> Serves<'a> {
    let Ask { serving, nodes, lives, me, reach } = ask;
    let rank = |name: &str| {
        let stay = nodes.and_then(|nodes| nodes.stay(name)).unwrap_or_default();
        let is_local = serving.traffic == Traffic::Local;
        Rank {
            emptied: stay == Stay::Emptied,
            leaving: is_local && !serving.endpoints.ready.nodes.contains(name),
            cordoned: stay == Stay::Cordoned && !is_local,
            poor: name == me && reach == Reach::Poor,
        }
    };
    let is_node = |name: &&str| nodes.is_none_or(|nodes| nodes.stay(name).is_some());
    let mut ranks: BTreeMap<&str, Rank> = match (&serving.traffic, serving.nodes()) {
        (Traffic::Named(named), _) => {
            named.iter().map(|named| (named.as_str(), Rank::default())).collect()
        }
        (_, Some(some)) => {
            some.into_iter().filter(is_node).map(|name| (name, rank(name))).collect()
        }
        (_, None) => match nodes {
            Some(nodes) => nodes.iter().map(|(name, _)| (name, rank(name))).collect(),
            None => [(me, rank(me))].into(),
        },
    };
    let could = ranks.contains_key(me);
    if reach == Reach::None {
        ranks.remove(me);
    }
    let here = match serving.why_not(me) {
        None if !could => Some(Why::NoNode),
        None if reach == Reach::None => Some(Why::OutOfReach),
        why => why,
    };
    let is_live =
        |live: &BTreeSet<NodeId>| ranks.keys().any(|name| live.contains(&NodeId::of(name)));
    let nobody = match lives {
        _ if serving.is_empty() => here,
        Lives::Known(live) if !is_live(live) => Some(Why::NoLiveNode),
        _ => None,
    };
    Serves { ranks, here, nobody }
}

/// Which of those who share an address, in their order, cannot be served where those before them can: the first decides
/// where it is, and after it those that decide as well. Who has no endpoint at all is in nobody's way.
pub fn apart<'a>(sharers: impl Iterator<Item = (&'a Serving, bool)>) -> BTreeSet<usize> {
    let mut together: Option<BTreeSet<&str>> = None;
    let mut apart = BTreeSet::new();
    let sharers = sharers.enumerate().filter(|(_, (sharer, _))| !sharer.is_empty());
    for (at, (sharer, decides)) in sharers {
        let Some(nodes) = sharer.nodes() else { continue };
        let both = match &together {
            Some(known) => known.intersection(&nodes).copied().collect(),
            None => nodes,
        };
        match both.is_empty() {
            true => _ = apart.insert(at),
            false if decides => together = Some(both),
            false => {}
        }
    }
    apart
}
