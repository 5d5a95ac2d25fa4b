//! Owns the words of a decision: what is asked, what is given, and why not. The reasons never change their spelling.

use std::net::IpAddr;
use std::time::Duration;

use crate::counted::Counted;
use crate::grant::{Clash, Full, Owner, Sharing};
use crate::keys::{KeyError, Scope};
use crate::ledger::names;
use crate::range::Family;

/// `spec.ipFamilyPolicy` of a Service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum FamilyPolicy {
    /// One address, of the first family.
    #[default]
    SingleStack,
    /// One of each family if there is room for both, else one.
    PreferDualStack,
    /// One of each family, or none.
    RequireDualStack,
}

/// Which families an owner wants, in which order.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Families {
    /// How many.
    pub policy: FamilyPolicy,
    /// `spec.ipFamilies`. With one family in it, as on a single-stack cluster, `PreferDualStack` wants only that one.
    pub order: Vec<Family>,
}

impl Families {
    /// The policy over `spec.ipFamilies`.
    pub fn new(policy: FamilyPolicy, order: impl Into<Vec<Family>>) -> Self {
        Self { policy, order: order.into() }
    }

    /// One address of that family.
    pub fn single(family: Family) -> Self {
        Self::new(FamilyPolicy::SingleStack, [family])
    }

    /// The families wanted, without doubles. Nothing given means IPv4 first.
    pub fn wanted(&self) -> Vec<Family> {
        let first = self.order.first().copied().unwrap_or(Family::V4);
        let dual = match self.policy {
            FamilyPolicy::SingleStack => false,
            FamilyPolicy::PreferDualStack => {
                self.order.is_empty() || self.order.contains(&first.other())
            }
            FamilyPolicy::RequireDualStack => true,
        };
        if dual { vec![first, first.other()] } else { vec![first] }
    }
}

/// What an owner asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Who asks; its namespace decides pool and quota.
    pub owner: Owner,
    /// Which families.
    pub families: Families,
    /// Addresses that the user asked for. The first of each family counts; `0.0.0.0` and `::` ask for DHCP.
    pub pins: Vec<IpAddr>,
    /// Ports and policy; `None` takes whole addresses.
    pub sharing: Option<Sharing>,
    /// What the owner's object says that it has. The ledger knows the claims; this tells which of two claims of one
    /// family is the real one after a move that was cut short, and which families DHCP serves already.
    pub current: Vec<IpAddr>,
    /// What the owner holds and cannot use: it is to have other addresses in their place.
    pub shuns: Vec<IpAddr>,
}

impl Request {
    /// A request without pins, sharing or past.
    pub fn new(owner: Owner, families: Families) -> Self {
        let (pins, current, shuns) = Default::default();
        Self { owner, families, pins, sharing: None, current, shuns }
    }
}

/// The addresses that an owner is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// All of them, in the order of the families. At least one.
    pub addresses: Vec<Assigned>,
    /// What it holds and is to give back, after the others are announced or at once, as the caller sees fit.
    pub released: Vec<IpAddr>,
    /// What it asked for and does not get, for now. `AddressInUse` for an address that is kept means that the owner
    /// wants ports there which a sharer has: its old ports stay on the claim.
    pub refused: Vec<Refusal>,
}

/// One address of an [`Allocation`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    /// The address, or the DHCP marker of the family.
    pub address: IpAddr,
    /// Why this one.
    pub origin: Origin,
    /// The pool that has it.
    pub pool: Option<Scope>,
    /// Others hold it too: the claim is to be joined, not created.
    pub shared: bool,
}

/// Why an owner gets an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// It holds it already.
    Kept,
    /// The user asked for it.
    Pinned,
    /// It is the next of its pool.
    Pool,
    /// DHCP will find one. This is never claimed.
    Dhcp,
}

