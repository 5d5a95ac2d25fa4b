//! Owns the words between deciding and writing: what is to be written, and what became of it.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use berth_api::NamespacedName;
use berth_ipam::{Owner, OwnerKind, Scope, Sharing};

use crate::binding::Decided;
use crate::claim::{Basis, Claim, Holder};
use crate::claimant::{Claimant, Id};
use crate::finalizers::Finalizers;

/// A write that the cluster needs.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Claim an address.
    CreateClaim {
        /// The address.
        address: IpAddr,
        /// Who is to hold it.
        owner: Owner,
        /// The pool it comes from.
        pool: Option<Scope>,
        /// How it came to be the owner's.
        basis: Basis,
    },
    /// Have an address together with those who have it.
    JoinClaim {
        /// The address.
        address: IpAddr,
        /// The claim: a later one of the same address is not touched.
        uid: String,
        /// Its version: nobody else has joined or left since.
        version: String,
        /// Who joins, or has joined and now uses other ports.
        owner: Owner,
        /// Its ports and policy, which fit beside the others.
        sharing: Sharing,
        /// The others, as they stay.
        others: Vec<Holder>,
        /// Where it stands among them and since when, if it has joined: who changes its ports does not come later by it.
        came: Option<(usize, i64)>,
        /// The uids of those who asked for this very address, with this one if it did.
        pinned: BTreeSet<String>,
    },
    /// Give an address back.
    LeaveClaim {
        /// The address.
        address: IpAddr,
        /// The claim: a later one of the same address is not touched.
        uid: String,
        /// Its version: nobody has joined since.
        version: String,
        /// Who leaves.
        owner: Owner,
        /// The others, as they stay. Without any the claim is deleted.
        others: Vec<Holder>,
        /// Whether to look first that the owner is gone: its watch may only be late.
        orphan: bool,
    },
    /// Bring a Service in line with its claims.
    PatchService {
        /// The Service.
        key: NamespacedName,
        /// Its uid: a later one of the same name is not touched.
        uid: String,
        /// Its version: a change that was not seen is not overwritten.
        version: String,
        /// What changes.
        change: Change,
    },
    /// Say in the status of a Service how it stands.
    PatchStatus {
        /// The Service.
        key: NamespacedName,
        /// Its uid.
        uid: String,
        /// Its version.
        version: String,
        /// How it stands.
        verdict: Verdict,
    },
    /// Say in the status of a Service that nobody announces it, or take that back.
    PatchAnnounced {
        /// The Service.
        key: NamespacedName,
        /// Its uid.
        uid: String,
        /// Its version.
        version: String,
        /// Why nobody does; none takes it back.
        silence: Option<Silence>,
    },
    /// List the Leases of announcers, of which the watch says that all are run out: it may hang.
    ListHosts,
    /// Put our finalizer on an EipBinding, or take it off.
    PatchEip {
        /// The EipBinding.
        key: NamespacedName,
        /// Its uid: a later one of the same name is not touched.
        uid: String,
        /// Its version: a change that was not seen is not overwritten.
        version: String,
        /// Its finalizers as they were seen.
        finalizers: Finalizers,
        /// Whether ours is to be among them.
        with_ours: bool,
    },
    /// Say in the status of an EipBinding what was decided.
    ApplyEip {
        /// The EipBinding.
        key: NamespacedName,
        /// Its uid.
        uid: String,
        /// Its version: so no two that both believe they lead count the same epoch.
        version: String,
        /// What was decided.
        decided: Decided,
        /// What of it is worth telling.
        news: Vec<News>,
    },
    /// Read a Service or EipBinding that is known to have changed, since the watch is late.
    Read {
        /// Which.
        id: Id,
    },
}

/// Something to tell once it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct News {
    /// Whether somebody should look at it.
    pub is_warning: bool,
    /// The stable reason.
    pub reason: &'static str,
    /// The same for people.
    pub note: String,
}

/// Whether a Service has its addresses, as its condition `berth.dev/AddressAllocated` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it has what it asks for.
    pub allocated: bool,
    /// The stable reason.
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
}

