//! What a router is to be, and what it says, in words of no program.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use anyhow::Result;

/// The file in its folder that has what comes out of a router's processes.
pub(crate) const OUTPUT: &str = "output";

/// What a router is to be: it takes everything and announces nothing.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its AS.
    pub asn: u32,
    /// Its BGP Identifier.
    pub router_id: Ipv4Addr,
    /// Who it speaks to.
    pub neighbors: Vec<Neighbor>,
    /// Whether it forwards by what it learns, to all of several ways. GoBGP never does.
    pub forwards: bool,
    /// More beside its neighbours, as the program writes it: one line each.
    pub more: Vec<String>,
}

/// One that a router speaks to, both families.
#[derive(Clone, Debug)]
pub struct Neighbor {
    /// What it is called, by letters, digits and `_`.
    pub name: String,
    /// The router's own address towards it.
    pub own: IpAddr,
    /// Its address.
    pub address: IpAddr,
    /// The interface, where the address is one of a link.
    pub link: Option<String>,
    /// Whether both know each other on the link by router advertisements: the router sends some, and goes by those of the
    /// neighbour where the program can. GoBGP sends none.
    pub unnumbered: bool,
    /// Its AS.
    pub asn: u32,
    /// TCP-MD5.
    pub password: Option<String>,
    /// Whether its routes are kept while it restarts (RFC 4724).
    pub keeps: bool,
    /// Whether the router connects, in place of waiting for it.
    pub connects: bool,
    /// More, as the program writes it: one line each.
    pub more: Vec<String>,
}

impl Neighbor {
    /// One that connects, without a password, whose routes go with its session.
    pub fn new(own: impl Into<IpAddr>, address: impl Into<IpAddr>, asn: u32) -> Self {
        Self {
            name: "node".to_owned(),
            own: own.into(),
            address: address.into(),
            link: None,
            unnumbered: false,
            asn,
            password: None,
            keeps: false,
            connects: false,
            more: vec![],
        }
    }

    /// Its address, with the interface where that belongs to it.
    pub(crate) fn scoped(&self) -> String {
        match &self.link {
            Some(link) => format!("{}%{link}", self.address),
            None => self.address.to_string(),
        }
    }
}

/// A family of routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

impl Family {
    /// That of a prefix.
    pub fn of(prefix: &str) -> Self {
        if prefix.contains(':') { Self::V6 } else { Self::V4 }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V4 { "ipv4" } else { "ipv6" })
    }
}

/// One way to a prefix, as a router has it in its table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Route {
    /// The name of the neighbour that has told it.
    pub from: String,
    /// Where it leads: the address of the link, too, where that was told.
    pub next_hops: BTreeSet<IpAddr>,
    /// The ASes it has come by, the nearest first.
    pub as_path: Vec<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// LOCAL_PREF, as the router has it: FRR and GoBGP give one of their own to routes of another AS.
    pub local_pref: Option<u32>,
    /// Communities, as `65000:7`.
    pub communities: BTreeSet<String>,
    /// Large communities, as `65000:1:2`.
    pub large_communities: BTreeSet<String>,
    /// Whether it is kept of an earlier session.
    pub is_stale: bool,
}

/// A session, as a router sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// Established.
    pub is_up: bool,
    /// Seconds that the neighbour may take to restart, where it has said so.
    pub restart_time: Option<u64>,
    /// UPDATE messages that have come, where the program counts them: BIRD counts routes.
    pub updates: Option<u64>,
}

/// A process of a router.
#[derive(Clone, Debug)]
pub struct Daemon {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// What is there once it answers.
    pub answers: PathBuf,
}

/// A program that is a router.
pub trait Program: fmt::Debug + Sync {
    /// What it is called.
    fn name(&self) -> &'static str;

    /// Writes its configuration into a folder, and says how it is started, in this order.
    ///
    /// # Errors
    /// Where the folder cannot be written, or the program is not to be had.
    fn configure(&self, plan: &Plan, folder: &Path) -> Result<Vec<Daemon>>;

    /// All ways to a prefix that it has.
    ///
    /// # Errors
    /// Where it does not answer.
    fn routes(&self, plan: &Plan, folder: &Path, prefix: &str) -> Result<Vec<Route>>;

    /// How many ways of a family are in its table, of all neighbours, those that are kept of earlier sessions too.
    ///
    /// # Errors
    /// Where it does not answer.
    fn count(&self, folder: &Path, family: Family) -> Result<usize>;

    /// The session with a neighbour.
    ///
    /// # Errors
    /// Where it does not answer.
    fn session(&self, folder: &Path, neighbor: &Neighbor) -> Result<Session>;

    /// What it says to a command of its own.
    ///
    /// # Errors
    /// Where it does not answer, or refuses.
    fn says(&self, folder: &Path, command: &str) -> Result<String>;

    /// What it has logged, and what came out of it.
    fn log(&self, folder: &Path) -> String {
        let files = ["log", OUTPUT].map(|name| std::fs::read_to_string(folder.join(name)));
        files.into_iter().map(Result::unwrap_or_default).collect()
    }
}

/// The name of the neighbour at an address.
pub(crate) fn name_of(plan: &Plan, address: &str) -> String {
    let address = address.split('%').next().unwrap_or_default();
    let is = |neighbor: &&Neighbor| neighbor.address.to_string() == address;
    plan.neighbors.iter().find(is).map_or_else(|| address.to_owned(), |known| known.name.clone())
}
