//! Owns the words for who holds what. A [`Claim`] never has two sharers that want one port.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use crate::keys::Scope;

/// What kind of object holds an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OwnerKind {
    /// A Service of type LoadBalancer.
    Service,
    /// An EipBinding of a virtual machine.
    EipBinding,
    /// A VipProxy.
    VipProxy,
}

impl fmt::Display for OwnerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// One object of the cluster. The uid tells it from a later object of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// Its kind.
    pub kind: OwnerKind,
    /// Its namespace, which decides the pool and the quota.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its `metadata.uid`.
    pub uid: String,
}

impl Owner {
    /// The object of that kind, namespace, name and uid.
    pub fn new(
        kind: OwnerKind,
        namespace: impl Into<String>,
        name: impl Into<String>,
        uid: impl Into<String>,
    ) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into(), uid: uid.into() }
    }

    /// All objects of this kind, namespace and name.
    pub(crate) fn nameless(&self) -> Self {
        Self { uid: String::new(), ..self.clone() }
    }

    /// Whether both have kind, namespace and name in common, whatever their uids.
    pub fn same_name(&self, other: &Self) -> bool {
        (self.kind, &self.namespace, &self.name) == (other.kind, &other.namespace, &other.name)
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A transport protocol of a Service port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
            Self::Sctp => "SCTP",
        })
    }
}

/// The text is no protocol of a Service port.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no protocol; accepted are TCP, UDP and SCTP")]
pub struct UnknownProtocol(String);

impl FromStr for Protocol {
    type Err = UnknownProtocol;

    /// Reads it as the Service API writes it.
    fn from_str(text: &str) -> Result<Self, UnknownProtocol> {
        match text {
            "TCP" => Ok(Self::Tcp),
            "UDP" => Ok(Self::Udp),
            "SCTP" => Ok(Self::Sctp),
            _ => Err(UnknownProtocol(text.to_owned())),
        }
    }
}

/// `spec.externalTrafficPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum TrafficPolicy {
    /// Any node may take the traffic.
    #[default]
    Cluster,
    /// Only a node with an endpoint may.
    Local,
}

/// What a Service must tell to share an address with others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Sharing {
    /// The ports it listens on. Without any it takes the whole address.
    pub ports: BTreeSet<(Protocol, u16)>,
    /// Its traffic policy. Sharers agree on it, because one node answers for all of them.
    pub policy: TrafficPolicy,
}

impl Sharing {
    /// Whether both fit on one address: equal policy, and ports that are disjoint as (protocol, port).
    pub fn fits(&self, other: &Self) -> bool {
        self.policy == other.policy
            && !self.ports.is_empty()
            && !other.ports.is_empty()
            && self.ports.is_disjoint(&other.ports)
    }
}

/// An address given to one owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Who holds it.
    pub owner: Owner,
    /// Its ports, if it could share; `None` takes the whole address.
    pub sharing: Option<Sharing>,
    /// The pool it came from; `None` if the user asked for an address outside every pool.
    pub pool: Option<Scope>,
}

impl Grant {
    /// A grant of a whole address, from no pool.
    pub fn new(owner: Owner) -> Self {
        Self { owner, sharing: None, pool: None }
    }

    /// The same with ports and policy, so that others may join where the pool allows it.
    pub fn sharing(self, sharing: Option<Sharing>) -> Self {
        Self { sharing, ..self }
    }

    /// The same with the pool it came from.
    pub fn in_pool(self, pool: Option<Scope>) -> Self {
        Self { pool, ..self }
    }

    /// What of these ports and this policy keeps it from sharing the address, if both could share one.
    pub(crate) fn clash(&self, sharing: Option<&Sharing>) -> Option<Clash> {
        let (mine, theirs) = self.sharing.as_ref().zip(sharing)?;
        let port = mine.ports.intersection(&theirs.ports).next().copied();
        let what = port
            .map(Contested::Port)
            .or_else(|| (mine.policy != theirs.policy).then_some(Contested::Policy(mine.policy)));
        Some(Clash { by: self.owner.clone(), what: what? })
    }

    /// Whether both fit on one address.
    pub(crate) fn fits(&self, sharing: Option<&Sharing>) -> bool {
        matches!((&self.sharing, sharing), (Some(mine), Some(theirs)) if mine.fits(theirs))
    }
}

/// What keeps two from sharing an address, who both may.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// The other, who holds the address.
    by: Owner,
    what: Contested,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contested {
    Port((Protocol, u16)),
    Policy(TrafficPolicy),
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { by, what } = self;
        match what {
            Contested::Port((protocol, port)) => write!(
                f,
                "{by} has port {protocol}/{port} there: accepted are ports that no other has there, of TCP, UDP and SCTP each"
            ),
            Contested::Policy(policy) => {
                write!(f, "{by} has externalTrafficPolicy {policy:?} there: accepted is the same")
            }
        }
    }
}

/// So many may share an address, and so many ports they may have together: a claim names all of them, and an object of
/// Kubernetes has room for 256 KiB of annotations.
const MOST_SHARERS: usize = 512;
const MOST_PORTS: usize = 8192;

/// The same for each namespace but the one that had the address first, so that there is room for that and for others.
const MOST_SHARERS_OF_ONE: usize = 64;
const MOST_PORTS_OF_ONE: usize = 1024;