/// Why an owner does not get an address. [`Refusal::reason`] never changes its spelling.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Every address of the family is held, resting, reserved or left out.
    #[error("{scope} has no free {family} address{}", resting_note(.resting))]
    PoolExhausted {
        /// The first pool that was tried.
        scope: Scope,
        /// The family.
        family: Family,
        /// How many addresses of the pool only rest.
        resting: u64,
    },
    /// All that is left of the pool takes nothing new.
    #[error("{scope} is draining and hands out no {family} address")]
    PoolDraining {
        /// The pool.
        scope: Scope,
        /// The family.
        family: Family,
    },
    /// Neither the namespace nor everybody has a pool.
    #[error(
        "there is no pool: neither `cidr-{namespace}` nor `range-{namespace}` nor `cidr-global` nor `range-global` is set"
    )]
    NoPool {
        /// The namespace.
        namespace: String,
    },
    /// A key of the pool was never readable.
    #[error("{scope} hands out nothing: {error}")]
    InvalidPool {
        /// The pool.
        scope: Scope,
        /// The key.
        error: KeyError,
    },
    /// The pool has no address of the family, or the owner asked for an address of a family that it does not use.
    #[error("{family} is not available: {why}")]
    FamilyUnavailable {
        /// The family.
        family: Family,
        /// What is missing.
        why: String,
    },
    /// Somebody else holds the address that was asked for.
    #[error("{address} is held by {}{}{}", names(.holders), clash_note(.clash), sharing_note(.partners))]
    AddressInUse {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holders: Vec<Owner>,
        /// What keeps it from sharing it with one of them, who both may.
        clash: Option<Box<Clash>>,
        /// Where only the keys are in the way of sharing it: the namespace of the owner, and another one of the holders.
        partners: Option<(String, String)>,
    },
    /// Those who hold the address that was asked for take traffic where they have pods, as the owner does, and lead to others.
    #[error(
        "{address} is held by {}: both have `externalTrafficPolicy: Local`, one node answers for an address, and their \
         selectors differ, so it may have pods of one alone",
        names(.holders)
    )]
    NotServedTogether {
        /// The address.
        address: IpAddr,
        /// Who holds it.
        holders: Vec<Owner>,
    },
    /// So many share the address that was asked for that there is no room for one more.
    #[error("{address} {why}")]
    AddressFull {
        /// The address.
        address: IpAddr,
        /// What has no room.
        why: Full,
    },
    /// The address that was asked for is never given.
    #[error("{address} is not to be had: it belongs to {by}")]
    AddressReserved {
        /// The address.
        address: IpAddr,
        /// What keeps it.
        by: String,
    },
    /// The address that was asked for was given back a moment ago.
    #[error("{address} rests since {owner} gave it back")]
    AddressResting {
        /// The address.
        address: IpAddr,
        /// Who held it last.
        owner: Owner,
        /// When it is free, on the clock of the ledger.
        until: Duration,
    },
    /// The status of another shows the address that was asked for, and that one does not hold it.
    #[error(
        "{address} rests: the status of {by} still shows it, and what comes for it would be led there"
    )]
    AddressShown {
        /// The address.
        address: IpAddr,
        /// Whose status shows it.
        by: Owner,
    },
    /// The address that was asked for is none of those that the namespace may ask for.
    #[error("{address} may not be asked for: key `{key}` accepts {accepted}")]
    AddressNotAllowed {
        /// The address.
        address: IpAddr,
        /// The key.
        key: String,
        /// What it accepts, for people.
        accepted: String,
    },
    /// The namespace holds as many addresses as it may.
    #[error(
        "namespace {namespace} holds {} of the {quota} addresses that `{key}` allows{}",
        .counted.total(), counted_note(.counted)
    )]
    QuotaExceeded {
        /// The namespace.
        namespace: String,
        /// What counts against its quota.
        counted: Counted,
        /// How many it may hold.
        quota: u64,
        /// The key that says so.
        key: String,
    },
}

fn counted_note(Counted { resting, aside, shown, .. }: &Counted) -> String {
    let notes = [
        (resting, "rest after their release"),
        (aside, "are set aside, as another host answers for them"),
        (shown, "rest, as a status still shows them"),
    ];
    let notes = notes.into_iter().filter(|(count, _)| **count > 0);
    let notes: Vec<String> = notes.map(|(count, why)| format!("{count} of them {why}")).collect();
    if notes.is_empty() { String::new() } else { format!(" ({})", notes.join(", ")) }
}

fn clash_note(clash: &Option<Box<Clash>>) -> String {
    clash.as_ref().map(|clash| format!("; {clash}")).unwrap_or_default()
}

fn sharing_note(partners: &Option<(String, String)>) -> String {
    let Some((own, other)) = partners else { return String::new() };
    format!(
        "; their ports differ, and they share it where `share-with-{own}` names {other}, `share-with-{other}` names \
         {own}, and `allow-share-` is true for both"
    )
}

fn resting_note(resting: &u64) -> String {
    if *resting == 0 { String::new() } else { format!(" ({resting} rest after their release)") }
}

impl Refusal {
    /// The reason, as users see it in conditions, Events and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PoolExhausted { .. } => "PoolExhausted",
            Self::PoolDraining { .. } => "PoolDraining",
            Self::NoPool { .. } => "NoPool",
            Self::InvalidPool { .. } => "InvalidPool",
            Self::FamilyUnavailable { .. } => "FamilyUnavailable",
            Self::AddressInUse { .. }
            | Self::AddressFull { .. }
            | Self::NotServedTogether { .. } => "AddressInUse",
            Self::AddressReserved { .. } => "AddressReserved",
            Self::AddressResting { .. } | Self::AddressShown { .. } => "AddressResting",
            Self::AddressNotAllowed { .. } => "AddressNotAllowed",
            Self::QuotaExceeded { .. } => "QuotaExceeded",
        }
    }
}
