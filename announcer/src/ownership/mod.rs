//! Who may answer for an address: one decision, and the ways to come to it.
//!
//! | module | decides |
//! |---|---|
//! | `membership` | by grants of a majority of nodes, with a fence in the kernel |
//! | `leases` | by Leases in the API |
//! | `named` | by the one node that the object names |
//! | `everyone` | every candidate may: routers choose among them |
//!
//! `control_plane` says which part a node has in the election of the control plane's address, by the `health` of its own API
//! server; `announcing` whether it announces it where routers choose.
//!
//! `fence` says what the kernel's fence is to cover, and `backstop` until when, where Leases or names decide.

mod announcing;
pub mod backstop;
mod clearing;
mod context;
pub mod control_plane;
mod everyone;
mod fence;
pub mod health;
pub mod leases;
pub mod membership;
mod named;
#[cfg(test)]
pub(crate) mod testing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::{Duration, Instant};

pub use announcing::{Announcing, Answers, Whom};
pub use backstop::Backstop;
pub use clearing::turn;
pub use context::Context;
pub use control_plane::ControlPlane;
pub use everyone::Everyone;
pub use fence::{Fencing, Uncovered};
pub use leases::Leases;
pub use membership::Members;
pub use named::Named;

use berth_api::Few;

use crate::vip::{Attach, Claim, Holds, Name, Verdict, Wanted};

/// Who decides on some addresses: requests go in, events go in, holds come out.
#[derive(Debug)]
pub enum Ownership {
    /// Leases in the API.
    Leases(Box<Leases>),
    /// A majority of nodes.
    Membership(Box<Members>),
    /// The object itself.
    Named(Named),
    /// Nobody: all candidates may.
    Everyone(Box<Everyone>),
}

impl Ownership {
    /// This node as a member, where a majority decides.
    pub fn members(&mut self) -> Option<&mut Members> {
        match self {
            Self::Membership(members) => Some(members),
            _ => None,
        }
    }

    /// Whoever decides on what routers lead here.
    pub fn everyone(&mut self) -> Option<&mut Everyone> {
        match self {
            Self::Everyone(everyone) => Some(everyone),
            _ => None,
        }
    }

    /// What is known of the control plane, where routers lead its address here.
    pub fn announcing(&mut self) -> Option<&mut Announcing> {
        self.everyone().and_then(Everyone::announcing)
    }

    /// What is known of the API servers of the control plane, where it decides on their address.
    pub fn api_servers(&mut self) -> Option<&mut ControlPlane> {
        match self {
            Self::Leases(leases) => leases.control_plane(),
            Self::Everyone(everyone) => everyone.announcing().map(Announcing::own),
            Self::Membership(_) | Self::Named(_) => None,
        }
    }

    /// Whether it decides on what routers lead here, and not on what neighbours are told of.
    pub fn is_routed(&self) -> bool {
        matches!(self, Self::Everyone(_))
    }

    /// Takes in what is wanted.
    pub fn request(&mut self, context: Context<'_>, now: Instant) {
        match self {
            Self::Leases(leases) => {
                leases.look(now);
                leases.request(context);
            }
            Self::Membership(members) => members.request(context, now),
            Self::Named(named) => named.request(context, now),
            Self::Everyone(everyone) => everyone.request(context, now),
        }
    }

    /// What this node may have bound, and until when.
    pub fn holds(&self, context: Context<'_>, now: Instant) -> Holds {
        match self {
            Self::Leases(leases) => leases.holds(context, now),
            Self::Membership(members) => members.holds(now),
            Self::Named(named) => named.holds(context, now),
            Self::Everyone(everyone) => everyone.holds(context, now),
        }
    }

    /// What this node has or asks for: before its first use an address is asked for on the LAN.
    pub fn asked(&self, context: Context<'_>, now: Instant) -> BTreeSet<IpAddr> {
        match self {
            Self::Membership(members) => members.holdings().asked().collect(),
            _ => self.holds(context, now).into_keys().collect(),
        }
    }