/// Why no more come to share an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Full {
    /// Its claim has no room, and so many are there.
    Claim(usize),
    /// This namespace may have no more there, and has so many.
    Namespace(String, usize),
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Claim(count) => write!(
                f,
                "is shared by {count} Services: its claim has no room for more (accepted are \
                 {MOST_SHARERS}, and {MOST_PORTS} ports together)"
            ),
            Self::Namespace(name, count) => write!(
                f,
                "is shared by {count} Services of namespace {name}: where another namespace had the address first, accepted \
                 are {MOST_SHARERS_OF_ONE} of one namespace, and {MOST_PORTS_OF_ONE} ports together"
            ),
        }
    }
}

/// Everyone who holds one address: one owner, or several with disjoint ports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Claim {
    grants: Vec<Grant>,
    /// The namespace of the first who was put into it.
    first: Option<String>,
}

impl Claim {
    /// The grants, ordered by owner.
    pub fn grants(&self) -> &[Grant] {
        &self.grants
    }

    /// The grant of one owner.
    pub fn grant(&self, owner: &Owner) -> Option<&Grant> {
        self.position(owner).ok().map(|at| &self.grants[at])
    }

    /// Who holds the address, in order.
    pub fn owners(&self) -> impl Iterator<Item = &Owner> {
        self.grants.iter().map(|grant| &grant.owner)
    }

    /// The holders that keep `owner` with these ports off the address.
    pub(crate) fn in_the_way(&self, owner: &Owner, sharing: Option<&Sharing>) -> Vec<Owner> {
        let blocks = |grant: &&Grant| grant.owner != *owner && !grant.fits(sharing);
        self.grants.iter().filter(blocks).map(|grant| grant.owner.clone()).collect()
    }

    /// Whether `owner` has room with these ports beside the others that are there, whatever the ports are. Who is there stays,
    /// and has room for as many ports as it has.
    ///
    /// # Errors
    /// What has no room.
    pub fn room(&self, owner: &Owner, sharing: Option<&Sharing>) -> Result<(), Full> {
        let one = |sharing: Option<&Sharing>| sharing.map_or(0, |all| all.ports.len());
        let own = self.grant(owner).map(|grant| one(grant.sharing.as_ref()));
        if own.is_some_and(|own| one(sharing) <= own) {
            return Ok(());
        }
        let beside = |grants: &mut dyn Iterator<Item = &Grant>| {
            let add =
                |(count, ports), grant: &Grant| (count + 1, ports + one(grant.sharing.as_ref()));
            grants.filter(|grant| grant.owner != *owner).fold((0, one(sharing)), add)
        };
        let there = usize::from(own.is_some());
        let (count, ports) = beside(&mut self.grants.iter());
        if count >= MOST_SHARERS || ports > MOST_PORTS {
            return Err(Full::Claim(count + there));
        }
        let namespace = owner.namespace.as_str();
        let of_one = |grant: &&Grant| grant.owner.namespace == namespace;
        let (count, ports) = beside(&mut self.grants.iter().filter(of_one));
        let is_first = self.first.as_deref() == Some(namespace);
        if !is_first && (count >= MOST_SHARERS_OF_ONE || ports > MOST_PORTS_OF_ONE) {
            return Err(Full::Namespace(namespace.to_owned(), count + there));
        }
        Ok(())
    }

    pub(crate) fn put(&mut self, grant: Grant) {
        self.first.get_or_insert_with(|| grant.owner.namespace.clone());
        match self.position(&grant.owner) {
            Ok(at) => self.grants[at] = grant,
            Err(at) => self.grants.insert(at, grant),
        }
    }

    pub(crate) fn take(&mut self, owner: &Owner) -> Option<Grant> {
        self.position(owner).ok().map(|at| self.grants.remove(at))
    }

    /// The namespaces of its holders.
    pub(crate) fn namespaces(&self) -> BTreeSet<&str> {
        self.grants.iter().map(|grant| grant.owner.namespace.as_str()).collect()
    }

    pub(crate) fn holds_for(&self, namespace: &str) -> bool {
        self.grants.iter().any(|grant| grant.owner.namespace == namespace)
    }

    /// All ports and the policy of the sharers; `None` while one of them takes the whole address.
    pub(crate) fn combined(&self) -> Option<Sharing> {
        let mut combined: Option<Sharing> = None;
        for grant in &self.grants {
            let sharing = grant.sharing.as_ref().filter(|sharing| !sharing.ports.is_empty())?;
            match &mut combined {
                Some(all) => all.ports.extend(sharing.ports.iter().copied()),
                None => combined = Some(sharing.clone()),
            }
        }
        combined
    }

    fn position(&self, owner: &Owner) -> Result<usize, usize> {
        self.grants.binary_search_by(|grant| grant.owner.cmp(owner))
    }
}

/// Counts by name: a name that falls to zero is forgotten.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tally(BTreeMap<String, u64>);

impl Tally {
    pub(crate) fn of(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn add(&mut self, name: &str) {
        match self.0.get_mut(name) {
            Some(count) => *count += 1,
            None => _ = self.0.insert(name.to_owned(), 1),
        }
    }

    pub(crate) fn sub(&mut self, name: &str) {
        if let Some(count) = self.0.get_mut(name) {
            *count -= 1;
            if *count == 0 {
                self.0.remove(name);
            }
        }
    }
}
