//! What is known of each peer, for whoever publishes it. A value.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use berth_api::host::Routers;
use berth_bgp::config::Permits;
use berth_bgp::{Family, Filter, LeftOut, Prefix, State};

use super::addresses::OfRouters;

/// What is known of all peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// By name.
    pub peers: BTreeMap<String, PeerTold>,
    /// Those whose sessions were up in an earlier life and are waited for.
    pub awaited: BTreeSet<String>,
    /// Why there are no peers, where that is so.
    pub absence: Absence,
    /// Families of which no router is told anything by any node.
    pub unspoken: BTreeSet<Family>,
    /// What Services may ask for; nothing before the ConfigMap was looked for.
    pub permits: Option<Arc<Permits>>,
    /// What neighbours on the LAN are told of, and no router; nothing before the ConfigMap was looked for.
    pub layer2: Option<Arc<Vec<Filter>>>,
    /// The ports at which routers are spoken to, while there is any peer.
    pub ports: Arc<BTreeSet<u16>>,
    /// What is nobody's to have.
    pub addresses: Arc<OfRouters>,
}

/// Why a node has no peers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Absence {
    /// It is not known yet which it has.
    #[default]
    Unknown,
    /// Nothing names any.
    Nobody,
    /// What is said of them is wrong.
    Wrong,
    /// These are for other nodes: this one is to have none.
    Others(Vec<String>),
}

/// Names that are told of those that are for others.
const MOST_NAMES: usize = 4;

impl fmt::Display for Absence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("it is not known yet which peers this node has"),
            Self::Nobody => f.write_str(
                "no peer is named: neither by bgp_peers, nor in ConfigMap berth-bgp, nor by annotations of the node",
            ),
            Self::Wrong => f.write_str("no peer is named that is right"),
            Self::Others(names) => {
                let more = if names.len() > MOST_NAMES { ", ..." } else { "" };
                let names = names[..names.len().min(MOST_NAMES)].join(", ");
                write!(f, "no peer is for this node; for nodes with other labels: {names}{more}")
            }
        }
    }
}

/// What is known of one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTold {
    /// Where it is, for people.
    pub at: String,
    /// How far the session is.
    pub state: State,
    /// Since when it has been up, or has not.
    pub since: Option<Instant>,
    /// Why it was not up the last time, or what is in its way.
    pub last: Option<String>,
    /// When that was, of a session that has begun.
    pub last_at: Option<Instant>,
    /// The AS and the identifier of the router, while it is up.
    pub is: Option<(u32, Ipv4Addr)>,
    /// How many routes it has been told.
    pub routes: BTreeMap<Family, usize>,
    /// Families that are wanted and of which it is told nothing while its session is up, each with why.
    pub untold: BTreeMap<Family, &'static str>,
    /// The addresses that it has been told of, and has not been told to forget.
    pub knows: Arc<BTreeSet<IpAddr>>,
    /// Whether it has been told everything since its session is up, the end of it too (RFC 4724 §2).
    pub is_complete: bool,
    /// Whether it keeps routes while this process restarts, as far as that is known: it is asked to, and says that it does once
    /// its session is up.
    pub survives: bool,
    /// How long it may lead addresses here of which it hears nothing any more.
    pub keeps: Duration,
    /// Those that it is to be told of, by rules and by what Services ask for, whatever its family.
    pub meant: Arc<BTreeSet<IpAddr>>,
    /// The prefixes among what it is to be told that stand for addresses.
    pub wide: Arc<BTreeSet<Prefix>>,
    /// What it is not told of what Services ask for, since rules leave no room for it.
    pub left_out: Arc<BTreeMap<IpAddr, LeftOut>>,
}

impl Default for PeerTold {
    fn default() -> Self {
        Self {
            at: String::new(),
            state: State::Idle,
            since: None,
            last: None,
            last_at: None,
            is: None,
            routes: BTreeMap::new(),
            untold: BTreeMap::new(),
            knows: Arc::default(),
            is_complete: false,
            survives: false,
            keeps: Duration::ZERO,
            meant: Arc::default(),
            wide: Arc::default(),
            left_out: Arc::default(),
        }
    }
}

impl PeerTold {
    /// Whether its session is up.
    pub fn is_up(&self) -> bool {
        self.state == State::Established
    }

    /// Whether it is told routes of a family.
    fn hears(&self, family: Family) -> bool {
        self.is_up() && self.routes.contains_key(&family)
    }
}

impl Told {
    /// The addresses that some peer knows.
    pub fn known(&self) -> BTreeSet<IpAddr> {
        self.peers.values().flat_map(|peer| peer.knows.iter().copied()).collect()
    }

    /// The peers that know an address.
    pub fn knowing<'a>(&'a self, address: &'a IpAddr) -> impl Iterator<Item = &'a str> {
        let knowing = self.peers.iter().filter(|(_, peer)| peer.knows.contains(address));
        knowing.map(|(name, _)| name.as_str())
    }

    /// Whether there are peers, and each has been told everything.
    pub fn is_complete(&self) -> bool {
        !self.peers.is_empty() && self.peers.values().all(|peer| peer.is_complete)
    }