    /// Whether it is sure that no other node of the cluster had an address before.
    pub fn is_first(&self, wanted: &Wanted, address: &IpAddr) -> bool {
        match self {
            Self::Membership(members) => members.holdings().is_first(address),
            Self::Leases(leases) => leases.is_first(wanted, address),
            _ => true,
        }
    }

    /// Whether no other node of this cluster may have an address.
    pub fn is_granted(&self, address: &IpAddr) -> bool {
        match self {
            Self::Membership(members) => members.holdings().is_granted(address),
            _ => true,
        }
    }

    /// Where a majority decides and none answers this node: the voters that do not, for people.
    pub fn unheard(&self) -> Option<Few> {
        match self {
            Self::Membership(members) => {
                let holdings = members.holdings();
                (!holdings.is_clear()).then(|| holdings.unheard())
            }
            _ => None,
        }
    }

    /// What becomes of the Services on which this node reports. `taken` tells which addresses another host has.
    pub fn verdicts(
        &self,
        context: Context<'_>,
        taken: &dyn Fn(&IpAddr) -> bool,
        now: Instant,
    ) -> BTreeMap<Name, Verdict> {
        match self {
            Self::Leases(leases) => leases.verdicts(context, now),
            Self::Membership(members) => members.verdicts(context, taken, now),
            Self::Everyone(everyone) => everyone.verdicts(context),
            Self::Named(_) => BTreeMap::new(),
        }
    }

    /// After how long this node is to take out of the status of a Service what is not its own to show, unless it is done by
    /// then; never where another node is to. It goes by nothing that the author of the Service writes: by who has the
    /// address, and else by who is alive.
    pub fn clears(
        &self,
        context: Context<'_>,
        name: &Name,
        claim: &Claim,
        now: Instant,
    ) -> Option<Duration> {
        match self {
            Self::Leases(leases) => leases.clears(context, name, claim, now),
            Self::Membership(members) => members.clears(name, claim, now),
            Self::Everyone(everyone) => everyone.clears(context, name),
            Self::Named(_) => None,
        }
    }

    /// Takes in what is bound by now, and what could be.
    pub fn confirm(
        &mut self,
        bound: impl Fn(IpAddr) -> Option<Attach>,
        bindable: impl Fn(IpAddr) -> Option<Attach>,
        now: Instant,
    ) {
        if let Self::Membership(members) = self {
            members.confirm(bound, bindable, now);
        }
    }

    /// Takes in that something changed which requests come of.
    pub fn touch(&mut self) {
        if let Self::Membership(members) = self {
            members.touch();
        }
    }

    /// Takes in that the API server was heard.
    pub fn hear(&mut self, now: Instant) {
        if let Self::Named(named) = self {
            named.hear(now);
        }
    }

    /// How far the lifetime of a bound address may fall behind the hold before it is renewed.
    pub fn slack(&self) -> Duration {
        match self {
            Self::Leases(leases) => leases.slack(),
            Self::Membership(members) => members.slack(),
            Self::Named(named) => named.slack(),
            Self::Everyone(everyone) => everyone.slack(),
        }
    }

    /// When something changes although nothing happens.
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        match self {
            Self::Membership(members) => members.deadline(now),
            Self::Named(named) => named.deadline(now),
            // The rest Leases say when they are polled.
            Self::Leases(leases) => leases.deadline(now),
            Self::Everyone(everyone) => everyone.deadline(now),
        }
    }

    /// From now on releases everything.
    pub fn leave(&mut self) {
        match self {
            Self::Leases(leases) => leases.leave(),
            Self::Membership(members) => members.leave(),
            Self::Named(named) => named.leave(),
            Self::Everyone(everyone) => everyone.leave(),
        }
    }

    /// Whether everything was released, as far as others are concerned.
    pub fn has_left(&self) -> bool {
        match self {
            Self::Leases(leases) => leases.has_left(),
            Self::Membership(members) => members.has_left(),
            Self::Named(_) | Self::Everyone(_) => true,
        }
    }
}