/// Why nobody announces a Service, as its condition `berth.dev/Announced` says where it is for berth-ccm to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silence {
    /// The stable reason: one of [`berth_api::reason::OF_SILENCE`].
    pub reason: &'static str,
    /// The same for people.
    pub message: String,
    /// Whether it is said for another reason than before, or anew: that is worth telling.
    pub is_news: bool,
}

/// What changes of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Its addresses, in the order of its families; empty when it is released.
    pub addresses: Vec<IpAddr>,
    /// Whether its annotation is to name them, or else stays as it is.
    pub annotates: bool,
    /// The interface to write, if any.
    pub interface: Option<String>,
    /// Its finalizers as they were seen. Ours is to be among them while it has addresses.
    pub finalizers: Finalizers,
    /// Whether it has other addresses than before, or none any more: that is worth telling.
    pub is_news: bool,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// The claim is now like this.
    Claimed(Claim),
    /// Others came first: the claim as they left it, or nothing known if it is not one of ours.
    Taken(Option<Claim>),
    /// The claim is gone.
    Released,
    /// The Service or EipBinding is now like this. Boxed, for it is much larger than the others.
    Claimant(Box<Claimant>),
    /// The nodes that have an announcer's Lease, and when each says that it was renewed.
    Hosts(Vec<(String, String)>),
    /// It does not exist.
    Missing,
    /// It changed since it was seen.
    Conflict,
    /// The API server is busy: not before this time has passed.
    Throttled(Duration),
    /// It may or may not have happened.
    Unknown(String),
    /// The API server will not have it.
    Refused(String),
    /// Nothing was sent: this process does not lead.
    NotLeading,
}

/// What no two writes may be under way for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Object {
    /// A Service or EipBinding.
    Claimant(Id),
    /// The claim of an address.
    Claim(IpAddr),
    /// The Leases of announcers.
    Hosts,
}

impl Write {
    /// What it writes to.
    pub fn object(&self) -> Object {
        match self {
            Self::CreateClaim { address, .. }
            | Self::JoinClaim { address, .. }
            | Self::LeaveClaim { address, .. } => Object::Claim(*address),
            Self::PatchService { key, .. }
            | Self::PatchStatus { key, .. }
            | Self::PatchAnnounced { key, .. } => Object::Claimant(Id::service(key)),
            Self::ListHosts => Object::Hosts,
            Self::PatchEip { key, .. } | Self::ApplyEip { key, .. } => {
                Object::Claimant(Id::eip(key))
            }
            Self::Read { id } => Object::Claimant(id.clone()),
        }
    }

    /// Verb and resource, as RBAC names them.
    pub fn kind(&self) -> (&'static str, &'static str) {
        match self {
            Self::CreateClaim { .. } => ("create", "ipaddresses"),
            Self::LeaveClaim { others, .. } if others.is_empty() => ("delete", "ipaddresses"),
            Self::JoinClaim { .. } | Self::LeaveClaim { .. } => ("patch", "ipaddresses"),
            Self::PatchService { .. } => ("patch", "services"),
            Self::PatchStatus { .. } | Self::PatchAnnounced { .. } => ("patch", "services/status"),
            Self::ListHosts => ("list", "leases"),
            Self::PatchEip { .. } => ("patch", "eipbindings"),
            Self::ApplyEip { .. } => ("patch", "eipbindings/status"),
            Self::Read { id } if id.kind == OwnerKind::Service => ("get", "services"),
            Self::Read { .. } => ("get", "eipbindings"),
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, resource) = self.kind();
        match self.object() {
            Object::Claimant(id) => write!(f, "{verb} {resource} {}", id.key),
            Object::Claim(address) => write!(f, "{verb} {resource} {address}"),
            Object::Hosts => write!(f, "{verb} {resource}"),
        }
    }
}

impl Outcome {
    /// One word for it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Claimed(_) | Self::Released | Self::Claimant(_) | Self::Hosts(_) => "done",
            Self::Taken(_) => "taken",
            Self::Missing => "missing",
            Self::Conflict => "conflict",
            Self::Throttled(_) => "throttled",
            Self::Unknown(_) => "unknown",
            Self::Refused(_) => "refused",
            Self::NotLeading => "not_leading",
        }
    }
}