    /// Whether a peer keeps routes while this process restarts.
    pub fn survives(&self) -> bool {
        self.peers.values().any(|peer| peer.survives)
    }

    /// How long a peer may lead addresses here of which it hears nothing any more.
    pub fn keeps(&self) -> Duration {
        self.peers.values().map(|peer| peer.keeps).max().unwrap_or_default()
    }

    /// What the node tells of it.
    pub fn routers(&self) -> Routers {
        let complete = self.peers.iter().filter(|(_, peer)| peer.is_complete);
        let complete = complete.map(|(name, _)| name);
        let sessions = complete.chain(&self.awaited).cloned().collect();
        let addresses = self.addresses.own.clone();
        Routers { sessions, keeps: self.keeps(), addresses }
    }

    /// What some peer is not told of what is asked for at an address.
    pub fn left_out(&self, address: &IpAddr) -> LeftOut {
        let mut all = LeftOut::default();
        let of_peers = self.peers.values().filter_map(|peer| peer.left_out.get(address));
        of_peers.for_each(|left| all.extend(left));
        all
    }

    /// Whether each peer that is up and of its family is to be told nothing of an address.
    pub fn is_kept(&self, address: &IpAddr) -> bool {
        let family = Family::of(*address);
        let mut hearing = self.peers.values().filter(|peer| peer.hears(family)).peekable();
        hearing.peek().is_some() && hearing.all(|peer| !peer.meant.contains(address))
    }

    /// Why no session is up, by peer; nothing where one is.
    pub fn silence(&self) -> Option<String> {
        if self.peers.values().any(PeerTold::is_up) {
            return None;
        }
        Some(match self.down() {
            None => format!("no session is up: {}", self.absence),
            Some(each) => format!("no session is up: {each}"),
        })
    }

    /// Whether this node is to have no peers: nothing is wrong with that.
    pub fn is_apart(&self) -> bool {
        self.peers.is_empty() && matches!(self.absence, Absence::Others(_))
    }

    /// The peers whose sessions are not up, each with why; nothing where there are none.
    pub fn down(&self) -> Option<String> {
        let why = |(name, peer): (&String, &PeerTold)| {
            format!("{name}: {}", peer.last.as_deref().unwrap_or("not yet"))
        };
        let down = self.peers.iter().filter(|(_, peer)| !peer.is_up());
        let each: Vec<String> = down.map(why).collect();
        (!each.is_empty()).then(|| each.join("; "))
    }

    /// Why no router is told of addresses of a family; nothing where one is.
    pub fn silence_of(&self, family: Family) -> Option<String> {
        if self.peers.values().any(|peer| peer.hears(family)) {
            return None;
        }
        Some(self.silence().unwrap_or_else(|| {
            format!(
                "no peer is told routes of {family} (families of a peer in ConfigMap berth-bgp, mpbgp_nexthop of a setting, or a peer of that family)"
            )
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_session_is_enough_and_without_any_each_peer_says_why() {
        let peer = |state, last: Option<&str>| PeerTold {
            state,
            last: last.map(str::to_owned),
            ..PeerTold::default()
        };
        let mut told = Told::default();
        assert!(told.silence().unwrap().ends_with("not known yet which peers this node has"));
        assert!(!told.is_apart());
        told.absence = Absence::Others(["a", "b", "c", "d", "e"].map(str::to_owned).into());
        let why = "no session is up: no peer is for this node; for nodes with other labels: a, b, c, d, ...";
        assert_eq!(told.silence().as_deref(), Some(why));
        assert!(told.is_apart());
        told.peers.insert("b".to_owned(), peer(State::Active, None));
        told.peers.insert("a".to_owned(), peer(State::Idle, Some("cannot connect: refused")));
        let why = "no session is up: a: cannot connect: refused; b: not yet";
        assert_eq!(told.silence().as_deref(), Some(why));
        told.peers.insert("b".to_owned(), peer(State::Established, None));
        assert_eq!(told.silence(), None);
        assert_eq!(told.down().as_deref(), Some("a: cannot connect: refused"));
        assert!(!told.is_apart());
        let up = told.peers.get_mut("b").unwrap();
        up.routes.insert(Family::V4, 0);
        assert_eq!(told.silence_of(Family::V4), None);
        assert!(told.silence_of(Family::V6).unwrap().contains("routes of IPv6"));
    }

    #[test]
    fn what_no_peer_of_its_family_is_to_be_told_of_is_kept_from_all() {
        let address: IpAddr = "192.0.2.1".parse().unwrap();
        let mut told = Told::default();
        assert!(!told.is_kept(&address), "nobody is there to keep it from");
        let up = |meant: &[IpAddr]| PeerTold {
            state: State::Established,
            routes: [(Family::V4, 0)].into(),
            meant: Arc::new(meant.iter().copied().collect()),
            ..PeerTold::default()
        };
        told.peers.insert("a".to_owned(), up(&[]));
        assert!(told.is_kept(&address) && !told.is_kept(&"2001:db8::1".parse().unwrap()));
        told.peers.insert("b".to_owned(), up(&[address]));
        assert!(!told.is_kept(&address));
    }
}
